"""Turns the weights of one column and step from the form that the memory holds to the array's."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from export.dense import BITS, groups
from export.hardware import UNPACKER_CYCLES
from export.words import bit_positions, operands, stored_bits


class WeightUnpacker(wiring.Component):
    """For the `formats`, pairs of word precision and weight bits, that it gets; a cycle.

    Members
    -------
    stored : In          as :func:`export.words.store_weights` writes it
    format : In(range(len(formats)))    which one of them; static
    valid : In(6 * words)      lanes in use; binary weights have no zero for the others
    row : Out(6 * words)       as :func:`export.words.pack_weights` has it; signs of zeros are void
    """

    LATENCY = UNPACKER_CYCLES

    def __init__(self, *, words: int, formats: tuple[tuple[int, int], ...], dense: bool):
        self.words, self.formats, self.dense = words, formats, dense
        super().__init__({
            "stored": In(max(stored_bits(mode, bits, words, dense) for mode, bits in formats)),
            "format": In(range(max(2, len(formats)))),
            "valid": In(6 * words),
            "row": Out(6 * words),
        })

    def elaborate(self, platform):
        m = Module()
        with m.Switch(self.format):
            for number, (mode, bits) in enumerate(self.formats):
                row = Signal(6 * self.words, name=f"row_{mode}_{bits}", reset_less=True)
                m.d.sync += row.eq(self._row(mode, bits))
                with m.Case(number):
                    m.d.comb += self.row.eq(row)
        return m

    def _row(self, mode: int, weight_bits: int):
        count = operands(mode, self.words)
        planes = self._planes(count, weight_bits)
        if mode == 1:
            return Cat(planes[-1])
        if weight_bits == 1:
            planes = [self.valid[:count], *planes]
        while len(planes) < mode:  # no ternary or binary weight counts twice
            planes.insert(1, Const(0, count))
        bits = [None] * (6 * self.words)
        for plane, positions in zip(planes, bit_positions(mode, self.words), strict=True):
            for bit, position in zip(plane, positions, strict=True):
                bits[position] = bit
        return Cat(bits)

    def _planes(self, count: int, weight_bits: int) -> list:
        """|w| = 1, |w| = 2 and sign, as far as the weights have them."""
        if not self.dense or weight_bits == 1:
            return [self.stored[k * count:(k + 1) * count] for k in range(weight_bits)]
        weights, start = [], 0
        for size in groups(count, weight_bits):
            width = BITS[weight_bits][size]
            code = self.stored[start:start + width]
            weights += _ternary(code, size) if weight_bits == 2 else _quinary(code, size)
            start += width
        return list(zip(*weights, strict=True))


def _ternary(code, size: int) -> list[tuple]:
    """Magnitude and sign of each weight of a dense group, see :mod:`export.dense`."""

    def single(f):
        return f.any(), f[1]

    def pair(p, zero):
        return [(~(zero | (p[2] & p[1])), p[0]), (~(zero | (p[2] & ~p[1])), Mux(p[2], p[0], p[1]))]

    if size == 1:
        return [single(code)]
    escape = code[-2:].all()
    if size == 3:
        return [*pair(code[:3], escape), single(Mux(escape, code[:2], code[3:]))]
    three, high_zero = code[:2].all(), code[2]
    last = Mux(escape, Mux(three, code[3:5], code[:2]), code[6:])
    return [*pair(Mux(escape & high_zero, code[3:6], code[:3]), escape & ~high_zero),
            *pair(code[3:6], escape & (high_zero | three)), single(last)]


def _quinary(code, size: int) -> list[tuple]:
    """|w| = 1, |w| = 2 and sign of each weight of a dense group, see :mod:`export.dense`."""
    if size == 1:
        return [tuple(code)]
    zeros, which, low = code[-1], code[-3:-1], code[:2]
    if size == 2:
        zero = [zeros & (which != 1), zeros & (which != 0)]
        values = [low, Mux(zeros, low, code[2:4])]
    else:
        middle = code[2:4]
        alone = zeros & (which == 3)
        zero = [(zeros & (which == k)) | (alone & (middle != k)) for k in range(3)]
        values = [low, Mux(alone, low, middle),
                  Mux(zeros, Mux(which == 1, middle, low), code[4:6])]
    return [(~none & ~value[1], ~none & value[1], value[0])
            for none, value in zip(zero, values, strict=True)]
