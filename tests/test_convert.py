"""Torch in evaluation mode and the golden model are the same function; the command's errors."""

import json
import os
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from export.config import Config, ConfigError, TrainConfig, load_config, parse_config
from export.file import load_network
from export.network import MapConfig, NetworkConfig, walk
from sim.cli import main
from sim.golden import run
from sim.samples import random_images

torch = pytest.importorskip("torch")
network = import_module("model.network")
convert = import_module("model.convert")

LAYERS = {
    "decreasing": [("a", 12, 3, 3, {"pool": True}), ("b", 12, 2, 2, {"pool": True}),
                   ("c", 24, 1, 1, {})],
    "grouped": [("a", 8, 3, 3, {"kernel": 1}), ("b", 8, 2, 1, {"groups": 8}),
                ("c", 12, 1, 3, {"groups": 2, "pool": True}),
                ("d", 6, 3, 2, {"kernel": 1, "groups": 3})],
    "single": [("a", 5, 1, 1, {})],
    "or": [("a", 8, 3, 3, {}), ("b", 8, 2, 2, {"skip": "a", "gate": "or"}),
           ("c", 16, 2, 3, {"skip": "b", "gate": "or"})],
    "generated": [("a", 16, 3, 3, {}),
                  ("b", 12, 2, 2, {"kernel": 1, "generator": {"mapping": "quarter"}}),
                  ("c", 12, 1, 1, {"kernel": 1, "generator": {"mapping": "binary"}})],
    "mux": [("a", 8, 3, 2, {}), ("b", 12, 2, 2, {"pool": True}),
            ("c", 16, 2, 3, {"skip": "a", "gate": "mux", "pool": True}),
            ("d", 16, 1, 1, {"skip": "c", "gate": "mux", "select_bits": 3})],
    "bands": [("a", 8, 3, 3, {"bands": 3}), ("b", 12, 2, 2, {"kernel": 1, "bands": 2}),
              ("c", 12, 1, 3, {"skip": "b", "gate": "mux"})],
    "concatenated": [("a", 8, 3, 3, {}), ("b", 6, 2, 2, {}), ("c", 4, 2, 1, {"inputs": ["a", "b"]}),
                     ("d", 9, 2, 3, {"inputs": ["a", "b", "c"], "groups": 3})],
}


def layers_of(name):
    return [{"name": name, "channels": channels, "weight_bits": weights, "code_bits": codes, **more}
            for name, channels, weights, codes, more in LAYERS[name]]


DESIGN = """
[network]
height = 6
width = 6
channels = 3
pad = 128
classes = 4
layers = [
    {name = "a", channels = 8, weight_bits = 3, code_bits = 3, pool = true},
    {name = "b", channels = 4, weight_bits = 2, code_bits = 2},
]
[array]
rows = 1
columns = 1
words = 1
"""


def tensor(images):
    return torch.tensor(images.transpose(0, 3, 1, 2)).float()


def encoder_of(config, seed=1):
    """Untrained, but with statistics from a few batches, calibrated, and all classes alike."""
    torch.manual_seed(seed)
    encoder = network.Encoder(config)
    with torch.no_grad():
        for conv in encoder.convs:
            conv.beta.uniform_(0, 2**conv.layer.code_bits)
        for part in encoder.parts.values():
            if isinstance(part, network.Select):
                part.beta.uniform_(-0.5, 0.5)
        encoder.train()
        for batch in range(20):
            encoder(tensor(random_images(config, 16, 100 + batch)))
    images = random_images(config, 64, seed)
    network.calibrate(encoder, torch.tensor(images.transpose(0, 3, 1, 2)), batch=32)
    if config.output == "class":
        with torch.no_grad():
            encoder.head.bias -= encoder(tensor(images)).mean(0) / encoder.head.scale
    return encoder.eval()


@pytest.mark.parametrize("layers", [name for name in LAYERS if name != "bands"])
@pytest.mark.parametrize("height, width, pad", [(8, 8, 128), (9, 7, 0), (6, 11, 255)])
def test_golden_is_torch_in_evaluation_mode(layers, height, width, pad):
    config = NetworkConfig(height=height, width=width, channels=3, classes=5, pad=pad,
                           layers=layers_of(layers))
    encoder = encoder_of(config)
    images = random_images(config, 50, 7)
    trace = run(convert.convert(encoder), images)
    with torch.no_grad():
        maps = walk(config, tensor(images), encoder.apply_operation)
        for conv in config.convs:
            codes = trace.codes[conv.name]
            np.testing.assert_array_equal(codes, maps[conv.name].numpy())
            assert len(np.unique(codes)) == 2**conv.code_bits  # nothing is stuck
        scores = encoder(tensor(images))
    np.testing.assert_array_equal(trace.scores, scores.numpy())
    np.testing.assert_array_equal(trace.classes, scores.argmax(1).numpy())
    assert len(np.unique(trace.classes)) > 1


@pytest.mark.parametrize("layers, fold", [("concatenated", 2), ("concatenated", 4), ("bands", 1),
                                          ("bands", 2)])
def test_folded_pixels_and_bands(layers, fold):
    config = NetworkConfig(height=24, width=16, channels=3, classes=5, pad=9, fold=fold,
                           layers=layers_of(layers))
    encoder, images = encoder_of(config), random_images(config, 30, 7)
    trace = run(convert.convert(encoder), images)
    with torch.no_grad():
        maps = walk(config, encoder.folded(tensor(images)), encoder.apply_operation)
        for conv in config.convs:
            np.testing.assert_array_equal(trace.codes[conv.name], maps[conv.name].numpy())
        np.testing.assert_array_equal(trace.scores, encoder(tensor(images)).numpy())
    assert len(np.unique(trace.classes)) > 1


@pytest.mark.parametrize("fold", [1, 2])
def test_codes_that_leave_are_those_of_the_golden_model(fold):
    config = NetworkConfig(height=16, width=24, channels=3, pad=9, fold=fold,
                           layers=layers_of("concatenated"))
    encoder, images = encoder_of(config), random_images(config, 30, 7)
    found = run(convert.convert(encoder), images).codes[config.operations[-1].name]
    with torch.no_grad():
        np.testing.assert_array_equal(found, encoder(tensor(images)).numpy())
    assert len(np.unique(found)) > 1


@pytest.mark.parametrize("fold, bits, out_bits", [(1, 3, 8), (2, 2, 4), (4, 1, 8)])
def test_values_of_a_map_are_those_of_the_golden_model(fold, bits, out_bits):
    layers = [*layers_of("concatenated"), {"name": "m", "kind": "map", "channels": 6,
                                           "weight_bits": bits, "out_bits": out_bits}]
    config = NetworkConfig(height=16, width=24, channels=3, pad=9, fold=fold, layers=layers)
    encoder, images = encoder_of(config), random_images(config, 30, 7)
    head = encoder.head
    with torch.no_grad():
        head.beta.normal_()
        head.log_gain.normal_()
        head.shift.fill_(2)
    integers = convert.convert(encoder.eval())
    found = run(integers, images).values
    with torch.no_grad():
        np.testing.assert_array_equal(found, encoder(tensor(images)).numpy())
    assert integers.layers[-1].shift == 2
    assert len(np.unique(found)) > 10


def test_a_map_trains_on_what_its_values_are_worth():
    """Training and evaluation differ by what half a value is worth at most, where none is cut."""
    torch.manual_seed(1)
    layer = MapConfig(name="m", inputs=("a",), channels=6, weight_bits=3)
    head = network.MapHead(layer, 240, TrainConfig())
    x = torch.randint(0, 128, (50, 240, 4, 4)).float()  # so that there is a shift
    with torch.no_grad():
        head.beta.normal_()
        head.log_gain.normal_()
        head.momentum = 1.0
        head.train()(x)
        worth = head.train()(x)
        values = head.eval()(x)
        assert 10 < values.std() < 50  # the shift fits
        exact = values * head.gain[:, None, None]
        off = (worth - exact) / head.gain[:, None, None]
        assert (off.abs() <= 1.001).all()
        # On average they differ by the rounding of the integer bias alone.
        assert (off.mean((0, 2, 3)).abs() <= 2**-head.shift + 0.05).all()
        with torch.enable_grad():
            head.round_weights = False
            real = head.train()(x)
            slopes = torch.autograd.grad(real.sum(), head.log_gain)[0]
        assert ((real - exact).abs() / head.gain[:, None, None]).mean() < 20
        assert slopes.abs().min() > 0


def test_record_is_kept():
    config = NetworkConfig(height=4, width=4, channels=1, classes=2, layers=layers_of("single"))
    encoder = network.Encoder(config)
    assert convert.convert(encoder).record == {}
    assert convert.convert(encoder, {"note": 1}).record == {"note": 1}


@pytest.mark.parametrize("name, value, message", [
    ("mean", float("nan"), r"a: bias must be integers from -2147483648 to 2147483647, not nan"),
    ("mean", -2.0**31, r"a: bias must be integers from .* to 2147483647, not 2\.14748e\+09"),
    ("shift", 0.5, r"a: shift must be integers from -2147483648 to 2147483647, not 0\.5"),
    ("shift", 16.0, r"a: shift must be an integer from 0 to 15, not 16"),
    ("weight", float("nan"), r"a: weight must be integers from -128 to 127, not nan"),
])
def test_diverged_training_is_refused(name, value, message):
    layers = [{"name": "a", "channels": 5, "weight_bits": 3, "code_bits": 1}]
    encoder = network.Encoder(NetworkConfig(height=4, width=4, channels=1, classes=2,
                                            layers=layers))
    getattr(encoder.convs[0], name).data.fill_(value)
    with pytest.raises(ConfigError, match=rf"^{message}$"):
        convert.convert(encoder)


# ---- the command

@pytest.fixture
def design(tmp_path, monkeypatch) -> Config:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(DESIGN)
    Path("build/small/train").mkdir(parents=True)
    return load_config("small.toml")


FINAL, RECORD = Path("build/small/train/final.pt"), Path("build/small/train/record.json")


def done(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 0


def refused(capsys, *arguments) -> str:
    """The one line with which the command stops."""
    with pytest.raises(SystemExit) as stop:
        main(["convert", "small.toml", *arguments])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err.removeprefix("error: ").rstrip("\n")


def test_command_converts_the_final_weights(design, capsys):
    encoder = encoder_of(design.network)
    torch.save(encoder.state_dict(), FINAL)
    record = {"config": design.model_dump(), "validation": 0.5}
    RECORD.write_text(json.dumps(record))
    done("convert", "small.toml")
    loaded = load_network("weights/small.npz")
    assert loaded.digest == convert.convert(encoder).digest
    assert loaded.record == {"training": json.loads(json.dumps(record))}
    assert json.loads(Path("weights/small.json").read_text()) == loaded.record
    weights = 8 * 3 * 9 + 4 * 8 * 9 + 4 * 4
    assert capsys.readouterr().out == (f"{Path('weights/small.npz')}: {weights} weights, "
                                       f"digest {loaded.digest[:16]}\n")


def test_command_without_a_record(design):
    torch.save(encoder_of(design.network).state_dict(), FINAL)
    done("convert", "small.toml", "-o", "other.npz")
    assert load_network("other.npz").record == {"training": {}}


def test_command_converts_a_checkpoint_of_a_run(design):
    encoder = encoder_of(design.network)
    path = Path("checkpoint.pt")
    torch.save({"encoder": encoder.state_dict(), "epoch": 3, "curve": [[1.5, 0.25]],
                "seconds": 9.0, "optimizers": []}, path)
    done("convert", "small.toml", "-c", str(path))
    loaded = load_network("weights/small.npz")
    assert loaded.digest == convert.convert(encoder).digest
    assert loaded.record == {"training": {"epoch": 3, "curve": [[1.5, 0.25]]}}


def test_checkpoint_that_is_missing(design, capsys):
    assert refused(capsys) == f"{FINAL}: no such file; train first"


class Unsafe:
    pass


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", "folder", "pickle", "truncated",
                                     "pipe"])
def test_file_that_is_no_checkpoint(design, capsys, content):
    if content == "folder":
        FINAL.mkdir()
    elif content == "pipe":
        os.mkfifo(FINAL)
    elif content == "pickle":
        torch.save({"object": Unsafe()}, FINAL)
    elif content == "truncated":
        torch.save(encoder_of(design.network).state_dict(), FINAL)
        FINAL.write_bytes(FINAL.read_bytes()[:2000])
    else:
        FINAL.write_bytes(content)
    assert refused(capsys) == f"{FINAL}: cannot be read as a checkpoint"


def test_a_packed_checkpoint_is_not_unpacked(design, capsys):
    torch.save(torch.zeros(10**6), FINAL)
    with zipfile.ZipFile(FINAL) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    with zipfile.ZipFile(FINAL, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert refused(capsys) == f"{FINAL}: must not be packed to be read as a checkpoint"


@pytest.mark.parametrize("record", [torch.zeros(3), 3, [], {"config": 3}])
def test_a_record_of_something_else(design, capsys, record):
    torch.save({"encoder": encoder_of(design.network).state_dict(), "record": record}, FINAL)
    assert refused(capsys) == f"{FINAL}: is no record of a training"


@pytest.mark.parametrize("state", [7, [], {"a": 1}, {"encoder": 3}])
def test_checkpoint_of_something_else(design, capsys, state):
    torch.save(state, FINAL)
    assert refused(capsys) == f"{FINAL}: is no checkpoint of this training"


@pytest.mark.parametrize("old, new, message", [
    ("channels = 8", "channels = 9", "parts.a.weight must be [9, 27], not [8, 27]"),
    ("classes = 4", "classes = 3", "parts.classifier.weight must be [3, 4], not [4, 4]"),
    ("},\n]", "},\n {name='c', channels=4, weight_bits=1, code_bits=1}]",
     "parts.c.weight is missing"),
    ('    {name = "b", channels = 4, weight_bits = 2, code_bits = 2},\n', "",
     "parts.classifier.weight must be [4, 8], not [4, 4]"),
])
def test_checkpoint_of_another_network(design, capsys, old, new, message):
    torch.save(encoder_of(design.network).state_dict(), FINAL)
    assert old in DESIGN
    Path("small.toml").write_text(DESIGN.replace(old, new))
    assert refused(capsys) == f"{FINAL}: does not match the configuration: {message}"


def test_checkpoint_with_more_than_the_network(design, capsys):
    state = encoder_of(design.network).state_dict()
    torch.save(state | {"parts.c.weight": torch.zeros(1)}, FINAL)
    assert refused(capsys) == (f"{FINAL}: does not match the configuration: "
                               "parts.c.weight is unknown")


@pytest.mark.parametrize("change, message", [
    (lambda state: state | {1: torch.zeros(1), "z": torch.zeros(1)},
     "does not match the configuration: 1 is unknown"),
    (lambda state: {name: value.to("meta") for name, value in state.items()},
     "parts.a.weight must hold torch.float32, not torch.float32 on meta"),
    (lambda state: {name: value.to(torch.complex64) for name, value in state.items()},
     "parts.a.weight must hold torch.float32, not torch.complex64 on cpu"),
    (lambda state: state | {"parts.b.weight": state["parts.b.weight"].to_sparse()},
     "parts.b.weight must hold torch.float32, not torch.float32 on cpu, sparse_coo"),
])
def test_tensors_of_another_kind(design, capsys, change, message):
    torch.save(change(encoder_of(design.network).state_dict()), FINAL)
    assert refused(capsys) == f"{FINAL}: {message}"


@pytest.mark.parametrize("zipped", [True, False])
def test_damage_anywhere(design, capsys, zipped):
    """Bytes changed in a checkpoint: it is converted, or refused in one line."""
    torch.save(encoder_of(design.network).state_dict(), FINAL,
               _use_new_zipfile_serialization=zipped)
    whole, rng, codes = np.frombuffer(FINAL.read_bytes(), np.uint8), np.random.default_rng(1), []
    for _ in range(40):
        data = whole.copy()
        data[rng.integers(0, 1500, 2)] = rng.integers(0, 256, 2)
        FINAL.write_bytes(data.tobytes())
        with pytest.raises(SystemExit) as stop:
            main(["convert", "small.toml"])
        codes.append(stop.value.code)
        assert capsys.readouterr().err.count("\n") == (stop.value.code == 2)
    assert set(codes) <= {0, 2} and codes.count(2) > 10


def test_record_of_another_network(design, capsys):
    """Same shapes, other precision: nothing but the record shows it."""
    torch.save(encoder_of(design.network).state_dict(), FINAL)
    other = parse_config(json.loads(design.model_dump_json().replace('"code_bits":3',
                                                                     '"code_bits":2')))
    RECORD.write_text(json.dumps({"config": other.model_dump()}))
    assert refused(capsys) == (f"{RECORD}: training was of another network than the "
                               "configuration's")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"config": 3}'])
def test_record_that_is_none(design, capsys, text):
    torch.save(encoder_of(design.network).state_dict(), FINAL)
    RECORD.write_text(text)
    assert refused(capsys) == f"{RECORD}: is no record of a training"
