"""About what area a machine takes: a model fitted to designs that were synthesised.

Processing elements are most of an engine and very regular: their cells are linear in words and
accumulator bits, for each set of precisions. What is around them is fitted to whole engines (least
squares of the relative error): the rotation of the rows, unpacking per column, scores per column,
memories in distributed RAM, a constant. Block RAMs are counted by the rules that Yosys maps
memories with. `hexlane synth` prints the estimate beside what Yosys makes; `tests/engines.json` has
the engines of the fit, which `python -m tests.fit_area` repeats.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, log2

from export.descriptor import layer_fields, tile_fields
from export.hardware import Hardware
from export.sections import pieces

# Cells of a processing element: per word, per accumulator bit, constant; by precisions.
REGISTERS = {  # of any family
    (1,): (5.3, 3.0, 6.0),
    (1, 2): (5.9, 3.0, 6.5),
    (1, 2, 3): (7.6, 3.0, 12.5),
    (1, 3): (7.6, 3.0, 12.5),
    (2,): (5.2, 3.0, 7.5),
    (2, 3): (6.6, 3.0, 12.5),
    (3,): (5.6, 3.0, 15.5),
}
ELEMENTS = {
    ("ecp5", "lut4"): {
        (1,): (15.3, 1.0, -4.0),
        (1, 2): (16.4, 1.0, 0.0),
        (1, 2, 3): (23.6, 1.0, 11.0),
        (1, 3): (23.6, 1.0, 11.0),
        (2,): (13.0, 1.0, 0.0),
        (2, 3): (24.4, 1.0, 1.0),
        (3,): (19.6, 1.0, -1.5),
    },
    ("ecp5", "ff"): REGISTERS,
    ("ice40", "lut4"): {
        (1,): (14.1, 5.0, 2.5),
        (1, 2): (17.4, 5.0, 5.0),
        (1, 2, 3): (28.8, 5.0, 9.5),
        (1, 3): (28.8, 5.0, 9.5),
        (2,): (14.0, 5.0, 7.0),
        (2, 3): (27.1, 5.0, 4.0),
        (3,): (21.6, 5.0, 6.0),
    },
    ("ice40", "ff"): REGISTERS,
    ("gowin", "lut4"): {
        (1,): (15.9, 2.0, -1.0),
        (1, 2): (20.8, 2.0, -0.5),
        (1, 2, 3): (31.9, 2.0, 11.0),
        (1, 3): (31.9, 2.0, 11.0),
        (2,): (16.0, 2.0, 2.0),
        (2, 3): (28.9, 2.0, 7.0),
        (3,): (24.7, 2.0, -3.0),
    },
    ("gowin", "ff"): REGISTERS,
}
# Weights of what is around them, in the order of `_around`.
AROUND = {
    ("ecp5", "lut4"): (2.554, 4.006, 2.098, 1.844, 1525.936),
    ("ecp5", "ff"): (11.753, 0.957, 1.393, 6.228, 821.844),
    ("ice40", "lut4"): (3.916, 10.86, 9.175, 0.0, 1731.469),
    ("ice40", "ff"): (0.0, 4.988, 2.024, 3.572, 1195.718),
    ("gowin", "lut4"): (2.333, 3.278, 6.282, 10.502, 1603.606),
    ("gowin", "ff"): (13.914, 0.717, 1.474, 6.406, 825.69),
}
ERRORS = {
    "ecp5": "fitted to 16 engines; error of one that is left out: logic 6 % (rms), 15 % (most), "
            "registers 7 %, 16 %; block RAMs within 2 there",
    "ice40": "fitted to 7 engines; error of one that is left out: logic 11 % (rms), 19 % (most), "
             "registers 12 %, 26 %; block RAMs within 4 there",
    "gowin": "fitted to 16 engines; error of one that is left out: logic 8 % (rms), 29 % (most), "
             "registers 7 %, 17 %; block RAMs within 2 there",
}
_18K = (512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1)
BLOCKS = {  # words and bits of a block RAM
    "ecp5": _18K, "gowin": _18K, "ice40": ((256, 16), (512, 8), (1024, 4), (2048, 2))}
SMALL_ROM, DISTRIBUTED = 64, 256  # words; up to these, memories are no block RAM


@dataclass(frozen=True)
class Area:
    """Estimated cells: `lut4` (LUT4 and two per carry cell; on iCE40 and Gowin logic cells),
    `ff`, `block_ram`."""

    cells: dict[str, int]
    error: str


def estimate(hardware: Hardware, family: str) -> Area:
    """The area of a machine on any device of `family`."""
    array = hardware.array
    size = array.words, hardware.acc_bits, 1
    cells = {}
    for kind in ("lut4", "ff"):
        element = sum(a * b for a, b in zip(ELEMENTS[family, kind][array.precisions], size,
                                            strict=True))
        around = sum(a * b for a, b in zip(AROUND[family, kind],
                                           _around(hardware, family, kind), strict=True))
        cells[kind] = round(array.rows * array.columns * element + around)
    blocks = sum(each.blocks for each in memories(hardware, family))
    error = ERRORS[family]
    if hardware.memory == "ram" or hardware.programs > 1 or hardware.result_words:
        error += "; the logic of loading, records and results in words is not counted"
    return Area({**cells, "block_ram": blocks}, error)


def _around(hardware: Hardware, family: str, kind: str) -> tuple[float, ...]:
    array = hardware.array
    bits, widest = 6 * array.words, hardware.weight_edges[-1]
    columns = array.columns * hardware.score_bits
    if kind == "ff":  # pixels on their way, skew of rows and columns, scores
        return (array.rows * bits, array.rows**2 * bits / 2,
                array.columns * (widest + bits * (array.columns + 1) / 2), columns, 1)
    rotation = array.rows * bits * max(1, ceil(log2(max(2, array.rows))))
    distributed = sum(each.distributed for each in memories(hardware, family))
    return rotation, array.columns * widest, columns, distributed, 1


@dataclass(frozen=True)
class MemoryArea:
    """`copies` memories of one kind, `bits` in all, and what they take in all."""

    name: str
    copies: int
    bits: int
    blocks: int  # block RAMs
    distributed: int = 0  # cells of 16 words of 4 bits


def memories(hardware: Hardware, family: str) -> list[MemoryArea]:
    """All of the machine's memories but those without a word."""
    array, edges = hardware.array, hardware.weight_edges
    read_only = [("weights", end - begin, (stop - start) * array.columns)
                 for (start, stop), (_, depth) in zip(pairwise(edges), hardware.weights,
                                                      strict=True)
                 for begin, end, _ in pieces(depth)]
    read_only += [("biases", hardware.tiles, hardware.score_bits * array.columns),
                  ("tiles", hardware.tiles, sum(tile_fields(hardware).values())),
                  ("operations", hardware.operations, sum(layer_fields(hardware).values())),
                  ("seeds", hardware.seeds, hardware.seed_bits)]
    found = [MemoryArea(name, 1, depth * width,
                        _blocks(depth, width, family) if depth > SMALL_ROM else 0)
             for name, depth, width in read_only]
    written = [("skips", 1, hardware.skip_words, 3 * array.unit),
               ("selects", 1, hardware.select_words, array.columns),
               ("pooling", 1, hardware.pool_width * array.units, 3 * array.unit),
               ("states", 1, hardware.state_words, hardware.state_bits * array.unit),
               ("results", 1, hardware.output_words, hardware.value_bits * array.unit)]
    written = [(*each, _blocks(*each[2:], family)) for each in written]
    written += [("activations", array.rows, *each) for each in _activations(hardware, family)]
    for name, copies, depth, width, blocks in written:
        cells = ceil(width / 4) * ceil(depth / 16)
        if family != "ice40" and depth <= DISTRIBUTED and cells <= 32 * blocks:
            found.append(MemoryArea(name, copies, copies * depth * width, 0, copies * cells))
        else:
            found.append(MemoryArea(name, copies, copies * depth * width,
                                    copies * blocks if depth * width > 128 else 0))
    return [each for each in found if each.bits]


def block_bits(family: str) -> int:
    """Of a block RAM."""
    return max(words * bits for words, bits in BLOCKS[family])


def _activations(hardware: Hardware, family: str) -> list[tuple[int, int, int]]:
    """Depth, width and block RAMs of each memory of a bank.

    A part of a lane that is written alone fills whole bytes of nine bits there.
    """
    depth, lane = hardware.activation_words, 2 * hardware.array.words
    part = min(hardware.array.unit, lane)
    found = []
    for lanes in (1, 2) if hardware.carries else (3,):
        parts = lanes * lane // part
        found.append((depth, lanes * lane, min(ceil(depth / words) * (
            ceil(parts * ceil(part / 9) / (bits // 9)) if family != "ice40" and bits >= 9 else
            ceil(parts * part / bits) if bits == 16 else parts * ceil(part / bits))
            for words, bits in BLOCKS[family])))
    return found


def _blocks(depth: int, width: int, family: str) -> int:
    return min(ceil(depth / words) * ceil(width / bits) for words, bits in BLOCKS[family])
