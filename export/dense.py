"""Dense groups: five ternary weights in 8 bits, three quinary ones in 7, and what is left over.

The codes are ours, made to be cheap to decode: the digits of a number to the base 3 or 5 depend on
all of its bits and take ten times the logic (Yosys for ECP5: 292 LUT4 for five ternary digits).
Here almost every bit has a place of its own, and one value of a field is an *escape*.

Ternary. A *pair* that is not 0, 0 takes three bits: both weights not zero: 0, sign, sign (highest
bit first, first weight lowest), else 1, which one is not zero, its sign. A *single* takes two bits:
0, 1, 2 for 0, +1, -1, so that 3 is free::

    5 weights   single w4, pair w2 w3, pair w0 w1
                3, pair w2 w3, 0, w4        if only w0 and w1 are zero
                3, pair w0 w1, 1, w4        if only w2 and w3 are zero
                3, 0, w4, 0, 3              if all four are zero
    3 weights   single w2, pair w0 w1, or 3, 0, w2 if w0 and w1 are zero
    1 weight    single

Quinary. A weight that is not zero takes two bits, |w| = 2 and sign::

    3 weights   0, w2, w1, w0               if none is zero
                1, 0, w1, w2   or   1, 1, w2, w0   or   1, 2, w1, w0
                                            if only w0, w1, w2 is zero
                1, 3, k, wk                 if only wk is not zero; k = 3: all are zero
    2 weights   0, w1, w0, or 1, 0, w1 or 1, 1, w0 or 1, 2, 0 with zeros
    1 weight    sign, |w| = 2, |w| = 1
"""

from functools import cache
from itertools import product

import numpy as np

BITS = {2: {5: 8, 3: 5, 1: 2}, 3: {3: 7, 2: 5, 1: 3}}  # of a group, by weight bits and size


def groups(count: int, weight_bits: int) -> list[int]:
    """Sizes of the groups that hold `count` weights, largest first."""
    sizes, left = [], count
    for size in BITS[weight_bits]:
        sizes += [size] * (left // size)
        left %= size
    return sizes


def encode(weights: np.ndarray, weight_bits: int) -> np.ndarray:
    """One group's weights [..., size] as its code, an integer [...]."""
    table = _table(weights.shape[-1], weight_bits)
    base = 2 * weight_bits - 1
    digits = weights.astype(np.int64) + weight_bits - 1
    return table[digits @ base**np.arange(weights.shape[-1])]


@cache
def _table(size: int, weight_bits: int) -> np.ndarray:
    """The code of every group; its index has the weights as digits, the first one lowest."""
    peak = weight_bits - 1
    code = _ternary if weight_bits == 2 else _quinary
    return np.array([code(digits[::-1])
                     for digits in product(range(-peak, peak + 1), repeat=size)])


def _fields(*fields: tuple[int, int]) -> int:
    """Values and their bits, highest first, one behind the other."""
    word = 0
    for value, bits in fields:
        word = word << bits | value
    return word


def _pair(a: int, b: int) -> int:
    if a and b:
        return _fields((0, 1), (b < 0, 1), (a < 0, 1))
    return _fields((1, 1), (a == 0, 1), (a + b < 0, 1))


def _ternary(w: tuple[int, ...]) -> int:
    single = w[-1] % 3
    if len(w) == 1:
        return single
    low = any(w[:2])
    if len(w) == 3:
        return _fields((single, 2), (_pair(*w[:2]), 3)) if low else _fields((3, 2), (single, 3))
    high = any(w[2:4])
    if low and high:
        return _fields((single, 2), (_pair(*w[2:4]), 3), (_pair(*w[:2]), 3))
    if high:
        return _fields((3, 2), (_pair(*w[2:4]), 3), (0, 1), (single, 2))
    if low:
        return _fields((3, 2), (_pair(*w[:2]), 3), (1, 1), (single, 2))
    return _fields((3, 2), (single, 3), (0, 1), (3, 2))


def _quinary(w: tuple[int, ...]) -> int:
    code = [_fields((abs(x) == 2, 1), (x < 0, 1)) for x in w]
    zeros = [k for k, x in enumerate(w) if not x]
    if len(w) == 1:
        return _fields((w[0] < 0, 1), (abs(w[0]) == 2, 1), (abs(w[0]) == 1, 1))
    if not zeros:
        return _fields((0, 1), *((c, 2) for c in reversed(code)))
    if len(w) == 2:
        which = 2 if len(zeros) == 2 else zeros[0]
        return _fields((1, 1), (which, 2), ([code[1], code[0], 0][which], 2))
    if len(zeros) == 1:
        high, low = [(code[1], code[2]), (code[2], code[0]), (code[1], code[0])][zeros[0]]
        return _fields((1, 1), (zeros[0], 2), (high, 2), (low, 2))
    last = next((k for k, x in enumerate(w) if x), 3)
    return _fields((1, 1), (3, 2), (last, 2), (code[last] if last < 3 else 0, 2))
