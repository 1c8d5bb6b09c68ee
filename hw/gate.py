"""Logic-gated residuals: OR and MUX of a layer's codes with those of an earlier layer."""

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from export.descriptor import GATES, RESCALES
from export.hardware import Hardware
from hw.descriptor import layer_layout
from hw.store import deep_memory
from hw.walk import CODE_BITS, walk_layout

SIZES = 4096, 2048  # rows of a block RAM of four and nine bits


class Gate(wiring.Component):
    """Merges codes with the skip's while they are drained; costs no cycle and no adder.

    The skip memory holds the feature maps that a gate will need, one unit of channels per word, in
    the order in which they come and will be needed. A skip of fewer channels starts over.

    Members
    -------
    restart : In(1)     a frame starts
    fetch : In(1)       a layer starts in the next cycle
    layer : In(layer_layout)
    ahead, walk : In(walk_layout)       the second unit after this one, and this one
    codes : In, gated : Out             `unit` codes, before and, at once, behind the gate
    keep : In(1), kept : In             codes for the skip memory
    select : In(1), signs : In(C)       a channel tile's sums are complete; which are not negative
    """

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        unit = data.ArrayLayout(CODE_BITS, hardware.array.unit)
        super().__init__({
            "restart": In(1), "fetch": In(1),
            "layer": In(layer_layout(hardware)),
            "ahead": In(walk_layout(hardware)), "walk": In(walk_layout(hardware)),
            "codes": In(unit), "gated": Out(unit),
            "keep": In(1), "kept": In(unit),
            "select": In(1), "signs": In(hardware.array.columns),
        })

    def elaborate(self, platform):
        m = Module()
        hardware, layer, unit = self.hardware, self.layer, self.hardware.array.unit

        # A unit is written, if at all, behind where its last reader is.
        source = Signal(range(hardware.skip_words + 1))
        target = Signal.like(layer.keep_base)
        fetched = Signal()
        m.d.sync += fetched.eq(self.fetch)
        with m.If(fetched):
            m.d.sync += [source.eq(layer.skip_base), target.eq(layer.keep_base)]
        with m.Else():
            with m.If(self.ahead.valid & self.ahead.inside & layer.gate.any()):
                m.d.sync += source.eq(Mux(source == layer.skip_end - 1, layer.skip_base,
                                          source + 1))
            with m.If(self.keep):
                m.d.sync += target.eq(target + 1)
        skipped = deep_memory(
            m, "skips", "skipped", width=CODE_BITS * unit, rows=hardware.skip_words, sizes=SIZES,
            read=source, write=target, data=self.kept, enable=self.keep)
        passed = self._selected(m)
        shifts, gates = hardware.rescales, sorted(hardware.gates)
        for u in range(unit):
            stored = skipped.word_select(u, CODE_BITS)
            skip = Signal(CODE_BITS, name=f"skip_{u}")
            code = self.codes[u]
            for shift in shifts:
                with m.If((layer.rescale == RESCALES.index(shift)) | (len(shifts) == 1)):
                    m.d.comb += skip.eq(Cat(Const(0, max(0, shift)), stored[max(0, -shift):]))
            merged = {"or": code | skip}
            if passed is not None:
                merged |= {"mux": Mux(passed[u], code, skip),
                           "mux_or": Mux(passed[u], code | skip, code)}
            m.d.comb += self.gated[u].eq(code)
            for gate in gates:
                with m.If(layer.gate == GATES.index(gate)):
                    m.d.comb += self.gated[u].eq(merged[gate])
        return m

    def _selected(self, m: Module):
        """Select bits of the unit at `walk`; None if there is no mux."""
        words, layer = self.hardware.select_words, self.layer
        columns, unit = self.hardware.array.columns, self.hardware.array.unit
        if not words:
            return None
        m.submodules.selects = selects = Memory(
            shape=columns, depth=words, init=[])
        read, write = selects.read_port(), selects.write_port()
        target = Signal(range(words + 1))
        tile = Signal.like(layer.select_base)
        with m.If(self.restart):
            m.d.sync += target.eq(0)
        with m.Elif(self.select):
            m.d.sync += target.eq(target + 1)
        with m.If(self.fetch):
            m.d.sync += tile.eq(0)
        with m.Elif(self.ahead.valid & self.ahead.channels_last):
            m.d.sync += tile.eq(tile + 1)
        m.d.comb += [read.addr.eq(layer.select_base + tile), write.addr.eq(target),
                     write.data.eq(self.signs), write.en.eq(self.select)]
        selected = Signal.like(read.data, reset_less=True)
        m.d.sync += selected.eq(read.data)
        bits = Array(Cat(selected[k * unit + u] for u in range(unit))
                     for k in range(columns // unit))
        return bits[self.walk.unit]
