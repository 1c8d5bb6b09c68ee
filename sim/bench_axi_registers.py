"""cocotb bench of the top with AXI: registers, interrupts, the load window.

Runs inside the simulator; :mod:`sim.axi_ports` says what it needs.
"""

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
    OKAY,
    PATIENCE,
    PROGRAMS,
    REGISTERS,
    RESULT,
    RUN,
    SHORT,
    SLVERR,
    WINDOW,
    Bench,
    at,
)


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
async def illegal_accesses(dut):
    """Answered with SLVERR, and nothing changes."""
    bench = Bench(dut, 3)
    await bench.ready(0)
    rng = bench.rng
    await bench.write("PROGRAM", PROGRAMS - 1)
    await bench.write("IRQ_ENABLE", 2)
    before = await bench.all_registers()
    start, size = WINDOW["offset"], WINDOW["size"]
    known = {each["offset"] for each in REGISTERS.values()}
    gaps = [k for k in range(0, start or 256, 4) if k not in known]
    kept = [each["offset"] for each in REGISTERS.values() if each["access"] == "ro"]
    window = [start, start + size - 4] if size else []
    writable = [each["offset"] for each in REGISTERS.values() if each["access"] != "ro"]

    writes = [(k, 15) for k in kept + rng.sample(gaps, 20) + gaps[:1] + gaps[-1:]]
    writes += [(k + rng.randint(1, 3), rng.randrange(16)) for k in writable * 3 + window]
    writes += [(k, strobe) for k in window for strobe in range(15)]
    writes += [(k, rng.randrange(15)) for k in kept]
    for k, strobe in rng.sample(writes, len(writes)):
        value = rng.choice([0, 1, 2, 3, 0xFFFFFFFF, rng.getrandbits(32)])
        assert await bench.raw_write(k, value, strobe) == SLVERR, hex(k)
    for value in {PROGRAMS, PROGRAMS + 1, 256, 1 << 31, 0xFFFFFFFF}:
        assert await bench.raw_write(at("PROGRAM"), value) == SLVERR
    reads = [k + rng.randint(1, 3) for k in known] + rng.sample(gaps, 20) + window
    for k in rng.sample(reads, len(reads)):
        assert await bench.raw_read(k) == (SLVERR, 0), hex(k)
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
    enable, magic = map(at, ("IRQ_ENABLE", "MAGIC"))
    writes = [(rng.choice([enable, enable, enable + 1, magic]), rng.randrange(4))
              for _ in range(60)]
    reads = [rng.choice([magic, magic + 2, 0x30, 0xFC]) for _ in range(60)]

    for channel, beats in (
            (bench.aw, [{"awaddr": k, "awprot": 0} for k, _ in writes]),
            (bench.w, [{"wdata": value, "wstrb": 15} for _, value in writes]),
            (bench.ar, [{"araddr": k, "arprot": 0} for k in reads])):
        cocotb.start_soon(bench.send_beats(channel, beats, [0, 0, 0, 0, 30]))
    for k, _ in writes:
        came = await bench.soon(bench.b.recv())
        assert int(came.bresp) == (OKAY if k == enable else SLVERR)
    known = {each["offset"]: each["reset"] for each in REGISTERS.values()}
    for k in reads:
        came = await bench.soon(bench.r.recv())
        assert (int(came.rresp), int(came.rdata)) == (
            (OKAY, known[k]) if k in known else (SLVERR, 0))
    await bench.cycles(20)
    assert bench.b.empty() and bench.r.empty()
    assert await bench.read("IRQ_ENABLE") == [
        value for k, value in writes if k == enable][-1]


@cocotb.test()
async def rate_of_accesses(dut):
    """Two cycles each, if nobody waits; four for a word of the load window that is not stalled."""
    bench = Bench(dut)
    await bench.start()
    magic, enable = map(at, ("MAGIC", "IRQ_ENABLE"))
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
            if bench.high(f"s_axil_{channel}valid", f"s_axil_{channel}ready"):
                cycles.append(cycle)
        assert [b - a for a, b in pairwise(cycles)] == [wanted] * 5, (hex(address), cycles)
        await bench.cycles(10)


@cocotb.test()
async def byte_strobes(dut):
    bench = Bench(dut, 4)
    await bench.start()
    enable, errors = map(at, ("IRQ_ENABLE", "ERRORS"))
    for strobe in range(16):
        await bench.write("IRQ_ENABLE", 1)
        assert await bench.raw_write(enable, 0xFFFFFF02, strobe) == OKAY
        assert await bench.read("IRQ_ENABLE") == (2 if strobe & 1 else 1), strobe
    # A number is refused as a whole, with the bytes that stay.
    assert await bench.raw_write(at("PROGRAM"), 0xFFFFFF00, 1) == OKAY
    assert await bench.raw_write(at("PROGRAM"), 0x100, 2) == SLVERR
    await bench.write("CONTROL", RUN)
    assert await bench.raw_write(at("CONTROL"), 0, 14) == OKAY
    assert await bench.read("CONTROL") == RUN
    await bench.load()
    await bench.send_whole(FRAMES[0]["pixels"][:1])
    assert await bench.raw_write(errors, 0xFFFFFFFF, 14) == OKAY
    assert await bench.read("ERRORS") == SHORT
    assert await bench.raw_write(errors, 0xFFFFFFFF, 1) == OKAY
    assert await bench.read("ERRORS") == 0


@cocotb.test()
async def interrupts(dut):
    bench = Bench(dut)
    await bench.ready()
    one, offset = min(FRAMES, key=lambda each: len(each["words"])), at("IRQ_STATUS")

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
    await bench.send_whole(one["pixels"][:-1])
    assert await irq() == 1 and await bench.read("IRQ_STATUS") == ERROR
    # Cleared while the flag in ERRORS stays; a second error of the same kind raises it again.
    await bench.write("IRQ_STATUS", ERROR)
    assert await irq() == 0 and await bench.read("ERRORS") == SHORT
    await bench.send_whole(one["pixels"][:-1])
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
            if bench.result_ends():
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


@cocotb.test(skip=not JOB["load"])
async def refused_loads(dut):
    bench = Bench(dut, 6)
    rng = bench.rng
    await bench.ready()
    for address in JOB["refused"]:
        word = WINDOW["offset"] + 4 * address
        assert await bench.raw_write(word, rng.getrandbits(32)) == SLVERR
        assert await bench.read("ERRORS") == LOAD and await bench.read("IRQ_STATUS") == ERROR
        await bench.clear(LOAD)
        assert await bench.read("ERRORS") == 0
        await bench.load()  # the same once more
        assert await bench.read("ERRORS") == 0
    for frame in FRAMES[:4]:
        await bench.run(frame)
