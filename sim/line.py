"""The two pins of a board inside a cocotb bench, as a port of the host library.

The library's calls block, so a session of them runs in a thread of its own: `await
cocotb.task.bridge(session)()`.
"""

import os
import pty
import subprocess
import time
import tty

import cocotb
from cocotb.clock import Clock
from cocotb.task import resume
from cocotb.triggers import FallingEdge, Timer
from cocotb.utils import get_sim_time

from export.packets import Packet, Parser

PERIOD = 10  # ns


class Line:
    """A :class:`export.serial_link.Port` in simulated time; a bit takes `divider` cycles.

    `to_send` and `came` are the bytes that wait on both ways.
    """

    def __init__(self, dut, divider: int):
        self.dut, self.bit = dut, divider * PERIOD
        self.to_send, self.came = bytearray(), bytearray()
        self.sent = 0
        self._damage: dict[int, int] = {}  # bits to flip, by a byte's number

    async def start(self):
        """Starts the clock, resets the board, drives and watches its pins from then on."""
        self.dut.rx.value = 1
        self.dut.rst.value = 1
        Clock(self.dut.clk, PERIOD, unit="ns").start()
        await Timer(3.5 * PERIOD, "ns")
        self.dut.rst.value = 0
        cocotb.start_soon(self._drive())
        cocotb.start_soon(self._listen())
        await Timer(2 * self.bit, "ns")
        assert int(self.dut.tx.value) == 1

    async def _drive(self):
        while True:
            if not self.to_send:
                await Timer(self.bit, "ns")
                continue
            byte = self.to_send.pop(0) ^ self._damage.pop(self.sent, 0)
            self.sent += 1
            for bit in range(10):
                self.dut.rx.value = (byte << 1 | 0x200) >> bit & 1
                await Timer(self.bit, "ns")

    async def _listen(self):
        while True:
            await FallingEdge(self.dut.tx)
            await Timer(self.bit // 2, "ns")
            bits = [int(self.dut.tx.value)]
            for _ in range(9):
                await Timer(self.bit, "ns")
                bits.append(int(self.dut.tx.value))
            assert (bits[0], bits[9]) == (0, 1)
            self.came.append(sum(bit << k for k, bit in enumerate(bits[1:9])))

    @resume
    async def write(self, content: bytes):
        self.to_send += content

    @resume
    async def read(self, seconds: float) -> bytes:
        end = get_sim_time("ns") + seconds * 1e9
        while not self.came and get_sim_time("ns") < end:
            await Timer(self.bit, "ns")
        content = bytes(self.came)
        self.came.clear()
        return content

    @resume
    async def time(self) -> float:
        return get_sim_time("ns") * 1e-9

    def packets(self, wanted: int, seconds: float = 0.01) -> list[Packet | None]:
        """As many packets as are wanted, or as come in that time."""
        parser, found, end = Parser(), [], self.time() + seconds
        while len(found) < wanted and (left := end - self.time()) > 0:
            found += parser.feed(self.read(left))
        return found

    def damage_next(self, position: int, bits: int = 1):
        """Flips bits of a byte that will be written next, counted from 0."""
        self._damage[self.sent + len(self.to_send) + position] = bits


async def run_command(command: list[str], line: Line) -> tuple[int, str]:
    """Runs a command that talks to a serial port, `--port` added; its exit code and what it says.

    The port is a pseudo-terminal, and what comes there goes through the pins.
    """
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    process = subprocess.Popen([*command, "--port", os.ttyname(slave)], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        while process.poll() is None:
            try:
                line.to_send += os.read(master, 4096)
            except BlockingIOError:
                time.sleep(0.001)  # the board's time goes by slowly while the command works
            if line.came:
                os.write(master, line.came)
                line.came.clear()
            await Timer(max(1, len(line.to_send) // 2) * 10 * line.bit, "ns")
    finally:
        process.kill()
        said, _ = process.communicate()
        os.close(master)
        os.close(slave)
    return process.returncode, said
