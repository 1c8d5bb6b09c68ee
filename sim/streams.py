"""Test benches for Amaranth's simulator: an engine run with random gaps, every code recorded."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from amaranth.sim import Simulator

from export.program import LayerProgram, Program
from sim.results import unpack


def pixel_words(images: np.ndarray) -> list[list[int]]:
    """Images uint8 [N, H, W, C] as stream payloads, per frame a list in raster order."""
    flat = images.reshape(len(images), -1, images.shape[-1])
    return [[int.from_bytes(pixel.tobytes(), "little") for pixel in image] for image in flat]


class TraceCollector:
    """Puts an engine's probed codes back into feature maps, frame after frame."""

    def __init__(self, program: Program):
        self.program = program
        self.units = []  # per frame: per operation: list of units of codes
        self.new_frame()

    def new_frame(self):
        self.units.append([[] for _ in self.program.layers])

    def take(self, index: int, codes: list[int]):
        """One valid word of the probe: the operation's number and `unit` codes."""
        self.units[-1][index].append(codes)

    def codes(self, frame: int) -> dict[str, np.ndarray]:
        """Codes uint8 [channels, height, width] of each convolution that was computed."""
        return {op.name: self._map(op, self.units[frame][index])
                for index, op in enumerate(self.program.layers)
                if op.operation.makes_codes and self.units[frame][index]}

    def _map(self, op: LayerProgram, units: list) -> np.ndarray:
        array, shape = self.program.array, self.program.config.network.shapes[op.name]
        codes = np.array(units, np.uint8).reshape(
            op.map_tiles, shape.pixels, array.units, array.unit)
        maps = codes.transpose(0, 2, 3, 1).reshape(-1, shape.height, shape.width)
        return maps[:shape.channels]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What left an engine: per frame its result, codes, cycles of each layer, and when."""

    results: list  # as :func:`sim.results.unpack` gives them
    codes: TraceCollector
    cycles: list[list[int]]
    offered: list[int]  # cycle of the simulation in which the last of the result was first there


def simulate(engine, program: Program, images: np.ndarray, *, clips: Sequence[int] = (),
             seed: int = 0, gaps: int = 0, limit: int = 200_000) -> Run:
    """Runs images uint8 [N, H, W, C] through an engine with `program` in Amaranth's simulator.

    Of a network that reads clips they are the frames of `clips`, so many of each. `gaps` is the
    longest random pause between two pixels and before a transfer is taken. An offered transfer must
    not change or vanish, and a result must come within `limit` cycles.
    """
    rng = random.Random(seed)
    network, hardware = program.config.network, engine.hardware
    collector = TraceCollector(program)
    results, cycles, offered = [], [], []
    starts = {sum(clips[:k]) for k in range(len(clips))}
    wanted = sum(length // network.period for length in clips or [len(images)])

    async def producer(ctx):
        for number, frame in enumerate(pixel_words(images)):
            for word in frame:
                if hardware.clocks:
                    ctx.set(engine.clip, number in starts)
                if gaps and (pause := rng.randint(0, gaps)):
                    await ctx.tick().repeat(pause)
                ctx.set(engine.pixels.payload, word)
                ctx.set(engine.pixels.valid, 1)
                await ctx.tick().until(engine.pixels.ready)
                ctx.set(engine.pixels.valid, 0)

    async def consumer(ctx):
        ticks, offer, transfers, was_busy = [0] * len(program.layers), None, [], 0
        result, probe = engine.result, engine.probe
        wait, now = rng.randint(0, gaps), 0
        ctx.set(result.ready, wait == 0)
        async for *_, busy, layer, valid, ready, payload, probed in ctx.tick().sample(
                engine.busy, engine.layer, result.valid, result.ready, result.payload, probe):
            now += 1
            assert now < limit * (len(results) + 1), "the engine hangs"
            if probed.valid:
                collector.take(probed.layer, list(probed.codes))
            if busy:
                ticks[layer] += 1
            elif was_busy:
                cycles.append(ticks)
                ticks = [0] * len(program.layers)
                collector.new_frame()
            was_busy = busy
            if (len(results), len(cycles)) == (wanted, len(images)):
                return
            if not valid:
                assert offer is None, "an offered result vanished"
                continue
            assert offer is None or payload == offer, "an offered result changed"
            last = not hardware.result_words or payload.last
            if offer is None and last:
                offered.append(now)
            if ready:
                transfers.append(payload.data if hardware.result_words else
                                 payload.as_bits())
                if last:
                    results.append(unpack(network, hardware, transfers))
                    transfers = []
                    assert len(results) <= wanted, "a result of a frame that gives none"
                    if len(results) == wanted and not network.timed:
                        return
                wait = rng.randint(0, gaps)
            else:
                wait -= 1
            offer = None if ready else payload
            ctx.set(result.ready, wait == 0)

    simulator = Simulator(engine)
    simulator.add_clock(1e-6)
    simulator.add_testbench(producer, background=True)
    simulator.add_testbench(consumer)
    simulator.run()
    return Run(results=results, codes=collector, cycles=cycles, offered=offered)
