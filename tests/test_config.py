"""The configuration: what it derives, and the one line that each mistake gets."""

import copy
from pathlib import Path

import pytest
from pydantic import ValidationError

from export.config import ConfigError, load_config, parse_config
from export.network import NetworkConfig, Shape

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
    assert len(config.network.shapes) == len(config.network.operations) + 1


def test_shapes_and_defaults():
    config = parse_config(GOOD)
    assert config.network.shapes == {
        "pixels": Shape(channels=3, height=9, width=7), "a": Shape(channels=4, height=4, width=3),
        "b": Shape(channels=6, height=4, width=3),
        "classifier": Shape(channels=2, height=1, width=1)}
    assert config.network.shapes["a"].pixels == 12
    first, second, last = config.network.operations
    assert (first.kernel, first.groups, second.pool, config.network.pad) == (3, 1, False, 0)
    assert config.array.precisions == (1, 2, 3)
    assert (last.kind, last.output, last.weight_bits) == ("sum", "class", 3)
    assert (first.inputs, second.inputs, last.inputs) == (("pixels",), ("a",), ("b",))


def test_config_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        parse_config(GOOD).name = "other"


@pytest.mark.parametrize("path, value, message", [
    ("surprise", 1, r"surprise: Extra inputs are not permitted, not 1"),
    ("name", 7, r"name: Input should be a valid string, not 7"),
    ("network", 7, r"network: must be a table, not 7"),
    ("network.height", 0, r"network\.height: Input should be greater than or equal to 1, not 0"),
    ("network.width", "wide", r"network\.width: Input should be a valid integer, .*not 'wide'"),
    ("network.classes", 1, r"network: classifier: classes must be at least 2, not 1"),
    ("network.classes", None, r"network: the last operation, and no other, must be a sum .* not b"),
    ("network.pad", 256, r"network\.pad: Input should be less than or equal to 255, not 256"),
    ("network.pad", -1, r"network\.pad: Input should be greater than or equal to 0, not -1"),
    ("network.classifier_bits", 4,
     r"network\.operations\.2\.weight_bits: Input should be 1, 2 or 3, not 4"),
    ("network.layers", [], r"network\.operations: Tuple should have at least 2 items .*"),
    ("network.layers", 7, r"network: layers must be a list of tables, not 7"),
    ("network.layers", [7], r"network: layers must be a list of tables, not \[7\]"),
    ("network.operations", [], r"network: layers is short for operations: give one of them, .*"),
    ("network.layers.1.name", "a",
     r"network: names must differ from each other and from 'pixels', not 'a'"),
    ("network.layers.1.name", "classifier",
     r"network: names must differ .* not 'classifier'"),
    ("network.layers.1.name", "Conv 1",
     r"network\.operations\.1\.name: String should match pattern .*, not 'Conv 1'"),
    ("network.layers.0.channels", 0,
     r"network\.operations\.0\.channels: Input should be greater .*"),
    ("network.layers.0.weight_bits", 4,
     r"network\.operations\.0\.weight_bits: Input should be 1, 2 or 3, not 4"),
    ("network.layers.0.code_bits", 0,
     r"network\.operations\.0\.code_bits: Input should be 1, 2 or 3, not 0"),
    ("network.layers.0.kernel", 5,
     r"network\.operations\.0\.kernel: Input should be 1 or 3, not 5"),
    ("network.layers.0.stride", 2,
     r"network\.operations\.0\.stride: Extra inputs are not permitted, not 2"),
    ("network.layers.1.groups", 3,
     r"network: b: groups must divide 4 input and 6 output channels, not 3"),
    ("network.layers.1.groups", 4,
     r"network: b: groups must divide 4 input and 6 output channels, not 4"),
    ("network.width", 1, r"network: a: pooling needs at least 2x2 pixels, not 9x1"),
    ("array.rows", 0, r"array\.rows: Input should be greater than or equal to 1, not 0"),
    ("array.precisions", [], r"array\.precisions: Tuple should have at least 1 item .*"),
    ("array.precisions", [4], r"array\.precisions\.0: Input should be 1, 2 or 3, not 4"),
    ("array.precisions", [3, 1],
     r"array: precisions must be ascending and different, not \[3, 1\]"),
    ("array.precisions", [1, 1],
     r"array: precisions must be ascending and different, not \[1, 1\]"),
    ("target", {"family": "xyz"}, r"target\.family: Input should be 'ecp5' or 'ice40', not 'xyz'"),
    ("target", {"clock_mhz": 0}, r"target\.clock_mhz: Input should be greater than 0, not 0"),
    ("train", {"epochs": 0}, r"train\.epochs: Input should be greater than or equal to 1, not 0"),
    ("train", {"label_smoothing": 1}, r"train\.label_smoothing: Input should be less than 1.*"),
])
def test_bad_value_is_refused(path, value, message):
    with pytest.raises(ConfigError, match=rf"^configuration: {message}$"):
        parse_config(changed(path, value))


@pytest.mark.parametrize("field", ["name", "network", "array"])
def test_missing_field_is_refused(field):
    values = {key: value for key, value in GOOD.items() if key != field}
    with pytest.raises(ConfigError, match=rf"^configuration: {field}: Field required$"):
        parse_config(values)


def test_part_of_a_configuration():
    network = parse_config(GOOD["network"], "part", NetworkConfig)
    assert network == parse_config(GOOD).network
    with pytest.raises(ConfigError, match=r"^part: a: pooling needs at least 2x2 pixels.*1x7$"):
        parse_config(GOOD["network"] | {"height": 1}, "part", NetworkConfig)


def test_file_that_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read as TOML: .*No such file"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize("content", [
    b"network = [", b"\xff\xfe", b"a = 1\na = 2", b"a = " + b"[" * 10**5, b"#" * 2**21,
    b"a = " + b"9" * 5000, b"a" * 10**5])
def test_file_that_is_no_toml(tmp_path, content):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    said = str(error.value).replace(str(path), "bad.toml")
    assert said.startswith("bad.toml: cannot be read as TOML: ") and "\n" not in said
    assert len(str(error.value)) <= 300


@pytest.mark.parametrize("name", ["../../x", "a\nb", "", "a/b", "-o", "x" * 101, "\u00e9"])
def test_name_that_is_no_plain_file_name(name):
    with pytest.raises(ConfigError, match=r"^configuration: name: String should"):
        parse_config(GOOD | {"name": name})


@pytest.mark.parametrize("path, value, most", [
    ("array.rows", 129, 128), ("array.columns", 129, 128), ("array.words", 65, 64),
    ("network.height", 4097, 4096), ("network.layers.0.channels", 4097, 4096),
    ("network.channels", 65, 64), ("array.rows", None, 128)])
def test_sizes_are_bounded(path, value, most):
    value = value or 10**5000  # which Python refuses to print
    with pytest.raises(ConfigError, match=rf"less than or equal to {most}, not ") as error:
        parse_config(changed(path, value))
    assert len(str(error.value)) <= 300


def test_tables_in_files_of_their_own(tmp_path):
    (tmp_path / "engine.toml").write_text("array = {rows = 4, columns = 2, words = 1}\n"
                                          "target = {family = 'ice40'}\n")
    (tmp_path / "net.toml").write_text(
        "height = 9\nwidth = 7\nchannels = 3\nclasses = 2\n"
        "layers = [{name = 'a', channels = 4, weight_bits = 3, code_bits = 2}]\n")
    (tmp_path / "recipe.toml").write_text("epochs = 3\n")
    path = tmp_path / "design.toml"
    path.write_text("engine = 'engine.toml'\nnetwork = 'net.toml'\ntrain = 'recipe.toml'\n")
    config = load_config(path)
    assert (config.array.rows, config.target.family, config.train.epochs) == (4, "ice40", 3)
    assert [each.name for each in config.network.operations] == ["a", "classifier"]
    path.write_text("engine = 'engine.toml'\nnetwork = 'net.toml'\n[array]\nrows = 1\n")
    with pytest.raises(ConfigError, match=r"engine: must give array and target, once, not 'array'"):
        load_config(path)
    path.write_text("engine = 'none.toml'\nnetwork = 'net.toml'\n")
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read as TOML"):
        load_config(path)


def test_a_training_setting_does_not_change_the_hardware():
    config = parse_config(GOOD)
    other = parse_config(GOOD | {"train": {"epochs": 7}, "target": {"clock_mhz": 9.0}})
    assert config.digest == other.digest
    assert config.digest != parse_config(changed("array.rows", 3)).digest


def test_error_names_the_file(tmp_path):
    path = tmp_path / "empty.toml"
    path.write_text("")
    with pytest.raises(ConfigError, match=r"empty\.toml: network: Field required$"):
        load_config(path)


@pytest.mark.parametrize("crop", [1, 2, 7, 8])
def test_crop_must_fit_the_image_and_its_poolings(crop):
    values = {**GOOD, "train": {"crop": crop}}
    if crop in (2, 7):
        assert parse_config(values).train.crop == crop
        return
    with pytest.raises(ConfigError, match=f"crop must be 0 or from 2 to 7 pixels, not {crop}"):
        parse_config(values)
