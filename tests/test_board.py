"""A whole board, its Verilog simulated through the pins."""

import json
import re
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
from hw.boards import BOARDS, PLL, pins
from hw.devices import DEVICES
from hw.generate import generate
from hw.tools import lint
from hw.verilog import write_verilog
from hw.yosys import run_yosys
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


def prepare(folder, config, network, files, images, seconds: float, leds: int = 8):
    """Writes the board's Verilog, and the job of `bench_board`."""
    program = Program(config)
    hardware = Hardware.of([program])
    generate(config, network, folder)
    write_verilog(BoardTop(hardware, pack(program, hardware, network), divider=DIVIDER,
                           timeout=TIMEOUT, leds=leds), folder, "board")
    trace = golden.run(network, images)
    (folder / "job.json").write_text(json.dumps({
        "divider": DIVIDER, "seconds": seconds, "size": images.shape[1:],
        "photos": [str(file.resolve()) for file in files],
        "truth": [[int(k), int(scores.max())]
                  for k, scores in zip(trace.classes, trace.scores, strict=True)],
        "names": class_names(config.network), "python": sys.executable}))


@pytest.mark.slow
@pytest.mark.parametrize("make, seconds", [
    (noise, 0.0006), pytest.param(tiny, 0.003, marks=pytest.mark.long)])
def test_photographs_through_the_pins(tmp_path, monkeypatch, make, seconds):
    """`seconds` of simulated time are enough for a frame and its answer."""
    monkeypatch.delenv("HEXLANE_DATA", raising=False)
    prepare(tmp_path, *make(tmp_path), seconds)
    run_bench(verilog=tmp_path, top="board", bench="tests.bench_board", simulator="verilator",
              build=tmp_path / "sim", environment={"HEXLANE_BOARD": str(tmp_path)})


# Of each family: how its PLL locks some cycles late, and its pads.
PADS = """
module pll(input %s, output %s, output locked);
  reg [2:0] count = 0;
  always @(posedge %s or posedge around.rst)
    if (around.rst) count <= 0; else if (!count[2]) count <= count + 1;
  assign %s = %s, locked = count[2];
endmodule
module IB(input I, output O); assign O = I; endmodule
module IBUF(input I, output O); assign O = I; endmodule
module OBZ(input I, input T, output O); assign O = T ? 1'bz : I; endmodule
module TBUF(input I, input OEN, output O); assign O = OEN ? 1'bz : I; endmodule
module SB_IO #(parameter IO_STANDARD = "", PULLUP = 0, parameter [5:0] PIN_TYPE = 0) (
    inout PACKAGE_PIN, input D_OUT_0, input OUTPUT_ENABLE, output D_IN_0);
  assign D_IN_0 = PACKAGE_PIN;  // no register on the way in (PIN_TYPE 01), nor out (0110, 1010)
  if (PIN_TYPE[5:2] == 4'b0110) assign PACKAGE_PIN = D_OUT_0;
  if (PIN_TYPE[5:2] == 4'b1010) assign PACKAGE_PIN = OUTPUT_ENABLE ? D_OUT_0 : 1'bz;
endmodule
"""
DARK = {"icebreaker": 0b11, "tang-nano-9k": 0b111111}  # LEDs that are lit by a low pin


@pytest.mark.slow
@pytest.mark.parametrize("name", BOARDS)
def test_the_top_of_a_board(tmp_path, monkeypatch, name):
    """With its PLL, its pads and the reset that waits for the PLL, from pin to pin."""
    monkeypatch.delenv("HEXLANE_DATA", raising=False)
    board = BOARDS[name]
    clock_in, clock_out = PLL[DEVICES[board.device].family]
    prepare(tmp_path, *noise(tmp_path), 0.0006, board.leds)
    text, constraints = pins(name)
    (tmp_path / "pins.il").write_text(text)
    run_yosys("read_rtlil pins.il\nwrite_verilog -noattr pins.v", tmp_path)
    clock = re.search(r"\bclk\d+_0__io\b", constraints)[0]
    lit = "".join(f", .led_{n}__io(light[{n}])" for n in range(board.leds))
    (tmp_path / "around.v").write_text("\n".join([
        f"module around (clk, rst, rx, tx, leds);\n  input clk, rst, rx;\n  output tx;\n"
        f"  output [{board.leds - 1}:0] leds;\n  wire [{board.leds - 1}:0] light;\n"
        f"  wire into = rx;\n  assign leds = light ^ {DARK.get(name, 0)};\n"
        f"  pins pins(.{clock}(clk), .uart_0__rx__io(into), .uart_0__tx__io(tx){lit});\n"
        f"  always @(negedge clk) if (!pins.pll.locked && !pins.board.rst)\n"
        f"    $fatal(1, \"no reset, and the PLL has not locked\");\nendmodule",
        (tmp_path / "pins.v").read_text(), (tmp_path / "board.v").read_text(),
        PADS % (clock_in, clock_out, clock_in, clock_out, clock_in)]))
    run_bench(verilog=tmp_path, top="around", bench="tests.bench_board", simulator="verilator",
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
