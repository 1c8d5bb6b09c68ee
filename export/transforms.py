"""Compression by transforms: what 64 bits of a patch say, and by which channels an encoder says it.

A patch has a mean, and a class; each class has a linear transform of its own, whose coefficients
are as many for all classes. Bits say, in Gray codes, in which interval the mean and each
coefficient lie. Classified transform coding is old (Chen and Smith 1977, by activity); that the
classes have transforms of their own is that of mixtures of principal components (Dony and Haykin
1995). Sizes are ours.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from export.checked import Frozen

BLOCK = 4  # pixels, side of the blocks that are bands, in whose order patches are read


class TransformsConfig(Frozen):
    """How many classes, and bits of the mean and of each coefficient, most important first."""

    classes: Literal[2, 4, 8, 16, 32] = 16
    mean_bits: Annotated[int, Field(ge=3, le=8)] = 6
    slots: Annotated[tuple[Annotated[int, Field(ge=1, le=5)], ...],
                     Field(min_length=1, max_length=256, strict=False, fail_fast=True)] = (
        4, 4, 4, 4, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)

    @property
    def class_bits(self) -> int:
        return self.classes.bit_length() - 1

    @cached_property
    def fields(self) -> tuple["Ramps", ...]:
        """The mean, and each coefficient."""
        return tuple(map(Ramps, (self.mean_bits, *self.slots)))

    @cached_property
    def order(self) -> tuple[tuple[int, int], ...]:
        """Behind those of the class, each bit of the stream: of which field, and its which.

        The more bits a field has left, the more this one takes away of the error.
        """
        bits = [(field, bit) for field, each in enumerate(self.fields) for bit in range(each.bits)]
        return tuple(sorted(bits, key=lambda at: at[1] - self.fields[at[0]].bits))

    @property
    def bits(self) -> int:
        """Of a patch."""
        return self.class_bits + len(self.order)


@dataclass(frozen=True)
class Ramps:
    """A number as codes of three bits: as many ramps, one above the other, of seven steps each.

    Their sum is the number, clipped; `thresholds` are those of its values where a level ends.
    """

    bits: int

    @property
    def count(self) -> int:
        return max(1, 2 ** (self.bits - 3))

    @property
    def thresholds(self) -> tuple[int, ...]:
        if self.bits <= 2:  # around the middle of a ramp
            half = 2 ** (self.bits - 1) - 1
            return tuple(range(4 - half, 5 + half))
        return tuple(range(1, 7 * self.count + 1))

    @property
    def levels(self) -> int:
        return len(self.thresholds) + 1

    @property
    def middle(self) -> float:
        """In steps, where the mean lies: between two levels or in the middle of one."""
        return (self.thresholds[0] + self.thresholds[-1]) / 2

    @cached_property
    def gray(self) -> np.ndarray:
        """Bits bool [levels, bits] of each level, the first one first."""
        level = np.arange(self.levels)
        code = level ^ level >> 1
        return (code[:, None] >> np.arange(self.bits)[::-1]) & 1 == 1
