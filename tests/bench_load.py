"""cocotb bench: the host library loads programs into the Verilog of a machine and runs them.

The environment names `engine.json`, and a folder with images, networks, and a JSON list of what
is to be loaded where.
"""

import json
import os
import random
from pathlib import Path

import cocotb
import numpy as np
from cocotb.task import bridge

from export.host import Host, HostError, parse_result
from export.machine import Machine
from export.sections import RECORDS
from sim.pins import Pins
from tests.bench_programs import Program

FOLDER = Path(os.environ["HEXLANE_LOAD"])
SECONDS = 0.002  # of simulated time: 200,000 cycles


@cocotb.test()
async def session(dut):
    machine = Machine.load(FOLDER / "engine.json")
    rng = random.Random(1)
    pins = Pins(dut, machine, pause=lambda: rng.choice([0, 0, 0, 1, 3]))
    await pins.start()
    await bridge(run)(machine, pins)


def run(machine: Machine, pins: Pins):
    names = json.loads((FOLDER / "names.json").read_text())
    programs = [Program(FOLDER, name) for name in names]
    records = machine.by_name[RECORDS]
    for slot in range(machine.programs):  # what another host left
        for part in range(records.parts):
            pins.write(records.base + slot * records.stride + part, 0xffffffff)
        pins.select(slot)
        assert pins.flags() == set()
    host = Host(machine, pins, seconds=SECONDS)
    for slot in range(machine.programs):
        pins.select(slot)
        assert pins.flags() == {"unloaded"}
    assert not pins.send(programs[0].frames[0][:1, :1].reshape(1, -1))

    first, second, third, again = programs
    assert [host.load(each.image) for each in (first, second)] == [0, 1]
    for slot, program in ((0, first), (1, second), (0, first), (1, second)):
        program.check(host.run(slot, program.frames))

    # A program is loaded beside one that runs; one that runs is not overwritten.
    pixels = first.frames[0].reshape(-1, first.frames.shape[-1])
    pins.select(0)
    assert pins.send(pixels)
    before = host.programs
    host.unload(1)
    assert host.load(third.image) == 1
    try:
        host.load(again.image, 0, replace=True)
        raise AssertionError("a running program was overwritten")
    except HostError as error:
        assert str(error).endswith("not loaded; a write was refused"), error
    assert 0 not in host.programs and before[0] is first.image
    result = parse_result(first.image.header.output, pins.receive(SECONDS))
    first.check([result, *[parse(first, pins, frame) for frame in first.frames[1:]]])
    third.check(host.run(1, third.frames))

    # A new training of the same network, in the same machine.
    assert host.load(again.image) == 0
    again.check(host.run(0, again.frames))
    third.check(host.run(1, third.frames))


def parse(program: Program, pins: Pins, frame: np.ndarray):
    pins.select(0)
    assert pins.send(frame.reshape(-1, frame.shape[-1]))
    return parse_result(program.image.header.output, pins.receive(SECONDS))
