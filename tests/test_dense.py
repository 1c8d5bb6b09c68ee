"""Dense groups of weights: every group has a code of its own, and no more bits than promised."""

from itertools import product

import numpy as np
import pytest

from export.dense import BITS, encode, groups

CASES = [(bits, size) for bits in BITS for size in BITS[bits]]


def every_group(weight_bits, size):
    return np.array(list(product(range(1 - weight_bits, weight_bits), repeat=size)), np.int8)


@pytest.mark.parametrize("weight_bits, size", CASES)
def test_every_group_has_its_code(weight_bits, size):
    weights = every_group(weight_bits, size)
    codes = encode(weights, weight_bits)
    assert len(set(codes.tolist())) == len(weights) == (2 * weight_bits - 1) ** size
    assert codes.min() >= 0 and codes.max() < 2 ** BITS[weight_bits][size]


@pytest.mark.parametrize("weight_bits, size", CASES)
def test_no_shorter_code_exists(weight_bits, size):
    assert 2 ** (BITS[weight_bits][size] - 1) < (2 * weight_bits - 1) ** size


def test_documented_codes():
    assert encode(np.array([0, 0, 1, -1, 1]), 2) == 0b11_010_0_01
    assert encode(np.array([-1, 0, 0, 0, -1]), 2) == 0b11_101_1_10
    assert encode(np.zeros(5, int), 2) == 0b11_000_0_11
    assert encode(np.array([1, -1, 0, 1, 0]), 2) == 0b00_110_010
    assert encode(np.array([2, -1, -2]), 3) == 0b0_11_01_10
    assert encode(np.array([2, 0, -2]), 3) == 0b1_01_11_10
    assert encode(np.array([0, -2, 0]), 3) == 0b1_11_01_11
    assert encode(np.zeros(3, int), 3) == 0b1_11_11_00


@pytest.mark.parametrize("weight_bits", [2, 3])
def test_groups_add_up(weight_bits):
    for count in range(1, 40):
        sizes = groups(count, weight_bits)
        assert sum(sizes) == count and sizes == sorted(sizes, reverse=True)
