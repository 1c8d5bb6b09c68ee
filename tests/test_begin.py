"""A training that begins with the integers of a network has them again, and its accuracy."""

import json
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from export.artifact import Network
from export.config import ConfigError, TrainConfig
from export.file import save_network
from export.network import NetworkConfig
from sim.cli import main
from sim.samples import random_images, random_network
from tests import test_clip_network as of_clips
from tests import test_convert as of_images
from tests.test_train import design, images  # noqa: F401 - a fixture

torch = pytest.importorskip("torch")
model = import_module("model.network")
convert = import_module("model.convert").convert
begin_with = import_module("model.begin").begin_with
train = import_module("model.train")

LEARNED = TrainConfig(steps="learned")


def check(encoder, pixels):
    wanted = convert(encoder)
    torch.manual_seed(99)
    begun = model.Encoder(encoder.network)
    begin_with(begun, wanted, pixels)
    found = convert(begun)
    assert found.digest == wanted.digest
    return begun


@pytest.mark.parametrize("layers", list(of_images.LAYERS))
def test_images(layers):
    config = NetworkConfig(height=12, width=12, channels=3, classes=5, pad=9,
                           layers=of_images.layers_of(layers))
    pixels = torch.from_numpy(random_images(config, 40, 7).transpose(0, 3, 1, 2).copy())
    begun = check(of_images.encoder_of(config), pixels)
    statistics = {name: values.clone() for name, values in begun.named_buffers()}
    model.calibrate(begun, pixels)
    for name, values in begun.named_buffers():  # they are those of the images already
        torch.testing.assert_close(values, statistics[name])


@pytest.mark.parametrize("name", list(of_clips.NETWORKS))
def test_clips(name):
    config = of_clips.NETWORKS[name]
    pixels = torch.from_numpy(of_clips.clips_of(config, 6, 5, 3).copy())
    check(of_clips.encoder_of(config), pixels)


def test_a_network_of_any_levels_has_learned_steps():
    config = NetworkConfig(height=8, width=8, channels=12, classes=5, layers=[
        {"name": "a", "channels": 16, "weight_bits": 3, "code_bits": 3},
        {"name": "b", "channels": 96, "weight_bits": 2, "code_bits": 2}])
    made = random_network(config, 1)
    rng = np.random.default_rng(1)
    rare = [replace(layer, weight=(layer.weight * (rng.random(layer.weight.shape) < 0.7))
                    .astype(np.int8)) for layer in made.layers]
    made = Network(config, tuple(rare), {})
    pixels = torch.from_numpy(random_images(config, 20, 7).transpose(0, 3, 1, 2).copy())
    begun = model.Encoder(config, LEARNED)
    begin_with(begun, made, pixels)
    assert convert(begun).digest == made.digest
    with pytest.raises(ConfigError, match=r'a: \d+ of 1728 weights cannot be rounded to what they '
                                          r'are in steps that are "equalized"'):
        begin_with(model.Encoder(config), made, pixels)
    with pytest.raises(ConfigError, match="a network of its own design only"):
        begin_with(model.Encoder(design(epochs=1).network), made, pixels)


def test_the_first_epoch_is_that_of_a_trained_network(images, tmp_path):  # noqa: F811
    """At a learning rate of nothing, the accuracy is the network's, from the record to the end."""
    config = design(epochs=6)
    first = train.train(config, tmp_path / "first", compiled=False)
    encoder, _ = import_module("model.convert").load_checkpoint(tmp_path / "first/final.pt", config)
    network = convert(encoder)
    save_network(network, tmp_path / "first.npz")
    still = config.train.model_copy(update={"epochs": 1, "learning_rate": 1e-12,
                                            "weight_decay": 0.0})
    config = config.model_copy(update={"train": still})
    for _ in range(2):  # it is done, and goes on from its end
        record = train.train(config, tmp_path / "again", compiled=False,
                             begin=tmp_path / "first.npz")
        assert record["began"] == network.digest
    with pytest.raises(ConfigError, match=r"did not begin with .*first\.npz; move it away"):
        train.train(config, tmp_path / "first", compiled=False, begin=tmp_path / "first.npz")
    assert "began" in json.loads((tmp_path / "again/record.json").read_text())
    assert record["validation"] == pytest.approx(first["validation"], abs=0.021)
    encoder, _ = import_module("model.convert").load_checkpoint(tmp_path / "again/final.pt", config)
    for layer, old in zip(convert(encoder).layers, network.layers, strict=True):
        np.testing.assert_array_equal(layer.weight, old.weight)


@pytest.mark.parametrize("arguments, said", [
    (["configs/bccd.toml"], "--begin must be the network of a design that classifies or compr"),
    (["configs/megabit.toml", "--resume", "weights/megabit.resume.pt"],
     "a training goes on by --resume or starts by --begin, not both")])
def test_what_cannot_begin_is_refused_before_anything_is_written(capsys, tmp_path, arguments, said):
    with pytest.raises(SystemExit, match="2"):
        main(["train", *arguments, "--begin", "weights/tiny.npz", "-o", str(tmp_path / "new")])
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_few_weights_are_found_whatever_the_random_numbers():
    """Of a layer that one try in four, or so, does not find."""
    integers = torch.tensor([[0, 2, 2, -1, -2, 1, 1, 0, -2, 2, 2, -2, -2, 1, -2, -2],
                             [2, 2, 2, 0, -2, -2, -1, -2, 1, 0, 0, 0, -1, -2, -2, -2]]).float()
    begin = import_module("model.begin")
    part = import_module("model.quant").QuantWeight(torch.zeros(2, 16), 3, "equalized")
    for seed in range(12):
        torch.manual_seed(seed)
        with torch.no_grad():
            assert begin._unround(part, integers) == 0
            assert torch.equal(part.levels(), integers)
