"""The accuracy command: what it prints and writes, and that it needs no torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.config import load_config
from export.cost import Cost
from export.file import load_network, save_network
from sim.evaluate import main
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


TRAIN = 5100  # images, of which the last 5000 are the validation split


@pytest.fixture
def data():
    """Images and labels of both splits: noise."""
    rng = np.random.default_rng(1)
    return {split: (rng.integers(0, 256, (count, 32, 32, 3), np.uint8),
                    rng.integers(0, 10, count, np.uint8))
            for split, count in (("test", 250), ("train", TRAIN))}


@pytest.fixture
def design(tmp_path, monkeypatch, data):
    """A design with weights, in an empty working directory."""
    monkeypatch.setattr("sim.evaluate.load_cifar10", lambda split: data[split])
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(DESIGN)
    config = load_config("small.toml")
    save_network(random_network(config.network, 1), "weights/small.npz")
    return config


@pytest.mark.parametrize("split, source, first, limit, count", [
    ("test", "test", 0, None, 250), ("test", "test", 0, 1, 1),
    ("validation", "train", TRAIN - 5000, 230, 230)])
def test_prints_and_writes_the_accuracy(design, data, capsys, split, source, first, limit, count):
    main("small.toml", None, split, limit)
    network = load_network("weights/small.npz")
    images, labels = (part[first:first + count] for part in data[source])
    share = np.mean(predict(network, images) == labels)
    assert json.loads(Path("build/small/accuracy.json").read_text()) == {
        "accuracy": share, "images": count, "split": split, "digest": network.digest}
    bits = Cost.of(design).total_bits
    assert (f"{split}: {count} images, accuracy {share:.2%}, {bits:,} bits stored, "
            in capsys.readouterr().out)


def test_weights_of_another_network(design, capsys):
    other = design.network.model_copy(update={"pad": 1})
    save_network(random_network(other, 1), "other.npz")
    with pytest.raises(SystemExit) as stop:
        main("small.toml", "other.npz", "test", None)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: other.npz: is of another network than small.toml\n"


def test_missing_weights(design, capsys):
    with pytest.raises(SystemExit):
        main("small.toml", "none.npz", "test", None)
    assert capsys.readouterr().err == "error: none.npz: no such file\n"


@pytest.mark.parametrize("module", ["sim.evaluate", "sim.samples", "model.data"])
def test_needs_neither_torch_nor_amaranth(module):
    code = f"import sys; sys.modules['torch'] = sys.modules['amaranth'] = None; import {module}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_keeps_the_result_with_the_weights(design):
    before = load_network("weights/small.npz")
    main("small.toml", None, "test", None, True)
    after = load_network("weights/small.npz")
    assert after.digest == before.digest
    assert after.record["measured"]["images"] == 250
    assert json.loads(Path("weights/small.json").read_text()) == after.record
