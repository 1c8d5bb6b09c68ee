"""Finds the transforms of an encoder: a mixture of Karhunen-Loeve transforms, and integers for it.

Each class of patches has a mean and the eigenvectors of its covariance. Patches go to the class
that leaves the least error once their coefficients are quantized, and classes are found again, as
k-means does (Dony and Haykin 1995). Eigenvectors are rounded to few integers so that what is wrong
with them lies where the class has no energy: one weight after the other, each error carried on to
those that are left (as GPTQ does, Frantar et al. 2023), then weight by weight, while that helps.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from export.transforms import Ramps, TransformsConfig

ROUNDS = 16  # of finding classes
FEWEST = 800  # patches of a class; one with fewer gets some of the class with the most error
SHIFT = 9  # of the first layer: a step is 2^9 of a sum
LONGEST = 1.5  # of a vector's largest weight before it is rounded
SWEEPS = 3  # of rounding weight by weight
FLOOR = 1.3  # of a mean squared error, for the weight of a picture; what means of six bits leave
RIDGE = 1e-3  # of the mean energy, so that what no patch has is not free


@dataclass(frozen=True)
class Quantizer:
    """Of numbers of standard deviation 1: thresholds `step` apart, levels that are means."""

    ramps: Ramps
    step: float
    levels: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        level = (values / self.step + self.ramps.middle).floor() - (self.ramps.thresholds[0] - 1)
        return self.levels[level.clamp(0, len(self.levels) - 1).long()]


def quantizer(ramps: Ramps, samples: np.ndarray) -> Quantizer:
    """That with the least squared error for these samples."""
    best = None
    for step in np.linspace(0.1, 1.6, 61):
        level = np.floor(samples / step + ramps.middle) - (ramps.thresholds[0] - 1)
        level = level.clip(0, ramps.levels - 1).astype(int)
        count = np.bincount(level, minlength=ramps.levels).clip(1)
        levels = np.bincount(level, samples, ramps.levels) / count
        error = np.square(samples - levels[level]).mean()
        if best is None or error < best[0]:
            best = error, step, levels
    return Quantizer(ramps, float(best[1]), torch.from_numpy(best[2]).float())


def quantizers(config: TransformsConfig) -> list[Quantizer]:
    """Of each coefficient; half of the samples are of a normal, half of a Laplace distribution."""
    rng = np.random.default_rng(1)
    samples = np.concatenate([rng.normal(size=50000), rng.laplace(size=50000) / np.sqrt(2)])
    found = {bits: quantizer(Ramps(bits), samples) for bits in set(config.slots)}
    return [found[bits] for bits in config.slots]


def moments(patches: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [inputs], and covariance float64 [inputs, inputs]; patches count by `weights` (n,)."""
    shares = weights / weights.sum()
    mean = shares @ patches
    centred = (patches - mean) * shares.sqrt()[:, None]
    return mean, (centred.T @ centred).double()


def weights_of(errors: Tensor, pictures: Tensor) -> Tensor:
    """What each patch (n,) counts: more in a picture of a smaller mean error, as the mean of the
    pictures' PSNR has it. `errors` are mean squared ones; `pictures` (n,) says which each is of."""
    total = torch.zeros(int(pictures.max()) + 1).index_add_(0, pictures, errors)
    mean = total / torch.bincount(pictures).clamp_min(1)
    return 1 / (mean + FLOOR)[pictures]


@dataclass(frozen=True)
class Transform:
    """Of one class: mean [inputs], vectors [slots, inputs], standard deviations [slots]."""

    mean: Tensor
    vectors: Tensor
    deviations: Tensor

    @classmethod
    def of(cls, patches: Tensor, weights: Tensor, slots: int) -> "Transform":
        """Of the patches of a class, each without its own mean, which count by `weights` (n,)."""
        mean, square = moments(patches, weights)
        energy, vectors = torch.linalg.eigh(square)
        energy, vectors = energy.flip(0)[:slots], vectors.flip(1)[:, :slots]
        return cls(mean, vectors.T.float(), energy.clamp_min(1e-3).sqrt().float())

    def error(self, patches: Tensor, by: list[Quantizer]) -> Tensor:
        """The squared error of each patch."""
        values = patches @ self.vectors.T - self.vectors @ self.mean
        left = patches.square().sum(1) - 2 * patches @ self.mean + self.mean.square().sum()
        left -= values.square().sum(1)
        for k, each in enumerate(by):
            scaled = values[:, k] / self.deviations[k]
            wrong = scaled - each(scaled)
            left += (wrong * self.deviations[k]).square()
        return left


def mixture(patches: Tensor, pictures: Tensor,
            config: TransformsConfig) -> tuple[list[Transform], Tensor, Tensor]:
    """Transforms, and of each of the patches [n, inputs], which have a mean of zero, the class and
    what it counts. `pictures` (n,) says which picture each patch is of.

    At first classes are those of equal energy.
    """
    by, count = quantizers(config), config.classes
    least = patches.square().sum(1)
    order, weights = least.argsort(), weights_of(least / patches.shape[1], pictures)
    share = (least * weights)[order].cumsum(0)
    chosen = torch.empty(len(patches), dtype=torch.int64)
    chosen[order] = (share / share[-1] * count).long().clamp_max(count - 1)

    def transform(k: int) -> Transform:
        own = chosen == k
        return Transform.of(patches[own], weights[own], len(config.slots))

    for _ in range(ROUNDS):
        found = [transform(k) for k in range(count)]
        errors = torch.stack([each.error(patches, by) for each in found], 1)
        least, chosen = errors.min(1)
        weights = weights_of(least / patches.shape[1], pictures)
        for k in range(count):
            if (chosen == k).sum() < min(FEWEST, len(patches) // (4 * count)):
                of = torch.zeros(count).index_add_(0, chosen, least * weights)
                worst = (chosen == of.argmax()).nonzero()[:, 0]
                chosen[worst[::2]] = k
    return [transform(k) for k in range(count)], chosen, weights


def rounded(vectors: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """-1, 0 and 1 in place of vectors [n, inputs], in a class with these second moments [inputs,
    inputs]."""
    inputs = len(energy)
    energy = energy + np.eye(inputs) * (np.trace(energy) / inputs * RIDGE)
    onward = np.linalg.cholesky(np.linalg.inv(energy)).T
    left, made = vectors.copy(), np.zeros_like(vectors)
    for k in range(inputs):
        made[:, k] = left[:, k].round().clip(-1, 1)
        left[:, k + 1:] -= np.outer((left[:, k] - made[:, k]) / onward[k, k], onward[k, k + 1:])
    slope = (made - vectors) @ energy
    for k in np.tile(np.arange(inputs), SWEEPS):
        better = (made[:, k] - slope[:, k] / energy[k, k]).round().clip(-1, 1)
        move = better - made[:, k]
        move[move * (2 * slope[:, k] + move * energy[k, k]) >= 0] = 0
        made[:, k] += move
        slope += np.outer(move, energy[k])
    return made


def integers(transform: Transform, square: Tensor, config: TransformsConfig) -> np.ndarray:
    """A class's vectors in integers [slots, inputs], scaled to its steps; `square` is the
    covariance of its patches, with their means."""
    scale = []
    for each, deviation, vector in zip(quantizers(config), transform.deviations, transform.vectors,
                                       strict=True):
        longest = LONGEST / vector.abs().max().item()
        fits = 2**SHIFT / (each.step * deviation.item())
        scale.append(longest if len(each.levels) == 2 else min(fits, longest))
    vectors = transform.vectors.double().numpy() * np.array(scale)[:, None]
    return rounded(vectors, square.numpy())
