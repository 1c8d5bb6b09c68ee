"""Weights from a cellular automaton: states, order, balance, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from export import automaton
from export.config import ConfigError
from export.cost import Cost
from export.file import load_network, save_network
from export.pack import pack
from export.program import Program
from sim.samples import random_network
from tests.designs import conv, design


def generated(mapping="half", bits=2, columns=4, inputs=4, generator=True, **layer):
    made = {"generator": {"mapping": mapping, "outputs": 4, "inputs": inputs}} if generator else {}
    second = conv("b", 9, bits, 2, **{"kernel": 1, **made, **layer})
    return design([conv("a", 10, 3, 3), second], (2, columns, 2), height=4, width=4)


@pytest.mark.parametrize("rule", [30, 45, 105, 110])
def test_states_cell_by_cell(rule):
    state = np.random.default_rng(rule).integers(0, 2, 37).astype(np.uint8)
    for _ in range(20):
        after = automaton.step(state, rule)
        for k in range(37):
            a, b, c = state[k - 1], state[k], state[(k + 1) % 37]
            assert after[k] == rule >> int(f"{a}{b}{c}", 2) & 1
        state = after


@pytest.mark.parametrize("mapping, cells", [("binary", 1), ("half", 2), ("quarter", 3)])
def test_weights_block_by_block(mapping, cells):
    state = np.random.default_rng(cells).integers(0, 2, 3 * 5 * cells).astype(np.uint8)
    weights = automaton.weights(state, 30, mapping, 7, 12, (3, 5))
    assert weights.shape == (7, 12)
    for tile in range(3):
        for word in range(3):
            for c in range(3):
                for i in range(5):
                    row, column = 3 * tile + c, 5 * word + i
                    if row < 7 and column < 12:
                        *some, sign = state[(c * 5 + i) * cells:(c * 5 + i + 1) * cells]
                        wanted = (1 - 2 * int(sign)) * (any(some) if some else 1)
                        assert weights[row, column] == wanted
            state = automaton.step(state, 30)


@pytest.mark.parametrize("mapping, zeros", [("binary", 0), ("half", 0.5), ("quarter", 0.25)])
def test_rule_30_is_balanced_and_its_rows_are_hardly_alike(mapping, zeros):
    for seed in range(3):
        state = np.random.default_rng(seed).integers(0, 2, 64 * automaton.CELLS[mapping])
        weights = automaton.weights(state.astype(np.uint8), 30, mapping, 144, 144, (8, 8))
        assert (weights == 0).mean() == pytest.approx(zeros, abs=0.02)
        assert (weights > 0).mean() == pytest.approx((1 - zeros) / 2, abs=0.02)
        rows = weights / np.linalg.norm(weights, axis=1, keepdims=True)
        alike = rows @ rows.T - np.eye(144)
        assert np.sqrt(np.square(alike).mean()) < 1.3 / 12  # random weights: 1 / 12
        assert np.linalg.matrix_rank(weights) == 144


def test_artifact_keeps_the_seed_and_checks_the_weights(tmp_path):
    network = random_network(generated().network, 1)
    save_network(network, tmp_path / "x.npz")
    loaded = load_network(tmp_path / "x.npz")
    assert loaded.digest == network.digest
    layer = network.layers[1]
    np.testing.assert_array_equal(loaded.layers[1].seed, layer.seed)
    with pytest.raises(ConfigError, match=r"^b: seed must be uint8 32, not a NoneType$"):
        replace(layer, seed=None)
    with pytest.raises(ConfigError, match=r"^b: weight must be what the generator makes of seed$"):
        replace(layer, seed=1 - layer.seed)
    with pytest.raises(ConfigError, match=r"^a: only a layer with a generator has a seed$"):
        replace(network.layers[0], seed=layer.seed)


def test_only_the_seed_is_stored():
    bits = {}
    for generator in (True, False):
        config = generated(generator=generator)
        cost = Cost.of(config)
        images = pack(cost.program, cost.hardware, random_network(config.network, 1))
        bits[generator] = cost.stored_bits
        assert cost.weight_bits(cost.program.layers[1]) == (0 if generator else 3 * 3 * 4 * 8)
        assert len(images.seeds) == generator
        assert [len(rom) for rom in images.weights] == [depth for _, depth in cost.hardware.weights]
    assert bits[True]["seeds"] == 32 and bits[False]["seeds"] == 0
    assert bits[False]["weights"] - bits[True]["weights"] == 3 * 3 * 4 * 8


@pytest.mark.parametrize("change, message", [
    ({"kernel": 3}, "generated weights must have kernel 1, groups 1 and 2 bits, not 3, 1 and 2"),
    ({"bits": 1}, "generated weights must have kernel 1, groups 1 and 2 bits, not 1, 1 and 1"),
    ({"mapping": "binary"},
     "generated weights must have kernel 1, groups 1 and 1 bits, not 1, 1 and 2"),
])
def test_layers_that_cannot_be_generated_are_refused(change, message):
    with pytest.raises(ConfigError) as error:
        generated(**change)
    assert str(error.value).startswith(f"configuration: network.operations.1: b: {message}")


def test_blocks_must_be_those_of_the_array():
    with pytest.raises(ConfigError, match=r"^b: weights must be generated in blocks of 8 x 4 for "
                                          r"this array, not 4 x 4$"):
        Program(generated(columns=8))


def test_inputs_must_fill_whole_words():
    """Concatenated maps that leave operands free have no place in a generated word."""
    layers = [conv("a", 6, 3, 3), conv("b", 8, 2, 3),
              conv("c", 8, 2, 2, kernel=1, inputs=["a", "b"],
                   generator={"outputs": 4, "inputs": 4})]
    with pytest.raises(ConfigError, match=r"^c: generated weights need inputs that fill whole "
                                          r"words of 4 operands, not \['a', 'b'\]$"):
        Program(design(layers, (2, 4, 2)))
    layers[0]["channels"] = 8
    assert Program(design(layers, (2, 4, 2))).layers[2].source.channels == 16
