"""Memories cut into pieces, and reads of the activation memory that nobody may need."""

import random
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from export import sections
from export.cost import Cost
from export.pack import pack
from hw import memory as activations
from hw import store
from hw.engine import Engine
from sim import golden, streams
from sim.samples import random_images, random_network
from tests.designs import SMALL, conv, design, machine, random_maps


@pytest.mark.parametrize("rows, wanted", [
    (1, [1]), (512, [512]), (513, [512, 1]), (1024, [1024]), (2047, [1024, 512, 511]),
    (2048, [2048]), (10_751, [2048] * 5 + [511])])
def test_pieces_fill_block_rams(rows, wanted):
    found = sections.pieces(rows)
    assert [stop - start for start, stop, _ in found] == wanted
    assert found[0][0] == 0 and found[-1][1] == rows
    assert all(stop == after for (_, stop, _), (after, _, _) in pairwise(found))
    assert all(start % 2**bits == 0 and stop - start <= 2**bits for start, stop, bits in found)


class Deep(wiring.Component):
    """A deep memory alone; RAM if it is to be filled."""

    def __init__(self, rows: int, init: list[int], hardware):
        self.rows, self.init, self.hardware = rows, init, hardware
        self.cycles = store.deep_cycles([rows])
        super().__init__({"row": In(range(rows)), "word": Out(16),
                          **store.fill_member(hardware)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.word.eq(store.deep_store(
            m, self, "weights0", self.init, self.row, self.cycles))
        return m


@pytest.mark.parametrize("rows, ram", [(rows, ram) for rows in (3, 6, 13, 16, 27, 31, 83, 150)
                                       for ram in (False, True)] + [(700, False)])
def test_any_row_comes_so_many_cycles_later(monkeypatch, rows, ram):
    """Blocks of 16, 8 and 4 rows; in RAM, rows are written between the reads."""
    monkeypatch.setattr(sections, "PIECES", (16, 8, 4))
    monkeypatch.setattr(store, "memories", lambda _: {"weights0": (rows, 16)})
    _, hardware = machine(SMALL[0])
    if ram:
        hardware = hardware.__class__.of([machine(SMALL[0])[0]], memory="ram")
    rng = random.Random(rows)
    held = [rng.getrandbits(16) for _ in range(rows)]
    dut = Deep(rows, [*held], hardware)
    names = [each.name for each in store.sections(hardware)]
    wanted = []

    async def process(ctx):
        for cycle in range(200):
            row = rng.randrange(rows)
            ctx.set(dut.row, row)
            if ram and cycle % 8 == 0:  # nothing is read that is on its way
                await ctx.tick().repeat(dut.cycles)
                written, name = rng.randrange(rows), rng.choice(["weights0", "tiles"])
                word = rng.getrandbits(16)
                ctx.set(dut.fill, {"valid": 1, "section": names.index(name), "row": written,
                                   "data": word})
                await ctx.tick()
                ctx.set(dut.fill.valid, 0)
                if name == "weights0":
                    held[written] = word
                await ctx.tick().repeat(dut.cycles)
                wanted.clear()
            wanted.append(held[row])
            await ctx.tick()
            if len(wanted) == dut.cycles:
                assert ctx.get(dut.word) == wanted.pop(0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(process)
    simulator.run()


class Colliding(wiring.Component):
    """A memory whose reads are inverted where they collide with a write."""

    def __init__(self, *, shape, depth, init, attrs):
        self.inner = Memory(shape=shape, depth=depth, init=init, attrs=attrs)
        super().__init__({})

    def read_port(self):
        self.read = self.inner.read_port()
        self.hit = Signal()
        self.seen = SimpleNamespace(addr=Signal.like(self.read.addr),
                                    data=Signal.like(self.read.data))
        return self.seen

    def write_port(self, granularity=None):
        self.write = self.inner.write_port(granularity=granularity)
        return self.write

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = self.inner
        m.d.comb += [self.read.addr.eq(self.seen.addr),
                     self.seen.data.eq(self.read.data ^ self.hit.replicate(len(self.read.data)))]
        m.d.sync += self.hit.eq(self.write.en.any() & (self.read.addr == self.write.addr))
        return m


@pytest.mark.slow
@pytest.mark.parametrize("config", [*SMALL, design(
    [conv("a", 8, 3, 3), conv("b", 16, 2, 2), conv("c", 8, 1, 1)], (2, 8, 4), height=5, width=7),
    *map(random_maps, (1, 5, 15, 19))], ids=lambda config: f"{len(config.network.operations)}")
def test_no_read_that_collides_with_a_write_is_used(monkeypatch, config):
    made = []

    def memory(**how):
        if how.get("attrs") != store.FREE_READS:
            return Memory(**how)
        made.append(Colliding(**how))
        return made[-1]

    monkeypatch.setattr(activations, "Memory", memory)
    monkeypatch.setattr(store, "Memory", memory)
    monkeypatch.setattr("hw.gate.SIZES", (8, 4))
    monkeypatch.setattr("hw.output.PIECES", (8, 4))
    program, hardware = machine(config)
    network, images = random_network(config.network, 1), random_images(config.network, 2, 1)
    engine = Engine(hardware, pack(program, hardware, network))
    hits = []

    class Watching(Simulator):
        def run(self):
            self.add_testbench(watch, background=True)
            super().run()

    async def watch(ctx):
        async for _, _, *seen in ctx.tick().sample(*(each.hit for each in made)):
            hits.append(sum(seen))

    monkeypatch.setattr(streams, "Simulator", Watching)
    run = streams.simulate(engine, program, images)
    banks = hardware.array.rows * (2 if hardware.carries else 1)
    assert len(made) == banks + sum(len(sections.pieces(rows, (8, 4)))
                                    for rows in (hardware.skip_words, hardware.output_words))
    trace = golden.run(network, images)
    for frame in range(len(images)):
        for name, codes in run.codes.codes(frame).items():
            np.testing.assert_array_equal(codes, trace.codes[name][frame])
    assert run.cycles == [[Cost(program, hardware).layer_cycles(layer)
                           for layer in program.layers]] * len(images)
    assert sum(hits) > 0
