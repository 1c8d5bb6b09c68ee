"""Codes of sums, at every edge of width, shift and precision, against their definition."""

from types import SimpleNamespace

import numpy as np
import pytest
from amaranth import Module, Signal, signed
from amaranth.lib import data
from amaranth.sim import Simulator

from hw.clip import Clip


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("width", [4, 5, 8, 17, 24])
def test_codes(width, given):
    """Two sums at once; with those that another unit has shifted, and without."""
    m, rng = Module(), np.random.default_rng(width)
    layer = Signal(data.StructLayout({"shift": 4, "code_bits": 2}))
    sums = [Signal(signed(width), name=f"sum_{u}") for u in range(2)]
    clip = Clip(m, layer)
    shifted = [Signal(signed(width), name=f"shifted_{u}") for u in range(2)]
    m.d.sync += [each.eq(value >> clip.shift) for each, value in zip(shifted, sums, strict=True)]
    codes = clip.codes(m, sums, shifted if given else None)
    edge = 2 ** (width - 1)
    cases = SimpleNamespace(wrong=[], number=0)

    async def process(ctx):
        for shift in range(16):
            for code_bits in (1, 2, 3):
                ctx.set(layer, {"shift": shift, "code_bits": code_bits})
                await ctx.tick().repeat(2)
                ends = [each + k for each in (-edge, -1, 0, edge - 1, 2**code_bits << shift,
                                              2 ** (code_bits - 1) << shift) for k in (-1, 0, 1)]
                values = [*(each for each in ends if -edge <= each < edge),
                          *rng.integers(-edge, edge, 8).tolist()]
                for first, second in zip(values, reversed(values), strict=True):
                    ctx.set(sums[0], first)
                    ctx.set(sums[1], second)
                    await ctx.tick()
                    for value, code in zip((first, second), codes, strict=True):
                        cases.number += 1
                        wanted = min(max(value >> shift, 0), 2**code_bits - 1)
                        if ctx.get(code) != wanted:
                            cases.wrong.append((value, shift, code_bits, ctx.get(code)))

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(process)
    simulator.run()
    assert not cases.wrong and cases.number > 1000
