"""Maps that are read as bands, whose channels follow each other: blocks of a patch, for example."""

import numpy as np
import pytest

from export.checked import ConfigError
from export.cost import Cost
from export.network import Shape
from export.program import Program
from sim import golden
from sim.samples import extreme_network, random_images, random_network
from sim.streams import pixel_words
from tests.designs import conv, design, machine, random_bands, total
from tests.test_engine import check, few
from tests.test_periods import Entry, starts

BLOCKS = design([], (4, 4, 2), height=16, width=16, channels=3, fold=2, operations=[
    conv("a", 8, 3, 3, kernel=1, bands=4), conv("b", 6, 2, 2, kernel=1),
    conv("c", 5, 2, 3, kernel=1, bands=2), total("end", 3, 2, inputs=["c"])])


def test_shapes():
    assert BLOCKS.network.source(BLOCKS.network.operations[0]) == Shape(channels=48, height=2,
                                                                        width=8)
    assert BLOCKS.network.shapes["c"] == Shape(channels=5, height=1, width=8)


def test_bands_are_runs_of_rows():
    x = np.random.default_rng(1).integers(0, 8, (2, 5, 12, 3), np.uint8)
    wanted = np.concatenate([x[:, :, 4 * band:4 * band + 4] for band in range(3)], 1)
    np.testing.assert_array_equal(golden.joined([x], 3), wanted)


def test_a_transform_of_whole_patches():
    """Sixteen patches of 16x16 pixels: row s of the frame has block s of each."""
    config = design([], (16, 8, 4), height=64, width=64, channels=3, fold=4, operations=[
        conv("a", 20, 3, 3, kernel=1, bands=16)])
    network = random_network(config.network, 1)
    patches = np.random.default_rng(1).integers(0, 256, (16, 16, 4, 4, 3), np.uint8)
    # Of patch, block, row and column in it, to block, row, patch, column.
    frame = patches.transpose(1, 2, 0, 3, 4).reshape(1, 64, 64, 3)
    codes = golden.run(network, frame).codes["a"][0]
    layer = network.layers[0]
    inputs = patches.reshape(16, -1).astype(np.int64)  # block, then channel of the folded pixels
    sums = inputs @ layer.weight[:, :, 0, 0].T.astype(np.int64) + layer.bias
    np.testing.assert_array_equal(codes[:, 0].T, np.clip(sums >> layer.shift, 0, 7))


@pytest.mark.parametrize("seed", few(random_bands, range(40), 24))
def test_engine(seed):
    config = random_bands(seed)
    check(config, random_network(config.network, seed), random_images(config.network, 2, seed),
          gaps=3 * (seed % 2), seed=seed)


@pytest.mark.parametrize("weight", [-2, 2])
def test_largest_sums(weight):
    images = np.full((1, 16, 16, 3), 255, np.uint8)
    check(BLOCKS, extreme_network(BLOCKS.network, weight), images)


def test_bands_cost_no_cycle_but_those_of_their_words():
    program, hardware = machine(BLOCKS)
    first = program.layers[0]
    assert (first.words, first.slots, first.input_words, first.input_slots) == (12, 4, 3, 16)
    assert (hardware.frame_width, hardware.frame_height, hardware.pixel_slots) == (8, 8, 16)


def test_pixels_come_in_as_for_any_layer():
    cost = Cost.of(BLOCKS)
    images = random_images(BLOCKS.network, 2, 1)
    assert starts(Entry(cost.program, cost.hardware), pixel_words(images)) == [
        cost.input_cycles] * 2


@pytest.mark.parametrize("more, expected", [
    ({"bands": 3}, "bands must divide the 16 rows of its input, not 3"),
    ({"bands": 2, "groups": 3}, "bands need one input, one group, one frame and stored weights, "
                                "not 1 inputs, 3 groups and 1 frames"),
    ({"bands": 2, "frames": 3}, "not 1 inputs, 1 groups and 3 frames"),
    ({"bands": 2, "kernel": 1, "weight_bits": 2, "generator": {}}, "stored weights"),
    ({"bands": 0}, "bands")])
def test_refused(more, expected):
    with pytest.raises(ConfigError, match=expected):
        design([conv("a", 6, 3, 3) | more], (4, 4, 2), height=16, width=2)


def test_maps_that_are_concatenated_have_no_bands():
    with pytest.raises(ConfigError, match=r"c: bands need one input, .*, not 2 inputs"):
        design([conv("a", 6, 3, 3), conv("b", 6, 3, 3), conv("c", 6, 3, 3, inputs=["a", "b"],
                                                             bands=2)], (4, 4, 2))


def test_a_band_must_fill_the_rows():
    config = design([conv("a", 6, 3, 3, bands=2)], (4, 4, 2), height=4, width=3)
    with pytest.raises(ConfigError, match="a: each band must fill the array's 4 rows, not have 6"):
        Program(config)
