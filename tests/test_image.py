"""Program images and machine descriptions: what they hold, and the line that each damage gets."""

import json
import os
import random
import struct
import time
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest

from export.checked import MESSAGE, ConfigError, parse
from export.hardware import Hardware
from export.image import FILE_LIMIT, HEAD, HEADER_LIMIT, WORDS_LIMIT, Image, build_image
from export.loader import load_list
from export.machine import Machine, describe_machine, machine_hash
from export.pack import pack
from export.program import Program
from export.sections import memories, record_word
from sim.samples import random_network
from tests.commands import run
from tests.designs import conv, design

SMALL = design([conv("a", 4, 3, 1), conv("b", 4, 2, 1)], (2, 4, 1))
MORE = {"generator": {"outputs": 4, "inputs": 6}, "kernel": 1}
WIDE = design([conv("a", 8, 3, 2), conv("b", 8, 2, 1), conv("c", 9, 2, 1, **MORE)], (2, 4, 2))


def describe(*configs, **how) -> dict:
    """Of the machine of RAM for these designs."""
    return describe_machine(Hardware.of([Program(each) for each in configs], memory="ram", **how))


def machine_of(values: dict) -> Machine:
    return parse(json.loads(json.dumps(values)), "machine", Machine)


MACHINE = machine_of(describe(SMALL, slots=2))


@pytest.fixture(scope="module")
def image() -> Image:
    return build_image(MACHINE, SMALL, random_network(SMALL.network, 1))


@pytest.fixture
def engine_json(tmp_path):
    path = tmp_path / "engine.json"
    path.write_text(json.dumps({"name": "test", "machine": describe(SMALL, slots=2)}))
    return path


def sealed(content: bytes) -> bytes:
    """With the CRC that it should have."""
    return content + struct.pack("<I", zlib.crc32(content))


def with_header(image: Image, header: bytes) -> bytes:
    head = HEAD.pack(b"HXLI", 1, bytes.fromhex(image.machine), bytes.fromhex(image.program),
                     len(header), len(image.words))
    return sealed(head + header + image.words.tobytes())


# ---- what is in it

@pytest.mark.parametrize("config", [SMALL, WIDE])
def test_words_are_the_packer_s_rows(config):
    """Read with struct and json alone, as docs/formats.md says."""
    machine = machine_of(describe(config))
    network = random_network(config.network, 1)
    hardware = machine.hardware
    content = build_image(machine, config, network).to_bytes()
    magic, version, machine_hash, digest, size, count = struct.unpack_from("<4sI32s32sII", content)
    assert (magic, version, machine_hash.hex()) == (b"HXLI", 1, machine.hash)
    assert digest.hex() == network.digest
    header = json.loads(content[80:80 + size])
    words = struct.unpack_from(f"<{count}I", content, 80 + size)
    assert len(content) == 80 + size + 4 * count + 4
    images, at = pack(hardware.place(config), hardware, network), 0
    for name, (_, width) in memories(hardware).items():
        parts = -(-width // 32)
        assert header["sections"][name] == len(images.rows(name))
        for row in images.rows(name):
            assert sum(word << 32 * k for k, word in enumerate(words[at:at + parts])) == row
            at += parts
    assert at == count
    assert header["record"] == images.records[0]
    assert header["frame"] == {"channels": 3, "height": 6, "width": 5}
    assert header["output"] == {"kind": "class", "channels": 3, "height": 1, "width": 1,
                                "bits": hardware.score_bits}
    assert header["classes"] == 3 and header["name"] == "test"


@pytest.mark.parametrize("config", [SMALL, WIDE])
def test_round_trip(config, tmp_path):
    machine = machine_of(describe(config))
    made = build_image(machine, config, random_network(config.network, 1))
    made.save(tmp_path / "deep" / "a.hxi")
    loaded = Image.load(tmp_path / "deep" / "a.hxi")
    assert (loaded.machine, loaded.program, loaded.header) == (
        made.machine, made.program, made.header)
    assert loaded.words.dtype == np.uint32
    np.testing.assert_array_equal(loaded.words, made.words)
    assert loaded.to_bytes() == made.to_bytes()
    with pytest.raises(ValueError):
        loaded.words[0] = 1
    rows, wanted = loaded.rows(machine), made.rows(machine)
    assert list(rows) == list(wanted) == list(memories(machine.hardware))
    for name, values in wanted.items():
        np.testing.assert_array_equal(rows[name], values)


def test_a_new_training_needs_no_new_machine(image):
    """The same network with other weights: the same machine, header and size."""
    other = build_image(MACHINE, SMALL, random_network(SMALL.network, 2))
    assert (other.machine, other.header) == (image.machine, image.header)
    assert other.program != image.program
    assert len(other.to_bytes()) == len(image.to_bytes())


def test_outputs_of_other_kinds():
    codes = design([], (2, 4, 1), operations=[conv("a", 5, 3, 3), conv("b", 7, 2, 2, pool=True)])
    values = design([], (2, 4, 1), operations=[
        conv("a", 5, 3, 3), {"kind": "map", "name": "b", "channels": 6, "weight_bits": 3,
                             "out_bits": 5}])
    machine = machine_of(describe(codes, values, hold=1))
    for config, output in ((codes, ("codes", 7, 3, 2, 2)), (values, ("map", 6, 6, 5, 5))):
        made = build_image(machine, config, random_network(config.network, 1))
        assert tuple(made.header.output.model_dump().values()) == output
        assert made.header.classes == 0


def test_a_network_that_does_not_fit():
    more = design([conv("a", 4, 3, 1), conv("b", 4, 2, 1), conv("c", 4, 2, 1)], (2, 4, 1))
    with pytest.raises(ConfigError, match=r"^test: does not fit the machine: .*: needs 4, has 3$"):
        build_image(MACHINE, more, random_network(more.network, 1))


def test_the_array_is_the_machine_s():
    """Of a network alone, whatever array its design was for."""
    network = random_network(SMALL.network, 1)
    other = SMALL.model_copy(update={"array": WIDE.array})
    assert build_image(MACHINE, other, network).to_bytes() == (
        build_image(MACHINE, SMALL, network).to_bytes())


# ---- damage

def refused(content: bytes, match: str = ""):
    with pytest.raises(ConfigError, match=match) as error:
        Image.from_bytes(content).rows(MACHINE)
    assert "\n" not in str(error.value) and len(str(error.value)) <= MESSAGE


def test_every_flipped_byte_is_refused(image):
    content, rng = image.to_bytes(), random.Random(1)
    assert 500 < len(content) < 5000
    for at in range(len(content)):
        for change in {1, 0x80, rng.randint(1, 255)}:
            damaged = bytearray(content)
            damaged[at] ^= change
            refused(bytes(damaged), "damaged|version must be 1|must begin with")


def test_every_truncation_is_refused_at_once(image):
    content, start = image.to_bytes(), time.perf_counter()
    for size in range(len(content)):
        refused(content[:size], "cut off|must begin with")
    assert time.perf_counter() - start < 5
    for more in (b"\0", content, b"\0" * 4096):
        refused(content + more, "must have .* bytes, not ")


@pytest.mark.parametrize("header, words, match", [
    (2**32 - 1, 0, f"header must be at most {HEADER_LIMIT}, not 4294967295"),
    (HEADER_LIMIT + 1, 0, "header must be at most"),
    (16, 2**32 - 1, f"words must be at most {WORDS_LIMIT}, not 4294967295"),
    (16, WORDS_LIMIT, r"must have 67108964 bytes, not 112"),
    (HEADER_LIMIT, 1, "must have 65624 bytes, not 112"),
])
def test_claimed_lengths_reserve_nothing(tmp_path, header, words, match):
    path = tmp_path / "huge.hxi"
    path.write_bytes(HEAD.pack(b"HXLI", 1, bytes(32), bytes(32), header, words) + bytes(32))
    tracemalloc.start()
    with pytest.raises(ConfigError, match=rf"huge\.hxi: .*{match}"):
        Image.load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "huge.hxi"
    with path.open("wb") as file:
        file.truncate(FILE_LIMIT + 1)
    tracemalloc.start()
    with pytest.raises(ConfigError, match=rf"huge\.hxi: must have at most {FILE_LIMIT} bytes"):
        Image.load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_what_is_no_file(tmp_path):
    for path, match in ((tmp_path / "none.hxi", "No such file"), (tmp_path, "must be a plain file"),
                        (tmp_path / "none.hxi" / "x", "cannot be read|No such file")):
        with pytest.raises(ConfigError, match=match):
            Image.load(path)
    os.mkfifo(tmp_path / "pipe.hxi")
    with pytest.raises(ConfigError, match=r"pipe\.hxi: must be a plain file"):
        Image.load(tmp_path / "pipe.hxi")


@pytest.mark.parametrize("version", [0, 2, 2**32 - 1])
def test_other_versions(image, version):
    content = image.to_bytes()[:-4]
    refused(sealed(content[:4] + struct.pack("<I", version) + content[8:]),
            rf"^version must be 1, not {version}$")


@pytest.mark.parametrize("header, match", [
    (b"", "header must be JSON"), (b"{", "header must be JSON"),
    (b"\xff\xfe{}", "header must be JSON"), (b"[" * 60000, "header must be JSON"),
    (b'{"cycles": ' + b"9" * 5000 + b"}", "header must be JSON"),
    (b"null", "header: must be a table"), (b"[1]", "header: must be a table"),
    (b"{}", "header: name: is missing"),
])
def test_a_header_that_is_none(image, header, match):
    refused(with_header(image, header), match)


def changed(image: Image, field: str, value) -> bytes:
    """With a field of the header set, such as "frame.width", or without it, if value is None."""
    header = image.header.model_dump(mode="json")
    table, (*path, last) = header, field.split(".")
    for name in path:
        table = table[name]
    if value is None:
        del table[last]
    else:
        table[last] = value
    return with_header(image, json.dumps(header).encode())


@pytest.mark.parametrize("field, value, match", [
    ("name", 7, "header: name: must be a string, not 7"),
    ("name", "x" * 101, "header: name: "), ("name", "a\nslot 1: b", "header: name: "),
    ("cycles", -1, "header: cycles: .*, not -1"),
    ("cycles", 1.5, "header: cycles: .*, not 1.5"),
    ("cycles", float("nan"), "header: cycles: .*, not nan"),
    ("cycles", True, "header: cycles: .*, not True"),
    ("strange", 1, "header: strange: is not known"),
    ("frame.width", 0, "header: frame.width: "),
    ("frame.width", 10**9, "header: frame.width: "),
    ("frame.channels", 4, "frames must have at most 3 channels, not 4"),
    ("frame", [], "header: frame: "),
    ("output.kind", "heat", "header: output.kind: "),
    ("output.kind", "codes", r"output must be one of \['class'\], not codes"),
    ("output.channels", 2, "classes must be 2, not 3"),
    ("classes", 0, "classes must be 3, not 0"),
    ("output", None, "header: output: is missing"),
    ("sections", [1], "header: sections: "),
    ("sections.tiles", 2**40, "header: sections.tiles: "),
    ("sections.tiles", 1, "must have .* words for its rows, not "),
    ("sections.more", 1, "sections must be .*, not "),
    ("sections.tiles", None, "sections must be .*, not "),
    ("sections.Tiles", 1, "header: sections.Tiles"),
    ("record.valid", 0, "record: valid must be 1, not 0"),
    ("record.tiles_base", 1, "record: tiles_base must be 0, not 1"),
    ("record.layers_end", 1, "record: layers_end must be 3, not 1"),
    ("record.slots", 2**60, "record: slots must have . bits, not the value"),
    ("record.slots", None, "record must have the fields .*, not "),
    ("record.more", 1, "record must have the fields .*, not "),
])
def test_a_header_that_does_not_fit(image, field, value, match):
    refused(changed(image, field, value), match)


def test_more_rows_than_there_are(image):
    """As many words, other rows: tiles and biases give some to a section that is full."""
    depth = MACHINE.by_name["weights0"].rows
    assert depth & depth + 1  # so that the record's field has room for one more
    parts = [MACHINE.by_name[name].parts for name in ("tiles", "biases", "weights0")]
    header = image.header.model_dump(mode="json")
    rows = header["sections"]
    assert rows["weights0"] == depth and (parts[0] + parts[1]) % parts[2] == 0
    rows |= {"tiles": rows["tiles"] - 1, "biases": rows["biases"] - 1,
             "weights0": depth + (parts[0] + parts[1]) // parts[2]}
    header["record"] |= {"tiles_end": rows["tiles"], "weights0_end": rows["weights0"]}
    words = np.zeros_like(image.words)
    refused(with_header(replace(image, words=words), json.dumps(header).encode()),
            f"weights0: must have at most {depth} rows, not {rows['weights0']}$")


def test_biases_belong_to_tiles(image):
    """A tile less, and its words in a row more of weights."""
    machine = machine_of(describe(SMALL, SMALL, hold=2))
    made = build_image(machine, SMALL, random_network(SMALL.network, 1))
    header = made.header.model_dump(mode="json")
    more = machine.by_name["tiles"].parts // machine.by_name["weights0"].parts
    header["sections"]["tiles"] -= 1
    header["sections"]["weights0"] += more
    header["record"]["tiles_end"] -= 1
    header["record"]["weights0_end"] += more
    other = replace(made, words=np.zeros_like(made.words))
    with pytest.raises(ConfigError, match=r"^test: biases must have as many rows as tiles$"):
        Image.from_bytes(with_header(other, json.dumps(header).encode())).rows(machine)


def test_order_in_the_header_does_not_count(image):
    header = image.header.model_copy(update={
        "sections": dict(reversed(image.header.sections.items())),
        "record": dict(reversed(image.header.record.items()))})
    other = replace(image, header=header)
    assert list(header.record) != list(image.header.record)
    assert other.to_bytes() == image.to_bytes()
    for name, rows in other.rows(MACHINE).items():
        np.testing.assert_array_equal(rows, image.rows(MACHINE)[name])


def test_bits_beside_a_row_are_refused(image):
    for name, rows in image.rows(MACHINE).items():
        width = MACHINE.by_name[name].width % 32
        if width:
            words = image.words.copy()
            at = np.shares_memory(rows, image.words) and (
                rows.__array_interface__["data"][0]
                - image.words.__array_interface__["data"][0]) // 4 + rows.shape[1] - 1
            words[at] |= np.uint32(1 << width)
            refused(replace(image, words=words).to_bytes(), f"{name}: rows must have .* bits, not")


def test_another_machine(image):
    other = machine_of(describe(SMALL, slots=3))
    with pytest.raises(ConfigError, match=rf"^test: must be an image of this machine, "
                       rf"{other.hash[:16]}\.\.\., not of {image.machine[:16]}\.\.\.$"):
        image.rows(other)


# ---- the machine's own description

def test_a_machine_s_description(engine_json):
    machine = Machine.load(engine_json)
    assert machine == MACHINE
    hardware = Hardware.of([Program(SMALL)], memory="ram", slots=2)
    assert machine.hardware == hardware
    wide = machine_of(describe(SMALL, WIDE_MATE, hold=2, slots=5))
    assert wide.hardware == Hardware.of([Program(SMALL), Program(WIDE_MATE)], memory="ram",
                                        hold=2, slots=5)


WIDE_MATE = design([conv("a", 8, 2, 2), conv("b", 8, 2, 1, skip="a", gate="mux_or")], (2, 4, 1))


def edited(path, change, seal: bool):
    values = json.loads(path.read_text())
    change(values["machine"])
    if seal:
        values["machine"]["hash"] = machine_hash(values["machine"])
    path.write_text(json.dumps(values))


@pytest.mark.parametrize("change", [
    (lambda each: each.update(programs=3)),
    (lambda each: each["capacities"].update(tiles=1)),
    (lambda each: each.update(hash="0" * 64)),
    (lambda each: each.pop("hash")),
    (lambda each: each.update(hash=[1])),
])
def test_an_edited_machine(engine_json, change):
    edited(engine_json, change, seal=False)
    with pytest.raises(ConfigError, match=r"engine\.json: machine: hash must be .* was it edited"):
        Machine.load(engine_json)


def test_fields_of_a_record_in_another_order(engine_json):
    """Their order is their place in the word, so it counts in the hash."""
    def turn(each):
        each["record"] = dict(reversed(each["record"].items()))

    edited(engine_json, turn, seal=False)
    with pytest.raises(ConfigError, match=r"hash must be .*: was it edited"):
        Machine.load(engine_json)


def section(name, **values):
    def change(each):
        next(one for one in each["sections"] if one["name"] == name).update(values)
    return change


@pytest.mark.parametrize("change, match", [
    (lambda each: each.update(format=2), "format: must be 1, not 2"),
    (lambda each: each.update(programs=3), r"programs: must have rows and bits \(3, "),
    (lambda each: each.update(load_address_bits=4), "sections must end within 4 bits"),
    (lambda each: each.update(memory="flash"), "memory: "),
    (lambda each: each.update(more=1), "more: is not known"),
    (lambda each: each.update(outputs=[]), "outputs: "),
    (lambda each: each["record"].pop("valid"), "programs: must have rows and bits"),
    (lambda each: each["record"].update(Valid=each["record"].pop("valid")), "record"),
    (lambda each: each["record"].update(good=each["record"].pop("valid")),
     "record must have the fields"),
    (lambda each: each["sections"].pop(), "record must have the fields"),
    (lambda each: each["sections"].append(each["sections"][0]), "must have different names"),
    (section("tiles", rows=2**30), "sections.2.rows: "),
    (section("tiles", rows=1, base=0), "must not overlap|tiles and biases"),
    (section("tiles", parts=2), "tiles: parts must be 1, not 2"),
    (section("tiles", stride=2), "tiles: stride must be 1, not 2"),
    (section("tiles", base=1), "tiles: base must be a multiple of"),
    (section("layers", base=0), "must not overlap another section"),
    (section("biases", rows=2), "as many rows of both"),
])
def test_a_machine_that_does_not_hold_together(engine_json, change, match):
    edited(engine_json, change, seal=True)
    with pytest.raises(ConfigError, match=rf"engine\.json: machine: .*{match}"):
        Machine.load(engine_json)


@pytest.mark.parametrize("change, match", [
    (lambda each: each["capacities"].pop("tiles"), "capacities: tiles: "),
    (lambda each: each["capacities"].update(pixels=[]), "capacities: "),
    (lambda each: each["capacities"].update(tiles="x"), "capacities: tiles: "),
    (lambda each: each["capacities"]["array"].update(rows=-1), "capacities: array.rows: "),
    (lambda each: each["capacities"].update(tiles=each["capacities"]["tiles"] + 1),
     "capacities must give the sections"),
])
def test_capacities_that_are_none(engine_json, change, match):
    edited(engine_json, change, seal=True)
    machine = Machine.load(engine_json)
    with pytest.raises(ConfigError, match=match):
        build_image(machine, SMALL, random_network(SMALL.network, 1))


@pytest.mark.parametrize("text, match", [
    ("", "must be JSON"), ("[" * 100000, "must be JSON"), ("{}", "must have a table 'machine'"),
    ("[]", "must have a table 'machine'"), ('{"machine": 3}', "must have a table 'machine'")])
def test_what_is_no_engine_json(tmp_path, text, match):
    path = tmp_path / "engine.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"engine\.json: {match}"):
        Machine.load(path)
    path.write_bytes(b"\xff\xff\x00")
    with pytest.raises(ConfigError, match=r"engine\.json: must be JSON"):
        Machine.load(path)


def test_records_are_written_as_the_generator_does(image):
    values = image.header.record
    assert record_word(MACHINE.hardware, values) == sum(
        values[name] << sum(list(MACHINE.record.values())[:k])
        for k, name in enumerate(MACHINE.record))


# ---- the commands

def test_image_and_load(engine_json, tmp_path, capsys):
    toml = tmp_path / "small.toml"
    toml.write_text("""
        name = "small"
        array = {rows = 2, columns = 4, words = 1}
        [network]
        height = 6
        width = 5
        channels = 3
        classes = 3
        layers = [{name = "a", channels = 4, weight_bits = 3, code_bits = 1},
                  {name = "b", channels = 4, weight_bits = 2, code_bits = 1}]
        """)
    assert run("image", toml, "-m", engine_json, "-w", "random",
               "-o", tmp_path / "a.hxi") == 0
    made = Image.load(tmp_path / "a.hxi")
    assert (made.header.name, made.machine) == ("small", MACHINE.hash)
    writes = tmp_path / "writes.txt"
    assert run("load", tmp_path / "a.hxi", "-m", engine_json, "--slot", "1", "-o", writes) == 0
    out = capsys.readouterr().out
    assert "slot 1: small, network " in out and "give one of 3 classes" in out
    wanted = load_list(MACHINE, [made], 1)[1]
    came = [tuple(int(each, 16) for each in line.split())
            for line in writes.read_text().splitlines()]
    assert came == wanted
    for arguments, match in (
            (["load", tmp_path / "a.hxi", "-m", engine_json, "--slot", 2], "slot must be 0 to 1"),
            (["load", tmp_path / "a.hxi", tmp_path / "a.hxi", "-m", engine_json],
             "layers: needs 3 rows, has 0 free"),
            (["load", toml, "-m", engine_json], "not a program image"),
            (["load", tmp_path / "a.hxi", "-m", toml], "must be JSON")):
        assert run(*arguments) == 2
        assert match in capsys.readouterr().err
