"""Trains the network of a configuration: `python -m model.train configs/cifar10.toml`.

Writes under `build/NAME/train/`: `checkpoint.pt` after every epoch (a killed run resumes from it),
`final.pt` (calibrated weights, what the exporter reads), `record.json` and TensorBoard logs.
"""

import copy
import json
import math
import os
import pickle
import platform
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from export.cli import one_line_errors
from export.config import Config, ConfigError, load_config
from model.data import HOLDOUT, load_cifar10
from model.network import Encoder, calibrate

MARGIN = 4  # pixels of random translation
QUICK, FINAL = 2000, 10000  # images for the statistics: of each epoch's validation, of the result


def augment(images: Tensor, generator: torch.Generator, pad: int) -> Tensor:
    """Random crops of the padded images and random flips; uint8 (n, c, h, w)."""
    n, _, height, width = images.shape
    padded = F.pad(images, (MARGIN,) * 4, value=pad)
    top, left = torch.randint(0, 2 * MARGIN + 1, (2, n, 1), generator=generator)
    rows = top + torch.arange(height)
    cols = left + torch.arange(width)
    flip = torch.rand(n, 1, generator=generator) < 0.5
    cols = torch.where(flip, cols.flip(1), cols)
    index = torch.arange(n)[:, None, None, None]
    channel = torch.arange(images.shape[1])[None, :, None, None]
    return padded[index, channel, rows[:, None, :, None], cols[:, None, None, :]]


def learning_rate(step: int, steps: int, peak: float) -> float:
    """One cycle: linear warm-up over the first tenth, then a cosine to zero."""
    warm = max(1, steps // 10)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@torch.no_grad()
def accuracy(encoder: Encoder, images: Tensor, labels: Tensor, batch: int = 250) -> float:
    """Share of right classes, in exact float32 evaluation mode."""
    encoder.eval()
    right = 0
    for x, y in zip(images.split(batch), labels.split(batch), strict=True):
        x = x.float().contiguous(memory_format=torch.channels_last)
        right += (encoder(x).argmax(1) == y).sum().item()
    return right / len(labels)


def _atomic_save(values, path: Path):
    torch.save(values, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


class Run:
    """One training run: model, optimizer, position; everything that a resume needs."""

    def __init__(self, config: Config, folder: Path, device: str, compiled: bool):
        torch.manual_seed(config.train.seed)
        self.config, self.folder, self.device = config, folder, device
        self.encoder = Encoder(config.network).to(device, memory_format=torch.channels_last)
        self.forward = torch.compile(self.encoder) if compiled else self.encoder
        recipe = config.train
        decayed = [p for p in self.encoder.parameters() if p.ndim > 1]
        free = [p for p in self.encoder.parameters() if p.ndim == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.weight_decay},
             {"params": free, "weight_decay": 0.0}], lr=recipe.learning_rate)
        self.epoch, self.curve, self.seconds = 0, [], 0.0

    def save(self):
        _atomic_save({"encoder": self.encoder.state_dict(), "epoch": self.epoch,
                      "optimizer": self.optimizer.state_dict(), "curve": self.curve,
                      "seconds": self.seconds}, self.folder / "checkpoint.pt")

    def resume(self):
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        try:
            state = torch.load(path, weights_only=True, map_location=self.device)
            self.encoder.load_state_dict(state["encoder"])
        except (RuntimeError, pickle.UnpicklingError, KeyError, EOFError) as error:
            raise ConfigError(f"{path}: cannot be resumed with this configuration; move it away "
                              f"to start anew: {str(error).splitlines()[0]}") from error
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.curve, self.seconds = state["epoch"], state["curve"], state["seconds"]

    def train_epoch(self, images: Tensor, labels: Tensor) -> float:
        """One pass over the data; order and augmentation depend on seed and epoch only."""
        recipe = self.config.train
        generator = torch.Generator().manual_seed(recipe.seed * 1000 + self.epoch)
        per_epoch = len(images) // recipe.batch
        order = torch.randperm(len(images), generator=generator)
        self.encoder.train()
        total = 0.0
        bar = tqdm(range(per_epoch), desc=f"epoch {self.epoch + 1}/{recipe.epochs}", leave=False)
        for k in bar:
            pick = order[k * recipe.batch:(k + 1) * recipe.batch]
            x = augment(images[pick], generator, self.config.network.pad).to(self.device)
            x = x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
            rate = learning_rate(self.epoch * per_epoch + k, recipe.epochs * per_epoch,
                                 recipe.learning_rate)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast(self.device, dtype=torch.bfloat16):
                logits = self.forward(x)
            loss = F.cross_entropy(logits, labels[pick].to(self.device),
                                   label_smoothing=recipe.label_smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += loss.item()
            bar.set_postfix(loss=f"{total / (k + 1):.3f}")
        return total / per_epoch


def train(config: Config, folder: Path, *, device: str = "cpu", compiled: bool = True,
          limit: int | None = None) -> dict:
    """Trains to the end (or from where a killed run was) and returns the record.

    `limit` takes only that many training images, for trying a recipe out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = load_cifar10("train")
    images = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    labels = torch.from_numpy(labels).long()
    held, held_labels = images[-HOLDOUT:], labels[-HOLDOUT:]
    images, labels = images[:-HOLDOUT][:limit], labels[:-HOLDOUT][:limit]
    run = Run(config, folder, device, compiled)
    run.resume()
    writer = SummaryWriter(folder / "logs")
    while run.epoch < config.train.epochs:
        start = time.perf_counter()
        loss = run.train_epoch(images, labels)
        run.epoch += 1
        run.seconds += time.perf_counter() - start
        # Statistics of bf16 sums and a moving network would make validation noisy: take exact ones.
        exact = copy.deepcopy(run.encoder)
        calibrate(exact, images[:QUICK].to(device))
        right = accuracy(exact, held.to(device), held_labels.to(device))
        run.curve.append([loss, right])
        run.save()
        writer.add_scalar("loss/train", loss, run.epoch)
        writer.add_scalar("accuracy/validation", right, run.epoch)
        for name, value in run.encoder.named_buffers():
            if name.endswith("shift"):
                writer.add_scalar(name, value, run.epoch)
        tqdm.write(f"epoch {run.epoch}: loss {loss:.4f}, validation {right:.2%}, "
                   f"{run.seconds / run.epoch:.0f} s per epoch")
    encoder = run.encoder.cpu()
    calibrate(encoder, images[:FINAL])
    right = accuracy(encoder, held, held_labels)
    _atomic_save(encoder.state_dict(), folder / "final.pt")
    record = {"config": config.model_dump(), "torch": torch.__version__, "device": device,
              "machine": platform.machine(), "seconds": round(run.seconds),
              "train_images": len(images), "curve": run.curve, "validation": right}
    part = folder / "record.json.part"
    part.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(part, folder / "record.json")
    return record


@one_line_errors
def main(
    config: Annotated[Path, typer.Argument(help="design, a TOML file")],
    output: Annotated[Path | None, typer.Option("-o", help="default: build/NAME/train")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda; default: cuda if there is one")] = "",
    compiled: Annotated[bool, typer.Option(help="use torch.compile")] = True,
    limit: Annotated[int | None, typer.Option(help="only so many training images")] = None,
):
    """Trains the design's network, resuming a run that was stopped."""
    design = load_config(config)
    record = train(design, output or Path("build") / design.name / "train",
                   device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
                   compiled=compiled, limit=limit)
    typer.echo(f"validation accuracy {record['validation']:.2%} after {len(record['curve'])} "
               f"epochs, {record['seconds']} s")


if __name__ == "__main__":
    typer.run(main)
