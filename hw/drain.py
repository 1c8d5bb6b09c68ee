"""The way out of a column: whichever row's sum is selected."""

from functools import reduce
from operator import or_

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out


class Drain(wiring.Component):
    """The one of R sums that is not held at zero, two cycles behind.

    A chain of registers through the rows would take a multiplexer per row and bit; so does no
    row's register pass on another one's sum, and a LUT merges the sums of two.

    Members
    -------
    parts : In(ArrayLayout(acc_bits, R))    all zero but one
    sum : Out(acc_bits)
    """

    def __init__(self, rows: int, acc_bits: int):
        self.rows = rows
        super().__init__({"parts": In(data.ArrayLayout(acc_bits, rows)), "sum": Out(acc_bits)})

    def elaborate(self, platform):
        m = Module()
        pairs = []
        for first in range(0, self.rows, 2):
            pair = Signal.like(self.sum, name=f"pair_{first}", reset_less=True)
            m.d.sync += pair.eq(reduce(or_, list(self.parts)[first:first + 2]))
            pairs.append(pair)
        m.d.sync += self.sum.eq(reduce(or_, pairs))
        return m
