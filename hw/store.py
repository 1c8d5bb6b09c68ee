"""The memories that hold programs: ROM, or RAM that the loader writes."""

from amaranth import Module
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from export.hardware import Hardware
from export.sections import memories, sections
from hw.verilog import KEEP_ZEROS


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


def section(m: Module, unit, name: str, rows: int, width: int, init: list[int]) -> Memory:
    """A memory under the name of a section, into which the loader writes if it is RAM."""
    ram = unit.hardware.memory == "ram"
    # What is not loaded is zero, so no record is valid.
    m.submodules[name] = memory = Memory(shape=width, depth=rows, init=init,
                                         attrs={KEEP_ZEROS: 1} if ram else {})
    if ram:
        number = [each.name for each in sections(unit.hardware)].index(name)
        port = memory.write_port()
        m.d.comb += [port.addr.eq(unit.fill.row), port.data.eq(unit.fill.data),
                     port.en.eq(unit.fill.valid & (unit.fill.section == number))]
    return memory
