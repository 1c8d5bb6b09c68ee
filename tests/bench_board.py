"""cocotb bench: a whole board through its two pins, with photographs; and the command.

The environment names a folder with `engine.json`, `board.v` and `job.json`: the cycles of a bit,
the photographs, and what the golden model makes of them.
"""

import json
import os
from pathlib import Path

import cocotb
import numpy as np
from cocotb.task import bridge

from export.machine import Machine
from export.packets import Code, Packet, Type
from export.serial_link import SerialLink
from model.data import read_image
from sim.line import Line, run_command

FOLDER = Path(os.environ["HEXLANE_BOARD"])
JOB = json.loads((FOLDER / "job.json").read_text())
MACHINE = Machine.load(FOLDER / "engine.json")
PHOTOS = [read_image(Path(each), tuple(JOB["size"])).reshape(-1, 3) for each in JOB["photos"]]
SIZE = PHOTOS[0].size  # bytes
TRUTH = [tuple(each) for each in JOB["truth"]]  # class and score


def scored(words: np.ndarray) -> tuple[int, int]:
    return int(words[0]), int(words[1:].view("<i4")[0])


async def begin(dut) -> Line:
    """A line whose board answers: what waits for one that does not may wait for long."""
    line = Line(dut, JOB["divider"])
    await line.start()

    def ask():
        line.write(Packet(Type.IDENTIFY, 0).to_bytes())
        return line.packets(1, 0.001)

    answers = await bridge(ask)()
    assert [each.type for each in answers] == [Type.IDENTITY]
    return line


@cocotb.test()
async def photographs(dut):
    """One after the other, and two back to back."""
    line = await begin(dut)

    def session():
        link = SerialLink(line, MACHINE)
        for photo, truth in zip(PHOTOS, TRUTH, strict=True):
            assert link.send(photo)
            assert scored(link.receive(1)) == truth
            assert int(dut.leds.value) == truth[0]
        for photo in PHOTOS:
            assert link.send(photo)
        assert [scored(link.receive(1)) for _ in PHOTOS] == TRUTH
        assert link.flags() == set() and link.receive(JOB["seconds"] / 3) is None

    await bridge(session)()


@cocotb.test()
async def damage(dut):
    """By hand: each is answered with an error, then the same frame is done; nothing else comes."""
    line = await begin(dut)
    frame = Packet(Type.FRAME, 7, b"\0" + PHOTOS[0].tobytes()).to_bytes()
    whole = [Packet(Type.DONE, 7), Packet(Type.RESULT, 7, np.array(TRUTH[0], "<i4").tobytes())]

    def session():
        line.damage_next(SIZE // 2, 0x10)
        line.write(frame)
        assert line.packets(1) == [Packet(Type.ERROR, 7, bytes([Code.DAMAGED]))]
        line.write(frame[:-(SIZE // 3)])
        assert line.packets(1) == [Packet(Type.ERROR, 7, bytes([Code.SHORT]))]
        line.write(b"noise \x7d \x00 \xff" + frame)
        assert line.packets(2) == whole
        line.write(frame)  # as if its answer had been lost: nothing is done twice
        assert line.packets(2, JOB["seconds"]) == whole[:1]

    await bridge(session)()


@cocotb.test()
async def library_over_a_bad_line(dut):
    """The host library sends again what came damaged; the results are as if nothing had been."""
    line = await begin(dut)

    def session():
        link = SerialLink(line, MACHINE, seconds=0.01)
        line.damage_next(2 * SIZE // 3)
        assert link.send(PHOTOS[0])
        line.write(bytes(range(256)))  # noise, with a flag in it
        assert link.send(PHOTOS[1])
        assert [scored(link.receive(1)) for _ in PHOTOS] == TRUTH

    await bridge(session)()


@cocotb.test()
async def command(dut):
    """`hexlane board classify` on a pseudo-terminal whose other end is the pins."""
    line = await begin(dut)
    said = await run_command([JOB["python"], "-m", "sim.cli", "board", "classify", *JOB["photos"],
                              "-m", str(FOLDER / "engine.json"), "--seconds", "100"], line)
    wanted = "".join(f"{path}: {JOB['names'][k]}, score {score}\n"
                     for path, (k, score) in zip(JOB["photos"], TRUTH, strict=True))
    assert said == (0, wanted)
