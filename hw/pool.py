"""The maximum over 2x2 codes."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from export.descriptor import RESULTS
from export.hardware import Hardware
from hw.descriptor import layer_layout
from hw.walk import CODE_BITS, walk_layout


class Pool(wiring.Component):
    """Maximum of a pixel with its left, upper and upper left ones; one buffered row, half as wide.

    Results come two cycles after the codes: pixel by pixel or, pooled, with the last one of each
    2x2.

    Members
    -------
    layer : In(layer_layout)
    walk : In(walk_layout)      the unit
    codes : In(ArrayLayout(3, unit))
    pooled : Out(ArrayLayout(3, unit)), emit : Out(1)   of the operation, pooled if it pools
    emits : Out(1)      `emit` of the next cycle; of machines that fold pixels only
    kept : Out(ArrayLayout(3, unit)), keep : Out(1)     for the skip memory
    """

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        unit = data.ArrayLayout(CODE_BITS, hardware.array.unit)
        super().__init__({
            "layer": In(layer_layout(hardware)),
            "walk": In(walk_layout(hardware)),
            "codes": In(unit),
            "pooled": Out(unit), "emit": Out(1), "kept": Out(unit), "keep": Out(1),
            **({"emits": Out(1)} if hardware.folds else {}),
        })

    def elaborate(self, platform):
        m = Module()
        hardware, layer = self.hardware, self.layer
        now = Signal.like(self.codes.as_value(), reset_less=True)
        walk = Signal.like(self.walk)
        m.d.sync += [now.eq(self.codes), walk.eq(self.walk)]
        inside = walk.valid & walk.inside & (layer.result == RESULTS.index("codes"))
        block = self._block(m, walk) if hardware.pool_width else now
        corner = walk.x[0] & walk.y[0]
        pooled, kept = (Signal.like(self.codes, name=name, reset_less=True)
                        for name in ("pooled_now", "kept_now"))
        emits = inside & (~layer.pool | corner)
        if hardware.folds:
            m.d.comb += self.emits.eq(emits)
        m.d.sync += [self.emit.eq(emits),
                     pooled.eq(Mux(layer.pool, block, now))]
        m.d.comb += self.pooled.eq(pooled)
        if hardware.gated:
            pools = layer.pool | layer.keep_pooled
            m.d.sync += [self.keep.eq(layer.keep & inside & (~pools | corner)),
                         kept.eq(Mux(pools, block, now))]
            m.d.comb += self.kept.eq(kept)
        return m

    def _block(self, m: Module, walk):
        """The maximum of 2x2, at its last pixel, with the unit that was there a cycle ago."""
        hardware, layer, now = self.hardware, self.layer, self.codes.as_value()
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

        left = Array(Signal(CODE_BITS * U, name=f"left_{k}", reset_less=True) for k in range(K))
        pair = Signal(CODE_BITS * U, reset_less=True)
        block = Signal(CODE_BITS * U)
        m.d.sync += pair.eq(maximum(left[self.walk.unit], now))
        m.d.comb += [
            read.addr.eq(entry(self.walk)), block.eq(maximum(pair, read.data)),
            write.addr.eq(entry(walk)), write.data.eq(pair),
            write.en.eq(walk.valid & walk.inside & pools & walk.x[0] & ~walk.y[0]),
        ]
        with m.If(self.walk.valid & ~self.walk.x[0]):
            m.d.sync += left[self.walk.unit].eq(now)
        return block
