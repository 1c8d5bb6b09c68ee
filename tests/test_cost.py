"""Cycles and loops, from the configuration alone."""

import pytest

from export.config import load_config, parse_config
from export.cost import Cost


@pytest.fixture(scope="module")
def reference():
    return Cost.of(load_config("configs/cifar10.toml"))


@pytest.mark.parametrize("name", ["cifar10", "megabit"])
def test_array_use_of_the_hidden_layers(name):
    cost = Cost.of(load_config(f"configs/{name}.toml"))
    use = {layer.name: cost.array_use(layer) for layer in cost.program.layers[1:-1]}
    assert len(use) >= 5 and min(use.values()) >= 0.95, use


def test_reference_layers_take_these_cycles(reference):
    """72 steps for 16 pixels and 8 channels, and so on; a layer adds 61."""
    cycles = {layer.name: reference.layer_cycles(layer) for layer in reference.program.layers}
    assert cycles["conv1"] == 64 * 6 * 6 * 3 + 61  # two taps a word: 6 steps, 3 digits
    assert cycles["conv2"] == 64 * 6 * 9 * 6 + 61
    assert cycles["conv6"] == 4 * 24 * 9 * 8 + 61


def test_precisions_take_cycles_in_their_ratio():
    """The same layer in 3, 2 and 1 bit mode: 3 : 2 : 1 within 3 %."""
    cost = Cost.of(load_config("tests/precisions.toml"))
    layers = cost.program.layers[1:4]
    cycles = [cost.layer_cycles(layer) for layer in layers]
    assert [layer.mode for layer in layers] == [3, 2, 1]
    assert cycles[0] / cycles[2] == pytest.approx(3, rel=0.03)
    assert cycles[1] / cycles[2] == pytest.approx(2, rel=0.03)


def test_concatenation_costs_the_cycles_of_its_words():
    """Two maps of 8 channels are read like one of 16, in as many cycles."""
    def cost(second, **inputs):
        return Cost.of(parse_config({
            "name": "test", "array": {"rows": 4, "columns": 4, "words": 2},
            "network": {"height": 8, "width": 8, "channels": 3, "classes": 2, "layers": [
                {"name": "a", "channels": second, "weight_bits": 2, "code_bits": 3},
                {"name": "b", "channels": 8, "weight_bits": 2, "code_bits": 3, "inputs": ["a"]},
                {"name": "c", "channels": 8, "weight_bits": 2, "code_bits": 3, **inputs},
                {"name": "d", "channels": 4, "weight_bits": 2, "code_bits": 1,
                 "inputs": ["b", "c"]}]}}))
    both, wide = cost(8, inputs=["a", "b"]), cost(16, inputs=["a"])
    both, wide = ({layer.name: of.layer_cycles(layer) for layer in of.program.layers}["c"]
                  for of in (both, wide))
    assert both == wide


@pytest.mark.parametrize("precisions, digits", [([1, 2, 3], 3), ([2], 4), ([1], 8)])
def test_pixels_take_digits_of_the_highest_precision(precisions, digits):
    program = Cost.of(parse_config({
        "name": "test",
        "network": {"height": 4, "width": 4, "channels": 1, "classes": 2, "classifier_bits": 1,
                    "layers": [{"name": "a", "channels": 2, "weight_bits": 1, "code_bits": 1}]},
        "array": {"rows": 2, "columns": 2, "words": 2, "precisions": precisions}})).program
    assert program.layers[0].digits == digits
