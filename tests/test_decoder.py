"""The weight decoder alone: each lane in each mode, masks, the top digit."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from export.words import bit_positions, bits_to_ints, operands, pack_weights
from hw.decoder import WeightDecoder

SETS = [(1, 2, 3), (1, 2), (2, 3), (1, 3), (3,), (2,), (1,)]
CASES = [(precisions, mode) for precisions in SETS for mode in precisions]


def expected(weights: np.ndarray, mode: int, words: int, shared: bool, top: bool) -> dict:
    """Each field as a row of bits."""
    positions = bit_positions(mode, words)
    field = {"sign": np.zeros(6 * words, int), "enable": np.zeros(6 * words, int)}
    if shared:
        field |= {"double": np.zeros(2 * words, int), "high": np.zeros(2 * words, int)}
    field["sign"][positions] = weights < 0
    field["enable"][positions] = weights != 0
    if mode == 3:
        double = abs(weights) == 2
        field["double"][:] = double
        field["high"][:] = double & (not top)
        field["enable"][positions[0]] = abs(weights) == 1
        field["enable"][positions[2]] = double | ((weights != 0) & (not top))
    elif mode == 2 and shared:  # the last half counts in plane 3
        field["high"][words:] = field["enable"][5 * words:]
        field["enable"][5 * words:] = 0
    return field


@pytest.mark.parametrize("words", [1, 2, 4, 5])
@pytest.mark.parametrize("precisions, mode", CASES)
def test_every_lane(precisions, mode, words):
    dut = WeightDecoder(words=words, precisions=precisions)
    rng = np.random.default_rng(words)
    n = operands(mode, words)

    async def bench(ctx):
        ctx.set(dut.mode, 1 << precisions.index(mode))
        for _ in range(60):
            weights = rng.choice([-1, 1], n) if mode == 1 else rng.integers(1 - mode, mode, n)
            valid = int(rng.integers(n + 1))
            top = mode == 3 and bool(rng.integers(2))
            ctx.set(dut.row, *bits_to_ints(pack_weights(weights[None], mode, words)))
            ctx.set(dut.top, top)
            ctx.set(dut.valid_operands, 2 ** valid - 1)
            await ctx.delay(1e-7)
            used = weights * (np.arange(n) < valid) if mode == 1 else weights
            want = expected(used, mode, words, 3 in precisions, top)
            got = {name: ctx.get(getattr(dut.weight, name)) for name in dut.weight.shape().members}
            counts = want["enable"].copy()
            if "high" in want:
                counts[4 * words:] |= want["high"]
            want["sign"] &= counts
            if precisions == (1,):
                del want["enable"]
            else:  # where nothing counts, a sign may be anything
                got["sign"] &= bits_to_ints(counts[None])[0]
            assert got == {name: bits_to_ints(field[None])[0] for name, field in want.items()}

    sim = Simulator(dut)
    sim.add_testbench(bench)
    sim.run()
