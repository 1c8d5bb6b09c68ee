"""A whole board, its Verilog simulated through the pins."""

import json
import sys

import pytest
from PIL import Image as Picture

from export.config import load_config
from export.file import load_network, save_network
from export.hardware import Hardware
from export.image import build_image
from export.machine import describe_machine
from export.pack import empty, pack
from export.program import Program
from hw.board_top import BoardTop
from hw.generate import generate
from hw.tools import lint
from hw.verilog import write_verilog
from model.data import class_names
from sim import golden
from sim.demo import PHOTOS, load_photos
from sim.runner import run_bench
from sim.samples import random_images, random_network
from tests.designs import conv, design
from tests.test_image import machine_of

DIVIDER, TIMEOUT = 5, 4096


def tiny(folder):
    """The shipped network and two photographs."""
    config, network = load_config("configs/tiny.toml"), load_network("weights/tiny.npz")
    files, images = load_photos(PHOTOS, config)
    return config, network, files[3:5], images[3:5]


def noise(folder):
    """A network of fewer pixels and layers, and two images of noise."""
    config = design([conv("a", 4, 3, 2, pool=True), conv("b", 4, 2, 1)], (2, 4, 2), height=8,
                    width=8)
    network, images = random_network(config.network, 1), random_images(config.network, 2, 1)
    files = [folder / "first.png", folder / "second.png"]
    for file, pixels in zip(files, images, strict=True):
        Picture.fromarray(pixels).save(file)
    return config, network, files, images


@pytest.mark.slow
@pytest.mark.parametrize("make, seconds", [
    (noise, 0.0006), pytest.param(tiny, 0.003, marks=pytest.mark.long)])
def test_photographs_through_the_pins(tmp_path, monkeypatch, make, seconds):
    """`seconds` of simulated time are enough for a frame and its answer."""
    monkeypatch.delenv("HEXLANE_DATA", raising=False)
    config, network, files, images = make(tmp_path)
    program = Program(config)
    hardware = Hardware.of([program])
    generate(config, network, tmp_path)
    write_verilog(BoardTop(hardware, pack(program, hardware, network), divider=DIVIDER,
                           timeout=TIMEOUT), tmp_path, "board")
    trace = golden.run(network, images)
    (tmp_path / "job.json").write_text(json.dumps({
        "divider": DIVIDER, "seconds": seconds, "size": images.shape[1:],
        "photos": [str(file.resolve()) for file in files],
        "truth": [[int(k), int(scores.max())]
                  for k, scores in zip(trace.classes, trace.scores, strict=True)],
        "names": class_names(config.network), "python": sys.executable}))
    run_bench(verilog=tmp_path, top="board", bench="tests.bench_board", simulator="verilator",
              build=tmp_path / "sim", environment={"HEXLANE_BOARD": str(tmp_path)})


A = design([conv("a", 4, 3, 2), conv("b", 4, 2, 1)], (2, 4, 2), height=4, width=4)
CODES = design([], (2, 4, 2), height=4, width=4, operations=[
    conv("a", 5, 3, 3), conv("b", 7, 2, 2, pool=True)])
VALUES = design([], (2, 4, 2), height=8, width=4, channels=1, fold=2, operations=[
    conv("a", 5, 3, 3), {"kind": "map", "name": "b", "channels": 6, "weight_bits": 3,
                         "out_bits": 5}])


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["rom", "ram"])
def test_the_verilog_is_clean(tmp_path, memory):
    programs = [Program(each) for each in ((A,) if memory == "rom" else (A, CODES))]
    hardware = Hardware.of(programs, memory=memory)
    images = (empty(hardware) if memory == "ram" else
              pack(programs[0], hardware, random_network(A.network, 1)))
    write_verilog(BoardTop(hardware, images, divider=25, timeout=2**20), tmp_path, "board")
    lint(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("second", [CODES, pytest.param(VALUES, marks=pytest.mark.long)])
def test_programs_over_the_line(tmp_path, second):
    configs, names = (A, second), ("first", "second")
    hardware = Hardware.of([Program(each) for each in configs], memory="ram", hold=2, slots=3)
    write_verilog(BoardTop(hardware, empty(hardware), divider=4, timeout=2048), tmp_path, "board")
    values = describe_machine(hardware)
    (tmp_path / "engine.json").write_text(json.dumps({"machine": values}))
    for seed, (name, config) in enumerate(zip(names, configs, strict=True)):
        network = random_network(config.network, seed)
        build_image(machine_of(values), config, network).save(tmp_path / f"{name}.hxi")
        save_network(network, tmp_path / f"{name}.npz")
    pictures = [tmp_path / f"{n}.png" for n in range(2)]
    for path, pixels in zip(pictures, random_images(second.network, 2, 1), strict=True):
        Picture.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).save(path)
    (tmp_path / "job.json").write_text(json.dumps({
        "divider": 4, "programs": names, "python": sys.executable,
        "images": [str(path) for path in pictures]}))
    run_bench(verilog=tmp_path, top="board", bench="tests.bench_board_load", simulator="verilator",
              build=tmp_path / "sim", environment={"HEXLANE_LOAD": str(tmp_path)})
