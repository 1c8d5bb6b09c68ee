"""Puts codes where the words of the operations that read them have them."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import Hardware
from hw.descriptor import layer_layout
from hw.memory import LANES, write_layout
from hw.walk import CODE_BITS, walk_layout


class Writer(wiring.Component):
    """Writes a unit of channels per cycle, in the precision of the reading operations; no latency.

    Members
    -------
    fetch : In(1)       an operation starts in the next cycle
    layer : In(layer_layout)
    walk : In(walk_layout)      the unit
    emit : In(1)        it has codes to be written; not every pixel of a pooled map has
    codes : In(ArrayLayout(3, unit))
    write : Out(write_layout)
    """

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        super().__init__({
            "fetch": In(1),
            "layer": In(layer_layout(hardware)),
            "walk": In(walk_layout(hardware)),
            "emit": In(1),
            "codes": In(data.ArrayLayout(CODE_BITS, hardware.array.unit)),
            "write": Out(write_layout(hardware)),
        })

    def elaborate(self, platform):
        m = Module()
        array, layer, write = self.hardware.array, self.layer, self.write
        walk, emit = self.walk, self.emit
        rows, unit, half = array.rows, array.unit, array.words
        lane_bits = 2 * half
        wide = unit == lane_bits  # a unit fills a whole lane; at two bits, two of them
        parts = lane_bits // unit

        # Position of the unit: word address, lane, part of the lane.
        place = data.StructLayout({
            "word": range(self.hardware.activation_words),
            "lane": range(LANES), "part": range(parts)})
        base, now, after = (Signal(place, name=f"place_{n}") for n in ("base", "now", "after"))

        def advance(parts, lanes):
            """The next part, or else `lanes` further, or else the next word."""
            m.d.comb += after.eq(now)
            with m.If(now.part != parts - 1):
                m.d.comb += after.part.eq(now.part + 1)
            with m.Else():
                m.d.comb += after.part.eq(0)
                with m.If(now.lane >= LANES - lanes):
                    m.d.comb += [after.lane.eq(now.lane + lanes - LANES),
                                 after.word.eq(now.word + layer.out_slots)]
                with m.Else():
                    m.d.comb += after.lane.eq(now.lane + lanes)

        slot = Signal.like(layer.out_slots)
        bank = Signal(range(rows))
        fetched = Signal()
        m.d.sync += fetched.eq(self.fetch)
        with m.If(fetched):
            m.d.sync += [target.word.eq(layer.out_base) for target in (base, now)]
            m.d.sync += [Cat(target.lane, target.part).eq(0) for target in (base, now)]
        with m.Elif(walk.valid):
            m.d.sync += now.eq(Mux(walk.unit_last, base, after))
            with m.If(emit & walk.unit_last):
                m.d.sync += bank.eq(bank + 1)
                with m.If(bank == rows - 1):
                    m.d.sync += [bank.eq(0), slot.eq(slot + 1)]
            with m.If(walk.channels_last):
                m.d.sync += [base.eq(after), now.eq(after), slot.eq(0), bank.eq(0)]

        m.d.comb += [write.valid.eq(emit), write.bank.eq(bank), write.address.eq(now.word + slot)]
        bits = [Cat(code[b] for code in self.codes) for b in range(CODE_BITS)]
        this_part = 1 << now.part
        with m.Switch(layer.out_mode):
            if 3 in array.precisions:
                with m.Case(3):  # lane k holds bit k of its operands
                    advance(parts, LANES)
                    for k in range(LANES):
                        m.d.comb += [write.data[k].eq(bits[k].replicate(parts)),
                                     write.enable[k].eq(this_part)]
            if 2 in array.precisions:
                with m.Case(2):  # a lane holds low bits in one half, high bits in the other
                    if wide:
                        advance(parts, 2)
                        low, high = (Cat(bits[0][part], bits[1][part])
                                     for part in (slice(0, half), slice(half, 2 * half)))
                        m.d.comb += write.carry.eq(Mux(now.lane == LANES - 1, layer.out_slots, 0))
                        for k in range(LANES):
                            at_low, at_high = now.lane == k, now.lane == (k - 1) % LANES
                            m.d.comb += [write.data[k].eq(Mux(at_low, low, high)),
                                         write.enable[k].eq(at_low | at_high)]
                    else:
                        advance(parts // 2, 1)
                        word = Cat(bit.replicate(parts // 2) for bit in bits[:2])
                        both = this_part | (this_part << parts // 2)
                        for k in range(LANES):
                            m.d.comb += [write.data[k].eq(word),
                                         write.enable[k].eq(Mux(now.lane == k, both, 0))]
            if 1 in array.precisions:
                with m.Case(1):
                    advance(parts, 1)
                    for k in range(LANES):
                        m.d.comb += [write.data[k].eq(bits[0].replicate(parts)),
                                     write.enable[k].eq(Mux(now.lane == k, this_part, 0))]
        return m
