"""What packets ask for, done with the engine, and what is answered: docs/board.md."""

from amaranth import Array, Cat, Const, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from export.checked import ConfigError
from export.hardware import Hardware
from export.machine import describe_machine
from export.packets import VERSION, Code, Type
from hw.frame import pixel_shape
from hw.loader import word_layout
from hw.output import check_score, result_layout
from hw.packet import BYTE, FAULT, packet_layout

WORD = 4  # bytes
WRITE = 2 * WORD  # an address and a word: a power of two
WRITE_BITS = WRITE.bit_length() - 1
LOADS = 64  # writes that fit into a packet, at least
IN_WORK = 4  # frames whose result has not left: on its way, in work, waiting; one to spare
SETTLE = 4  # cycles until a write has been refused or not


def capacity(hardware: Hardware) -> int:
    """Bytes of the longest payload: a frame with its slot.

    Raises ConfigError if it is too long, or if frames belong to clips: each must give a result.
    """
    if hardware.clocks:
        raise ConfigError("a machine on a serial line must read single frames, not clips")
    fold = max(each.fold for each in hardware.pixels)
    pixels = hardware.frame_width * hardware.frame_height * fold**2
    longest = 1 + pixels * hardware.pixel_bits // 8
    if longest >= 2**16:
        raise ConfigError(f"a frame on a serial line must have at most {2**16 - 2} bytes, "
                          f"not {longest - 1}")
    return max(longest, LOADS * WRITE) if hardware.memory == "ram" else longest


class Link(wiring.Component):
    """Does one request after the other, and sends answers and results as they come.

    A byte of a payload takes three cycles, a pixel two more, a length as many as there are pixels;
    all that is far less than a line needs. A request with the number of the one before is answered
    as that one was.

    Members
    -------
    packet : In(packet_layout), payload : In(stream of BYTE), done : Out(1), fault : In(FAULT)
        of :class:`hw.packet.PacketReader`
    answers : Out(stream of BYTE)       type, number and payload of packets
    pixels : Out(stream of pixel_shape), frame_error : In(2), result : In(stream of result_layout)
        of the engine; framed
    slot : Out(range(programs))         ... if there are several
    load : Out(stream of word_layout), load_error : In(1), unloaded : In(1)     ... of RAM
    """

    payload: stream.Interface
    answers: stream.Interface
    pixels: stream.Interface
    result: stream.Interface

    def __init__(self, hardware: Hardware):
        self._MustUse__used = True  # even if it is refused; else Amaranth warns
        check_score(result_layout(hardware))
        self.hardware = hardware
        self.capacity = capacity(hardware)
        super().__init__({
            "packet": In(packet_layout(self.capacity)),
            "payload": In(stream.Signature(BYTE)),
            "done": Out(1),
            "fault": In(FAULT),
            "answers": Out(stream.Signature(BYTE)),
            "pixels": Out(stream.Signature(pixel_shape(hardware, framed=True))),
            "frame_error": In(2),
            "result": In(stream.Signature(result_layout(hardware))),
            **({"slot": Out(range(hardware.programs))} if hardware.programs > 1 else {}),
            **({"load": Out(stream.Signature(word_layout(hardware))), "load_error": In(1),
                "unloaded": In(1)} if hardware.memory == "ram" else {}),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.numbers = numbers = SyncFIFO(width=8, depth=IN_WORK)
        # What has to be said: of a request, and of a packet that was none.
        answer = Signal(data.StructLayout({"valid": 1, "type": 8, "code": Code, "number": 8}))
        fault = Signal(FAULT)
        self._do(m, numbers, answer)
        self._say(m, numbers, answer, fault)
        with m.If(self.fault.valid):  # the host waits, so one that is waiting is of the same kind
            m.d.sync += fault.eq(self.fault)
        return m

    # ---- requests

    def _do(self, m: Module, numbers: SyncFIFO, answer):
        hardware, packet = self.hardware, self.packet
        channels, ram = hardware.pixel_bits // 8, hardware.memory == "ram"
        known = Signal()
        last_number = Signal(8)  # of the request that was done last
        code = Signal(Code)  # 0: done
        repeated = Signal()
        left = Signal.like(packet.length)
        part = Signal(range(max(channels, WRITE)))
        m.d.comb += [repeated.eq(known & (last_number == packet.number)),
                     numbers.w_data.eq(packet.number)]
        if ram:
            with m.If(self.load_error):
                m.d.sync += code.eq(Code.LOAD)

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [part.eq(0), left.eq(packet.length - 1), code.eq(0)]
                with m.If(packet.valid):
                    m.next = "REFUSE"
                    with m.If(packet.type == Type.IDENTIFY):
                        m.d.sync += known.eq(0)
                        with m.If(packet.length == 0):
                            m.next = "ANSWER"
                    with m.Elif(packet.type == Type.FRAME):
                        with m.If(repeated):
                            m.next = "ANSWER"
                        with m.Elif(packet.length > channels):
                            m.next = "LENGTH"
                    if ram:
                        with m.Elif(packet.type == Type.LOAD):
                            with m.If(repeated):
                                m.next = "ANSWER"
                            with m.Elif((packet.length != 0) & ~packet.length[:WRITE_BITS].any()):
                                m.next = "WRITE"
            with m.State("REFUSE"):
                m.d.sync += code.eq(Code.REQUEST)
                m.next = "ANSWER"
            with m.State("ANSWER"):
                with m.If(~answer.valid):
                    m.d.comb += self.done.eq(1)
                    m.d.sync += [answer.valid.eq(1), answer.number.eq(packet.number),
                                 answer.code.eq(code), answer.type.eq(Type.DONE)]
                    with m.If(code != 0):
                        m.d.sync += answer.type.eq(Type.ERROR)
                    with m.Elif(packet.type == Type.IDENTIFY):
                        m.d.sync += answer.type.eq(Type.IDENTITY)
                    with m.Else():
                        m.d.sync += [known.eq(1), last_number.eq(packet.number)]
                    m.next = "IDLE"
            self._frame(m, numbers, left, part, code)
            if ram:
                self._load(m, part, code)

    def _frame(self, m: Module, numbers: SyncFIFO, left, part, code):
        """States of a frame."""
        hardware, pixels, payload = self.hardware, self.pixels, self.payload
        channels, byte = hardware.pixel_bits // 8, payload.payload.data
        dropped = Signal()
        unloaded = self.unloaded if hardware.memory == "ram" else Const(0)
        # Whether the engine takes a pixel comes out of it late, so it counts in the next cycle.
        taken = Signal()
        wrong = Signal()
        m.d.sync += [taken.eq(pixels.valid & pixels.ready), wrong.eq(self.frame_error != 0)]
        with m.State("LENGTH"):  # whole pixels?
            m.d.sync += left.eq(left - channels)
            with m.If(left < channels):
                m.next = "SLOT"
                with m.If(left != 0):
                    m.next = "REFUSE"
        with m.State("SLOT"):
            m.d.comb += payload.ready.eq(1)
            m.d.sync += dropped.eq(0)
            with m.If(payload.valid):
                if hardware.programs > 1:
                    m.d.sync += self.slot.eq(byte)
                m.next = "PIXEL"
                with m.If(byte >= hardware.programs):
                    m.next = "REFUSE"
        with m.State("PIXEL"):
            m.d.comb += payload.ready.eq(1)
            with m.If(payload.valid):
                m.d.sync += [pixels.payload.data.eq(Cat(pixels.payload.data, byte)[8:]),
                             pixels.payload.last.eq(payload.payload.last), part.eq(part + 1)]
                with m.If(part == channels - 1):
                    m.d.sync += part.eq(0)
                    m.next = "OFFER"
        with m.State("OFFER"):
            m.d.comb += pixels.valid.eq(numbers.w_rdy & ~unloaded & ~taken)
            with m.If(taken):
                m.next = "PIXEL"
                m.d.sync += dropped.eq(dropped | wrong)
                with m.If(pixels.payload.last):
                    m.next = "ANSWER"
                    with m.If(dropped | wrong):
                        m.d.sync += code.eq(Code.FRAME)
                    with m.Else():
                        m.d.comb += numbers.w_en.eq(1)
            with m.Elif(unloaded):
                m.d.sync += code.eq(Code.UNLOADED)
                m.next = "ANSWER"

    def _load(self, m: Module, part, code):
        """States of a load."""
        payload, load = self.payload, self.load
        write = Signal(8 * WRITE)
        last = Signal()
        settle = Signal(range(SETTLE))
        address, word = write[:8 * WORD], write[8 * WORD:]
        outside = address[len(load.payload.address):] != 0
        with m.State("WRITE"):
            m.d.comb += payload.ready.eq(1)
            m.d.sync += settle.eq(SETTLE - 1)
            with m.If(payload.valid):
                m.d.sync += [write.eq(Cat(write, payload.payload.data)[8:]),
                             last.eq(payload.payload.last), part.eq(part + 1)]
                with m.If(part == WRITE - 1):
                    m.d.sync += part.eq(0)
                    m.next = "WORD"
        with m.State("WORD"):
            m.d.comb += [load.payload.address.eq(address), load.payload.data.eq(word),
                         load.valid.eq(~outside)]
            m.next = "WRITE"
            with m.If(outside):
                m.d.sync += code.eq(Code.LOAD)
            with m.If(last):
                m.next = "SETTLE"
        with m.State("SETTLE"):
            m.d.sync += settle.eq(settle - 1)
            with m.If(settle == 0):
                m.next = "ANSWER"

    # ---- answers

    def _say(self, m: Module, numbers: SyncFIFO, answer, fault):
        result, out = self.result, self.answers
        kind = Signal(8)
        number = Signal(8)
        code = Signal(Code)
        identity = self._identity(numbers)
        at = Signal(range(len(identity)))
        words, ended = self._words(m)
        text = Signal.like(words)
        left = Signal(range(len(words) // 8))
        last = Signal()
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += at.eq(0)
                with m.If(fault.valid):
                    m.d.sync += [kind.eq(Type.ERROR), number.eq(fault.number),
                                 code.eq(fault.code), fault.valid.eq(0)]
                    m.next = "TYPE"
                with m.Elif(answer.valid):
                    m.d.sync += [kind.eq(answer.type), number.eq(answer.number),
                                 code.eq(answer.code), answer.valid.eq(0)]
                    m.next = "TYPE"
                with m.Elif(result.valid & numbers.r_rdy):
                    m.d.comb += numbers.r_en.eq(1)
                    m.d.sync += [kind.eq(Type.RESULT), number.eq(numbers.r_data)]
                    m.next = "TYPE"
            with m.State("TYPE"):
                m.d.comb += [out.valid.eq(1), out.payload.data.eq(kind)]
                with m.If(out.ready):
                    m.next = "NUMBER"
            with m.State("NUMBER"):
                m.d.comb += [out.valid.eq(1), out.payload.data.eq(number),
                             out.payload.last.eq(kind == Type.DONE)]
                with m.If(out.ready):
                    with m.Switch(kind):
                        for value, state in ((Type.DONE, "IDLE"), (Type.ERROR, "CODE"),
                                             (Type.IDENTITY, "IDENTITY"), (Type.RESULT, "RESULT")):
                            with m.Case(value):
                                m.next = state
            with m.State("CODE"):
                m.d.comb += [out.valid.eq(1), out.payload.data.eq(code), out.payload.last.eq(1)]
                with m.If(out.ready):
                    m.next = "IDLE"
            with m.State("IDENTITY"):
                m.d.comb += [out.valid.eq(1), out.payload.data.eq(identity[at]),
                             out.payload.last.eq(at == len(identity) - 1)]
                with m.If(out.ready):
                    m.d.sync += at.eq(at + 1)
                    with m.If(out.payload.last):
                        m.next = "IDLE"
            with m.State("RESULT"):
                m.d.comb += result.ready.eq(1)
                m.d.sync += [text.eq(words), last.eq(ended), left.eq(len(words) // 8 - 1)]
                with m.If(result.valid):
                    m.next = "WORD"
            with m.State("WORD"):
                m.d.comb += [out.valid.eq(1), out.payload.data.eq(text[:8]),
                             out.payload.last.eq(last & (left == 0))]
                with m.If(out.ready):
                    m.d.sync += [text.eq(text >> 8), left.eq(left - 1)]
                    with m.If(left == 0):
                        m.next = "RESULT"
                        with m.If(last):
                            m.next = "IDLE"

    def _identity(self, numbers: SyncFIFO) -> Array:
        digest = bytes.fromhex(describe_machine(self.hardware)["hash"])
        text = self.capacity.to_bytes(2, "little") + digest
        return Array([Const(VERSION, 8), numbers.level, *(Const(byte, 8) for byte in text)])

    def _words(self, m: Module):
        """A transfer in words of 32 bits: class and score, or one of many; if it is the last."""
        result = self.result.payload
        if self.hardware.result_words:
            return result.data, result.last
        words = Signal(data.ArrayLayout(8 * WORD, 2))
        m.d.comb += [words[0].eq(result["class"]), words[1].eq(result.score)]
        return words.as_value(), Const(1)
