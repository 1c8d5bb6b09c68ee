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


@cocotb.test()
async def run_frames(dut):
    """Job and results are `.npz` files named by the environment."""
    job = np.load(os.environ["HEXLANE_JOB"], allow_pickle=False)
    images, gaps, strict = job["images"], int(job["gaps"]), bool(job["strict"])
    layers, unit = int(job["layers"]), int(job["unit"])
    rng = random.Random(int(job["seed"]))
    layer_bits = (layers - 1).bit_length()
    outputs = [dut.pixels__ready, dut.result__valid, dut.result__payload, dut.probe, dut.busy,
               dut.layer]

    dut.pixels__valid.value = 0
    dut.pixels__payload.value = 0
    dut.result__ready.value = 0
    dut.rst.value = 1
    Clock(dut.clk, 10, unit="ns").start()
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0

    words = (word for frame in pixel_words(images) for word in frame)
    word, pause = next(words), 0  # the pixel on offer, cycles until it is offered
    held, wait = None, rng.randint(0, gaps)
    results, trace, cycles, idle = [], [], [], 0
    counts = [0] * layers
    with open(os.environ["HEXLANE_PROGRESS"], "ab", buffering=0) as progress:
        layer_before = None
        while len(results) < len(images):
            await FallingEdge(dut.clk)
            if strict:
                for port in outputs:
                    assert port.value.is_resolvable, f"{port._name} is {port.value}"
            # What the coming rising edge will see, given the inputs that are set below.
            traced = int(dut.probe.value)
            if traced & 1:
                codes = traced >> 1 + layer_bits
                trace.append([len(results), traced >> 1 & (1 << layer_bits) - 1,
                              *(codes >> 3 * k & 7 for k in range(unit))])
            valid = int(dut.result__valid.value)
            if valid:
                payload = int(dut.result__payload.value)
                assert held in (None, payload), "an offered result changed"
                if held is None:
                    cycles.append(counts)
                    counts = [0] * layers
                held = payload
                if wait == 0:
                    results.append(payload)
                    dut.result__ready.value = 1
                    held, wait, idle = None, rng.randint(0, gaps), 0
                else:
                    wait -= 1
                    dut.result__ready.value = 0
            else:
                assert held is None, "an offered result vanished"
                dut.result__ready.value = 0
                if int(dut.busy.value):
                    layer = int(dut.layer.value)
                    counts[layer] += 1
                    if layer != layer_before:
                        progress.write(b".")
                        layer_before = layer
            if word is not None and pause == 0:
                dut.pixels__payload.value = word
                dut.pixels__valid.value = 1
                if int(dut.pixels__ready.value):  # the coming edge takes it
                    word, pause = next(words, None), rng.randint(0, gaps)
            else:
                dut.pixels__valid.value = 0
                pause = max(0, pause - 1)
            idle += 1
            assert idle < IDLE_LIMIT, "the engine hangs"
    np.savez(os.environ["HEXLANE_RESULTS"], results=np.array(results, dtype=np.int64),
             trace=np.array(trace, dtype=np.int32).reshape(-1, 2 + unit),
             cycles=np.array(cycles, dtype=np.int64))
