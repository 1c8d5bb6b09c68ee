"""The layout of a word group, checked against its description position by position."""

import numpy as np
import pytest

from export.config import ConfigError
from export.words import (
    bits_to_ints,
    ints_to_bits,
    operands,
    pack_codes,
    pack_weights,
    steps_per_row,
    to_memory_order,
)

WORDS = [1, 2, 4, 5]
MODES = [1, 2, 3]


def position(mode: int, words: int, i: int, k: int) -> int:
    """Where PE order puts bit k of operand i, one operand at a time."""
    if mode == 3:
        return 2 * words * k + i
    if mode == 1:
        return i
    if i < 2 * words:
        return (i, 2 * words + i)[k]
    return (4 * words + i - 2 * words, 5 * words + i - 2 * words)[k]


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("mode", MODES)
def test_codes_take_their_places(mode, words):
    n = operands(mode, words)
    assert n * mode == 6 * words
    codes = np.random.default_rng(words).integers(0, 2 ** mode, (3, 7, n))
    bits = pack_codes(codes, mode, words)
    assert bits.shape == (3, 7, 6 * words) and bits.dtype == np.uint8
    for i in range(n):
        for k in range(mode):
            assert (bits[..., position(mode, words, i, k)] == codes[..., i] >> k & 1).all()


@pytest.mark.parametrize("words", WORDS)
def test_memory_lanes_hold_whole_operands_in_mode_2(words):
    codes = np.random.default_rng(words).integers(0, 4, (9, 3 * words))
    bits = to_memory_order(pack_codes(codes, 2, words), 2)
    for lane in range(3):
        inside = codes[:, lane * words:(lane + 1) * words]
        low = 2 * words * lane
        assert (bits[:, low:low + words] == inside & 1).all()
        assert (bits[:, low + words:low + 2 * words] == inside >> 1).all()


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("mode", MODES)
def test_memory_order_is_its_own_inverse(mode, words):
    bits = np.random.default_rng(words).integers(0, 2, (2, 3, 6 * words))
    there = to_memory_order(bits, mode)
    assert (to_memory_order(there, mode) == bits).all()
    assert (there == bits).all() == (mode != 2)


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("mode", [2, 3])
def test_weights_are_magnitude_and_sign(mode, words):
    weights = np.random.default_rng(words).integers(1 - mode, mode, (11, operands(mode, words)))
    bits = pack_weights(weights, mode, words, binary=False)
    assert bits.shape == (11, 6 * words)
    planes = [abs(weights) == 1, weights < 0] if mode == 2 else \
        [abs(weights) == 1, abs(weights) == 2, weights < 0]
    for i in range(weights.shape[1]):
        for k, plane in enumerate(planes):
            assert (bits[:, position(mode, words, i, k)] == plane[:, i]).all()


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("mode", MODES)
def test_binary_weights_are_their_signs_in_order(mode, words):
    weights = np.random.default_rng(words).choice([-1, 1], (11, operands(mode, words)))
    bits = pack_weights(weights, mode, words, binary=True)
    assert (bits == (weights == -1)).all()
    assert bits.shape[1] * steps_per_row(mode, binary=True) == 6 * words
    assert steps_per_row(mode, binary=False) == 1


@pytest.mark.parametrize("width", [1, 6, 8, 24, 48, 100])
def test_ints_and_back(width):
    bits = np.random.default_rng(width).integers(0, 2, (20, width)).astype(np.uint8)
    values = bits_to_ints(bits)
    assert values == [sum(int(bit) << k for k, bit in enumerate(row)) for row in bits]
    assert (ints_to_bits(values, width) == bits).all()


@pytest.mark.parametrize("call, message", [
    (lambda: pack_codes(np.array([[0, 4, 0]]), 2, 1),
     "codes must lie in 0..3 in mode 2, not 0..4"),
    (lambda: pack_codes(np.array([0, -1]), 3, 1),
     "codes must lie in 0..7 in mode 3, not -1..0"),
    (lambda: pack_codes(np.zeros((2, 5), int), 3, 2),
     "codes must come 4 to a word group in mode 3, not in shape (2, 5)"),
    (lambda: pack_codes(np.zeros(2), 3, 1), "codes must be integers, not float64"),
    (lambda: pack_codes(np.zeros(2, int), 4, 1), "mode must be 1, 2 or 3, not 4"),
    (lambda: pack_weights(np.array([0, 3]), 3, 1, False),
     "weights must lie in -2..2 in mode 3, not 0..3"),
    (lambda: pack_weights(np.array([0, 2, 0]), 2, 1, False),
     "weights must lie in -1..1 in mode 2, not 0..2"),
    (lambda: pack_weights(np.array([0, 1, -1]), 2, 1, True),
     "binary weights must be -1 or 1, not 0"),
    (lambda: pack_weights(np.ones(6, int), 1, 1, False),
     "weights must be binary in mode 1, not ternary or quinary"),
])
def test_what_does_not_fit_is_refused_in_one_line(call, message):
    with pytest.raises(ConfigError) as error:
        call()
    assert str(error.value) == message
