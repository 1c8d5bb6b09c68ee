"""A whole board, its Verilog simulated through the pins."""

import json
import sys

import pytest

from export.config import load_config
from export.file import load_network
from export.hardware import Hardware
from export.pack import pack
from export.program import Program
from hw.board_top import BoardTop
from hw.generate import generate
from hw.verilog import write_verilog
from model.data import class_names
from sim import golden
from sim.demo import PHOTOS, load_photos
from sim.runner import run_bench

DIVIDER, TIMEOUT = 5, 3000


@pytest.mark.slow
def test_photographs_through_the_pins(tmp_path, monkeypatch):
    monkeypatch.delenv("HEXLANE_DATA", raising=False)
    config, network = load_config("configs/tiny.toml"), load_network("weights/tiny.npz")
    program = Program(config)
    hardware = Hardware.of([program])
    generate(config, network, tmp_path)
    write_verilog(BoardTop(hardware, pack(program, hardware, network), divider=DIVIDER,
                           timeout=TIMEOUT), tmp_path, "board")
    files, images = load_photos(PHOTOS, config)
    trace = golden.run(network, images[3:5])
    (tmp_path / "job.json").write_text(json.dumps({
        "divider": DIVIDER, "photos": [str(file.resolve()) for file in files[3:5]],
        "truth": [[int(k), int(scores.max())]
                  for k, scores in zip(trace.classes, trace.scores, strict=True)],
        "names": class_names(config.network), "python": sys.executable}))
    run_bench(verilog=tmp_path, top="board", bench="tests.bench_board", simulator="verilator",
              build=tmp_path / "sim", environment={"HEXLANE_BOARD": str(tmp_path)})
