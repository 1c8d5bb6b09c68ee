"""A cellular automaton in place of a layer's weight memory, see :mod:`export.automaton`."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.automaton import CELLS
from export.program import LayerProgram
from export.words import bit_positions


class Automaton(wiring.Component):
    """A ring of cells whose state is one step's weights of all columns; one state per cycle.

    Members
    -------
    load : In(1)        back to the seed, before a layer's first step
    step : In(1)        these weights are used in this cycle
    rewind : In(1)      ... and the first ones of the channel tile follow
    advance : In(1)     ... and those of the next channel tile follow
    valid : In(6 * words)       lanes in use
    rows : Out(ArrayLayout(6 * words, outputs))     as the array takes them
    """

    def __init__(self, layer: LayerProgram, *, words: int, seed: int):
        self.layer, self.words, self.seed = layer, words, seed
        super().__init__({
            "load": In(1), "step": In(1), "rewind": In(1), "advance": In(1),
            "valid": In(6 * words),
            "rows": Out(data.ArrayLayout(6 * words, layer.generator.outputs)),
        })

    def elaborate(self, platform):
        m = Module()
        generator, mode = self.layer.generator, self.layer.mode
        per_weight = CELLS[generator.mapping]
        cells = generator.outputs * generator.inputs * per_weight
        state, base = Signal(cells), Signal(cells)  # base: first state of the channel tile
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
            data.ArrayLayout(per_weight, generator.inputs), generator.outputs), state)
        for c in range(generator.outputs):
            places = zip(*bit_positions(mode, self.words), strict=True)
            bits = [Const(0, 1)] * (6 * self.words)
            for i, positions in enumerate(places):
                cell = weights[c][i]
                some = self.valid[i] if per_weight == 1 else self.valid[i] & cell[:-1].any()
                if mode > 1:
                    bits[positions[0]] = some
                bits[positions[-1]] = cell[-1]
            m.d.comb += self.rows[c].eq(Cat(bits))
        return m
