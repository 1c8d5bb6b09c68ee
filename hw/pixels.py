"""Takes a frame of eight-bit pixels and stores it as digits, ready for the first layer."""

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import Hardware, PixelFormat
from export.words import operands
from hw.frame import position_bits
from hw.memory import LANES, write_layout
from hw.records import record_layout
from hw.rings import copy_offset


class PixelInput(wiring.Component):
    """Writes each pixel's digits, most significant first, into the pixels' own memory region.

    A word of pixel x holds `taps_per_word` neighbours in a row; what lies outside the image is the
    pad pixel. A pixel takes one cycle more than its words. Each cycle that is not `granted`, as a
    code unit is written then, costs one, wherever it falls. When a frame is complete, none is
    accepted until `read` says that the next one may come: the first layer is through with this one
    or, where there are two buffers, has begun. A pixel here is a position, of several pixels where
    these are folded.

    Members
    -------
    record : In(record_layout)      of the frame's program
    pixels : In(stream of position_bits)            raster order, channel 0 lowest
    write : Out(write_layout), granted : In(1)      the memory takes the write in this cycle
    ready : Out(1)      a whole frame is in the memory; where pixels fold, its last word may wait
    read : In(1)        ... and the next one may come
    drop : In(1)        forget what has come of a frame
    copy : In(2)        of the ring of pixels, if several frames are kept
    buffer : In(1)      which one the next frame goes to, of two
    """

    pixels: stream.Interface

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        super().__init__({
            "record": In(record_layout(hardware)),
            "pixels": In(stream.Signature(position_bits(hardware))),
            "write": Out(write_layout(hardware)),
            "granted": In(1),
            "ready": Out(1),
            "read": In(1),
            "drop": In(1),
            **({"copy": In(2)} if hardware.pixel_frames > 1 else {}),
            **({"buffer": In(1)} if hardware.pixel_buffers > 1 else {}),
        })

    def elaborate(self, platform):
        m = Module()
        hardware, record = self.hardware, self.record
        rows, formats = hardware.array.rows, sorted(hardware.pixels)
        taps = max(each.taps_per_word for each in formats)
        most = max(hardware.digits * each.digit_words for each in formats)

        # The last `taps` pixels of the row, newest last; a row ends with one outside of it.
        window = [Signal(position_bits(hardware), name=f"window_{k}", reset_less=True)
                  for k in range(taps)]
        x = Signal(range(hardware.frame_width + 2))
        y = Signal(range(hardware.frame_height))
        word = Signal(range(most))
        address = Signal(range(hardware.activation_words))
        slot = Signal(range(hardware.pixel_slots))
        bank = Signal(range(rows))
        blank = Signal(position_bits(hardware))
        extra = Signal()
        last_word = Signal.like(word)
        stored = Signal(3 * 2 * hardware.array.words)
        with m.Switch(record.format):
            for k, each in enumerate(formats):
                with m.Case(k):
                    m.d.comb += [
                        blank.eq(record.pad.replicate(each.bits // 8)),
                        extra.eq(each.taps_per_word > 1),
                        last_word.eq(hardware.digits * each.digit_words - 1),
                        stored.eq(Array(self._words(each, window))[word]),
                    ]

        outside = extra & (x == record.last_x + 1)
        # Neither changes between a position's first word and its last one, of three at least.
        row_end = Signal()
        frame_end = Signal()
        m.d.sync += [row_end.eq(x == record.last_x + 1 + extra), frame_end.eq(y == record.last_y)]
        where = address
        if hardware.pixel_frames > 1 or hardware.pixel_buffers > 1:
            base = Signal.like(address)  # known before a frame's first pixel
            m.d.sync += base.eq(Mux(self.buffer, hardware.second_buffer, 0)
                                if hardware.pixel_buffers > 1
                                else copy_offset(record.stride, self.copy))
            where = base + address
        write = self.write
        takes = moves = self.granted  # a pixel; word after word
        if hardware.folds:
            # There are many words to choose from, so one is chosen a cycle before it is written.
            # When a frame is ready its last one may still wait, but goes long before the first
            # read: nothing else writes then.
            write = Signal.like(self.write, name="chosen")
            later = Signal.like(self.write, name="later", reset_less=True)
            valid = Signal(name="later_valid")
            # A pixel is taken in any cycle, so that its way does not begin at the codes. If one of
            # these is written then, the next cycle that is granted is lost in its place.
            owed = Signal()
            takes, moves = ~owed, self.granted & ~owed
            with m.If(self.granted):
                m.d.sync += [later.eq(write), valid.eq(write.valid), owed.eq(0)]
            m.d.comb += [self.write.eq(later), self.write.valid.eq(valid)]
        m.d.comb += [write.bank.eq(bank), write.address.eq(where), write.enable.eq(~0)]
        for lane in range(LANES):
            m.d.comb += write.data[lane].eq(stored.word_select(lane, 2 * hardware.array.words))

        def shift(pixel):
            return [old.eq(new) for old, new in zip(window, [*window[1:], pixel], strict=True)]

        begin = [x.eq(0), y.eq(0), word.eq(0), bank.eq(0), slot.eq(0), address.eq(0)]
        with m.FSM():
            with m.State("TAKE"):
                m.d.comb += self.pixels.ready.eq(takes & ~outside)
                with m.If(takes & (self.pixels.valid | outside)):
                    if hardware.folds:
                        m.d.sync += owed.eq(~self.granted)
                    m.d.sync += [shift(Mux(outside, blank, self.pixels.payload)), x.eq(x + 1)]
                    with m.If(extra & (x == 0)):
                        m.d.sync += [old.eq(blank) for old in window[:-1]]
                    with m.Else():
                        m.next = "WRITE"
                with m.If(self.drop):
                    m.next = "TAKE"
            with m.State("WRITE"):
                m.d.comb += write.valid.eq(1)
                with m.If(moves):
                    m.d.sync += [word.eq(word + 1), address.eq(address + record.slots)]
                    with m.If(word == last_word):
                        m.next = "TAKE"
                        m.d.sync += [word.eq(0), bank.eq(bank + 1), address.eq(slot)]
                        with m.If(bank == rows - 1):
                            m.d.sync += [bank.eq(0), slot.eq(slot + 1), address.eq(slot + 1)]
                        with m.If(row_end):
                            m.d.sync += [x.eq(0), y.eq(y + 1)]
                            with m.If(frame_end):
                                m.d.sync += begin
                                m.next = "FULL"
                with m.If(self.drop):
                    m.next = "TAKE"
            with m.State("FULL"):
                m.d.comb += self.ready.eq(1)
                with m.If(self.read):
                    m.next = "TAKE"
        with m.If(self.drop):
            m.d.sync += begin
        return m

    def _words(self, frame: PixelFormat, window) -> list:
        """The word groups of a pixel, digit after digit, in memory order."""
        half, precision = self.hardware.array.words, self.hardware.array.digit_bits
        ops = operands(precision, half)
        channels = [pixel.word_select(c, 8) for pixel in window[-frame.taps_per_word:]
                    for c in range(frame.bits // 8)]
        channels += [Const(0, 8)] * (frame.digit_words * ops - len(channels))
        words = []
        for digit in reversed(range(self.hardware.digits)):
            for k in range(frame.digit_words):
                values = [(channel >> precision * digit)[:precision]
                          for channel in channels[k * ops:(k + 1) * ops]]
                plane = [Cat(value[b:b + 1] for value in values) for b in range(precision)]
                if precision == 2:  # each lane holds low and high bits of its operands
                    plane = [plane[b][lane * half:(lane + 1) * half]
                             for lane in range(LANES) for b in range(2)]
                words.append(Cat(plane))
        return words
