"""Test benches for Amaranth's simulator: an engine run with random gaps, every code recorded."""

import random

import numpy as np
from amaranth.sim import Simulator

from export.program import Program


def pixel_words(images: np.ndarray) -> np.ndarray:
    """Images uint8 [N, H, W, C] as stream payloads, a list of ints per frame in raster order."""
    flat = images.reshape(len(images), -1, images.shape[-1])
    return [[int.from_bytes(pixel.tobytes(), "little") for pixel in image] for image in flat]


class TraceCollector:
    """Puts an engine's traced codes back into feature maps, frame after frame."""

    def __init__(self, program: Program):
        self.program = program
        self.units = []  # per frame: per layer: list of units of codes
        self.new_frame()

    def new_frame(self):
        self.units.append([[] for _ in self.program.layers[:-1]])

    def take(self, layer: int, codes: int):
        """One valid trace word: the layer's number and `unit` codes of three bits."""
        self.units[-1][layer].append(codes)

    def codes(self, frame: int, layer: int) -> np.ndarray:
        """Codes uint8 [channels, height, width] of one layer."""
        program = self.program
        shape = program.layers[layer + 1].source
        words = np.array(self.units[frame][layer], dtype=np.int64)
        bits = words[:, None] >> 3 * np.arange(program.unit) & 7
        tiles = len(program.layers[layer].tiles)
        maps = bits.reshape(tiles, shape.pixels, program.units, program.unit)
        maps = maps.transpose(0, 2, 3, 1).reshape(-1, shape.height, shape.width)
        return maps[:shape.channels].astype(np.uint8)


def simulate(engine, images: np.ndarray, *, seed: int = 0, gaps: int = 0, limit: int = 2_000_000):
    """Runs frames through an engine in Amaranth's simulator.

    `gaps` is the longest random pause between two pixels and before a result is taken. Returns
    classes and scores (lists), the :class:`TraceCollector`, and per frame the cycles of each layer
    up to the result's offer. An offered result must not change or vanish.
    """
    program, rng = engine.program, random.Random(seed)
    collector = TraceCollector(program)
    classes, scores, cycles = [], [], []

    async def producer(ctx):
        for frame in pixel_words(images):
            for word in frame:
                if gaps and (pause := rng.randint(0, gaps)):
                    await ctx.tick().repeat(pause)
                ctx.set(engine.pixels.payload, word)
                ctx.set(engine.pixels.valid, 1)
                await ctx.tick().until(engine.pixels.ready)
                ctx.set(engine.pixels.valid, 0)

    async def consumer(ctx):
        ticks, offer = [0] * len(program.layers), None
        result, probe = engine.result, engine.probe
        wait = rng.randint(0, gaps)
        async for *_, busy, layer, valid, payload, traced in ctx.tick().sample(
                engine.busy, engine.layer, result.valid, result.payload, probe):
            assert sum(ticks) < limit, "the engine hangs"
            if traced.valid:
                collector.take(traced.layer, traced.codes.as_bits())
            if offer is not None:
                assert valid and payload == offer
            taken = valid and ctx.get(result.ready)
            if busy and not valid:
                ticks[layer] += 1
            if valid and offer is None:
                cycles.append(ticks)
                ticks = [0] * len(program.layers)
            offer = payload if valid and not taken else None
            if taken:
                classes.append(payload["class"])
                scores.append(payload.score)
                if len(classes) == len(images):
                    return
                collector.new_frame()
                wait = rng.randint(0, gaps)
                ctx.set(result.ready, 0)
            elif valid and wait == 0:
                ctx.set(result.ready, 1)
            elif valid:
                wait -= 1

    simulator = Simulator(engine)
    simulator.add_clock(1e-6)
    simulator.add_testbench(producer, background=True)
    simulator.add_testbench(consumer)
    simulator.run()
    return classes, scores, collector, cycles
