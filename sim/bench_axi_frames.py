"""cocotb bench of the top with AXI: frames that come in, results that go out.

Runs inside the simulator; :mod:`sim.axi_ports` says what it needs.
"""

import random
from itertools import pairwise

import cocotb
from cocotb.triggers import RisingEdge

from sim.axi_ports import (
    ERROR,
    FRAMES,
    JOB,
    LOADED,
    LONG,
    PATIENCE,
    RECEIVING,
    REGISTERS,
    RESET,
    RUN,
    SHORT,
    UNLOADED,
    Bench,
)


def wrong(frame: dict, rng: random.Random) -> tuple[list[int], int]:
    """The pixels of a frame of wrong length, by one or by much, and the error that it is."""
    pixels = frame["pixels"]
    if rng.random() < 0.5:
        return pixels[:rng.choice([1, len(pixels) - 1, rng.randrange(1, len(pixels))])], SHORT
    return pixels + pixels[:rng.choice([1, 2, rng.randrange(1, len(pixels) + 1)])], LONG


@cocotb.test()
async def frames_with_pauses_everywhere(dut):
    """Registers are read and written while frames are in work."""
    bench = Bench(dut, 1)
    await bench.ready()
    rng, over = bench.rng, []

    async def meddle():
        names = [name for name, each in REGISTERS.items() if each["fixed"]]
        while not over:
            name = rng.choice(names)
            assert await bench.read(name) == REGISTERS[name]["reset"]
            assert await bench.read("CONTROL") == RUN
            await bench.write("IRQ_ENABLE", enable := rng.randrange(4))
            assert await bench.read("IRQ_ENABLE") == enable
            await bench.cycles(rng.randrange(8))

    meddler = cocotb.start_soon(meddle())
    frames = [rng.choice(FRAMES) for _ in range(JOB["count"])]
    for n, frame in enumerate(frames, 1):
        await bench.run_counted(frame, n)
    over.append(True)
    await meddler
    assert await bench.read("ERRORS") == 0
    assert await bench.read("STATUS") == LOADED
    # All in one go, as far as the program does not change.
    same = [frame for frame in FRAMES if frame["program"] == FRAMES[0]["program"]]
    await bench.select(same[0])
    for frame in same:
        bench.send(frame["pixels"])
    for frame in same:
        assert await bench.receive() == frame["words"]


@cocotb.test()
async def frames_of_wrong_length(dut):
    bench = Bench(dut, 2)
    await bench.ready()
    rng, frames = bench.rng, 0
    for _ in range(JOB["count"]):
        frame = rng.choice(FRAMES)
        await bench.select(frame)
        kinds, delivered = 0, rng.random() < 0.7
        for _ in range(rng.choice([1, 1, 2, 3])):
            pixels, kind = wrong(frame, rng)
            kinds |= kind
            bench.send(pixels)
        if delivered:  # right behind
            bench.send(frame["pixels"])
            assert await bench.receive() == frame["words"]
        await bench.soon(bench.source.wait())
        await bench.cycles(4)
        frames += delivered
        assert await bench.read("ERRORS") == kinds
        assert await bench.read("IRQ_STATUS") == ERROR | delivered
        other = kinds ^ (SHORT | LONG)
        await bench.write("ERRORS", other)  # clears only what is named
        assert await bench.read("ERRORS") == kinds & ~other
        await bench.write("ERRORS", 0xFFFFFFFF)
        assert await bench.read("ERRORS") == 0
        await bench.write("IRQ_STATUS", 0xFFFFFFFF)
        assert await bench.read("FRAMES") == frames
    await bench.quiet(2 * max(JOB["period"]))


@cocotb.test()
async def without_run_nothing_is_taken(dut):
    bench = Bench(dut)
    await bench.ready(0)
    one, *_ = FRAMES
    await bench.select(one)
    bench.send(one["pixels"])
    await bench.quiet(2 * max(JOB["period"]))
    assert await bench.read("STATUS") == LOADED
    await bench.write("CONTROL", RUN)
    assert await bench.receive() == one["words"]
    # Cleared within a frame, that frame is still taken, but not the next.
    bench.source.pause = True
    bench.send(one["pixels"])
    bench.send(one["pixels"])
    bench.source.pause = False
    while not int(dut.s_axis_tvalid.value) or not int(dut.s_axis_tready.value):
        await RisingEdge(dut.clk)
    bench.source.pause = True
    await bench.cycles(3)
    assert await bench.read("STATUS") & RECEIVING
    await bench.write("CONTROL", 0)
    bench.source.pause = False
    assert await bench.receive() == one["words"]
    await bench.quiet(2 * max(JOB["period"]))
    assert await bench.read("STATUS") == LOADED
    await bench.write("CONTROL", RUN)
    assert await bench.receive() == one["words"]


@cocotb.test()
async def soft_reset_at_any_time(dut):
    bench = Bench(dut, 5)
    await bench.ready()
    rng, count = bench.rng, 0
    await bench.write("IRQ_ENABLE", 1)

    async def look():
        while True:
            assert await bench.read("CONTROL") == RUN

    cocotb.start_soon(look())
    for _ in range(3 * JOB["count"]):
        frame = rng.choice([each for each in FRAMES if each["words"][-1]])  # not like a cut one
        await bench.select(frame)
        sent = rng.choice([1, 1, 2])
        for _ in range(sent):
            bench.send(frame["pixels"])
        if rng.random() < 0.3:  # a result is kept waiting, for once
            bench.sink.set_pause_generator(None)
            bench.sink.pause = True
        # Within the pixels, or anywhere.
        await bench.cycles(rng.randrange(rng.choice(
            [2 * len(frame["pixels"]), sent * JOB["period"][frame["program"]]])))
        await bench.write("CONTROL", RUN | RESET)
        bench.sink.set_pause_generator(bench.pauses())
        if rng.random() < 0.5:  # once more, soon or late
            await bench.cycles(rng.choice([0, 5, 50, JOB["period"][frame["program"]]]))
            await bench.write("CONTROL", RUN | RESET)
        # Frames that had not begun to come in are whole.
        await bench.rest()
        left, whole = bench.sink.count(), 0
        for _ in range(left):
            words = await bench.receive()
            if words == frame["words"]:
                whole += 1
            else:  # cut, and ended by a zero
                assert words[-1] == 0 and 1 < len(words) <= len(frame["words"]) + 1, words
                assert words[:-1] == frame["words"][:len(words) - 1]
        assert left <= sent
        count += whole
        assert await bench.read("FRAMES") == count
        assert await bench.read("ERRORS") == 0
        assert await bench.read("CONTROL") == RUN and await bench.read("IRQ_ENABLE") == 1
        cycles = await bench.read("CYCLES")  # not of a frame that was dropped
        assert cycles == 0 or cycles >= min(JOB["cycles"])
        count += 1
        await bench.run_counted(frame, count)


@cocotb.test(skip=not JOB["load"])
async def program_that_is_not_loaded(dut):
    bench = Bench(dut, 7)
    await bench.ready()
    await bench.store(JOB["unload"])
    frame = next(each for each in FRAMES if each["program"] == 0)
    await bench.select(frame)
    await bench.cycles(4)
    assert await bench.read("ERRORS") == 0  # nobody wants to run it
    assert await bench.read("STATUS") == 0
    bench.send(frame["pixels"])
    await bench.quiet(2 * max(JOB["period"]))
    for _ in range(2):
        assert await bench.read("ERRORS") == UNLOADED
        assert await bench.read("IRQ_STATUS") == ERROR
        await bench.clear(UNLOADED)
        # It was said once, for a frame that is offered.
        assert await bench.read("ERRORS") == await bench.read("IRQ_STATUS") == 0
        await bench.write("CONTROL", 0)
        await bench.write("CONTROL", RUN)
    await bench.load()  # now it is there, and the frame is taken
    assert await bench.receive() == frame["words"]
    await bench.write("ERRORS", UNLOADED)
    assert await bench.read("ERRORS") == 0
    assert await bench.read("STATUS") == LOADED


@cocotb.test()
async def full_rate(dut):
    """Frame after frame as fast as the engine itself."""
    bench = Bench(dut)
    await bench.ready()
    for program, period in enumerate(JOB["period"]):
        frames = [frame for frame in FRAMES if frame["program"] == program] * 2
        await bench.select(frames[0])
        for frame in frames:
            bench.send(frame["pixels"])
        ends, cycle = [], 0
        while len(ends) < len(frames):
            await RisingEdge(dut.clk)
            cycle += 1
            if bench.result_ends():
                ends.append(cycle)
            assert cycle < len(frames) * PATIENCE
        gaps = {b - a for a, b in pairwise(ends)}
        assert gaps == {period}, f"program {program}: {gaps} cycles from frame to frame"
        for frame in frames:
            assert await bench.receive() == frame["words"]
