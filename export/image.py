"""A program image: one network for one machine, in a file of its own (`NAME.hxi`).

Little-endian: magic, version, hash of the machine, digest of the network, length of a JSON header,
number of words, then the header, the words of the machine's sections in their order, and a CRC-32
of all before it. A file is no larger than it says, nothing is reserved before that is known, and
whatever is not exactly so is refused.
"""

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.artifact import Network
from export.checked import ConfigError, DesignName, Frozen, Name, count, parse
from export.config import Config
from export.cost import Cost
from export.file import read_whole, write_whole
from export.hardware import Hardware
from export.machine import Machine, OutputKind
from export.network import MAX_CHANNELS, MAX_PIXEL_CHANNELS, MAX_SIDE, NetworkConfig
from export.pack import Images, pack

MAGIC, VERSION = b"HXLI", 1
HEAD = struct.Struct("<4sI32s32sII")
CRC = struct.Struct("<I")
MAX_CODE_BITS, MAX_VALUE_BITS = 3, 8
HEADER_LIMIT, WORDS_LIMIT = 2**16, 2**24  # bytes, words of 32 bits
FILE_LIMIT = HEAD.size + HEADER_LIMIT + 4 * WORDS_LIMIT + CRC.size


class Frame(Frozen):
    """The pixels of a frame, one byte per channel."""

    channels: count(MAX_PIXEL_CHANNELS)
    height: count(MAX_SIDE)
    width: count(MAX_SIDE)


class Output(Frozen):
    """What a frame gives: `bits` of a score, of a code, or of a value of a map."""

    kind: OutputKind
    channels: count(MAX_CHANNELS)
    height: count(MAX_SIDE)
    width: count(MAX_SIDE)
    bits: count(64)


class Header(Frozen):
    """What an image says of itself, besides the words."""

    name: DesignName
    sections: dict[Name, count(2**24, 0)]  # rows
    record: dict[Name, count(2**63, 0)]  # as if each section began at row 0
    frame: Frame
    output: Output
    classes: count(MAX_CHANNELS, 0)
    cycles: count(2**63, 0)  # of a frame
    period: count(64, 0) = 0  # frames of a clip from result to result; 0: it reads no clips


@dataclass(frozen=True, eq=False)
class Image:
    """`machine` and `program` are SHA-256 in hex, `words` is uint32 [n], read-only."""

    machine: str
    program: str
    header: Header
    words: np.ndarray

    @classmethod
    def of(cls, machine: Machine, images: Images, header: dict, program: str) -> "Image":
        """From what the packer gives; `header` has all but sections and record.

        Raises
        ------
        ConfigError
            If it does not fit the machine.
        """
        words, counts = [np.zeros(0, "<u4")], {}
        for section in machine.contents:
            rows = images.rows(section.name)
            counts[section.name] = len(rows)
            words.append(_to_words(rows, section.parts))
        image = cls(machine.hash, program,
                    parse(header | {"sections": counts, "record": images.records[0]}, "image",
                          Header),
                    _frozen(np.concatenate(words)))
        image.rows(machine)
        return image

    # ---- bytes

    def to_bytes(self) -> bytes:
        """The file's content; equal images give equal bytes."""
        values = self.header.model_dump(mode="json", exclude_defaults=True)
        header = json.dumps(values, sort_keys=True).encode()
        content = HEAD.pack(MAGIC, VERSION, bytes.fromhex(self.machine),
                            bytes.fromhex(self.program), len(header), len(self.words))
        content += header + self.words.astype("<u4").tobytes()
        return content + CRC.pack(zlib.crc32(content))

    @classmethod
    def from_bytes(cls, content: bytes) -> "Image":
        """The image that these bytes are; ConfigError in one line if they are none."""
        if not content.startswith(MAGIC):
            raise ConfigError(f"not a program image: must begin with {MAGIC!r}, "
                              f"not {content[:4]!r}")
        if len(content) < HEAD.size:
            raise ConfigError(f"cut off: must have at least {HEAD.size} bytes, not {len(content)}")
        _, version, machine, program, header, words = HEAD.unpack_from(content)
        if version != VERSION:
            raise ConfigError(f"version must be {VERSION}, not {version}")
        for what, size, limit in (("header", header, HEADER_LIMIT), ("words", words, WORDS_LIMIT)):
            if size > limit:
                raise ConfigError(f"damaged: {what} must be at most {limit}, not {size}")
        start = HEAD.size + header
        end = start + 4 * words
        if len(content) != end + CRC.size:
            raise ConfigError(f"cut off or damaged: must have {end + CRC.size} bytes, "
                              f"not {len(content)}")
        came, = CRC.unpack_from(content, end)
        if came != (wanted := zlib.crc32(content[:end])):
            raise ConfigError(f"damaged: CRC-32 must be {wanted:08x}, not {came:08x}")
        return cls(machine.hex(), program.hex(), _header(content[HEAD.size:start]),
                   _frozen(np.frombuffer(content, "<u4", words, start)))

    def save(self, path: str | Path):
        """Writes the file, whole or not at all; ConfigError if not."""
        write_whole(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> "Image":
        """Reads a file; ConfigError in one line that names it."""
        path = Path(path)
        content = read_whole(path, FILE_LIMIT)
        try:
            return cls.from_bytes(content)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    # ---- on a machine

    def rows(self, machine: Machine) -> dict[str, np.ndarray]:
        """Each section's rows, uint32 [rows, parts].

        Raises
        ------
        ConfigError
            If this is an image of another machine, or of none.
        """
        name, header = self.header.name, self.header
        if self.machine != machine.hash:
            raise ConfigError(f"{name}: must be an image of this machine, {machine.hash[:16]}..., "
                              f"not of {self.machine[:16]}...")
        sections = machine.contents
        if header.sections.keys() != (wanted := {section.name for section in sections}):
            raise ConfigError(f"{name}: sections must be {sorted(wanted)}, "
                              f"not {sorted(header.sections)}")
        count = sum(header.sections[section.name] * section.parts for section in sections)
        if count != len(self.words):
            raise ConfigError(f"{name}: must have {count} words for its rows, "
                              f"not {len(self.words)}")
        self._check_record(machine)
        found, start = {}, 0
        for section in sections:
            rows = header.sections[section.name]
            if rows > section.rows:
                raise ConfigError(f"{name}: {section.name}: must have at most {section.rows} rows, "
                                  f"not {rows}")
            end = start + rows * section.parts
            values = found[section.name] = self.words[start:end].reshape(rows, section.parts)
            if section.width % 32 and (values[:, -1] >> section.width % 32).any():
                raise ConfigError(f"{name}: {section.name}: rows must have {section.width} bits, "
                                  f"not more")
            start = end
        return found

    def _check_record(self, machine: Machine):
        name, header = self.header.name, self.header
        if header.record.keys() != machine.record.keys():
            raise ConfigError(f"{name}: record must have the fields {list(machine.record)}, "
                              f"not {list(header.record)}")
        wanted = {"valid": 1} | {f"{each}_base": 0 for each in machine.placed} | {
            f"{each}_end": header.sections[each] for each in machine.placed}
        for field, value in header.record.items():
            if value != wanted.get(field, value):
                raise ConfigError(f"{name}: record: {field} must be {wanted[field]}, not {value}")
            if value >> machine.record[field]:
                raise ConfigError(f"{name}: record: {field} must have {machine.record[field]} "
                                  f"bits, not the value {value}")
        if header.sections.get("biases") != header.sections.get("tiles"):
            raise ConfigError(f"{name}: biases must have as many rows as tiles")
        if header.frame.channels > machine.pixels.channels:
            raise ConfigError(f"{name}: frames must have at most {machine.pixels.channels} "
                              f"channels, not {header.frame.channels}")
        if header.output.kind not in machine.outputs:
            raise ConfigError(f"{name}: output must be one of {list(machine.outputs)}, "
                              f"not {header.output.kind}")
        out, most = header.output, {"codes": MAX_CODE_BITS, "map": MAX_VALUE_BITS}
        if out.bits > most.get(out.kind, out.bits):
            raise ConfigError(f"{name}: {out.kind} must have at most {most[out.kind]} bits, "
                              f"not {out.bits}")
        if header.classes != (wanted := out.channels if out.kind == "class" else 0):
            raise ConfigError(f"{name}: classes must be {wanted}, not {header.classes}")


def build_image(machine: Machine, config: Config, network: Network) -> Image:
    """The image of a network, on the machine's array; ConfigError if it does not fit."""
    machine.check_loadable()
    hardware, shape = machine.hardware, config.network
    program = hardware.place(config.model_copy(update={"array": hardware.array}))
    return Image.of(machine, pack(program, hardware, network), {
        "name": config.name,
        "frame": {"channels": shape.channels, "height": shape.height, "width": shape.width},
        "output": output_of(shape, hardware).model_dump(),
        "classes": shape.classes if shape.output == "class" else 0,
        "cycles": Cost(program, hardware).frame_cycles,
        "period": shape.period if shape.timed else 0}, network.digest)


def output_of(network: NetworkConfig, hardware: Hardware) -> Output:
    """What a network's frames give."""
    last = network.operations[-1]
    bits = {"class": hardware.score_bits, "codes": getattr(last, "code_bits", 0),
            "map": getattr(last, "out_bits", 0)}[network.output]
    return Output(kind=network.output, bits=bits, **network.shapes[last.name].model_dump())


def _to_words(rows: Sequence[int], parts: int) -> np.ndarray:
    """Rows as words uint32 [rows * parts], lowest bits first."""
    try:
        content = b"".join(row.to_bytes(4 * parts, "little") for row in rows)
    except OverflowError as error:
        raise ConfigError(f"rows must have at most {32 * parts} bits, not more") from error
    return np.frombuffer(content, "<u4")


def _frozen(words: np.ndarray) -> np.ndarray:
    words = words.astype(np.uint32)  # a copy
    words.setflags(write=False)
    return words


def _header(content: bytes) -> Header:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"header must be JSON: {error}") from error
    return parse(values, "header", Header)
