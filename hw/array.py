"""Output-stationary systolic array: rows are pixels, columns are output channels."""

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import DECODER_CYCLES, DRAIN_CYCLES, Hardware
from hw.decoder import WeightDecoder
from hw.drain import Drain
from hw.pe import ProcessingElement
from hw.pipeline import delay
from hw.verilog import shared

CONTROL = data.StructLayout({"first": 1, "horner": 1, "capture": 1})
WEIGHT_CONTROL = data.StructLayout({"word_last": 1, "top": 1})


class SystolicArray(wiring.Component):
    """R x C processing elements with their skew registers; no flow control.

    Words of one step enter all columns in one cycle and, :attr:`AHEAD` cycles later, all rows, and
    are skewed inside. `first`
    marks the first step of a tile, `horner` the first of each further digit, `capture` comes in
    the cycle after a tile's last step. :attr:`latency` cycles after `capture`, `start` is high and
    `sums` holds pixel 0 of the tile, then each `units` cycles the next of the R pixels. Tiles may
    follow each other every R * units cycles.

    Row i of the array works on pixel i, which is the first to be done.

    Members
    -------
    mode : In(one-hot of the precisions)     static while steps are in flight
    tail : In(range(6 * words + 1))          operands in a tap's last word; static
    acts : In(ArrayLayout(6 * words, R))     in PE order, pixel n0 + r at index r
    rows : In(ArrayLayout(6 * words, C))     weights, one word per column
    control : In(CONTROL)
    weight_control : In(WEIGHT_CONTROL)
    sums : Out(ArrayLayout(acc_bits, C))
    start : Out(1)
    """

    AHEAD = DECODER_CYCLES

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        array = hardware.array
        self.bits = 6 * array.words
        super().__init__({
            "mode": In(len(array.precisions)),
            "tail": In(range(self.bits + 1)),
            "acts": In(data.ArrayLayout(self.bits, array.rows)),
            "rows": In(data.ArrayLayout(self.bits, array.columns)),
            "control": In(CONTROL),
            "weight_control": In(WEIGHT_CONTROL),
            "sums": Out(data.ArrayLayout(hardware.acc_bits, array.columns)),
            "start": Out(1),
        })

    @property
    def latency(self) -> int:
        """Cycles from `capture` to `start`."""
        array = self.hardware.array
        return ProcessingElement.LATENCY + DRAIN_CYCLES + array.columns - 1

    def elaborate(self, platform):
        m = Module()
        array = self.hardware.array
        R, C, K = array.rows, array.columns, array.units
        horner = self.hardware.digits > 1

        m.submodules.pe = grid = Module()
        pe = [[ProcessingElement(words=array.words, precisions=array.precisions,
                                 acc_bits=self.hardware.acc_bits, horner=horner)
               for _ in range(C)] for _ in range(R)]
        mode = head_mode = delay(m, self.mode, 1, "mode")
        for i in range(R):  # a register per row: no net goes to all elements
            for c in range(C):
                grid.submodules[f"r{i}_c{c}"] = shared(pe[i][c], platform, "pe")
                m.d.comb += pe[i][c].mode.eq(mode)
            mode = delay(m, mode, 1, f"mode_row{i}")

        # Row edges: skewed activations and control.
        early = delay(m, self.control, ProcessingElement.LATENCY, "control_pe")
        first_row = data.View(CONTROL, early)
        select = self._select(m, first_row.capture, R, K)
        for i in range(R):
            edge, control = pe[i][0], data.View(CONTROL, early)
            m.d.comb += [
                edge.act_i.eq(delay(m, self.acts[i], i, f"act_row{i}")),
                edge.control_i.first.eq(control.first),
                edge.control_i.horner.eq(control.horner),
                edge.control_i.fresh.eq(control.first | control.horner),
                edge.control_i.plain.eq(~control.horner),
                edge.control_i.capture.eq(control.capture),
                edge.control_i.select.eq(select[i]),
            ]
            early = delay(m, early, 1, f"control_row{i}")
            for left, right in pairwise(pe[i]):
                m.d.comb += right.act_i.eq(left.act_o), right.control_i.eq(left.control_o)

        # Column heads: skewed weight rows, decoded once; sums leave at the other end.
        tail = Signal(self.bits)
        m.d.sync += tail.eq(Cat(self.tail > k for k in range(self.bits)))
        for c in range(C):
            m.submodules[f"decoder_c{c}"] = decoder = WeightDecoder(
                words=array.words, precisions=array.precisions)
            m.submodules[f"drain_c{c}"] = drain = Drain(R, self.hardware.acc_bits)
            control = data.View(WEIGHT_CONTROL, delay(m, self.weight_control, c, f"weight_c{c}"))
            m.d.comb += [
                decoder.mode.eq(head_mode),
                decoder.row.eq(delay(m, self.rows[c], c, f"row_c{c}")),
                decoder.valid_operands.eq(Mux(control.word_last, tail, ~0)),
                decoder.top.eq(control.top),
                self.sums[c].eq(delay(m, drain.sum, C - 1 - c, f"sum_c{c}")),
            ]
            weight = Signal.like(decoder.weight.as_value(), name=f"weight_{c}", reset_less=True)
            m.d.sync += weight.eq(decoder.weight)
            m.d.comb += pe[0][c].weight_i.eq(weight)
            m.d.comb += [part.eq(row[c].sum) for part, row in zip(drain.parts, pe, strict=True)]
            for above, below in pairwise(pe):
                m.d.comb += below[c].weight_i.eq(above[c].weight_o)
        m.d.comb += self.start.eq(delay(m, first_row.capture, DRAIN_CYCLES + C - 1, "start"))
        return m

    @staticmethod
    def _select(m: Module, capture, rows: int, units: int):
        """One bit per row, from the cycle after `capture` on: each row in turn for `units` cycles.

        A row has its sum before its turn, and keeps it longer than that.
        """
        select, left = Signal(rows), Signal(range(units))
        with m.If(capture):
            m.d.sync += select.eq(1), left.eq(units - 1)
        with m.Elif(left == 0):
            m.d.sync += select.eq(select << 1), left.eq(units - 1)
        with m.Else():
            m.d.sync += left.eq(left - 1)
        return select
