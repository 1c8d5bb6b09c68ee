"""Takes words of a program image and writes them, row by row, where no program needs what is there.
"""

from amaranth import Array, Cat, Const, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import Hardware
from export.sections import RECORDS, WORD, load_address_bits, sections
from hw.records import record_layout
from hw.store import fill_layout


def word_layout(hardware: Hardware) -> data.StructLayout:
    """A word and its address, as :func:`export.sections.sections` gives it."""
    return data.StructLayout({"address": load_address_bits(hardware), "data": WORD})


def user_layout(hardware: Hardware) -> data.StructLayout:
    """A program that must stay as it is while `valid`."""
    return data.StructLayout({"valid": 1, "number": range(hardware.programs),
                              "record": record_layout(hardware)})


class Loader(wiring.Component):
    """One word per cycle; a row is written with its last part, two cycles behind it.

    A word is refused, and its row with it, if its address is nobody's, if the row's parts do not
    come in their order, or if the row belongs to one of the `users`: the program that runs, and
    the one whose pixels are coming. Nothing is changed then.

    Members
    -------
    words : In(stream of word_layout)   always ready
    users : In(ArrayLayout(user_layout, 2))
    fill : Out(fill_layout)
    refused : Out(1)    for a cycle
    """

    words: stream.Interface

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        super().__init__({
            "words": In(stream.Signature(word_layout(hardware))),
            "users": In(data.ArrayLayout(user_layout(hardware), 2)),
            "fill": Out(fill_layout(hardware)),
            "refused": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        found, word = sections(self.hardware), self.words.payload
        m.d.comb += self.words.ready.eq(1)

        # Stage 1: whose address it is.
        place = data.StructLayout({"section": range(len(found)), "row": self.fill.row.shape(),
                                   "part": range(max(each.parts for each in found))})
        here = Signal(place)
        valid = Signal()
        known = Signal()
        text = Signal(WORD)
        last = Array(Const(each.parts - 1) for each in found)
        m.d.sync += [valid.eq(self.words.valid), text.eq(word.data), known.eq(0)]
        for number, section in enumerate(found):
            low, step = (section.span - 1).bit_length(), (section.stride - 1).bit_length()
            row, part = word.address[step:low], word.address[:step]
            with m.If(word.address[low:] == section.base >> low):
                m.d.sync += [here.section.eq(number), here.row.eq(row), here.part.eq(part),
                             known.eq(row < section.rows)]

        # Stage 2: in its order, so no part behind the row's last one, and of no user.
        before = Signal(place)  # the part that came last, of an unwritten row
        open_row = Signal()
        first = here.part == 0
        follows = (open_row & (before.section == here.section) & (before.row == here.row)
                   & (here.part == before.part + 1))
        taken = Cat(self._belongs(here, user, found) for user in self.users).any()
        good = valid & known & (first | follows) & ~taken
        complete = here.part == last[here.section]
        row = Signal(data.ArrayLayout(WORD, max(each.parts for each in found)))
        m.d.sync += [self.fill.valid.eq(good & complete), self.refused.eq(valid & ~good)]
        with m.If(valid):
            m.d.sync += [before.eq(here), open_row.eq(good & ~complete)]
        with m.If(good):
            m.d.sync += [row[here.part].eq(text), self.fill.section.eq(here.section),
                         self.fill.row.eq(here.row)]
        m.d.comb += self.fill.data.eq(row)
        return m

    def _belongs(self, here, user, found):
        """Whether the row is one of the user's; its own record is one."""
        bases, ends = [], []
        for section in found:
            # Biases lie as channel tiles do.
            name = "tiles" if section.name == "biases" else section.name
            if section.name == RECORDS:
                bases.append(user.number)
                ends.append(user.number + 1)
            else:
                bases.append(user.record[f"{name}_base"])
                ends.append(user.record[f"{name}_end"])
        return (user.valid & (here.row >= Array(bases)[here.section])
                & (here.row < Array(ends)[here.section]))
