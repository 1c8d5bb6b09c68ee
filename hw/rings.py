"""Which frame of a clip is in work: its clocks, and where the rings of maps stand."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import Hardware
from hw.descriptor import makes


def rings_layout(hardware: Hardware) -> data.StructLayout:
    """Of each clock, every frame, every second one and so on."""
    return data.StructLayout({
        "due": data.ArrayLayout(1, hardware.clocks),  # it ticks at this frame
        "copy": data.ArrayLayout(2, hardware.clocks),  # 0 ... 2: what is written at this tick
        "ticks": data.ArrayLayout(2, hardware.clocks),  # of the clip so far, 3: or more
    })


def copy_after(copy, count: int):
    """The copy of a ring `count` further on."""
    turned = [(k + count) % 3 for k in range(3)]
    return Mux(copy == 0, turned[0], Mux(copy == 1, turned[1], turned[2]))


def copy_offset(stride, copy):
    """Addresses from a ring's first copy to another one."""
    return Mux(copy == 0, 0, Mux(copy == 1, stride, stride << 1))


class Rings(wiring.Component):
    """Counts the frames of a clip.

    A clip begins with the first frame after reset, with one that is marked by `clip` at its first
    pixel (or the next one, if that is dropped), and with one for another program than the frame
    before. Rings turn on without regard to clips: what lies in them of a clip before counts as not
    there, by the ticks.

    Members
    -------
    clip : In(1)        the frame whose first pixel is taken begins a clip
    taken : In(1)       a pixel is taken
    free : In(1)        the frame is not needed any more, or dropped: the next pixel begins one
    number : In(range(programs))    of the frame that is ready
    begin : In(1)       it begins to be worked on; all is known from the next cycle on
    now : Out(rings_layout)
    next_copy : Out(2)  of the ring of pixels, for the next frame
    """

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        super().__init__({
            "clip": In(1), "taken": In(1), "free": In(1),
            "number": In(range(hardware.programs)),
            "begin": In(1),
            "now": Out(rings_layout(hardware)),
            "next_copy": Out(2),
        })

    def elaborate(self, platform):
        m = Module()
        now, clocks = self.now, self.hardware.clocks
        coming = Signal()
        marked = Signal()
        fresh = Signal(init=1)
        with m.If(self.begin):
            m.d.sync += marked.eq(0)
        with m.If(self.taken & ~coming):  # a dropped frame's mark counts for the next one
            m.d.sync += [coming.eq(1), marked.eq(marked | self.clip)]
        with m.If(self.free):
            m.d.sync += coming.eq(0)

        ran = Signal.like(self.number)
        starts = Signal()
        m.d.comb += starts.eq(marked | fresh | (ran != self.number))
        before = Signal(range(2**(clocks - 1)))  # frames of the clip, in the slowest clock's period
        count = Signal.like(before)
        m.d.comb += count.eq(Mux(starts, 0, before))
        with m.If(self.begin):
            m.d.sync += [fresh.eq(0), ran.eq(self.number), before.eq(count + 1)]
        for k in range(clocks):
            due, copy, ticks = now.due[k], now.copy[k], now.ticks[k]
            ticking = Signal(name=f"ticking_{k}")
            m.d.comb += ticking.eq(count[:k].all() if k else 1)
            with m.If(self.begin):
                m.d.sync += due.eq(ticking)
                with m.If(ticking):
                    m.d.sync += copy.eq(copy_after(copy, 1))
                with m.If(starts):
                    m.d.sync += ticks.eq(ticking)
                with m.Elif(ticking & (ticks != 3)):
                    m.d.sync += ticks.eq(ticks + 1)
        m.d.comb += self.next_copy.eq(copy_after(now.copy[0], 1))
        return m


class KernelFrames:
    """Steps through the frames of a kernel, the oldest first, and says where each of them lies.

    `after` is the descriptor of the operation that starts next, which stays until it ends; `layer`
    is its copy. `due`, whether it is computed at this frame, comes with `after`, `out_base` a cycle
    later, and all else two cycles. `base` is the first address of the inputs at the kernel's frame,
    and `there` whether the clip has that frame; `at_end` marks the last one. `first`: the operation
    has had no tick before in this clip.
    """

    def __init__(self, m: Module, hardware: Hardware, layer, after, rings):
        self.due = rings.due[after.clock]
        self._layer = layer
        self._back = Signal(2)  # frames before this one
        self.at_end = Signal()
        self.there = Signal()
        self.base = Signal.like(after.in_base, name="frame_base")
        self._bases = [Signal.like(after.in_base, name=f"base_{back}") for back in range(3)]
        self._theres = Signal(3, init=1)
        ticks = Signal(2)
        m.d.sync += [ticks.eq(rings.ticks[after.in_clock]),
                     self._theres.eq(Cat(1, ticks > 1, ticks > 2))]
        offsets = [Signal.like(after.in_base, name=f"offset_{back}") for back in range(3)]
        for back, (offset, base) in enumerate(zip(offsets, self._bases, strict=True)):
            copy = copy_after(rings.copy[after.in_clock], -back)
            m.d.sync += [offset.eq(copy_offset(after.in_stride, copy)),
                         base.eq(after.in_base + offset)]
        out_offset = Signal.like(after.out_base)
        m.d.sync += out_offset.eq(copy_offset(after.out_stride, rings.copy[after.clock]))
        self.out_base = after.out_base + out_offset
        if hardware.cells:
            self._cell(m, after, rings, offsets[0])

    def _cell(self, m: Module, after, rings, now):
        """A cell's two frames are its input at this tick and its own output at the one before."""
        self.first = Signal()
        offset = Signal.like(after.out_base, name="own_offset")
        copy = copy_after(rings.copy[after.clock], -1)
        m.d.sync += [self.first.eq(rings.ticks[after.clock] == 1),
                     offset.eq(copy_offset(after.out_stride, copy))]
        with m.If(makes(after, "cell")):
            m.d.sync += [self._bases[0].eq(after.out_base + offset),
                         self._bases[1].eq(after.in_base + now),
                         self._theres[:2].eq(Cat(~self.first, 1))]

    def zero(self) -> list:
        """Back to the oldest one."""
        return self._go(self._layer.last_frame)

    def step(self) -> list:
        """On, if it is not at its end."""
        return self._go((self._back - 1)[:2])

    def _go(self, back) -> list:
        return [self._back.eq(back), self.at_end.eq(back == 0),
                self.there.eq(self._theres.bit_select(back, 1)),
                self.base.eq(Mux(back[1], self._bases[2],
                                 Mux(back[0], self._bases[1], self._bases[0])))]
