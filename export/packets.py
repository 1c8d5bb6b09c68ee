"""Packets between a host and a board, as bytes: docs/board.md; both sides take them from here."""

import zlib
from dataclasses import dataclass
from enum import IntEnum

FLAG, ESCAPE, FLIP = 0x7e, 0x7d, 0x20
CRC_BYTES = 4
SHORTEST = 2 + CRC_BYTES  # bytes of a packet without payload, its flags not counted
VERSION = 1


class Type(IntEnum):
    """What a packet is."""

    IDENTIFY = ord("I")
    FRAME = ord("F")
    LOAD = ord("L")
    IDENTITY = ord("i")
    DONE = ord("d")
    RESULT = ord("r")
    ERROR = ord("e")


class Code(IntEnum):
    """Why a request was not done."""

    DAMAGED = 1
    SHORT = 2
    BUSY = 3
    REQUEST = 4
    FRAME = 5
    UNLOADED = 6
    LOAD = 7


@dataclass(frozen=True)
class Packet:
    """A packet that came whole; `type` may be none of :class:`Type`."""

    type: int
    number: int
    payload: bytes = b""

    def to_bytes(self) -> bytes:
        """What goes over the line, flags and all."""
        body = bytes([self.type, self.number]) + self.payload
        body += zlib.crc32(body).to_bytes(CRC_BYTES, "little")
        for special in (ESCAPE, FLAG):  # in this order: the second one adds escapes
            body = body.replace(bytes([special]), bytes([ESCAPE, special ^ FLIP]))
        return bytes([FLAG]) + body + bytes([FLAG])


class Parser:
    """Finds packets in what comes; None stands for a damaged one.

    Without a flag in front, what is no packet is noise, and nothing stands for it.
    """

    def __init__(self):
        self._quiet, self._body = True, bytearray()

    def feed(self, content: bytes) -> list[Packet | None]:
        """The packets that end in these bytes."""
        found = []
        for byte in content:
            if byte != FLAG:
                self._body.append(byte)
                continue
            packet = _unpack(bytes(self._body))
            if packet or (self._body and not self._quiet):
                found.append(packet)
            self._quiet = packet is not None  # else the flag may be the next one's
            self._body.clear()
        return found


def _unpack(body: bytes) -> Packet | None:
    first, *rest = body.split(bytes([ESCAPE]))
    if not all(rest):  # two escapes, or one at the end
        return None
    body = first + b"".join(bytes([part[0] ^ FLIP]) + part[1:] for part in rest)
    if len(body) < SHORTEST:
        return None
    content, crc = body[:-CRC_BYTES], int.from_bytes(body[-CRC_BYTES:], "little")
    return Packet(content[0], content[1], content[2:]) if zlib.crc32(content) == crc else None
