"""Cycles between frames, exactly: results that leave slowly, and pixels that come in slowly."""

import random

import numpy as np
import pytest
from amaranth import Const, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from export.cost import Cost
from export.pack import pack
from export.sections import record_values, record_word
from hw.engine import Engine
from hw.frame import Frame, pixel_shape
from hw.pixels import PixelInput
from sim import golden
from sim.results import difference
from sim.samples import random_images, random_network
from sim.streams import pixel_words, simulate
from tests.designs import buffered, conv, design, total

MAP = {"kind": "map", "name": "end", "weight_bits": 2}


def ends(*operations: dict, array=(2, 2, 1), **shape):
    return design([], array, operations=[*operations], **shape)


def engine(config):
    cost = Cost.of(config)
    images = pack(cost.program, cost.hardware, random_network(config.network, 1))
    return cost, Engine(cost.hardware, images)


# Results that take longer than the operations before the last one: of two operations, of three,
# pooled, a map; of one operation, before which only pixels come.
SLOW = {
    "codes": ends(conv("a", 1, 2, 1, kernel=1), conv("end", 12, 2, 3), height=3, width=3,
                  channels=1),
    "three": ends(conv("a", 1, 2, 1, kernel=1), conv("b", 1, 2, 1, kernel=1),
                  conv("end", 16, 2, 3, kernel=1), height=3, width=4, channels=1),
    "pooled": ends(conv("a", 1, 2, 1, kernel=1), conv("end", 24, 2, 3, pool=True, kernel=1),
                   height=4, width=4, channels=1),
    "map": ends(conv("a", 1, 2, 1, kernel=1), {**MAP, "channels": 20}, height=4, width=5,
                channels=1, array=(4, 2, 2)),
    "alone": ends(conv("end", 9, 2, 3, kernel=1), height=3, width=2, channels=1, array=(6, 2, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_the_last_operation_waits_for_the_result_before(name):
    config = SLOW[name]
    cost, dut = engine(config)
    images = random_images(config.network, 3, 1)
    run = simulate(dut, cost.program, images, limit=3000)
    trace = golden.run(random_network(config.network, 1), images)
    for frame, came in enumerate(run.results):  # which the operations meanwhile leave alone
        assert difference(config.network, came, trace, frame) is None
    cycles = [cost.layer_cycles(layer) for layer in cost.program.layers]
    ahead = sum(cycles[:-1])
    assert run.cycles[0] == cycles
    assert cost.frame_period == cost.frame_cycles + 1 + cost.output_wait
    assert np.diff(run.offered).tolist() == [cost.frame_period] * 2
    if len(cycles) > 1:
        assert cost.output_wait == cost.output_cycles - 2 - ahead > 0
        assert run.cycles[1:] == [[*cycles[:-1], cycles[-1] + cost.output_wait]] * 2
    else:  # while its pixels came in, some of the result has left
        left = cost.output_cycles - 2 - cost.input_cycles
        assert left > 0
        assert run.cycles[1:] == [[cycles[0] + left]] * 2


@pytest.mark.slow
def test_a_result_that_waits_is_left_alone():
    """By the next frame's first operation, of more channel tiles than have left by then."""
    config = ends(conv("a", 32, 2, 1, kernel=1), {**MAP, "channels": 16}, height=2, width=3,
                  channels=1)
    cost, dut = engine(config)
    images = random_images(config.network, 3, 1)
    run = simulate(dut, cost.program, images, gaps=60, limit=5000)
    assert max(cycles[-1] for cycles in run.cycles) > cost.frame_cycles  # waited for by the last
    trace = golden.run(random_network(config.network, 1), images)
    for frame, came in enumerate(run.results):
        assert difference(config.network, came, trace, frame) is None


@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_a_result_that_only_just_leaves_in_time(beside):
    """One operation's channels around the number that takes as long as the others."""
    def cost_of(channels):
        return Cost.of(ends(conv("a", 3, 2, 1, kernel=1),
                            conv("end", channels, 2, 1, kernel=1), height=3, width=3, channels=1))
    least = next(n for n in range(1, 100) if cost_of(n).output_wait > 0)
    cost, dut = engine(cost_of(least + beside).program.config)
    assert (cost.output_wait > 0) == (beside >= 0)
    images = random_images(cost.program.config.network, 3, 1)
    run = simulate(dut, cost.program, images, limit=3000)
    assert np.diff(run.offered).tolist() == [cost.frame_period] * 2


# Height, width, channels, fold, kernel, array: words with and without neighbours, positions that
# take longer than their pixels, and shorter.
INPUTS = [(3, 4, 1, 1, 3, (2, 2, 2)), (3, 2, 3, 1, 1, (3, 1, 1)), (4, 6, 1, 2, 3, (1, 1, 16)),
          (8, 12, 1, 4, 1, (1, 1, 16))]


def random_input(seed: int):
    rng = random.Random(seed)
    fold = rng.choice([1, 2, 2, 4])
    return (fold * rng.randint(1, 4), fold * rng.randint(1, 4), rng.randint(1, 3), fold,
            rng.choice([1, 3, 3]), (1, 1, rng.choice([1, 2, 4, 8, 16, 32])))


class Entry(wiring.Component):
    """What pixels come through, and nothing behind it; `busy` when a frame is there."""

    def __init__(self, program, hardware):
        self.program, self.hardware = program, hardware
        super().__init__({"pixels": In(stream.Signature(pixel_shape(hardware, False))),
                          "busy": Out(1), "result": Out(stream.Signature(1))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.frame = frame = Frame(self.hardware, False)
        m.submodules.store = store = PixelInput(self.hardware)
        wiring.connect(m, wiring.flipped(self.pixels), frame.pixels)
        wiring.connect(m, frame.positions, store.pixels)
        record = Const(record_word(self.hardware, record_values(self.program, self.hardware)))
        m.d.comb += [frame.record.eq(record), store.record.eq(record), frame.accept.eq(1),
                     store.granted.eq(1), store.read.eq(store.ready), frame.read.eq(store.ready)]
        m.d.sync += self.busy.eq(store.ready)
        return m


def starts(dut, frames) -> list[int]:
    """Cycles from each frame's first pixel to its start; nothing else is in work."""
    found = []

    async def bench(ctx):
        ctx.set(dut.result.ready, 1)
        for frame in frames:
            now, first, left = 0, None, list(frame)
            while not ctx.get(dut.busy):
                ctx.set(dut.pixels.valid, len(left) > 0)
                if left:
                    ctx.set(dut.pixels.payload, left[0])
                *_, valid, ready = await ctx.tick().sample(dut.pixels.valid, dut.pixels.ready)
                if valid and ready:
                    left.pop(0)
                    first = now if first is None else first
                now += 1
                assert now < 5000, "it hangs"
            assert not left
            found.append(now - 1 - first)
            await ctx.tick().until(~dut.busy)
            await ctx.tick().repeat(50)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found


def config_of(height, width, channels, fold, kernel, array):
    return ends(conv("end", 1, 2, 1, kernel=kernel), array=array, height=height, width=width,
                channels=channels, fold=fold)


@pytest.mark.slow
@pytest.mark.parametrize("shape", INPUTS)
def test_pixels_come_into_an_engine(shape):
    config = config_of(*shape)
    cost, dut = engine(config)
    images = random_images(config.network, 2, 1)
    assert starts(dut, pixel_words(images)) == [cost.input_cycles] * 2


@pytest.mark.parametrize("shape", [
    (3, 1, 1, 1, 3, (1, 1, 2)), (4, 2, 1, 2, 3, (1, 1, 4)), *map(random_input, range(12))])
def test_pixels_come_in(shape):
    """Frames of any shape, of one column first."""
    cost = Cost.of(config_of(*shape))
    images = random_images(cost.program.config.network, 2, 1)
    dut = Entry(cost.program, cost.hardware)
    assert starts(dut, pixel_words(images)) == [cost.input_cycles] * 2


@pytest.mark.parametrize("height, width, fold", [(4, 3, 1), (4, 4, 2)])
def test_a_frame_waits_for_its_pixels(height, width, fold):
    """One operation, which writes no code that pixels would have to give way to."""
    config = ends(conv("end", 1, 2, 1, kernel=1), array=(2, 1, 1), height=height, width=width,
                  fold=fold)
    cost, dut = engine(config)
    assert cost.frame_period == cost.frame_cycles + cost.input_cycles + 1
    run = simulate(dut, cost.program, random_images(config.network, 3, 1), limit=3000)
    assert np.diff(run.offered).tolist() == [cost.frame_period] * 2


def two(channels, array=(16, 8, 4), size=12, **more):
    return ends(conv("a", channels, 1, 1, kernel=1), conv("b", channels, 1, 1, **more),
                total("end", 4, 1), array=array, height=size, width=size, channels=3)


def three(**shape):
    """Pixels of many words, which take longer than all operations."""
    names = {"a": 4, "b": 4, "end": 2}
    return ends(*(conv(name, count, 1, 1, kernel=1) for name, count in names.items()),
                array=(8, 4, 1), height=8, width=12, channels=3, **shape)


# What is between the pixels' time and the frames': codes that are written, which pixels give way
# to, at whatever step of theirs; so few that pixels are slower, and so many that frames are.
GIVE_WAY = {
    "few": two(4, (8, 4, 2), 6), "many": two(24, (8, 4, 2), 6, kernel=1),
    "even": two(4, (4, 4, 2), 6, kernel=1), "frames": two(24, (4, 2, 2), 4),
    "pooled": two(4, (8, 4, 2), 6, pool=True, kernel=1),
    "folded": ends(conv("a", 4, 1, 1, kernel=1), conv("b", 4, 1, 1, kernel=1),
                   conv("end", 2, 1, 1, kernel=1),
                   array=(8, 4, 2), height=8, width=12, channels=1, fold=2),
    "long": three(), "long, folded": three(fold=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GIVE_WAY)
def test_pixels_give_way_to_codes(name):
    config = GIVE_WAY[name]
    cost, dut = engine(config)
    images = random_images(config.network, 4, 1)
    run = simulate(dut, cost.program, images, limit=4000)
    trace = golden.run(random_network(config.network, 1), images)  # no pixel got lost
    assert all(difference(config.network, result, trace, frame) is None
               for frame, result in enumerate(run.results))
    assert np.diff(run.offered).tolist() == [cost.frame_period] * 3
    paced = cost.frame_period > cost.frame_cycles + 1 + cost.output_wait
    assert paced == (name != "frames")
    assert cost.written_units > 0


@pytest.mark.slow
@pytest.mark.parametrize("designs, name", [(designs, name) for designs in (GIVE_WAY, SLOW)
                                           for name in designs])
def test_a_frame_comes_in_beside_the_first_operation(designs, name):
    """With two buffers: a frame's pixels have all of the cycles of the one before."""
    config = buffered(designs[name])
    single, (cost, dut) = Cost.of(designs[name]), engine(config)
    images = random_images(config.network, 5, 1)
    run = simulate(dut, cost.program, images, limit=4000)
    trace = golden.run(random_network(config.network, 1), images)
    assert all(difference(config.network, result, trace, frame) is None
               for frame, result in enumerate(run.results))
    assert np.diff(run.offered).tolist() == [cost.frame_period] * 4
    assert cost.frame_cycles == single.frame_cycles
    assert cost.frame_period <= single.frame_period
    if designs is GIVE_WAY:
        assert (cost.frame_period < single.frame_period) == (name != "frames")
    paced = cost.frame_period > cost.frame_cycles + 1 + cost.output_wait
    assert paced == name.startswith("long")
