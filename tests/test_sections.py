"""Addresses of what can be loaded, records, and programs beside each other."""

from dataclasses import replace

import pytest

from export.build import build
from export.checked import ConfigError
from export.config import Config, MachineConfig
from export.descriptor import layer_fields, tile_fields
from export.hardware import Hardware
from export.pack import empty, join, pack
from export.program import Program
from export.sections import (
    RECORDS,
    Section,
    load_address_bits,
    memories,
    moved,
    record_fields,
    record_values,
    record_word,
    sections,
)
from sim.samples import random_network
from tests.designs import SMALL, conv, design, random_maps

ONE = design([conv("a", 1, 3, 3)], (1, 1, 1), height=2, width=2, channels=1, classes=2)


def machines():
    """Machines of all kinds and sizes."""
    programs = [Program(config) for config in SMALL]
    yield from (Hardware.of(programs, memory="ram", hold=hold, slots=slots)
                for hold, slots in [(1, 0), (2, 3), (4, 9), (3, 200)])
    yield Hardware.of([Program(ONE)], memory="ram")
    yield Hardware.of([Program(ONE)])
    for seed in range(40):
        try:
            program = Program(random_maps(seed))
        except ConfigError:
            continue
        yield Hardware.of([program], memory="ram", slots=1 + seed % 5)


@pytest.mark.parametrize("rows, width, parts, stride, span", [
    (1, 1, 1, 1, 1), (1, 32, 1, 1, 1), (1, 33, 2, 2, 2), (3, 32, 1, 1, 4), (3, 64, 2, 2, 8),
    (4, 65, 3, 4, 16), (5, 129, 5, 8, 64), (65, 96, 3, 4, 512), (64, 128, 4, 4, 256)])
def test_a_section_takes_powers_of_two(rows, width, parts, stride, span):
    section = Section(name="x", rows=rows, width=width)
    assert (section.parts, section.stride, section.span) == (parts, stride, span)


def test_words_of_a_row_begin_with_its_lowest_bits():
    section = Section(name="x", rows=1, width=70)
    assert section.words(0x2a_89abcdef_01234567) == [0x01234567, 0x89abcdef, 0x2a]
    assert section.words(0) == [0, 0, 0]


def test_sections_lie_side_by_side():
    """At multiples of their spans, in the order of the memories, no address twice and none left."""
    count = 0
    for hardware in machines():
        found = sections(hardware)
        assert [each.name for each in found] == [RECORDS, *memories(hardware)]
        assert found[0].rows == hardware.programs
        for section in found:
            assert section.base % section.span == 0
            for size in (section.span, section.stride):
                assert size & size - 1 == 0
            assert section.stride // 2 < section.parts <= section.stride
            assert section.span // 2 < section.rows * section.stride <= section.span
            assert 32 * (section.parts - 1) < section.width <= 32 * section.parts
        at = 0
        for section in sorted(found, key=lambda each: each.base):
            assert section.base == at
            at += section.span
        assert 2**load_address_bits(hardware) >= at
        assert 2**(load_address_bits(hardware) - 1) < at or load_address_bits(hardware) == 1
        count += 1
    assert count > 20


@pytest.mark.parametrize("ends, bits", [([16], 4), ([8, 16], 4), ([16, 17], 5), ([1], 1), ([2], 1),
                                        ([8, 15], 4)])
def test_an_address_has_no_bit_too_many(monkeypatch, ends, bits):
    starts = [0, *ends]
    found = [Section(name="x", rows=end - start, width=8, base=start)
             for start, end in zip(starts, ends, strict=False)]
    monkeypatch.setattr("export.sections.sections", lambda hardware: tuple(found))
    assert load_address_bits(None) == bits


def test_widths_are_those_of_the_layouts():
    for hardware in machines():
        widths = {each.name: (each.rows, each.width) for each in sections(hardware)}
        assert widths[RECORDS][1] == sum(record_fields(hardware).values())
        assert widths["layers"] == (hardware.operations, sum(layer_fields(hardware).values()))
        assert widths["tiles"] == (hardware.tiles, sum(tile_fields(hardware).values()))
        assert widths["biases"][0] == hardware.tiles
        assert ("seeds" in widths) == (hardware.seeds > 0)


# ---- records

def small():
    return Hardware.of([Program(config) for config in SMALL], memory="ram", hold=3)


def fields_of(hardware, word: int) -> dict[str, int]:
    values = {}
    for name, bits in record_fields(hardware).items():
        values[name], word = word & (1 << bits) - 1, word >> bits
    assert word == 0
    return values


def test_a_record_is_what_the_program_takes():
    hardware = small()
    for config in SMALL:
        program = Program(config, hardware.pixel_words)
        network, values = config.network, record_values(program, hardware)
        images = pack(program, hardware, random_network(network, 1))
        assert images.records == [values]
        for name in memories(hardware):
            if name != "biases":
                assert (values[f"{name}_base"], values[f"{name}_end"]) == (
                    0, len(images.rows(name)))
        assert len(images.biases) == values["tiles_end"]
        pixels = sorted(hardware.pixels)[values["format"]]
        assert (pixels.channels, pixels.fold) == (network.channels, network.fold)
        assert (values["last_x"] + 1) * network.fold == network.width
        assert (values["last_y"] + 1) * network.fold == network.height
        assert values["pad"] == network.pad and values["valid"] == 1
        assert values["slots"] * program.array.rows >= network.height * network.width // (
            network.fold**2)
        assert fields_of(hardware, record_word(hardware, values)) == values


def test_the_largest_bases_fit():
    """A program may end with the last row of every memory."""
    hardware = small()
    values = record_values(Program(SMALL[0], hardware.pixel_words), hardware)
    bases = {name: rows - values[f"{name}_end"]
             for name, (rows, _) in memories(hardware).items() if name != "biases"}
    placed = moved(values, bases)
    assert fields_of(hardware, record_word(hardware, placed)) == placed
    for name, base in bases.items():
        assert placed[f"{name}_base"] == base
        assert placed[f"{name}_end"] == memories(hardware)[name][0]
    assert {name: placed[name] for name in ("valid", "format", "last_x", "last_y", "slots", "pad")
            } == {name: values[name] for name in ("valid", "format", "last_x", "last_y", "slots",
                                                  "pad")}
    empty_program = dict.fromkeys(values, 0) | {f"{name}_base": rows for name, (rows, _) in
                                                memories(hardware).items() if name != "biases"}
    assert record_word(hardware, empty_program)


def test_a_record_that_is_none_is_refused():
    hardware = small()
    values = record_values(Program(SMALL[0], hardware.pixel_words), hardware)
    fewer = {name: value for name, value in values.items() if name != "pad"}
    for wrong, size, named in [(fewer, 17, "pad"), (values | {"more": 1}, 19, "more"),
                               (fewer | {"more": 1}, 18, "more, pad")]:
        with pytest.raises(ConfigError, match=rf"^record: must have the machine's 18 fields, not "
                                              rf"{size} with others or without: {named}$"):
            record_word(hardware, wrong)
    with pytest.raises(ConfigError, match=r"^pad: wanted 0 \.\.\. 255, got 256$"):
        record_word(hardware, values | {"pad": 256})
    with pytest.raises(ConfigError, match=r"^tiles_base: wanted 0 \.\.\. \d+, got -1$"):
        record_word(hardware, values | {"tiles_base": -1})


# ---- programs beside each other

def parts_of(hardware, configs):
    return [pack(Program(config, hardware.pixel_words), hardware,
                 random_network(config.network, k)) for k, config in enumerate(configs)]


def test_programs_follow_each_other():
    hardware = Hardware.of([Program(config) for config in SMALL], hold=4)
    parts = parts_of(hardware, SMALL)
    joined = join(hardware, parts)
    assert len(joined.records) == 4
    for name in memories(hardware):
        assert joined.rows(name) == [row for part in parts for row in part.rows(name)]
        side = "tiles" if name == "biases" else name
        for record, part in zip(joined.records, parts, strict=True):
            rows = slice(record[f"{side}_base"], record[f"{side}_end"])
            assert joined.rows(name)[rows] == part.rows(name)
    assert parts[1].records[0]["tiles_base"] == 0  # a part is as it was
    assert len(parts[0].weights[0]) < len(joined.weights[0])


def test_programs_that_do_not_fit_beside_each_other_are_refused():
    hardware = Hardware.of([Program(config) for config in SMALL], memory="ram")
    parts = parts_of(hardware, SMALL)
    assert join(hardware, parts[:1]).records == parts[0].records
    with pytest.raises(ConfigError, match=r"^2 programs do not fit the machine at once: layers: "
                                          r"needs \d+ rows, has \d+$"):
        join(hardware, parts[:2])


@pytest.mark.parametrize("name", ["layers", "tiles", "weights0", "seeds"])
def test_one_row_too_many_is_refused(name):
    hardware = Hardware.of([Program(config) for config in SMALL], memory="ram")
    parts = parts_of(hardware, [SMALL[0], SMALL[0], SMALL[1]])
    needs = {each: sum(len(part.rows(each)) for part in parts) for each in memories(hardware)}
    for short in (0, 1):
        rows = {each: needs[each] - (short and each == name) for each in needs}
        exact = replace(
            hardware, operations=rows["layers"], tiles=rows["tiles"], seeds=rows["seeds"],
            weights=tuple((bits, rows[f"weights{k}"])
                          for k, (bits, _) in enumerate(hardware.weights)))
        if not short:
            assert len(join(exact, parts).records) == 3
            continue
        with pytest.raises(ConfigError, match=rf"3 programs .*: {name}: needs {needs[name]} rows, "
                                              rf"has {needs[name] - 1}$"):
            join(exact, parts)


def test_an_empty_machine():
    for hardware in machines():
        images = empty(hardware)
        assert images.records == []
        assert all(images.rows(name) == [] for name in memories(hardware))


# ---- builds

def of(config: Config, **machine) -> Config:
    return config.model_copy(update={"machine": MachineConfig(**machine)})


@pytest.mark.parametrize("machine", [{"slots": 3}, {"hold": 1}])
def test_rom_holds_all_of_its_programs(machine):
    networks = [random_network(config.network, 1) for config in SMALL[:2]]
    with pytest.raises(ConfigError, match=r"^test: machine.slots and machine.hold are for memory "
                                          r"'ram': ROM holds all of its programs$"):
        build([of(SMALL[0], **machine), SMALL[1]], networks)
    assert build([of(SMALL[0], hold=2), SMALL[1]], networks).held == 2


@pytest.mark.parametrize("missing", [0, 1])
def test_rom_needs_weights(missing):
    configs = [config.model_copy(update={"name": f"net{k}"}) for k, config in enumerate(SMALL[:2])]
    networks = [None if k == missing else random_network(config.network, 1)
                for k, config in enumerate(configs)]
    with pytest.raises(ConfigError, match=rf"^net{missing}: ROM needs weights$"):
        build(configs, networks)


def test_ram_holds_the_first_programs_whose_weights_are_given():
    networks = [random_network(config.network, 1) for config in SMALL]
    first = of(SMALL[0], memory="ram", hold=2, slots=3)
    for given, held in [([1, 1, 1, 1], 2), ([1, 0, 1, 1], 1), ([0, 1, 1, 1], 0), ([1, 1, 0, 0], 2)]:
        found = build([first, *SMALL[1:]], [network if there else None for network, there in
                                            zip(networks, given, strict=True)])
        assert found.held == held and found.hardware.programs == 3
        assert len(found.programs) == len(found.networks) == 4
    found = build([of(SMALL[0], memory="ram"), *SMALL[1:]], networks)
    assert found.held == found.hardware.programs == 4


def test_all_programs_run_on_the_array_of_the_first():
    other = SMALL[1].model_copy(update={"array": SMALL[1].array.model_copy(update={"rows": 1})})
    networks = [random_network(config.network, 1) for config in SMALL[:2]]
    found = build([SMALL[0], other], networks)
    assert {program.array for program in found.programs} == {SMALL[0].array}


def test_a_machine_holds_one_program_or_more():
    programs = [Program(config) for config in SMALL[:2]]
    for hold in (0, 3):
        with pytest.raises(ConfigError, match=rf"^a machine for 2 programs must hold 1 \.\.\. 2 of "
                                              rf"them, not {hold}$"):
            Hardware.of(programs, hold=hold)
