"""Reset in the middle of anything: the next frame is right, and what was loaded is still there."""

import random

import pytest
from amaranth import ClockDomain, Module
from amaranth.sim import Simulator

from export.hardware import Hardware
from export.image import build_image
from export.loader import Loader
from export.machine import Machine, describe_machine
from export.pack import empty
from export.program import Program
from export.sections import sections
from hw.engine import Engine
from sim import golden
from sim.results import difference, unpack
from sim.samples import random_images, random_network
from sim.streams import pixel_words
from tests.designs import conv, design

ARRAY = 2, 2, 1
CONFIGS = [
    design([conv("a", 2, 2, 2), conv("b", 2, 3, 3, skip="a", gate="mux", pool=True)], ARRAY,
           height=4, width=3, channels=1, classes=3),
    design([], ARRAY, height=4, width=4, channels=1, fold=2, operations=[
        conv("a", 2, 3, 3), conv("b", 3, 2, 3, kernel=1)]),
    design([], ARRAY, height=2, width=3, channels=2, operations=[
        conv("a", 2, 2, 3), {"kind": "map", "name": "b", "channels": 5, "weight_bits": 3}])]


class Bench:
    """An engine of RAM, one cycle at a time: frames and words that wait, and what came."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.hardware = Hardware.of([Program(config) for config in CONFIGS], memory="ram", hold=2)
        self.machine = Machine(**describe_machine(self.hardware))
        self.engine = Engine(self.hardware, empty(self.hardware), framed=True)
        self.networks = [random_network(config.network, k) for k, config in enumerate(CONFIGS)]
        self.images = [random_images(config.network, 3, k) for k, config in enumerate(CONFIGS)]
        self.traces = [golden.run(*each) for each in zip(self.networks, self.images, strict=True)]
        self.domain = ClockDomain("sync")
        self.clear()

    def clear(self):
        """Nothing waits any more."""
        self.frames, self.words = [], []  # (slot, pixels), (address, word)
        self.transfers, self.results, self.refused = [], [], 0

    def simulate(self, process):
        top = Module()
        top.domains.sync, top.submodules.engine = self.domain, self.engine
        simulator = Simulator(top)
        simulator.add_clock(1e-6)
        simulator.add_testbench(process)
        simulator.run()

    def add(self, slot: int, number: int, frame: int):
        """Queues a frame of network `number`, which is in `slot`."""
        words = pixel_words(self.images[number][frame:frame + 1])[0]
        self.frames.append((slot, [{"data": word, "last": k == len(words) - 1}
                                   for k, word in enumerate(words)]))

    def load(self, loader: Loader, number: int, slot: int):
        """Queues a network's image."""
        image = build_image(self.machine, CONFIGS[number], self.networks[number])
        _, placed = loader.place(image, slot, replace=slot in loader.programs)
        loader.programs[slot] = placed
        self.words += loader.load(slot, placed)

    async def cycle(self, ctx, *, ready=True, pixel=True, word=True, reset=False):
        """One cycle in which a pixel or word is offered, if one waits, or a result taken."""
        engine = self.engine
        pixel, word = pixel and bool(self.frames), word and bool(self.words)
        ctx.set(engine.pixels.valid, pixel)
        if self.frames:
            slot, pixels = self.frames[0]
            ctx.set(engine.slot, slot)
            ctx.set(engine.pixels.payload, pixels[0])
        ctx.set(engine.load.valid, word)
        if word:
            ctx.set(engine.load.payload,
                    dict(zip(("address", "data"), self.words[0], strict=True)))
        ctx.set(engine.result.ready, ready)
        ctx.set(self.domain.rst, reset)
        *_, taken, valid, payload, refused, dropped = await ctx.tick().sample(
            engine.pixels.ready, engine.result.valid, engine.result.payload, engine.load_error,
            engine.frame_error)
        assert not dropped
        self.refused += refused
        if pixel and taken:
            self.frames[0][1].pop(0)
            if not self.frames[0][1]:
                self.frames.pop(0)
        if word:
            self.words.pop(0)
        if valid and ready:
            self.transfers.append(payload.data)
            if payload.last:
                self.results.append(self.transfers)
                self.transfers = []

    async def finish(self, ctx, results: int):
        """Cycles until all words are loaded and so many results have come."""
        for _ in range(4000):
            if not self.words and len(self.results) == results:
                return
            await self.cycle(ctx)
        raise AssertionError("the engine hangs")

    async def check(self, ctx, slot: int, number: int):
        """A frame of a network that is loaded is right."""
        frame = self.rng.randrange(3)
        self.clear()
        self.add(slot, number, frame)
        await self.finish(ctx, 1)
        network = CONFIGS[number].network
        came = unpack(network, self.hardware, self.results[0])
        assert difference(network, came, self.traces[number], frame) is None
        assert not self.refused


def parts(hardware, loader: Loader, slot: int, rng) -> list[tuple[int, int]]:
    """Garbage for a row of several parts of the program in `slot`."""
    placed = loader.programs[slot]
    rows = [(section, row) for section in sections(hardware) if section.parts > 1
            for row in ([slot] if section.name == "programs" else placed.rows(section.name))]
    section, row = rng.choice(rows)
    start = section.base + row * section.stride
    return [(start + k, rng.getrandbits(32)) for k in range(section.parts)]


async def disturb(bench: Bench, ctx, loader: Loader, first: int, other: int) -> str:
    """Anything, up to a reset at a random cycle; what it was in the middle of."""
    rng, engine = bench.rng, bench.engine
    pause, hold = rng.choice([0, 0.5, 0.9]), rng.choice([0, 1, None, None])  # or after a word
    bench.clear()
    for _ in range(3):
        bench.add(0, first, rng.randrange(3))
    if rng.random() < 0.5:
        bench.load(loader, other, 1)
    for _ in range(rng.randint(0, rng.choice([30, 300, 1000]))):
        ready = not bench.transfers if hold is None else rng.random() >= hold
        await bench.cycle(ctx, ready=ready, pixel=rng.random() >= pause,
                          word=rng.random() >= pause)
    found = [name for name, there in {
        "a result": ctx.get(engine.result.valid), "a result's middle": bool(bench.transfers),
        "pixels": bool(bench.frames) and len(bench.frames[0][1]) not in (6, 12, 16),
        "an operation": ctx.get(engine.busy), "a load": bool(bench.words)}.items() if there]
    await bench.cycle(ctx, ready=rng.random() < 0.5, reset=True)
    for _ in range(rng.choice([0, 0, 3])):
        await bench.cycle(ctx, reset=True)
    bench.clear()
    assert not (ctx.get(engine.result.valid) or ctx.get(engine.busy) or ctx.get(engine.load_error))
    return found


async def half_a_row(bench: Bench, ctx, loader: Loader):
    """The first parts of a row before a reset, the others behind it: they are refused."""
    row = parts(bench.hardware, loader, 0, bench.rng)
    split = bench.rng.randint(1, len(row) - 1)
    bench.clear()
    bench.words = row[:split]
    await bench.finish(ctx, 0)
    for _ in range(bench.rng.randrange(3)):
        await bench.cycle(ctx)
    await bench.cycle(ctx, reset=True)
    assert not bench.refused
    bench.words = row[split:]
    await bench.finish(ctx, 0)
    for _ in range(3):
        await bench.cycle(ctx)
    assert bench.refused == len(row) - split


@pytest.mark.parametrize("seed, resets", [
    (0, 2), *(pytest.param(seed, 18, marks=pytest.mark.slow) for seed in range(1, 4))])
def test_reset_in_the_middle_of_anything(seed, resets):
    bench, found = Bench(random.Random(seed)), set()
    first, *others = [seed % 3, (seed + 1) % 3, (seed + 2) % 3]

    async def process(ctx):
        loader = Loader(bench.machine)
        bench.words = [write for slot in range(2) for write in loader.clear(slot)]
        bench.load(loader, first, 0)
        await bench.finish(ctx, 0)
        for k in range(resets):
            found.update(await disturb(bench, ctx, loader, first, others[k % 2]))
            await bench.check(ctx, 0, first)
            if k % 3 == 0:
                await half_a_row(bench, ctx, loader)
                await bench.check(ctx, 0, first)
            if k % 3 == 1:  # what was half loaded
                bench.clear()
                bench.load(loader, others[k % 2], 1)
                await bench.finish(ctx, 0)
                await bench.check(ctx, 1, others[k % 2])
                await bench.check(ctx, 0, first)

    bench.simulate(process)
    if resets > 10:
        assert found == {"a result", "a result's middle", "pixels", "an operation", "a load"}
