"""Sums of bits by weight against plain arithmetic."""

import random

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from hw.heap import add_level, add_up


@pytest.mark.parametrize("sizes", [
    (1,), (2,), (3,), (4,), (24,), (0, 5), (12, 12), (8, 8, 8, 8), (3, 2, 2, 2), (7, 1, 6),
    (5, 0, 0, 3), (30, 10, 0, 4), (3, 2, 3, 2)])
def test_sums(sizes):
    bits = Signal(sum(sizes))
    columns, place = [], 0
    for size in sizes:
        columns.append([bits[place + k] for k in range(size)])
        place += size
    peak = sum(size << weight for weight, size in enumerate(sizes))
    m = Module()
    level = add_level(m, columns, peak, "level")
    total, other = add_up(m, columns, peak, "total"), add_up(m, level, peak, "other")
    assert all(len(column) == size for column, size in zip(columns, sizes, strict=True))
    assert len(total) == len(other) == peak.bit_length()
    assert sum(map(len, level)) < sum(sizes) or max(sizes) < 3
    rng = random.Random(sum(sizes))

    async def bench(ctx):
        values = [0, 2 ** place - 1, *(1 << k for k in range(place))]
        for value in values + [rng.randrange(2 ** place) for _ in range(200)]:
            ctx.set(bits, value)
            expected = sum(ctx.get(bit) << weight
                           for weight, column in enumerate(columns) for bit in column)
            assert ctx.get(total) == ctx.get(other) == expected

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
