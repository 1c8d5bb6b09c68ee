"""A float network that labels images for the quantized ones: what is distilled.

The shape is that of airbench (Jordan 2024, "94 % on CIFAR-10 in 3.29 seconds on a single GPU"):
fixed 2x2 filters that whiten, then three blocks of two 3x3 convolutions; optimizer, loss and sizes
are ours. It is trained on the images that are not held out. Its logits for the views of
:mod:`model.views` are computed once.
"""

import hashlib
import io
import json
import math
import platform
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from export.checked import ConfigError
from export.file import HEADER_LIMIT, archived, read_member, write_whole
from export.network import NetworkConfig
from model.augment import holes
from model.convert import load_state
from model.reals import autocast, reals
from model.train import (
    atomic_save,
    load_position,
    load_tensors,
    optimizers_of,
    position,
    resuming,
)
from model.views import SHIFTS, TABLE, Table, load_table, move, save_table, show

WIDTHS = 128, 384, 384
BATCH = 250
EPOCHS = 15
WIDEST = 4096  # channels of a block
LEARNING_RATE, WEIGHT_DECAY = 0.012, 0.1
SHIFT, CUTOUT = 4, 12  # pixels of random translation, side of the hole in each training image


class Block(nn.Module):
    """Two 3x3 convolutions, the first one pooled; each with a shift per channel and a GELU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.shapes = (outputs, inputs, 3, 3), (outputs, outputs, 3, 3)
        # A row per output channel, as the optimizer wants it.
        self.weights = nn.ParameterList(
            torch.randn(shape).div(math.sqrt(math.prod(shape[1:]))).flatten(1)
            for shape in self.shapes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(2))
        for norm in self.norms:
            norm.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        for k, (weight, shape, norm) in enumerate(zip(self.weights, self.shapes, self.norms,
                                                      strict=True)):
            x = F.conv2d(x, weight.view(shape), padding=1)
            x = F.gelu(norm(F.max_pool2d(x, 2) if k == 0 else x))
        return x


class Teacher(nn.Module):
    """Images (n, 3, 32, 32), 0 ... 255, to logits (n, classes)."""

    def __init__(self, classes: int = 10, widths: tuple[int, int, int] = WIDTHS):
        super().__init__()
        self.register_buffer("whiten", torch.zeros(24, 3, 2, 2))
        self.whiten_bias = nn.Parameter(torch.zeros(24))
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in
                                      zip((24, *widths), widths, strict=False)))
        self.head = nn.Parameter(torch.randn(classes, widths[-1]) / math.sqrt(widths[-1]))

    @torch.no_grad()
    def set_whitening(self, images: Tensor):
        """Filters that make 2x2 patches of `images` white; each once as is and once negated."""
        patches = F.unfold(images.float() / 255 - 0.5, 2).transpose(1, 2).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + 5e-4).sqrt()).T.reshape(12, 3, 2, 2)
        self.whiten.copy_(torch.cat([filters, -filters]))

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(F.conv2d(x / 255 - 0.5, self.whiten, self.whiten_bias))
        x = self.blocks(x).amax((2, 3)).float()
        return F.linear(x, self.head) / 4


class Run:
    """One training: network, optimizers, position; saved after every epoch."""

    def __init__(self, folder: Path, images: Tensor, seed: int, epochs: int):
        torch.manual_seed(seed)
        self.folder, self.seed, self.epochs = folder, seed, epochs
        self.teacher = Teacher().to(memory_format=torch.channels_last)
        self.teacher.set_whitening(images[:5000])
        self.optimizers = optimizers_of(
            (p for p in self.teacher.parameters() if p.requires_grad), WEIGHT_DECAY)
        self.epoch, self.curve, self.seconds = 0, [], 0.0

    def save(self):
        atomic_save({"teacher": self.teacher.state_dict()} | position(self),
                    self.folder / "checkpoint.pt")

    def resume(self):
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = load_state(path)
        with resuming(path):
            self.teacher.load_state_dict(state["teacher"])
            load_position(self, state)

    def train_epoch(self, forward, images: Tensor, labels: Tensor) -> float:
        """One pass; order and augmentation depend on seed and epoch only."""
        generator = torch.Generator().manual_seed(self.seed * 1000 + self.epoch)
        order = torch.randperm(len(images), generator=generator)
        # Each image is mirrored in every other epoch, beginning with a random one.
        first = torch.rand(len(images), generator=torch.Generator().manual_seed(self.seed)) < 0.5
        flips = first ^ bool(self.epoch % 2)
        steps, total = len(images) // BATCH, 0.0
        self.teacher.train()
        for k in tqdm(range(steps), desc=f"epoch {self.epoch + 1}/{self.epochs}", leave=False):
            pick = order[k * BATCH:(k + 1) * BATCH]
            dy, dx = torch.randint(-SHIFT, SHIFT + 1, (2, BATCH), generator=generator)
            x = move(images[pick], dy, dx, flips[pick])
            x = x.masked_fill(holes(BATCH, x.shape[2:], CUTOUT, generator), 128)  # gray
            x = x.to(reals()).contiguous(memory_format=torch.channels_last)
            progress = (self.epoch + k / steps) / self.epochs
            rate = LEARNING_RATE * min(progress / 0.1 + 0.01, (1 - progress) / 0.9)
            with autocast():
                loss = F.cross_entropy(forward(x).float(), labels[pick])
            self.teacher.zero_grad()
            loss.backward()
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.step()
            total += loss.item()
        return total / steps


@torch.no_grad()
def logits(teacher: nn.Module, images: Tensor, batch: int = 500) -> Tensor:
    """Logits float32 (n, classes) in evaluation mode."""
    found = []
    for x in images.split(batch):
        x = x.to(reals()).contiguous(memory_format=torch.channels_last)
        with autocast():
            found.append(teacher(x).float())
    return torch.cat(found)


def train_teacher(folder: Path, images: Tensor, labels: Tensor, held: Tensor, held_labels: Tensor,
                  *, seed: int = 1, epochs: int = EPOCHS, compiled: bool = False) -> dict:
    """Trains to the end, or from where a killed run was, and returns the record.

    Images are uint8 (n, 3, 32, 32). Writes `checkpoint.pt` after every epoch, at the end
    `teacher.npz` and `record.json`.

    Raises
    ------
    ConfigError
        If there are fewer images than a batch has, a checkpoint cannot be resumed, or the loss is
        no number any more.
    """
    if len(images) < BATCH:
        raise ConfigError(f"wanted at least {BATCH} training images, got {len(images)}")
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder, images, seed, epochs)
    run.resume()
    forward = torch.compile(run.teacher) if compiled else run.teacher
    while run.epoch < epochs:
        start = time.perf_counter()
        loss = run.train_epoch(forward, images, labels)
        if not math.isfinite(loss):
            raise ConfigError(f"{folder}: the loss of epoch {run.epoch + 1} is {loss}, wanted a "
                              f"number to learn from; checkpoint.pt is of the epoch before")
        run.seconds += time.perf_counter() - start
        run.epoch += 1
        run.teacher.eval()
        right = (logits(run.teacher, held).argmax(1) == held_labels).float().mean().item()
        run.curve.append([loss, right])
        run.save()
        tqdm.write(f"epoch {run.epoch}: loss {loss:.4f}, validation {right:.2%}, "
                   f"{run.seconds / run.epoch:.0f} s per epoch")
    record = {"seed": seed, "epochs": epochs, "widths": WIDTHS, "curve": run.curve,
              "seconds": round(run.seconds), "validation": run.curve[-1][1],
              "train_images": len(images), "torch": torch.__version__,
              "python": platform.python_version(), "machine": platform.machine()}
    save_teacher(run.teacher, folder / "teacher.npz", record)
    (folder / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def label_views(path: Path, images: Tensor, table: Path):
    """Writes the table of what the teacher of a file says of `images` in each of `SHIFTS`.

    It is written after every shift: a stopped one goes on, one of another teacher is replaced.
    """
    teacher, _ = load_teacher(path)
    teacher = teacher.to(memory_format=torch.channels_last)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    found = Table(np.zeros((0, len(images), len(teacher.head)), np.float32), digest)
    if table.exists():
        old = load_table(table)
        if old.teacher == digest and old.logits.shape[1:] == found.logits.shape[1:]:
            found = old
    for k in tqdm(range(len(found.logits), len(SHIFTS)), desc="shifts", leave=False):
        said = torch.stack([logits(teacher, show(images, torch.full((len(images),), view)))
                            for view in (k, k + len(SHIFTS))]).mean(0)
        found = Table(np.concatenate([found.logits, said.numpy()[None]]), digest)
        save_table(found, table)


def save_teacher(teacher: Teacher, path: Path, record: dict):
    """Writes one `.npz` file without pickles: matrices in 8 bits with a scale per row, the rest as
    it is, the record as JSON."""
    arrays = {"record": np.frombuffer(json.dumps(record).encode(), np.uint8)}
    for name, value in teacher.state_dict().items():
        values = value.detach().cpu().float().numpy()
        if values.ndim == 2:
            scale = np.abs(values).max(1, keepdims=True) / 127 + 1e-12
            arrays[f"{name}.scale"] = scale.astype(np.float32)
            values = np.round(values / scale).astype(np.int8)
        arrays[name] = values
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    write_whole(path, file.getvalue())


def load_teacher(path: Path) -> tuple[Teacher, dict]:
    """The teacher of a file, in evaluation mode, and its record.

    Raises
    ------
    ConfigError
        If the file is none, or of a teacher of other sizes.
    """
    with archived(path, "a teacher") as archive:
        record = json.loads(read_member(archive, "record", HEADER_LIMIT).tobytes())
        widths = tuple(record["widths"])
        if not all(isinstance(width, int) and 0 < width <= WIDEST for width in widths):
            raise ConfigError(f"widths must be integers from 1 to {WIDEST}, not {widths!r:.60}")
        teacher, state, names = Teacher(10, widths), {}, archive.namelist()
        for name, wanted in teacher.state_dict().items():
            values = read_member(archive, name, 8 * wanted.numel())
            if f"{name}.scale.npy" in names:
                scale = read_member(archive, f"{name}.scale", 4 * len(wanted))
                values = values.astype(np.float32) * scale
            state[name] = torch.from_numpy(np.array(values))
        teacher.load_state_dict(state)
    return teacher.eval(), record


def train_on_cifar10(folder: Path, file: Path | None = None, **how) -> dict:
    """As :func:`train_teacher`, on the images that are not held out, and writes its table.

    With a teacher's `file` it trains none and writes the table of that one.
    """
    record = load_teacher(file)[1] if file else None
    size = NetworkConfig(height=32, width=32, channels=3, classes=10, layers=[
        {"name": "a", "channels": 1, "weight_bits": 1, "code_bits": 1}])
    images, labels = load_tensors(size, "train")
    if not file:
        record = train_teacher(folder, images, labels, *load_tensors(size, "validation"), **how)
    folder.mkdir(parents=True, exist_ok=True)
    label_views(file or folder / "teacher.npz", images, folder / TABLE.name)
    return record
