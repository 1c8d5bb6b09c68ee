"""A small component with everything that the tools have to cope with; `bench_toy` is its bench."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.verilog import shared

TABLE = [3, 141, 59, 26, 53]
DEPTH = 4
TAG = 2
RESULT = data.StructLayout({"sum": 8, "tag": 2, "full": 1, "oldest": 8, "last": 16})


class Step(wiring.Component):
    """Adds `by`."""

    a: In(8)
    y: Out(8)

    def __init__(self, by=1):
        self.by = by
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.y.eq(self.a + self.by)
        return m


class Last(wiring.Component):
    """The word that came with the last `en`; zero before."""

    en: In(1)
    d: In(8)
    q: Out(8)

    def elaborate(self, platform):
        m = Module()
        with m.If(self.en):
            m.d.sync += self.q.eq(self.d)
        return m


class Toy(wiring.Component):
    """Adds two and the next table entry to each word; also tells earlier ones.

    The next word is taken when the result is. `last` is the two words before, `oldest` that of
    `DEPTH` words ago, which is unknown until `full`.

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
        # Amaranth declares its elements too, under names like that of a bit select.
        parts = Signal(data.ArrayLayout(4, 2))
        m.submodules.table = table = Memory(shape=8, depth=len(self.table), init=self.table)
        m.submodules.history = history = Memory(shape=8, depth=DEPTH, init=[])
        m.submodules.step_0 = first = Step()
        m.submodules.step_1 = second = Step()
        before = [Last(), Last()]
        for k in range(2):
            m.submodules[f"before_{k}"] = shared(before[k], platform, "last")
        entry, oldest = table.read_port(domain="comb"), history.read_port(domain="comb")
        write = history.write_port()
        count = Signal(range(DEPTH + 1))
        taken = self.i.valid & self.i.ready
        m.d.comb += [
            self.i.ready.eq(self.o.ready), self.o.valid.eq(self.i.valid),
            parts.eq(self.i.payload), first.a.eq(Cat(parts)), second.a.eq(first.y),
            self.o.p.sum.eq(second.y + entry.data),
            self.o.p.tag.eq(TAG),  # a constant part beside one that a process drives
            self.o.p.oldest.eq(oldest.data), self.o.p.last.eq(Cat(last.q for last in before)),
            before[0].d.eq(self.i.payload), before[1].d.eq(before[0].q),
            *(last.en.eq(taken) for last in before),
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
