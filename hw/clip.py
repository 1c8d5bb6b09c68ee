"""Codes of sums: shifted to the right, and clipped to what a code can be."""

from amaranth import Cat, Const, Module, Mux, Signal

from hw.walk import CODE_BITS


def lowest(value, shift, count: int):
    """The lowest bits of `value >> shift`: large steps first, behind which few bits are needed."""
    for k in reversed(range(len(shift))):
        needed = count + 2**k - 1
        value = Cat(value, Const(0, needed + 2**k))
        value = Mux(shift[k], value[2**k:2**k + needed], value[:needed])
    return value


class Clip:
    """Makes `clip(sum >> shift, 0, 2**code_bits - 1)` of signed sums.

    The bits above a code are looked at where they lie, by a mask that all sums share, so that only
    a code's bits need a shifter. Shift and mask are there two cycles after the descriptor.
    """

    def __init__(self, m: Module, layer):
        self.layer = layer
        self.shift = Signal.like(layer.shift, name="shift", reset_less=True)
        self.peak = Signal(CODE_BITS, name="peak", reset_less=True)
        m.d.sync += [self.shift.eq(layer.shift), self.peak.eq((1 << layer.code_bits) - 1)]

    def codes(self, m: Module, sums: list, shifted: list | None = None) -> list:
        """The codes of sums of one width a cycle ago; `shifted`, if something else shifts them."""
        layer, width = self.layer, len(sums[0]) - 1
        top = Signal(range(2 ** len(layer.shift) + CODE_BITS), reset_less=True)
        mask = Signal(width, reset_less=True)
        m.d.sync += [top.eq(layer.shift + layer.code_bits),
                     mask.eq(Cat(top <= k for k in range(width)))]
        found = []
        for u, each in enumerate(sums):
            if shifted is None:
                bits = Signal(CODE_BITS, name=f"bits_{u}", reset_less=True)
                m.d.sync += bits.eq(lowest(each[:-1], self.shift, CODE_BITS))
            else:
                bits = shifted[u][:CODE_BITS]
            above = Signal(name=f"above_{u}", reset_less=True)
            negative = Signal(name=f"negative_{u}", reset_less=True)
            m.d.sync += [above.eq((each[:-1] & mask).any()), negative.eq(each[-1])]
            found.append(Mux(negative, 0, Mux(above, self.peak, bits)))
        return found
