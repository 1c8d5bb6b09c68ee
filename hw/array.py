"""Output-stationary systolic array: rows are pixels, columns are output channels."""

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import DECODER_CYCLES, Hardware
from hw.decoder import WeightDecoder
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

    Row i of the array works on pixel R - 1 - i, so that pixel 0 is next to the drain.

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
        return ProcessingElement.LATENCY + array.rows + array.columns - 1

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
        controls = []
        for i in range(R):
            controls.append(data.View(CONTROL, early))
            early = delay(m, early, 1, f"control_row{i}")
        last = controls[-1].capture  # of the last row; its sum is on the drain a cycle later
        start = delay(m, last, 1, "drain_start")
        pulse = self._drain_pulses(m, last, R, K)
        for i in range(R):
            edge, hold, shift = pe[i][0], Signal(name=f"hold_row{i}"), Signal(name=f"shift_row{i}")
            # A row that has captured its sum keeps it until the whole column has.
            with m.If(controls[i].capture):
                m.d.sync += hold.eq(1)
            with m.Elif(start):
                m.d.sync += hold.eq(0)
            held = controls[i].capture | (hold & ~start)  # in the next cycle
            m.d.sync += shift.eq(pulse & (last | ~held))
            m.d.comb += [
                edge.act_i.eq(delay(m, self.acts[R - 1 - i], i, f"act_row{i}")),
                edge.control_i.first.eq(controls[i].first),
                edge.control_i.capture.eq(controls[i].capture),
                edge.control_i.shift.eq(shift),
            ]
            if horner:
                m.d.comb += edge.control_i.horner.eq(controls[i].horner)
            for left, right in pairwise(pe[i]):
                m.d.comb += right.act_i.eq(left.act_o), right.control_i.eq(left.control_o)

        # Column heads: skewed weight rows, decoded once; sums leave at the other end.
        tail = Signal(self.bits)
        m.d.sync += tail.eq(Cat(self.tail > k for k in range(self.bits)))
        for c in range(C):
            m.submodules[f"decoder_c{c}"] = decoder = WeightDecoder(
                words=array.words, precisions=array.precisions)
            control = data.View(WEIGHT_CONTROL, delay(m, self.weight_control, c, f"weight_c{c}"))
            m.d.comb += [
                decoder.mode.eq(head_mode),
                decoder.row.eq(delay(m, self.rows[c], c, f"row_c{c}")),
                decoder.valid_operands.eq(Mux(control.word_last, tail, ~0)),
                decoder.top.eq(control.top),
                self.sums[c].eq(delay(m, pe[-1][c].drain_o, C - 1 - c, f"sum_c{c}")),
            ]
            weight = Signal.like(decoder.weight.as_value(), name=f"weight_{c}", reset_less=True)
            m.d.sync += weight.eq(decoder.weight)
            m.d.comb += pe[0][c].weight_i.eq(weight)
            for above, below in pairwise(pe):
                m.d.comb += [below[c].weight_i.eq(above[c].weight_o),
                             below[c].drain_i.eq(above[c].drain_o)]
        m.d.comb += self.start.eq(delay(m, start, C - 1, "start"))
        return m

    @staticmethod
    def _drain_pulses(m: Module, start, rows: int, units: int):
        """High a cycle before each shift, of which there is one per pixel, in the last of its
        `units` cycles, the first of which follows `start`."""
        left = Signal(range(rows * units + 1))
        phase = Signal(range(units))
        active = start | (left != 0)
        now = Mux(start, 0, phase)
        with m.If(start):
            m.d.sync += left.eq(rows * units - 1)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.If(active):
            m.d.sync += phase.eq(Mux(now == units - 1, 0, now + 1))
        return active & (now == units - 1)
