"""The array alone: skew, drain order, back-to-back tiles, promised latency."""

import json

import numpy as np
import pytest
from amaranth.sim import Simulator

from export.words import bits_to_ints, operands, pack_codes, pack_weights
from hw.array import SystolicArray
from hw.verilog import write_verilog
from hw.yosys import run_yosys
from tests.designs import conv, design, machine


def hardware_of(rows, columns, words):
    return machine(design([conv("a", 24, 3, 3)], (rows, columns, words), height=4, width=4,
                          channels=8, classes=2))[1]


@pytest.mark.parametrize("rows, columns, words", [
    (1, 1, 1), (2, 5, 1), *(pytest.param(*each, marks=pytest.mark.slow)
                            for each in ((4, 4, 2), (5, 2, 4), (3, 8, 2)))])
@pytest.mark.parametrize("mode", [1, 2, 3])
@pytest.mark.parametrize("short", [False, True])
def test_sums_leave_in_order_and_on_time(rows, columns, words, mode, short):
    hardware = hardware_of(rows, columns, words)
    dut = SystolicArray(hardware)
    rng = np.random.default_rng(rows + 10 * mode)
    ops, units = operands(mode, words), hardware.array.units
    period = rows * units  # the shortest that the drain allows
    tiles = []
    for steps in 3 * [max(1, period - 2)] if short else (period, period, period + 3, period + 3):
        codes = rng.integers(0, 2**mode, (steps, rows, ops))
        weights = rng.integers(1 - mode, mode, (steps, columns, ops))
        if mode == 1:
            weights = rng.choice([-1, 1], (steps, columns, ops))
        tiles.append((codes, weights))
    expected = [np.einsum("sro,sco->rc", codes, weights)
                + np.minimum(weights, 0).sum((0, 2)) * -(2**mode - 1)
                for codes, weights in tiles]

    cycles, ended, idle = [], False, {"first": 0, "horner": 0, "capture": 0}
    for codes, weights in tiles:
        for step in range(max(len(codes), period)):
            acts = row = None
            if step < len(codes):
                acts = bits_to_ints(pack_codes(codes[step], mode, words))
                row = bits_to_ints(pack_weights(weights[step], mode, words))
            cycles.append(({**idle, "first": step == 0, "capture": ended}, acts, row))
            ended = step == len(codes) - 1
    cycles.append(({**idle, "capture": ended}, None, None))

    async def feed(ctx):
        ctx.set(dut.mode, 1 << mode - 1)
        ctx.set(dut.tail, ops)
        await ctx.tick()
        late, nothing = [(idle, None)] * dut.AHEAD, (idle, None, None)
        for control, acts, row in cycles + [nothing] * (dut.AHEAD + dut.latency + rows * units):
            late.append((control, acts))
            control, acts = late.pop(0)
            ctx.set(dut.control, control)
            if acts is not None:
                ctx.set(dut.acts, acts)
            if row is not None:
                ctx.set(dut.rows, row)
            await ctx.tick()

    captures, starts, found, left, phase = [], [], [], 0, 0

    async def watch(ctx):
        nonlocal left, phase
        now = 0
        async for *_, start, capture, sums in ctx.tick().sample(
                dut.start, dut.control.capture, dut.sums):
            if capture:
                captures.append(now)
            if start:
                starts.append(now)
                left, phase = rows * units, 0
            if left:
                if phase == 0:
                    found.append([sums[c] for c in range(columns)])
                phase, left = (phase + 1) % units, left - 1
            now += 1

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(feed)
    simulator.add_testbench(watch, background=True)
    simulator.run()
    assert [b - a for a, b in zip(captures, starts, strict=True)] == [dut.latency] * len(tiles)
    np.testing.assert_array_equal(np.array(found).reshape(len(tiles), rows, columns), expected)


@pytest.mark.slow
def test_far_clusters_share_no_register(tmp_path):
    """Those in the first row and the first column that hold the same at all times, for Yosys."""
    write_verilog(SystolicArray(hardware_of(6, 6, 1)), tmp_path, "array")
    run_yosys("""read_verilog array.v
        hierarchy -top array
        proc
        flatten
        splitcells
        opt_merge
        write_json array.json""", tmp_path)
    names = json.loads((tmp_path / "array.json").read_text())["modules"]["array"]["netnames"]
    for kind in ("control", "mode"):
        below, right = (set(names[f"{kind}_row{row}_c{column}"]["bits"])
                        for row, column in ((2, 2), (0, 4)))
        assert below and not below & right
