"""Which program the next frame is for, and its record."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import Hardware
from export.sections import RECORDS, record_fields, record_word
from hw.store import fill_member, section


def record_layout(hardware: Hardware) -> data.StructLayout:
    """A program's record; :func:`export.sections.record_word` fills it."""
    return data.StructLayout(record_fields(hardware))


class Records(wiring.Component):
    """The record of the program that a frame's first pixel found selected, until it is `free`.

    A record follows its number by a cycle, so pixels are accepted a cycle after `program` changes.
    One program in ROM needs no memory: its record is constant.

    Members
    -------
    program : In(range(programs))   of the next frame
    taken : In(1)       a pixel is taken
    free : In(1)        the next frame may come; the record stays for one more cycle
    accept : Out(1)     pixels may come: the record is there and valid
    unloaded : Out(1)   ... it is there, but no program
    pending : Out(1)    a frame is coming or there, from its first pixel's cycle on
    number : Out(range(programs))   ... for this program
    record : Out(record_layout)
    fill : In(fill_layout)          of RAM only
    """

    def __init__(self, hardware: Hardware, records: list[dict[str, int]]):
        self.hardware = hardware
        self.words = [record_word(hardware, each) for each in records]
        self.values = records[0] if records else {}
        number = range(hardware.programs)
        super().__init__({
            "program": In(number), "taken": In(1), "free": In(1),
            "accept": Out(1), "unloaded": Out(1), "pending": Out(1),
            "number": Out(number), "record": Out(record_layout(hardware)),
            **fill_member(hardware),
        })

    def elaborate(self, platform):
        m = Module()
        hardware, record = self.hardware, self.record
        if hardware.memory == "rom" and hardware.programs == 1:
            # Where its rows end matters to nobody, so programs of one format give one netlist.
            fields = {name: value for name, value in self.values.items() if name[-4:] != "_end"}
            m.d.comb += [record.eq(record.shape().const(fields)), self.accept.eq(1)]
            return m
        port = section(m, self, RECORDS, hardware.programs, record.shape().size,
                       self.words).read_port()
        held = Signal()  # a frame is coming or there
        fresh = Signal()  # the record is read anew
        first = Signal.like(self.number)
        here = Signal.like(self.number)
        m.d.comb += [
            self.number.eq(Mux(held, first, self.program)),
            port.addr.eq(self.number), record.eq(port.data),
            self.pending.eq(held | self.taken),
        ]
        # What is read in this cycle is there in the next one, if no record was being written. One
        # that is written now is still the old one.
        known = Signal()
        writing = Signal()
        if hardware.memory == "ram":
            m.d.comb += writing.eq(self.fill.valid & (self.fill.section == 0))
        m.d.sync += [here.eq(self.number), fresh.eq(~writing)]
        m.d.comb += [
            known.eq((here == self.number) & fresh & ~writing),
            self.accept.eq(held | (known & record.valid)),
            self.unloaded.eq(known & ~record.valid),
        ]
        with m.If(self.taken):
            m.d.sync += held.eq(1)
            m.d.sync += first.eq(self.number)
        with m.If(self.free):
            m.d.sync += held.eq(0)
        return m
