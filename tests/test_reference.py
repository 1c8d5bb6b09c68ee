"""The shipped weights on CIFAR-10: torch against golden, on all test images.

Skipped where the data is not: set HEXLANE_DATA, or run `make eval` once, which downloads it.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from export.config import load_config
from export.file import load_network
from export.network import walk
from sim import golden

torch = pytest.importorskip("torch")
model = pytest.importorskip("model.network")
parts = pytest.importorskip("model.parts")
quant = pytest.importorskip("model.quant")
data = pytest.importorskip("model.data")
archives = pytest.importorskip("model.archives")


ACCURACY = {"megabit": 0.875, "cifar10": 0.85, "heq_residual": 0.88, "mognet": 0.89}  # at least


@pytest.fixture(scope="module")
def cifar10():
    if "HEXLANE_DATA" not in os.environ and not (Path("build/data") / archives.ARCHIVE).exists():
        pytest.skip("CIFAR-10 is not here: set HEXLANE_DATA or run `make eval` once")
    return data.load_images(load_config("configs/megabit.toml").network, "test")


@pytest.fixture(scope="module", params=ACCURACY)
def reference(request):
    """The integer network, and the encoder of training with its integers as parameters."""
    network = load_network(f"weights/{request.param}.npz")
    encoder = model.Encoder(load_config(f"configs/{request.param}.toml").network).eval()
    with torch.no_grad():
        for layer in network.layers:
            copy(encoder.parts[layer.config.name], layer)
    return network, encoder


def copy(part, layer):
    weight, bias = (torch.from_numpy(each.astype(np.float32))
                    for each in (layer.weight, layer.bias))
    part.weight.copy_(weight.view(part.weight.shape))
    if isinstance(part, parts.Head):
        part.bias.copy_(bias / part.scale)
        return
    part.mean.copy_(-bias)
    part.beta.zero_()
    if isinstance(part, parts.QuantConv):
        part.shift.fill_(layer.shift)


@pytest.fixture(autouse=True)
def integers_stay(monkeypatch):
    """The weights are integers already; quantizing them again would move them."""
    monkeypatch.setattr(quant, "standardize", lambda weight, centred=True: weight)
    monkeypatch.setattr(quant, "quantize_weight", lambda weight, bits, step: weight)


def tensor(images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float()


@pytest.mark.long
@torch.no_grad()
def test_classes_of_all_test_images_and_the_accuracy(cifar10, reference, request):
    images, labels = cifar10
    network, encoder = reference
    classes = golden.predict(network, images)
    by_torch = torch.cat([encoder(tensor(part)).argmax(1)
                          for part in np.array_split(images, 40)]).numpy()
    np.testing.assert_array_equal(classes, by_torch)
    measured = network.record["measured"]  # what reports and README say
    assert (measured["split"], measured["images"]) == ("test", 10000)
    name = request.node.callspec.params["reference"]
    assert np.mean(classes == labels) == measured["accuracy"] >= ACCURACY[name]


@pytest.mark.slow
@torch.no_grad()
def test_every_layer_of_256_images(cifar10, reference):
    network, encoder = reference
    trace = golden.run(network, cifar10[0][:256])
    maps = walk(network.config, tensor(cifar10[0][:256]), encoder.apply_operation)
    for name, codes in trace.codes.items():
        np.testing.assert_array_equal(maps[name].numpy(), codes, name)
    np.testing.assert_array_equal(encoder(tensor(cifar10[0][:256])).numpy(), trace.scores)
