"""Random designs as the Verilog writer and as the mapping leave them: in four states, as gates."""

import random
import re
from importlib.resources import files
from itertools import islice

import pytest

from export.config import load_config
from export.file import load_network
from hw.devices import DEVICES
from hw.generate import generate
from hw.synth import map_netlist
from hw.yosys import run_yosys
from sim.demo import PHOTOS, load_photos
from sim.runner import missing
from sim.samples import random_images, random_network
from tests import dp16kd
from tests.designs import random_bands
from tests.test_engine import conv, design, leaving, packable, random_design, random_output
from tests.test_verilog import check

# What the arrays of the other random designs do not reach.
LARGE = [
    design([conv(5, 3, 2), conv(9, 2, 3, pool=True)], (17, 2, 3), height=5, width=7, classes=11),
    design([conv(7, 1, 3), conv(3, 3, 1, kernel=1)], (33, 1, 1, (1, 3)), height=5, width=9,
           classes=2),
    design([conv(33, 2, 3), conv(18, 3, 2, groups=3)], (1, 16, 5), height=2, width=3, classes=20),
    design([conv(24, 3, 3), conv(12, 1, 3)], (1, 12, 7, (3,), True), height=3, width=3,
           classes=30)]


def run(config, seed, folder, simulator, **how):
    if reason := missing(simulator):
        pytest.skip(reason)
    network = random_network(config.network, seed)
    generate(config, network, folder)
    return check(config, network, folder, random_images(config.network, 2, seed),
                 simulator=simulator, gaps=seed % 3, seed=seed, **how)


# Those that usual tests simulate have each precision, fold and output between them.
USUAL = {random_design: (48, 49, 50, 52, 53, 54), random_output: (180, 184, 185, 189, 191, 192)}


@pytest.mark.parametrize("seed, make", [
    pytest.param(seed, make, marks=pytest.mark.slow if seed in USUAL[make] else pytest.mark.long)
    for make, seeds in ((random_design, islice(packable(range(48, 90)), 8)),
                        (random_output, islice(leaving(range(180, 220)), 12))) for seed in seeds])
def test_random_designs_in_four_states(tmp_path, seed, make):
    run(make(seed), seed, tmp_path, "icarus", strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [
    0, 1, pytest.param(2, marks=pytest.mark.long), *range(3, len(LARGE))])
def test_large_arrays(tmp_path, number):
    run(LARGE[number], number, tmp_path, "icarus", strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*islice(packable(range(60, 90)), 1)])
def test_random_designs_in_verilator(tmp_path, seed):
    run(random_design(seed), seed, tmp_path, "verilator")


@pytest.mark.slow
@pytest.mark.parametrize("seed, simulator", [(41, "icarus"), (42, "icarus"), (43, "verilator")])
def test_maps_that_are_read_in_bands(tmp_path, seed, simulator):
    run(random_bands(seed), seed, tmp_path, simulator)


def large_image(seed):
    """Few channels of images up to the longest side, with sizes around powers of two."""
    rng = random.Random(seed)
    fold = rng.choice([1, 2, 4])
    long, short = rng.choice([127, 129, 160, 255, 256, 257, 320, 512]), rng.randint(2, 9)
    size = rng.sample([long * fold, short * fold], 2)
    pooled = rng.random() < 0.5
    layers = [conv(rng.randint(1, 5), rng.randint(1, 3), rng.randint(1, 3), pool=pooled),
              conv(rng.randint(1, 6), rng.randint(1, 3), rng.randint(1, 3),
                   kernel=rng.choice([1, 3]))]
    return design(layers, rng.choice([(4, 2, 2), (5, 4, 1), (16, 2, 3)]), fold=fold,
                  height=size[0], width=size[1], channels=rng.choice([1, 3]), classes=3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [
    0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (3, 5))])
def test_large_images_in_verilator(tmp_path, seed):
    run(large_image(seed), seed, tmp_path, "verilator")


def gates(folder, device):
    """Replaces `folder/engine.v` by its mapped netlist and the cells that it is made of."""
    module = map_netlist(folder, device)
    share = files("pyosys") / "share" / device.family
    cells = (share / "cells_sim.v").read_text()
    while found := re.search(r'`include "(.*)"', cells):  # each once
        cells = cells.replace(found[0], (share / found[1]).read_text(), 1).replace(found[0], "")
    # Icarus knows neither $error outside of a process nor defaults of ports.
    cells = "`define NO_ICE40_DEFAULT_ASSIGNMENTS\n" + cells.replace("$error(", "initial $display(")
    if device.family == "ecp5":
        cells = re.sub(r"module DP16KD\b.*?endmodule", "", cells, flags=re.DOTALL) + dp16kd.model()
    run_yosys("read_json netlist.json\nwrite_verilog -noattr gates.v", folder)
    (folder / "engine.v").write_text((folder / "gates.v").read_text() + cells)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("device", ["iCE40UP5K", "LFE5U-85F", "GW1NR-9C"])
def test_mapped_netlists(tmp_path, device):
    """What Yosys makes of the Verilog, on images."""
    if reason := missing("icarus"):
        pytest.skip(reason)
    config = design([conv(4, 3, 2, pool=True), conv(3, 2, 3)], (2, 2, 1), height=4, width=5)
    network = random_network(config.network, 1)
    generate(config, network, tmp_path)
    module = gates(tmp_path, DEVICES[device])
    kinds = {cell["type"] for cell in module["cells"].values()}
    assert not any(kind.startswith(("$", "DP", "SP")) for kind in kinds - {"$scopeinfo"})
    check(config, network, tmp_path, random_images(config.network, 2, 1), simulator="icarus",
          build=tmp_path / "gates")


@pytest.mark.slow
def test_mapped_block_rams(tmp_path):
    """Those of an ECP5, three widths of them, with the registers that were merged into them."""
    config = design([conv(24, 3, 3), conv(24, 2, 2), conv(40, 3, 1, pool=True), conv(48, 2, 3)],
                    (1, 4, 2), height=6, width=6)
    network = random_network(config.network, 1)
    generate(config, network, tmp_path)
    rams = [cell["parameters"] for cell in gates(tmp_path, DEVICES["LFE5U-85F"])["cells"].values()
            if cell["type"] == "DP16KD"]
    assert {int(each["DATA_WIDTH_B"], 2) for each in rams} == {4, 18, 36}
    assert all("OUTREG" in (each["REGMODE_A"], each["REGMODE_B"]) for each in rams)
    check(config, network, tmp_path, random_images(config.network, 2, 1), build=tmp_path / "gates")


@pytest.mark.long
def test_mapped_tiny(tmp_path):
    """The iCE40 netlist of `tiny` classifies a photograph."""
    config, network = load_config("configs/tiny.toml"), load_network("weights/tiny.npz")
    generate(config, network, tmp_path)
    module = gates(tmp_path, DEVICES[config.target.part])
    assert any(cell["type"] == "SB_RAM40_4K" for cell in module["cells"].values())
    _, images = load_photos(PHOTOS, config)
    check(config, network, tmp_path, images[:1], build=tmp_path / "gates")
