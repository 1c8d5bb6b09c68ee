"""The memories that hold programs: ROM, or RAM that the loader writes."""

from amaranth import Module
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from export.hardware import Hardware
from export.sections import memories, sections


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
    m.submodules[name] = memory = Memory(shape=width, depth=rows, init=init)
    fill(m, unit, name, memory)
    return memory.read_port()


def fill(m: Module, unit, name: str, memory: Memory):
    """What the loader writes into section `name`; nothing into ROM."""
    if unit.hardware.memory == "ram":
        number = [section.name for section in sections(unit.hardware)].index(name)
        port = memory.write_port()
        m.d.comb += [port.addr.eq(unit.fill.row), port.data.eq(unit.fill.data),
                     port.en.eq(unit.fill.valid & (unit.fill.section == number))]
