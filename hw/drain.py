"""The way out of a column: whichever row's sum is selected."""

from functools import reduce
from operator import or_

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out


class Drain(wiring.Component):
    """The one of R sums that does not hide, a cycle behind.

    A chain of registers through the rows would take a multiplexer per row and bit, this takes a
    LUT for three rows.

    Members
    -------
    parts : In(ArrayLayout(acc_bits, R))    all zero but one
    sum : Out(acc_bits)
    """

    def __init__(self, rows: int, acc_bits: int):
        super().__init__({"parts": In(data.ArrayLayout(acc_bits, rows)), "sum": Out(acc_bits)})

    def elaborate(self, platform):
        m = Module()
        merged = Signal.like(self.sum, reset_less=True)
        m.d.sync += merged.eq(reduce(or_, self.parts))
        m.d.comb += self.sum.eq(merged)
        return m
