"""The memories that hold programs: ROM, or RAM that the loader writes; others that are deep."""

from collections.abc import Iterable, Sequence

from amaranth import Array, Module, Signal, Value
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from export.hardware import Hardware
from export.sections import memories, pieces, sections
from hw.pipeline import carry
from hw.verilog import KEEP_ZEROS

# Of a memory that is not read where it is being written, or not so that it matters: what is read
# then is void, and Yosys adds no logic that would make it the old word.
FREE_READS = {"no_rw_check": 1}


def fill_layout(hardware: Hardware) -> data.StructLayout:
    """One row that is written: `section` counts as :func:`export.sections.sections` does."""
    found = sections(hardware)
    return data.StructLayout({
        "valid": 1,
        "section": range(len(found)),
        "row": range(max(section.rows for section in found)),
        "data": max(section.width for section in found),
    })


def fill_member(hardware: Hardware) -> dict:
    """The member `fill` of a unit that holds such a memory; none where it is ROM."""
    return {"fill": In(fill_layout(hardware))} if hardware.memory == "ram" else {}


def store(m: Module, unit, name: str, init: list[int]):
    """Adds the memory `name` of :func:`export.sections.memories`; returns its read port."""
    hardware = unit.hardware
    rows, width = memories(hardware)[name]
    return section(m, unit, name, rows, width, init).read_port()


def choices(rows: int) -> list[int]:
    """Of how many pieces of a memory one is chosen in each step.

    Blocks lie far apart, so the first step is as short as can be. There are three at most.
    """
    left, found = len(pieces(rows)), []
    while left > 1:
        found.append((2, 4, 1 << (left - 1).bit_length())[len(found)])
        left = -(-left // found[-1])
    return found


def deep_cycles(depths: Iterable[int]) -> int:
    """Cycles of :func:`deep_store`: address, memory, its output register, choice of a piece."""
    return 3 + max((len(choices(rows)) for rows in depths), default=0)


def deep_store(m: Module, unit, name: str, init: list[int], row, cycles: int):
    """Row `row` of such a memory, as it was so many cycles ago, see :func:`deep_cycles`.

    A memory that is deeper than a block RAM is cut into pieces, NAME_0, NAME_1 and so on. Each
    fills whole blocks and has a register right behind it, which is the block's own; which piece it
    is to be is chosen in steps of a cycle.
    """
    rows, width = memories(unit.hardware)[name]
    found, steps = pieces(rows), choices(rows)
    row = carry(m, row, cycles - 2 - len(steps), f"{name}_row")
    words = []
    number = Signal(range(len(found)), name=f"{name}_number")
    for k, (start, stop, size) in enumerate(found):
        piece = section(m, unit, name, stop - start, width, init[start:stop],
                        f"{name}_{k}" if len(found) > 1 else name, (start, size))
        word = Signal(width, name=f"{name}_word{k}", reset_less=True)
        port = piece.read_port()
        m.d.comb += port.addr.eq(row[:size])
        m.d.sync += word.eq(port.data)
        words.append(word)
        with m.If(row >= start):
            m.d.comb += number.eq(k)
    number = carry(m, number, 2, f"{name}_number")
    for step, most in enumerate(steps):
        bits, chosen = most.bit_length() - 1, []
        for k in range(0, len(words), most):
            chosen.append(Signal(width, name=f"{name}_chosen{step}_{k}", reset_less=True))
            m.d.sync += chosen[-1].eq(Array(words[k:k + most])[number[:bits]])
        words, number = chosen, carry(m, number[bits:], 1, f"{name}_number{step}")
    return words[0]


def deep_memory(m: Module, name: str, word: str, *, width: int, rows: int, sizes: Sequence[int],
                read: Value, write: Value, data: Value, enable: Value) -> Value:
    """A memory that the engine writes: the row at `read` two cycles ago; `data` goes to `write`.

    What is deeper than a block RAM of so many rows is cut into pieces, each with a register `word`
    right behind it, which is the block's own: a choice between blocks would come in front of it.
    A row must not be needed in the cycle in which it is written.
    """
    cut = pieces(rows, sizes)
    # One is chosen by the address over the smallest piece that another one follows.
    small = min((bits for *_, bits in cut[:-1]), default=0)
    found = []
    for k, (start, stop, size) in enumerate(cut):
        suffix = f"_{k}" if len(cut) > 1 else ""
        bits = max(size, small)
        m.submodules[name + suffix] = memory = Memory(shape=width, depth=stop - start, init=[],
                                                      attrs=FREE_READS)
        source, target = memory.read_port(), memory.write_port()
        here = enable & (write[bits:] == start >> bits) if suffix else enable
        m.d.comb += [source.addr.eq(read), target.addr.eq(write), target.data.eq(data),
                     target.en.eq(here)]
        stored = Signal.like(source.data, name=word + suffix, reset_less=True)
        m.d.sync += stored.eq(source.data)
        found += [stored] * max(1, (1 << size) >> small)
    if len(cut) == 1:
        return found[0]
    return Array(found)[carry(m, read[small:], 2, "piece")]


def section(m: Module, unit, name: str, rows: int, width: int, init: list[int],
            called: str = "", place: tuple[int, int] = (0, 0)) -> Memory:
    """A memory of a section, or a piece of it, into which the loader writes if it is RAM.

    A piece has a name of its own, a first row and so many bits of an address, see
    :func:`export.sections.pieces`.
    """
    ram, fill = unit.hardware.memory == "ram", getattr(unit, "fill", None)
    # What is not loaded is zero, so no record is valid.
    m.submodules[called or name] = memory = Memory(shape=width, depth=rows, init=init,
                                                   attrs={KEEP_ZEROS: 1} if ram else {})
    if ram:
        number = [each.name for each in sections(unit.hardware)].index(name)
        port, (start, bits) = memory.write_port(), place
        here = fill.row >> bits == start >> bits if called else 1
        m.d.comb += [port.addr.eq(fill.row), port.data.eq(fill.data),
                     port.en.eq(fill.valid & (fill.section == number) & here)]
    return memory
