"""Turns steps into words for the rows: addresses, rotation, borders."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import FEEDER_CYCLES, Hardware
from hw.array import CONTROL
from hw.descriptor import layer_layout
from hw.memory import ActivationMemory
from hw.pipeline import carry, delay
from hw.sequencer import step_layout


def _turn(items, turns, by: int) -> list:
    """Item (k + n) mod R at place k, where n is `turns` times `by`."""
    items = list(items)
    for turn in turns:
        items = [Mux(turn, items[(k + by) % len(items)], item) for k, item in enumerate(items)]
        by *= 2
    return items


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
        slot = Signal.like(layer.in_base, reset_less=True)
        rot = Signal(range(rows), reset_less=True)
        m.d.sync += [
            slot.eq((step.base if self.hardware.clocks else layer.in_base) + step.word + step.slot
                    + Mux(down, layer.down_slots, 0) - Mux(up, layer.up_slots, 0)),
            rot.eq(Mux(down, layer.down_rot, Mux(up, layer.up_rot, 0))),
        ]
        dx = carry(m, step.dx, 1, "dx").as_signed()
        slot_dx = Signal.like(slot)
        next_slot = Signal.like(slot)
        rot_dx = Signal.like(rot)
        m.d.sync += [slot_dx.eq(slot), next_slot.eq(slot + 1), rot_dx.eq(rot + dx)]
        with m.If((dx == -1) & (rot == 0)):
            m.d.sync += [slot_dx.eq(slot - 1), next_slot.eq(slot), rot_dx.eq(rows - 1)]
        with m.Elif((dx == 1) & (rot == rows - 1)):
            m.d.sync += [slot_dx.eq(slot + 1), next_slot.eq(slot + 2), rot_dx.eq(0)]
        # Banks before the first pixel's hold it one slot further on.
        for bank in range(rows):
            address = Signal.like(slot, name=f"address_{bank}")
            m.d.sync += address.eq(Mux(bank < rot_dx, next_slot, slot_dx))
            m.d.comb += self.address[bank].eq(address)

        banks = self._banks(m, rot_dx)
        rotated = self._rotate(m, banks, carry(m, rot_dx, 2 + ActivationMemory.LATENCY, "rot"))
        self._pad(m, rotated)

        m.d.comb += [
            self.control.first.eq(delay(m, step.first, self.LATENCY, "first")),
            self.control.horner.eq(delay(m, step.horner, self.LATENCY, "horner")),
            self.control.capture.eq(delay(m, step.last, self.LATENCY + 1, "capture")),
        ]
        return m

    def _banks(self, m: Module, rot):
        """The banks' words, zero if the tap lies outside the image, at two bits in PE order.

        One register behind, on the way from the banks, which lie far apart. Its reset masks a word
        without a LUT; the rows' flags, a bit each, are rotated to their banks before.
        """
        array, layer, half = self.hardware.array, self.layer, self.hardware.array.words
        cut = (len(rot) + 1) // 2
        outside = _turn(carry(m, ~self.step.mask[::-1], 2, "outside"), rot[:cut], -1)
        outside = _turn(carry(m, Cat(outside), 1, "outside_turned"),
                        carry(m, rot[cut:], 1, "rot_outside"), -1 << cut)
        void = carry(m, Cat(outside), ActivationMemory.LATENCY, "void")
        swap = carry(m, layer.mode == 2, 1, "swap")  # memory order to PE order: export.words
        banks = [Signal(6 * half, name=f"bank_{bank}", reset_less=True)
                 for bank in range(array.rows)]
        for bank, word in enumerate(banks):
            ordered = self.data[bank]
            if 2 in array.precisions:
                h = [ordered[k * half:(k + 1) * half] for k in range(6)]
                ordered = Cat(h[0], Mux(swap, h[2], h[1]), Mux(swap, h[1], h[2]), *h[3:])
            m.d.sync += word.eq(ordered)
            with m.If(void[bank]):
                m.d.sync += word.eq(0)
        return banks

    def _rotate(self, m: Module, words, rot):
        """Pixel r of the tile comes from bank (rot + r) mod R; one register behind."""
        cut = (len(rot) + 1) // 2
        words = _turn(words, rot[:cut], 1)
        words = [carry(m, word, 1, f"turned_{r}") for r, word in enumerate(words)]
        return _turn(words, carry(m, rot[cut:], 1, "rot_high"), 1 << cut)

    def _pad(self, m: Module, rotated):
        """The pad pixel's digit where the tap lies outside; two registers behind."""
        array, layer = self.hardware.array, self.layer
        rows, half, precision = array.rows, array.words, array.digit_bits
        stages = self.LATENCY - 3
        outside = carry(m, ~self.step.mask, stages, "outside")
        # The pad pixel's current digit, most significant first; each of its bits is the value of
        # that bit of all operands.
        last = self.hardware.digits - 1
        digit = Signal(precision)
        with m.Switch(self.step.digit):
            for k in range(last + 1):
                with m.Case(k):
                    m.d.comb += digit.eq(layer.pad >> precision * (last - k))
        digit = carry(m, digit, stages, "pad_digit")
        planes = {3: (0, 0, 1, 1, 2, 2), 2: (0, 0, 1, 1, 0, 1), 1: (0,) * 6}[precision]
        # Where all weights are binary, lanes behind a tap's last operand are zero: see hw.decoder.
        void = Signal(6 * half, reset_less=True)
        if array.precisions == (1,):
            last_word = carry(m, self.step.word_last, stages, "word_last")
            m.d.sync += void.eq(Mux(last_word, Cat(layer.tail <= k for k in range(6 * half)), 0))
        for r, word in enumerate(rotated):
            pads = Signal(precision, name=f"pads_{r}", reset_less=True)
            m.d.sync += pads.eq(Mux(outside[rows - 1 - r], digit, 0))
            act = Signal(6 * half, name=f"act_{r}", reset_less=True)
            m.d.sync += act.eq(word | Cat(pads[plane].replicate(half) for plane in planes))
            for k in range(6 * half):
                with m.If(void[k]):
                    m.d.sync += act[k].eq(0)
            m.d.comb += self.acts[r].eq(carry(m, act, 1, f"relay_{r}"))  # the array is far
