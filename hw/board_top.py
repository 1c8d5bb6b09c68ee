"""An engine on a board: behind the two pins of a serial line, the last result on LEDs."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from export.hardware import Hardware
from export.pack import Images
from hw.engine import Engine
from hw.link import Link, capacity
from hw.packet import PacketReader, PacketWriter, check_timeout
from hw.uart import Receiver, Transmitter, check_divider


class BoardTop(wiring.Component):
    """An engine that talks in the packets of docs/board.md.

    A bit of the line takes `divider` cycles; a packet in which nothing comes for `timeout` cycles,
    a power of two, is dropped. ConfigError if it is none, or a frame or a bit is too long or too
    short for the line.

    Members
    -------
    rx : In(1), tx : Out(1)     high when idle
    leds : Out(leds)    low bits of the last result's first word: the class, if it is one
    """

    def __init__(self, hardware: Hardware, images: Images, *, divider: int, timeout: int,
                 leds: int = 8):
        self._MustUse__used = True  # even if it is refused; else Amaranth warns
        check_divider(divider)
        check_timeout(timeout)
        self.capacity = capacity(hardware)
        self.hardware, self.images = hardware, images
        self.divider, self.timeout = divider, timeout
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "leds": Out(leds)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = Receiver(self.divider)
        m.submodules.transmitter = transmitter = Transmitter(self.divider)
        m.submodules.link = link = Link(self.hardware)
        m.submodules.reader = reader = PacketReader(self.capacity, self.timeout)
        m.submodules.writer = writer = PacketWriter()
        m.submodules.engine = engine = Engine(self.hardware, self.images, framed=True)

        for source, sink in ((receiver.bytes, reader.bytes), (reader.payload, link.payload),
                             (link.answers, writer.packet), (writer.bytes, transmitter.bytes),
                             (link.pixels, engine.pixels), (engine.result, link.result)):
            wiring.connect(m, source, sink)
        m.d.comb += [
            receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx),
            link.packet.eq(reader.packet), link.fault.eq(reader.fault), reader.done.eq(link.done),
            link.frame_error.eq(engine.frame_error),
        ]
        if self.hardware.programs > 1:
            m.d.comb += engine.slot.eq(link.slot)
        if self.hardware.memory == "ram":
            wiring.connect(m, link.load, engine.load)
            m.d.comb += [link.load_error.eq(engine.load_error), link.unloaded.eq(engine.unloaded)]
        self._show(m, engine.result)
        return m

    def _show(self, m: Module, result):
        words = self.hardware.result_words
        first = Signal(init=1)
        with m.If(result.valid & result.ready):
            if words:
                m.d.sync += first.eq(result.payload.last)
            with m.If(first):
                m.d.sync += self.leds.eq(result.payload.data if words else result.payload["class"])
