"""A small engine of RAM in Amaranth's simulator, one cycle at a time, for tests of its loading."""

import random

from amaranth import ClockDomain, Module
from amaranth.sim import Simulator

from export.hardware import Hardware
from export.image import build_image
from export.loader import Loader
from export.machine import Machine, describe_machine
from export.pack import empty
from export.program import Program
from export.sections import RECORDS, sections
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
        conv("a", 4, 2, 3), conv("b", 4, 2, 2, groups=2, kernel=1),
        {"kind": "map", "name": "c", "channels": 5, "weight_bits": 3}])]


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
        self.transfers, self.results, self.refused, self.dropped = [], [], 0, 0

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
        self.refused += refused
        self.dropped += dropped > 0
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
        assert self.difference(number, frame, self.results[0]) is None
        assert not (self.refused or self.dropped)

    def difference(self, number: int, frame: int, transfers: list[int]) -> str | None:
        """Between a result and the golden model's."""
        network = CONFIGS[number].network
        came = unpack(network, self.hardware, transfers)
        return difference(network, came, self.traces[number], frame)

    def garbage(self, loader: Loader, slot: int) -> list[tuple[str, list[tuple[int, int]]]]:
        """Words for a row of each section that the program in `slot` uses, and its record."""
        found = []
        for section in sections(self.hardware):
            rows = [slot] if section.name == RECORDS else loader.programs[slot].rows(section.name)
            if rows:
                start = section.base + self.rng.choice(rows) * section.stride
                found.append((section.name, [(start + k, self.rng.getrandbits(32))
                                             for k in range(section.parts)]))
        return found
