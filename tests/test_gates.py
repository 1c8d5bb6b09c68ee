"""Logic-gated residuals in configuration, artifact, golden model and cycle model."""

import numpy as np
import pytest

from export.artifact import Layer
from export.config import ConfigError
from export.cost import Cost
from export.network import ConvConfig, SumConfig
from export.program import Program
from sim import golden
from sim.samples import random_images, random_network
from tests.designs import conv, design, machine


def gated(*changes: dict, columns=4):
    """Four layers of 8, 8, 16, 16 channels on 6x6 pixels, and what `changes` says of the last."""
    layers = [conv(name, channels, 2, 2)
              for name, channels in zip("abcd", (8, 8, 16, 16), strict=True)]
    for layer, change in zip(reversed(layers), reversed(changes), strict=False):
        layer |= change
    return design(layers, (4, columns, 2), height=6, width=6)


@pytest.mark.parametrize("gate", ["or", "mux", "mux_or"])
@pytest.mark.parametrize("bits, skip_bits", [(1, 1), (3, 3), (3, 1), (1, 3), (2, 3), (3, 2)])
@pytest.mark.parametrize("repeat, pooled", [(1, False), (2, False), (1, True), (3, True)])
def test_gate_pixel_by_pixel(gate, bits, skip_bits, repeat, pooled):
    rng = np.random.default_rng([bits, skip_bits, repeat])
    selects = {"select": "z"} if gate != "or" else {}
    config = ConvConfig(name="x", inputs=["w"], channels=4 * repeat, weight_bits=2, code_bits=bits,
                        skip="y", gate=gate, **selects)
    select = Layer(SumConfig(name="z", channels=4 * repeat, weight_bits=3, output="select"),
                   rng.integers(-2, 3, (4 * repeat, 4, 1, 1)).astype(np.int8),
                   rng.integers(-9, 10, 4 * repeat).astype(np.int32))
    codes = rng.integers(0, 2**bits, (5, 4 * repeat, 3, 2)).astype(np.uint8)
    skip = rng.integers(0, 2**skip_bits, (5, 4, 3 + 4 * pooled, 2 + 2 * pooled)).astype(np.uint8)
    if pooled:
        skip = skip[:, :, :7]  # the odd row is dropped
    sums = golden.summed(select, skip) if config.selects else None
    out = golden.gate(config, codes, skip, skip_bits, sums)
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
        total = int(select.bias[c]) + sum(
            int(select.weight[c, k, 0, 0]) * int(skip[n, k].sum()) for k in range(4))
        selected, not_selected = (code, other) if gate == "mux" else (code | other, code)
        assert out[n, c, y, x] == (selected if total >= 0 else not_selected)


@pytest.mark.parametrize("change, message", [
    ({"skip": "a"}, "network.operations.3: d: skip and gate come together, not alone"),
    ({"gate": "or"}, "network.operations.3: d: skip and gate come together, not alone"),
    ({"skip": "d", "gate": "or"}, "network: d: must read maps of operations before it, not 'd'"),
    ({"skip": "e", "gate": "mux"},
     "network: d_select: must read maps of operations before it, not 'e'"),
    ({"skip": "c", "gate": "or", "channels": 8},
     "network: d: its 8 channels must be a multiple of the skip's, not 16"),
])
def test_a_skip_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ConfigError) as error:
        gated(change)
    assert str(error.value).startswith(f"configuration: {message}")


def test_a_skip_of_another_size_is_refused():
    with pytest.raises(ConfigError, match=r"d: skip must have 1x1 pixels, or twice as many rows "
                                          "and columns, not 6x6"):
        gated({"pool": True}, {"pool": True}, {"skip": "a", "gate": "or"})


def test_what_the_skip_memory_cannot_do_is_refused():
    with pytest.raises(ConfigError, match=r"^b: as a skip it must be pooled for all gates or for "
                                          "none, and not be pooled already$"):
        Program(gated({"skip": "b", "gate": "or", "pool": True}, {"skip": "b", "gate": "or"}))
    with pytest.raises(ConfigError, match=r"^c: to be repeated, the skip's channels must fill the "
                                          "array's 5 columns, not 8$"):
        Program(gated({"skip": "b", "gate": "or"}, {}, columns=5))


def test_a_gate_takes_no_cycles_but_for_what_a_mux_selects_by():
    plain = Cost.of(gated())
    cycles = {layer.name: plain.layer_cycles(layer) for layer in plain.program.layers}
    for gate in ("or", "mux", "mux_or"):
        cost = Cost.of(gated({"skip": "a", "gate": gate}, {"skip": "c", "gate": gate}))
        found = {layer.name: cost.layer_cycles(layer) for layer in cost.program.layers}
        selects = {name: found.pop(name) for name in list(found) if name.endswith("_select")}
        assert found == cycles
        assert list(selects) == ([] if gate == "or" else ["c_select", "d_select"])
        assert cost.frame_cycles == sum(cycles.values()) + sum(selects.values())


def test_scores_are_wide_enough_for_what_a_mux_selects_by():
    """Sums over many large codes, in front of a small classifier, and the fold of their weights."""
    _, hardware = machine(design(
        [conv("a", 16, 1, 3),
         conv("b", 16, 1, 1, pool=True, skip="a", gate="mux", select_bits=3),
         conv("c", 4, 1, 1, pool=True)],
        (4, 4, 1), height=12, width=12, channels=1, classes=2))
    assert 2 ** (hardware.score_bits - 1) > 2 * (2 * 7 * 16 * 144)


def test_chained_blocks_share_one_region():
    """A region may be written over while its last reader goes through it."""
    chain = Program(gated({"channels": 8, "skip": "a", "gate": "or"},
                          {"channels": 8, "skip": "b", "gate": "or"},
                          {"channels": 8, "skip": "c", "gate": "or"}))
    assert chain.skip_words == 2 * 36 * chain.array.units
    nested = Program(gated({"skip": "a", "gate": "or"}, {"channels": 8},
                           {"channels": 8, "skip": "a", "gate": "or"}))
    assert nested.skip_words == 2 * 36 * nested.array.units


def test_a_gate_changes_the_codes():
    plain = random_network(gated().network, 1)
    images = random_images(plain.config, 3, 1)
    before = golden.run(plain, images).codes["d"]
    for gate in ("or", "mux", "mux_or"):
        config = gated({"skip": "c", "gate": gate})
        after = golden.run(random_network(config.network, 1), images).codes["d"]
        assert (after != before).any()


def test_gates_may_share_one_select():
    """The bits of one sum, for two muxes; the program keeps one word per channel tile."""
    config = gated({"skip": "b", "gate": "mux"}, {"skip": "c", "gate": "mux_or",
                                                  "select": "c_select"})
    program = Program(config)
    assert [op.name for op in config.network.operations if op.kind == "sum"] == [
        "c_select", "classifier"]
    assert program.select_words == 4
    bases = {layer.name: layer.select_base for layer in program.layers}
    assert bases["c"] == bases["d"] == bases["c_select"]
