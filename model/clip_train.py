"""Trains a network that reads clips to classify them, stage by stage.

At first the network has real numbers; then the codes of its convolutions are rounded, then their
weights, at last all that is in its cells. A recipe with a trunk then trains what is behind it, on
codes that are kept (:mod:`model.clip_trunk`). The loss counts the scores at every tick, later ones
more. Clips are drawn by :mod:`model.gestures`, each of them once, or come from the folder
`HEXLANE_CLIPS`, see :mod:`model.clips`. Writes under `build/NAME/train/`, see :mod:`model.steps`.
"""

import copy
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from export.checked import ConfigError
from export.clips import ClipsConfig, clip_scores, remembers
from export.config import Config
from export.network import PIXELS, NetworkConfig
from model import gestures
from model.clip_baselines import told_apart
from model.clip_trunk import AT_ONCE, PART, Kept, keep_codes
from model.clips import load_clips
from model.network import Encoder, calibrate
from model.quant import Fused
from model.reals import autocast, reals
from model.steps import StepRun, Validation
from model.train import learning_rate, optimizers_of

FIRST = 26  # clips for the statistics that training begins with
QUICK, FINAL = 52, 260  # ... for those of each validation, of the last one
ENDLESS = 2**31


class Drawn:
    """Clips of a split of :mod:`model.gestures`, by number."""

    pairs, classes = gestures.PAIRS, gestures.CLASSES

    def __init__(self, network: NetworkConfig, recipe: ClipsConfig, split: str,
                 limit: int | None = None):
        size = (recipe.frames, network.channels, network.height, network.width)
        wanted = (gestures.FRAMES, 3, gestures.HEIGHT, gestures.WIDTH)
        if (size, network.classes) != (wanted, len(gestures.CLASSES)):
            raise ConfigError(
                f"clips that are drawn must be read as {'x'.join(map(str, wanted))} and "
                f"{len(gestures.CLASSES)} classes, not as {'x'.join(map(str, size))} and "
                f"{network.classes}; HEXLANE_CLIPS may name others")
        self.recipe, self.split, self.limit = recipe, split, limit
        self.seed = recipe.seed if split == "train" else 1  # all are measured on the same clips

    def __len__(self) -> int:
        """How many of the split count."""
        return getattr(self.recipe, self.split, self.limit or ENDLESS)

    def batch(self, step: int, count: int) -> tuple[Tensor, Tensor]:
        """Clips uint8 (count, frames, channels, h, w) and classes (count,), new ones each step."""
        recipe, numbers = self.recipe, range(step * count, (step + 1) * count)
        hard = recipe.difficulty * min(1, step / recipe.easy_steps if recipe.easy_steps else 1)
        made = [gestures.clip(self.split, number % self.limit if self.limit else number,
                              self.seed, hard) for number in numbers]
        return _stacked(made)

    def part(self, numbers: range) -> tuple[Tensor, Tensor]:
        """Clips of these numbers, at full difficulty, and their classes."""
        return _stacked([gestures.clip(self.split, number, self.seed, self.recipe.difficulty)
                         for number in numbers])


class Folder:
    """Clips of a split of the folder `HEXLANE_CLIPS`, at random."""

    pairs = ()

    def __init__(self, network: NetworkConfig, recipe: ClipsConfig, split: str,
                 limit: int | None = None):
        self.clips = load_clips(split, recipe.frames, (network.height, network.width))
        if (3, len(self.clips.classes)) != (network.channels, network.classes):
            raise ConfigError(f"clips of HEXLANE_CLIPS must be read as 3 channels and "
                              f"{len(self.clips.classes)} classes, not as {network.channels} and "
                              f"{network.classes}")
        self.recipe, self.count = recipe, min(limit or len(self.clips), len(self.clips))
        self.classes = self.clips.classes

    def __len__(self) -> int:
        return self.count

    def batch(self, step: int, count: int) -> tuple[Tensor, Tensor]:
        """As of :class:`Drawn`."""
        generator = torch.Generator().manual_seed(self.recipe.seed * 10**9 + step)
        picks = torch.randint(0, self.count, (count,), generator=generator).tolist()
        return _stacked([self.clips[pick] for pick in picks])

    def part(self, numbers: range) -> tuple[Tensor, Tensor]:
        """As of :class:`Drawn`; those that there are."""
        return _stacked([self.clips[k] for k in numbers if k < self.count])


def source_of(network: NetworkConfig, recipe: ClipsConfig | None, split: str,
              limit: int | None = None) -> Drawn | Folder:
    """The clips of a split, at most `limit`; ConfigError without a recipe, or if they do not fit.
    """
    if recipe is None:
        raise ConfigError("a network that reads clips needs a table [clips] in its design, which "
                          "says what clips")
    kind = Folder if os.environ.get("HEXLANE_CLIPS") else Drawn
    return kind(network, recipe, split, limit)


def _stacked(made: list) -> tuple[Tensor, Tensor]:
    clips, labels = zip(*made, strict=True)
    return torch.stack(list(map(torch.from_numpy, clips))), torch.tensor(labels)


class Run(StepRun):
    """One training run: model, optimizers, position; everything that a resume needs."""

    def __init__(self, config: Config, folder: Path):
        super().__init__(config.clips, folder)
        self.network = config.network
        self.encoder = Encoder(config.network)
        self.optimizers = optimizers_of(self.encoder.parameters(), self.recipe.weight_decay)
        self.remembers = remembers(config.network)
        self.kept: Kept | None = None  # the trunk's codes, when it is not trained any more

    def begin_stage(self):
        """Rounds what this step rounds."""
        recipe = self.recipe
        code = recipe.float_steps
        weight = code + recipe.code_steps
        self.encoder.quantize(codes=self.step >= code, weights=self.step >= weight,
                              cells=self.step >= weight + recipe.weight_steps)

    def sample(self, source: Drawn | Folder) -> Tensor:
        """The clips that statistics are made of at first."""
        return source.part(range(FIRST))[0]

    def loss(self, clips: Tensor, labels: Tensor, start: str = PIXELS) -> Tensor:
        """Of clips, or of what the operation `start` gives of them."""
        with autocast():
            logits = self.encoder(clips.to(reals()), start)  # which pixels are exact in
        logits = logits.float()
        ticks = logits.shape[1]
        each = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(ticks),
                               label_smoothing=self.recipe.label_smoothing, reduction="none")
        # Without a cell nothing is remembered, and all ticks count alike for the class, too.
        power = self.recipe.tick_power if self.remembers else 0
        share = (torch.arange(1.0, ticks + 1) / ticks) ** power
        return (each.view(-1, ticks) @ (share / share.sum())).mean()

    def train_step(self, source: Drawn | Folder) -> float:
        """One batch; what it is depends on seed and step only."""
        recipe = self.recipe
        self.begin_stage()
        if self.step >= recipe.whole_steps:
            return self._step_behind(source)
        clips, labels = source.batch(self.step, recipe.batch)
        if self.step == 0 and not self.began:
            calibrate(self.encoder, self.sample(source), AT_ONCE)
        rate = learning_rate(self.step / recipe.whole_steps, recipe.learning_rate)
        self.encoder.train()
        return self.learn(self.loss(clips, labels), [rate] * len(self.optimizers))

    def _step_behind(self, source: Drawn | Folder) -> float:
        """One batch of what is behind the trunk, whose statistics are exact from now on."""
        trunk, step = self.recipe.trunk, self.step - self.recipe.whole_steps
        if self.kept is None:
            calibrate(self.encoder, source.part(range(FINAL))[0], AT_ONCE, stop=trunk.to)
            self.kept = keep_codes(self.encoder, source, trunk, self.recipe.seed, self.folder)
        codes, labels = self.kept.batch(step, trunk.batch)
        rate = learning_rate(step / trunk.steps, trunk.learning_rate)
        self.encoder.train()
        return self.learn(self.loss(codes, labels, trunk.to), [rate] * len(self.optimizers))

    def exact(self, source: Drawn | Folder) -> Encoder:
        """The encoder as it is exported, with the exact statistics of some of these clips."""
        encoder = copy.deepcopy(self.encoder)
        if self.kept:
            codes = self.kept.part(range(min(PART, len(self.kept))))[0]
            calibrate(encoder, codes, AT_ONCE, start=self.recipe.trunk.to)
        else:
            count = FINAL if self.step == self.recipe.steps else QUICK
            calibrate(encoder, source.part(range(count))[0], AT_ONCE)
        return encoder


@torch.no_grad()
def scores_of(encoder: Encoder, clips: Tensor) -> Tensor:
    """Scores (n, classes) of whole clips uint8 (n, frames, channels, h, w); exact float32."""
    encoder.eval()
    found = [clip_scores(encoder.network, encoder(part.float()))
             for part in clips.split(AT_ONCE)]
    return torch.cat(found)


def measure(scores, labels, pairs) -> dict[str, float]:
    """Of scores (n, classes): share of right classes; and how often the right member of a pair gets
    more, if any are."""
    scores, labels = torch.as_tensor(scores), torch.as_tensor(labels)
    found = {"accuracy": (scores.argmax(1) == labels).float().mean().item()}
    if pairs:
        found["pairs"] = told_apart(scores[:, None], labels, pairs)
    return found


def shown(found: dict[str, float]) -> str:
    """A measure in words."""
    pairs = f", pairs told apart {found['pairs']:.2%}" if "pairs" in found else ""
    return f"accuracy {found['accuracy']:.2%}{pairs}"


def train(config: Config, folder: Path, *, compiled: bool = True,
          limit: int | None = None, begin: Path | None = None) -> dict:
    """Trains to the end (or from where a killed run was) and returns the record.

    `limit` takes only that many training clips, for trying a recipe out. A new run begins with the
    network in `begin`, if there is one.

    Raises
    ------
    ConfigError
        If the design has no recipe for this, the clips do not fit, a checkpoint cannot be resumed,
        or the loss is no number.
    """
    recipe = config.clips
    source = source_of(config.network, recipe, "train", limit)
    held = source_of(config.network, recipe, "validation").part(range(recipe.validation))
    Fused.enabled = compiled
    run = Run(config, folder)

    def validate() -> Validation:
        encoder = run.exact(source)
        found = measure(scores_of(encoder, held[0]), held[1], source.pairs)
        return Validation({"encoder": encoder}, found, {"validation": found}, shown(found))

    counts = {"clips": type(source).__name__.lower(), "validation_clips": len(held[1])}
    return run.train(config, source, counts, validate, begin)
