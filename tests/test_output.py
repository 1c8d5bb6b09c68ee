"""What leaves, word by word, in exactly the cycles that the cost model says, against a list."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from export.checked import ConfigError
from export.cost import Cost
from export.descriptor import layer_word
from export.hardware import Hardware
from export.program import Program
from export.sections import PIECES
from hw.output import Output
from sim.samples import random_network
from tests.designs import conv, design

BIG = {"kind": "map", "name": "end", "weight_bits": 2}
CLASS = {"kind": "sum", "name": "end", "channels": 5, "weight_bits": 2}


def ends(array, last: dict, **shape):
    """A design with this last operation."""
    return design([], array, operations=[conv("a", 3, 2, 2), {"weight_bits": 2, **last}], **shape)


def codes(channels: int, bits: int, **more) -> dict:
    return {"name": "end", "channels": channels, "code_bits": bits, **more}


MUXED = design([], (2, 4, 2), operations=[
    conv("a", 4, 2, 2), {"kind": "sum", "name": "s", "inputs": ["a"], "channels": 4,
                         "weight_bits": 2, "output": "select"},
    conv("b", 4, 2, 2, inputs=["a"], skip="a", gate="mux", select="s"), {**CLASS, "inputs": ["b"]}])

# On one machine each. Columns are in units of 4, 4, 4, 1, 2 (three of them), 4 (two), and 4.
MACHINES = {
    "class": [ends((2, 4, 2), CLASS)],
    "codes": [ends((2, 4, 2), codes(5, 1), height=3, width=3)],
    "bits": [ends((3, 4, 4), codes(channels, bits), height=3, width=5)
             for channels, bits in [(1, 1), (8, 2), (11, 3)]],
    "map": [ends((2, 1, 1), {**BIG, "channels": 3, "out_bits": 8}, height=2, width=3)],
    "all": [ends((2, 6, 2), CLASS),
            ends((2, 6, 2), codes(7, 3, pool=True), height=5, width=7),
            ends((2, 6, 2), codes(12, 1, pool=True), height=4, width=4),
            ends((2, 6, 2), codes(8, 2), height=1, width=8),
            ends((2, 6, 2), {**BIG, "channels": 13, "out_bits": 5}, height=3, width=2)],
    "units": [ends((3, 8, 2), CLASS),
              ends((3, 8, 2), codes(4, 3), height=4, width=4),
              ends((3, 8, 2), codes(18, 3), height=2, width=5),
              ends((3, 8, 2), codes(16, 1, pool=True), height=3, width=6),
              ends((3, 8, 2), {**BIG, "channels": 9, "out_bits": 8}, height=3, width=3)],
    "mux": [MUXED],
    "mux and codes": [MUXED, ends((2, 4, 2), codes(3, 2))],
}


def words(config, values) -> list[int]:
    """A frame's result as words of 32 bits, written out bit for bit; `values` [C, H, W] or pair."""
    if config.network.output == "class":
        number, score = values
        return [number, score % 2**32]
    size = 8 if config.network.output == "map" else config.network.operations[-1].code_bits
    bits = [int(value) >> bit & 1 for value in values.transpose(1, 2, 0).ravel().tolist()
            for bit in range(size)]
    bits += [0] * (-len(bits) % 32)
    return [sum(bit << k for k, bit in enumerate(bits[start:start + 32]))
            for start in range(0, len(bits), 32)]


def random_values(config, hardware, rng):
    """A result: class and score, or [C, H, W]; extremes are likely."""
    last, network = config.network.operations[-1], config.network
    if network.output == "class":
        most = 2**(hardware.score_bits - 1)
        score = rng.choice([-most, most - 1, -1, 0, rng.integers(-most, most)])
        return int(rng.integers(last.channels)), int(score)
    shape = network.shapes["end"]
    low, high = (0, 2**last.code_bits - 1) if network.output == "codes" else (
        -2**(last.out_bits - 1), 2**(last.out_bits - 1) - 1)
    found = rng.integers(low, high + 1, (shape.channels, shape.height, shape.width))
    return np.where(rng.random(found.shape) < 0.3, rng.choice([low, high], found.shape), found)


def units(op, array, values, rng):
    """What the epilogue shows of an operation: (values, unit_last, channels_last), or None.

    All channels of a tile come for a pixel, some may be none; so do the pixels that fill up the
    last tile and, of a pooled map, all but the last of each block, which do not leave: no values.
    """
    step = 2 if op.operation.kind == "conv" and op.operation.pool else 1
    channels, height, width = values.shape
    padded = np.zeros((op.channel_tiles * array.columns, height, width), int)
    padded[:channels] = values
    padded[channels:] = rng.integers(0, 8, padded[channels:].shape)
    for tile in range(op.channel_tiles):
        for n in range(op.pixel_tiles * array.rows):
            y, x = divmod(n, op.source.width)
            leaves = (y % step == x % step == step - 1
                      and y // step < height and x // step < width)
            for k in range(array.units):
                first = tile * array.columns + k * array.unit
                unit_last = k == array.units - 1
                tile_last = unit_last and n == op.pixel_tiles * array.rows - 1
                yield (padded[first:first + array.unit, y // step, x // step].tolist()
                       if leaves else None), unit_last, tile_last
            if n % array.rows == array.rows - 1:
                yield from [None] * rng.integers(3)


@pytest.mark.parametrize("sizes", [PIECES, (4, 2)], ids=["one piece", "pieces"])
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("name", MACHINES)
def test_results_leave(name, gaps, sizes, monkeypatch):
    monkeypatch.setattr("hw.output.PIECES", sizes)
    programs = [Program(config) for config in MACHINES[name]]
    hardware, array = Hardware.of(programs), programs[0].array
    programs = [hardware.place(program.config) for program in programs]
    layers = [layer_word(hardware, op, layer) for program in programs for op, layer in zip(
        program.layers, random_network(program.config.network, 1).layers, strict=True)]
    rng, dut = np.random.default_rng([*name.encode(), gaps]), Output(hardware)
    order = [*programs, *(programs[k] for k in rng.integers(len(programs), size=3))]
    transfers, offer, busy = [], None, [0]

    async def tick(ctx):
        """A cycle; what is offered must stay until it is taken."""
        nonlocal offer
        ctx.set(dut.result.ready, not gaps or bool(rng.integers(4) == 0))
        *_, valid, ready, payload, free = await ctx.tick().sample(
            dut.result.valid, dut.result.ready, dut.result.payload, dut.free)
        busy[-1] += not free
        assert busy[-1] < 20_000, "it hangs"
        assert not (free and valid)
        assert offer is None or (valid and payload == offer)
        offer = payload if valid and not ready else None
        if valid and ready:
            transfers.append((payload.data, payload.last) if hardware.result_words else
                             (payload["class"], payload.score))

    def other_operations(ctx):
        """The next frame's, while a result leaves; none of them is the last one."""
        ctx.set(dut.layer.as_value(), layers[rng.integers(len(layers))])
        ctx.set(dut.fetch, int(rng.integers(2)))
        ctx.set(dut.walk.valid, 1)
        ctx.set(dut.walk.channels_last, int(rng.integers(2)))
        if hardware.select_words:
            ctx.set(dut.best, {"class": int(rng.integers(2)), "score": int(rng.integers(9))})

    async def show(ctx, program, values):
        """The last operation, up to `finished`."""
        op = program.layers[-1]
        layer = random_network(program.config.network, 1).layers[-1]
        ctx.set(dut.walk.valid, 0)
        ctx.set(dut.fetch, 1)
        await tick(ctx)
        ctx.set(dut.fetch, 0)
        ctx.set(dut.layer.as_value(), layer_word(hardware, op, layer))
        if op.summed:
            await tick(ctx)
            ctx.set(dut.best, dict(zip(("class", "score"), values, strict=True)))
        else:
            for each in units(op, array, values, rng):
                ctx.set(dut.walk.valid, each is not None)
                ctx.set(dut.emit, each is not None and each[0] is not None)
                if each:
                    shown, unit_last, tile_last = each
                    ctx.set(dut.walk.unit_last, unit_last)
                    ctx.set(dut.walk.channels_last, tile_last)
                    ctx.set(dut.values, [
                        value % 2**hardware.value_bits for value in shown or [5] * array.unit])
                await tick(ctx)
        ctx.set(dut.emit, 0)
        ctx.set(dut.walk.valid, 0)
        ctx.set(dut.finished, 1)
        assert ctx.get(dut.free) and not ctx.get(dut.result.valid)
        await tick(ctx)
        ctx.set(dut.finished, 0)

    async def bench(ctx):
        for program in order:
            values = random_values(program.config, hardware, rng)
            await show(ctx, program, values)
            busy.append(0)
            transfers.clear()
            while not ctx.get(dut.free):
                other_operations(ctx)
                await tick(ctx)
            if hardware.result_words:
                wanted = words(program.config, values)
                assert transfers == [(word, k == len(wanted) - 1)
                                     for k, word in enumerate(wanted)]
            else:
                assert transfers == [values]
            least = Cost(program, hardware).output_cycles
            assert busy[-1] >= least if gaps else busy[-1] == least

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("side, refused", [(256, False), (1024, True)])
def test_a_score_that_no_word_holds(side, refused):
    """It would lose its sign on the way out."""
    config = design([conv("a", 256, 1, 3, kernel=1)], (2, 2, 1), height=side, width=side,
                    channels=1)
    hardware = Hardware.of([Program(config)])
    words = replace(hardware, outputs=frozenset({"class", "codes"}))
    Output(hardware)  # leaves in as many bits as it has
    assert (hardware.score_bits > 32) == refused
    if refused:
        with pytest.raises(ConfigError, match=r"must have at most 32 bits .*, not 35"):
            Output(words)
    else:
        Output(words)
