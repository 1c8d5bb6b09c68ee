"""The weight unpacker alone: each stored format to what the array takes."""

from itertools import product

import numpy as np
import pytest
from amaranth.sim import Simulator

from export.dense import BITS
from export.words import bits_to_ints, operands, pack_weights, store_weights
from hw.unpacker import WeightUnpacker

FORMATS = [(mode, bits) for mode in (1, 2, 3) for bits in range(1, mode + 1)]


def check(formats, cases, *, words, dense):
    """`cases` are (mode, weight bits, weights [operands], valid)."""
    dut = WeightUnpacker(words=words, formats=tuple(formats), dense=dense)

    async def bench(ctx):
        for mode, bits, weights, valid in cases:
            ctx.set(dut.format, dut.formats.index((mode, bits)))
            ctx.set(dut.valid, 2 ** valid - 1)
            ctx.set(dut.stored, *bits_to_ints(store_weights(weights[None], mode, bits, words,
                                                            dense)))
            await ctx.tick()
            used = weights * (np.arange(len(weights)) < valid) if mode > bits == 1 else weights
            want = pack_weights(used, mode, words)
            got = np.array([ctx.get(dut.row) >> k & 1 for k in range(6 * words)])
            if mode > 1:  # the sign of a zero is void
                void = pack_weights(np.where(used == 0, -1, 0), mode, words)
                void &= ~pack_weights(np.where(used == 0, 1, 0), mode, words)
                got &= 1 - void
            np.testing.assert_array_equal(got, want, f"{mode} {bits} {weights} {valid}")

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("words", [1, 2, 4, 5])
def test_every_format_among_all(words, dense):
    rng, cases = np.random.default_rng(words), []
    for mode, bits in FORMATS * 20:
        n = operands(mode, words)
        weights = rng.choice([-1, 1], n) if bits == 1 else rng.integers(1 - bits, bits, n)
        cases.append((mode, bits, weights, int(rng.integers(n + 1))))
    rng.shuffle(cases)
    check(FORMATS, cases, words=words, dense=dense)


@pytest.mark.parametrize("mode, bits, words", [(2, 2, 4), (3, 2, 4), (3, 3, 2), (3, 3, 4)])
def test_every_group_at_every_place(mode, bits, words):
    size = max(BITS[bits])
    for start in range(0, operands(mode, words), size):
        cases = []
        for group in product(range(1 - bits, bits), repeat=size):
            weights = np.zeros(operands(mode, words), int)
            room = len(weights[start:start + size])
            weights[start:start + size] = group[:room]
            cases.append((mode, bits, weights, 0))
        check([(mode, bits)], cases, words=words, dense=True)
