"""cocotb bench: frames through the exported Verilog, everything that leaves it recorded.

Runs inside the simulator; :mod:`sim.verilog` starts it and compares. All ports are read and driven
at falling edges, where every simulator has settled.
"""

import os
import random

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

from sim.streams import pixel_words

IDLE_LIMIT = 2_000_000  # cycles without a result, after which the engine is taken to hang


class Loads:
    """Words for the load window, one per cycle, each load once so many frames have been sent."""

    def __init__(self, job):
        ends = np.cumsum(job["load_lengths"]).tolist()
        self.words, self.after = job["loads"].tolist(), job["load_after"].tolist()
        self.ends, self.at, self.spans = ends, 0, []

    def offer(self, sent: int, now: int) -> list[int] | None:
        """The word that is on offer in this cycle, if any; it is taken."""
        load = next((k for k, end in enumerate(self.ends) if self.at < end), None)
        if load is None or sent < self.after[load]:
            return None
        if load == len(self.spans):
            self.spans.append([now, now])
        self.spans[load][1] = now
        self.at += 1
        return self.words[self.at - 1]


class Taker:
    """Takes transfers, each after a random pause, and puts frames' together."""

    def __init__(self, dut, rng, gaps: int, words: bool):
        self.dut, self.rng, self.gaps, self.words = dut, rng, gaps, words
        self.held, self.wait = None, rng.randint(0, gaps)
        self.transfers, self.lengths, self.left = [], [0], []

    def step(self, now: int):
        if not int(self.dut.result__valid.value):
            assert self.held is None, "an offered result vanished"
            self.dut.result__ready.value = 0
            return
        payload = int(self.dut.result__payload.value)
        assert self.held in (None, payload), "an offered result changed"
        self.held = payload
        self.dut.result__ready.value = self.wait == 0
        if self.wait:
            self.wait -= 1
            return
        self.held, self.wait = None, self.rng.randint(0, self.gaps)
        self.lengths[-1] += 1
        self.transfers.append(payload & 0xFFFFFFFF if self.words else payload)
        if not self.words or payload >> 32:
            self.lengths.append(0)
            self.left.append(now)


class Watch:
    """What the probe says of each frame in work, and how long each operation takes."""

    def __init__(self, dut, layers: int, unit: int, progress):
        self.dut, self.layers, self.unit, self.progress = dut, layers, unit, progress
        self.bits = (layers - 1).bit_length()
        self.trace, self.cycles, self.before = [], [], None

    def step(self):
        if not int(self.dut.busy.value):
            self.before = None
            return
        layer = int(self.dut.layer.value) if self.layers > 1 else 0
        if self.before is None:
            self.cycles.append([0] * self.layers)
        if layer != self.before:
            self.progress.write(b".")
        self.before = layer
        self.cycles[-1][layer] += 1
        probed = int(self.dut.probe.value)
        if probed & 1:
            codes = probed >> 1 + self.bits
            self.trace.append([len(self.cycles) - 1, probed >> 1 & (1 << self.bits) - 1,
                               *(codes >> 3 * k & 7 for k in range(self.unit))])


@cocotb.test()
async def run_frames(dut):
    """Job and results are `.npz` files named by the environment."""
    job = np.load(os.environ["HEXLANE_JOB"], allow_pickle=False)
    gaps, strict, rng = int(job["gaps"]), bool(job["strict"]), random.Random(int(job["seed"]))
    numbers, needs = job["numbers"].tolist(), job["needs"].tolist()
    frames = [pixel_words(job[f"image{n}"][None])[0] for n in range(len(numbers))]
    layers, several, selected = int(job["layers"]), hasattr(dut, "slot"), 0
    ram = hasattr(dut, "load__valid")
    outputs = [dut.pixels__ready, dut.result__valid, dut.result__payload, dut.probe, dut.busy]
    outputs += [dut.layer] if layers > 1 else []
    outputs += [dut.load__ready, dut.load_error, dut.unloaded] if ram else []

    for name in ("pixels__valid", "pixels__payload", "result__ready", "slot", "load__valid",
                 "load__payload"):
        if hasattr(dut, name):
            getattr(dut, name).value = 0
    dut.rst.value = 1
    Clock(dut.clk, 10, unit="ns").start()
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0

    loads, taker = Loads(job), Taker(dut, rng, gaps, bool(job["words"]))
    frame = word = pause = 0  # the pixel on offer, cycles until it is offered
    taken, refused, now, idle = [], 0, 0, 0
    address_bits = len(dut.load__payload) - 32 if ram else 0
    with open(os.environ["HEXLANE_PROGRESS"], "ab", buffering=0) as progress:
        watch = Watch(dut, layers, int(job["unit"]), progress)
        while len(taker.left) < len(frames):
            await FallingEdge(dut.clk)
            now += 1
            if strict:
                for port in outputs:
                    assert port.value.is_resolvable, f"{port._name} is {port.value}"
            # What the coming rising edge will see, given the inputs that are set below.
            watch.step()
            done = len(taker.left)
            taker.step(now)
            if ram:
                refused += int(dut.load_error.value)
                offer = loads.offer(frame, now)
                dut.load__valid.value = offer is not None
                if offer is not None:
                    dut.load__payload.value = offer[0] | offer[1] << address_bits
            if several and frame < len(frames) and selected != numbers[frame]:
                selected = numbers[frame]  # a cycle ahead, so that `ready` is the program's
                dut.slot.value = selected
                dut.pixels__valid.value = 0
            elif frame < len(frames) and loads.at >= needs[frame] and pause == 0:
                dut.pixels__payload.value = frames[frame][word]
                dut.pixels__valid.value = 1
                if int(dut.pixels__ready.value):  # the coming edge takes it
                    if word == 0:
                        taken.append(now)
                    word, pause = word + 1, rng.randint(0, gaps)
                    if word == len(frames[frame]):
                        frame, word = frame + 1, 0
            else:
                dut.pixels__valid.value = 0
                pause = max(0, pause - 1)
            idle = 0 if len(taker.left) > done else idle + 1
            assert idle < IDLE_LIMIT, "the engine hangs"
    np.savez(os.environ["HEXLANE_RESULTS"], results=np.array(taker.transfers, dtype=np.int64),
             lengths=taker.lengths[:-1], refused=refused, loaded=np.array(loads.spans, np.int64),
             taken=taken, left=taker.left,
             trace=np.array(watch.trace, np.int32).reshape(-1, 2 + int(job["unit"])),
             cycles=np.array(watch.cycles[:len(frames)], np.int64))
