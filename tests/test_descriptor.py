"""The engine's ROM words: each field reads back as what the operation needs, in its own bits."""

import pytest
from amaranth.lib import data

from export.config import ConfigError
from export.descriptor import (
    FIELDS,
    GATES,
    RESCALES,
    layer_fields,
    layer_word,
    pack_fields,
    tile_fields,
)
from export.hardware import Hardware
from export.pack import pack
from export.program import Program
from hw.descriptor import bias_layout, layer_layout, tile_layout
from sim.samples import random_network
from tests.designs import clip_designs, conv, design, machine, random_maps

MADE = [design([conv("a", 8, 2, 3, pool=True),
                conv("b", 8, 2, 1, kernel=1, generator={"outputs": 4, "inputs": 4}),
                conv("c", 8, 1, 2, kernel=1, skip="b", gate="or",
                     generator={"outputs": 4, "inputs": 12, "mapping": "binary"})],
               (4, 4, 2), height=9, width=7, pad=200),
        design([conv("a", 3, 2, 2)], (1, 1, 1, (2,)), classifier_bits=2, pad=7),
        design([conv("a", 3, 1, 1)], (3, 2, 2, (1,)), classifier_bits=1, height=1, width=1),
        design([], (2, 3, 2), operations=[conv("a", 7, 2, 2), conv("b", 5, 2, 1, pool=True)]),
        design([], (2, 3, 2), operations=[
            conv("a", 7, 2, 2), {"kind": "map", "name": "b", "channels": 4, "weight_bits": 2}])]

CLIPS = {"clock", "in_clock", "last_frame", "in_stride", "out_stride", "coupled", "state_bits",
         "state_shift", "state_base"}
LEAVING = {"out_bits", "out_units", "out_last_pixel", "out_last_channel"}


def placed():
    """Programs of every kind with their machines."""
    clips = (config for _, config in clip_designs(range(20)))
    for config in [*MADE, *map(random_maps, range(60)), *clips]:
        try:
            program = Program(config)
        except ConfigError:
            continue
        yield program, Hardware.of([program])


def unpacked(fields: dict[str, int], word: int) -> dict[str, int]:
    values = {}
    for name, bits in fields.items():
        values[name], word = word % 2**bits, word >> bits
    assert word == 0, "bits beyond the last field"
    return values


def wanted(hardware: Hardware, op, layer, network) -> dict[str, int]:
    """What the engine must know of an operation, said once more."""
    pad, frames = network.pad, network.periods
    operation, rows, maps = (
        op.operation, hardware.array.rows, op.operation.kind == "conv")
    row_slots, row_banks = op.source.width // rows, op.source.width % rows
    kernel_columns = [-1, 0, 1] if operation.kernel == 3 else [0]
    if op.taps_per_word > 1:
        kernel_columns = [-1, 0] if op.taps_per_word == 2 else [0]
    edges = [0, *(bits for bits, _ in hardware.weights)]
    formats = sorted((each.rule, each.mapping, each.mode) for each in hardware.generators)
    made = operation.generator
    values_leave, cell = operation.kind == "map", operation.kind == "cell"
    vector = operation.kind == "sum" and operation.output == "codes"
    leaves = op.last and (maps or values_leave)
    size = op.source.height // (1 + (maps and operation.pool)) * (
        op.source.width // (1 + (maps and operation.pool)))
    values = {
        "mode": op.mode, "weight_bits": op.weight_bits,
        "segments": sum(0 < edge <= op.stored_bits for edge in edges),
        "result": 0 if maps else 3 if values_leave else 5 if cell else {
            "select": 1, "class": 2, "codes": 4}[operation.output],
        "last": op.last, "pool": maps and operation.pool,
        "code_bits": operation.code_bits if maps or cell or vector else 1,
        "out_mode": op.out_mode,
        "both_rows": operation.kernel == 3, "left": -1 in kernel_columns,
        "right": 1 in kernel_columns, "shift": layer.shift,
        "pad": pad if operation.inputs == ("pixels",) else 0,
        "last_digit": (hardware.digits if operation.inputs == ("pixels",) else 1) - 1,
        "tail": op.tail, "last_x": op.source.width - 1, "last_y": op.source.height - 1,
        "last_word": op.words - 1,
        "last_channel_tile": (-(-op.channels // hardware.array.columns) * (
            1 if not cell else 3 if operation.form == "coupled" else 4)) - 1,
        "last_pixel_tile": -(-op.source.pixels // rows) - 1,
        "slots": -(-op.source.pixels // rows), "out_slots": op.out_slots,
        "digit_stride": op.digit_words * op.slots, "in_base": op.in_base, "out_base": op.out_base,
        "clock": frames[op.name].bit_length() - 1,
        "in_clock": frames[operation.inputs[0]].bit_length() - 1,
        "last_frame": 1 if cell else operation.frames - 1,
        "coupled": cell and operation.form == "coupled",
        "state_bits": operation.state_bits - 1 if cell else 0,
        "state_shift": operation.state_shift if cell else 0, "state_base": op.state_base,
        "in_stride": op.in_stride, "out_stride": op.out_stride,
        "up_slots": -(-op.source.width // rows), "up_rot": (rows - row_banks) % rows,
        "down_slots": row_slots, "down_rot": row_banks,
        "gate": GATES.index(operation.gate) if maps else 0, "rescale": RESCALES.index(op.rescale),
        "skip_base": op.skip_base, "skip_end": op.skip_base + op.skip_size, "keep": op.keep,
        "keep_pooled": op.keep_pooled, "keep_base": op.keep_base, "select_base": op.select_base,
        "out_bits": (operation.out_bits if values_leave else operation.value_bits if cell
                     else 1) - 1,
        "out_units": (-(-op.channels // hardware.array.columns) * hardware.array.columns
                      // hardware.array.unit if leaves else 0),
        "out_last_pixel": size - 1 if leaves else 0,
        "out_last_channel": op.channels - 1 if leaves else 0,
        "generator": 1 + formats.index((made.rule, made.mapping, op.mode)) if made else 0,
        "seed": op.seed}
    return {name: int(value) for name, value in values.items()}


def test_every_field_reads_back():
    """Of a few dozen programs, each on its own machine; every field is there in one of them."""
    seen, different = set(), {}
    for program, hardware in placed():
        network = random_network(program.config.network, 1)
        images = pack(program, hardware, network)
        fields = layer_fields(hardware)
        for op, layer, word in zip(program.layers, network.layers, images.layers, strict=True):
            said = wanted(hardware, op, layer, program.config.network)
            assert unpacked(fields, word) == {name: said[name] for name in fields}, op.name
            assert word == layer_word(hardware, op, layer)
            for name in said.keys() - fields.keys():  # what the machine lacks is not needed
                assert said[name] == 0, name
            seen |= fields.keys()
            for name in fields:
                different.setdefault(name, set()).add(said[name])
    assert seen == {field.name for field in FIELDS}
    assert not [name for name, values in different.items() if len(values) < 2]


def test_tiles_say_where_their_words_start():
    for program, hardware in placed():
        tiles = pack(program, hardware, random_network(program.config.network, 1)).tiles
        offsets = [unpacked(tile_fields(hardware), word)["offset"] for word in tiles]
        assert offsets == [first * op.slots for op in program.layers for first in op.first_words]
    config = design([conv("a", 8, 2, 2), conv("b", 8, 2, 2, groups=4)], (2, 2, 1))
    program, hardware = machine(config)
    tiles = pack(program, hardware, random_network(config.network, 1)).tiles
    assert [word for word in tiles if word]  # a later tile reads another group


def test_layouts_have_the_packers_widths():
    for _, hardware in placed():
        for layout, fields in ((layer_layout(hardware), layer_fields(hardware)),
                               (tile_layout(hardware), tile_fields(hardware))):
            found, position = dict(iter(layout)), 0
            assert list(found) == list(fields)
            for name, bits in fields.items():
                assert (found[name].offset, found[name].width) == (position, bits), name
                position += bits
            assert layout.size == position
        assert bias_layout(hardware).size == hardware.array.columns * hardware.score_bits


def test_constants_of_the_layout_are_the_packed_word():
    """Amaranth reads the fields of a packed word as the table means them."""
    program, hardware = machine(MADE[0])
    network = random_network(program.config.network, 1)
    for op, layer in zip(program.layers, network.layers, strict=True):
        said = {name: value for name, value in wanted(hardware, op, layer, network.config).items()
                if name in layer_fields(hardware)}
        assert data.Const(layer_layout(hardware), layer_word(hardware, op, layer)) == (
            layer_layout(hardware).const(said))


@pytest.mark.parametrize("value, message", [
    (4, r"^b: wanted 0 \.\.\. 3, got 4$"), (-1, r"^b: wanted 0 \.\.\. 3, got -1$")])
def test_a_value_that_does_not_fit_is_refused(value, message):
    assert pack_fields({"a": 3, "b": 2}, {"a": 5, "b": 3}) == 0b11101
    with pytest.raises(ConfigError, match=message):
        pack_fields({"a": 3, "b": 2}, {"a": 5, "b": value})


def test_a_machine_without_gates_or_generators_has_no_fields_for_them():
    plain = layer_fields(machine(MADE[1])[1]).keys()
    assert {field.name for field in FIELDS} - plain == {
        "gate", "rescale", "skip_base", "skip_end", "keep", "keep_pooled", "keep_base",
        "select_base", "generator", "seed", *LEAVING, *CLIPS}
    whole = layer_fields(machine(MADE[0])[1]).keys()
    assert {field.name for field in FIELDS} - LEAVING - CLIPS == whole
    codes, values = (layer_fields(machine(config)[1]).keys() for config in MADE[-2:])
    assert LEAVING - codes == {"out_bits"} and LEAVING <= values
    assert all(field.text for field in FIELDS)
