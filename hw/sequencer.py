"""Layers, channel tiles, pixel tiles, digits, kernel taps, words: the loops of the engine."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import Hardware, bits_for
from hw.descriptor import layer_layout, tile_layout
from hw.pipeline import Counter
from hw.records import record_layout
from hw.rings import KernelFrames, rings_layout
from hw.store import fill_member, store


def step_layout(hardware: Hardware) -> data.StructLayout:
    """One step of the array: one word of one kernel tap for R pixels and C channels."""
    return data.StructLayout({
        "valid": 1,
        "first": 1, "last": 1,  # of the tile
        "horner": 1,  # first step of a digit but the first
        "pass_last": 1,  # last step before the weights start over
        "tile_done": 1,  # last step that needs this channel tile's weights
        "word_last": 1,  # last word of a tap
        "digit": bits_for(hardware.digits - 1),
        "dy": signed(2), "dx": signed(2),
        "word": bits_for(hardware.activation_words),  # the word's address, before slot and base
        "slot": bits_for(hardware.slots),  # of the tile's pixels
        "mask": hardware.array.rows,  # rows whose tap lies inside the image, row R-1 first
        # Of a clip: where the frame of the kernel lies that is stepped through.
        **({"base": bits_for(hardware.activation_words)} if hardware.clocks else {}),
    })


class Sequencer(wiring.Component):
    """Runs the descriptors one after the other, one step per cycle, for frame after frame.

    A layer starts with the fetch of its descriptor, steps through its tiles without a gap (but
    for tiles shorter than the drain of the one before) and ends when the epilogue has `done` its
    last pixel. The first layer waits for a whole frame of pixels, the last one until the result of
    the frame before has left.

    Members
    -------
    record : In(record_layout)    of the program of the frame that is ready
    number : In(range(programs))  ... and its number
    running : Out(record_layout), runs : Out(range(programs))   of the program that runs
    layer : Out(layer_layout)     descriptor of the current layer
    index : Out(range(layers))    its number in the program
    fetch : Out(1)                a layer starts; the descriptor is there from the next cycle on
    restart : Out(1)              a frame starts: pointers go back to the program's first rows
    step : Out(step_layout)
    pixels_ready : In(1)          a frame of pixels is in the memory
    pixels_read : Out(1)          ... and has been read
    buffer : Out(1)               of two of pixels, that of the frame in work; from the cycle behind
                                  `restart` on
    done : In(1)                  the epilogue is through with a layer
    finished : Out(1)             ... and it was the last one: the result is there
    output_free : In(1)           the last result has left
    busy : Out(1)                 between start and result of a frame
    rings : In(rings_layout)      of a clip, from the cycle behind `restart` on
    first : Out(1)                the layer had no tick of the clip before; of cells only
    fill : In(fill_layout)        of RAM only
    """

    def __init__(self, hardware: Hardware, tiles: list[int], layers: list[int]):
        self.hardware, self.tiles, self.layers = hardware, tiles, layers
        super().__init__({
            "record": In(record_layout(hardware)),
            "number": In(range(hardware.programs)),
            "running": Out(record_layout(hardware)),
            "runs": Out(range(hardware.programs)),
            "layer": Out(layer_layout(hardware)),
            "index": Out(range(hardware.layers)),
            "fetch": Out(1),
            "restart": Out(1),
            "step": Out(step_layout(hardware)),
            "pixels_ready": In(1),
            "pixels_read": Out(1),
            "done": In(1),
            "finished": Out(1),
            "output_free": In(1),
            "busy": Out(1),
            **({"rings": In(rings_layout(hardware))} if hardware.clocks else {}),
            **({"first": Out(1)} if hardware.cells else {}),
            **({"buffer": Out(1, init=1)} if hardware.pixel_buffers > 1 else {}),
            **fill_member(hardware),
        })

    def elaborate(self, platform):
        m = Module()
        hardware, layer, step = self.hardware, self.layer, self.step
        rows, period = hardware.array.rows, hardware.array.min_period

        layer_port = store(m, self, "layers", self.layers)
        tile_port = store(m, self, "tiles", self.tiles)
        layer_next = data.View(layer_layout(hardware), layer_port.data)
        # Channel tiles follow each other at least four cycles apart: time for a register.
        tile_next = Signal(tile_layout(hardware))
        m.d.sync += tile_next.eq(tile_port.data)
        index = self.index
        next_tile = Signal(range(hardware.tiles + 1))
        running = self._running(m)
        m.d.comb += [layer_port.addr.eq(running.layers_base + index),
                     tile_port.addr.eq(next_tile)]

        # Border flags of the tile in work and, one pixel a cycle, of the one after it.
        m.submodules.border = border = Border(hardware)
        m.d.comb += border.layer.eq(layer)

        tile = Signal(tile_layout(hardware))  # of channels
        cycle = Signal(range(period))  # of the tile, up to its minimum
        cycle_last = Signal(init=1)
        issuing = Signal()
        word, digit = Counter(m, layer.last_word, "word"), Counter(m, layer.last_digit, "digit")
        dx = Signal(signed(2))
        dy = Signal(signed(2))
        dx_end = Signal()
        dy_end = Signal()
        pixel_tile = Counter(m, layer.last_pixel_tile, "pixel_tile")
        channel_tile = Counter(m, layer.last_channel_tile, "channel_tile")
        pass_word = Signal.like(tile.offset)  # address of the pass's first word
        word_address = Signal.like(tile.offset)
        first = Signal()
        pass_first = Signal()

        taps_last = word.at_end & dx_end & dy_end
        frames = None
        if hardware.clocks:
            frames = KernelFrames(m, hardware, layer, layer_next, self.rings)
            m.d.comb += step.base.eq(frames.base)
            if hardware.cells:
                m.d.comb += self.first.eq(frames.first)
        pass_last = taps_last & frames.at_end if frames else taps_last
        # A tile takes four cycles at least, so what holds for all of it may come a cycle late.
        layer_last = Signal()
        may_end = Signal()
        begins = Signal()
        offset = Signal.like(tile.offset)  # of the next tile
        m.d.sync += [layer_last.eq(pixel_tile.at_end & channel_tile.at_end),
                     offset.eq(Mux(pixel_tile.at_end, tile_next.offset, tile.offset))]
        next_begins = may_end & (~issuing | (pass_last & digit.at_end))

        m.d.comb += [
            step.valid.eq(issuing),
            step.first.eq(issuing & first),
            step.horner.eq(issuing & pass_first & ~first),
            step.last.eq(issuing & pass_last & digit.at_end),
            step.pass_last.eq(pass_last),
            step.tile_done.eq(pass_last & digit.at_end & pixel_tile.at_end),
            step.word_last.eq(word.at_end),
            step.digit.eq(digit.now),
            step.dy.eq(dy), step.dx.eq(dx),
            step.word.eq(word_address),
            step.slot.eq(pixel_tile.now),
            step.mask.eq(border.inside & frames.there.replicate(rows) if frames
                         else border.inside),
            border.dy.eq(dy), border.dx.eq(dx),
            border.advance.eq(next_begins),
        ]

        def first_column():
            return [dx.eq(Mux(layer.left, -1, 0)), dx_end.eq(~layer.left & ~layer.right)]

        def first_tap(first_word):
            return [word.zero(), first_column(), word_address.eq(first_word),
                    dy.eq(Mux(layer.both_rows, -1, 0)), dy_end.eq(~layer.both_rows)]

        def rewind(first_word):
            """Back to the first word of the first tap of a pass."""
            return [first_tap(first_word), pass_first.eq(1), pass_word.eq(first_word),
                    frames.zero() if frames else []]

        with m.If(issuing):
            m.d.sync += [first.eq(0), pass_first.eq(0),
                         issuing.eq(~(pass_last & digit.at_end))]
            with m.If(pass_last):
                m.d.sync += [rewind(pass_word + layer.digit_stride), digit.step()]
            if frames:
                with m.Elif(taps_last):
                    m.d.sync += [first_tap(pass_word), frames.step()]
            with m.Elif(word.at_end):
                m.d.sync += [word.zero(), word_address.eq(pass_word)]
                with m.If(dx_end):
                    m.d.sync += [first_column(), dy.eq(dy + 1), dy_end.eq(dy == 0)]
                with m.Else():  # at most from -1 to 0 to 1
                    m.d.sync += [dx.eq(dx + 1), dx_end.eq(~layer.right | (dx == 0))]
            with m.Else():
                m.d.sync += [word.step(), word_address.eq(word_address + layer.slots)]
        with m.If(~cycle_last):
            m.d.sync += [cycle.eq(cycle + 1), cycle_last.eq(cycle == period - 2),
                         may_end.eq((cycle == period - 2) & ~layer_last)]
        with m.If(next_begins):
            m.d.sync += [rewind(offset), digit.zero(), cycle.eq(0), cycle_last.eq(0),
                         may_end.eq(0), begins.eq(0), first.eq(1), issuing.eq(1)]
            with m.If(pixel_tile.at_end):
                m.d.sync += [tile.eq(tile_next), next_tile.eq(next_tile + 1), pixel_tile.zero()]
                with m.If(~begins):
                    m.d.sync += channel_tile.step()
            with m.Else():
                m.d.sync += pixel_tile.step()

        fill = Signal(range(rows))
        with m.FSM() as fsm:
            with m.State("START"):
                m.d.sync += [index.eq(0), next_tile.eq(self.record.tiles_base)]
                with m.If(self.pixels_ready):
                    m.d.comb += self.restart.eq(1)
                    if hardware.pixel_buffers > 1:
                        m.d.sync += self.buffer.eq(~self.buffer)
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.next = "LOAD"
            with m.State("LOAD"):
                with m.If(self.output_free | ~layer_next.last):
                    if frames:
                        m.next = "RINGS"
                    else:
                        m.d.comb += self.fetch.eq(1)
                        m.d.sync += [layer.eq(layer_next), fill.eq(rows - 1)]
                        if hardware.pixel_buffers > 1:  # the first operation's input is at 0
                            with m.If(self.buffer & (index == 0)):
                                m.d.sync += layer.in_base.eq(hardware.second_buffer)
                        m.next = "CLEAR"
                if frames:
                    with m.If(~frames.due):  # nor is what follows it
                        m.d.comb += self.pixels_read.eq(index == 0)
                        m.next = "START"
            if frames:
                with m.State("RINGS"):
                    m.d.comb += self.fetch.eq(1)
                    m.d.sync += [layer.eq(layer_next), layer.out_base.eq(frames.out_base),
                                 fill.eq(rows - 1)]
                    m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += border.clear.eq(1)
                # As behind the last pixel tile of a channel tile before the first one.
                m.d.sync += [channel_tile.zero(), pixel_tile.at_end.eq(1), begins.eq(1)]
                m.next = "FILL"
            with m.State("FILL"):
                m.d.sync += fill.eq(fill - 1)
                with m.If(fill == 0):
                    m.d.sync += may_end.eq(1)
                    m.next = "RUN"
            with m.State("RUN"):
                with m.If(layer_last & cycle_last & ~issuing & ~may_end):
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(self.done):
                    m.d.comb += self.pixels_read.eq(index == 0)
                    with m.If(layer.last):
                        m.d.comb += self.finished.eq(1)
                        m.next = "START"
                    with m.Else():
                        m.d.sync += index.eq(index + 1)
                        m.next = "FETCH"
        m.d.comb += self.busy.eq(~fsm.ongoing("START"))
        return m

    def _running(self, m: Module):
        """The record of the program that runs; its own copy where it can change."""
        if self.hardware.memory == "rom" and self.hardware.programs == 1:
            m.d.comb += self.running.eq(self.record)
        else:
            with m.If(self.restart):
                m.d.sync += [self.running.eq(self.record), self.runs.eq(self.number)]
        return self.running


class Border(wiring.Component):
    """Which rows of a tile have a tap (dy, dx) that lies outside the image.

    `clear` starts a layer, whose descriptor is there. One pixel a cycle is looked at, up to a tile
    ahead; `advance` makes that tile the current one, and the next one takes R cycles from then on.

    Members
    -------
    inside : Out(R)     bit i is set if the tap of pixel R - 1 - i of the tile is in the image
    """

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        super().__init__({
            "layer": In(layer_layout(hardware)),
            "clear": In(1), "advance": In(1),
            "dy": In(signed(2)), "dx": In(signed(2)),
            "inside": Out(hardware.array.rows),
        })

    def elaborate(self, platform):
        m = Module()
        rows, layer = self.hardware.array.rows, self.layer
        x, y = Counter(m, layer.last_x, "x"), Counter(m, layer.last_y, "y")
        tile = Counter(m, layer.last_pixel_tile, "tile")
        count = Signal(range(rows + 1))  # pixels of the tile ahead that are known
        full = Signal()  # ... are all

        seen = {"top": y.now == 0, "bottom": y.at_end, "left": x.now == 0, "right": x.at_end}
        outside = {"top": self.dy == -1, "bottom": self.dy == 1,
                   "left": self.dx == -1, "right": self.dx == 1}
        take = self.advance | ~full
        hit = 0
        for edge, now in seen.items():
            ahead = Signal(rows, name=f"{edge}_ahead", reset_less=True)
            current = Signal(rows, name=f"{edge}_now", reset_less=True)
            with m.If(take):
                m.d.sync += ahead.eq(Cat(now, ahead))
            with m.If(self.advance):
                m.d.sync += current.eq(ahead)
            hit |= current & outside[edge].replicate(rows)
        m.d.comb += self.inside.eq(~hit)

        with m.If(self.advance):
            m.d.sync += [count.eq(1), full.eq(rows == 1)]
        with m.Elif(take):
            m.d.sync += [count.eq(count + 1), full.eq(count == rows - 1)]
        with m.If(take):
            last_of_tile = Mux(self.advance, rows == 1, count == rows - 1)
            with m.If(last_of_tile & tile.at_end):
                m.d.sync += [tile.zero(), x.zero(), y.zero()]
            with m.Else():
                with m.If(last_of_tile):
                    m.d.sync += tile.step()
                with m.If(x.at_end):
                    m.d.sync += [x.zero(), y.step()]
                with m.Else():
                    m.d.sync += x.step()
        with m.If(self.clear):
            m.d.sync += [x.zero(), y.zero(), tile.zero(), count.eq(0), full.eq(0)]
        return m
