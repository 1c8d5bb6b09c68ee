"""Pixels as they come from outside: frames of the right length only, blocks of pixels folded."""

from amaranth import Array, Cat, Const, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from export.hardware import Hardware, PixelFormat
from hw.records import record_layout


def pixel_shape(hardware: Hardware, framed: bool):
    """A pixel from outside; framed, it says whether it is the frame's last."""
    bits = hardware.pixel_bits
    return data.StructLayout({"data": bits, "last": 1}) if framed else bits


def position_bits(hardware: Hardware) -> int:
    """Of a block of pixels, which is a position of the first layer's input."""
    return max(each.bits for each in hardware.pixels)


class Frame(wiring.Component):
    """Counts pixels, and makes one position of each block of `fold` x `fold` of them.

    All rows of a block but its last wait in line buffers. With `framed`, a frame that ends too
    early or does not end where it should is dropped whole: `dropped` tells the pixel store to
    forget it; pixels behind a frame's end are swallowed up to the one that is marked as the last.

    Members
    -------
    record : In(record_layout)
    accept : In(1)      a frame may begin, or go on
    pixels : In(stream of pixel_shape)      raster order, channel 0 lowest
    positions : Out(stream of position_bits)    raster order; valid only while ready is, unless
                        pixels fold
    taken : Out(1)      a pixel is taken
    read : In(1)        the next frame may come
    dropped, short, long : Out(1)       for a cycle: a frame is dropped, for this reason
    """

    def __init__(self, hardware: Hardware, framed: bool):
        self.hardware, self.framed = hardware, framed
        super().__init__({
            "record": In(record_layout(hardware)),
            "accept": In(1),
            "pixels": In(stream.Signature(pixel_shape(hardware, framed))),
            "positions": Out(stream.Signature(position_bits(hardware))),
            "taken": Out(1), "read": In(1),
            "dropped": Out(1), "short": Out(1), "long": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        hardware, record, framed = self.hardware, self.record, self.framed
        formats = sorted(hardware.pixels)
        pixel = self.pixels.payload.data if framed else self.pixels.payload

        # A pixel's place: block, and row and column in the block; where they are in the next cycle.
        x = Signal(range(hardware.frame_width))
        y = Signal(range(hardware.frame_height))
        most = max(each.fold for each in formats)
        dx, dy = Signal(range(most)), Signal(range(most))
        next_dx, next_dy = Signal.like(dx), Signal.like(dy)
        m.d.sync += [dx.eq(next_dx), dy.eq(next_dy)]
        # Whether it ends a block's row, or the block, is known ahead: whether pixels are taken
        # follows from it, and where the next one goes from that.
        folds = {each.fold for each in formats}
        rights = {fold: self._last(m, fold, [next_dx], f"right_{fold}") for fold in folds}
        wholes = {fold: self._last(m, fold, [next_dx, next_dy], f"whole_{fold}") for fold in folds}
        right = Array(rights[each.fold] for each in formats)[record.format]
        whole = Array(wholes[each.fold] for each in formats)[record.format]
        line = Signal()
        end = Signal()
        m.d.comb += [line.eq(right & (x == record.last_x)),
                     end.eq(whole & (x == record.last_x) & (y == record.last_y))]

        waiting = Signal()  # until the next frame may come
        swallow = Signal()  # until its marked end
        last = self.pixels.payload.last if framed else end
        good = Signal()
        free = Signal()
        open_ = self.accept & ~waiting & ~swallow
        m.d.comb += [
            free.eq(open_ & (self.positions.ready | ~whole)),
            self.pixels.ready.eq(free | swallow),
            good.eq(self.pixels.valid & free),
            self.taken.eq(good),
            # The way is long where pixels fold, so there it does not begin at `ready`.
            self.positions.valid.eq((self.pixels.valid & open_ if hardware.folds else good)
                                    & whole & (last == end)),
            self.short.eq(good & last & ~end), self.long.eq(good & end & ~last),
            self.dropped.eq(self.short | self.long),
        ]
        m.d.comb += [next_dx.eq(dx), next_dy.eq(dy)]
        with m.If(good):
            m.d.comb += next_dx.eq(dx + 1)
            with m.If(right):
                m.d.comb += next_dx.eq(0)
                m.d.sync += x.eq(x + 1)
            with m.If(line):
                m.d.comb += next_dy.eq(dy + 1)
                m.d.sync += x.eq(0)
                with m.If(whole):
                    m.d.comb += next_dy.eq(0)
                    m.d.sync += y.eq(y + 1)
            with m.If(end | last):
                m.d.comb += [next_dx.eq(0), next_dy.eq(0)]
                m.d.sync += [x.eq(0), y.eq(0), swallow.eq(~last), waiting.eq(end & last)]
        with m.If(swallow & self.pixels.valid & last):
            m.d.sync += swallow.eq(0)
        with m.If(self.read):
            m.d.sync += waiting.eq(0)

        # The last `most` pixels of this row, newest last; the same of the block's earlier rows.
        past = [Signal(hardware.pixel_bits, name=f"past_{k}") for k in range(most - 1)]
        row = Cat(past, pixel)
        with m.If(good):
            m.d.sync += [old.eq(new) for old, new in zip(past, [*past, pixel][1:], strict=True)]
        rows = [self._line(m, row, good & (dy == k), x, k) for k in range(most - 1)]
        rows.append(row)
        with m.Switch(record.format):
            for k, each in enumerate(formats):
                with m.Case(k):
                    m.d.comb += self.positions.payload.eq(self._position(each, rows))
        return m

    def _last(self, m: Module, fold: int, places: list, name: str):
        """Whether places are a block's last, from a register: they are those of the next cycle."""
        if fold == 1:
            return Const(1)
        known = Signal(name=name)
        m.d.sync += known.eq(Cat(each == fold - 1 for each in places).all())
        return known

    def _line(self, m: Module, row, write, x, k: int):
        """Row `k` of each block of the row of blocks at hand, as the block x needs it."""
        m.submodules[f"line{k}"] = memory = Memory(
            shape=len(row), depth=self.hardware.frame_width, init=[])
        read, port = memory.read_port(), memory.write_port()
        # A block's pixels come one per cycle at most, so its earlier rows are there in time.
        m.d.comb += [read.addr.eq(x), port.addr.eq(x), port.data.eq(row), port.en.eq(write)]
        return read.data

    def _position(self, form: PixelFormat, rows: list):
        """Channel (dy * fold + dx) * channels + c; of a row the newest pixels count."""
        wide, channels = self.hardware.pixel_bits, 8 * form.channels
        parts = []
        for dy in range(form.fold):
            row = rows[-1] if dy == form.fold - 1 else rows[dy]
            pixels = len(row) // wide
            parts += [row.word_select(pixels - form.fold + dx, wide)[:channels]
                      for dx in range(form.fold)]
        return Cat(parts)
