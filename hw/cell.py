"""The recurrent cell: gates of one bit, a state that is kept or added to; AND masks, one adder."""

from amaranth import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from export.hardware import Hardware
from hw.descriptor import layer_layout
from hw.pipeline import delay
from hw.walk import CODE_BITS, walk_layout

VALUE_BITS = 8


class Cell(wiring.Component):
    """Updates the state c of a tile's channels and makes their codes h, in the tile's last gate.

    The gates i, f, g and o of the channels come one behind the other, as values of one position::

        full      c = clip((f ? c : 0) + (i ? g : 0))
        coupled   c = f ? c : clip(g)
        h = o ? clip((c >> state_shift) + 2**(code_bits - 1), 0, 2**code_bits - 1) : 0

    Codes come four cycles after the values of o, two later than pooled ones: in the cycle in which
    the operation is done, and nobody reads that soon.

    Members
    -------
    fetch : In(1)       an operation starts in the next cycle
    layer : In(layer_layout)
    active : In(1)      it is a cell
    first : In(1)       the clip has had no tick of it before: c counts as 0
    walk : In(walk_layout)      the unit
    values : In(ArrayLayout(signed(8), unit))
    codes : Out(ArrayLayout(3, unit)), emit, last : Out(1)      ... of a tile's last unit
    emits : Out(1)      `emit` of the next cycle
    """

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        unit = hardware.array.unit
        super().__init__({
            "fetch": In(1),
            "layer": In(layer_layout(hardware)),
            "active": In(1), "first": In(1),
            "walk": In(walk_layout(hardware)),
            "values": In(data.ArrayLayout(signed(VALUE_BITS), unit)),
            "codes": Out(data.ArrayLayout(CODE_BITS, unit)), "emit": Out(1), "last": Out(1),
            "emits": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        hardware, layer, walk, values = self.hardware, self.layer, self.walk, self.values
        U, K = hardware.array.unit, hardware.array.units

        # Which gate: the full form counts from i on, the coupled one from f on.
        gate = Signal(2)
        fetched = Signal()
        pointer = Signal(range(hardware.state_words + 1))
        m.d.sync += fetched.eq(self.fetch)  # now the descriptor is there
        here = walk.valid & walk.inside & self.active
        output = here & (gate == 3)
        with m.If(self.active & walk.valid & walk.channels_last):
            m.d.sync += gate.eq(Mux(gate == 3, layer.coupled, gate + 1))
        with m.If(output):
            m.d.sync += pointer.eq(pointer + 1)
        with m.If(fetched):
            m.d.sync += [gate.eq(layer.coupled), pointer.eq(layer.state_base)]

        signs = Signal(U)
        m.d.comb += signs.eq(Cat(value >= 0 for value in values))
        kept = {}
        for number, name in enumerate("ifg"):
            what = values if name == "g" else signs
            kept[name] = [Signal.like(what, name=f"{name}_{k}") for k in range(K)]
            for k, register in enumerate(kept[name]):
                with m.If(here & (gate == number) & (walk.unit == k)):
                    m.d.sync += register.eq(what)
        i, f, g = (delay(m, Array(kept[name])[walk.unit], 1, name) for name in "ifg")
        o = delay(m, signs, 4, "o")

        m.submodules.states = states = Memory(
            shape=U * hardware.state_bits, depth=hardware.state_words, init=[])
        read, write = states.read_port(), states.write_port()
        updates = delay(m, output, 2, "updates")
        m.d.comb += [read.addr.eq(pointer), write.addr.eq(delay(m, pointer, 2, "pointer")),
                     write.en.eq(updates)]
        state_peak = Signal(hardware.state_bits)
        code_peak = Signal(CODE_BITS)
        m.d.sync += [state_peak.eq((1 << layer.state_bits) - 1),
                     code_peak.eq((1 << layer.code_bits) - 1)]
        for u in range(U):
            state = signed(hardware.state_bits)
            old, new, now = (Signal(state, name=f"{name}_{u}") for name in ("old", "new", "now"))
            value = g[u * VALUE_BITS:(u + 1) * VALUE_BITS].as_signed()
            total = Signal(signed(VALUE_BITS + 1), name=f"total_{u}")
            adds = Mux(layer.coupled, ~f[u], i[u])
            m.d.comb += [
                old.eq(Mux(self.first | ~f[u], 0,
                           read.data.word_select(u, hardware.state_bits).as_signed())),
                new.eq(Mux(total > state_peak, state_peak,
                           Mux(total < ~state_peak.as_signed(), ~state_peak, total))),
                write.data.word_select(u, hardware.state_bits).eq(new),
            ]
            m.d.sync += [total.eq(old + Mux(adds, value, 0)), now.eq(new)]
            level = Signal(signed(VALUE_BITS + 1), name=f"level_{u}")
            m.d.sync += level.eq((now >> layer.state_shift) + (1 << layer.code_bits >> 1))
            code = Mux(level < 0, 0, Mux(level > code_peak, code_peak, level))
            m.d.comb += self.codes[u].eq(Mux(o[u], code, 0))
        emits = delay(m, updates, 1, "emits")
        m.d.comb += [self.emits.eq(emits), self.emit.eq(delay(m, emits, 1, "emit")),
                     self.last.eq(delay(m, walk.unit == K - 1, 4, "last"))]
        return m
