"""Expands weights, once per column, into what the processing elements take."""

from amaranth import Cat, Const, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.pe import in_mode, weight_layout


class WeightDecoder(wiring.Component):
    """Combinational: one step's weights to :func:`weight_layout`.

    A negative weight inverts all p bits of its operand. Its product is `-a = ~a - (2 ** p - 1)`,
    and the exporter folds the constants into the bias. Nothing is subtracted, and zeros are exact.

    Members
    -------
    row : 6 * words bits, laid out as in :mod:`export.words`
    mode : one bit per precision, one-hot
    valid_operands : lanes in use, bit i for operand i; only mode 1 needs it
    top : the activations are a pixel's first digit, of two bits: their third may not count when
        inverted (mode 3 only)
    weight : Out(weight_layout(words, precisions))
    """

    def __init__(self, *, words: int, precisions: tuple[int, ...]):
        self.words = words
        self.precisions = precisions
        super().__init__({
            "row": In(6 * words),
            "mode": In(len(precisions)),
            "valid_operands": In(6 * words),
            "top": In(1),
            "weight": Out(weight_layout(words, precisions)),
        })

    def elaborate(self, platform):
        m = Module()
        decoders = {1: self._binary, 2: self._ternary, 3: self._quinary}
        for precision in self.precisions:
            with m.If(in_mode(self.mode, precision, self.precisions)):
                m.d.comb += decoders[precision]()
        return m

    def _binary(self):
        if self.precisions == (1,):  # activations are zero there, too
            return self.weight.sign.eq(self.row & self.valid_operands)
        return [self.weight.sign.eq(self.row), self.weight.enable.eq(self.valid_operands)]

    def _ternary(self):
        words, row, weight = self.words, self.row, self.weight
        some = Cat(row[:2 * words], row[4 * words:5 * words])
        sign = Cat(row[2 * words:4 * words], row[5 * words:])
        pairs, rest = slice(0, 2 * words), slice(2 * words, 3 * words)
        yield weight.sign.eq(Cat(sign[pairs], sign[pairs], sign[rest], sign[rest]))
        if 3 in self.precisions:
            # The last half counts twice. Plane 3 has that weight and sees the same activations.
            yield weight.enable.eq(Cat(some[pairs], some[pairs], some[rest]))
            yield weight.high.eq(Cat(Const(0, words), some[rest]))
        else:
            yield weight.enable.eq(Cat(some[pairs], some[pairs], some[rest], some[rest]))

    def _quinary(self):
        row, weight, n = self.row, self.weight, 2 * self.words
        one, two, sign = row[:n], row[n:2 * n], row[2 * n:]
        lower = (~self.top).replicate(n)
        yield weight.sign.eq(sign.replicate(3))
        yield weight.enable.eq(Cat(one, one | two, (one & lower) | two))
        yield weight.double.eq(two)
        yield weight.high.eq(two & lower)
