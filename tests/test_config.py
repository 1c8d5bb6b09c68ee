"""The configuration: what it derives, and the one line that each mistake gets."""

import copy
import os
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from export.checked import MESSAGE
from export.config import ConfigError, load_config, parse_config
from export.network import NetworkConfig

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.toml"))

GOOD = {
    "name": "good",
    "network": {"height": 9, "width": 7, "channels": 3, "classes": 2, "layers": [
        {"name": "a", "channels": 4, "weight_bits": 3, "code_bits": 2, "pool": True},
        {"name": "b", "channels": 6, "weight_bits": 1, "code_bits": 1, "kernel": 1, "groups": 2}]},
    "array": {"rows": 4, "columns": 2, "words": 1},
}


def changed(path: str, value) -> dict:
    """GOOD with one value replaced; `path` is dotted, list positions are numbers."""
    values = copy.deepcopy(GOOD)
    *parents, last = (int(key) if key.isdigit() else key for key in path.split("."))
    place = values
    for key in parents:
        place = place[key]
    place[last] = value
    return values


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_design_loads(path):
    config = load_config(path)
    assert config.name == path.stem
    if config.machine.memory == "rom" and not config.machine.networks:
        assert config.alone.digest == config.digest
    assert len(config.network.shapes) == len(config.network.operations) + 1


def test_defaults():
    config = parse_config(GOOD)
    assert (config.array.precisions, config.array.dense) == ((1, 2, 3), False)
    assert (config.target.family, config.target.clock_mhz) == ("ecp5", 50.0)


def test_config_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        parse_config(GOOD).name = "other"


@pytest.mark.parametrize("path, value, message", [
    ("surprise", 1, r"surprise: is not known"),
    ("name", 7, r"name: must be a string, not 7"),
    ("network", 7, r"network: must be a table, not 7"),
    ("name", "a/b", r"name: must match .*, not 'a/b'"),
    ("name", "../b", r"name: must match .*, not '\.\./b'"),
    ("name", "a\nb", r"name: must match .*, not 'a\\nb'"),
    ("name", "a\n", r"name: must match .*, not 'a\\n'"),
    ("name", "", r"name: must match .*, not ''"),
    ("name", "a" * 101, r"name: must have at most 100 characters, not 'a+"),
    ("network.height", 0, r"network\.height: must be greater than or equal to 1, not 0"),
    ("array.rows", 129, r"array\.rows: must be less than or equal to 128, not 129"),
    ("array.columns", 129, r"array\.columns: must be less than or equal to 128, not 129"),
    ("array.words", 65, r"array\.words: must be less than or equal to 64, not 65"),
    ("array.rows", 1.0, r"array\.rows: must be an integer, not 1\.0"),
    ("array.rows", True, r"array\.rows: must be an integer, not True"),
    ("array.rows", 10**20, r"array\.rows: must be less than or equal to 128, "
                           r"not 1000+"),
    ("array.rows", 0, r"array\.rows: must be greater than or equal to 1, not 0"),
    ("array.precisions", [], r"array\.precisions: must have at least 1 items.*"),
    ("array.precisions", [4], r"array\.precisions\.0: must be 1, 2 or 3, not 4"),
    ("array.precisions", [3, 1],
     r"array: precisions must be ascending and different, not \[3, 1\]"),
    ("array.precisions", [1, 1],
     r"array: precisions must be ascending and different, not \[1, 1\]"),
    ("target", {"family": "xyz"}, r"target\.family: must be 'ecp5', 'ice40' or 'gowin', not 'xyz'"),
    ("target", {"clock_mhz": 0}, r"target\.clock_mhz: must be greater than 0, not 0"),
    ("target", {"clock_mhz": float("inf")}, r"target\.clock_mhz: must be finite.*"),
    ("train", {"epochs": 0}, r"train\.epochs: must be greater than or equal to 1, not 0"),
    ("train", {"label_smoothing": 1}, r"train\.label_smoothing: must be less than 1.*"),
])
def test_bad_value_is_refused(path, value, message):
    with pytest.raises(ConfigError, match=rf"^configuration: {message}$"):
        parse_config(changed(path, value))


@pytest.mark.parametrize("field", ["name", "network", "array"])
def test_missing_field_is_refused(field):
    values = {key: value for key, value in GOOD.items() if key != field}
    with pytest.raises(ConfigError, match=rf"^configuration: {field}: is missing$"):
        parse_config(values)


def test_part_of_a_configuration():
    part = parse_config(GOOD["network"], "part", NetworkConfig)
    assert part == parse_config(GOOD).network
    with pytest.raises(ConfigError, match=r"^part: a: pooling needs at least 2x2 pixels.*1x7$"):
        parse_config(GOOD["network"] | {"height": 1}, "part", NetworkConfig)


def test_file_that_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file or dir"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize("path", ["pipe", "/dev/zero", "."])
def test_what_might_never_end_is_not_read(tmp_path, path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=rf"{path}: must be a plain file$"):
        load_config(tmp_path / path)


@pytest.mark.parametrize("content", [b"network = [", b"\xff\xfe", b"a = 1\na = 2"])
def test_file_that_is_no_toml(tmp_path, content):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"^[^\n]*bad\.toml: cannot be read as TOML: [^\n]+$"):
        load_config(path)


def test_error_names_the_file(tmp_path):
    path = tmp_path / "empty.toml"
    path.write_text("")
    with pytest.raises(ConfigError, match=r"empty\.toml: network: is missing$"):
        load_config(path)


# ---- designs of several files

ENGINE = """
[array]
rows = 4
columns = 2
words = 1
[target]
family = "ice40"
"""
NETWORK = """
height = 9
width = 7
channels = 3
classes = 2
layers = [{name = "a", channels = 4, weight_bits = 3, code_bits = 2}]
"""


@pytest.fixture
def parts(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "x.toml").write_text(ENGINE)
    (tmp_path / "parts" / "y.toml").write_text(NETWORK)
    (tmp_path / "z.toml").write_text("epochs = 7\n")
    return tmp_path


def refused(path) -> str:
    """The message with which a design is refused, behind the file's name."""
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert len(message) <= MESSAGE and "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_design_of_several_files(parts):
    path = parts / "design.toml"
    path.write_text('engine = "x.toml"\nnetwork = "parts/y.toml"\ntrain = "z.toml"\n')
    config = load_config(path)
    assert (config.name, config.array.rows, config.target.family) == ("design", 4, "ice40")
    assert (config.network.width, config.train.epochs) == (7, 7)
    whole = parts / "whole.toml"
    whole.write_text(f"[train]\nepochs = 7\n[network]\n{NETWORK}\n{ENGINE}")
    assert load_config(whole).digest == config.digest


def test_folders_of_other_networks_do_not_count(parts, monkeypatch):
    text = f"[network]\n{NETWORK}\n{ENGINE}"
    path = parts / "machine.toml"
    path.write_text(text + '[machine]\nnetworks = ["a.toml"]\n')
    config = load_config(path)
    assert config.machine.networks == (str(parts / "a.toml"),)
    monkeypatch.chdir(parts)
    assert load_config("machine.toml").machine.networks == ("a.toml",)
    assert load_config("machine.toml").digest == config.digest
    path.write_text(text + "[machine]\nslots = 2\n")
    assert load_config(path).digest != config.digest


def test_other_networks_lie_beside_the_file_that_names_them(parts):
    (parts / "machines").mkdir()
    (parts / "machines/m.toml").write_text(f'{ENGINE}\n[machine]\nnetworks = ["a.toml"]\n')
    path = parts / "design.toml"
    path.write_text('engine = "machines/m.toml"\nnetwork = "parts/y.toml"\n')
    assert load_config(path).machine.networks == (str(parts / "machines/a.toml"),)
    path.write_text('engine = "x.toml"\nnetwork = "parts/y.toml"\n'
                    '[machine]\nnetworks = ["a.toml"]\n')
    assert load_config(path).machine.networks == (str(parts / "a.toml"),)


@pytest.mark.parametrize("lines, message", [
    ('engine = "none.toml"', "none.toml: cannot be read: No such file or directory"),
    ('engine = "z.toml"', "engine: must give array, machine and target, once, not 'epochs'"),
    ('engine = "x.toml"\narray = {rows = 1, columns = 1, words = 1}',
     "engine: must give array, machine and target, once, not 'array'"),
    ('engine = "x.toml"\ntarget = {}',
     "engine: must give array, machine and target, once, not 'target'"),
    ('engine = 5', "engine: must be a table or a file, not 5"),
    ('engine = ["x.toml"]', "engine: must be a table or a file, not ['x.toml']"),
    ('engine = ""', "must be a plain file"),
    ('engine = "a\\u0000b"', "cannot be read as TOML: "),
    ('engine = "x.toml"\nnetwork = "none.toml"', "none.toml: cannot be read: No such file or dir"),
    ('engine = "x.toml"\nnetwork = "x.toml"', "network.height: is missing"),
    ('engine = "x.toml"\nnetwork = "parts/y.toml"\ntrain = "x.toml"',
     "train.array: is not known"),
    ('engine = "x.toml"\nnetwork = "parts/y.toml"\ntrain = 5',
     "train: must be a table, not 5"),
])
def test_bad_parts_are_refused(parts, lines, message):
    path = parts / "design.toml"
    path.write_text(lines)
    assert message in refused(path)


# ---- files that want much

def digits(count: int) -> str:
    return "1" + "0" * (count - 1)


SIZE = "height = 9, width = 7, channels = 3"
GOOD_TABLES = {
    "network": "{height = 9, width = 7, channels = 3, classes = 2, layers = [{name = 'a', "
               "channels = 4, weight_bits = 3, code_bits = 2}]}",
    "array": "{rows = 4, columns = 2, words = 1}"}
MUCH = [
    "a = " + "[" * 50_000 + "]" * 50_000,
    "a = " + "[" * 150 + "]" * 150,
    "network = " + "{a = " * 20_000 + "1" + "}" * 20_000,
    "[" + "a." * 20_000 + "a]",
    f"array = {{rows = {digits(25)}, columns = 1, words = 1}}",
    f"array = {{rows = {digits(4000)}, columns = 1, words = 1}}",
    f"array = {{rows = {digits(9000)}, columns = 1, words = 1}}",
    f"array = {{rows = 0x{digits(9000)}, columns = 1, words = 1}}",
    f"array = {{rows = [0x{digits(9000)}], columns = 1, words = 1}}",
    f"array = {{rows = 1, columns = 1, words = 1, precisions = [0x{digits(9000)}]}}",
    f"array = {{rows = 1, columns = 1, words = 1, precisions = [[0x{digits(9000)}]]}}",
    f"array = {{rows = 1, columns = 1, words = 1, dense = 0x{digits(9000)}}}",
    f"target = {{clock_mhz = 0x{digits(9000)}}}",
    f"train = {{seed = 0x{digits(9000)}}}",
    f"network = {{{SIZE}, layers = [0x{digits(9000)}]}}",
    f"network = {{{SIZE}, layers = [{{name = 0x{digits(9000)}, gate = 'mux'}}]}}",
    f"network = {{{SIZE}, operations = [{{kind = 0x{digits(9000)}}}]}}",
    f"network = {{{SIZE}, layers = [{{channels = 0x{digits(9000)}}}], classes = 0x{digits(9000)}}}",
    f"engine = 0x{digits(9000)}",
    f"engine = [0x{digits(9000)}]",
    f"name = 0x{digits(9000)}",
    f"name = '{'a' * 10_000}'",
    f"{'k' * 10_000} = 1",
    "'a\\nb' = 1", '"a\\nb" = 1',
    f"engine = '{'e' * 10_000}'",
    "network = {" + SIZE + ", layers = [{name = 'a', inputs = [" + "1,"
    * 300_000 + "]}]}",
    "array = {rows = 4, columns = 2, words = 1, precisions = [" + "9," * 300_000 + "]}",
    f"network = {{{SIZE}, layers = [{{name = [0x{digits(9000)}]}}]}}",
    "network = {" + SIZE + ", layers = [" + "{gate = 'mux'}," * 60_000 + "]}",
    "network = {" + SIZE + ", layers = [" + "{}," * 300_000 + "]}",
    "network = {" + SIZE + ", operations = [" + "{}," * 300_000 + "]}",
    "\n".join(f"k{n} = 1" for n in range(50_000)),
    b"\xff\xfe", b"name = '\xe9'", b"a = 1\x00", b"name = '\xed\xa0\x80'",
    b"#" * (2**20 + 1), b"#" * 2**20,
]


@pytest.mark.parametrize("number", [
    pytest.param(number, marks=pytest.mark.slow if len(content) > 30_000 else ())
    for number, content in enumerate(MUCH)])
def test_a_file_that_wants_much_gets_one_line(tmp_path, number):
    path, content = tmp_path / "design.toml", MUCH[number]
    if isinstance(content, str):  # all else is good
        for name, table in GOOD_TABLES.items():
            content = f"{name} = {table}\n" * (not content.startswith(name)) + content
        content = content.encode()
    path.write_bytes(content)
    began = time.process_time()
    refused(path)
    assert time.process_time() - began < 20


def test_a_file_of_more_than_a_megabyte_is_not_read(tmp_path):
    path = tmp_path / "design.toml"
    path.write_bytes(b"#" * (2**20 + 1))
    assert refused(path) == "must have at most 1048576 bytes, not 1048577"
    with path.open("wb") as file:
        file.truncate(2**36)
    assert refused(path) == "must have at most 1048576 bytes, not 68719476736"


@pytest.mark.parametrize("text, dots", [
    ("a." * 100_000 + "a = 1", "100000 and 100000"),
    ("a = {" + "b ." * 100_000 + "b = 1}", "100000 and 100000"),
    ("[" + "a." * 101 + "a]", "101 and 101"),
    ("\n".join(f"k{n}{'.a' * 100} = 1" for n in range(101)), "100 and 10100")])
def test_keys_of_many_parts_are_not_parsed(tmp_path, text, dots):
    """Time and memory of tomllib grow with the square of their length."""
    path = tmp_path / "design.toml"
    path.write_text(text)
    began = time.process_time()
    assert refused(path) == ("cannot be read as TOML: must have at most 100 dots in a line and "
                             f"10000 in all, not {dots}")
    assert time.process_time() - began < 1
    path.write_text("[" + "a." * 100 + "a]\n" + "a = 0.5\n")
    assert refused(path) == "network: is missing"


@pytest.mark.parametrize("name", ["a\nb.toml", "a b.toml", "-a.toml", "a" * 120 + ".toml"])
def test_a_file_whose_name_is_no_name(tmp_path, name):
    path = tmp_path / name
    path.write_text(f"[network]\n{NETWORK}\n{ENGINE}")
    assert "name: must " in refused(path)


# ---- the command line

@pytest.mark.parametrize("crop", [1, 2, 7, 8])
def test_crop_must_fit_the_image_and_its_poolings(crop):
    values = {**GOOD, "train": {"crop": crop}}
    if crop in (2, 7):
        assert parse_config(values).train.crop == crop
        return
    with pytest.raises(ConfigError, match=f"crop must be 0 or from 2 to 7 pixels, not {crop}"):
        parse_config(values)


def test_a_table_teaches_with_a_share_and_shows_its_own_views():
    taught = {"teacher": "table", "distillation": 0.5, "crop": 4}
    assert parse_config({**GOOD, "train": taught}).train.teacher == "table"
    for change in ({"distillation": 0.0}, {"cutout": 4}):
        with pytest.raises(ConfigError, match='teacher = "table" needs distillation and no cutou'):
            parse_config({**GOOD, "train": taught | change})
    with pytest.raises(ConfigError, match="distillation needs teacher_epochs"):
        parse_config({**GOOD, "train": taught | {"teacher": "float"}})
    with pytest.raises(ConfigError, match=r"train\.teacher: must be 'float' or 'table'"):
        parse_config({**GOOD, "train": taught | {"teacher": "me"}})
