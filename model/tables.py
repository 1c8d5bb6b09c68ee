"""What the bits of an encoder of transforms stand for: the first part of their decoder."""

import numpy as np
import torch
from torch import Tensor, nn

from export.transforms import TransformsConfig

RIDGE = 1e-3  # of the patches' number, on the levels' squares


class Tables(nn.Module):
    """Bits (n, bits), each -1, 1, or 0 if it was cut off, to patches (n, pixels), 0 ... 255.

    Each class has, of each coefficient, a value for each of its levels, and a matrix that makes a
    patch of the values. Of what was cut off it takes the mean of what it may have been.
    """

    def __init__(self, config: TransformsConfig, pixels: int):
        super().__init__()
        self.config = config
        classes, slots = config.classes, len(config.slots)
        most = max(each.levels for each in config.fields[1:])
        self.values = nn.Parameter(torch.zeros(classes, slots, most))
        self.matrix = nn.Parameter(torch.zeros(classes, slots, pixels))
        self.offset = nn.Parameter(torch.zeros(classes, pixels))
        self.means = nn.Parameter(torch.zeros(config.fields[0].levels))

    @torch.no_grad()
    def fit(self, patches: Tensor, codes: Tensor, chosen: Tensor):
        """Least squares for patches (n, pixels), of codes of an encoder's first layer (n, inputs).

        A class is fitted to those patches that are `chosen` (n,) to be of it.
        """
        levels, mean_level = self.levels(codes)
        for level in range(len(self.means)):
            low = (level + 0.5) * 256 / len(self.means)
            own = patches[mean_level == level].mean() if (mean_level == level).any() else low
            self.means[level] = own
        for k in range(self.config.classes):
            own = chosen == k
            centred = patches[own] - patches[own].mean(1, keepdim=True)
            self._fit_class(k, centred, levels[own, k].long())

    @torch.no_grad()
    def errors(self, patches: Tensor, codes: Tensor) -> Tensor:
        """The squared error (n, classes) that each class would leave of patches (n, pixels)."""
        levels, mean_level = self.levels(codes)
        mean = patches.mean(1, keepdim=True)
        centred = patches - mean
        errors = [(self._patches(k, levels[:, k]) - centred).square().sum(1)
                  for k in range(self.config.classes)]
        rest = mean[:, 0] - self.means[mean_level]
        return torch.stack(errors, 1) + (patches.shape[1] * rest.square())[:, None]

    def levels(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Levels uint8 (n, classes, slots) of the coefficients that the first layer's codes say,
        and those int64 (n,) of the mean."""
        config, at, found = self.config, 0, []
        for _ in range(config.classes):
            for field, ramps in enumerate(config.fields[1:], 1):
                found.append(self._level(codes[:, at:at + ramps.count], field).to(torch.uint8))
                at += ramps.count
        return (torch.stack(found, 1).view(len(codes), config.classes, -1),
                self._level(codes[:, at:], 0))

    def _level(self, codes: Tensor, field: int) -> Tensor:
        ends = torch.tensor(self.config.fields[field].thresholds)
        return (codes.sum(1, dtype=torch.int32)[:, None] >= ends).sum(1)

    def _patches(self, k: int, levels: Tensor) -> Tensor:
        """Of a class, without their means."""
        values = self.values[k].gather(1, levels.long().T).T
        return values @ self.matrix[k] + self.offset[k]

    def _fit_class(self, k: int, centred: Tensor, levels: Tensor):
        """Values are positions of the levels; what these are worth is in the matrix."""
        most = self.values.shape[2]
        self.values[k] = torch.arange(most).float() - (most - 1) / 2
        for _ in range(3):  # matrix for values, then values for the matrix
            values = self.values[k].gather(1, levels.T).T
            known = torch.cat([values, torch.ones(len(values), 1)], 1)
            square = known.T @ known + RIDGE * len(known) * torch.eye(known.shape[1])
            found = torch.linalg.solve(square, known.T @ centred)
            self.matrix[k], self.offset[k] = found[:-1], found[-1]
            onto = (centred - self.offset[k]) @ self.matrix[k].T
            rows = self.matrix[k] @ self.matrix[k].T
            for slot in range(levels.shape[1]):
                left = onto[:, slot] - values @ rows[slot]
                step = torch.zeros(most).index_add_(0, levels[:, slot],
                                                    left / rows[slot, slot].clamp_min(1e-9))
                count = torch.bincount(levels[:, slot], minlength=most)
                self.values[k, slot] += step / count.clamp_min(1)
                values[:, slot] = self.values[k, slot][levels[:, slot]]

    def forward(self, bits: Tensor) -> Tensor:
        config, at = self.config, self.config.class_bits
        numbers = np.arange(config.classes)[:, None] >> np.arange(at)[::-1]
        chance = _chances(bits[:, :at], numbers & 1 == 1)
        places = [[0] * each.bits for each in config.fields]
        for position, (field, bit) in enumerate(config.order):
            places[field][bit] = at + position
        mean, *slots = (_chances(bits[:, where], ramps.gray)
                        for where, ramps in zip(places, config.fields, strict=True))
        most = self.values.shape[2]
        slots = torch.stack([nn.functional.pad(each, (0, most - each.shape[1])) for each in slots],
                            1)
        values = torch.einsum("nsl,ksl->nks", slots, self.values) * chance[:, :, None]
        made = values.flatten(1) @ self.matrix.flatten(0, 1) + chance @ self.offset
        return made + (mean @ self.means)[:, None]


def _chances(bits: Tensor, codes: np.ndarray) -> Tensor:
    """How likely each of `codes` bool [levels, width] is for bits (n, width), where 0 may be
    either."""
    signs = torch.from_numpy(codes).to(bits) * 2 - 1
    chances = ((1 + bits[:, None] * signs) / 2).prod(2)
    return chances / chances.sum(1, keepdim=True).clamp_min(1e-9)
