"""A small component with everything that the tools have to cope with; `bench_toy` is its bench."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

TABLE = [3, 141, 59, 26, 53]
DEPTH = 4
TAG = 2
RESULT = data.StructLayout({"sum": 8, "tag": 2, "full": 1, "oldest": 8})


class Step(wiring.Component):
    """Adds one."""

    a: In(8)
    y: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.y.eq(self.a + 1)
        return m


class Toy(wiring.Component):
    """Adds two and the next table entry to each word; also tells the word of `DEPTH` words ago.

    The next word is taken when the result is. The oldest word is unknown until `full`.

    Members
    -------
    i : In(stream.Signature(8))
    o : Out(stream.Signature(RESULT))
    """

    i: In(stream.Signature(8))
    o: Out(stream.Signature(RESULT))

    def __init__(self, table=TABLE):
        self.table = table
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.table = table = Memory(shape=8, depth=len(self.table), init=self.table)
        m.submodules.history = history = Memory(shape=8, depth=DEPTH, init=[])
        m.submodules.step_0 = first = Step()
        m.submodules.step_1 = second = Step()
        entry, oldest = table.read_port(domain="comb"), history.read_port(domain="comb")
        write = history.write_port()
        count = Signal(range(DEPTH + 1))
        taken = self.i.valid & self.i.ready
        m.d.comb += [
            self.i.ready.eq(self.o.ready), self.o.valid.eq(self.i.valid),
            first.a.eq(self.i.payload), second.a.eq(first.y),
            self.o.p.sum.eq(second.y + entry.data),
            self.o.p.tag.eq(TAG),  # a constant part beside one that a process drives
            self.o.p.oldest.eq(oldest.data),
            oldest.addr.eq(write.addr), write.data.eq(self.i.payload), write.en.eq(taken),
        ]
        with m.If(count == DEPTH):
            m.d.comb += self.o.p.full.eq(1)
        with m.If(taken):
            m.d.sync += [
                entry.addr.eq(entry.addr + 1), write.addr.eq(write.addr + 1)]
            with m.If(entry.addr == len(self.table) - 1):
                m.d.sync += entry.addr.eq(0)
            with m.If(count != DEPTH):
                m.d.sync += count.eq(count + 1)
        return m
