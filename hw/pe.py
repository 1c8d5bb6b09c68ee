"""One processing element: multiplies a word group of codes with one of weights and accumulates."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

# Travels along a row, `ProcessingElement.LATENCY` cycles after the activations of its step.
CONTROL = data.StructLayout({
    "first": 1,  # first step of a tile: the accumulator starts from zero
    "horner": 1,  # first step of a further digit: the accumulator is multiplied by eight before
    "capture": 1,  # in the cycle after a tile's last step: the drain register takes the sum
    "shift": 1,  # the drain register takes its neighbour's, unless `capture`
})


def weight_layout(words: int, precisions) -> data.StructLayout:
    """Decoded weights of one step: what to do with each bit of an activation word group."""
    fields = {"sign": 6 * words, "enable": 6 * words}
    if 3 in precisions:
        fields |= {
            "double": 2 * words,  # planes 1 and 2 take the next lower activation bit
            "high": 2 * words,  # plane 3 takes activation plane 2
        }
    return data.StructLayout(fields)


def in_mode(signal, precision: int, precisions):
    """Whether the one-hot input `mode` selects `precision`; a constant if there is no choice."""
    if precision not in precisions:
        return 0
    return signal[precisions.index(precision)] if len(precisions) > 1 else 1


class ProcessingElement(wiring.Component):
    """Accumulates the products of one word group of codes and one of weights per cycle.

    Members
    -------
    mode : one bit per precision, one-hot; static while steps are under way
    act_i, act_o : 6 * words bits, along the row
    weight_i, weight_o : weight_layout(words, precisions), down the column
    control_i, control_o : CONTROL, along the row, `LATENCY` cycles after the step's activations
    drain_i, drain_o : acc_bits
    """

    LATENCY = 1

    def __init__(self, *, words: int, precisions: tuple[int, ...], acc_bits: int, horner: bool):
        self.words = words
        self.precisions = precisions
        self.acc_bits = acc_bits
        self.horner = horner
        weights = weight_layout(words, precisions)
        super().__init__({
            "mode": In(len(precisions)),
            "act_i": In(6 * words),
            "act_o": Out(6 * words),
            "weight_i": In(weights),
            "weight_o": Out(weights),
            "control_i": In(CONTROL),
            "control_o": Out(CONTROL),
            "drain_i": In(acc_bits),
            "drain_o": Out(acc_bits),
        })

    def elaborate(self, platform):
        m = Module()
        m.d.sync += [
            self.act_o.eq(self.act_i),
            self.weight_o.eq(self.weight_i),
            self.control_o.eq(self.control_i),
        ]
        words, act, weight = self.words, self.act_i, self.weight_i
        if 3 in self.precisions:
            planes = [act[2 * words * k:2 * words * (k + 1)] for k in range(3)]
            act = Cat(planes[0],
                      *(Mux(*bits) for bits in zip(weight.double, planes[0], planes[1], strict=True)),
                      *(Mux(*bits) for bits in zip(weight.double, planes[1], planes[2], strict=True)))
        product = (act ^ weight.sign) & weight.enable
        halves = [product[words * h:words * (h + 1)] for h in range(6)]
        low, mid, high = [halves[0], halves[1]], [halves[2], halves[3]], 0
        if 3 in self.precisions:
            high = sum(halves[4]) + sum(halves[5]) + 2 * sum(
                (planes[2] ^ weight.sign[4 * words:]) & weight.high)
        else:
            low.append(halves[4])
            mid.append(halves[5])
        mid, high = sum(Cat(mid)), high * 1
        if self.precisions != (1,):
            mid = Mux(in_mode(self.mode, 1, self.precisions), mid, mid << 1)
        if 3 in self.precisions:
            high = Mux(in_mode(self.mode, 3, self.precisions), high << 2, high)
        stage = Signal(range(14 * 6 * words))
        step = Signal(range(14 * 6 * words))
        m.d.sync += [stage.eq(sum(Cat(low)) + mid + high), step.eq(stage)]

        # `first` and `capture` act a cycle early, one on the register and one on its input.
        acc = Signal(self.acc_bits)
        total = Signal(self.acc_bits)
        if self.horner:
            m.d.comb += total.eq(Mux(self.control_o.horner, acc << 3, acc) + step)
        else:
            m.d.comb += total.eq(acc + step)
        m.d.sync += acc.eq(Mux(self.control_i.first, 0, total))
        with m.If(self.control_i.capture):
            m.d.sync += self.drain_o.eq(total)
        with m.Elif(self.control_i.shift):
            m.d.sync += self.drain_o.eq(self.drain_i)
        return m
