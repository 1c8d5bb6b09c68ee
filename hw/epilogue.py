"""From sums to codes: bias, shift, clip, pooling, placing; at the end: scores and argmax."""

from itertools import pairwise

from amaranth import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from export.program import Program
from hw.descriptor import bias_layout, layer_layout
from hw.gate import CODE_BITS, Gate, walk_layout
from hw.memory import LANES, write_layout


def probe_layout(program: Program) -> data.StructLayout:
    """Codes as they are written: channel tile by channel tile, in each pixel by pixel in raster
    order, in each `unit` channels at a time."""
    return data.StructLayout({
        "valid": 1,
        "layer": range(len(program.layers)),
        "codes": data.ArrayLayout(CODE_BITS, program.unit),
    })


class Epilogue(wiring.Component):
    """Takes one pixel of C sums every `units` cycles, `unit` channels per cycle, without stalls.

    `code = clip((sum + bias) >> shift, 0, 2**code_bits - 1)`; the maximum over 2x2 codes needs one
    buffered row of half the width. Codes are placed as the reading layer wants its words.
    Before pooling, a gate may merge them with the skip's codes (:class:`hw.gate.Gate`).
    The classifier's sums go over all pixels instead; the first of the highest scores wins. So do
    those that a mux selects by: of them only the signs are kept (the classifier's, which are kept
    too, are written over before they could be read).

    Members
    -------
    restart : In(1)     bias pointer back to the first channel tile, between frames
    fetch : In(1)       a layer starts in the next cycle
    layer, index : In   its descriptor and number
    start : In(1), sums : In(ArrayLayout(acc_bits, C))      from the array
    write : Out(write_layout)
    done : Out(1)       all of the layer is in the memory, or the result is there
    result : Out(result_layout)     class and score, valid from the classifier's `done` on
    probe : Out(probe_layout)
    """

    def __init__(self, program: Program, biases: list[int]):
        self.program, self.rom = program, biases
        super().__init__({
            "restart": In(1),
            "fetch": In(1),
            "layer": In(layer_layout(program)),
            "index": In(range(len(program.layers))),
            "start": In(1),
            "sums": In(data.ArrayLayout(program.acc_bits, program.array.columns)),
            "write": Out(write_layout(program)),
            "done": Out(1),
            "result": Out(result_layout(program)),
            "probe": Out(probe_layout(program)),
        })

    def elaborate(self, platform):
        m = Module()
        program, layer = self.program, self.layer
        U, K = program.unit, program.units

        walk = self._walk(m)
        biases = self._biases(m, walk)

        # Stage 1: one unit of the drained pixel.
        one = self._stage(m, walk, "one")
        sums = Signal(data.ArrayLayout(program.acc_bits, U))
        columns = Array(Cat(self.sums[k * U + u] for u in range(U)) for k in range(K))
        m.d.sync += sums.eq(columns[walk.unit])

        # Stage 2: bias.
        two = self._stage(m, one, "two")
        bias = [Array(biases[k * U + u] for k in range(K))[one.unit] for u in range(U)]
        y = [Signal(signed(program.bias_bits), name=f"y_{u}") for u in range(U)]
        m.d.sync += [y[u].eq(sums[u] + bias[u]) for u in range(U)]

        # Stage 3: shift and clip.
        three = self._stage(m, two, "three")
        codes = [Signal(CODE_BITS, name=f"code_{u}") for u in range(U)]
        peak = Signal(CODE_BITS)
        m.d.comb += peak.eq((1 << layer.code_bits) - 1)
        for u in range(U):
            shifted = y[u] >> layer.shift
            m.d.sync += codes[u].eq(Mux(shifted < 0, 0, Mux(shifted > peak, peak, shifted)))

        # Stage 4: gate, pooling.
        four = self._stage(m, three, "four")
        if program.gated:
            m.submodules.gate = gate = Gate(program)
            m.d.comb += [gate.restart.eq(self.restart), gate.fetch.eq(self.fetch),
                         gate.layer.eq(layer), gate.ahead.eq(two), gate.walk.eq(three),
                         gate.codes.eq(Cat(codes))]
            codes = [gate.gated[u] for u in range(U)]
        pooled, block = self._pool(m, two, three, codes)
        inside = three.valid & three.inside & ~layer.summed
        corner = three.x[0] & three.y[0]
        emit = Signal()
        m.d.sync += emit.eq(inside & (~layer.pool | corner))
        if program.gated:
            # What later gates need, pooled or not.
            m.d.sync += [gate.keep.eq(layer.keep & inside
                                      & (~(layer.pool | layer.keep_pooled) | corner)),
                         gate.kept.eq(Mux(layer.pool | layer.keep_pooled, block, Cat(codes)))]

        # Stage 5: place and write.
        self._place(m, four, emit, pooled)
        m.d.comb += [self.probe.valid.eq(emit), self.probe.layer.eq(self.index),
                     self.probe.codes.eq(Mux(emit, Cat(pooled), 0))]

        scored, signs, signed_now = self._classify(m, one, sums, biases)
        if program.gated:
            m.d.comb += [gate.signs.eq(signs),
                         gate.select.eq(signed_now)]
        # The memory registers the write once more before it is done.
        written = Signal(2)
        m.d.sync += written.eq(Cat(four.valid & four.layer_last, written))
        m.d.comb += self.done.eq(Mux(layer.summed, scored, written[-1]))
        return m

    def _walk(self, m: Module):
        """Where the pixel on the drain lies; counts along with the array."""
        program, layer = self.program, self.layer
        rows, units = program.array.rows, program.units
        walk = Signal(walk_layout(program))
        row, tile = Signal(range(rows)), Signal.like(layer.last_pixel_tile)
        channel_tile = Signal.like(layer.last_channel_tile)
        unit, x, y = (Signal.like(field) for field in (walk.unit, walk.x, walk.y))
        below, first = Signal(), Signal(init=1)
        running = Signal()

        unit_last = unit == units - 1
        row_last = unit_last & (row == rows - 1)
        channels_last = row_last & (tile == layer.last_pixel_tile)
        m.d.comb += [
            walk.valid.eq(self.start | running),
            walk.inside.eq(~below),
            walk.unit.eq(unit), walk.x.eq(x), walk.y.eq(y),
            walk.unit_last.eq(unit_last),
            walk.first.eq(first),
            walk.channels_last.eq(channels_last),
            walk.layer_last.eq(channels_last & (channel_tile == layer.last_channel_tile)),
        ]
        with m.If(walk.valid):
            m.d.sync += [unit.eq(unit + 1), running.eq(1)]
            with m.If(unit_last):
                m.d.sync += [unit.eq(0), row.eq(row + 1), x.eq(x + 1), first.eq(0)]
                with m.If(x == layer.last_x):
                    m.d.sync += [x.eq(0), y.eq(y + 1)]
                    with m.If(y == layer.last_y):
                        m.d.sync += below.eq(1)
            with m.If(row_last):
                m.d.sync += [row.eq(0), running.eq(0), tile.eq(tile + 1)]
            with m.If(channels_last):
                m.d.sync += [tile.eq(0), channel_tile.eq(channel_tile + 1),
                             x.eq(0), y.eq(0), below.eq(0), first.eq(1)]
                with m.If(walk.layer_last):
                    m.d.sync += channel_tile.eq(0)
        return walk

    def _stage(self, m: Module, before, name: str):
        after = Signal(before.shape(), name=f"at_{name}")
        m.d.sync += after.eq(before)
        return after

    def _biases(self, m: Module, walk):
        """Biases of the channel tile that is at stage one."""
        m.submodules.biases = rom = Memory(
            shape=bias_layout(self.program).size, depth=len(self.rom), init=self.rom)
        port = rom.read_port()
        pointer = Signal(range(len(self.rom) + 1))
        m.d.comb += port.addr.eq(pointer)
        with m.If(self.restart):
            m.d.sync += pointer.eq(0)
        with m.Elif(walk.valid & walk.channels_last):
            m.d.sync += pointer.eq(pointer + 1)
        return data.View(bias_layout(self.program), port.data)

    def _pool(self, m: Module, two, three, codes):
        """Codes at stage four, the maximum of 2x2 if the layer pools, and that maximum before."""
        program, layer = self.program, self.layer
        U, K = program.unit, program.units
        pooled = [Signal(CODE_BITS, name=f"pooled_{u}") for u in range(U)]
        pooling = [spec for spec in program.layers if spec.pool or spec.keep_pooled]
        if not pooling:
            m.d.sync += [new.eq(code) for new, code in zip(pooled, codes, strict=True)]
            return pooled, Cat(codes)
        width = max(spec.source.width // 2 for spec in pooling)
        pools = layer.pool | layer.keep_pooled if program.gated else layer.pool
        m.submodules.line = line = Memory(
            shape=CODE_BITS * U, depth=width * K, init=[])
        read, write = line.read_port(), line.write_port()

        def entry(stage):
            return (stage.x >> 1) * K + stage.unit if K > 1 else stage.x >> 1

        left = Array(Signal(CODE_BITS * U, name=f"left_{k}") for k in range(K))
        now = Cat(codes)
        m.d.comb += read.addr.eq(entry(two))

        def maximum(a, b):
            pairs = ((a.word_select(u, CODE_BITS), b.word_select(u, CODE_BITS)) for u in range(U))
            return Cat(Mux(p > q, p, q) for p, q in pairs)

        pair, block = Signal(CODE_BITS * U), Signal(CODE_BITS * U)
        m.d.comb += [pair.eq(maximum(left[three.unit], now)), block.eq(maximum(pair, read.data)),
                     write.addr.eq(entry(three)), write.data.eq(pair),
                     write.en.eq(three.valid & three.inside & pools & three.x[0]
                                 & ~three.y[0])]
        with m.If(three.valid & ~three.x[0]):
            m.d.sync += left[three.unit].eq(now)
        m.d.sync += Cat(pooled).eq(Mux(layer.pool, block, now))
        return pooled, block

    def _place(self, m: Module, four, emit, codes):
        """Writes a unit of channels where the next layer's words have them."""
        program, layer, write = self.program, self.layer, self.write
        rows, unit, half = program.array.rows, program.unit, program.array.words
        lane_bits = 2 * half
        wide = unit == lane_bits  # a unit fills a whole lane; at two bits, two of them
        parts = lane_bits // unit

        # Position of the unit: word address, lane, part of the lane.
        place = data.StructLayout({
            "word": range(program.depth), "lane": range(LANES), "part": range(parts)})
        base, now, after = (Signal(place, name=f"place_{n}") for n in ("base", "now", "after"))

        def advance(parts, lanes):
            """The next part, or else `lanes` further, or else the next word."""
            m.d.comb += after.eq(now)
            with m.If(now.part != parts - 1):
                m.d.comb += after.part.eq(now.part + 1)
            with m.Else():
                m.d.comb += after.part.eq(0)
                with m.If(now.lane >= LANES - lanes):
                    m.d.comb += [after.lane.eq(now.lane + lanes - LANES),
                                 after.word.eq(now.word + layer.out_slots)]
                with m.Else():
                    m.d.comb += after.lane.eq(now.lane + lanes)

        slot, bank = Signal.like(layer.out_slots), Signal(range(rows))
        fetched = Signal()
        m.d.sync += fetched.eq(self.fetch)
        with m.If(fetched):
            m.d.sync += [target.word.eq(layer.out_base) for target in (base, now)]
            m.d.sync += [Cat(target.lane, target.part).eq(0) for target in (base, now)]
        with m.Elif(four.valid):
            m.d.sync += now.eq(Mux(four.unit_last, base, after))
            with m.If(emit & four.unit_last):
                m.d.sync += bank.eq(bank + 1)
                with m.If(bank == rows - 1):
                    m.d.sync += [bank.eq(0), slot.eq(slot + 1)]
            with m.If(four.channels_last):
                m.d.sync += [base.eq(after), now.eq(after), slot.eq(0), bank.eq(0)]

        m.d.comb += [write.valid.eq(emit), write.bank.eq(bank), write.address.eq(now.word + slot)]
        bits = [Cat(code[b] for code in codes) for b in range(CODE_BITS)]
        this_part = 1 << now.part
        with m.Switch(layer.out_mode):
            if 3 in program.array.precisions:
                with m.Case(3):  # lane k holds bit k of its operands
                    advance(parts, LANES)
                    for k in range(LANES):
                        m.d.comb += [write.data[k].eq(bits[k].replicate(parts)),
                                     write.enable[k].eq(this_part)]
            if 2 in program.array.precisions:
                with m.Case(2):  # a lane holds low bits in one half, high bits in the other
                    if wide:
                        advance(parts, 2)
                        low, high = (Cat(bits[0][part], bits[1][part])
                                     for part in (slice(0, half), slice(half, 2 * half)))
                        m.d.comb += write.carry.eq(Mux(now.lane == LANES - 1, layer.out_slots, 0))
                        for k in range(LANES):
                            at_low, at_high = now.lane == k, now.lane == (k - 1) % LANES
                            m.d.comb += [write.data[k].eq(Mux(at_low, low, high)),
                                         write.enable[k].eq(at_low | at_high)]
                    else:
                        advance(parts // 2, 1)
                        word = Cat(bit.replicate(parts // 2) for bit in bits[:2])
                        both = this_part | (this_part << parts // 2)
                        for k in range(LANES):
                            m.d.comb += [write.data[k].eq(word),
                                         write.enable[k].eq(Mux(now.lane == k, both, 0))]
            if 1 in program.array.precisions:
                with m.Case(1):
                    advance(parts, 1)
                    for k in range(LANES):
                        m.d.comb += [write.data[k].eq(bits[0].replicate(parts)),
                                     write.enable[k].eq(Mux(now.lane == k, this_part, 0))]

    def _classify(self, m: Module, one, sums, biases):
        """Scores of a channel tile, then one comparison per cycle; pulses after the last one.

        Returns that pulse, which columns' sums are not negative, and when that is known.
        """
        program, layer, result = self.program, self.layer, self.result
        columns, unit = program.array.columns, program.unit
        score = signed(program.score_bits)
        totals = [Signal(score, name=f"total_{c}") for c in range(columns)]
        active = one.valid & layer.summed
        for c, total in enumerate(totals):
            with m.If(active & one.inside & (one.unit == c // unit)):
                m.d.sync += total.eq(Mux(one.first, biases[c], total) + sums[c % unit])

        load, last = Signal(), Signal()
        m.d.sync += [load.eq(active & one.channels_last), last.eq(one.layer_last)]
        waiting = [Signal(score, name=f"score_{c}") for c in range(columns)]
        left = Signal(range(columns + 1))
        number = Signal(range(program.layers[-1].channel_tiles * columns))
        final, scored = Signal(), Signal()
        m.d.sync += scored.eq(final & (left == 1))
        with m.If(load):
            m.d.sync += [w.eq(total) for w, total in zip(waiting, totals, strict=True)]
            m.d.sync += [left.eq(columns), final.eq(last)]
        with m.Elif(left != 0):
            m.d.sync += [w.eq(other) for w, other in pairwise(waiting)]
            m.d.sync += [left.eq(left - 1), number.eq(number + 1)]
            with m.If(waiting[0] > result.score):
                m.d.sync += [result.score.eq(waiting[0]), result["class"].eq(number)]
        with m.If(self.fetch):
            m.d.sync += number.eq(0)
            with m.If(self.index == len(program.layers) - 1):
                m.d.sync += result.score.eq(-(1 << program.score_bits - 1))
        return scored, Cat(~total[-1] for total in totals), load


def result_layout(program: Program) -> data.StructLayout:
    """The class, and its score: the sum over the last feature map with its bias."""
    return data.StructLayout({"class": range(program.config.network.classes),
                              "score": signed(program.score_bits)})
