"""cocotb bench: programs loaded and run over the serial line, by the library and by the command.

The environment names a folder with `engine.json`, `job.json`, images and networks.
"""

import json
import os
from pathlib import Path

import cocotb
import numpy as np
from cocotb.task import bridge

from export.host import Host
from export.machine import Machine
from export.serial_link import SerialLink
from sim.line import Line, run_command
from tests.bench_programs import Program

FOLDER = Path(os.environ["HEXLANE_LOAD"])
JOB = json.loads((FOLDER / "job.json").read_text())
MACHINE = Machine.load(FOLDER / "engine.json")


@cocotb.test()
async def library(dut):
    line = Line(dut, JOB["divider"])
    await line.start()
    programs = [Program(FOLDER, name) for name in JOB["programs"]]

    def session():
        link = SerialLink(line, MACHINE, seconds=0.02)
        host = Host(MACHINE, link, seconds=0.2)
        link.select(2)
        assert not link.send(programs[0].frames[0].reshape(-1, programs[0].frames.shape[-1]))
        assert link.flags() == {"unloaded"}
        for slot, program in enumerate(programs):
            line.damage_next(100)
            assert host.load(program.image) == slot
        for slot in (1, 0, 1):
            program = programs[slot]
            line.damage_next(7)
            program.check(host.run(slot, program.frames))

        # Frames of other lengths are dropped; a write to nowhere is refused.
        pixels = programs[0].frames[0].reshape(-1, programs[0].frames.shape[-1])
        link.select(0)
        for wrong in (pixels[:-1], pixels[:1], np.concatenate([pixels, pixels[:1]])):
            assert not link.send(wrong) and link.flags() == {"frame_error"}
        link.write(2**MACHINE.load_address_bits - 1, 1)
        assert link.flags() == {"load_error"}
        programs[0].check(host.run(0, programs[0].frames))

    await bridge(session)()


@cocotb.test()
async def command(dut):
    """Codes or a map into a file, with the program loaded first."""
    line = Line(dut, JOB["divider"])
    await line.start()
    program = Program(FOLDER, JOB["programs"][1])
    call = [JOB["python"], "-m", "sim.cli", "board", "classify", *JOB["images"],
            "-m", str(FOLDER / "engine.json"), "--seconds", "100"]
    file = FOLDER / "values.npy"
    code, said = await run_command(
        [*call, "--program", str(FOLDER / f"{JOB['programs'][1]}.hxi"), "-o", str(file)], line)
    values = np.load(file)
    kind = program.image.header.output.kind
    assert (code, said) == (0, f"{file}: {kind} {list(values.shape)}\n")
    for n, each in enumerate(values):
        program.check_values(each, n)
