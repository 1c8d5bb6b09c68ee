"""Logic-gated residuals in configuration, artifact, golden model and cycle model."""

from dataclasses import replace

import numpy as np
import pytest

from export.artifact import Layer, load_network, save_network
from export.config import ConfigError, LayerConfig, parse_config
from export.program import Program
from sim import golden
from sim.samples import random_images, random_network


def design(*changes: dict, columns=4):
    """Four layers of 8, 8, 16, 16 channels on 6x6 pixels, and what `changes` says of the last."""
    layers = [{"name": name, "channels": channels, "weight_bits": 2, "code_bits": 2}
              for name, channels in zip("abcd", (8, 8, 16, 16), strict=True)]
    for layer, change in zip(reversed(layers), reversed(changes), strict=False):
        layer |= change
    return parse_config({
        "name": "test",
        "network": {"height": 6, "width": 6, "channels": 3, "classes": 3, "layers": layers},
        "array": {"rows": 4, "columns": columns, "words": 2}})


def layer_of(gate: str, channels: int, code_bits: int, skips: int, rng):
    config = LayerConfig(name="x", channels=channels, weight_bits=2, code_bits=code_bits,
                         skip="y", gate=gate, select_bits=3)
    select = {}
    if config.selects:
        select = {"select_weight": rng.integers(-2, 3, (channels, skips)).astype(np.int8),
                  "select_bias": rng.integers(-9, 10, channels).astype(np.int32)}
    return Layer(config, np.zeros((channels, 1, 3, 3), np.int8), np.zeros(channels, np.int32), 0,
                 **select)


@pytest.mark.parametrize("gate", ["or", "mux", "mux_or"])
@pytest.mark.parametrize("bits, skip_bits", [(1, 1), (3, 3), (3, 1), (1, 3), (2, 3), (3, 2)])
@pytest.mark.parametrize("repeat, pooled", [(1, False), (2, False), (1, True), (3, True)])
def test_gate_pixel_by_pixel(gate, bits, skip_bits, repeat, pooled):
    rng = np.random.default_rng([bits, skip_bits, repeat])
    layer = layer_of(gate, 4 * repeat, bits, 4, rng)
    codes = rng.integers(0, 2**bits, (5, 4 * repeat, 3, 2)).astype(np.uint8)
    skip = rng.integers(0, 2**skip_bits, (5, 4, 3 + 4 * pooled, 2 + 2 * pooled)).astype(np.uint8)
    if pooled:
        skip = skip[:, :, :7]  # the odd row is dropped
    out = golden.gate(layer, codes, skip, skip_bits)
    assert out.dtype == np.uint8 and out.max() < 2**bits
    for n, c, y, x in np.ndindex(out.shape):
        other = skip[n, c % 4, y, x]
        if pooled:
            other = skip[n, c % 4, 2 * y:2 * y + 2, 2 * x:2 * x + 2].max()
        other = int(other * 2.0**(bits - skip_bits))
        code = int(codes[n, c, y, x])
        if gate == "or":
            assert out[n, c, y, x] == code | other
            continue
        total = layer.select_bias[c] + sum(
            int(layer.select_weight[c, k]) * int(skip[n, k].sum()) for k in range(4))
        selected, not_selected = (code, other) if gate == "mux" else (code | other, code)
        assert out[n, c, y, x] == (selected if total >= 0 else not_selected)


@pytest.mark.parametrize("change, message", [
    ({"skip": "a"}, "network.layers.3: d: skip and gate come together, not alone"),
    ({"gate": "or"}, "network.layers.3: d: skip and gate come together, not alone"),
    ({"skip": "d", "gate": "or"}, "network: d: skip must name a layer before it, not 'd'"),
    ({"skip": "e", "gate": "mux"}, "network: d: skip must name a layer before it, not 'e'"),
    ({"skip": "c", "gate": "or", "channels": 8},
     "network: d: its 8 channels must be a multiple of the skip's, not 16"),
])
def test_a_skip_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ConfigError) as error:
        design(change)
    assert str(error.value).startswith(f"configuration: {message}")


def test_a_skip_of_another_size_is_refused():
    with pytest.raises(ConfigError, match=r"d: skip must have 1x1 pixels, or twice as many rows "
                                          "and columns, not 6x6"):
        design({"pool": True}, {"pool": True}, {"skip": "a", "gate": "or"})


def test_what_the_skip_memory_cannot_do_is_refused():
    with pytest.raises(ConfigError, match=r"^b: as a skip it must be pooled for all gates or for "
                                          "none, and not be pooled already$"):
        Program(design({"skip": "b", "gate": "or", "pool": True}, {"skip": "b", "gate": "or"}))
    with pytest.raises(ConfigError, match=r"^c: to be repeated, the skip's channels must fill the "
                                          "array's 5 columns, not 8$"):
        Program(design({"skip": "b", "gate": "or"}, {}, columns=5))


def test_artifact_keeps_and_checks_the_select_weights(tmp_path):
    config = design({"skip": "a", "gate": "mux", "select_bits": 1}, {})
    network = random_network(config.network, 1)
    save_network(network, tmp_path / "x.npz")
    loaded = load_network(tmp_path / "x.npz")
    assert loaded.digest == network.digest
    np.testing.assert_array_equal(loaded.layers[2].select_weight, network.layers[2].select_weight)
    gated = network.layers[2]
    with pytest.raises(ConfigError, match=r"^c: select_weight must be int8 16x., not a NoneType$"):
        replace(gated, select_weight=None)
    with pytest.raises(ConfigError, match=r"^c: select_weight must be one of -1, 1, not 0$"):
        replace(gated, select_weight=0 * gated.select_weight)
    with pytest.raises(ConfigError, match=r"^b: only a layer with a mux has select_weight"):
        replace(network.layers[1], select_weight=gated.select_weight)
    other = replace(gated, select_weight=gated.select_weight[:, :5].copy())
    with pytest.raises(ConfigError, match=r"^c: select_weight must have 8 input channels, not 5$"):
        replace(network, layers=(*network.layers[:2], other, network.layers[3]))


def test_a_gate_takes_no_cycles_but_for_what_a_mux_selects_by():
    plain = Program(design())
    cycles = {layer.name: plain.layer_cycles(layer) for layer in plain.layers}
    for gate in ("or", "mux", "mux_or"):
        program = Program(design({"skip": "a", "gate": gate}, {"skip": "c", "gate": gate}))
        found = {layer.name: program.layer_cycles(layer) for layer in program.layers}
        selects = {name: found.pop(name) for name in list(found) if name.endswith("_select")}
        assert found == cycles
        assert list(selects) == ([] if gate == "or" else ["c_select", "d_select"])
        assert program.frame_cycles == sum(cycles.values()) + sum(selects.values())


def test_scores_are_wide_enough_for_what_a_mux_selects_by():
    """Sums over many large codes, in front of a small classifier, and the fold of their weights."""
    program = Program(parse_config({
        "name": "test",
        "network": {"height": 12, "width": 12, "channels": 1, "classes": 2, "layers": [
            {"name": "a", "channels": 16, "weight_bits": 1, "code_bits": 3},
            {"name": "b", "channels": 16, "weight_bits": 1, "code_bits": 1, "pool": True,
             "skip": "a", "gate": "mux", "select_bits": 3},
            {"name": "c", "channels": 4, "weight_bits": 1, "code_bits": 1, "pool": True}]},
        "array": {"rows": 4, "columns": 4, "words": 1}}))
    assert 2 ** (program.score_bits - 1) > 2 * (2 * 7 * 16 * 144)


def test_chained_blocks_share_one_region():
    """A region may be written over while its last reader goes through it."""
    chain = Program(design({"channels": 8, "skip": "a", "gate": "or"},
                           {"channels": 8, "skip": "b", "gate": "or"},
                           {"channels": 8, "skip": "c", "gate": "or"}))
    assert chain.skip_depth == 2 * 36 * chain.units
    nested = Program(design({"skip": "a", "gate": "or"}, {"channels": 8},
                            {"channels": 8, "skip": "a", "gate": "or"}))
    assert nested.skip_depth == 2 * 36 * nested.units


def test_a_gate_changes_the_codes():
    plain = random_network(design().network, 1)
    images = random_images(plain.config, 3, 1)
    before = golden.run(plain, images).codes[3]
    for gate in ("or", "mux", "mux_or"):
        config = design({"skip": "c", "gate": gate})
        after = golden.run(random_network(config.network, 1), images).codes[3]
        assert (after != before).any()
