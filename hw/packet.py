"""Packets from bytes and back: docs/board.md."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from export.checked import ConfigError
from export.packets import CRC_BYTES, ESCAPE, FLAG, FLIP, SHORTEST, Code
from hw.uart import RECEIVED

BYTE = data.StructLayout({"data": 8, "last": 1})
FAULT = data.StructLayout({"valid": 1, "code": Code, "number": 8})


def packet_layout(capacity: int) -> data.StructLayout:
    """A packet that is there, and the bytes of its payload."""
    return data.StructLayout({"valid": 1, "type": 8, "number": 8, "length": range(capacity + 1)})


def check_timeout(timeout: int):
    """ConfigError if whether it is reached would take a comparison."""
    if timeout < 2 or timeout & timeout - 1:
        raise ConfigError(f"timeout must be a power of two, not {timeout}")


class PacketReader(wiring.Component):
    """Checks packets of at most `capacity` bytes of payload; a good one waits until it is done.

    Payload goes into block RAM as it comes and is given, a byte in three cycles, when the packet
    has ended and is good. What comes while one waits is dropped; so is a packet in the midst of
    which nothing comes for `timeout` cycles, a power of two: whether it is reached takes no
    comparison.

    Members
    -------
    bytes : In(stream of RECEIVED)      always ready, for a byte in two cycles; a line's take forty
    packet : Out(packet_layout)
    payload : Out(stream of BYTE)
    done : In(1)        drop the packet and what is left of its payload
    fault : Out(FAULT)  a packet was dropped, for a cycle
    """

    bytes: stream.Interface
    payload: stream.Interface

    def __init__(self, capacity: int, timeout: int):
        check_timeout(timeout)
        self.capacity, self.timeout = capacity, timeout
        super().__init__({
            "bytes": In(stream.Signature(RECEIVED, always_ready=True)),
            "packet": Out(packet_layout(capacity)),
            "payload": Out(stream.Signature(BYTE)),
            "done": In(1),
            "fault": Out(FAULT),
        })

    def elaborate(self, platform):
        m = Module()
        packet, byte, fault = self.packet, self.bytes.payload, self.fault
        m.submodules.crc = crc = CRC32_ISO_HDLC(8).create()
        most = SHORTEST + self.capacity
        m.submodules.buffer = buffer = Memory(shape=8, depth=most - 2, init=[])
        write = buffer.write_port()

        quiet = Signal(init=1)  # no flag was in front: what is no packet is noise
        escaped = Signal()
        begun = Signal()
        bad = Signal()
        missed = Signal()
        kind = Signal(8)
        number = Signal(8)
        count = Signal(range(most + 2))
        timer = Signal(range(self.timeout + 1))
        forget = Signal()

        # What a byte is, and what it finds, from registers: there is time between two bytes.
        came = Signal()
        value = Signal(8)
        flag = Signal()
        escape = Signal()
        error = Signal()
        good = Signal()
        over = Signal()  # longer than any packet is
        m.d.sync += [
            came.eq(self.bytes.valid), value.eq(Mux(escaped, byte.data ^ FLIP, byte.data)),
            flag.eq((byte.data == FLAG) & ~byte.error),
            escape.eq(byte.data == ESCAPE), error.eq(byte.error), over.eq(count > most),
            good.eq(~bad & ~escaped & (count >= SHORTEST) & crc.match_detected)]
        m.d.comb += [crc.data.eq(value), write.data.eq(value), write.addr.eq(count - 2)]

        with m.If(self.done):
            m.d.sync += packet.valid.eq(0)
        m.d.sync += [fault.valid.eq(0), timer.eq(1)]
        with m.If(came & flag):
            m.d.comb += forget.eq(1)
            m.d.sync += quiet.eq(begun & good)
            with m.If(begun & ~good):
                m.d.sync += [fault.valid.eq(~quiet), fault.code.eq(Code.DAMAGED)]
            with m.Elif(begun & missed):
                m.d.sync += [fault.valid.eq(1), fault.code.eq(Code.BUSY)]
            with m.Elif(begun & over):
                m.d.sync += [fault.valid.eq(1), fault.code.eq(Code.REQUEST)]
            with m.Elif(begun):
                m.d.sync += [packet.valid.eq(1), packet.type.eq(kind), packet.number.eq(number),
                             packet.length.eq(count - SHORTEST)]
        with m.Elif(came):
            m.d.sync += begun.eq(1)
            with m.If(error | (escaped & escape)):
                m.d.sync += bad.eq(1)
            with m.Elif(escape):
                m.d.sync += escaped.eq(1)
            with m.Else():
                m.d.comb += crc.valid.eq(1)
                m.d.sync += escaped.eq(0)
                with m.If(~over):
                    m.d.sync += count.eq(count + 1)
                with m.If(count == 0):
                    m.d.sync += kind.eq(value)
                with m.Elif(count == 1):
                    m.d.sync += number.eq(value)
                with m.Else():
                    m.d.comb += write.en.eq(~missed & (count < most))
                with m.If(packet.valid):  # known before there is anything to write
                    m.d.sync += missed.eq(1)
        # A byte that is about to come has found what is there: it is not forgotten any more.
        with m.Elif(begun & ~self.bytes.valid):
            m.d.sync += timer.eq(timer + 1)
            with m.If(timer[-1]):
                m.d.comb += forget.eq(1)
                m.d.sync += [quiet.eq(1), fault.valid.eq(~quiet), fault.code.eq(Code.SHORT)]
        with m.If(forget):
            m.d.comb += crc.start.eq(1)
            m.d.sync += [begun.eq(0), count.eq(0), bad.eq(0), escaped.eq(0), missed.eq(0),
                         number.eq(0), fault.number.eq(number)]

        self._give(m, buffer.read_port())
        return m

    def _give(self, m: Module, port):
        packet, payload = self.packet, self.payload
        at = Signal.like(packet.length)
        read = Signal()
        m.d.comb += port.addr.eq(at)
        m.d.sync += [payload.payload.data.eq(port.data),  # the block RAM's own register
                     payload.payload.last.eq(at + 1 == packet.length)]
        with m.If(self.done):
            m.d.sync += [at.eq(0), read.eq(0), payload.valid.eq(0)]
        with m.Elif(payload.valid):
            with m.If(payload.ready):
                m.d.sync += [at.eq(at + 1), read.eq(0), payload.valid.eq(0)]
        with m.Else():
            m.d.sync += [read.eq(packet.valid & (at != packet.length)), payload.valid.eq(read)]


class PacketWriter(wiring.Component):
    """Adds flags, CRC and escapes to a packet's type, number and payload, a byte in two cycles.

    Members
    -------
    packet : In(stream of BYTE)     the last one ends the packet
    bytes : Out(stream of 8 bits)
    """

    packet: stream.Interface
    bytes: stream.Interface

    def __init__(self):
        super().__init__({"packet": In(stream.Signature(BYTE)),
                          "bytes": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        packet, line = self.packet, self.bytes
        m.submodules.crc = crc = CRC32_ISO_HDLC(8).create()
        # Registers between what makes the bytes, which may take long, and what sends them.
        byte = Signal(8)
        special = Signal()
        last = Signal()
        held = Signal()
        given = Signal(8)
        filled = Signal()
        at = Signal(range(CRC_BYTES))
        second = Signal()  # the byte behind an escape
        taken = Signal()
        m.d.comb += [special.eq((byte == FLAG) | (byte == ESCAPE)), crc.data.eq(byte),
                     taken.eq(held & line.ready & (second | ~special))]
        with m.If(held):
            m.d.comb += [line.valid.eq(1), line.payload.eq(
                Mux(special, Mux(second, byte ^ FLIP, ESCAPE), byte))]
            with m.If(line.ready):
                m.d.sync += [second.eq(special & ~second), held.eq(~taken)]
        with m.Elif(filled):
            m.d.sync += [held.eq(1), byte.eq(given), last.eq(packet.payload.last)]
        with m.FSM():
            with m.State("BEGIN"):
                m.d.comb += [crc.start.eq(1), line.valid.eq(packet.valid), line.payload.eq(FLAG)]
                with m.If(packet.valid & line.ready):
                    m.next = "BODY"
            with m.State("BODY"):
                m.d.comb += [given.eq(packet.payload.data), filled.eq(packet.valid),
                             packet.ready.eq(~held), crc.valid.eq(taken)]
                m.d.sync += at.eq(0)
                with m.If(taken & last):
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [given.eq(crc.crc.word_select(at, 8)), filled.eq(1)]
                with m.If(taken):
                    m.d.sync += at.eq(at + 1)
                    with m.If(at == CRC_BYTES - 1):
                        m.next = "END"
            with m.State("END"):
                m.d.comb += [line.valid.eq(1), line.payload.eq(FLAG)]
                with m.If(line.ready):
                    m.next = "BEGIN"
        return m
