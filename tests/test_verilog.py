"""The exported Verilog under cocotb: the photographs, four states, ratios, back-pressure."""

import json
from pathlib import Path

import numpy as np
import pytest

from export.artifact import load_network
from export.config import load_config
from export.program import Program
from hw.generate import generate
from hw.tools import lint
from sim import golden
from sim.demo import PHOTOS, load_photos
from sim.runner import missing
from sim.samples import random_images, random_network
from sim.verilog import run_frames


def check(config, network, folder, images, **how):
    """Every layer's codes, classes, scores; cycles as computed."""
    frames = run_frames(config, network, folder, images, **how)
    assert frames.equal(golden.run(network, images)) == [True] * len(images)
    program = Program(config)
    np.testing.assert_array_equal(
        frames.cycles, [[program.layer_cycles(layer) for layer in program.layers]] * len(images))
    return frames


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    config = load_config("configs/tiny.toml")
    network = load_network("weights/tiny.npz")
    folder = tmp_path_factory.mktemp("tiny")
    generate(config, network, folder)
    return config, network, folder


def test_same_design_gives_the_same_bytes(tiny, tmp_path):
    config, network, folder = tiny
    generate(config, network, tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["biases.mem", "engine.json", "engine.v", "layers.mem", "tiles.mem",
                     "weights0.mem", "weights1.mem"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_verilog_is_clean(tiny):
    lint(tiny[2])


@pytest.mark.slow
def test_gaps_and_back_pressure(tiny):
    config, network, folder = tiny
    _, images = load_photos(PHOTOS, config)
    check(config, network, folder, images[:3], gaps=5, seed=2)


@pytest.mark.slow
def test_four_states(tiny):
    """No X on any output after reset."""
    if reason := missing("icarus"):
        pytest.skip(reason)
    config, network, folder = tiny
    images = random_images(config.network, 2, 1)
    check(config, network, folder, images, simulator="icarus", strict=True, gaps=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10", "megabit", "heq_residual", "mognet"])
def test_photographs(tmp_path, name):
    config = load_config(f"configs/{name}.toml")
    network = load_network(f"weights/{name}.npz")
    files, images = load_photos(PHOTOS, config)
    assert len(files) == 10
    generate(config, network, tmp_path)
    check(config, network, tmp_path, images)


@pytest.mark.slow
def test_precisions_take_cycles_in_their_ratio(tmp_path):
    """The same layer with 3, 2 and 1 bit: 3 : 2 : 1 within 3 %, measured."""
    config = load_config(Path(__file__).with_name("precisions.toml"))
    network = random_network(config.network, 1)
    generate(config, network, tmp_path)
    frames = check(config, network, tmp_path, random_images(config.network, 1, 1))
    _, three, two, one, _ = frames.cycles[0]
    assert three / one == pytest.approx(3, rel=0.03)
    assert two / one == pytest.approx(2, rel=0.03)


@pytest.fixture(scope="module")
def gates(tmp_path_factory):
    """Both gates, a chain of blocks, pooled and repeated skips, dense and generated weights."""
    config = load_config(Path(__file__).with_name("gates.toml"))
    network = random_network(config.network, 1)
    folder = tmp_path_factory.mktemp("gates")
    generate(config, network, folder)
    return config, network, folder


@pytest.mark.slow
def test_gates(gates):
    config, network, folder = gates
    lint(folder)
    facts = json.loads((folder / "engine.json").read_text())
    stored = [facts[f"{part}_bits"] for part in ("weight", "bias", "program", "seed")]
    assert all(stored) and sum(stored) == facts["total_bits"]
    check(config, network, folder, random_images(config.network, 4, 1), gaps=3)


@pytest.mark.slow
def test_gates_in_four_states(gates):
    if reason := missing("icarus"):
        pytest.skip(reason)
    config, network, folder = gates
    check(config, network, folder, random_images(config.network, 2, 1), simulator="icarus",
          strict=True)
