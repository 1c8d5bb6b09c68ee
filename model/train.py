"""Trains the network of a configuration.

First, for `teacher_epochs`, the network is trained with real weights and codes. From there the
codes are quantized, after `code_epochs` the weights too, for `epochs` in all, and the float network
is the teacher that the quantized one imitates (distillation, Hinton et al. 2015). Or all of them
imitate another one, through a table of :mod:`model.views`.

Writes under `build/NAME/train/`: `checkpoint.pt` after every epoch (a killed run resumes from it),
`final.pt` (calibrated weights, what the exporter reads), `record.json` and TensorBoard logs.
Several processes share the batches if `torchrun` starts them.
"""

import copy
import io
import json
import math
import os
import platform
import time
from collections.abc import Iterable
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from export.config import Config, ConfigError
from export.file import write_whole
from export.network import NetworkConfig
from model.allocator import keep_freed
from model.augment import augment
from model.begin import begin_with, first_network
from model.convert import load_state
from model.data import load_images
from model.muon import Muon
from model.network import Encoder, calibrate
from model.quant import Fused
from model.reals import autocast, reals
from model.views import TABLE, load_labels, show

QUICK, FINAL = 2000, 10000  # images for the statistics: of each epoch's validation, of the result


def learning_rate(progress: float, peak: float) -> float:
    """One cycle for `progress` from 0 to 1: linear warm-up over a tenth, then a cosine to zero."""
    if progress < 0.1:
        return peak * max(progress, 0.001) / 0.1
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))


@torch.no_grad()
def accuracy(encoder: Encoder, images: Tensor, labels: Tensor, batch: int = 250) -> float:
    """Share of right classes, in exact float32 evaluation mode."""
    encoder.eval()
    right = 0
    for x, y in zip(images.split(batch), labels.split(batch), strict=True):
        x = x.float().contiguous(memory_format=torch.channels_last)
        right += (encoder(x).argmax(1) == y).sum().item()
    return right / len(labels)


def atomic_save(values, path: Path):
    """Writes a checkpoint, whole or not at all."""
    content = io.BytesIO()
    torch.save(values, content)
    write_whole(path, content.getvalue())


@contextmanager
def resuming(path: Path):
    """Turns whatever a checkpoint that does not fit raises into a :class:`ConfigError`."""
    try:
        yield
    except (RuntimeError, LookupError, TypeError, AttributeError, ValueError,
            ArithmeticError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{path}: cannot be resumed with this configuration; move it away "
                          f"to start anew: {said}") from error


def optimizers_of(learned: Iterable[nn.Parameter], weight_decay: float) -> list[Optimizer]:
    """Muon (Jordan et al. 2024) for the weights, which here learns in half of AdamW's epochs.

    `weight_decay` also sets how fast they turn: standardized, they have no other scale.
    """
    learned = list(learned)
    matrices, vectors = [p for p in learned if p.ndim > 1], [p for p in learned if p.ndim < 2]
    return [Muon(matrices, weight_decay), torch.optim.AdamW(vectors, weight_decay=0.0)]


def position(run) -> dict:
    """Optimizers, epoch and curve, for a checkpoint."""
    return {"optimizers": [each.state_dict() for each in run.optimizers], "epoch": run.epoch,
            "curve": run.curve, "seconds": run.seconds}


def load_position(run, state: dict):
    """Optimizers, epoch and curve of a checkpoint."""
    for optimizer, values in zip(run.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(values)
    run.epoch, run.seconds = int(state["epoch"]), float(state["seconds"])
    run.curve = [[float(loss), right if right is None else float(right)]
                 for loss, right in state["curve"]]
    if len(run.curve) != run.epoch:
        raise ValueError(f"its curve must have {run.epoch} epochs, not {len(run.curve)}")


class Run:
    """One training run: model, optimizer, position; everything that a resume needs."""

    def __init__(self, config: Config, folder: Path, device: str, table: Tensor | None = None):
        torch.manual_seed(config.train.seed)
        self.table = table  # logits (views, images, classes)
        self.config, self.folder, self.device = config, folder, device
        self.encoder = self._new_encoder()
        self.teacher = None
        self.optimizers = optimizers_of(self.encoder.parameters(), self.config.train.weight_decay)
        self.epoch, self.curve, self.seconds = 0, [], 0.0
        self.began = None  # the digest of the network that it began with
        self.rank, self.world = 0, 1
        self.forward = self.encoder
        if dist.is_initialized():
            self.rank, self.world = dist.get_rank(), dist.get_world_size()
            self.forward = DistributedDataParallel(self.encoder)

    def _new_encoder(self) -> Encoder:
        encoder = Encoder(self.config.network, self.config.train)
        return encoder.to(self.device, memory_format=torch.channels_last)

    def _frozen_copy(self, state: dict) -> Encoder:
        copy = self._new_encoder()
        copy.load_state_dict(state)
        copy.quantize(weights=False, codes=False)
        return copy.eval().requires_grad_(False)

    def save(self):
        atomic_save({"encoder": self.encoder.state_dict(),
                     "teacher": self.teacher and self.teacher.state_dict(),
                     "began": self.began} | position(self),
                    self.folder / "checkpoint.pt")

    def resume(self):
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = load_state(path)
        with resuming(path):
            self.began = state.get("began")
            self.encoder.load_state_dict(state["encoder"])
            if state["teacher"]:
                self.teacher = self._frozen_copy(state["teacher"])
            load_position(self, state)

    def begin_phase(self, images: Tensor):
        """Rounds what this epoch rounds; where the teacher's epochs end, keeps it."""
        recipe = self.config.train
        quantized = self.epoch - recipe.teacher_epochs  # epochs with rounded codes so far
        if quantized == 0 and recipe.teacher_epochs:
            if self.world > 1:  # all processes go on from the same statistics
                for buffer in self.encoder.buffers():
                    dist.broadcast(buffer, 0)
            self.teacher = self._frozen_copy(self.encoder.state_dict())
            calibrate(self.teacher, images[:QUICK])
            self.optimizers = optimizers_of(self.encoder.parameters(), recipe.weight_decay)
        self.encoder.quantize(codes=quantized >= 0, weights=quantized >= recipe.code_epochs)
        if self.epoch and quantized == recipe.code_epochs:  # real ones had no step to learn
            for part in self.encoder.parts.values():
                part.equalize()

    def rate(self, progress: float) -> float:
        """Learning rate after `progress` epochs: one cycle for the teacher, one for the rest."""
        recipe = self.config.train
        if progress < recipe.teacher_epochs:
            return learning_rate(progress / recipe.teacher_epochs, recipe.teacher_learning_rate)
        return learning_rate((progress - recipe.teacher_epochs) / recipe.epochs,
                             recipe.learning_rate)

    def loss(self, x: Tensor, labels: Tensor, taught: Tensor | None) -> Tensor:
        """`taught` are a table's logits (n, classes)."""
        recipe = self.config.train
        with autocast(torch.device(self.device).type):
            logits = self.forward(x)
            if taught is None and self.teacher is not None:
                with torch.no_grad():
                    taught = self.teacher.head.logits(self.teacher(x))
        hard = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        if taught is None:
            return hard
        t = recipe.temperature
        soft = F.kl_div(F.log_softmax(logits / t, 1), F.log_softmax(taught / t, 1),
                        log_target=True, reduction="batchmean")
        return (1 - recipe.distillation) * hard + recipe.distillation * t**2 * soft

    def inputs(self, images: Tensor, pick: Tensor, crop: int,
               generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """What the images `pick` are shown as, and the logits of the table, if there is one."""
        recipe, chosen = self.config.train, images[pick]
        if self.table is None:
            x = augment(chosen, generator, self.config.network.pad, crop, recipe.cutout)
            return x, None
        view = torch.randint(0, len(self.table), (len(pick),), generator=generator)
        x, taught = show(chosen, view), self.table[view.to(pick.device), pick].float()
        if crop:  # inside the view, and at the same place in all of a batch
            top, left = (torch.randint(0, full - crop + 1, (), generator=generator)
                         for full in x.shape[2:])
            x = x[:, :, top:top + crop, left:left + crop]
        return x, taught

    def train_epoch(self, images: Tensor, labels: Tensor) -> float:
        """One pass over the data; order and augmentation depend on seed and epoch only."""
        recipe = self.config.train
        generator = torch.Generator().manual_seed(recipe.seed * 1000 + self.epoch)
        per_epoch = len(images) // recipe.batch
        full = self.epoch >= recipe.teacher_epochs + recipe.epochs - recipe.full_epochs
        crop = 0 if full else recipe.crop
        order = torch.randperm(len(images), generator=generator)
        self.begin_phase(images)
        self.encoder.train()
        total = 0.0
        name = f"epoch {self.epoch + 1}/{recipe.teacher_epochs + recipe.epochs}"
        bar = tqdm(range(per_epoch), desc=name, leave=False, disable=self.rank > 0)
        for k in bar:
            pick = order[k * recipe.batch:(k + 1) * recipe.batch][self.rank::self.world]
            pick = pick.to(images.device)
            x, taught = self.inputs(images, pick, crop, generator)
            x = x.to(reals(x.device.type)).contiguous(memory_format=torch.channels_last)
            loss = self.loss(x, labels[pick], taught)
            self.encoder.zero_grad()
            loss.backward()
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = self.rate(self.epoch + k / per_epoch)
                optimizer.step()
            total += loss.item()
            bar.set_postfix(loss=f"{total / (k + 1):.3f}")
        return total / per_epoch


def load_tensors(network: NetworkConfig, split: str, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Images uint8 (n, c, h, w) and labels (n,) of `train`, `validation` or `test`."""
    images, labels = load_images(network, split)
    images = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return images.to(device), torch.from_numpy(labels).to(device)


def train(config: Config, folder: Path, *, device: str = "cpu", compiled: bool = True,
          limit: int | None = None, table: Path = TABLE, begin: Path | None = None) -> dict:
    """Trains to the end (or from where a killed run was) and returns the record.

    `limit` takes only that many training images, for trying a recipe out. `table` is read if the
    recipe's teacher is one. A new run begins with the network in `begin`, if there is one.

    Raises
    ------
    ConfigError
        If the images, the table or the network do not fit, a checkpoint cannot be resumed, or the
        loss is no number.
    """
    images, labels = load_tensors(config.network, "train", device)
    taught = None
    if config.train.teacher == "table":
        taught = load_labels(table, labels, config.network.classes).to(device)
    images, labels = images[:limit], labels[:limit]
    held, held_labels = load_tensors(config.network, "validation", device)
    if len(images) < config.train.batch:
        raise ConfigError(f"train.batch must be at most the {len(images)} training images, "
                          f"not {config.train.batch}")
    folder.mkdir(parents=True, exist_ok=True)
    keep_freed()
    Fused.enabled = compiled
    run = Run(config, folder, device, taught)
    run.resume()
    if begin and (network := first_network(begin, folder, run.began, fresh=not run.epoch)):
        begin_with(run.encoder, network, images[:QUICK])
        run.began = network.digest
    with SummaryWriter(folder / "logs") if run.rank == 0 else nullcontext() as writer:
        while run.epoch < config.train.teacher_epochs + config.train.epochs:
            start = time.perf_counter()
            loss = run.train_epoch(images, labels)
            if not math.isfinite(loss):
                raise ConfigError(
                    f"{folder}: the loss of epoch {run.epoch + 1} is {loss}, wanted a number to "
                    f"learn from; checkpoint.pt is of the epoch before")
            run.epoch += 1
            run.seconds += time.perf_counter() - start
            if run.rank > 0:
                continue
            right = None
            if run.epoch % config.train.validate_every == 0:
                # Statistics of bf16 sums and a moving network would be noisy: take exact ones.
                exact = copy.deepcopy(run.encoder)
                calibrate(exact, images[:QUICK])
                right = accuracy(exact, held, held_labels)
                writer.add_scalar("accuracy/validation", right, run.epoch)
            run.curve.append([loss, right])
            run.save()
            writer.add_scalar("loss/train", loss, run.epoch)
            for name, value in run.encoder.named_buffers():
                if name.endswith("shift"):
                    writer.add_scalar(name, value, run.epoch)
            validation = "" if right is None else f", validation {right:.2%}"
            tqdm.write(f"epoch {run.epoch}: loss {loss:.4f}{validation}, "
                       f"{run.seconds / run.epoch:.0f} s per epoch")
    if run.rank > 0:
        return {}
    encoder = run.encoder.cpu()
    calibrate(encoder, images[:FINAL].cpu())
    right = accuracy(encoder, held.cpu(), held_labels.cpu())
    atomic_save(encoder.state_dict(), folder / "final.pt")
    record = {"command": f"hexlane train configs/{config.name}.toml",
              "config": config.model_dump(), "python": platform.python_version(),
              "torch": torch.__version__, "device": device, "processes": run.world,
              "machine": platform.machine(), "seconds": round(run.seconds), "began": run.began,
              "train_images": len(images), "curve": run.curve, "validation": right}
    write_whole(folder / "record.json", (json.dumps(record, indent=1) + "\n").encode())
    return record


def train_alone_or_together(config: Config, folder: Path, *, device: str = "", **how) -> dict:
    """:func:`train`, in one process or as one of those that `torchrun` starts."""
    found = "cuda" if torch.cuda.is_available() else "cpu"
    device = device or found
    if device not in ("cpu", found):
        raise ConfigError(f"device must be cpu, or cuda where there is one, not {device!r:.60}")
    if "LOCAL_RANK" in os.environ:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
        if device == "cuda":
            device = f"cuda:{os.environ['LOCAL_RANK']}"
    record = train(config, folder, device=device, **how)
    if dist.is_initialized():
        dist.destroy_process_group()
    return record
