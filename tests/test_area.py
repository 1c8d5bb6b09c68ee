"""The estimate of area against engines that were synthesised."""

import json
import re

import numpy as np
import pytest

from export.area import AROUND, ELEMENTS, ERRORS, block_bits, estimate, memories
from export.config import DEVICES, load_config
from export.cost import Cost
from tests.fit_area import DATA, around, elements, engines


@pytest.fixture(scope="module")
def data():
    return json.loads(DATA.read_text())


@pytest.mark.parametrize("family", DEVICES)
def test_the_tables_are_the_fit(data, family):
    found = elements(data)
    for kind, most in zip(("lut4", "ff"), re.findall(r"(\d+) %, ?(\d+) %|(\d+) % \(rms\), (\d+) %",
                                                     ERRORS[family]), strict=True):
        table = {key: tuple(value) for key, value in found[family, kind].items()}
        assert ELEMENTS[family, kind] == table
        weights, errors = around(data, family, kind, table)
        assert AROUND[family, kind] == tuple(weights)
        rms, largest = (int(each) for each in most if each)
        assert np.sqrt(np.square(errors).mean()) <= (rms + 0.5) / 100
        assert np.abs(errors).max() <= (largest + 0.5) / 100


@pytest.mark.parametrize("family, least, blocks", [("ecp5", 12, 2), ("ice40", 6, 4),
                                                   ("gowin", 12, 2)])
def test_estimates_are_near(data, family, least, blocks):
    found = engines(data, family)
    assert len(found) >= least
    for hardware, cells in found:
        area = estimate(hardware, family)
        assert area.cells["lut4"] == pytest.approx(cells["lut4"], rel=0.1)
        assert area.cells["ff"] == pytest.approx(cells["ff"], rel=0.12)
        assert abs(area.cells["block_ram"] - cells["block_ram"]) <= blocks


def test_a_full_size_engine_is_not_far_outside():
    """As `make synth` measured it."""
    area = estimate(Cost.of(load_config("configs/megabit.toml")).hardware, "ecp5")
    assert area.cells["lut4"] == pytest.approx(17_242, rel=0.1)
    assert area.cells["ff"] == pytest.approx(21_316, rel=0.1)
    assert area.cells["block_ram"] == pytest.approx(99, rel=0.1)


def test_a_network_fills_an_lfe5u_25f():
    """And with eight channels more it does not fit."""
    config = load_config("configs/megabit_25f.toml")
    assert config.target.device == "LFE5U-25F"
    assert estimate(Cost.of(config).hardware, "ecp5").cells["block_ram"] == 56
    operations = list(config.network.operations)
    wider = [each.model_copy(update={"channels": 120}) if each.name == "conv8" else each
             for each in operations]
    config = config.model_copy(update={"network": config.network.model_copy(
        update={"operations": wider})})
    assert estimate(Cost.of(config).hardware, "ecp5").cells["block_ram"] > 56


@pytest.mark.parametrize("name", ["megabit", "cifar10", "mognet", "tiny", "bccd"])
def test_bits_of_memories(name):
    """Those that memories are said to hold are those that the encoder stores, and what it writes;
    only block RAMs that are there can be used."""
    cost = Cost.of(load_config(f"configs/{name}.toml"))
    hardware, family = cost.hardware, load_config(f"configs/{name}.toml").target.family
    found = memories(hardware, family)
    bits = {each: sum(one.bits for one in found if one.name == each)
            for each in ("weights", "biases", "seeds", "activations", "skips", "results")}
    wanted = {**cost.stored_bits, **cost.memory_bits}
    assert bits == {each: wanted[each] for each in bits}
    assert sum(each.blocks for each in found) == estimate(hardware, family).cells["block_ram"]
    assert all(each.bits <= each.blocks * block_bits(family) for each in found if each.blocks)
