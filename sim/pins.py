"""The host library on the ports of a generated engine, inside a cocotb bench.

The library's calls block, so a session of them runs in a thread of its own: `await
cocotb.task.bridge(session)(...)`.
"""

from collections.abc import Callable

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.task import resume
from cocotb.triggers import FallingEdge, Timer

from export.machine import Machine
from sim.results import class_words

PERIOD = 10  # ns
SETTLE = 4  # cycles until a write has been refused or not


class Pins:
    """A :class:`export.host.Transport`; ports are read and driven at falling edges.

    `limit` is how many cycles a frame's pixels may take. `pause` gives the cycles to wait before a
    pixel is offered or a word of a result is taken.
    """

    def __init__(self, dut, machine: Machine, *, limit: int = 200_000,
                 pause: Callable[[], int] = lambda: 0):
        self.dut, self.machine, self.limit, self.pause = dut, machine, limit, pause
        self._flags: set[str] = set()

    async def start(self):
        """Starts the clock, resets the engine, watches for faults from then on."""
        dut = self.dut
        for port in (dut.pixels__valid, dut.pixels__payload, dut.result__ready, dut.load__valid,
                     dut.load__payload):
            port.value = 0
        dut.rst.value = 1
        Clock(dut.clk, PERIOD, unit="ns").start()
        for _ in range(3):
            await FallingEdge(dut.clk)
        dut.rst.value = 0
        cocotb.start_soon(self._watch())

    async def _watch(self):
        ports = [(name, getattr(self.dut, name)) for name in ("load_error", "frame_error")
                 if hasattr(self.dut, name)]
        while True:
            await FallingEdge(self.dut.clk)
            self._flags |= {name for name, port in ports if int(port.value)}

    async def _taken(self, ready, cycles: int) -> bool:
        """Until the rising edge that takes what is offered; False if none of so many does."""
        for _ in range(cycles):
            await Timer(PERIOD // 5, "ns")  # `ready` may follow from what was just driven
            was = int(ready.value)
            await FallingEdge(self.dut.clk)
            if was:
                return True
        return False

    async def _wait(self, cycles: int):
        for _ in range(cycles):
            await FallingEdge(self.dut.clk)

    @resume
    async def write(self, address: int, word: int):
        load = self.dut.load__payload
        load.value = address | word << self.machine.load_address_bits
        self.dut.load__valid.value = 1
        assert await self._taken(self.dut.load__ready, self.limit), "the load bus hangs"
        self.dut.load__valid.value = 0

    @resume
    async def select(self, slot: int):
        if self.machine.programs > 1:
            self.dut.slot.value = slot
        await self._wait(SETTLE)

    @resume
    async def send(self, pixels: np.ndarray) -> bool:
        dut = self.dut
        for n, pixel in enumerate(pixels, 1):
            await self._wait(self.pause())
            word = int.from_bytes(pixel.tobytes(), "little")
            if hasattr(dut, "frame_error"):  # the end of a frame is marked
                word |= (n == len(pixels)) << self.machine.pixels.bits
            dut.pixels__payload.value = word
            dut.pixels__valid.value = 1
            taken = await self._taken(dut.pixels__ready, self.limit)
            dut.pixels__valid.value = 0
            if not taken:
                return False
        return True

    @resume
    async def receive(self, seconds: float) -> np.ndarray | None:
        dut, words = self.dut, []
        for _ in range(round(seconds * 1e9 / PERIOD)):
            if int(dut.result__valid.value):
                await self._wait(self.pause())
                payload = int(dut.result__payload.value)
                dut.result__ready.value = 1
                await FallingEdge(dut.clk)  # the rising edge before it took the word
                dut.result__ready.value = 0
                if not self.machine.result_words:
                    return class_words(self.machine.hardware, payload)
                words.append(payload & 0xffffffff)
                if payload >> 32:
                    return np.array(words, np.uint32)
            else:
                await FallingEdge(dut.clk)
        return None

    @resume
    async def flags(self) -> set[str]:
        await self._wait(SETTLE)
        found, self._flags = self._flags, set()
        return found | ({"unloaded"} if int(self.dut.unloaded.value) else set())
