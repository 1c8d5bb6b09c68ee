"""What leaves the engine: a class, codes, or a map of values, with ready and valid."""

from amaranth import Cat, Module, Mux, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from export.checked import ConfigError
from export.descriptor import RESULTS
from export.hardware import Hardware
from export.sections import PIECES
from hw.descriptor import layer_layout
from hw.head import best_layout
from hw.store import deep_memory
from hw.walk import walk_layout

WORD = 32


def result_layout(hardware: Hardware) -> data.StructLayout:
    """One transfer: class and score or, if there are other outputs, a word of a frame's."""
    if not hardware.result_words:
        return best_layout(hardware)
    return data.StructLayout({"data": WORD, "last": 1})


def check_score(layout: data.StructLayout):
    """ConfigError if a score in it is too long for the one word that it leaves in."""
    bits = Shape.cast(layout.members["score"]).width if "score" in layout.members else 0
    if bits > WORD:
        raise ConfigError(f"a score must have at most {WORD} bits to leave in a word, not {bits}")


class Output(wiring.Component):
    """Holds what the last operation gives until it is taken, while the next frame is in work.

    A class and its score are one transfer. Where there are other outputs, results leave in words
    of 32 bits, the last one marked: class and score; codes, bit by bit, or values, byte by byte,
    of the first pixel, of the second, and so on, channels ascending, lowest bits first, zeros at
    the end. A bit or a byte takes a cycle, each `unit` channels one more (two where a unit is one
    channel), each pixel two, and a word that is not taken stops it
    (:meth:`export.cost.Cost.output_cycles`).

    Members
    -------
    fetch : In(1)       an operation starts in the next cycle
    layer : In(layer_layout)
    walk : In(walk_layout)      the unit
    emit : In(1), values : In(ArrayLayout(value_bits, unit))    it leaves
    best : In(best_layout)
    finished : In(1)    the last operation is done
    free : Out(1)       nothing is left of the frame before
    result : Out(stream of result_layout)
    """

    result: stream.Interface

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        self._MustUse__used = True  # even if it is refused; else Amaranth warns
        if hardware.result_words:
            check_score(best_layout(hardware))
        super().__init__({
            "fetch": In(1),
            "layer": In(layer_layout(hardware)),
            "walk": In(walk_layout(hardware)),
            "emit": In(1),
            "values": In(data.ArrayLayout(hardware.value_bits, hardware.array.unit)),
            "best": In(best_layout(hardware)),
            "finished": In(1),
            "free": Out(1),
            "result": Out(stream.Signature(result_layout(hardware))),
        })

    def elaborate(self, platform):
        m = Module()
        hardware, best = self.hardware, self.best
        others = hardware.select_words or hardware.vectors  # sums that come there too
        if others and "class" in hardware.outputs:
            best = Signal.like(self.best)
            with m.If(self.finished):
                m.d.sync += best.eq(self.best)
        if hardware.result_words:
            self._words(m, best)
            return m
        waiting = Signal()
        with m.If(self.finished):
            m.d.sync += waiting.eq(1)
        with m.Elif(self.result.ready):
            m.d.sync += waiting.eq(0)
        m.d.comb += [self.result.valid.eq(waiting), self.result.payload.eq(best),
                     self.free.eq(~waiting)]
        return m

    def _words(self, m: Module, best):
        hardware, layer, result = self.hardware, self.layer, self.result
        size, unit = hardware.value_bits, hardware.array.unit
        address = Signal(range(hardware.output_words))
        stored = self._memory(m, address)

        # What is needed of the last operation's descriptor while others run.
        channels = Signal.like(layer.out_last_channel)
        pixels = Signal.like(layer.out_last_pixel)
        step = Signal.like(layer.out_units)
        bits = Signal(2)
        whole = Signal()
        pixel = Signal.like(pixels)
        channel = Signal.like(channels)
        base = Signal.like(address)
        row = Signal(size * unit)
        place = Signal(range(unit))
        bit = Signal(2)
        word = Signal(WORD)
        filled = Signal(range(WORD + 1))
        ended = Signal()

        full, value_last = filled == WORD, whole | (bit == bits - 1)
        pixel_last = channel == channels
        m.d.comb += result.payload.data.eq(word)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.free.eq(1)
                with m.If(self.finished):
                    m.d.sync += [
                        channels.eq(layer.out_last_channel), pixels.eq(layer.out_last_pixel),
                        step.eq(layer.out_units), bits.eq(layer.code_bits),
                        whole.eq(layer.result == RESULTS.index("map")),
                        pixel.eq(0), channel.eq(0), base.eq(0), address.eq(0),
                        bit.eq(0), filled.eq(0), ended.eq(0),
                    ]
                    m.next = "READ"
                    if "class" in hardware.outputs:
                        with m.If(layer.result == RESULTS.index("class")):
                            m.next = "CLASS"
            if "class" in hardware.outputs:
                with m.State("CLASS"):
                    m.d.comb += [result.valid.eq(1), result.payload.data.eq(best["class"])]
                    with m.If(result.ready):
                        m.next = "SCORE"
                with m.State("SCORE"):
                    m.d.comb += [result.valid.eq(1), result.payload.data.eq(best.score),
                                 result.payload.last.eq(1)]
                    with m.If(result.ready):
                        m.next = "IDLE"
            with m.State("READ"):
                m.next = "WAIT"
            with m.State("WAIT"):
                m.next = "LOAD"
            with m.State("LOAD"):
                m.d.sync += [row.eq(stored), place.eq(0), address.eq(address + 1)]
                m.next = "PACK"
            with m.State("PACK"):
                m.d.comb += [result.valid.eq(full), result.payload.last.eq(ended)]
                with m.If(full & ~result.ready):
                    pass
                with m.Elif(full & ended):
                    m.next = "IDLE"
                with m.Elif(ended):  # zeros up to the word's end
                    m.d.sync += [word.eq(word >> 1), filled.eq(filled + 1)]
                with m.Else():
                    m.d.sync += [word.eq(Cat(word[1:], row.bit_select(bit, 1))),
                                 filled.eq(Mux(full, 1, filled + 1)), bit.eq(bit + 1)]
                    if "map" in hardware.outputs:
                        with m.If(whole):
                            m.d.sync += [word.eq(Cat(word[8:], row[:8])),
                                         filled.eq(Mux(full, 8, filled + 8))]
                    with m.If(value_last):
                        m.d.sync += [bit.eq(0), row.eq(row >> size), place.eq(place + 1),
                                     channel.eq(channel + 1)]
                        with m.If(pixel_last):
                            m.d.sync += [channel.eq(0), pixel.eq(pixel + 1), base.eq(base + step),
                                         address.eq(base + step)]
                            with m.If(pixel == pixels):
                                m.d.sync += ended.eq(1)
                            with m.Else():
                                m.next = "READ"
                        with m.Elif(place == unit - 1):
                            m.next = "LOAD" if unit > 1 else "READ"

    def _memory(self, m: Module, address):
        """Units in the order in which they leave, not in that of the channel tiles."""
        hardware, layer, walk = self.hardware, self.layer, self.walk
        units, depth = hardware.array.units, hardware.output_words
        tile = Signal(range(depth))  # first unit of the channel tile
        at = Signal(range(depth))
        with m.If(self.fetch):
            m.d.sync += [tile.eq(0), at.eq(0)]
        with m.Elif(walk.valid & walk.channels_last):
            m.d.sync += [tile.eq(tile + units), at.eq(tile + units)]
        with m.Elif(self.emit):
            m.d.sync += at.eq(at + Mux(walk.unit_last, layer.out_units - (units - 1), 1))
        return deep_memory(
            m, "results", "stored", width=hardware.value_bits * hardware.array.unit, rows=depth,
            sizes=PIECES, read=address, write=at, data=self.values, enable=self.emit)
