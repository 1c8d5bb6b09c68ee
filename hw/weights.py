"""Turns steps into words for the columns: weights from memories, or from automata."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import DECODER_CYCLES, FEEDER_CYCLES, Hardware
from hw.array import WEIGHT_CONTROL
from hw.automaton import Automaton
from hw.descriptor import layer_layout
from hw.pipeline import carry, delay
from hw.records import record_layout
from hw.sequencer import step_layout
from hw.store import deep_cycles, deep_store, fill_member, store
from hw.unpacker import WeightUnpacker
from hw.verilog import shared


class WeightFeeder(wiring.Component):
    """Reads the weight memory in step with the feeder: a word per column and step.

    The words of a channel tile are read again for every digit and every pixel tile; the tiles of
    all layers lie one behind the other. Each segment of the words has a memory and a counter of
    its own, which rest while a layer's words do not reach that far.

    Members
    -------
    restart : In(1)     to the first word of the program of `record`, between frames
    record : In(record_layout)
    fetch : In(1)       a layer starts in the next cycle
    layer : In(layer_layout)
    step : In(step_layout)
    rows : Out(ArrayLayout(6 * words, C))       as the array takes them
    control : Out(WEIGHT_CONTROL)
    fill : In(fill_layout)      of RAM only
    """

    def __init__(self, hardware: Hardware, roms: list[list[int]], seeds: list[int]):
        self.hardware, self.roms, self.seeds = hardware, roms, seeds
        self.memory_latency = deep_cycles(depth for _, depth in hardware.weights)
        self.latency = self.memory_latency + WeightUnpacker.LATENCY + 1  # choice of a row
        array = hardware.array
        super().__init__({
            "restart": In(1),
            "record": In(record_layout(hardware)),
            "fetch": In(1),
            "layer": In(layer_layout(hardware)),
            "step": In(step_layout(hardware)),
            "rows": Out(data.ArrayLayout(6 * array.words, array.columns)),
            "control": Out(WEIGHT_CONTROL),
            **fill_member(hardware),
        })

    def elaborate(self, platform):
        m = Module()
        hardware, layer, array = self.hardware, self.layer, self.hardware.array
        assert self.latency <= FEEDER_CYCLES - DECODER_CYCLES
        late = data.View(step_layout(hardware), delay(
            m, self.step, FEEDER_CYCLES - DECODER_CYCLES - self.latency, "step"))
        segments = [self._segment(m, late, k) for k in range(len(hardware.weights))]

        tail = Signal(6 * array.words, reset_less=True)
        m.d.sync += tail.eq(Cat(layer.tail > k for k in range(6 * array.words)))
        word_last = carry(m, late.word_last, self.memory_latency, "stored_last")
        formats = tuple(sorted(hardware.formats))
        chosen = Signal(range(max(2, len(formats))), name="format", reset_less=True)
        for k, (mode, bits) in enumerate(formats):
            with m.If((layer.mode == mode) & (layer.weight_bits == bits)):
                m.d.sync += chosen.eq(k)
        generated = self._automata(m, late)
        for c in range(array.columns):
            unpacker = WeightUnpacker(words=array.words, formats=formats, dense=array.dense)
            m.submodules[f"unpacker_c{c}"] = shared(unpacker, platform, "unpacker")
            m.d.comb += [
                unpacker.stored.eq(Cat(segment[c] for segment in segments)),
                unpacker.format.eq(chosen),
                unpacker.valid.eq(Mux(word_last, tail, ~0)),
            ]
            row = unpacker.row
            for number, rows in generated.items():
                row = Mux(layer.generator == number, rows[c], row)
            kept = Signal.like(row, name=f"row_{c}", reset_less=True)
            m.d.sync += kept.eq(row)
            m.d.comb += self.rows[c].eq(kept)

        control = Signal(WEIGHT_CONTROL)
        m.d.comb += control.word_last.eq(late.word_last)
        if array.digit_bits == 3:  # 2 + 3 + 3 bits: the first digit is short
            m.d.comb += control.top.eq((layer.last_digit != 0) & (late.digit == 0))
        m.d.comb += self.control.eq(carry(m, control, self.latency, "weight_control"))
        return m

    def _automata(self, m: Module, late) -> dict[int, list]:
        """Each column's row of the layers with generated weights, as unpacked ones come."""
        hardware, layer, array = self.hardware, self.layer, self.hardware.array
        if not hardware.generators:
            return {}
        seed = store(m, self, "seeds", self.seeds)
        fetched = Signal(2)
        base = Signal(range(hardware.seeds + 1), name="seed_base")
        with m.If(self.restart):
            m.d.sync += base.eq(self.record.seeds_base)
        now = data.View(late.shape(), delay(m, late, self.latency - 1, "generated_step"))
        valid = Mux(now.word_last, Cat(layer.tail > k for k in range(6 * array.words)), ~0)
        # The descriptor comes a cycle after `fetch`, its seed one more.
        m.d.sync += fetched.eq(Cat(self.fetch, fetched))
        m.d.comb += seed.addr.eq(base + layer.seed)
        rows = {}
        for number, spec in enumerate(sorted(hardware.generators), 1):
            m.submodules[f"automaton{number}"] = automaton = Automaton(spec, array)
            m.d.comb += [
                automaton.seed.eq(seed.data),
                automaton.load.eq(fetched[-1]),
                automaton.step.eq(now.valid & (layer.generator == number)),
                automaton.rewind.eq(now.pass_last & ~now.tile_done),
                automaton.advance.eq(now.tile_done),
                automaton.valid.eq(valid),
            ]
            rows[number] = [automaton.rows[c] for c in range(array.columns)]
        return rows

    def _segment(self, m: Module, late, k: int):
        """Segment `k` of every column's word, `memory_latency` cycles behind the step `late`."""
        edges, columns = self.hardware.weight_edges, self.hardware.array.columns
        width, (_, depth) = edges[k + 1] - edges[k], self.hardware.weights[k]
        row = Signal(range(depth), name=f"row{k}")
        base = Signal.like(row, name=f"base{k}")  # of the channel tile in work
        with m.If(self.restart):
            begin = self.record[f"weights{k}_base"]
            m.d.sync += [row.eq(begin), base.eq(begin)]
        with m.Elif(late.valid & (self.layer.segments > k)):
            with m.If(late.tile_done):
                m.d.sync += [row.eq(row + 1), base.eq(row + 1)]
            with m.Elif(late.pass_last):
                m.d.sync += row.eq(base)
            with m.Else():
                m.d.sync += row.eq(row + 1)
        stored = deep_store(m, self, f"weights{k}", self.roms[k], row, self.memory_latency)
        return data.View(data.ArrayLayout(width, columns), stored)
