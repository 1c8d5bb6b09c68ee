"""Where programs lie in a machine's memories, and the writes that put them there.

Nothing here touches hardware: what comes out are addresses and words for the load window, for a
transport, a testbench or a file.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from export.checked import ConfigError
from export.descriptor import pack_fields
from export.image import Image
from export.machine import Machine
from export.sections import RECORDS, moved

Write = tuple[int, int]  # word address in the load window, word


@dataclass(frozen=True)
class Placed:
    """A program and the first row of it in each section of :attr:`Machine.placed`."""

    image: Image
    bases: dict[str, int]

    def rows(self, section: str) -> range:
        """Its rows of a section; biases lie as channel tiles do."""
        base = self.bases["tiles" if section == "biases" else section]
        return range(base, base + self.image.header.sections[section])


class Loader:
    """The programs of a machine, by slot: each lies in rows of its own in every section.

    Raises ConfigError for a machine that cannot be loaded.
    """

    def __init__(self, machine: Machine):
        machine.check_loadable()
        self.machine = machine
        self.programs: dict[int, Placed] = {}

    def place(self, image: Image, slot: int | None = None, *,
              replace: bool = False) -> tuple[int, Placed]:
        """A slot (the first free one, if none is named) and room, first-fit; changes nothing.

        Raises
        ------
        ConfigError
            If the image is not this machine's, no slot is free, a program is in the slot and is not
            to be replaced, or a section has no hole that is long enough.
        """
        image.rows(self.machine)
        slots = self.machine.programs
        if slot is None:
            slot = next((k for k in range(slots) if k not in self.programs), None)
            if slot is None:
                raise ConfigError(f"{image.header.name}: no slot of {slots} is free")
        if not 0 <= slot < slots:
            raise ConfigError(f"slot must be 0 to {slots - 1}, not {slot}")
        if slot in self.programs and not replace:
            raise ConfigError(f"{image.header.name}: slot {slot} must be free, but holds "
                              f"{self.programs[slot].image.header.name}")
        others = [placed for k, placed in self.programs.items() if k != slot]
        return slot, Placed(image, {name: self._fit(name, image, others)
                                    for name in self.machine.placed})

    def _fit(self, section: str, image: Image, others: list[Placed]) -> int:
        """The first of rows that are free: in the lowest hole, at an end of the memory if it can.

        So of two programs each lies at an end of its own, and either can be replaced by any that
        there is room for.
        """
        rows, depth = image.header.sections[section], self.machine.by_name[section].rows
        taken = sorted((each.rows(section) for each in others if each.rows(section)),
                       key=lambda each: each.start)
        start, holes = 0, []
        for each in [*taken, range(depth, depth)]:
            holes.append((each.start - start, start))
            start = each.stop
        for size, base in holes:
            if rows <= size:
                return depth - rows if base and base + size == depth else base
        sizes = [size for size, _ in holes]
        raise ConfigError(f"{image.header.name}: {section}: needs {rows} rows, has {sum(sizes)} "
                          f"free, at most {max(sizes)} of them together")

    # ---- what is written

    def clear(self, slot: int) -> Iterator[Write]:
        """Makes the slot's record invalid."""
        records = self.machine.by_name[RECORDS]
        return self._row(RECORDS, slot, [0] * records.parts)

    def load(self, slot: int, placed: Placed) -> Iterator[Write]:
        """The slot's record as invalid, every row, then the record as valid."""
        yield from self.clear(slot)
        yield from self.rows(placed)
        yield from self.record(slot, placed)

    def rows(self, placed: Placed) -> Iterator[Write]:
        """Every row of a program, but no record."""
        for section, rows in placed.image.rows(self.machine).items():
            for row, words in zip(placed.rows(section), rows.tolist(), strict=True):
                yield from self._row(section, row, words)

    def record(self, slot: int, placed: Placed) -> Iterator[Write]:
        """The slot's record, valid."""
        record = pack_fields(self.machine.record, moved(placed.image.header.record, placed.bases))
        return self._row(RECORDS, slot, self.machine.by_name[RECORDS].words(record))

    def _row(self, section: str, row: int, words: list[int]) -> Iterator[Write]:
        found = self.machine.by_name[section]
        start = found.base + row * found.stride
        return zip(range(start, start + found.parts), words, strict=True)


def load_list(machine: Machine, images: list[Image], slot: int = 0) -> tuple[Loader, list[Write]]:
    """Images into the slots from `slot` on of an empty machine; no slot is valid before.

    Raises ConfigError as :meth:`Loader.place`.
    """
    loader = Loader(machine)
    writes = [write for each in range(machine.programs) for write in loader.clear(each)]
    for k, image in enumerate(images, slot):
        _, loader.programs[k] = loader.place(image, k)
        writes += loader.load(k, loader.programs[k])
    return loader, writes
