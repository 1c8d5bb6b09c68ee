"""A machine as `engine.json` describes it: all that a host has to know of the hardware.

The description stands on its own, so that an image can be checked and loaded without the design
that the machine came from. What does not hold together is refused.
"""

import hashlib
import json
from dataclasses import fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from export.checked import ConfigError, Frozen, Name, count, parse, shown
from export.file import read_whole
from export.hardware import Hardware
from export.network import MAX_PIXEL_CHANNELS
from export.sections import RECORDS, Section, load_address_bits, record_fields, sections

FILE_LIMIT = 2**24  # bytes of an engine.json
MAX_ROWS, MAX_WIDTH, MAX_ADDRESS_BITS = 2**24, 2**17, 30
MAX_SCORE_BITS = 63  # which numpy's integers hold

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
OutputKind = Literal["class", "codes", "map"]


class SectionEntry(Frozen):
    """A section with what follows from its rows and width, as the file names it."""

    name: Name
    rows: count(MAX_ROWS)
    width: count(MAX_WIDTH)
    parts: int
    stride: int
    base: count(2**MAX_ADDRESS_BITS, 0)

    @cached_property
    def section(self) -> Section:
        return Section(name=self.name, rows=self.rows, width=self.width, base=self.base)

    @model_validator(mode="after")
    def _follows(self):
        for field in ("parts", "stride"):
            if (came := getattr(self, field)) != (wanted := getattr(self.section, field)):
                raise ValueError(f"{self.name}: {field} must be {wanted}, not {came}")
        if self.base % self.section.span:
            raise ValueError(f"{self.name}: base must be a multiple of {self.section.span}, "
                             f"not {self.base}")
        return self


class PixelPort(Frozen):
    """The widest pixel that comes in."""

    channels: count(MAX_PIXEL_CHANNELS)
    bits: count(8 * MAX_PIXEL_CHANNELS)


class Machine(Frozen):
    """What the key "machine" of `engine.json` holds; `hash` is that of all the rest."""

    hash: Digest
    format: Literal[1]
    memory: Literal["rom", "ram"]
    programs: count(2**16)
    sections: Annotated[tuple[SectionEntry, ...], Field(strict=False, max_length=64)]
    record: dict[Name, count(64)]  # bits of a record's fields, lowest first
    outputs: Annotated[tuple[OutputKind, ...], Field(strict=False, min_length=1, max_length=3)]
    pixels: PixelPort
    load_address_bits: count(MAX_ADDRESS_BITS, 0)
    result_words: bool
    capacities: dict

    @model_validator(mode="after")
    def _fits(self):
        if len(self.by_name) != len(self.sections):
            raise ValueError("sections must have different names")
        end = 0
        for section in sorted(self.by_name.values(), key=lambda each: each.base):
            if section.base < end:
                raise ValueError(f"{section.name}: must not overlap another section")
            end = section.base + section.span
        if self.memory == "rom":
            return self
        if end > 2**self.load_address_bits:
            raise ValueError(f"sections must end within {self.load_address_bits} bits of address, "
                             f"not at {end}")
        records = self.by_name.get(RECORDS)
        came = (records.rows, records.width) if records else "none"
        if came != (wanted := (self.programs, sum(self.record.values()))):
            raise ValueError(f"{RECORDS}: must have rows and bits {wanted}, not {came}")
        wanted = {"valid", *(f"{name}_{side}" for name in self.placed for side in ("base", "end"))}
        came = {name for name in self.record if name == "valid" or name.endswith(("_base", "_end"))}
        if wanted != came:
            raise ValueError(f"record must have the fields {sorted(wanted)}, not {sorted(came)}")
        tiles, biases = (self.by_name.get(name) for name in ("tiles", "biases"))
        if tiles is None or biases is None or tiles.rows != biases.rows:
            raise ValueError("sections must have tiles and biases, as many rows of both")
        return self

    @cached_property
    def by_name(self) -> dict[str, Section]:
        """Every section, in order."""
        return {entry.name: entry.section for entry in self.sections}

    @property
    def contents(self) -> list[Section]:
        """The sections that an image fills, in its order."""
        return [section for section in self.by_name.values() if section.name != RECORDS]

    @property
    def placed(self) -> list[str]:
        """The sections whose rows a record names; biases lie as channel tiles do."""
        return [section.name for section in self.contents if section.name != "biases"]

    def check_loadable(self):
        """ConfigError if programs are in ROM."""
        if self.memory != "ram":
            raise ConfigError(f"a machine must have memory 'ram' to be loaded, "
                              f"not {self.memory!r}")

    @cached_property
    def hardware(self) -> Hardware:
        """The capacities as the generator knows them.

        Raises
        ------
        ConfigError
            If they are none, or not what sections and record follow from: another version of the
            generator wrote them.
        """
        try:
            found = TypeAdapter(Hardware).validate_json(json.dumps(self.capacities), strict=True)
            if found.score_bits > MAX_SCORE_BITS:
                raise ValueError(f"scores must have at most {MAX_SCORE_BITS} bits, "
                                 f"not {found.score_bits}")
            same = describe_machine(found)["hash"] == self.hash
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise ConfigError(f"machine: capacities: {field}: {first['msg']}") from error
        except (ValueError, LookupError, OverflowError) as error:  # no sizes of any machine
            raise ConfigError(f"machine: capacities: {error}") from error
        if not same:
            raise ConfigError("machine: capacities must give the sections and the record beside "
                              "them, but do not: was it made by another version of Hexlane?")
        return found

    @classmethod
    def load(cls, path: str | Path) -> "Machine":
        """Reads `engine.json`; ConfigError in one line that names the file."""
        path = Path(path)
        content = read_whole(path, FILE_LIMIT)
        try:
            values = json.loads(content)
            if not isinstance(values, dict) or not isinstance(values.get("machine"), dict):
                raise ConfigError("must have a table 'machine', as hexlane generate writes it")
            values = values["machine"]
            if values.get("hash") != (wanted := machine_hash(values)):
                raise ConfigError(f"machine: hash must be {wanted}, not {shown(values.get('hash'))}"
                                  f": was it edited?")
            return parse(values, "machine", cls)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: must be JSON: {error}") from error


def describe_machine(hardware: Hardware) -> dict:
    """What the key "machine" of `engine.json` holds; equal machines give equal bytes."""
    channels = max(each.channels for each in hardware.pixels)
    values = {
        "format": 1, "memory": hardware.memory, "programs": hardware.programs,
        "sections": [{name: getattr(section, name) for name in SectionEntry.model_fields}
                     for section in sections(hardware)],
        "record": record_fields(hardware), "outputs": sorted(hardware.outputs),
        "pixels": {"channels": channels, "bits": 8 * channels},
        "load_address_bits": load_address_bits(hardware), "result_words": hardware.result_words,
        "capacities": _plain(hardware),
    }
    return {"hash": machine_hash(values)} | values


def _plain(value):
    """The value in JSON; sets are sorted."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, frozenset):
        return [_plain(each) for each in sorted(value)]
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def machine_hash(values: dict) -> str:
    """SHA-256 (hex) of a machine's description but for its hash; the order of its keys counts."""
    content = {name: value for name, value in values.items() if name != "hash"}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
