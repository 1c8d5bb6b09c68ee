"""cocotb bench of the top with AXI, with the masters and slaves of cocotbext-axi.

Runs inside the simulator. `HEXLANE_JOB` names a JSON file:

    registers   what `export.registers.as_json` says
    frames      [{"program", "pixels": [...], "words": [...]}]   what comes in, what must go out
    cycles      of a frame of each program, as the register CYCLES counts
    period      clock cycles from frame to frame, by program, if nobody waits
    load        [[word address in the window, data]]    written first; [] without a window
    refused     word addresses that are nobody's
    unload      [[word address, data]] that make program 0 unloaded
    count       frames of a test with pauses; soft resets of another
"""

import json
import os
import random
from itertools import pairwise
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, with_timeout
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)

JOB = json.loads(Path(os.environ["HEXLANE_JOB"]).read_text())
FRAMES, REGISTERS = JOB["frames"], {each["name"]: each for each in JOB["registers"]["registers"]}
WINDOW = JOB["registers"]["window"]
PROGRAMS = REGISTERS["PROGRAMS"]["reset"]
OKAY, SLVERR = 0, 2
PATIENCE = 20 * max(JOB["period"]) + 5000  # cycles after which what should come is missed
HELD = {  # what must stay as it is while it is offered
    "m_axis_t": ("m_axis_tdata", "m_axis_tlast"),
    "s_axil_b": ("s_axil_bresp",),
    "s_axil_r": ("s_axil_rdata", "s_axil_rresp"),
}
SHORT, LONG, LOAD, UNLOADED = 1, 2, 4, 8
RUN, RESET = 1, 2
BUSY, RESULT, RECEIVING, LOADED = 1, 2, 4, 8
DONE, ERROR = 1, 2


class Bench:
    """The masters, the slave, and what watches them. Pauses are random if there is a `seed`."""

    def __init__(self, dut, seed: int | None = None):
        self.dut, self.rng = dut, random.Random(seed)
        self.source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis"), dut.clk, dut.rst)
        self.sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis"), dut.clk, dut.rst)
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
        write, read = self.master.write_if, self.master.read_if
        self.aw, self.w, self.b = write.aw_channel, write.w_channel, write.b_channel
        self.ar, self.r = read.ar_channel, read.r_channel
        if seed is not None:
            for channel in (self.source, self.sink, self.aw, self.w, self.b, self.ar, self.r):
                channel.set_pause_generator(self._pauses())

    def _pauses(self):
        """Runs of cycles; some channels pause often, some seldom."""
        rng = random.Random(self.rng.random())
        often = rng.choice([0.2, 0.5, 0.8])
        while True:
            pause = rng.random() < often
            for _ in range(rng.choice([1, 1, 2, 5])):
                yield pause

    async def start(self):
        dut = self.dut
        dut.rst.value = 1
        Clock(dut.clk, 10, unit="ns").start()
        await self.cycles(3)
        dut.rst.value = 0
        await self.cycles(2)
        cocotb.start_soon(self._held())

    async def cycles(self, count: int):
        for _ in range(count):
            await RisingEdge(self.dut.clk)

    async def _held(self):
        """What is offered stays as it is until it is taken."""
        port = {name: getattr(self.dut, name) for names in HELD.values() for name in names}
        offers = dict.fromkeys(HELD)
        while True:
            await RisingEdge(self.dut.clk)
            for channel, names in HELD.items():
                valid = int(getattr(self.dut, f"{channel}valid").value)
                ready = int(getattr(self.dut, f"{channel}ready").value)
                payload = [int(port[name].value) for name in names]
                assert offers[channel] is None or (valid and payload == offers[channel]), (
                    f"{channel}: what was offered changed or vanished")
                offers[channel] = payload if valid and not ready else None

    # ---- registers

    async def write(self, name: str, value: int):
        await self.write_word(REGISTERS[name]["offset"], value)

    async def write_word(self, address: int, value: int):
        done = await self._soon(self.master.write(address, value.to_bytes(4, "little")))
        assert done.resp == OKAY, f"write to {address:#x}: {done.resp!r}"

    async def read(self, name: str) -> int:
        done = await self._soon(self.master.read(REGISTERS[name]["offset"], 4))
        assert done.resp == OKAY, f"read of {name}: {done.resp!r}"
        return int.from_bytes(done.data, "little")

    async def raw_write(self, address: int, value: int, strobe: int = 15) -> int:
        """One beat with everything chosen; returns the response."""
        first, second = ((self.aw, {"awaddr": address, "awprot": self.rng.randrange(8)}),
                         (self.w, {"wdata": value, "wstrb": strobe}))
        if self.rng.random() < 0.5:
            first, second = second, first
        await first[0].send(_beat(*first))
        await self.cycles(self.rng.randrange(8))
        await second[0].send(_beat(*second))
        return int((await self._soon(self.b.recv())).bresp)

    async def raw_read(self, address: int) -> tuple[int, int]:
        """Response and data."""
        await self.ar.send(_beat(self.ar, {"araddr": address, "arprot": self.rng.randrange(8)}))
        beat = await self._soon(self.r.recv())
        return int(beat.rresp), int(beat.rdata)

    async def all_registers(self) -> dict[str, int]:
        return {name: await self.read(name) for name in REGISTERS}

    # ---- frames

    async def load(self):
        await self.store(JOB["load"])

    async def store(self, words: list):
        for address, word in words:
            await self.write_word(WINDOW["offset"] + 4 * address, word)

    async def ready(self, control: int = RUN):
        """After reset: everything loaded, frames are accepted."""
        await self.start()
        await self.load()
        await self.write("CONTROL", control)

    async def select(self, frame: dict):
        """Chooses the frame's program, once all before it are in."""
        if PROGRAMS > 1:
            await self._soon(self.source.wait())
            await self.write("PROGRAM", frame["program"])

    def send(self, pixels: list[int]):
        lanes = self.source.byte_lanes
        self.source.send_nowait(AxiStreamFrame(
            b"".join(pixel.to_bytes(lanes, "little") for pixel in pixels)))

    async def receive(self) -> list[int]:
        data = bytes((await self._soon(self.sink.recv())).tdata)
        return [int.from_bytes(data[k:k + 4], "little") for k in range(0, len(data), 4)]

    async def run(self, frame: dict):
        """One frame, and its result."""
        await self.select(frame)
        self.send(frame["pixels"])
        assert await self.receive() == frame["words"]

    async def rest(self):
        """Until both streams have been still for longer than a frame takes."""
        still, limit = 0, 2 * max(JOB["period"])
        while still < limit:
            await RisingEdge(self.dut.clk)
            moves = int(self.dut.s_axis_tvalid.value) or int(self.dut.m_axis_tvalid.value)
            still = 0 if moves or not self.source.idle() else still + 1

    async def quiet(self, count: int):
        """Nothing comes out for so many cycles."""
        await self.cycles(count)
        assert self.sink.empty(), "a result that should not be there"

    async def _soon(self, what):
        return await with_timeout(what, 10 * PATIENCE, "ns")


def _beat(channel, values: dict):
    beat = channel._transaction_obj()
    for name, value in values.items():
        setattr(beat, name, value)
    return beat


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
        await bench._soon(bench.source.wait())
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

    async def send(channel, beats):
        for beat in beats:
            await channel.send(_beat(channel, beat))
            await bench.cycles(rng.choice([0, 0, 0, 0, 30]))

    for channel, beats in (
            (bench.aw, [{"awaddr": at, "awprot": 0} for at, _ in writes]),
            (bench.w, [{"wdata": value, "wstrb": 15} for _, value in writes]),
            (bench.ar, [{"araddr": at, "arprot": 0} for at in reads])):
        cocotb.start_soon(send(channel, beats))
    for at, _ in writes:
        beat = await bench._soon(bench.b.recv())
        assert int(beat.bresp) == (OKAY if at == enable else SLVERR)
    known = {each["offset"]: each["reset"] for each in REGISTERS.values()}
    for at in reads:
        beat = await bench._soon(bench.r.recv())
        assert (int(beat.rresp), int(beat.rdata)) == (
            (OKAY, known[at]) if at in known else (SLVERR, 0))
    await bench.cycles(20)
    assert bench.b.empty() and bench.r.empty()
    assert await bench.read("IRQ_ENABLE") == [
        value for at, value in writes if at == enable][-1]


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
    await bench._soon(bench.source.wait())
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
    await bench._soon(bench.source.wait())
    await bench.cycles(2)
    assert await irq() == 1 and await bench.read("IRQ_STATUS") == ERROR
    # Cleared while the flag in ERRORS stays; a second error of the same kind raises it again.
    await bench.write("IRQ_STATUS", ERROR)
    assert await irq() == 0 and await bench.read("ERRORS") == SHORT
    bench.send(one["pixels"][:-1])
    await bench._soon(bench.source.wait())
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
        await bench.cycles(rng.randrange(sent * JOB["period"][frame["program"]]))
        assert await bench.raw_write(REGISTERS["CONTROL"]["offset"], RUN | RESET) == OKAY
        bench.sink.set_pause_generator(bench._pauses())
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
    assert await bench.read("ERRORS") == UNLOADED
    assert await bench.read("IRQ_STATUS") == ERROR
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
