"""From sums to codes: bias, shift, clip, gate, pooling; sums over all pixels go another way."""

from functools import reduce
from operator import or_

from amaranth import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.descriptor import RESULTS
from export.hardware import Hardware
from hw.cell import Cell
from hw.clip import Clip
from hw.descriptor import bias_layout, is_summed, layer_layout, makes
from hw.gate import Gate
from hw.head import Head, best_layout
from hw.memory import write_layout
from hw.pipeline import carry, delay
from hw.pool import Pool
from hw.records import record_layout
from hw.store import fill_member, store
from hw.walk import CODE_BITS, Walk, walk_layout
from hw.writer import Writer


def probe_layout(hardware: Hardware) -> data.StructLayout:
    """Codes as they are written: channel tile by channel tile, in each pixel by pixel in raster
    order, in each `unit` channels at a time."""
    return data.StructLayout({
        "valid": 1,
        "layer": range(hardware.layers),
        "codes": data.ArrayLayout(CODE_BITS, hardware.array.unit),
    })


def leaving_layout(hardware: Hardware) -> data.StructLayout:
    """A unit of the last operation's codes or values, which leave."""
    return data.StructLayout({
        "valid": 1, "walk": walk_layout(hardware),
        "values": data.ArrayLayout(hardware.value_bits, hardware.array.unit)})


class Epilogue(wiring.Component):
    """Takes one pixel of C sums every `units` cycles, `unit` channels per cycle, without stalls.

    `code = clip((sum + bias) >> shift, 0, 2**code_bits - 1)`. A gate may merge the codes with a
    skip's, then they may be pooled, and they are written as the reading operations want them.
    Sums over all pixels go to the :class:`hw.head.Head` instead. What the last operation makes is
    not written but leaves; a map's values are `clip((sum + bias) >> shift)`, signed.

    Members
    -------
    restart : In(1)     bias pointer to the first channel tile of the program of `record`
    record : In(record_layout)
    fetch : In(1)       an operation starts in the next cycle
    layer, index : In   its descriptor and number
    start : In(1), sums : In(ArrayLayout(acc_bits, C))      from the array
    write : Out(write_layout)
    writes : Out(1)     `write.valid` of the next cycle; of machines that fold pixels only
    done : Out(1)       all of the operation is in the memory, or its sums are known
    best : Out(best_layout)     class and score, valid from the `done` of a class on
    leaving : Out(leaving_layout)
    probe : Out(probe_layout)
    first : In(1)       a cell has had no tick of the clip before; of cells only
    fill : In(fill_layout)      of RAM only
    """

    def __init__(self, hardware: Hardware, biases: list[int]):
        self.hardware, self.biases = hardware, biases
        super().__init__({
            "restart": In(1),
            "record": In(record_layout(hardware)),
            "fetch": In(1),
            "layer": In(layer_layout(hardware)),
            "index": In(range(hardware.layers)),
            "start": In(1),
            "sums": In(data.ArrayLayout(hardware.acc_bits, hardware.array.columns)),
            "write": Out(write_layout(hardware)),
            "done": Out(1),
            "best": Out(best_layout(hardware)),
            "leaving": Out(leaving_layout(hardware)),
            "probe": Out(probe_layout(hardware)),
            **({"first": In(1)} if hardware.cells else {}),
            **({"writes": Out(1)} if hardware.folds else {}),
            **fill_member(hardware),
        })

    def elaborate(self, platform):
        m = Module()
        hardware, layer, array = self.hardware, self.layer, self.hardware.array
        U, K = array.unit, array.units

        m.submodules.counter = counter = Walk(hardware)
        m.d.comb += [counter.fetch.eq(self.fetch), counter.layer.eq(layer),
                     counter.start.eq(self.start)]
        walk = counter.walk

        # Stage 1: one unit of the drained pixel.
        one = self._stage(m, walk, "one")
        biases = self._biases(m, walk)
        sums = Signal(data.ArrayLayout(hardware.acc_bits, U), reset_less=True)
        columns = Array(Cat(self.sums[k * U + u] for u in range(U)) for k in range(K))
        m.d.sync += sums.eq(columns[walk.unit])

        # Stage 2: bias.
        two = self._stage(m, one, "two")
        bias = [Array(biases[k * U + u] for k in range(K))[one.unit] for u in range(U)]
        y = [Signal(signed(hardware.bias_bits), name=f"y_{u}", reset_less=True) for u in range(U)]
        m.d.sync += [y[u].eq(sums[u] + bias[u]) for u in range(U)]

        # Stages 3 and 4: shift, clip.
        three = self._stage(m, two, "three")
        clip = Clip(m, layer)
        four = self._stage(m, three, "four")
        codes = Signal(data.ArrayLayout(CODE_BITS, U), reset_less=True)
        moved = None
        if hardware.valued:
            moved, clipped = clip.values(m, y)
            values = [Signal(signed(8), name=f"value_{u}", reset_less=True) for u in range(U)]
            m.d.sync += [value.eq(each) for value, each in zip(values, clipped, strict=True)]
        m.d.sync += [codes[u].eq(each) for u, each in enumerate(clip.codes(m, y, moved))]

        # Stages 5 and 6: gate, pooling.
        six = self._stage(m, self._stage(m, four, "five"), "six")
        if hardware.gated:
            m.submodules.gate = gate = Gate(hardware)
            m.d.comb += [gate.restart.eq(self.restart), gate.fetch.eq(self.fetch),
                         gate.layer.eq(layer), gate.ahead.eq(two), gate.walk.eq(four),
                         gate.codes.eq(codes)]
            codes = gate.gated
        m.submodules.pool = pool = Pool(hardware)
        m.d.comb += [pool.layer.eq(layer), pool.walk.eq(four), pool.codes.eq(codes)]
        if hardware.gated:
            m.d.comb += [gate.keep.eq(pool.keep), gate.kept.eq(pool.kept)]

        # Stage 7: place and write.
        m.submodules.writer = writer = Writer(hardware)
        last = layer.last if hardware.output_words else 0
        others = []  # what emits codes of its own, pool aside; at no time do two
        m.d.comb += [
            writer.fetch.eq(self.fetch), writer.layer.eq(layer), writer.walk.eq(six),
            writer.emit.eq(pool.emit & ~last), writer.codes.eq(pool.pooled),
            self.write.eq(writer.write),
            self.probe.valid.eq(pool.emit), self.probe.layer.eq(self.index),
            self.probe.codes.eq(Mux(pool.emit, pool.pooled, 0)),
        ]
        if hardware.output_words:
            self._leave(m, values if "map" in hardware.outputs else None, four, six, pool, last)

        # The memory registers the write once more before it is done.
        written = Signal(2)
        m.d.sync += written.eq(Cat(six.valid & six.layer_last, written))
        m.d.comb += self.done.eq(written[-1])
        if hardware.summing:
            m.submodules.head = head = Head(hardware)
            m.d.comb += [
                head.fetch.eq(self.fetch), head.layer.eq(layer), head.walk.eq(one),
                head.sums.eq(sums), head.bias.eq(biases), self.best.eq(head.result)]
            with m.If(is_summed(layer)):
                m.d.comb += self.done.eq(head.done)
            if hardware.gated:
                m.d.comb += [gate.signs.eq(head.signs), gate.select.eq(head.select)]
            if hardware.vectors:
                self._one_position(m, writer, makes(layer, "vector"), head)
                others.append(head)
        if hardware.cells:
            m.submodules.cell = cell = Cell(hardware)
            m.d.comb += [cell.fetch.eq(self.fetch), cell.layer.eq(layer),
                         cell.active.eq(makes(layer, "cell")), cell.first.eq(self.first),
                         cell.walk.eq(four)]
            m.d.comb += [cell.values[u].eq(value) for u, value in enumerate(values)]
            self._one_position(m, writer, makes(layer, "cell"), cell)
            others.append(cell)
        if others:  # pixels wait for these, which do not wait for the operation to be decoded
            emits = [each.emit for each in others]
            m.d.comb += [writer.emit.eq(reduce(or_, emits, pool.emit & ~last)),
                         self.probe.valid.eq(reduce(or_, emits, pool.emit))]
        if hardware.folds:
            m.d.comb += self.writes.eq(
                reduce(or_, [each.emits for each in others], pool.emits & ~last))
        return m

    def _one_position(self, m: Module, writer: Writer, active, source):
        """Codes of a map of one position are written as they come from where they are made."""
        with m.If(active):
            m.d.comb += [
                writer.walk.valid.eq(source.emit), writer.walk.unit_last.eq(source.last),
                writer.walk.channels_last.eq(source.last),
                writer.codes.eq(source.codes),
                self.probe.codes.eq(Mux(source.emit, source.codes.as_value(), 0)),
            ]

    def _leave(self, m: Module, values: list | None, four, six, pool, last):
        """Codes behind stage 6, and values, which are there at stage 4 and pass by the pool."""
        layer, leaving = self.layer, self.leaving
        m.d.comb += [leaving.walk.eq(six), leaving.valid.eq(pool.emit & last)]
        for u, code in enumerate(pool.pooled):
            m.d.comb += leaving["values"][u].eq(code)
        if values is None:
            return
        emit = delay(m, four.valid & four.inside, 2, "emit")
        later = [carry(m, value, 2, f"value_{u}") for u, value in enumerate(values)]
        with m.If(layer.result == RESULTS.index("map")):
            m.d.comb += leaving.valid.eq(emit)
            m.d.comb += [leaving["values"][u].eq(each) for u, each in enumerate(later)]

    def _stage(self, m: Module, before, name: str):
        after = Signal(before.shape(), name=f"at_{name}")
        m.d.sync += after.eq(before)
        return after

    def _biases(self, m: Module, walk):
        """Biases of the channel tile that is at stage one, read while the one before it is.

        From row to row, memory and register, there are three cycles, one less than from tile to
        tile at least.
        """
        port = store(m, self, "biases", self.biases)
        pointer = Signal(range(self.hardware.tiles + 2))  # up to one behind the last one read
        ahead = Signal.like(port.data, reset_less=True)
        now = Signal.like(port.data, name="biases_now", reset_less=True)
        restart = delay(m, self.restart, 1, "restarts")  # from far away
        begins = delay(m, restart, 2, "begins")
        advance = Signal()
        m.d.sync += advance.eq(begins | (walk.valid & walk.channels_last))
        m.d.comb += port.addr.eq(pointer)
        m.d.sync += ahead.eq(port.data)
        with m.If(restart):
            m.d.sync += pointer.eq(self.record.tiles_base)
        with m.Elif(advance):
            m.d.sync += [now.eq(ahead), pointer.eq(pointer + 1)]
        return data.View(bias_layout(self.hardware), now)
