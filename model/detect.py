"""Trains a network whose map of values says where boxes are.

Each class has a map of scores that is to be 1 where a box has its centre, and less around it
(CenterNet, Zhou et al. 2019); the loss is its focal loss, and 1 - GIoU (Rezatofighi et al. 2019)
of the boxes that the cells at the centres give. At first the network has real numbers; then its
codes are rounded, then its weights. Writes under `build/NAME/train/`, see :mod:`model.steps`.
"""

import copy
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from export.checked import ConfigError
from export.config import Config
from export.detect import OCTAVE, UNIT, Boxes, Decoding, cell_of, decode
from model.boxes import Sample, augmented, load_samples, whole
from model.network import MOMENTUM, Encoder, calibrate
from model.precision import measure, shown
from model.quant import Fused
from model.reals import autocast, reals
from model.steps import StepRun, Validation
from model.train import learning_rate, optimizers_of

SLOWEST = 0.002  # momentum of the head's statistics, at the end
FIRST = 32  # images for the statistics that training begins with
QUICK, FINAL = 64, 256  # ... for those of each validation, of the last one
AT_ONCE = 8
RARE = -4.0  # logit of a score, to begin with: most cells are no centre
GAINS = 0.5, 0.06  # of scores and of box codes, to begin with
SPREAD, NARROWEST = 0.09, 0.5  # of a centre, in shares of the box's sides; in cells, at least
NEAR = 0.3  # of the height of a centre: cells from there on learn the box
SPANS = 4.0, 3.0  # of a centre in cells, of a size in octaves: what box codes are limited to


class Targets:
    """What the maps of a batch of samples, in the network's size, are to be.

    `heat` (n, classes, h, w) is 1 in the cell of a centre; `corners` (n, 4, h, w), in cells, and
    `prior` (n, 2, h, w), its logarithm in octaves, are those of the box whose centre is nearest;
    `weight` (n, h, w) is 0 where there is none near.
    """

    def __init__(self, samples: list[Sample], shape: tuple[int, int], cell: int, priors: Tensor):
        height, width = shape
        n, classes = len(samples), len(priors)
        self.heat = torch.zeros(n, classes, height, width)
        self.corners = torch.zeros(n, 4, height, width)
        self.prior = torch.zeros(n, 2, height, width)
        self.weight = torch.zeros(n, height, width)
        for k, sample in enumerate(samples):
            if len(sample.classes):
                self._one(k, sample.corners / cell, sample.classes, priors)

    def _one(self, k: int, corners: Tensor, classes: Tensor, priors: Tensor):
        height, width = self.weight.shape[1:]
        size = corners[:, 2:] - corners[:, :2]
        at = ((corners[:, :2] + corners[:, 2:]) / 2).floor()
        at = at.minimum(torch.tensor([width - 1.0, height - 1.0]))
        sigma = (SPREAD * size).clamp_min(NARROWEST)
        dx = (torch.arange(width) - at[:, :1]) / sigma[:, :1]
        dy = (torch.arange(height) - at[:, 1:]) / sigma[:, 1:]
        near = torch.exp(-(dx.square()[:, None, :] + dy.square()[:, :, None]) / 2)
        for number in classes.unique():
            self.heat[k, number] = near[classes == number].amax(0)
        highest, nearest = near.max(0)
        self.weight[k] = torch.where(highest >= NEAR, highest, 0.0)
        self.corners[k] = corners[nearest].permute(2, 0, 1)
        self.prior[k] = priors[classes[nearest]].permute(2, 0, 1)


def focal(logits: Tensor, heat: Tensor) -> Tensor:
    """CenterNet's focal loss of scores (n, classes, h, w), per centre."""
    centre = heat == 1
    right, wrong = F.logsigmoid(logits), F.logsigmoid(-logits)
    share = logits.sigmoid()
    loss = torch.where(centre, (1 - share).square() * right,
                       (1 - heat).pow(4) * share.square() * wrong)
    return -loss.sum() / centre.sum().clamp_min(1)


def giou(one: Tensor, other: Tensor) -> Tensor:
    """Generalized intersection over union, (n, ...), of corners (n, 4, ...)."""
    low, high = torch.maximum(one[:, :2], other[:, :2]), torch.minimum(one[:, 2:], other[:, 2:])
    common = (high - low).clamp_min(0).prod(1)
    union = sum((each[:, 2:] - each[:, :2]).prod(1) for each in (one, other)) - common
    around = (torch.maximum(one[:, 2:], other[:, 2:])
              - torch.minimum(one[:, :2], other[:, :2])).prod(1)
    return common / union.clamp_min(1e-6) - (around - union) / around.clamp_min(1e-6)


def corners_of(codes: Tensor, prior: Tensor) -> Tensor:
    """Corners (n, 4, h, w) in cells, of box codes (n, 4, h, w): centre in cells, size in octaves
    more than `prior` (n, 2, h, w)."""
    height, width = codes.shape[2:]
    x = torch.arange(width).expand(height, width)
    y = torch.arange(height)[:, None].expand(height, width)
    centre = torch.stack([x, y]) + 0.5 + codes[:, :2].clamp(-SPANS[0], SPANS[0])
    half = torch.exp2(prior + codes[:, 2:].clamp(-SPANS[1], SPANS[1])) / 2
    return torch.cat([centre - half, centre + half], 1)


def priors_of(samples: list[Sample], classes: tuple[str, ...]) -> Tensor:
    """The usual width and height (classes, 2) of each class, in the samples' pixels: geometric
    means. ConfigError if a class has no boxes."""
    corners = torch.cat([each.corners for each in samples])
    numbers = torch.cat([each.classes for each in samples])
    logarithms = (corners[:, 2:] - corners[:, :2]).log2()
    for number, name in enumerate(classes):
        if not (numbers == number).any():
            raise ConfigError(f"classes must have boxes to learn from, not {name!r}: there is none "
                              f"in the {len(samples)} training images")
    return torch.stack([logarithms[numbers == k].mean(0) for k in range(len(classes))]).exp2()


class Run(StepRun):
    """One training run: model, optimizers, position; everything that a resume needs."""

    def __init__(self, config: Config, folder: Path, priors: Tensor):
        recipe, network = config.detect, config.network
        super().__init__(recipe, folder)
        self.network, self.priors = network, priors
        self.classes = len(recipe.classes)
        self.cell = cell_of(network, self.classes, config.name)
        self.size = network.height, network.width
        self.grid = network.shapes[network.operations[-1].name].size
        self.encoder = Encoder(network).to(memory_format=torch.channels_last)
        with torch.no_grad():
            self.encoder.head.beta[:self.classes] = RARE
            self.encoder.head.log_gain[:self.classes] = math.log(GAINS[0])
            self.encoder.head.log_gain[self.classes:] = math.log(GAINS[1])
        self.optimizers = optimizers_of(self.encoder.parameters(), recipe.weight_decay)

    def batch(self, samples: list[Sample], count: int, generator: torch.Generator) -> list[Sample]:
        picks = torch.randint(0, len(samples), (count,), generator=generator).tolist()
        return [augmented(samples[k], self.size, self.recipe, self.network.pad, generator)
                for k in picks]

    def loss(self, samples: list[Sample]) -> Tensor:
        x = torch.stack([each.image for each in samples]).to(reals())
        with autocast():
            values = self.encoder(x.contiguous(memory_format=torch.channels_last)).float()
        wanted = Targets(samples, self.grid, self.cell, (self.priors / self.cell).log2())
        boxes = corners_of(values[:, self.classes:], wanted.prior)
        missed = (1 - giou(boxes, wanted.corners)) * wanted.weight
        return (focal(values[:, :self.classes], wanted.heat)
                + self.recipe.box_weight * missed.sum() / wanted.weight.sum().clamp_min(1))

    def train_step(self, samples: list[Sample]) -> float:
        """One batch; what it is depends on seed and step only."""
        recipe = self.recipe
        generator = torch.Generator().manual_seed(recipe.seed * 10**9 + self.step)
        self.encoder.quantize(codes=self.step >= recipe.float_steps,
                              weights=self.step >= recipe.float_steps + recipe.code_steps)
        batch = self.batch(samples, recipe.batch, generator)
        if self.step == 0:
            first = self.batch(samples, FIRST, generator)
            calibrate(self.encoder, torch.stack([each.image for each in first]), AT_ONCE)
        rate = learning_rate(self.step / recipe.steps, 1.0)
        self.encoder.train()
        self.encoder.head.momentum = max(MOMENTUM * rate, SLOWEST)
        return self.learn(self.loss(batch), [recipe.learning_rate * rate] * len(self.optimizers))

    def exact(self, samples: list[Sample]) -> Encoder:
        """The encoder as it is exported, with the exact statistics of some of these images."""
        encoder = copy.deepcopy(self.encoder)
        count = FINAL if self.step == self.recipe.steps else QUICK
        images = [whole(each, self.size).image for each in samples[:count]]
        calibrate(encoder, torch.stack(images), AT_ONCE)
        return encoder

    def decoding(self) -> Decoding:
        """How boxes are made of what :meth:`exact` gives."""
        head, recipe = self.encoder.head, self.recipe
        gain = head.gain.detach().double()
        units = [self.cell * UNIT] * 2 + [OCTAVE] * 2
        gains = [max(1, min(2**20, round(256 * each * unit)))
                 for each, unit in zip(gain[self.classes:].tolist(), units, strict=True)]
        logit = torch.logit(torch.tensor(recipe.threshold, dtype=torch.float64), 1e-6)
        thresholds = (logit / gain[:self.classes]).round().clamp(-128, 127).int().tolist()
        priors = (self.priors * UNIT).round().int().clamp_min(1).tolist()
        return Decoding(classes=recipe.classes, priors=priors, gains=gains, thresholds=thresholds,
                        nms=recipe.nms)


@torch.no_grad()
def boxes_of(encoder: Encoder, images: list[Tensor], decoding: Decoding, cell: int) -> list[Boxes]:
    """Of images uint8 (c, h, w) in the network's size; exact float32."""
    encoder.eval()
    values = (encoder(each[None].float())[0].to(torch.int8).numpy() for each in images)
    return [decode(each, decoding, cell) for each in values]


def train(config: Config, folder: Path, *, compiled: bool = True,
          limit: int | None = None) -> dict:
    """Trains to the end (or from where a killed run was) and returns the record.

    `limit` takes only that many training images, for trying a recipe out.

    Raises
    ------
    ConfigError
        If the design has no recipe for this, the images or boxes do not fit, a checkpoint cannot be
        resumed, or the loss is no number.
    """
    recipe = config.detect
    if recipe is None:
        raise ConfigError(f"{config.name}: a network that gives values is trained to find boxes: "
                          f"the design must have a table [detect], with classes")
    Fused.enabled = compiled
    samples = load_samples(config.network, recipe.classes, "train", limit)
    size = config.network.height, config.network.width
    run = Run(config, folder, priors_of([whole(each, size) for each in samples], recipe.classes))
    held = [whole(each, size) for each in load_samples(config.network, recipe.classes,
                                                       "validation")]

    def validate() -> Validation:
        encoder, decoding = run.exact(samples), run.decoding()
        found = measure(boxes_of(encoder, [each.image for each in held], decoding, run.cell),
                        [(each.corners, each.classes) for each in held], recipe.classes)
        return Validation({"encoder": encoder}, {name: found[name] for name in ("map50", "map")},
                          {"validation": found, "detection": decoding.model_dump()}, shown(found))

    counts = {"train_images": len(samples), "validation_images": len(held)}
    return run.train(config, samples, counts, validate)
