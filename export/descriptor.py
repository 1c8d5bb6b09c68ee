"""What the engine's ROM words hold: name, bits and value of each field stand here and nowhere else.

The packer, the layouts in `hw/`, `engine.json` and the documentation follow from these tables.
`python -m export.descriptor` prints them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from export.artifact import MAX_SHIFT, Layer
from export.checked import ConfigError
from export.hardware import Hardware, bits_for, generator_format
from export.program import LayerProgram

GATES = None, "or", "mux", "mux_or"  # by their number in the descriptor
RESCALES = 0, 1, 2, -1, -2  # left shifts of a skip's codes, by their number in the descriptor
# What becomes of an operation's sums, by their number: a map of codes, the bits of a mux, a class,
# or a map of signed values, which leaves; then the codes of a sum, and those of a cell.
RESULTS = "codes", "select", "class", "map", "vector", "cell"


@dataclass(frozen=True)
class Field:
    """One field: `bits` for a machine (0: it has none), `value` for an operation."""

    name: str
    bits: Callable[[Hardware], int]
    value: Callable[[Hardware, LayerProgram, Layer], int]
    text: str


def _fixed(bits: int):
    return lambda hardware: bits


def _where(there: str, bits: Callable[[Hardware], int]):
    """So many bits where the machine has what `there` names."""
    return lambda hardware: bits(hardware) if getattr(hardware, there) else 0


_gated, _of_cells, _timed, _leaving = (
    partial(_where, there) for there in ("gated", "cells", "clocks", "output_words"))


def _address(hardware: Hardware) -> int:
    return bits_for(hardware.activation_words)


def _slots(hardware: Hardware) -> int:
    return bits_for(hardware.slots)


def _rotation(hardware: Hardware) -> int:
    return bits_for(hardware.array.rows - 1)


def _skip(hardware: Hardware) -> int:
    return bits_for(hardware.skip_words)


def _row(hardware: Hardware, op: LayerProgram) -> tuple[int, int]:
    """One image row, in slots and banks."""
    return divmod(op.source.width, hardware.array.rows)


def result_of(op: LayerProgram) -> str:
    operation = op.operation
    if operation.kind == "sum":
        return "vector" if operation.makes_codes else operation.output
    return {"conv": "codes", "map": "map", "cell": "cell"}[operation.kind]


def _value_bits(op: LayerProgram) -> int:
    operation = op.operation
    if operation.kind == "map":
        return operation.out_bits
    return operation.value_bits if operation.kind == "cell" else 1


def _conv(op: LayerProgram, name: str, otherwise=0):
    return getattr(op.operation, name) if op.operation.kind == "conv" else otherwise


def _generator(hardware: Hardware, op: LayerProgram) -> int:
    if op.operation.generator is None:
        return 0
    return 1 + sorted(hardware.generators).index(generator_format(op))


# Lowest bits first. A value gets the machine, the operation and its numbers.
FIELDS = (
    Field("mode", _fixed(2), lambda hw, op, layer: op.mode, "word precision, 1 ... 3"),
    Field("weight_bits", _fixed(2), lambda hw, op, layer: op.weight_bits,
          "alphabet of the stored weights: binary, ternary, quinary"),
    Field("segments", lambda hw: bits_for(len(hw.weights)),
          lambda hw, op, layer: hw.weight_edges.index(op.stored_bits),
          "segments of a stored word of weights"),
    Field("result", lambda hw: 3 if hw.vectors or hw.cells else 2,
          lambda hw, op, layer: RESULTS.index(result_of(op)),
          "what becomes of the sums: 0 codes, 1 select bits, 2 a class, 3 a map of values, 4 a "
          "vector of codes, 5 a cell's codes"),
    Field("last", _fixed(1), lambda hw, op, layer: op.last, "the program ends with this operation"),
    Field("pool", _fixed(1), lambda hw, op, layer: _conv(op, "pool"), "2x2 maximum of the codes"),
    Field("code_bits", _fixed(2),
          lambda hw, op, layer: op.operation.code_bits if op.operation.makes_codes else 1,
          "bits of a code"),
    Field("out_mode", _fixed(2), lambda hw, op, layer: op.out_mode,
          "word precision of the operations that read the output"),
    Field("both_rows", _fixed(1), lambda hw, op, layer: len(op.dy) > 1,
          "the kernel's rows are -1, 0 and 1, else 0 only"),
    Field("left", _fixed(1), lambda hw, op, layer: -1 in op.dx, "the kernel has a column -1"),
    Field("right", _fixed(1), lambda hw, op, layer: 1 in op.dx, "the kernel has a column 1"),
    Field("shift", _fixed(bits_for(MAX_SHIFT)), lambda hw, op, layer: layer.shift,
          "bits that the sums are shifted to the right"),
    Field("pad", _fixed(8), lambda hw, op, layer: op.pad,
          "pixel value outside the image"),
    Field("last_digit", lambda hw: bits_for(hw.digits - 1),
          lambda hw, op, layer: op.digits - 1, "passes over the pixels' digits, less one"),
    Field("tail", lambda hw: bits_for(6 * hw.array.words), lambda hw, op, layer: op.tail,
          "operands in the last word of a tap"),
    Field("last_x", lambda hw: bits_for(hw.side), lambda hw, op, layer: op.source.width - 1,
          "columns of the input, less one"),
    Field("last_y", lambda hw: bits_for(hw.side), lambda hw, op, layer: op.source.height - 1,
          "rows of the input, less one"),
    Field("last_word", lambda hw: bits_for(hw.words - 1), lambda hw, op, layer: op.words - 1,
          "input words of a tap, less one"),
    Field("last_channel_tile", lambda hw: bits_for(hw.channel_tiles - 1),
          lambda hw, op, layer: op.channel_tiles - 1, "tiles of output channels, less one"),
    Field("last_pixel_tile", lambda hw: bits_for(hw.slots - 1),
          lambda hw, op, layer: op.pixel_tiles - 1, "tiles of pixels, less one"),
    Field("slots", _slots, lambda hw, op, layer: op.slots, "addresses from one input word on"),
    Field("out_slots", _slots, lambda hw, op, layer: op.out_slots,
          "addresses from one output word on"),
    Field("digit_stride", _address, lambda hw, op, layer: op.digit_words * op.slots,
          "addresses from one digit on"),
    Field("in_base", _address, lambda hw, op, layer: op.in_base, "first address of the input"),
    Field("out_base", _address, lambda hw, op, layer: op.out_base, "first address of the output"),
    Field("clock", _timed(lambda hw: bits_for(hw.clocks - 1)), lambda hw, op, layer: op.clock,
          "computed every 2^clock frames of a clip"),
    Field("in_clock", _timed(lambda hw: bits_for(hw.clocks - 1)),
          lambda hw, op, layer: op.in_clock, "... and its inputs every 2^in_clock"),
    Field("last_frame", _timed(_fixed(2)), lambda hw, op, layer: op.frames - 1,
          "frames of the kernel, less one"),
    Field("in_stride", _timed(_address), lambda hw, op, layer: op.in_stride,
          "addresses from copy to copy of the inputs' ring"),
    Field("out_stride", _timed(_address), lambda hw, op, layer: op.out_stride,
          "... and of the output's"),
    Field("up_slots", _slots, lambda hw, op, layer: _row(hw, op)[0] + (_row(hw, op)[1] > 0),
          "one image row up is this many slots back"),
    Field("up_rot", _rotation, lambda hw, op, layer: -_row(hw, op)[1] % hw.array.rows,
          "... then this many banks on"),
    Field("down_slots", _slots, lambda hw, op, layer: _row(hw, op)[0],
          "one image row down is this many slots on"),
    Field("down_rot", _rotation, lambda hw, op, layer: _row(hw, op)[1],
          "... then this many banks on"),
    Field("gate", _gated(_fixed(2)), lambda hw, op, layer: GATES.index(_conv(op, "gate", None)),
          "0 none, 1 OR, 2 MUX, 3 MUX-OR"),
    Field("rescale", _gated(_fixed(3)), lambda hw, op, layer: RESCALES.index(op.rescale),
          "shift of the skip's codes: 0, 1, 2, -1, -2 by their number"),
    Field("skip_base", _gated(_skip), lambda hw, op, layer: op.skip_base,
          "first word of the gate's skip"),
    Field("skip_end", _gated(_skip), lambda hw, op, layer: op.skip_base + op.skip_size,
          "... and the word behind its last one"),
    Field("keep", _gated(_fixed(1)), lambda hw, op, layer: op.keep,
          "the codes go into the skip memory too"),
    Field("keep_pooled", _gated(_fixed(1)), lambda hw, op, layer: op.keep_pooled,
          "... after 2x2 maximum"),
    Field("keep_base", _gated(_skip), lambda hw, op, layer: op.keep_base, "... from this word on"),
    Field("select_base", _gated(lambda hw: bits_for(hw.select_words)),
          lambda hw, op, layer: op.select_base, "first word of a mux's select bits"),
    Field("out_bits", lambda hw: 3 if hw.valued else 0,
          lambda hw, op, layer: _value_bits(op) - 1,
          "bits of a value that leaves or enters a cell, less one"),
    Field("coupled", _of_cells(_fixed(1)),
          lambda hw, op, layer: getattr(op.operation, "form", None) == "coupled",
          "a cell without an input gate"),
    Field("state_bits", _of_cells(_fixed(3)),
          lambda hw, op, layer: getattr(op.operation, "state_bits", 1) - 1,
          "bits of its state, less one"),
    Field("state_shift", _of_cells(_fixed(3)),
          lambda hw, op, layer: getattr(op.operation, "state_shift", 0),
          "... which its codes are shifted to the right from"),
    Field("state_base", _of_cells(lambda hw: bits_for(hw.state_words)),
          lambda hw, op, layer: op.state_base, "... and its first word"),
    Field("out_units", _leaving(lambda hw: bits_for(hw.output_units)),
          lambda hw, op, layer: op.units, "units of channels that leave of a pixel"),
    Field("out_last_pixel", _leaving(lambda hw: bits_for(hw.output_pixels - 1)),
          lambda hw, op, layer: max(0, op.out_pixels - 1), "pixels that leave, less one"),
    Field("out_last_channel", _leaving(lambda hw: bits_for(hw.output_channels - 1)),
          lambda hw, op, layer: op.channels - 1 if op.out_pixels else 0,
          "channels that leave, less one"),
    Field("generator", lambda hw: bits_for(len(hw.generators)) if hw.generators else 0,
          lambda hw, op, layer: _generator(hw, op), "0 stored weights, else the automaton"),
    Field("seed", lambda hw: bits_for(hw.seeds - 1) if hw.seeds else 0,
          lambda hw, op, layer: op.seed, "... and the number of its seed"),
)


def layer_fields(hardware: Hardware) -> dict[str, int]:
    """Bits of each field of an operation's descriptor, lowest first."""
    return {field.name: bits for field in FIELDS if (bits := field.bits(hardware))}


def tile_fields(hardware: Hardware) -> dict[str, int]:
    """Bits of each field of a channel tile's record: where its input words start."""
    return {"offset": _address(hardware)}


def layer_word(hardware: Hardware, op: LayerProgram, layer: Layer) -> int:
    """An operation's descriptor."""
    values = {field.name: field.value(hardware, op, layer) for field in FIELDS
              if field.bits(hardware)}
    return pack_fields(layer_fields(hardware), values)


def pack_fields(fields: dict[str, int], values: dict[str, int]) -> int:
    """One word; ConfigError if a value does not fit its field."""
    word, position = 0, 0
    for name, width in fields.items():
        value = int(values[name])
        if not 0 <= value < 2**width:
            raise ConfigError(f"{name}: wanted 0 ... {2**width - 1}, got {value}")
        word |= value << position
        position += width
    return word


if __name__ == "__main__":
    print("| field | what it says |\n|---|---|")
    for each in FIELDS:
        print(f"| `{each.name}` | {each.text} |")
