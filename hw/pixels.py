"""Takes a frame of eight-bit pixels and stores it as digits, ready for the first layer."""

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import Hardware
from export.words import operands
from hw.memory import LANES, write_layout


class PixelInput(wiring.Component):
    """Writes each pixel's digits, most significant first, into the pixels' own memory region.

    A word of pixel x holds `taps_per_word` neighbours in a row; what lies outside the image is the
    pad pixel. A pixel takes one cycle more than its words, further cycles while `write` is not
    `granted`. When a frame is complete, none is accepted until `read` says that the first layer
    is through with it.

    Members
    -------
    pixels : In(stream.Signature(8 * channels))     raster order, channel 0 lowest
    write : Out(write_layout), granted : In(1)      the write is done in a cycle with `granted`
    ready : Out(1)      a whole frame is in the memory
    read : In(1)        ... and is not needed any more
    """

    pixels: stream.Interface

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        super().__init__({
            "pixels": In(stream.Signature(8 * hardware.pixels.channels)),
            "write": Out(write_layout(hardware)),
            "granted": In(1),
            "ready": Out(1),
            "read": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        frame, array = self.hardware.pixels, self.hardware.array
        rows, taps = array.rows, frame.taps_per_word
        pixel_bits = 8 * frame.channels

        # The last `taps` pixels of the row, newest last; a row ends with one outside of it.
        blank = Const(int.from_bytes(bytes([frame.pad]) * frame.channels, "little"), pixel_bits)
        window = [Signal(pixel_bits, name=f"window_{k}") for k in range(taps)]
        extra = taps > 1
        x, y = Signal(range(frame.width + 2)), Signal(range(frame.height))
        word = Signal(range(frame.digits * frame.digit_words))
        address = Signal(range(self.hardware.activation_words))
        slot, bank = Signal(range(frame.slots)), Signal(range(rows))

        outside = extra & (x == frame.width)
        words = Array(self._words(window))
        m.d.comb += [
            self.write.bank.eq(bank),
            self.write.address.eq(address),
            self.write.enable.eq(~0),
        ]
        for lane in range(LANES):
            m.d.comb += self.write.data[lane].eq(words[word].word_select(
                lane, 2 * array.words))

        def shift(pixel):
            return [old.eq(new) for old, new in zip(window, [*window[1:], pixel], strict=True)]

        with m.FSM():
            with m.State("TAKE"):
                m.d.comb += self.pixels.ready.eq(~outside)
                with m.If(self.pixels.valid | outside):
                    m.d.sync += [shift(Mux(outside, blank, self.pixels.payload)), x.eq(x + 1)]
                    if extra:
                        with m.If(x == 0):
                            m.d.sync += [old.eq(blank) for old in window[:-1]]
                        with m.Else():
                            m.next = "WRITE"
                    else:
                        m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += self.write.valid.eq(1)
                with m.If(self.granted):
                    m.d.sync += [word.eq(word + 1), address.eq(address + frame.slots)]
                    with m.If(word == frame.digits * frame.digit_words - 1):
                        m.next = "TAKE"
                        m.d.sync += [word.eq(0), bank.eq(bank + 1), address.eq(slot)]
                        with m.If(bank == rows - 1):
                            m.d.sync += [bank.eq(0), slot.eq(slot + 1), address.eq(slot + 1)]
                        with m.If(x == frame.width + extra):
                            m.d.sync += [x.eq(0), y.eq(y + 1)]
                            with m.If(y == frame.height - 1):
                                m.d.sync += [y.eq(0), bank.eq(0), slot.eq(0), address.eq(0)]
                                m.next = "FULL"
            with m.State("FULL"):
                m.d.comb += self.ready.eq(1)
                with m.If(self.read):
                    m.next = "TAKE"
        return m

    def _words(self, window) -> list:
        """The word groups of a pixel, digit after digit, in memory order."""
        frame, half = self.hardware.pixels, self.hardware.array.words
        precision = self.hardware.array.digit_bits
        ops = operands(precision, half)
        channels = [pixel.word_select(c, 8) for pixel in window
                    for c in range(frame.channels)]
        channels += [Const(0, 8)] * (frame.digit_words * ops - len(channels))
        words = []
        for digit in reversed(range(frame.digits)):
            for k in range(frame.digit_words):
                values = [(channel >> precision * digit)[:precision]
                          for channel in channels[k * ops:(k + 1) * ops]]
                plane = [Cat(value[b:b + 1] for value in values) for b in range(precision)]
                if precision == 2:  # each lane holds low and high bits of its operands
                    plane = [plane[b][lane * half:(lane + 1) * half]
                             for lane in range(LANES) for b in range(2)]
                words.append(Cat(plane))
        return words
