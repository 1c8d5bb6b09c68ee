"""Words read back: what the hardware does with them, in numpy."""

from itertools import product

import numpy as np

from export.dense import BITS, encode, groups
from export.words import operands


def to_memory_order(bits: np.ndarray, mode: int) -> np.ndarray:
    """PE order to memory order; being a swap, it is also the way back."""
    if mode != 2:
        return bits
    halves = bits.reshape(*bits.shape[:-1], 6, -1)
    return halves[..., [0, 2, 1, 3, 4, 5], :].reshape(bits.shape)


def decode(codes: np.ndarray, size: int, weight_bits: int) -> np.ndarray:
    """The weights int8 [..., size] of codes [...]; each must be that of some weights, and of one.
    """
    weights = np.array(list(product(range(1 - weight_bits, weight_bits), repeat=size)), np.int8)
    back = np.full(2**BITS[weight_bits][size], -1)
    back[encode(weights, weight_bits)] = np.arange(len(weights))
    assert np.count_nonzero(back >= 0) == len(weights)
    assert (back[codes] >= 0).all()
    return weights[back[codes]]


def stored_weights(bits: np.ndarray, mode: int, weight_bits: int, words: int,
                   dense: bool) -> np.ndarray:
    """The weights int8 [..., operands] of stored bits: `store_weights` backwards."""
    count = operands(mode, words)
    if dense and weight_bits > 1:
        parts, start = [], 0
        for size in groups(count, weight_bits):
            places = np.arange(BITS[weight_bits][size])
            codes = bits[..., start + places].astype(np.int64) @ (1 << places)
            parts.append(decode(codes, size, weight_bits))
            start += len(places)
        return np.concatenate(parts, -1)
    planes = bits.reshape(*bits.shape[:-1], weight_bits, count).astype(np.int8)
    magnitude = sum(k * planes[..., k - 1, :] for k in range(1, weight_bits))
    return (1 if weight_bits == 1 else magnitude) * (1 - 2 * planes[..., -1, :])
