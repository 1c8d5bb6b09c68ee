"""Turns steps into words: addresses, rotation, borders for the rows; ROM rows for the columns."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from export.program import Program
from hw.array import CONTROL, WEIGHT_CONTROL
from hw.descriptor import layer_layout
from hw.memory import ActivationMemory
from hw.pipeline import delay
from hw.sequencer import step_layout


class Feeder(wiring.Component):
    """Reads the R pixels of a tile at one kernel tap and one input word, per cycle.

    Consecutive pixels lie in consecutive banks, so one rotation serves any image width; a row whose
    tap lies outside the image gets code 0, or the digit of the pad pixel in the first layer. Words
    leave :attr:`LATENCY` cycles after their step.

    Members
    -------
    layer : In(layer_layout)        static while steps are in flight
    step : In(step_layout)
    address, data                   to and from the activation memory
    acts : Out(ArrayLayout(6 * words, R))     in PE order, pixel r of the tile at index r
    control : Out(CONTROL)          `capture` a cycle after the tile's last step
    """

    LATENCY = 5 + ActivationMemory.LATENCY

    def __init__(self, program: Program):
        self.program = program
        rows = program.array.rows
        super().__init__({
            "layer": In(layer_layout(program)),
            "step": In(step_layout(program)),
            "address": Out(data.ArrayLayout(range(program.depth), rows)),
            "data": In(data.ArrayLayout(6 * program.array.words, rows)),
            "acts": Out(data.ArrayLayout(6 * program.array.words, rows)),
            "control": Out(CONTROL),
        })

    def elaborate(self, platform):
        m = Module()
        layer, step, rows = self.layer, self.step, self.program.array.rows

        # Pixel n0 + dy * W + dx, as a slot (its quotient by R) and a rotation (its remainder).
        up, down = step.dy == -1, step.dy == 1
        slot, rot = Signal.like(layer.in_base), Signal(range(rows))
        m.d.sync += [
            slot.eq(layer.in_base + step.word + step.slot
                    + Mux(down, layer.down_slots, 0) - Mux(up, layer.up_slots, 0)),
            rot.eq(Mux(down, layer.down_rot, Mux(up, layer.up_rot, 0))),
        ]
        dx = delay(m, step.dx, 1, "dx").as_signed()
        slot_dx, rot_dx = Signal.like(slot), Signal.like(rot)
        m.d.sync += [slot_dx.eq(slot), rot_dx.eq(rot + dx)]
        with m.If((dx == -1) & (rot == 0)):
            m.d.sync += [slot_dx.eq(slot - 1), rot_dx.eq(rows - 1)]
        with m.Elif((dx == 1) & (rot == rows - 1)):
            m.d.sync += [slot_dx.eq(slot + 1), rot_dx.eq(0)]
        # Banks before the first pixel's hold it one slot further on.
        next_slot = slot_dx + 1
        for bank in range(rows):
            m.d.sync += self.address[bank].eq(Mux(bank < rot_dx, next_slot, slot_dx))

        rotated = self._rotate(m, delay(m, rot_dx, 1 + ActivationMemory.LATENCY, "rot"))
        self._mask(m, rotated)

        m.d.comb += [
            self.control.first.eq(delay(m, step.first, self.LATENCY, "first")),
            self.control.horner.eq(delay(m, step.horner, self.LATENCY, "horner")),
            self.control.capture.eq(delay(m, step.last, self.LATENCY + 1, "capture")),
        ]
        return m

    def _rotate(self, m: Module, rot):
        """Pixel r of the tile comes from bank (rot + r) mod R; one register behind."""
        rows = self.program.array.rows
        words = [self.data[bank] for bank in range(rows)]
        for bit in range(len(rot)):
            turn = 1 << bit
            words = [Mux(rot[bit], words[(r + turn) % rows], words[r]) for r in range(rows)]
        rotated = [Signal(6 * self.program.array.words, name=f"rotated_{r}") for r in range(rows)]
        m.d.sync += [word.eq(value) for word, value in zip(rotated, words, strict=True)]
        return rotated

    def _mask(self, m: Module, rotated):
        """Border rows and, at two bits, the order of the halves; one register behind."""
        program, layer, rows = self.program, self.layer, self.program.array.rows
        half, precision = program.array.words, program.digit_bits
        stages = self.LATENCY - 1
        inside = delay(m, self.step.mask, stages, "inside")
        # The pad pixel's current digit, most significant first; each of its bits is the value of
        # that bit of all operands.
        last = program.layers[0].digits - 1
        digit = Signal(precision)
        with m.Switch(self.step.digit):
            for k in range(last + 1):
                with m.Case(k):
                    m.d.comb += digit.eq(layer.pad >> precision * (last - k))
        digit = delay(m, digit, stages, "pad_digit")
        planes = {3: (0, 0, 1, 1, 2, 2), 2: (0, 0, 1, 1, 0, 1), 1: (0,) * 6}[precision]
        pad_word = Cat(digit[plane].replicate(half) for plane in planes)
        swap = layer.mode == 2  # memory order to PE order, see export.words
        for r in range(rows):
            word = rotated[r]
            h = [word[k * half:(k + 1) * half] for k in range(6)]
            ordered = word
            if 2 in program.array.precisions:
                ordered = Cat(h[0], Mux(swap, h[2], h[1]), Mux(swap, h[1], h[2]), *h[3:])
            m.d.sync += self.acts[r].eq(Mux(inside[rows - 1 - r], ordered, pad_word))


class WeightFeeder(wiring.Component):
    """Reads the weight memory in step with the feeder: a word per column and step.

    The rows of a channel tile are read again for every digit and every pixel tile; the tiles of
    all layers lie one behind the other.

    Members
    -------
    restart : In(1)     back to the first row, between frames
    layer : In(layer_layout)
    step : In(step_layout)
    rows : Out(ArrayLayout(6 * words, C))       `latency` cycles after their step
    control : Out(WEIGHT_CONTROL)
    """

    ROM_LATENCY = 2

    def __init__(self, program: Program, rom: list[int]):
        self.program, self.rom = program, rom
        super().__init__({
            "restart": In(1),
            "layer": In(layer_layout(program)),
            "step": In(step_layout(program)),
            "rows": Out(data.ArrayLayout(6 * program.array.words, program.array.columns)),
            "control": Out(WEIGHT_CONTROL),
        })

    def elaborate(self, platform):
        m = Module()
        program, layer = self.program, self.layer
        late = data.View(step_layout(program), delay(
            m, self.step, Feeder.LATENCY - self.ROM_LATENCY, "step"))
        m.submodules.weights = rom = Memory(
            shape=6 * program.array.words * program.array.columns, depth=len(self.rom),
            init=self.rom)
        port = rom.read_port()

        row, base = Signal(range(len(self.rom))), Signal(range(len(self.rom)))
        select = Signal(2)  # which of a row's steps
        # Weights of one bit leave room for several steps in a row.
        row_done = ~layer.binary | (select == layer.mode - 1) | late.pass_last
        with m.If(self.restart):
            m.d.sync += [row.eq(0), base.eq(0), select.eq(0)]
        with m.Elif(late.valid):
            m.d.sync += select.eq(Mux(row_done, 0, select + 1))
            with m.If(late.tile_done):
                m.d.sync += [row.eq(row + 1), base.eq(row + 1)]
            with m.Elif(late.pass_last):
                m.d.sync += row.eq(base)
            with m.Elif(row_done):
                m.d.sync += row.eq(row + 1)
        m.d.comb += port.addr.eq(row)
        m.d.sync += self.rows.eq(port.data)

        control = Signal(WEIGHT_CONTROL)
        m.d.comb += [control.select.eq(select), control.word_last.eq(late.word_last)]
        if program.digit_bits == 3:  # 2 + 3 + 3 bits: the first digit is short
            m.d.comb += control.top.eq((layer.last_digit != 0) & (late.digit == 0))
        m.d.comb += self.control.eq(delay(m, control, self.ROM_LATENCY, "weight_control"))
        return m
