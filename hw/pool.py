"""The maximum over 2x2 codes."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from export.hardware import Hardware
from hw.descriptor import layer_layout
from hw.walk import CODE_BITS, walk_layout


class Pool(wiring.Component):
    """Maximum of a pixel with its left, upper and upper left ones; one buffered row, half as wide.

    Members
    -------
    layer : In(layer_layout)
    ahead, walk : In(walk_layout)       the unit after this one, and this one
    codes, block : In and Out(ArrayLayout(3, unit))     at once; valid where x and y are odd
    """

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        unit = data.ArrayLayout(CODE_BITS, hardware.array.unit)
        super().__init__({
            "layer": In(layer_layout(hardware)),
            "ahead": In(walk_layout(hardware)), "walk": In(walk_layout(hardware)),
            "codes": In(unit), "block": Out(unit),
        })

    def elaborate(self, platform):
        m = Module()
        hardware, layer, walk = self.hardware, self.layer, self.walk
        U, K = hardware.array.unit, hardware.array.units
        pools = layer.pool | layer.keep_pooled if hardware.gated else layer.pool
        m.submodules.line = line = Memory(
            shape=CODE_BITS * U, depth=hardware.pool_width * K, init=[])
        read, write = line.read_port(), line.write_port()

        def entry(at):
            return (at.x >> 1) * K + at.unit if K > 1 else at.x >> 1

        def maximum(a, b):
            pairs = ((a.word_select(u, CODE_BITS), b.word_select(u, CODE_BITS)) for u in range(U))
            return Cat(Mux(p > q, p, q) for p, q in pairs)

        left = Array(Signal(CODE_BITS * U, name=f"left_{k}") for k in range(K))
        now, pair = self.codes.as_value(), Signal(CODE_BITS * U)
        m.d.comb += [
            read.addr.eq(entry(self.ahead)),
            pair.eq(maximum(left[walk.unit], now)), self.block.eq(maximum(pair, read.data)),
            write.addr.eq(entry(walk)), write.data.eq(pair),
            write.en.eq(walk.valid & walk.inside & pools & walk.x[0] & ~walk.y[0]),
        ]
        with m.If(walk.valid & ~walk.x[0]):
            m.d.sync += left[walk.unit].eq(now)
        return m
