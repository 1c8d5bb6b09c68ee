"""What Hexlane itself reads again of an `engine.json`; a damaged one is refused in one line.

What a host has to know of the hardware is a part of its own there: :mod:`export.machine`.
"""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field

from export.checked import ConfigError, Frozen, count, parse
from export.file import read_whole
from export.image import Frame, Output
from export.machine import FILE_LIMIT

Natural = count(2**63, 0)


class LayerFacts(Frozen, extra="ignore"):
    """An operation of a program."""

    name: str
    word_bits: Natural
    weight_bits: Natural
    cycles: Natural
    array_use: float


class ProgramFacts(Frozen, extra="ignore"):
    """A program, and what it gives."""

    name: str
    slot: Natural | None = None  # where the machine holds it from the start
    layers: Annotated[tuple[LayerFacts, ...], Field(strict=False, min_length=1)]
    frame: Frame
    gives: Output
    cycles_per_frame: Natural
    frame_period: count(2**63)
    array_use: float
    weight_bits: Natural
    bias_bits: Natural
    program_bits: Natural
    seed_bits: Natural
    total_bits: Natural


class Hashes(Frozen, extra="ignore"):
    """What the engine follows from."""

    config: str
    weights: str | None


class Facts(ProgramFacts):
    """The engine, and its first program once more."""

    hash: Hashes
    measured: dict | None
    programs: Annotated[tuple[ProgramFacts, ...], Field(strict=False, min_length=1)]


def read_facts(path: Path) -> dict:
    """What `hexlane generate` wrote, all of it; ConfigError if what is read again is damaged."""
    content, where = read_whole(path, FILE_LIMIT), f"{path}: cannot be read"
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: {error}") from error
    parse(values, where, Facts)
    return values
