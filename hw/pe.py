"""One processing element: multiplies a word group of codes with one of weights and accumulates."""

from itertools import zip_longest

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import PE_CYCLES
from hw.heap import add_level, add_levels, add_up, keep

# Travels along a row, `ProcessingElement.LATENCY` cycles behind the activations of its step.
CONTROL = data.StructLayout({
    "first": 1,  # first step of a tile: the accumulator starts from zero
    "horner": 1,  # a cycle later, of each further digit of pixels: the accumulator is shifted
    "capture": 1,  # in the cycle after a tile's last step: the sum is kept
    "hide": 1,  # zero leaves in the next cycle, not the kept sum
})


def weight_layout(words: int, precisions: tuple[int, ...]) -> data.StructLayout:
    """Decoded weights of one step: what to do with each bit of an activation word group."""
    fields = {"sign": 6 * words}  # invert the bit
    if precisions != (1,):
        fields["enable"] = 6 * words  # then count it; binary ones alone always do
    if 3 in precisions:
        fields |= {
            "double": 2 * words,  # planes 1 and 2 take the next lower activation bit
            "high": 2 * words,  # count the top activation bit in plane 3
        }
    return data.StructLayout(fields)


def in_mode(mode: Value, precision: int, precisions: tuple[int, ...]) -> Value:
    """Whether the one-hot input `mode` selects `precision`; a constant if there is no choice."""
    if precisions == (precision,):
        return Const(1)
    return mode[precisions.index(precision)] if precision in precisions else Const(0)


class ProcessingElement(wiring.Component):
    """Accumulates the products of a word group of codes and one of weights, a group per cycle.

    No multiplier: weights say for each activation bit whether it is inverted and whether it counts,
    and what counts is summed by significance, as laid out in :mod:`export.words`. Sums are
    unsigned, and exact as long as a tile's total fits `acc_bits`.

    There is no flow control. Tiles may follow each other at once or after any pause, but between
    the first and the last step of a tile no cycle may be idle. `control` belongs to the
    activations `LATENCY` cycles before. What is chosen between stands in front of an adder, where
    ECP5's carry cells take it in (:mod:`hw.absorb`).

    Members
    -------
    mode : one bit per precision, one-hot; static while steps are under way
    act : 6 * words bits, of the row; zero in lanes that are not in use if all weights are binary
    weight : weight_layout(words, precisions), of the column
    control : CONTROL, of the row
    sum : acc_bits, the kept sum as it was a cycle ago, zero if it was to hide

    Pixels come in digits of `max(precisions)` bits, most significant digit first, if `horner`.
    """

    LATENCY = PE_CYCLES

    def __init__(self, *, words: int, precisions: tuple[int, ...], acc_bits: int, horner: bool):
        self.words = words
        self.precisions = precisions
        self.acc_bits = acc_bits
        self.horner = horner
        weights = weight_layout(words, precisions)
        super().__init__({
            "mode": In(len(precisions)),
            "act": In(6 * words),
            "weight": In(weights),
            "control": In(CONTROL),
            "sum": Out(acc_bits),
        })

    def elaborate(self, platform):
        m = Module()

        # Cycle 1: products and a first level of additions. Cycle 2: further ones, until there are
        # two bits of a weight, or a number where others join it that move by mode.
        together, apart = self._planes()
        peak, columns = self._level(m, together, "together")
        if apart:
            columns = [[bit] for bit in self._number(m, columns, peak, "together")]
        else:
            columns = keep(m, add_levels(m, columns, peak, "together_sum"), "together_rows")
        for k, (planes, wide, shift) in enumerate(apart):
            most, level = self._level(m, planes, f"apart_{k}")
            number = self._number(m, level, most, f"apart_{k}")
            moved = Signal(range((most << shift) + 1), name=f"moved_{k}")
            m.d.comb += moved.eq(Mux(wide, number << shift, number))
            peak += most << shift
            columns = [[*bits, *bit] for bits, bit in zip_longest(columns, moved, fillvalue=())]

        # Cycle 3: their sum. Cycle 4: accumulate. `control` comes a cycle before, so `first` acts
        # on what the accumulator holds afterwards, and `capture` takes the sum from the adder.
        step = Signal(range(peak + 1), reset_less=True)
        m.d.sync += step.eq(add_up(m, columns, peak, "step_sum"))
        total = Signal(self.acc_bits)
        acc, kept = (Signal(self.acc_bits, name=n, reset_less=True) for n in ("acc", "kept"))
        held = Signal(self.acc_bits)
        m.d.comb += [held.eq(acc), total.eq(held + step)]
        if self.horner:
            m.d.comb += held.eq(Mux(self.control.horner, acc << max(self.precisions), acc))
        m.d.sync += acc.eq(total)
        with m.If(self.control.first):
            m.d.sync += acc.eq(0)
        with m.If(self.control.capture):
            m.d.sync += kept.eq(total)
        shown = Signal(self.acc_bits, reset_less=True)  # by nothing else but `hide`
        m.d.sync += shown.eq(kept)
        with m.If(self.control.hide):  # a register's reset; a mask in front of it would take a LUT
            m.d.sync += shown.eq(0)
        m.d.comb += self.sum.eq(shown)
        return m

    def _planes(self):
        """Products by weight: those that always weigh the same, then (planes, wide, shift) of those
        whose weights are `shift` places higher if `wide`."""
        ones, twos, fours, eights = (list(bits) for bits in self._products())
        mode_1, mode_3 = (in_mode(self.mode, p, self.precisions) for p in (1, 3))
        together, apart = [ones], []
        if 1 not in self.precisions:
            together.append(twos)
        elif twos:
            apart.append(([twos], ~mode_1, 1))
        if self.precisions == (3,):
            together += [fours, eights]
        elif fours:
            apart.append(([fours, eights], mode_3, 2))
        return together, apart

    @staticmethod
    def _level(m: Module, planes, name: str):
        """The most that bits can sum up to, and they behind one level of additions, a cycle later.

        Products get no register of their own: carry cells take many of them in.
        """
        peak = sum(len(bits) << weight for weight, bits in enumerate(planes))
        return peak, keep(m, add_level(m, planes, peak, f"{name}_level"), name)

    @staticmethod
    def _number(m: Module, columns, peak: int, name: str) -> Signal:
        """The sum of bits, a cycle later."""
        number = Signal(range(peak + 1), name=f"{name}_number", reset_less=True)
        m.d.sync += number.eq(add_up(m, columns, peak, f"{name}_sum"))
        return number

    def _products(self) -> tuple[Value, Value, Value, Value]:
        """The bits that count 1, 2, 4 and 8 in mode 3.

        In mode 2 the second group counts 2, in modes 1 and 2 the third counts 1 and the fourth 2.
        """
        words, weight = self.words, self.weight
        plane = 2 * words
        if 3 not in self.precisions:
            product = self.act ^ weight.sign
            if self.precisions == (1,):
                return product, Const(0, 0), Const(0, 0), Const(0, 0)
            product &= weight.enable
            halves = [product[words * h:words * (h + 1)] for h in range(6)]
            return (Cat(halves[0], halves[1], halves[4]), Cat(halves[2], halves[3], halves[5]),
                    Const(0, 0), Const(0, 0))
        double = weight.double.replicate(2)
        act = Cat(self.act[:plane],
                  self.act[:2 * plane] & double | self.act[plane:] & ~double)
        product = (act ^ weight.sign) & weight.enable
        top = (self.act[2 * plane:] ^ weight.sign[2 * plane:]) & weight.high
        return product[:plane], product[plane:2 * plane], product[2 * plane:], top
