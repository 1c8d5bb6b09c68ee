"""Codes and values of sums, at every edge of width, shift and precision, by their definition."""

from itertools import product

import numpy as np
import pytest
from amaranth import Module, Signal, signed
from amaranth.lib import data
from amaranth.sim import Simulator

from hw.clip import Clip


@pytest.mark.parametrize("valued", [False, True])
@pytest.mark.parametrize("width", [4, 5, 8, 17, 24])
def test_codes_and_values(width, valued):
    """Two sums at once; with values, whose bits the codes take, and without."""
    m, rng = Module(), np.random.default_rng(width)
    layer = Signal(data.StructLayout({"shift": 4, "code_bits": 2, "out_bits": 3}))
    sums = [Signal(signed(width), name=f"sum_{u}") for u in range(2)]
    clip, moved, values = Clip(m, layer), None, []
    if valued:
        moved, values = clip.values(m, sums)
    codes = clip.codes(m, sums, moved)
    edge = 2 ** (width - 1)
    wrong, checked = [], 0

    async def process(ctx):
        nonlocal checked
        for shift, code_bits, out_bits in product(range(16), (1, 2, 3), (1, 4, 7)):
            ctx.set(layer, {"shift": shift, "code_bits": code_bits, "out_bits": out_bits})
            await ctx.tick().repeat(2)
            ends = [each + k for k in (-1, 0, 1) for bits in (code_bits, out_bits)
                    for each in (-edge, 0, edge - 1, 1 << bits + shift, -(1 << bits + shift))]
            shown = [*(each for each in ends if -edge <= each < edge),
                     *rng.integers(-edge, edge, 8).tolist()]
            for pair in zip(shown, reversed(shown), strict=True):
                for signal, value in zip(sums, pair, strict=True):
                    ctx.set(signal, value)
                await ctx.tick()
                found = [*map(ctx.get, codes), *map(ctx.get, values)]
                wanted = [min(max(each >> shift, 0), 2**code_bits - 1) for each in pair]
                if valued:
                    wanted += [min(max(each >> shift, -2**out_bits), 2**out_bits - 1)
                               for each in pair]
                checked += 1
                if found != wanted:
                    wrong.append((pair, shift, code_bits, out_bits, found, wanted))

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(process)
    simulator.run()
    assert not wrong and checked > 2000
