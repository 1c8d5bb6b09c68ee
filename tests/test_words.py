"""The layout of a word group, checked against its description position by position."""

import numpy as np
import pytest

from export.config import ConfigError
from export.words import (
    bits_to_ints,
    operands,
    pack_codes,
    pack_weights,
    store_weights,
    stored_bits,
)
from tests.words import stored_weights, to_memory_order

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
    bits = pack_weights(weights, mode, words)
    assert bits.shape == (11, 6 * words)
    planes = [abs(weights) == 1, weights < 0] if mode == 2 else \
        [abs(weights) == 1, abs(weights) == 2, weights < 0]
    for i in range(weights.shape[1]):
        for k, plane in enumerate(planes):
            assert (bits[:, position(mode, words, i, k)] == plane[:, i]).all()


@pytest.mark.parametrize("words", WORDS)
def test_weights_of_mode_1_are_their_signs_in_order(words):
    weights = np.random.default_rng(words).choice([-1, 1], (11, 6 * words))
    assert (pack_weights(weights, 1, words) == (weights == -1)).all()


FORMATS = [(mode, bits) for mode in MODES for bits in range(1, mode + 1)]


def some_weights(rng, mode, bits, words):
    shape = 40, 3, operands(mode, words)
    return rng.choice([-1, 1], shape) if bits == 1 else rng.integers(1 - bits, bits, shape)


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("mode, bits", FORMATS)
def test_stored_weights_are_planes(mode, bits, words):
    weights = some_weights(np.random.default_rng(words), mode, bits, words)
    stored = store_weights(weights, mode, bits, words, dense=False)
    n = operands(mode, words)
    assert stored.shape == (40, 3, n * bits) and n * bits == stored_bits(mode, bits, words, False)
    assert (stored[..., -n:] == (weights < 0)).all()
    for k in range(1, bits):
        assert (stored[..., (k - 1) * n:k * n] == (abs(weights) == k)).all()


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("mode, bits", FORMATS)
def test_stored_weights_come_back(mode, bits, words, dense):
    weights = some_weights(np.random.default_rng(words), mode, bits, words)
    stored = store_weights(weights, mode, bits, words, dense)
    assert stored.shape == (40, 3, stored_bits(mode, bits, words, dense))
    assert set(np.unique(stored)) <= {0, 1}
    assert (stored_weights(stored, mode, bits, words, dense) == weights).all()


def test_dense_weights_take_fewer_bits():
    assert stored_bits(2, 2, 5, dense=True) == 24  # 15 ternary weights, 1.6 bits each
    assert stored_bits(3, 3, 3, dense=True) == 14  # 6 quinary ones, 2.33 bits each
    assert [stored_bits(3, bits, 4, dense=True) for bits in (1, 2, 3)] == [8, 13, 19]
    assert [stored_bits(3, bits, 4, dense=False) for bits in (1, 2, 3)] == [8, 16, 24]


@pytest.mark.parametrize("width", [1, 6, 8, 24, 48, 100])
def test_bits_as_integers(width):
    bits = np.random.default_rng(width).integers(0, 2, (20, width)).astype(np.uint8)
    values = bits_to_ints(bits)
    assert values == [sum(int(bit) << k for k, bit in enumerate(row)) for row in bits]


@pytest.mark.parametrize("call, message", [
    (lambda: pack_codes(np.array([[0, 4, 0]]), 2, 1),
     "codes must lie in 0..3 in mode 2, not 0..4"),
    (lambda: pack_codes(np.array([0, -1]), 3, 1),
     "codes must lie in 0..7 in mode 3, not -1..0"),
    (lambda: pack_codes(np.zeros((2, 5), int), 3, 2),
     "codes must come 4 to a word group in mode 3, not in shape (2, 5)"),
    (lambda: pack_codes(np.zeros(2), 3, 1), "codes must be integers, not float64"),
    (lambda: pack_codes(np.zeros(2, int), 4, 1), "mode must be 1, 2 or 3, not 4"),
    (lambda: pack_weights(np.array([0, 3]), 3, 1),
     "weights must lie in -2..2 in mode 3, not 0..3"),
    (lambda: pack_weights(np.array([0, 2, 0]), 2, 1),
     "weights must lie in -1..1 in mode 2, not 0..2"),
    (lambda: store_weights(np.array([0, 1, -1]), 2, 1, 1, False),
     "binary weights must be -1 or 1, not 0"),
    (lambda: pack_weights(np.array([1, 1, 0, 1, 1, -1]), 1, 1),
     "binary weights must be -1 or 1, not 0"),
    (lambda: store_weights(np.array([0, 2]), 3, 2, 1, True),
     "weights must lie in -1..1 in mode 3, not 0..2"),
])
def test_what_does_not_fit_is_refused_in_one_line(call, message):
    with pytest.raises(ConfigError) as error:
        call()
    assert str(error.value) == message
