"""A machine as a transport sees it, without hardware: memories that are filled word by word.

It refuses what the load bus of the engine refuses, and answers frames by what a test gives it.
"""

from collections.abc import Callable

import numpy as np

from export.machine import Machine
from export.sections import RECORDS

Answer = Callable[[int, np.ndarray], np.ndarray | None]  # slot, pixels: words of the result


class MemoryModel:
    """A :class:`export.host.Transport`; `rows` has each section's written rows as integers.

    `running` is a slot whose program must stay as it is, or None. `answer` gives a frame's result
    for a slot whose record is valid.
    """

    def __init__(self, machine: Machine, answer: Answer = lambda slot, pixels: None):
        self.machine, self.answer = machine, answer
        self.rows: dict[str, dict[int, int]] = {name: {} for name in machine.by_name}
        self.running: int | None = None
        self.writes = 0
        self._open: tuple[str, int, list[int]] | None = None  # section, row, parts so far
        self._slot, self._words, self._flags = 0, None, set()

    def record(self, slot: int) -> dict[str, int]:
        """A slot's record, field by field; all zero before it is written."""
        word, values = self.rows[RECORDS].get(slot, 0), {}
        for name, bits in self.machine.record.items():
            values[name] = word & (1 << bits) - 1
            word >>= bits
        return values

    def write(self, address: int, word: int):
        assert 0 <= word < 2**32 and 0 <= address < 2**self.machine.load_address_bits
        self.writes += 1
        before, self._open = self._open, None
        place = self._place(address)
        if place is None:
            self._flags.add("load_error")
            return
        section, row, part = place
        parts = before[2] if before and before[:2] == (section, row) else []
        if part == 0:
            parts = []
        if part != len(parts) or self._in_use(section, row):
            self._flags.add("load_error")
            return
        parts = [*parts, word]
        found = self.machine.by_name[section]
        if len(parts) < found.parts:
            self._open = section, row, parts
            return
        value = sum(each << 32 * k for k, each in enumerate(parts))
        self.rows[section][row] = value & (1 << found.width) - 1

    def _place(self, address: int) -> tuple[str, int, int] | None:
        for section in self.machine.by_name.values():
            row, part = divmod(address - section.base, section.stride)
            if 0 <= row < section.rows and part < section.parts:
                return section.name, row, part
        return None

    def _in_use(self, section: str, row: int) -> bool:
        if self.running is None:
            return False
        if section == RECORDS:
            return row == self.running
        name, record = "tiles" if section == "biases" else section, self.record(self.running)
        return record[f"{name}_base"] <= row < record[f"{name}_end"]

    def select(self, slot: int):
        self._slot = slot

    def send(self, pixels: np.ndarray) -> bool:
        if not self.record(self._slot)["valid"]:
            self._flags.add("unloaded")
            return False
        self._words = self.answer(self._slot, pixels)
        return True

    def receive(self, seconds: float) -> np.ndarray | None:
        words, self._words = self._words, None
        return words

    def flags(self) -> set[str]:
        found, self._flags = self._flags, set()
        return found
