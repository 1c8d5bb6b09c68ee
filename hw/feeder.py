"""Turns steps into words: addresses, rotation, borders for the rows; ROM rows for the columns."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from export.program import Program
from hw.array import CONTROL, WEIGHT_CONTROL
from hw.automaton import Automaton
from hw.descriptor import layer_layout
from hw.memory import ActivationMemory
from hw.pipeline import delay
from hw.sequencer import step_layout
from hw.tools import shared
from hw.unpacker import WeightUnpacker


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

    The words of a channel tile are read again for every digit and every pixel tile; the tiles of
    all layers lie one behind the other. Each segment of the words has a memory and a counter of
    its own, which rest while a layer's words do not reach that far.

    Members
    -------
    restart : In(1)     back to the first word, between frames
    fetch : In(1)       a layer starts in the next cycle
    layer : In(layer_layout)
    step : In(step_layout)
    rows : Out(ArrayLayout(6 * words, C))       as the array takes them
    control : Out(WEIGHT_CONTROL)
    """

    LATENCY = 3  # memory, its output register, unpacking

    def __init__(self, program: Program, roms: list[list[int]], seeds: list[int]):
        self.program, self.roms, self.seeds = program, roms, seeds
        super().__init__({
            "restart": In(1),
            "fetch": In(1),
            "layer": In(layer_layout(program)),
            "step": In(step_layout(program)),
            "rows": Out(data.ArrayLayout(6 * program.array.words, program.array.columns)),
            "control": Out(WEIGHT_CONTROL),
        })

    def elaborate(self, platform):
        m = Module()
        program, layer, array = self.program, self.layer, self.program.array
        late = data.View(step_layout(program), delay(
            m, self.step, Feeder.LATENCY - self.LATENCY, "step"))
        segments = [self._segment(m, late, k) for k in range(len(self.roms))]

        tail = Signal(6 * array.words)
        m.d.sync += tail.eq(Cat(layer.tail > k for k in range(6 * array.words)))
        word_last = delay(m, late.word_last, 2, "stored_last")
        formats = tuple(sorted({(each.mode, each.weight_bits) for each in program.layers
                                if each.generator is None}))
        generated = self._automata(m, late)
        for c in range(array.columns):
            unpacker = WeightUnpacker(words=array.words, formats=formats, dense=array.dense)
            m.submodules[f"unpacker_c{c}"] = shared(unpacker, platform, "unpacker")
            m.d.comb += [
                unpacker.stored.eq(Cat(segment[c] for segment in segments)),
                unpacker.mode.eq(layer.mode),
                unpacker.weight_bits.eq(layer.weight_bits),
                unpacker.valid.eq(Mux(word_last, tail, ~0)),
            ]
            row = unpacker.row
            for number, rows in generated.items():
                row = Mux(layer.generator == number, rows[c], row)
            m.d.sync += self.rows[c].eq(row)

        control = Signal(WEIGHT_CONTROL)
        m.d.comb += control.word_last.eq(late.word_last)
        if program.digit_bits == 3:  # 2 + 3 + 3 bits: the first digit is short
            m.d.comb += control.top.eq((layer.last_digit != 0) & (late.digit == 0))
        m.d.comb += self.control.eq(delay(m, control, self.LATENCY, "weight_control"))
        return m

    def _automata(self, m: Module, late) -> dict[int, list]:
        """Each column's row of the layers with generated weights, two cycles behind `late`."""
        program, rows = self.program, {}
        now = data.View(late.shape(), delay(m, late, 2, "generated_step"))
        valid = Mux(now.word_last, Cat(self.layer.tail > k for k in range(
            6 * program.array.words)), ~0)
        fetched = Signal()
        m.d.sync += fetched.eq(self.fetch)
        for number, (spec, seed) in enumerate(zip(program.generators, self.seeds, strict=True), 1):
            m.submodules[f"automaton{number}"] = automaton = Automaton(
                spec, words=program.array.words, seed=seed)
            m.d.comb += [
                automaton.load.eq(fetched),
                automaton.step.eq(now.valid & (self.layer.generator == number)),
                automaton.rewind.eq(now.pass_last & ~now.tile_done),
                automaton.advance.eq(now.tile_done),
                automaton.valid.eq(valid),
            ]
            rows[number] = [automaton.rows[c] for c in range(program.array.columns)]
        return rows

    def _segment(self, m: Module, late, k: int):
        """Segment `k` of every column's word, two cycles behind the step `late`."""
        rom, width = self.roms[k], self.program.weight_widths[k]
        m.submodules[f"weights{k}"] = memory = Memory(
            shape=width * self.program.array.columns, depth=len(rom), init=rom)
        port = memory.read_port()
        row = Signal(range(len(rom)), name=f"row{k}")
        base = Signal.like(row, name=f"base{k}")  # of the channel tile in work
        with m.If(self.restart):
            m.d.sync += [row.eq(0), base.eq(0)]
        with m.Elif(late.valid & (self.layer.segments > k)):
            with m.If(late.tile_done):
                m.d.sync += [row.eq(row + 1), base.eq(row + 1)]
            with m.Elif(late.pass_last):
                m.d.sync += row.eq(base)
            with m.Else():
                m.d.sync += row.eq(row + 1)
        words = Signal(data.ArrayLayout(width, self.program.array.columns), name=f"stored{k}")
        m.d.comb += port.addr.eq(row)
        m.d.sync += words.eq(port.data)
        return words
