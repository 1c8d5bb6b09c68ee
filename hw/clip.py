"""Codes and values of sums: shifted to the right, and clipped to what such can be."""

from amaranth import Cat, Const, Module, Mux, Signal

from hw.walk import CODE_BITS


def lowest(value, shift, count: int):
    """The lowest bits of `value >> shift`: large steps first, behind which few bits are needed."""
    sign = value[-1] if value.shape().signed else None
    for k in reversed(range(len(shift))):
        needed = count + 2**k - 1
        above = needed + 2**k
        value = Cat(value, Const(0, above) if sign is None else sign.replicate(above))
        value = Mux(shift[k], value[2**k:2**k + needed], value[:needed])
    return value


class Clip:
    """Clips signed sums, all of one width, shifted.

    The bits above a code are looked at where they lie, by a mask that all sums share, so that only
    a code's bits need a shifter. Shift and mask are there two cycles after the descriptor.
    """

    def __init__(self, m: Module, layer):
        self.layer = layer
        self.shift = Signal.like(layer.shift, name="shift", reset_less=True)
        self.peak = Signal(CODE_BITS, name="peak", reset_less=True)
        m.d.sync += [self.shift.eq(layer.shift), self.peak.eq((1 << layer.code_bits) - 1)]

    def codes(self, m: Module, sums: list, moved: list | None = None) -> list:
        """`clip(sum >> shift, 0, 2**code_bits - 1)` of sums a cycle ago.

        `moved` are their lowest bits, shifted, in this cycle, if there are such.
        """
        mask = self._mask(m, sums, self.layer.code_bits)
        found = []
        for u, each in enumerate(sums):
            if moved is None:
                bits = Signal(CODE_BITS, name=f"bits_{u}", reset_less=True)
                m.d.sync += bits.eq(lowest(each[:-1], self.shift, CODE_BITS))
            else:
                bits = moved[u][:CODE_BITS]
            above = Signal(name=f"above_{u}", reset_less=True)
            negative = Signal(name=f"negative_{u}", reset_less=True)
            m.d.sync += [above.eq((each[:-1] & mask).any()), negative.eq(each[-1])]
            found.append(Mux(negative, 0, Mux(above, self.peak, bits)))
        return found

    def values(self, m: Module, sums: list) -> tuple[list, list]:
        """`clip(sum >> shift, -2**out_bits, 2**out_bits - 1)` of sums a cycle ago, signed.

        With them the lowest eight bits, shifted, that they are made of.
        """
        peak = Signal(8, name="value_peak", reset_less=True)
        mask = self._mask(m, sums, self.layer.out_bits, "value_")
        m.d.sync += peak.eq((1 << self.layer.out_bits) - 1)
        bits, found = [], []
        for u, each in enumerate(sums):
            moved = Signal(8, name=f"moved_{u}", reset_less=True)
            beyond = Signal(name=f"beyond_{u}", reset_less=True)
            below = Signal(name=f"below_{u}", reset_less=True)
            sign = each[-1].replicate(len(mask))
            m.d.sync += [moved.eq(lowest(each, self.shift, 8)), below.eq(each[-1]),
                         beyond.eq(((each[:-1] ^ sign) & mask).any())]
            bits.append(moved)
            found.append(Mux(beyond, peak ^ below.replicate(8), moved).as_signed())
        return bits, found

    def _mask(self, m: Module, sums: list, bits, name: str = ""):
        """Of sums the bits that lie above so many, shifted; a sign apart."""
        top = Signal(range(2 ** len(self.layer.shift) + 2 ** len(bits)), name=f"{name}top",
                     reset_less=True)
        mask = Signal(len(sums[0]) - 1, name=f"{name}mask", reset_less=True)
        m.d.sync += [top.eq(self.layer.shift + bits),
                     mask.eq(Cat(top <= k for k in range(len(mask))))]
        return mask
