"""Output-stationary systolic array: rows are pixels, columns are output channels."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import CLUSTER, DECODER_CYCLES, DRAIN_CYCLES, Hardware
from hw.decoder import WeightDecoder
from hw.drain import Drain
from hw.pe import CONTROL as ELEMENT_CONTROL
from hw.pe import ProcessingElement
from hw.pipeline import carry, delay
from hw.verilog import shared

CONTROL = data.StructLayout({"first": 1, "horner": 1, "capture": 1})
WEIGHT_CONTROL = data.StructLayout({"word_last": 1, "top": 1})


class SystolicArray(wiring.Component):
    """R x C processing elements with their skew registers; no flow control.

    Words of one step enter all columns in one cycle and, :attr:`AHEAD` cycles later, all rows, and
    are skewed inside, each cluster of rows and of columns a cycle behind the one before. `first`
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
        return ProcessingElement.LATENCY + DRAIN_CYCLES + (array.columns - 1) // CLUSTER

    def elaborate(self, platform):
        m = Module()
        array = self.hardware.array
        R, C, K = array.rows, array.columns, array.units
        horner = self.hardware.digits > 1

        m.submodules.pe = grid = Module()
        pe = [[ProcessingElement(words=array.words, precisions=array.precisions,
                                 acc_bits=self.hardware.acc_bits, horner=horner)
               for _ in range(C)] for _ in range(R)]
        for i in range(R):
            for c in range(C):
                grid.submodules[f"r{i}_c{c}"] = shared(pe[i][c], platform, "pe")

        # Rows: activations and control, skewed; a register before each further cluster.
        early = delay(m, self.control, ProcessingElement.LATENCY, "control_pe")
        first_row = data.View(CONTROL, early)
        select = self._select(m, first_row.capture, R, K)
        modes = [carry(m, self.mode, 1, "mode")] * -(-C // CLUSTER)  # by cluster of columns
        head_mode = modes[0]
        for i in range(R):
            if i and i % CLUSTER == 0:
                early = self._apart(m, early, i, f"control_row{i}")
                modes[0] = self._apart(m, modes[0], i, f"mode_row{i}_c0")
            if i % CLUSTER == 0:
                for k in range(1, len(modes)):
                    modes[k] = self._apart(m, modes[k - 1], i, f"mode_row{i}_c{CLUSTER * k}")
            control = data.View(CONTROL, early)
            now = Signal(ELEMENT_CONTROL, name=f"element_control_row{i}")
            m.d.comb += [
                now.first.eq(control.first), now.capture.eq(control.capture),
                now.hide.eq(~select[i]),
                now.horner.eq(carry(m, control.horner, 1, f"horner_row{i}") if horner else 0),
            ]
            act = Signal(self.bits, name=f"act_row{i}")  # a name for the Verilog
            grid.d.comb += act.eq(carry(m, self.acts[i], i // CLUSTER, f"act_row{i}"))
            for c, element in enumerate(pe[i]):
                if c and c % CLUSTER == 0:
                    act = carry(m, act, 1, f"act_row{i}_c{c}")
                    now = data.View(ELEMENT_CONTROL,
                                    self._apart(m, now, i, f"control_row{i}_c{c}"))
                m.d.comb += [element.act.eq(act), element.control.eq(now),
                             element.mode.eq(modes[c // CLUSTER])]

        # Columns: skewed weight rows, decoded once; sums leave at the other end.
        tail = Signal(self.bits, reset_less=True)
        m.d.sync += tail.eq(Cat(self.tail > k for k in range(self.bits)))
        for c in range(C):
            m.submodules[f"decoder_c{c}"] = decoder = WeightDecoder(
                words=array.words, precisions=array.precisions)
            m.submodules[f"drain_c{c}"] = drain = Drain(R, self.hardware.acc_bits)
            skew, last = c // CLUSTER, (C - 1) // CLUSTER
            control = data.View(WEIGHT_CONTROL, carry(m, self.weight_control, skew, f"weight_c{c}"))
            m.d.comb += [
                decoder.mode.eq(head_mode),
                decoder.row.eq(carry(m, self.rows[c], skew, f"row_c{c}")),
                decoder.valid_operands.eq(Mux(control.word_last, tail, ~0)),
                decoder.top.eq(control.top),
                self.sums[c].eq(carry(m, drain.sum, last - skew, f"sum_c{c}")),
            ]
            weight = decoder.weight
            for i in range(R):
                if i % CLUSTER == 0:
                    weight = carry(m, weight, 1, f"weight_c{c}_row{i}")
                m.d.comb += [pe[i][c].weight.eq(weight), drain.parts[i].eq(pe[i][c].sum)]
        m.d.comb += self.start.eq(delay(m, first_row.capture, DRAIN_CYCLES + last, "start"))
        return m

    @staticmethod
    def _apart(m: Module, before, row: int, name: str):
        """The same a cycle later. Clusters that are as far from the first hold the same at all
        times; other values at the start keep Yosys from making one register of theirs."""
        bits = Value.cast(before)
        later = Signal(len(bits), name=name, reset_less=True,
                       init=-(row // CLUSTER % 2) % 2**len(bits))
        m.d.sync += later.eq(bits)
        return later

    @staticmethod
    def _select(m: Module, capture, rows: int, units: int):
        """One bit per row, from the cycle after `capture` on: each row in turn for `units` cycles.

        A row has its sum before its turn, and keeps it longer than that.
        """
        select = Signal(rows)
        left = Signal(range(units))
        with m.If(capture):
            m.d.sync += select.eq(1), left.eq(units - 1)
        with m.Elif(left == 0):
            m.d.sync += select.eq(select << 1), left.eq(units - 1)
        with m.Else():
            m.d.sync += left.eq(left - 1)
        return select
