"""The way out of a column: whichever row's sum is selected."""

from functools import reduce
from operator import or_

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import CLUSTER


class Drain(wiring.Component):
    """The sum of the selected row, two cycles behind; zero if there is none.

    A chain of registers through the rows would take a multiplexer per row and bit. Here a LUT
    masks two rows and merges them, a register behind, and the next three of those results.

    Members
    -------
    sums : In(ArrayLayout(acc_bits, R))
    select : In(R)      one row or none
    sum : Out(acc_bits)
    """

    def __init__(self, rows: int, acc_bits: int):
        self.rows, self.acc_bits = rows, acc_bits
        super().__init__({"sums": In(data.ArrayLayout(acc_bits, rows)), "select": In(rows),
                          "sum": Out(acc_bits)})

    def elaborate(self, platform):
        m = Module()
        parts = []
        for start in range(0, self.rows, CLUSTER):
            part = Signal(self.acc_bits, name=f"rows_{start}", reset_less=True)
            m.d.sync += part.eq(reduce(or_, (
                self.sums[i] & self.select[i].replicate(self.acc_bits)
                for i in range(start, min(start + CLUSTER, self.rows)))))
            parts.append(part)
        merged = Signal(self.acc_bits, reset_less=True)
        m.d.sync += merged.eq(reduce(or_, parts))
        m.d.comb += self.sum.eq(merged)
        return m
