"""Which pixel and channels are on the drain."""

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import Hardware
from hw.descriptor import layer_layout
from hw.pipeline import Counter

CODE_BITS = 3


def walk_layout(hardware: Hardware) -> data.StructLayout:
    """A unit on its way through the epilogue."""
    return data.StructLayout({
        "valid": 1,
        "inside": 1,  # not one of the pixels that fill up the last tile
        "unit": range(hardware.array.units),
        "x": range(hardware.width + 1),
        "y": range(hardware.height + 1),
        "first": 1,  # pixel of the channel tile
        "unit_last": 1,  # of the pixel
        "channels_last": 1,  # of the channel tile
        "layer_last": 1,
    })


class Walk(wiring.Component):
    """Counts along with the drain: units of a pixel, pixels of a tile, pixel and channel tiles.

    Members
    -------
    fetch : In(1)       an operation starts in the next cycle
    layer : In(layer_layout)
    start : In(1)       pixel 0 of a tile is on the drain
    walk : Out(walk_layout)     the unit that is on the drain now
    """

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        super().__init__({
            "fetch": In(1),
            "layer": In(layer_layout(hardware)),
            "start": In(1),
            "walk": Out(walk_layout(hardware)),
        })

    def elaborate(self, platform):
        m = Module()
        layer, walk = self.layer, self.walk
        rows, units = self.hardware.array.rows, self.hardware.array.units
        row = Signal(range(rows))
        unit = Signal.like(walk.unit)
        tile = Counter(m, layer.last_pixel_tile, "tile")
        channel_tile = Counter(m, layer.last_channel_tile, "channel_tile")
        x, y = Counter(m, layer.last_x, "x"), Counter(m, layer.last_y, "y")
        below = Signal()
        first = Signal(init=1)
        running = Signal()

        clear = Signal()
        m.d.sync += clear.eq(self.fetch)  # now the descriptor is there
        unit_last = unit == units - 1
        row_last = unit_last & (row == rows - 1)
        channels_last = row_last & tile.at_end
        m.d.comb += [
            walk.valid.eq(self.start | running),
            walk.inside.eq(~below),
            walk.unit.eq(unit), walk.x.eq(x.now), walk.y.eq(y.now),
            walk.unit_last.eq(unit_last),
            walk.first.eq(first),
            walk.channels_last.eq(channels_last),
            walk.layer_last.eq(channels_last & channel_tile.at_end),
        ]
        with m.If(walk.valid):
            m.d.sync += [unit.eq(unit + 1), running.eq(1)]
            with m.If(unit_last):
                m.d.sync += [unit.eq(0), row.eq(row + 1), first.eq(0)]
                with m.If(x.at_end):
                    m.d.sync += [x.zero(), y.step(), below.eq(below | y.at_end)]
                with m.Else():
                    m.d.sync += x.step()
            with m.If(row_last):
                m.d.sync += [row.eq(0), running.eq(0), tile.step()]
            with m.If(channels_last):
                m.d.sync += [tile.zero(), channel_tile.step(),
                             x.zero(), y.zero(), below.eq(0), first.eq(1)]
        with m.If(clear):
            m.d.sync += [tile.zero(), channel_tile.zero(), x.zero(), y.zero()]
        return m
