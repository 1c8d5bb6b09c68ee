"""Turns steps into words for the rows: addresses, rotation, borders."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import FEEDER_CYCLES, Hardware
from hw.array import CONTROL
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

    LATENCY = FEEDER_CYCLES

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        rows, bits = hardware.array.rows, 6 * hardware.array.words
        super().__init__({
            "layer": In(layer_layout(hardware)),
            "step": In(step_layout(hardware)),
            "address": Out(data.ArrayLayout(range(hardware.activation_words), rows)),
            "data": In(data.ArrayLayout(bits, rows)),
            "acts": Out(data.ArrayLayout(bits, rows)),
            "control": Out(CONTROL),
        })

    def elaborate(self, platform):
        m = Module()
        layer, step, rows = self.layer, self.step, self.hardware.array.rows

        # Pixel n0 + dy * W + dx, as a slot (its quotient by R) and a rotation (its remainder).
        up, down = step.dy == -1, step.dy == 1
        slot, rot = Signal.like(layer.in_base), Signal(range(rows))
        m.d.sync += [
            slot.eq(layer.in_base + step.word + step.slot
                    + Mux(down, layer.down_slots, 0) - Mux(up, layer.up_slots, 0)),
            rot.eq(Mux(down, layer.down_rot, Mux(up, layer.up_rot, 0))),
        ]
        dx = delay(m, step.dx, 1, "dx").as_signed()
        slot_dx, next_slot, rot_dx = Signal.like(slot), Signal.like(slot), Signal.like(rot)
        m.d.sync += [slot_dx.eq(slot), next_slot.eq(slot + 1), rot_dx.eq(rot + dx)]
        with m.If((dx == -1) & (rot == 0)):
            m.d.sync += [slot_dx.eq(slot - 1), next_slot.eq(slot), rot_dx.eq(rows - 1)]
        with m.Elif((dx == 1) & (rot == rows - 1)):
            m.d.sync += [slot_dx.eq(slot + 1), next_slot.eq(slot + 2), rot_dx.eq(0)]
        # Banks before the first pixel's hold it one slot further on.
        for bank in range(rows):
            m.d.sync += self.address[bank].eq(Mux(bank < rot_dx, next_slot, slot_dx))

        rotated = self._rotate(m, delay(m, rot_dx, 2 + ActivationMemory.LATENCY, "rot"))
        self._mask(m, rotated)

        m.d.comb += [
            self.control.first.eq(delay(m, step.first, self.LATENCY, "first")),
            self.control.horner.eq(delay(m, step.horner, self.LATENCY, "horner")),
            self.control.capture.eq(delay(m, step.last, self.LATENCY + 1, "capture")),
        ]
        return m

    def _rotate(self, m: Module, rot):
        """Pixel r of the tile comes from bank (rot + r) mod R; three registers behind.

        The first is on the way from the banks, which lie far apart.
        """
        rows, half = self.hardware.array.rows, (len(rot) + 1) // 2
        words = [delay(m, self.data[bank], 1, f"bank{bank}") for bank in range(rows)]
        for first, bits in ((0, rot[:half]), (half, delay(m, rot[half:], 1, "rot_high"))):
            for bit, turns in enumerate(bits, first):
                turn = 1 << bit
                words = [Mux(turns, words[(r + turn) % rows], words[r]) for r in range(rows)]
            turned = [Signal(6 * self.hardware.array.words, name=f"turned{first}_{r}")
                      for r in range(rows)]
            m.d.sync += [word.eq(value) for word, value in zip(turned, words, strict=True)]
            words = turned
        return words

    def _mask(self, m: Module, rotated):
        """Border rows and, at two bits, the order of the halves; one register behind."""
        array, layer = self.hardware.array, self.layer
        rows, half, precision = array.rows, array.words, array.digit_bits
        stages = self.LATENCY - 1
        inside = delay(m, self.step.mask, stages, "inside")
        # The pad pixel's current digit, most significant first; each of its bits is the value of
        # that bit of all operands.
        last = self.hardware.digits - 1
        digit = Signal(precision)
        with m.Switch(self.step.digit):
            for k in range(last + 1):
                with m.Case(k):
                    m.d.comb += digit.eq(layer.pad >> precision * (last - k))
        digit = delay(m, digit, stages, "pad_digit")
        planes = {3: (0, 0, 1, 1, 2, 2), 2: (0, 0, 1, 1, 0, 1), 1: (0,) * 6}[precision]
        pad_word = Cat(digit[plane].replicate(half) for plane in planes)
        swap = delay(m, layer.mode == 2, 1, "swap")  # memory order to PE order, see export.words
        # Where all weights are binary, lanes behind a tap's last operand are zero: see hw.decoder.
        valid = Signal(len(pad_word), init=-1)
        if array.precisions == (1,):
            last_word = delay(m, self.step.word_last, stages - 1, "word_last")
            m.d.sync += valid.eq(Mux(last_word, Cat(layer.tail > k for k in range(len(valid))), -1))
        for r in range(rows):
            word = rotated[r]
            h = [word[k * half:(k + 1) * half] for k in range(6)]
            ordered = word
            if 2 in array.precisions:
                ordered = Cat(h[0], Mux(swap, h[2], h[1]), Mux(swap, h[1], h[2]), *h[3:])
            m.d.sync += self.acts[r].eq(Mux(inside[rows - 1 - r], ordered, pad_word) & valid)
