"""Sums over all pixels of a map: the best class, the bits that a mux selects by, or codes."""

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.descriptor import RESULTS
from export.hardware import VECTOR_CYCLES, Hardware
from hw.clip import Clip
from hw.descriptor import bias_layout, is_summed, layer_layout, makes
from hw.pipeline import delay
from hw.walk import CODE_BITS, walk_layout


def best_layout(hardware: Hardware) -> data.StructLayout:
    """The class, and its score: the sum over the last map with its bias."""
    return data.StructLayout({"class": range(max(2, hardware.classes)),
                              "score": signed(hardware.score_bits)})


class Head(wiring.Component):
    """Adds up a channel tile's sums, then compares one per cycle; the first of the highest wins.

    Select bits are compared like scores, which does no harm; of them only the signs are kept (a
    class's, which are kept too, are written over before they could be read).

    Members
    -------
    fetch : In(1)       an operation starts in the next cycle
    layer : In(layer_layout)
    walk : In(walk_layout)      the unit
    sums : In(ArrayLayout(acc_bits, unit)), bias : In(bias_layout)
    done : Out(1)       all of the operation's sums are compared
    result : Out(best_layout)       valid from the `done` of a class on
    select : Out(1), signs : Out(C)     a tile's sums are complete; which are not negative
    codes : Out(ArrayLayout(3, unit)), emit, last : Out(1)      ... a unit's; a tile's last one
    emits : Out(1)      `emit` of the next cycle
    """

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        super().__init__({
            "fetch": In(1),
            "layer": In(layer_layout(hardware)),
            "walk": In(walk_layout(hardware)),
            "sums": In(data.ArrayLayout(hardware.acc_bits, hardware.array.unit)),
            "bias": In(bias_layout(hardware)),
            "done": Out(1),
            "result": Out(best_layout(hardware)),
            "select": Out(1),
            "signs": Out(hardware.array.columns),
            **({"codes": Out(data.ArrayLayout(CODE_BITS, hardware.array.unit)),
                "emit": Out(1), "emits": Out(1), "last": Out(1)} if hardware.vectors else {}),
        })

    def elaborate(self, platform):
        m = Module()
        hardware, layer, result = self.hardware, self.layer, self.result
        columns, unit = hardware.array.columns, hardware.array.unit
        score = signed(hardware.score_bits)
        walk = self.walk
        totals = [Signal(score, name=f"total_{c}", reset_less=True) for c in range(columns)]
        active = walk.valid & is_summed(layer)
        for c, total in enumerate(totals):
            with m.If(active & walk.inside & (walk.unit == c // unit)):
                m.d.sync += total.eq(Mux(walk.first, self.bias[c], total) + self.sums[c % unit])

        load = Signal()
        last = Signal()
        m.d.sync += [load.eq(active & walk.channels_last), last.eq(walk.layer_last)]
        # Scores are compared with their signs inverted: a carry chain ends an unsigned comparison.
        sign = 1 << hardware.score_bits - 1
        waiting = [Signal(hardware.score_bits, name=f"score_{c}", reset_less=True)
                   for c in range(columns)]
        best = Signal(hardware.score_bits, init=sign)
        winner = Signal.like(result["class"])
        left = Signal(range(columns + 1))
        comparing = Signal()
        number = Signal(range(-(-hardware.classes // columns) * columns))
        final = Signal()
        scored = Signal()
        fetched = Signal()
        m.d.sync += scored.eq(final & (left == 1))
        with m.If(load):
            m.d.sync += [w.eq(total ^ sign) for w, total in zip(waiting, totals, strict=True)]
            m.d.sync += [left.eq(columns), comparing.eq(1), final.eq(last)]
        with m.If(comparing):  # all are, before the next tile's come
            m.d.sync += [w.eq(other) for w, other in pairwise(waiting)]
            m.d.sync += [left.eq(left - 1), comparing.eq(left != 1), number.eq(number + 1)]
        # The best one is written a cycle behind its comparison; until then the next one is compared
        # with it too.
        before = Signal.like(waiting[0], name="score_before")
        number_before = Signal.like(number, reset_less=True)
        better = Signal()
        m.d.sync += [before.eq(waiting[0]), number_before.eq(number), better.eq(
            comparing & Mux(better, waiting[0] > before, waiting[0] > best))]
        with m.If(better):
            m.d.sync += [best.eq(before), winner.eq(number_before)]
        m.d.sync += fetched.eq(self.fetch)  # now the descriptor is there
        with m.If(fetched & (layer.result == RESULTS.index("class"))):
            m.d.sync += [number.eq(0), best.eq(0)]
        m.d.comb += [result["class"].eq(winner), result.score.eq(best ^ sign)]
        selects, done = load, delay(m, scored, 1, "compared")
        if hardware.vectors:
            vector = makes(layer, "vector")
            selects = load & ~vector
            self._codes(m, (waiting[0] ^ sign).as_signed(), comparing & vector, left)
            done = Mux(vector, delay(m, done, VECTOR_CYCLES, "written"), done)
        m.d.comb += [self.done.eq(done), self.select.eq(selects),
                     self.signs.eq(~Cat(total[-1] for total in totals))]
        return m

    def _codes(self, m: Module, total, valid, left):
        """Shifts and clips a sum per cycle; a unit leaves with its last one, two cycles behind."""
        unit = self.hardware.array.unit
        clipped, = Clip(m, self.layer).codes(m, [total])
        code = Signal(CODE_BITS)
        units = Signal(CODE_BITS * unit)
        count = Signal(range(unit))
        ends = Signal()
        m.d.sync += [
            code.eq(clipped),
            units.eq(Cat(units, code)[CODE_BITS:]),
        ]
        with m.If(valid):
            m.d.sync += count.eq(Mux(ends, 0, count + 1))
        emits = delay(m, valid & ends, 1, "emits")
        emit = delay(m, emits, 1, "emit")
        m.d.comb += [
            ends.eq(count == unit - 1),
            self.codes.eq(Cat(units, code)[CODE_BITS:]),
            self.emit.eq(emit), self.emits.eq(emits),
            self.last.eq(delay(m, left == 1, 2, "last")),
        ]
