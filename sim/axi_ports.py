"""Masters and slaves of cocotbext-axi at the ports of the top with AXI, and the job of a bench.

Runs inside the simulator. `HEXLANE_JOB` names a JSON file:

    registers   what `export.registers.as_json` says
    frames      [{"program", "pixels": [...], "words": [...]}]   what comes in, what must go out
    cycles      of a frame of each program, as the register CYCLES counts
    period      clock cycles from frame to frame, by program, if nobody waits
    load        [[word address in the window, data]]    written first; [] without a window
    load_cycles of a word of the window, if nobody waits
    refused     word addresses that are nobody's
    unload      [[word address, data]] that make program 0 unloaded
    count       frames of a test with pauses; soft resets of another
"""

import json
import os
import random
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


def at(name: str) -> int:
    """Offset of a register."""
    return REGISTERS[name]["offset"]


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
                channel.set_pause_generator(self.pauses())

    def pauses(self):
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

    def high(self, *ports: str) -> bool:
        """Whether all of these are."""
        return all(int(getattr(self.dut, port).value) for port in ports)

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
        await self.write_word(at(name), value)

    async def write_word(self, address: int, value: int):
        done = await self.soon(self.master.write(address, value.to_bytes(4, "little")))
        assert done.resp == OKAY, f"write to {address:#x}: {done.resp!r}"

    async def read(self, name: str) -> int:
        done = await self.soon(self.master.read(at(name), 4))
        assert done.resp == OKAY, f"read of {name}: {done.resp!r}"
        return int.from_bytes(done.data, "little")

    async def clear(self, error: int):
        """A flag of ERRORS, and the interrupt that it caused."""
        await self.write("ERRORS", error)
        await self.write("IRQ_STATUS", ERROR)

    async def raw_write(self, address: int, value: int, strobe: int = 15) -> int:
        """One beat with everything chosen; returns the response."""
        first, second = ((self.aw, {"awaddr": address, "awprot": self.rng.randrange(8)}),
                         (self.w, {"wdata": value, "wstrb": strobe}))
        if self.rng.random() < 0.5:
            first, second = second, first
        await first[0].send(beat(*first))
        await self.cycles(self.rng.randrange(8))
        await second[0].send(beat(*second))
        return int((await self.soon(self.b.recv())).bresp)

    async def raw_read(self, address: int) -> tuple[int, int]:
        """Response and data."""
        await self.ar.send(beat(self.ar, {"araddr": address, "arprot": self.rng.randrange(8)}))
        came = await self.soon(self.r.recv())
        return int(came.rresp), int(came.rdata)

    async def send_beats(self, channel, beats: list[dict], pauses: list[int]):
        """One behind the other; nobody waits for responses."""
        for values in beats:
            await channel.send(beat(channel, values))
            await self.cycles(self.rng.choice(pauses))

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
            await self.soon(self.source.wait())
            await self.write("PROGRAM", frame["program"])

    def send(self, pixels: list[int]):
        lanes = self.source.byte_lanes
        self.source.send_nowait(AxiStreamFrame(
            b"".join(pixel.to_bytes(lanes, "little") for pixel in pixels)))

    async def send_whole(self, pixels: list[int]):
        """... and waits until they are in, and what follows from them is known."""
        self.send(pixels)
        await self.soon(self.source.wait())
        await self.cycles(3)

    async def receive(self) -> list[int]:
        data = bytes((await self.soon(self.sink.recv())).tdata)
        return [int.from_bytes(data[k:k + 4], "little") for k in range(0, len(data), 4)]

    async def run(self, frame: dict):
        """One frame, and its result."""
        await self.select(frame)
        self.send(frame["pixels"])
        assert await self.receive() == frame["words"]

    async def run_counted(self, frame: dict, count: int):
        """... which is the `count`-th that leaves."""
        await self.run(frame)
        await self.cycles(2)
        assert await self.read("FRAMES") == count
        assert await self.read("CYCLES") == JOB["cycles"][frame["program"]]

    def result_ends(self) -> bool:
        """Whether the last word of a result is taken in this cycle."""
        return self.high("m_axis_tvalid", "m_axis_tready", "m_axis_tlast")

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

    async def soon(self, what):
        return await with_timeout(what, 10 * PATIENCE, "ns")


def beat(channel, values: dict):
    beat = channel._transaction_obj()
    for name, value in values.items():
        setattr(beat, name, value)
    return beat
