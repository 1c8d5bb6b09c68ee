"""Accuracy of an integer network: what is measured, printed, kept, and refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.config import load_config
from export.cost import Cost
from export.file import load_network, save_network
from sim.cli import main
from sim.golden import predict
from sim.samples import random_network

DESIGN = """
[network]
height = 32
width = 32
channels = 3
classes = 10
layers = [{name = "a", channels = 2, weight_bits = 3, code_bits = 3, pool = true}]
[array]
rows = 1
columns = 1
words = 1
"""


TRAIN = 100  # images, of which the last ten are the validation split


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Images and labels of both splits: noise."""
    rng, found = np.random.default_rng(1), {}
    for split, count in (("test", 250), ("train", TRAIN)):
        found[split] = (rng.integers(0, 256, (count, 32, 32, 3), np.uint8),
                        rng.integers(0, 10, count, np.uint8))
        for kind, values in zip(("images", "labels"), found[split], strict=True):
            np.save(tmp_path / f"{split}_{kind}.npy", values)
    monkeypatch.setenv("HEXLANE_DATA", str(tmp_path))
    return found


@pytest.fixture
def design(tmp_path, monkeypatch, data):
    """A design with weights, in an empty working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("small.toml").write_text(DESIGN)
    config = load_config("small.toml")
    save_network(random_network(config.network, 1), "weights/small.npz")
    return config


def evaluate(*arguments) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "small.toml", *arguments])
    return stop.value.code


KEPT = Path("build/small/accuracy.json")


@pytest.mark.parametrize("split, source, first, count", [
    ("test", "test", 0, 250), ("validation", "train", TRAIN - 10, 10)])
def test_prints_and_writes_the_accuracy(design, data, capsys, split, source, first, count):
    assert evaluate("--split", split) == 0
    network = load_network("weights/small.npz")
    images, labels = (part[first:] for part in data[source])
    share = np.mean(predict(network, images) == labels)
    assert json.loads(KEPT.read_text()) == {
        "accuracy": share, "images": count, "split": split, "digest": network.digest}
    bits = Cost.of(design).total_bits
    assert (f"{split}: {count} images, accuracy {share:.2%}, {bits:,} bits stored, "
            in capsys.readouterr().out)


def test_a_limit_writes_nothing(design, capsys):
    assert evaluate() == 0
    whole = KEPT.read_bytes()
    assert evaluate("--limit", "1") == 0
    assert "test: 1 images, accuracy " in capsys.readouterr().out
    assert KEPT.read_bytes() == whole
    before = Path("weights/small.npz").read_bytes()
    for more in (["--limit", "1"], ["--weights", "random"]):
        assert evaluate("--record", *more) == 2
        assert capsys.readouterr().err.startswith("error: --record keeps the result of all images")
    assert Path("weights/small.npz").read_bytes() == before


def test_random_weights_guess(design, capsys):
    Path("weights/small.npz").unlink()
    assert evaluate("--weights", "random", "--seed", "3") == 0
    assert "accuracy" in capsys.readouterr().out
    assert not KEPT.exists()


def test_the_folder_is_chosen(design):
    assert evaluate("-o", "there") == 0
    assert json.loads(Path("there/accuracy.json").read_text())["images"] == 250
    assert not KEPT.exists()


def test_weights_of_another_network(design, capsys):
    other = design.network.model_copy(update={"pad": 1})
    save_network(random_network(other, 1), "other.npz")
    assert evaluate("--weights", "other.npz") == 2
    assert capsys.readouterr().err == "error: other.npz: is of another network than small.toml\n"


def test_missing_weights(design, capsys):
    assert evaluate("--weights", "none.npz") == 2
    assert capsys.readouterr().err == "error: none.npz: no such file\n"


def test_codes_have_no_accuracy(design, capsys):
    text = DESIGN.replace("classes = 10\n", "")
    Path("small.toml").write_text(text)
    assert evaluate("--weights", "random") == 2
    assert capsys.readouterr().err == ("error: accuracy is that of a network that classifies, not "
                                       "of one whose output is codes\n")


def test_needs_neither_torch_nor_amaranth():
    code = ("import sys; sys.modules['torch'] = sys.modules['amaranth'] = None; "
            "import sim.evaluate, sim.samples, model.data, sim.cli")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_keeps_the_result_with_the_weights(design):
    before = load_network("weights/small.npz")
    assert evaluate("--record") == 0
    after = load_network("weights/small.npz")
    assert after.digest == before.digest
    assert after.record["measured"]["images"] == 250
    assert json.loads(Path("weights/small.json").read_text()) == after.record
