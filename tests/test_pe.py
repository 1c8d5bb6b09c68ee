"""Decoder and processing element together, cycle by cycle, against plain `w * a` and the fold."""

from dataclasses import dataclass

import numpy as np
import pytest
from amaranth import Module
from amaranth.sim import Simulator

from export.words import bits_to_ints, operands, pack_codes, pack_weights
from hw.decoder import WeightDecoder
from hw.pe import ProcessingElement

SETS = [(1, 2, 3), (1, 2), (2, 3), (1, 3), (3,), (2,), (1,)]
CASES = [(precisions, mode, binary) for precisions in SETS for mode in precisions
         for binary in (False, True) if binary or mode > 1]
# Where a pixel's digits start, most significant first, for digits of one, two and three bits.
PIXEL_DIGITS = {1: (7, 6, 5, 4, 3, 2, 1, 0), 2: (6, 4, 2, 0), 3: (6, 3, 0)}


@dataclass
class Tile:
    """Steps [steps, operands] of codes or pixels; binary weights from `valid` on are void."""

    codes: np.ndarray
    weights: np.ndarray
    valid: int = 1000
    pixels: bool = False

    def total(self, mode: int) -> int:
        """What the accumulator must hold: the sum, and per negative weight its largest operand."""
        weights = self.weights * (np.arange(self.weights.shape[1]) < self.valid)
        peak = 255 if self.pixels else 2 ** mode - 1
        return int((weights * self.codes).sum() - (peak * weights[weights < 0]).sum())

    def steps(self, mode: int):
        """(codes, weights, first, horner, top) of every step."""
        if not self.pixels:
            for k, (codes, weights) in enumerate(zip(self.codes, self.weights, strict=True)):
                yield codes, weights, k == 0, False, False
            return
        top, *_ = digits = PIXEL_DIGITS[mode]
        for digit in digits:
            for k, (codes, weights) in enumerate(zip(self.codes, self.weights, strict=True)):
                yield (codes >> digit & 2 ** mode - 1, weights, k == 0 and digit == top,
                       k == 0 and digit < top, mode == 3 and digit == top)


def run(tiles, *, words, precisions, mode, acc_bits=20, horner=False, gap=0, seed=0):
    """Streams the tiles through decoder and PE and checks its output in every cycle."""
    rng = np.random.default_rng(seed)
    pe = ProcessingElement(words=words, precisions=precisions, acc_bits=acc_bits, horner=horner)
    decoder = WeightDecoder(words=words, precisions=precisions)
    m = Module()
    m.submodules.pe, m.submodules.decoder = pe, decoder
    m.d.comb += pe.weight.eq(decoder.weight), pe.mode.eq(decoder.mode)

    # A schedule of what goes in, by cycle; what no step sets is garbage.
    inputs, firsts, again_at, captured = {}, {}, {}, {}
    cycle = 0
    for tile in tiles:
        for codes, weights, first, again, top in tile.steps(mode):
            if mode > 1:  # what the unpacker does with binary weights
                weights = weights * (np.arange(len(weights)) < tile.valid)
            row = pack_weights(weights, mode, words)
            if precisions == (1,):  # what the feeder does
                codes = codes * (np.arange(len(codes)) < tile.valid)
            inputs[cycle] = {
                "act": bits_to_ints(pack_codes(codes, mode, words)[None])[0],
                "row": bits_to_ints(row.reshape(1, -1))[0],
                "valid": min(2 ** tile.valid, 2 ** (6 * words)) - 1,
                "top": int(top),
            }
            firsts[cycle + pe.LATENCY] = int(first)
            again_at[cycle + pe.LATENCY + 1] = int(again)
            cycle += 1
        captured[cycle + pe.LATENCY] = tile.total(mode)
        assert tile.total(mode) < 2 ** acc_bits
        cycle += int(rng.integers(gap + 1))
    garbage = {"act": 2 ** (6 * words), "row": 2 ** (6 * words), "valid": 2, "top": 2}

    async def bench(ctx):
        ctx.set(decoder.mode, 1 << precisions.index(mode))
        kept = 0
        for t in range(cycle + pe.LATENCY + 1):
            now = inputs.get(t) or {name: int(rng.integers(top)) for name, top in garbage.items()}
            bits = {"first": firsts.get(t, 0), "horner": again_at.get(t, int(rng.integers(2))),
                    "capture": int(t in captured), "hide": int(rng.integers(2))}
            ctx.set(pe.act, now["act"])
            ctx.set(decoder.row, now["row"])
            ctx.set(decoder.valid_operands, now["valid"])
            ctx.set(decoder.top, now["top"])
            ctx.set(pe.control, bits)
            await ctx.tick()
            assert ctx.get(pe.sum) == (0 if bits["hide"] else kept)
            kept = captured.get(t, kept)

    sim = Simulator(m)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


def random_tile(rng, mode, words, binary, steps):
    n = operands(mode, words)
    codes = rng.integers(0, 2 ** mode, (steps, n))
    if binary:
        return Tile(codes, rng.choice([-1, 1], (steps, n)), valid=int(rng.integers(1, n + 1)))
    return Tile(codes, rng.integers(1 - mode, mode, (steps, n)))


def extreme_tiles(mode, words, binary):
    """Every weight at its ends against every code at its ends, so each lane at its ends."""
    n, peak = operands(mode, words), 2 ** mode - 1
    largest = 1 if binary else mode - 1
    for weight in {-largest, -1, 1, largest}:
        for code in (0, peak):
            yield Tile(np.full((3, n), code), np.full((3, n), weight))
    for i in range(n):  # one lane against all the others, each in its own significance
        codes, weights = np.zeros((1, n), int), np.ones((1, n), int)
        codes[0, i], weights[0, i] = peak, largest
        yield Tile(codes, weights)


@pytest.mark.parametrize("words", [
    1, 2, 5, *(pytest.param(words, marks=pytest.mark.slow) for words in (3, 4))])
@pytest.mark.parametrize("precisions, mode, binary", CASES)
def test_sums(precisions, mode, binary, words):
    rng = np.random.default_rng([words, mode])
    tiles = [random_tile(rng, mode, words, binary, int(rng.integers(1, 7))) for _ in range(15)]
    tiles += extreme_tiles(mode, words, binary)
    run(tiles, words=words, precisions=precisions, mode=mode, horner=words > 2)


@pytest.mark.parametrize("precisions, mode", [((1, 2, 3), 1), ((1, 2, 3), 2), ((1, 2, 3), 3),
                                              ((1, 2), 2), ((3,), 3)])
@pytest.mark.parametrize("gap", [0, 1, 4])
def test_tiles_may_follow_at_once_or_after_idle_cycles(precisions, mode, gap):
    rng = np.random.default_rng(gap)
    steps = [1, 1, 1, 2, 1, 3, 8, 1, 1, 5] + [1] * 20
    tiles = [random_tile(rng, mode, 2, mode == 1, count) for count in steps]
    run(tiles, words=2, precisions=precisions, mode=mode, gap=gap, seed=gap)


@pytest.mark.parametrize("words", [1, 2, 4, 5])
@pytest.mark.parametrize("precisions, mode, acc_bits", [
    ((1, 2, 3), 3, 10), ((1, 2, 3), 2, 7), ((1, 2, 3), 1, 8), ((3,), 3, 9), ((1,), 1, 6)])
def test_accumulator_exactly_full(precisions, mode, acc_bits, words):
    n, peak, left = operands(mode, words), 2 ** mode - 1, 2 ** acc_bits - 1
    largest = max(1, mode - 1)
    codes, weights = [], []
    while left:  # as many full steps as fit, with negative weights, then what is missing
        full = left >= n * peak * largest
        lanes = n if full else min(n, left // (peak * largest))
        step = np.zeros(n, int), np.ones(n, int)
        step[1][:lanes] = -largest
        if not lanes:
            step[0][0] = min(left, peak)
        left -= int((step[0] * step[1]).sum() + lanes * peak * largest)
        codes.append(step[0])
        weights.append(step[1])
    tile = Tile(np.array(codes), np.array(weights))
    assert tile.total(mode) == 2 ** acc_bits - 1
    run([tile, tile], words=words, precisions=precisions, mode=mode,
        acc_bits=acc_bits)


@pytest.mark.parametrize("words", [
    1, 2, *(pytest.param(words, marks=pytest.mark.slow) for words in (4, 5))])
@pytest.mark.parametrize("precisions", SETS)
def test_pixels_in_digits(precisions, words):
    rng, mode = np.random.default_rng(words), max(precisions)
    n = operands(mode, words)
    if mode > 1:
        every = np.arange(256).reshape(-1, 1).repeat(n, axis=1)  # each value, random weights
        tiles = [Tile(every[k:k + 16], rng.integers(1 - mode, mode, (16, n)), pixels=True)
                 for k in range(0, 256, 16)]
        tiles += [Tile(np.full((1, n), pixel), np.full((1, n), weight), pixels=True)
                  for pixel in (0, 255) for weight in range(1 - mode, mode)]
        run(tiles, words=words, precisions=precisions, mode=mode, horner=True, gap=1)
    binary = [Tile(rng.integers(0, 256, (3, n)), rng.choice([-1, 1], (3, n)),
                   valid=int(rng.integers(1, n + 1)), pixels=True) for _ in range(12)]
    binary += [Tile(np.full((1, n), pixel), np.full((1, n), weight), pixels=True)
               for pixel in (0, 255) for weight in (-1, 1)]
    run(binary, words=words, precisions=precisions, mode=mode, horner=True)
