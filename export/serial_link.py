"""A board behind a serial line as a transport of the host: packets sent until they are answered.

docs/board.md has the protocol. How bytes reach the line is the port's business.
"""

from collections import deque
from typing import Protocol

import numpy as np

from export.host import HostError
from export.machine import Machine
from export.packets import VERSION, Code, Packet, Parser, Type

WRITE = 8  # bytes of an address and a word
FLAGS = {Code.FRAME: "frame_error", Code.UNLOADED: "unloaded", Code.LOAD: "load_error"}
IDENTITY = 36  # bytes: version, frames, capacity, hash


class Port(Protocol):
    """A line, and a clock."""

    def write(self, content: bytes):
        """Sends bytes."""

    def read(self, seconds: float) -> bytes:
        """What has come, as soon as anything has; nothing if nothing does within that time."""

    def time(self) -> float:
        """Seconds since any moment."""


class SerialLink:
    """A :class:`export.host.Transport`; `send` may be called again before `receive`.

    What is not answered within `seconds`, or comes damaged, is sent again, `tries` times in all; so
    is a frame whose result does not come within that part of the time that `receive` has.

    Raises
    ------
    HostError
        If the board has another machine; of all methods, if it does not answer, or refuses what
        was sent for a reason that is none of a frame or a write.
    """

    def __init__(self, port: Port, machine: Machine, *, seconds: float = 2, tries: int = 3):
        self.port, self.machine, self.seconds, self.tries = port, machine, seconds, tries
        self._parser, self._came = Parser(), deque()
        self._number, self._slot = 0, 0
        self._flags: set[str] = set()
        self._writes: list[bytes] = []
        self._frames: deque[tuple[int, bytes]] = deque()  # number and payload, result not taken
        self._results: dict[int, bytes] = {}
        self._damaged = False  # something came so; it may have been a result
        self.capacity, waiting = self._identify()
        end = port.time() + seconds
        while waiting and (packet := self._next(end)):  # results of another session
            waiting -= packet.type in (Type.RESULT, Type.ERROR)

    def _identify(self) -> tuple[int, int]:
        """The longest payload, and how many frames are in work."""
        payload = self._request(Type.IDENTIFY).payload
        if len(payload) != IDENTITY or payload[0] != VERSION:
            raise HostError(f"the board must speak version {VERSION}, not {payload[:4].hex()}")
        if (came := payload[4:].hex()) != self.machine.hash:
            raise HostError(f"the board must have the machine {self.machine.hash[:16]}..., "
                            f"not {came[:16]}...")
        return int.from_bytes(payload[2:4], "little"), payload[1]

    # ---- as a transport

    def write(self, address: int, word: int):
        """Waits with others for a full packet, :meth:`send` or :meth:`flags`."""
        self._writes.append(address.to_bytes(4, "little") + word.to_bytes(4, "little"))
        if len(self._writes) == self.capacity // WRITE:
            self._flush()

    def _flush(self):
        if self._writes:
            writes, self._writes = b"".join(self._writes), []
            self._do(Type.LOAD, writes)

    def select(self, slot: int):
        self._slot = slot

    def send(self, pixels: np.ndarray) -> bool:
        self._flush()
        wide = np.zeros((len(pixels), self.machine.pixels.channels), np.uint8)
        wide[:, :pixels.shape[1]] = pixels
        payload = bytes([self._slot]) + wide.tobytes()
        if not self._do(Type.FRAME, payload):
            return False
        self._frames.append((self._number, payload))
        return True

    def receive(self, seconds: float) -> np.ndarray | None:
        if not self._frames:
            return None
        number, payload = self._frames.popleft()
        for left in reversed(range(self.tries)):
            end = self.port.time() + seconds / self.tries
            while number not in self._results and not self._damaged and self._next(end):
                pass
            if words := self._results.pop(number, None):
                return np.frombuffer(words[:len(words) // 4 * 4], "<u4")
            self._damaged = False
            if left and not self._do(Type.FRAME, payload):  # else the result may have been lost
                break
            number = self._number
        return None

    def flags(self) -> set[str]:
        self._flush()
        found, self._flags = self._flags, set()
        return found

    # ---- packets

    def _do(self, kind: Type, payload: bytes) -> bool:
        """Whether the board did it; if not, a flag says why."""
        answer = self._request(kind, payload)
        if (code := _code(answer)) in FLAGS:
            self._flags.add(FLAGS[code])
        elif code is not None:
            raise HostError(f"the board refused a packet of type {kind.name} with {len(payload)} "
                            f"bytes: code {code}")
        return code is None

    def _request(self, kind: Type, payload: bytes = b"") -> Packet:
        """The answer to a new request."""
        self._number = number = (self._number + 1) % 256
        self._results.pop(number, None)  # of a frame long ago
        for _ in range(self.tries):
            self.port.write(Packet(kind, number, payload).to_bytes())
            end = self.port.time() + self.seconds
            while packet := self._next(end):
                code = _code(packet)
                if code in (Code.DAMAGED, Code.SHORT):
                    break  # its number may be as damaged as the rest
                if packet.number == number and packet.type != Type.RESULT and code != Code.BUSY:
                    return packet
        raise HostError(f"the board does not answer a packet of type {kind.name}, tried "
                        f"{self.tries} times for {self.seconds:g} s")

    def _next(self, end: float) -> Packet | None:
        """The next packet, a result kept on the way; None if there is none until `end`.

        One that comes damaged counts as if the board had said so.
        """
        while not self._came:
            if (left := end - self.port.time()) <= 0:
                return None
            self._came.extend(self._parser.feed(self.port.read(left)))
        packet = self._came.popleft()
        if packet is None:
            self._damaged = True
            return Packet(Type.ERROR, 0, bytes([Code.DAMAGED]))
        if packet.type == Type.RESULT:
            self._results[packet.number] = packet.payload
        return packet


def _code(packet: Packet) -> int | None:
    """Of an error; 0 if it has none."""
    return int.from_bytes(packet.payload, "little") if packet.type == Type.ERROR else None
