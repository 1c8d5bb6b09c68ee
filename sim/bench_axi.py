"""cocotb bench of the top with AXI, with the masters and slaves of cocotbext-axi.

Runs inside the simulator; :mod:`sim.axi_ports` says what it needs.
"""

import random
from itertools import pairwise

import cocotb
from cocotb.triggers import RisingEdge

from sim.axi_ports import (
    DONE,
    ERROR,
    FRAMES,
    JOB,
    LOAD,
    LOADED,
    LONG,
    OKAY,
    PATIENCE,
    PROGRAMS,
    RECEIVING,
    REGISTERS,
    RESET,
    RESULT,
    RUN,
    SHORT,
    SLVERR,
    UNLOADED,
    WINDOW,
    Bench,
)


def wrong(frame: dict, rng: random.Random) -> tuple[list[int], int]:
    """The pixels of a frame of wrong length, by one or by much, and the error that it is."""
    pixels = frame["pixels"]
    if rng.random() < 0.5:
        return pixels[:rng.choice([1, len(pixels) - 1, rng.randrange(1, len(pixels))])], SHORT
    return pixels + pixels[:rng.choice([1, 2, rng.randrange(1, len(pixels) + 1)])], LONG


@cocotb.test()
async def values_after_reset(dut):
    bench = Bench(dut)
    await bench.start()
    for name, each in REGISTERS.items():
        value = await bench.read(name)
        if name == "STATUS":  # RAM holds anything
            value = value & ~LOADED if JOB["load"] else value ^ LOADED
        assert value == each["reset"], name
    assert int(dut.irq.value) == 0


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
    for n, frame in enumerate(frames):
        await bench.run(frame)
        await bench.cycles(2)
        assert await bench.read("FRAMES") == n + 1
        assert await bench.read("CYCLES") == JOB["cycles"][frame["program"]]
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
async def illegal_accesses(dut):
    """Answered with SLVERR, and nothing changes."""
    bench = Bench(dut, 3)
    await bench.ready(0)
    rng = bench.rng
    await bench.write("PROGRAM", PROGRAMS - 1)
    await bench.write("IRQ_ENABLE", 2)
    before = await bench.all_registers()
    known = {each["offset"] for each in REGISTERS.values()}
    gaps = [at for at in range(0, WINDOW["offset"] or 256, 4) if at not in known]
    kept = [each["offset"] for each in REGISTERS.values() if each["access"] == "ro"]
    window = [WINDOW["offset"] + 4 * k for k in (0, WINDOW["size"] // 4 - 1) if WINDOW["size"]]
    writable = [each["offset"] for each in REGISTERS.values() if each["access"] != "ro"]

    writes = [(at, 15) for at in kept + rng.sample(gaps, 20) + gaps[:1] + gaps[-1:]]
    writes += [(at + rng.randint(1, 3), rng.randrange(16)) for at in writable * 3 + window]
    writes += [(at, strobe) for at in window for strobe in range(15)]
    writes += [(at, rng.randrange(15)) for at in kept]
    for at, strobe in rng.sample(writes, len(writes)):
        value = rng.choice([0, 1, 2, 3, 0xFFFFFFFF, rng.getrandbits(32)])
        assert await bench.raw_write(at, value, strobe) == SLVERR, hex(at)
    for value in {PROGRAMS, PROGRAMS + 1, 256, 1 << 31, 0xFFFFFFFF}:
        assert await bench.raw_write(REGISTERS["PROGRAM"]["offset"], value) == SLVERR
    reads = [at + rng.randint(1, 3) for at in known] + rng.sample(gaps, 20) + window
    for at in rng.sample(reads, len(reads)):
        assert await bench.raw_read(at) == (SLVERR, 0), hex(at)
    assert await bench.all_registers() == before
    await bench.write("CONTROL", RUN)
    for frame in FRAMES[:4]:
        await bench.run(frame)


@cocotb.test()
async def accesses_one_behind_the_other(dut):
    """Sent without waiting for responses: those come in order, each its own."""
    bench = Bench(dut, 8)
    await bench.start()
    rng = bench.rng
    enable, magic = REGISTERS["IRQ_ENABLE"]["offset"], REGISTERS["MAGIC"]
    writes = [(rng.choice([enable, enable, enable + 1, magic["offset"]]), rng.randrange(4))
              for _ in range(60)]
    reads = [rng.choice([magic["offset"], magic["offset"] + 2, 0x30, 0xFC]) for _ in range(60)]

    for channel, beats in (
            (bench.aw, [{"awaddr": at, "awprot": 0} for at, _ in writes]),
            (bench.w, [{"wdata": value, "wstrb": 15} for _, value in writes]),
            (bench.ar, [{"araddr": at, "arprot": 0} for at in reads])):
        cocotb.start_soon(bench.send_beats(channel, beats, [0, 0, 0, 0, 30]))
    for at, _ in writes:
        came = await bench.soon(bench.b.recv())
        assert int(came.bresp) == (OKAY if at == enable else SLVERR)
    known = {each["offset"]: each["reset"] for each in REGISTERS.values()}
    for at in reads:
        came = await bench.soon(bench.r.recv())
        assert (int(came.rresp), int(came.rdata)) == (
            (OKAY, known[at]) if at in known else (SLVERR, 0))
    await bench.cycles(20)
    assert bench.b.empty() and bench.r.empty()
    assert await bench.read("IRQ_ENABLE") == [
        value for at, value in writes if at == enable][-1]


@cocotb.test()
async def rate_of_accesses(dut):
    """Two cycles each, if nobody waits; four for a word of the load window that is not stalled."""
    bench = Bench(dut)
    await bench.start()
    magic, enable = (REGISTERS[name]["offset"] for name in ("MAGIC", "IRQ_ENABLE"))
    cases = [("b", enable, 2), ("r", magic, 2)]
    if WINDOW["size"] and JOB["load_cycles"]:
        cases.append(("b", WINDOW["offset"] + 4 * JOB["load"][0][0], JOB["load_cycles"]))
    for channel, address, wanted in cases:
        beats = ([(bench.ar, {"araddr": address, "arprot": 0})] if channel == "r" else
                 [(bench.aw, {"awaddr": address, "awprot": 0}),
                  (bench.w, {"wdata": 0, "wstrb": 15})])
        bench.b.queue_occupancy_limit = bench.r.queue_occupancy_limit = -1  # always ready
        for each, values in beats:
            cocotb.start_soon(bench.send_beats(each, [values] * 6, [0]))
        cycles = []
        for cycle in range(60):
            await RisingEdge(dut.clk)
            if all(int(getattr(dut, f"s_axil_{channel}{name}").value)
                   for name in ("valid", "ready")):
                cycles.append(cycle)
        assert [b - a for a, b in pairwise(cycles)] == [wanted] * 5, (hex(address), cycles)
        await bench.cycles(10)


@cocotb.test()
async def byte_strobes(dut):
    bench = Bench(dut, 4)
    await bench.start()
    enable, errors = (REGISTERS[name]["offset"] for name in ("IRQ_ENABLE", "ERRORS"))
    for strobe in range(16):
        await bench.write("IRQ_ENABLE", 1)
        assert await bench.raw_write(enable, 0xFFFFFF02, strobe) == OKAY
        assert await bench.read("IRQ_ENABLE") == (2 if strobe & 1 else 1), strobe
    # A number is refused as a whole, with the bytes that stay.
    assert await bench.raw_write(REGISTERS["PROGRAM"]["offset"], 0xFFFFFF00, 1) == OKAY
    assert await bench.raw_write(REGISTERS["PROGRAM"]["offset"], 0x100, 2) == SLVERR
    await bench.write("CONTROL", RUN)
    assert await bench.raw_write(REGISTERS["CONTROL"]["offset"], 0, 14) == OKAY
    assert await bench.read("CONTROL") == RUN
    await bench.load()
    bench.send(FRAMES[0]["pixels"][:1])
    await bench.soon(bench.source.wait())
    await bench.cycles(3)
    assert await bench.raw_write(errors, 0xFFFFFFFF, 14) == OKAY
    assert await bench.read("ERRORS") == SHORT
    assert await bench.raw_write(errors, 0xFFFFFFFF, 1) == OKAY
    assert await bench.read("ERRORS") == 0


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
async def interrupts(dut):
    bench = Bench(dut)
    await bench.ready()
    one, offset = min(FRAMES, key=lambda each: len(each["words"])), (
        REGISTERS["IRQ_STATUS"]["offset"])

    async def irq() -> int:
        await bench.cycles(2)
        return int(dut.irq.value)

    await bench.run(one)
    assert await irq() == 0 and await bench.read("IRQ_STATUS") == DONE
    await bench.write("IRQ_ENABLE", ERROR)
    assert await irq() == 0
    await bench.write("IRQ_ENABLE", DONE)
    assert await irq() == 1
    await bench.write("IRQ_STATUS", ERROR)
    assert await irq() == 1
    await bench.write("IRQ_STATUS", DONE)
    assert await irq() == 0 and await bench.read("IRQ_STATUS") == 0
    await bench.write("IRQ_ENABLE", ERROR)
    bench.send(one["pixels"][:-1])
    await bench.soon(bench.source.wait())
    await bench.cycles(2)
    assert await irq() == 1 and await bench.read("IRQ_STATUS") == ERROR
    # Cleared while the flag in ERRORS stays; a second error of the same kind raises it again.
    await bench.write("IRQ_STATUS", ERROR)
    assert await irq() == 0 and await bench.read("ERRORS") == SHORT
    bench.send(one["pixels"][:-1])
    await bench.soon(bench.source.wait())
    await bench.cycles(2)
    assert await irq() == 1

    # What happens in the cycle of the clearing write is kept: try every distance.
    await bench.write("IRQ_ENABLE", DONE)
    lead, seen = None, set()
    for distance in [None, *range(-14, 4)]:
        bench.sink.pause = True
        await bench.select(one)
        bench.send(one["pixels"])
        while not await bench.read("STATUS") & RESULT:
            pass
        await bench.cycles(2 * max(JOB["period"]))
        await bench.write("IRQ_STATUS", DONE)
        cycle, done, cleared, clearing = -20, None, None, None
        while done is None or cycle < done + 30:
            if cycle == 0:
                bench.sink.pause = False
            if distance is not None and cycle == lead + distance:
                clearing = cocotb.start_soon(
                    bench.master.write(offset, DONE.to_bytes(4, "little")))
            await RisingEdge(dut.clk)
            if all(int(getattr(dut, f"m_axis_t{name}").value) for name in
                   ("valid", "ready", "last")):
                done = cycle
            if clearing and cleared is None and int(dut.s_axil_bvalid.value):
                cleared = cycle - 1  # the write was done in the cycle before
            cycle += 1
            assert cycle < PATIENCE
        if distance is None:
            lead = done
            assert int(dut.irq.value) == 1
        else:
            await clearing
            seen.add(done - cleared)
            assert await bench.read("IRQ_STATUS") & DONE == (done >= cleared), distance
        assert await bench.receive() == one["words"]
    assert {-1, 0, 1} <= seen


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
        await bench.run(frame)
        await bench.cycles(2)
        count += 1
        assert await bench.read("FRAMES") == count
        assert await bench.read("CYCLES") == JOB["cycles"][frame["program"]]


@cocotb.test(skip=not JOB["load"])
async def refused_loads(dut):
    bench = Bench(dut, 6)
    rng = bench.rng
    await bench.ready()
    for address in JOB["refused"]:
        at = WINDOW["offset"] + 4 * address
        assert await bench.raw_write(at, rng.getrandbits(32)) == SLVERR
        assert await bench.read("ERRORS") == LOAD and await bench.read("IRQ_STATUS") == ERROR
        await bench.write("ERRORS", LOAD)
        await bench.write("IRQ_STATUS", ERROR)
        assert await bench.read("ERRORS") == 0
        await bench.load()  # the same once more
        assert await bench.read("ERRORS") == 0
    for frame in FRAMES[:4]:
        await bench.run(frame)


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
        await bench.write("ERRORS", UNLOADED)
        await bench.write("IRQ_STATUS", ERROR)
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
            if all(int(getattr(dut, f"m_axis_t{name}").value) for name in
                   ("valid", "ready", "last")):
                ends.append(cycle)
            assert cycle < len(frames) * PATIENCE
        gaps = {b - a for a, b in pairwise(ends)}
        assert gaps == {period}, f"program {program}: {gaps} cycles from frame to frame"
        for frame in frames:
            assert await bench.receive() == frame["words"]
