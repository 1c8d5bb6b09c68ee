"""The engine with AXI: pixels and results as AXI4-Stream, registers and loading as AXI4-Lite."""

from amaranth import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from export.checked import ConfigError
from export.registers import RegisterMap
from hw.axi_lite import AxiLite, AxiLiteSignature
from hw.output import check_score
from hw.registers import RegisterBank

WORD = data.StructLayout({"data": 32, "last": 1})


class AxiEngine(wiring.Component):
    """An engine of framed pixels behind AXI; what the registers do stands in `export/registers.py`.

    A pixel goes straight in, a word of a result waits in one register on its way out, and stays
    there until it is taken, whatever else happens. A result of which the soft reset left the rest
    behind is ended by one more word, zero, so nobody waits for its end. A frame that is coming in
    then is swallowed to its end.

    Members
    -------
    s_axis_tdata : In(8 * channels)     one pixel; `tlast` with a frame's last
    s_axis_tuser : In(1)        with a frame's first pixel: it begins a clip; if maps lie in rings
    m_axis_tdata : Out(32)      words of a result; a class is two, the class and its score
    s_axis_*, m_axis_* : AXI4-Stream with tvalid, tready and tlast
    s_axil_* : AXI4-Lite subordinate, `AxiLiteSignature(registers.address_bits)`
    irq : Out(1)        high while an enabled cause is set
    """

    def __init__(self, engine: wiring.Component, registers: RegisterMap):
        self._MustUse__used = True  # even if it is refused; else Amaranth warns
        if "frame_error" not in engine.signature.members:
            raise ConfigError("an engine behind AXI must take framed pixels, not others")
        check_score(engine.result.payload.shape())
        self.engine, self.registers = engine, registers
        self.bus = AxiLiteSignature(registers.address_bits)
        super().__init__({
            "s_axis_tdata": In(len(engine.pixels.p.data)), "s_axis_tvalid": In(1),
            "s_axis_tready": Out(1), "s_axis_tlast": In(1),
            **({"s_axis_tuser": In(1)} if "clip" in engine.signature.members else {}),
            "m_axis_tdata": Out(32), "m_axis_tvalid": Out(1),
            "m_axis_tready": In(1), "m_axis_tlast": Out(1),
            **{f"s_axil_{name}": member.flip() for name, member in self.bus.members.items()},
            "irq": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        engine = self.engine
        reset = Signal()
        m.submodules.engine = ResetInserter(reset)(engine)
        m.submodules.axil = axil = AxiLite(self.registers.address_bits)
        m.submodules.registers = bank = RegisterBank(self.registers)
        wiring.connect(m, axil.access, bank.access)
        for name, member in self.bus.members.items():
            outer, inner = getattr(self, f"s_axil_{name}"), getattr(axil.axil, name)
            m.d.comb += inner.eq(outer) if member.flow == Out else outer.eq(inner)
        m.d.comb += [reset.eq(bank.control.reset), bank.status.busy.eq(engine.busy)]

        members = engine.signature.members
        if "slot" in members:
            m.d.comb += engine.slot.eq(bank.program.number)
        if "clip" in members:
            m.d.comb += engine.clip.eq(self.s_axis_tuser)
        if "load" in members:
            wiring.connect(m, bank.load, engine.load)
            m.d.comb += [bank.load_refused.eq(engine.load_error),
                         bank.errors_set.load.eq(engine.load_error)]
        self._pixels(m, bank, reset)
        self._cycles(m, bank, reset)
        done = self._results(m, bank, reset)
        frames = Signal(32)
        m.d.sync += frames.eq(frames + done)
        m.d.comb += [
            bank.frames.value.eq(frames),
            bank.irq_status_set.done.eq(done),
            bank.irq_status_set.error.eq(bank.errors_set.as_value().any()),
            self.irq.eq((bank.irq_status.as_value() & bank.irq_enable.as_value()).any()),
        ]
        return m

    def _pixels(self, m: Module, bank: RegisterBank, reset: Signal):
        """Frames go in whole: each is let in, or not, with its first pixel."""
        pixels = self.engine.pixels
        inside = Signal()
        swallow = Signal()
        open_ = Signal()
        taken = Signal()
        m.d.comb += [
            open_.eq((inside | bank.control.run) & ~swallow & ~reset),
            pixels.p.data.eq(self.s_axis_tdata), pixels.p.last.eq(self.s_axis_tlast),
            pixels.valid.eq(self.s_axis_tvalid & open_),
            self.s_axis_tready.eq(pixels.ready & open_ | swallow),
            taken.eq(self.s_axis_tvalid & self.s_axis_tready),
            bank.status.receiving.eq(inside),
        ]
        with m.If(reset):
            m.d.sync += swallow.eq(inside)
        with m.If(taken):
            m.d.sync += inside.eq(~self.s_axis_tlast)
            with m.If(self.s_axis_tlast):
                m.d.sync += swallow.eq(0)
        m.d.comb += [
            Cat(bank.errors_set.short, bank.errors_set.long).eq(self.engine.frame_error),
            bank.status.loaded.eq(1),
        ]
        if "unloaded" in self.engine.signature.members:
            refused = Signal()
            known = Signal()
            m.d.sync += known.eq(refused)  # else the interrupt could not be cleared
            m.d.comb += [
                refused.eq(self.engine.unloaded & pixels.valid & ~inside),
                bank.status.loaded.eq(~self.engine.unloaded),
                bank.errors_set.unloaded.eq(refused & ~known)]

    def _results(self, m: Module, bank: RegisterBank, reset: Signal):
        """One register on the way out; returns whether a whole result has left."""
        words = self._words(m, reset)
        space = Signal()
        started = Signal()
        cut = Signal()
        closing = Signal()
        m.d.comb += [
            space.eq(~self.m_axis_tvalid | self.m_axis_tready),
            words.ready.eq(space & ~cut & ~reset),
            bank.status.result.eq(self.m_axis_tvalid),
        ]
        with m.If(self.m_axis_tready):
            m.d.sync += self.m_axis_tvalid.eq(0)
        with m.If(words.valid & words.ready):
            m.d.sync += [self.m_axis_tvalid.eq(1), self.m_axis_tdata.eq(words.p.data),
                         self.m_axis_tlast.eq(words.p.last), started.eq(~words.p.last),
                         closing.eq(0)]
        with m.If(reset):
            m.d.sync += cut.eq(started)
        with m.Elif(cut & space):
            m.d.sync += [self.m_axis_tvalid.eq(1), self.m_axis_tdata.eq(0),
                         self.m_axis_tlast.eq(1), started.eq(0), cut.eq(0), closing.eq(1)]
        return self.m_axis_tvalid & self.m_axis_tready & self.m_axis_tlast & ~closing

    def _words(self, m: Module, reset: Signal) -> stream.Interface:
        """The engine's results as words; those of a class only are its two halves in turn."""
        result = self.engine.result
        words = stream.Signature(WORD).create(path=("words",))
        m.d.comb += words.valid.eq(result.valid)
        if "last" in result.payload.shape().members:
            m.d.comb += [words.payload.eq(result.payload), result.ready.eq(words.ready)]
            return words
        second = Signal()
        m.d.comb += [
            words.p.data.eq(Mux(second, result.p.score, result.p["class"])),
            words.p.last.eq(second), result.ready.eq(words.ready & second),
        ]
        with m.If(words.valid & words.ready):
            m.d.sync += second.eq(~second)
        with m.If(reset):
            m.d.sync += second.eq(0)
        return words

    def _cycles(self, m: Module, bank: RegisterBank, reset: Signal):
        """Counts the cycles of a frame; the engine rests at least one between two."""
        busy = self.engine.busy
        was_busy = Signal()
        running = Signal(32)
        cycles = Signal(32)
        m.d.sync += was_busy.eq(busy & ~reset)
        with m.If(busy):
            m.d.sync += running.eq(running + 1)
        with m.Else():
            m.d.sync += running.eq(0)
        with m.If(was_busy & ~busy):
            m.d.sync += cycles.eq(running)
        m.d.comb += bank.cycles.value.eq(cycles)
