"""Codes that a trunk, which is not trained any more, gives of clips: computed once, kept in bits.

What is behind the trunk is small, so it learns from them in a fraction of the time.
"""

import hashlib
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from export.clips import TrunkConfig
from model.convert import load_state
from model.network import Encoder
from model.train import atomic_save, resuming

PART = 1300  # clips in a file
AT_ONCE = 13
PLACES = torch.arange(8, dtype=torch.uint8)  # of a byte's bits


def packed(codes: Tensor, bits: int) -> Tensor:
    """Codes uint8 (n, ...) in bytes (n, *), their lowest bits first."""
    planes = torch.stack([codes.flatten(1) >> k & 1 for k in range(bits)], 1)
    planes = F.pad(planes, (0, -planes.shape[2] % 8))
    return (planes.unflatten(2, (-1, 8)) << PLACES).sum(3, dtype=torch.uint8).flatten(1)


def unpacked(packs: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """What :func:`packed` had, of that shape without n."""
    planes = (packs[..., None] >> PLACES & 1).view(len(packs), bits, -1)[..., :math.prod(shape)]
    return sum(planes[:, k] << k for k in range(bits)).unflatten(1, shape)


class Kept:
    """Codes of the trunk's last operation, by the number of the clip."""

    def __init__(self, packs: Tensor, labels: Tensor, bits: int, shape: tuple[int, ...], seed: int):
        self.packs, self.labels = packs, labels
        self.bits, self.shape, self.seed = bits, shape, seed

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, numbers) -> tuple[Tensor, Tensor]:
        """Codes uint8 (n, ticks, channels, h, w), maps with their channels last; classes (n,)."""
        n = len(numbers)
        codes = unpacked(self.packs[numbers], self.bits, self.shape).flatten(0, 1)
        return (codes.contiguous(memory_format=torch.channels_last).unflatten(0, (n, -1)),
                self.labels[numbers])

    def batch(self, step: int, count: int) -> tuple[Tensor, Tensor]:
        """The same of `count` of them, or of all that there are; each once, then again."""
        count = min(count, len(self))
        epoch, place = divmod(step, len(self) // count)
        generator = torch.Generator().manual_seed(self.seed * 10**9 + epoch)
        order = torch.randperm(len(self), generator=generator)
        return self.part(order[place * count:(place + 1) * count])


@torch.no_grad()
def keep_codes(encoder: Encoder, source, trunk: TrunkConfig, seed: int, folder: Path) -> Kept:
    """Computes them for clips of `source`, in exact float32, or reads those that `folder` has."""
    network = encoder.network
    operation, name = network.by_name[trunk.to], trunk_digest(encoder, trunk.to)
    encoder.eval()
    packs, classes = [], []
    for first in range(0, clips := min(trunk.clips, len(source)), PART):
        end = min(first + PART, clips)
        path = folder / f"{name}-{first}-{end}.pt"
        if not path.exists():
            codes, labels = [], []
            for number in range(first, end, AT_ONCE):
                x, y = source.part(range(number, min(number + AT_ONCE, end)))
                codes.append(encoder(x.float(), stop=trunk.to).to(torch.uint8))
                labels.append(y)
            codes = torch.cat(codes)
            folder.mkdir(exist_ok=True)
            atomic_save({"codes": packed(codes, operation.code_bits), "labels": torch.cat(labels),
                         "shape": list(codes.shape[1:])}, path)
        state = load_state(path)
        with resuming(path):
            packs.append(state["codes"])
            classes.append(state["labels"])
            shape = tuple(state["shape"])
    return Kept(torch.cat(packs), torch.cat(classes), operation.code_bits, shape, seed)


def trunk_digest(encoder: Encoder, to: str) -> str:
    """Of all numbers up to the operation `to`, 16 hex digits of SHA-256."""
    digest, names = hashlib.sha256(), list(encoder.parts)
    for name in names[:names.index(to) + 1]:
        for values in encoder.parts[name].state_dict().values():
            digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:16]
