"""The machine's memories as the load bus sees them, and the record that says where a program lies.

A program is the rows of a few memories. Its record is all that depends on where it lies: the base
of its rows in each of them, and the format of its frames. What is loaded is written in words of 32
bits: a row's parts one after the other, lowest bits first, the last of which writes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from export.config import ConfigError
from export.descriptor import layer_fields, pack_fields, tile_fields
from export.hardware import Hardware, PixelFormat, bits_for, weight_rows
from export.network import PIXELS
from export.program import Program

WORD = 32  # bits
PIECES = 2048, 1024, 512  # rows of a block RAM that is 9, 18 and 36 bits wide
RECORDS = "programs"  # the memory of the records themselves


@dataclass(frozen=True, kw_only=True)
class Section:
    """A memory of `rows` rows of `width` bits; part p of row r is word `base + r * stride + p`."""

    name: str
    rows: int
    width: int
    base: int = 0

    @property
    def parts(self) -> int:
        """Words of a row."""
        return -(-self.width // WORD)

    @property
    def stride(self) -> int:
        """Addresses from row to row: a power of two."""
        return _power(self.parts)

    @property
    def span(self) -> int:
        """Addresses that are its own: a power of two, and `base` a multiple of it."""
        return _power(self.rows * self.stride)

    def words(self, row: int) -> list[int]:
        """A row as it is loaded."""
        return [row >> WORD * k & (1 << WORD) - 1 for k in range(self.parts)]


def memories(hardware: Hardware) -> dict[str, tuple[int, int]]:
    """Rows and bits of each memory that holds programs, but for the records."""
    array, edges = hardware.array, hardware.weight_edges
    weights = zip(pairwise(edges), hardware.weights, strict=True)
    return {
        "layers": (hardware.operations, sum(layer_fields(hardware).values())),
        "tiles": (hardware.tiles, sum(tile_fields(hardware).values())),
        "biases": (hardware.tiles, hardware.score_bits * array.columns),
        **{f"weights{k}": (rows, (stop - start) * array.columns)
           for k, ((start, stop), (_, rows)) in enumerate(weights)},
        **({"seeds": (hardware.seeds, hardware.seed_bits)} if hardware.seeds else {}),
    }


def pieces(rows: int, sizes: Sequence[int] | None = None) -> list[tuple[int, int, int]]:
    """How a deep memory is cut: first row, row behind the last one, bits of the address of each.

    They have as many rows as `sizes` says, or `PIECES`, the largest first, and the last what is
    left. The first row of a piece is a multiple of the rows that its address can name.
    """
    sizes, found, start = sizes or PIECES, [], 0
    while start < rows:
        size = next((size for size in sizes if start + size <= rows), sizes[-1])
        found.append((start, min(rows, start + size), size.bit_length() - 1))
        start += size
    return found


def placed(hardware: Hardware) -> list[str]:
    """The memories in which a program has a place of its own; biases lie as channel tiles do."""
    return [name for name in memories(hardware) if name != "biases"]


def sections(hardware: Hardware) -> tuple[Section, ...]:
    """All that can be loaded, with addresses: the records first in the list, the longest lowest."""
    found = [Section(name=RECORDS, rows=hardware.programs,
                     width=sum(record_fields(hardware).values()))]
    found += [Section(name=name, rows=rows, width=width)
              for name, (rows, width) in memories(hardware).items()]
    bases, at = {}, 0
    for section in sorted(found, key=lambda each: -each.span):  # so that each base fits its span
        bases[section.name], at = at, at + section.span
    return tuple(Section(name=each.name, rows=each.rows, width=each.width, base=bases[each.name])
                 for each in found)


def load_address_bits(hardware: Hardware) -> int:
    """Bits of a word's address on the load bus."""
    return bits_for(max(each.base + each.span for each in sections(hardware)) - 1)


def record_fields(hardware: Hardware) -> dict[str, int]:
    """Bits of each field of a program's record, lowest first."""
    fields = {"valid": 1}
    for name in placed(hardware):
        rows, _ = memories(hardware)[name]
        fields |= {f"{name}_base": bits_for(rows), f"{name}_end": bits_for(rows)}
    return fields | {"format": bits_for(len(hardware.pixels) - 1),
                     "last_x": bits_for(hardware.frame_width - 1),
                     "last_y": bits_for(hardware.frame_height - 1),
                     "slots": bits_for(hardware.pixel_slots), "pad": 8,
                     **({"stride": bits_for(hardware.pixel_words)}
                        if hardware.pixel_frames > 1 else {})}


def record_values(program: Program, hardware: Hardware) -> dict[str, int]:
    """A program's record if its rows begin at 0 everywhere."""
    network, first = program.config.network, program.layers[0]
    rows = {"layers": len(program.layers),
            "tiles": sum(layer.channel_tiles for layer in program.layers),
            "seeds": sum(layer.operation.generator is not None for layer in program.layers),
            **{f"weights{k}": weight_rows(program, bits)
               for k, (bits, _) in enumerate(hardware.weights)}}
    values = {"valid": 1}
    for name in placed(hardware):
        values |= {f"{name}_base": 0, f"{name}_end": rows[name]}
    pixels = PixelFormat(network.channels, network.fold, first.input_words, first.taps_per_word)
    frame = network.shapes[PIXELS]
    return values | {"format": sorted(hardware.pixels).index(pixels),
                     "last_x": frame.width - 1, "last_y": frame.height - 1,
                     "slots": first.input_slots, "pad": network.pad,
                     **({"stride": program.pixel_stride} if hardware.pixel_frames > 1 else {})}


def moved(values: dict[str, int], bases: dict[str, int]) -> dict[str, int]:
    """A record of a program whose rows begin at `bases`."""
    return values | {f"{name}_{side}": values[f"{name}_{side}"] + base
                     for name, base in bases.items() for side in ("base", "end")}


def record_word(hardware: Hardware, values: dict[str, int]) -> int:
    """The record as its memory holds it; ConfigError if a value does not fit its field."""
    fields = record_fields(hardware)
    if wrong := sorted(set(values) ^ set(fields)):
        raise ConfigError(f"record: must have the machine's {len(fields)} fields, not {len(values)}"
                          f" with others or without: {', '.join(wrong)}")
    return pack_fields(fields, values)


def _power(count: int) -> int:
    return 1 << (max(1, count) - 1).bit_length()
