"""A cellular automaton in place of a layer's weight memory, see :mod:`export.automaton`."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.automaton import CELLS
from export.config import ArrayConfig
from export.hardware import GeneratorFormat
from export.words import bit_positions, operands


class Automaton(wiring.Component):
    """A ring of cells whose state is one step's weights of all columns; one state per cycle.

    Members
    -------
    seed : In(cells)    of the layer
    load : In(1)        back to it, before the layer's first step
    step : In(1)        these weights are used in this cycle
    rewind : In(1)      ... and the first ones of the channel tile follow
    advance : In(1)     ... and those of the next channel tile follow
    valid : In(6 * words)       lanes in use
    rows : Out(ArrayLayout(6 * words, outputs))     as the array takes them
    """

    def __init__(self, generator: GeneratorFormat, array: ArrayConfig):
        self.generator, self.array = generator, array
        super().__init__({
            "seed": In(generator.cells(array)),
            "load": In(1), "step": In(1), "rewind": In(1), "advance": In(1),
            "valid": In(6 * array.words),
            "rows": Out(data.ArrayLayout(6 * array.words, array.columns)),
        })

    def elaborate(self, platform):
        m = Module()
        generator, mode, words = self.generator, self.generator.mode, self.array.words
        per_weight, cells = CELLS[generator.mapping], generator.cells(self.array)
        state = Signal(cells)
        base = Signal(cells)  # first state of the channel tile
        left, right = state.rotate_left(1), state.rotate_right(1)
        table = Const(generator.rule, 8)
        following = Cat(table.bit_select(Cat(c, b, a), 1)
                        for a, b, c in zip(left, state, right, strict=True))
        with m.If(self.load):
            m.d.sync += [state.eq(self.seed), base.eq(self.seed)]
        with m.Elif(self.step):
            m.d.sync += state.eq(Mux(self.rewind, base, following))
            with m.If(self.advance):
                m.d.sync += base.eq(following)

        weights = data.View(data.ArrayLayout(
            data.ArrayLayout(per_weight, operands(mode, words)), self.array.columns), state)
        for c in range(self.array.columns):
            places = zip(*bit_positions(mode, words), strict=True)
            bits = [Const(0, 1)] * (6 * words)
            for i, positions in enumerate(places):
                cell = weights[c][i]
                some = self.valid[i] if per_weight == 1 else self.valid[i] & cell[:-1].any()
                if mode > 1:
                    bits[positions[0]] = some
                bits[positions[-1]] = cell[-1]
            m.d.comb += self.rows[c].eq(Cat(bits))
        return m
