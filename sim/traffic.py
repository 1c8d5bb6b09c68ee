"""What `bench.v` plays into an engine, and what it wrote down: text in, records out."""

import random
from collections.abc import Sequence
from enum import IntEnum
from itertools import pairwise
from pathlib import Path

import numpy as np

from sim.streams import pixel_words


class Kind(IntEnum):
    """Of a record; the same numbers stand in `bench.v`."""

    CODES = 0  # index: the operation; payload: codes of three bits
    TRANSFER = 1  # payload: of the result
    BEGIN = 2  # index: the operation
    IDLE = 3  # the frame's last operation has ended
    FRAME = 4  # its first pixel was taken
    LOADED = 5  # a word was taken
    REFUSED = 6  # a word that was not loaded
    VANISHED = 7
    CHANGED = 8
    UNKNOWN = 9
    HANGS = 10


FAULTS = {
    Kind.VANISHED: "an offered result vanished",
    Kind.CHANGED: "an offered result changed",
    Kind.UNKNOWN: "an output is unknown",
    Kind.HANGS: "the engine hangs",
}


def write_traffic(folder: Path, jobs: Sequence, loads: Sequence, *, gaps: int, seed: int,
                  address_bits: int):
    """Writes the files of :class:`sim.verilog.Job` and `Load`; `gaps` is the longest pause."""
    rng = random.Random(seed)
    with (folder / "pixels.txt").open("w") as file:
        for job in jobs:
            (frame,) = pixel_words(job.image[None])
            begins = 1 + job.clip
            for n, word in enumerate(frame):
                file.write(f"{begins if n == 0 else 0} {int(n == len(frame) - 1)} {job.number} "
                           f"{job.needs} {rng.randint(0, gaps)} {word:x}\n")
    with (folder / "loads.txt").open("w") as file:
        for load in loads:
            for address, word in load.words:
                file.write(f"{load.after} {word << address_bits | address:x}\n")
    (folder / "waits.txt").write_text(
        "".join(f"{rng.randint(0, gaps)}\n" for _ in range(1000 if gaps else 1)))


class Events:
    """The records of one run, split by kind.

    Raises RuntimeError if the bench met a fault, or did not end.
    """

    def __init__(self, file: Path, payload: int):
        width = 3 + payload // 32
        words = np.fromfile(file, "<u4")
        if len(words) % width:
            raise RuntimeError(f"{file}: must hold records of {width} words, not {len(words)}")
        self.kind, self.index, self.cycle, *payloads = words.reshape(-1, width).T.astype(np.int64)
        self.payload = np.array(payloads).T
        for kind, fault in FAULTS.items():
            if len(at := self.cycles(kind)):
                raise RuntimeError(f"{fault} in cycle {at[0]}")

    def cycles(self, kind: Kind) -> np.ndarray:
        """When it happened."""
        return self.cycle[self.kind == kind]

    def results(self, bits: int, words: bool) -> tuple[list[list[int]], list[int]]:
        """The transfers of each frame's result, and the cycle of its last one.

        A transfer has `bits`; with `words` the highest of them marks a frame's last, and is left
        out.
        """
        rows = self.payload[self.kind == Kind.TRANSFER].astype("<u4")
        found = [int.from_bytes(row.tobytes(), "little") & (1 << bits) - 1 for row in rows]
        ends = [n for n, each in enumerate(found, 1) if not words or each >> bits - 1]
        mask = (1 << bits - words) - 1
        return ([[each & mask for each in found[start:end]]
                 for start, end in pairwise([0, *ends])],
                [int(self.cycles(Kind.TRANSFER)[end - 1]) for end in ends])

    def frames(self, layers: int) -> np.ndarray:
        """How many cycles each operation of each frame took, [frames, layers]."""
        at = np.flatnonzero((self.kind == Kind.BEGIN) | (self.kind == Kind.IDLE))
        frame = self._frame(at[:-1])
        found = np.zeros((frame.max(initial=-1) + 1, layers), np.int64)
        begun = self.kind[at[:-1]] == Kind.BEGIN
        np.add.at(found, (frame[begun], self.index[at[:-1]][begun]),
                  np.diff(self.cycle[at])[begun])
        return found

    def codes(self, unit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frame and operation [N] and codes uint8 [N, unit] of every write."""
        at = np.flatnonzero(self.kind == Kind.CODES)
        bits = np.unpackbits(self.payload[at].astype("<u4").view(np.uint8), axis=1,
                             bitorder="little")[:, :3 * unit].reshape(len(at), unit, 3)
        return self._frame(at), self.index[at], bits @ np.array([1, 2, 4], np.uint8)

    def _frame(self, at: np.ndarray) -> np.ndarray:
        """To which frame records belong that are made while one is in work."""
        return np.cumsum(self.kind == Kind.IDLE)[at]
