"""The cycle model and the memory map, from the configuration alone."""

from itertools import pairwise

import pytest

from export.config import load_config, parse_config
from export.program import Program


@pytest.fixture(scope="module")
def reference():
    return Program(load_config("configs/cifar10.toml"))


@pytest.mark.parametrize("name", ["cifar10", "megabit"])
def test_array_use_of_the_hidden_layers(name):
    program = Program(load_config(f"configs/{name}.toml"))
    use = {layer.name: program.array_use(layer) for layer in program.layers[1:-1]}
    assert len(use) >= 5 and min(use.values()) >= 0.95, use


def test_reference_layers_take_these_cycles(reference):
    """72 steps for 16 pixels and 8 channels, and so on; a layer adds 72."""
    cycles = {layer.name: reference.layer_cycles(layer) for layer in reference.layers}
    assert cycles["conv1"] == 64 * 6 * 6 * 3 + 72  # two taps a word: 6 steps, 3 digits
    assert cycles["conv2"] == 64 * 6 * 9 * 6 + 72
    assert cycles["conv6"] == 4 * 24 * 9 * 8 + 72


def test_precisions_take_cycles_in_their_ratio():
    """The same layer in 3, 2 and 1 bit mode: 3 : 2 : 1 within 3 %."""
    program = Program(load_config("tests/precisions.toml"))
    cycles = [program.layer_cycles(layer) for layer in program.layers[1:4]]
    assert [layer.mode for layer in program.layers[1:4]] == [3, 2, 1]
    assert cycles[0] / cycles[2] == pytest.approx(3, rel=0.03)
    assert cycles[1] / cycles[2] == pytest.approx(2, rel=0.03)


def test_maps_that_are_alive_together_do_not_overlap(reference):
    def region(layer):
        words = max(layer.first_words) + layer.words
        return set(range(layer.in_base, layer.in_base + layer.digits * words * layer.slots))

    regions = [region(layer) for layer in reference.layers]
    assert max(map(max, regions)) < reference.depth
    for earlier, later in pairwise(regions):
        assert not earlier & later
    assert not any(regions[0] & other for other in regions[1:])


@pytest.mark.parametrize("precisions, digits", [([1, 2, 3], 3), ([2], 4), ([1], 8)])
def test_pixels_take_digits_of_the_highest_precision(precisions, digits):
    program = Program(parse_config({
        "name": "test",
        "network": {"height": 4, "width": 4, "channels": 1, "classes": 2, "classifier_bits": 1,
                    "layers": [{"name": "a", "channels": 2, "weight_bits": 1, "code_bits": 1}]},
        "array": {"rows": 2, "columns": 2, "words": 2, "precisions": precisions}}))
    assert program.layers[0].digits == digits
