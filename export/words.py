"""The word group: how 6 * words bits hold activation codes and weights of one, two or three bits.

A group is six *halves* of `words` bits; half h is bits [h * words, (h + 1) * words). Bits are
ordered by significance, so that a processing element counts whole halves. *PE order*, for D words:

====  ========  ===================================================================
mode  operands  position of the operand's bits
====  ========  ===================================================================
1     6 D       operand i at i
2     3 D       i < 2 D: low bit at i, high bit at 2 D + i; other i: 2 D + i and 3 D + i
3     2 D       bit k at 2 D * k + i
====  ========  ===================================================================

*Memory order* is three lanes of 2 D bits. In mode 2 lane l holds operands l * D to l * D + D - 1,
their low bits in its low half; so half 1 and half 2 are swapped against PE order. The other modes
agree.

Weights, as the array takes them: in mode 3 an operand's three bits are |w| = 1, |w| = 2 and sign,
in mode 2 magnitude and sign, in mode 1 sign (1 means -1).

Weights, as the memory stores them, for one column and step: planes of one bit per operand, in
operand order. Binary weights are their signs, ternary ones magnitudes, then signs, quinary ones
|w| = 1, |w| = 2, signs; or, if dense, groups of :mod:`export.dense`, the first operands lowest.
So a layer's words are as wide as its weights need, whatever the precision of its codes.
"""

import numpy as np

from export import dense as dense_groups
from export.config import ConfigError


def operands(mode: int, words: int) -> int:
    """Operands in one word group."""
    return 6 * words // mode


def stored_bits(mode: int, weight_bits: int, words: int, dense: bool) -> int:
    """Bits in which the memory holds the weights of one word group."""
    count = operands(mode, words)
    if dense and weight_bits > 1:
        return sum(dense_groups.BITS[weight_bits][size]
                   for size in dense_groups.groups(count, weight_bits))
    return count * weight_bits


def bit_positions(mode: int, words: int) -> np.ndarray:
    """Position in PE order of bit k of operand i, as an array [mode, operands]."""
    index = np.arange(operands(mode, words))
    if mode == 2:
        low = np.where(index < 2 * words, index, index + 2 * words)
        return np.stack([low, np.where(index < 2 * words, low + 2 * words, low + words)])
    return index + 2 * words * np.arange(mode)[:, None]


def pack_codes(codes: np.ndarray, mode: int, words: int) -> np.ndarray:
    """Codes [..., operands] as bits [..., 6 * words] in PE order."""
    codes = _checked("codes", codes, 0, 2 ** mode - 1, mode, words)
    bits = np.zeros((*codes.shape[:-1], 6 * words), np.uint8)
    for k, positions in enumerate(bit_positions(mode, words)):
        bits[..., positions] = codes >> k & 1
    return bits


def pack_weights(weights: np.ndarray, mode: int, words: int) -> np.ndarray:
    """One step's weights [..., operands] as bits [..., 6 * words] as the array takes them."""
    largest = max(1, mode - 1)
    weights = _checked("weights", weights, -largest, largest, mode, words)
    negative = (weights < 0).astype(np.uint8)
    if mode == 1:
        _check_binary(weights)
        return negative
    magnitude = np.abs(weights)  # 0, 1, 2 are the codes 0, 1 and, with bits of their own, 2
    return pack_codes(magnitude + 2 ** (mode - 1) * negative, mode, words)


def store_weights(weights: np.ndarray, mode: int, weight_bits: int, words: int,
                  dense: bool) -> np.ndarray:
    """One step's weights [..., operands] as bits [..., stored_bits] as the memory holds them."""
    largest = max(1, weight_bits - 1)
    weights = _checked("weights", weights, -largest, largest, mode, words)
    if weight_bits == 1:
        _check_binary(weights)
    elif dense:
        parts, start = [], 0
        for size in dense_groups.groups(weights.shape[-1], weight_bits):
            codes = dense_groups.encode(weights[..., start:start + size], weight_bits)
            places = np.arange(dense_groups.BITS[weight_bits][size])
            parts.append((codes[..., None] >> places & 1).astype(np.uint8))
            start += size
        return np.concatenate(parts, -1)
    planes = [np.abs(weights) == k for k in range(1, weight_bits)] + [weights < 0]
    return np.concatenate(planes, -1).astype(np.uint8)


def _check_binary(weights: np.ndarray):
    if not weights.all():
        raise ConfigError("binary weights must be -1 or 1, not 0")


def bits_to_ints(bits: np.ndarray) -> list[int]:
    """Rows of bits [rows, width] as Python ints, bit 0 first."""
    return [int.from_bytes(row.tobytes(), "little")
            for row in np.packbits(bits, axis=-1, bitorder="little")]


def _checked(what: str, values: np.ndarray, low: int, high: int, mode: int,
             words: int) -> np.ndarray:
    values = np.asarray(values)
    if mode not in (1, 2, 3):
        raise ConfigError(f"mode must be 1, 2 or 3, not {mode}")
    if not np.issubdtype(values.dtype, np.integer):
        raise ConfigError(f"{what} must be integers, not {values.dtype}")
    if values.ndim == 0 or values.shape[-1] != operands(mode, words):
        raise ConfigError(f"{what} must come {operands(mode, words)} to a word group in mode "
                          f"{mode}, not in shape {values.shape}")
    if values.size and (values.min() < low or values.max() > high):
        raise ConfigError(f"{what} must lie in {low}..{high} in mode {mode}, "
                          f"not {values.min()}..{values.max()}")
    return values.astype(np.int64)
