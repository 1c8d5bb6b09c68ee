"""The top with AXI, around an engine of few cycles, with cocotbext-axi."""

import json
import random
from pathlib import Path

import pytest

from export.registers import as_json, register_map
from hw.axi import AxiEngine
from hw.tools import lint
from hw.verilog import write_verilog
from sim.runner import run_bench
from tests.stub_engine import PIXELS, STORED, WINDOW, WORK, StubEngine, result_words

KEYS = 0x12345, 0xFFFFFF00  # loaded for the two programs


def machine(ram: bool) -> dict:
    return {"hash": bytes(range(32)).hex(), "memory": "ram" if ram else "rom",
            "programs": 2 if ram else 1, "load_address_bits": WINDOW,
            "sections": [{"name": "programs"}], "outputs": ["class"],
            "pixels": {"channels": 3, "bits": 24}, "capacities": {"classes": 5}}


def write(folder: Path, words: int, ram: bool) -> dict:
    """Verilog of the top, and what the bench needs to know."""
    registers = register_map(machine(ram))
    write_verilog(AxiEngine(StubEngine(words, ram), registers), folder, "engine")
    rng, frames = random.Random(words), []
    keys = KEYS if ram else [0]
    for program, key in enumerate(keys):
        for _ in range(6):
            pixels = [rng.getrandbits(24) for _ in range(PIXELS[program])]
            frames.append({"program": program, "pixels": pixels,
                           "words": result_words(pixels, key, words)})
    return {
        "registers": json.loads(as_json(registers, "engine")), "frames": frames,
        "cycles": [WORK] * len(keys),
        "period": [pixels + WORK + (2 * words or 2) for pixels in PIXELS[:len(keys)]],
        "load": [[k, key] for k, key in enumerate(KEYS)] if ram else [],
        "refused": STORED if ram else None, "unload": [0, 0] if ram else None,
    }


def run(folder: Path, job: dict):
    (folder / "job.json").write_text(json.dumps(job))
    return run_bench(verilog=folder, top="engine", bench="sim.bench_axi", simulator="verilator",
                     build=folder / "sim", environment={"HEXLANE_JOB": str(folder / "job.json")})


@pytest.mark.slow
@pytest.mark.parametrize("words, ram", [(0, True), (0, False), (1, True), (3, True)])
def test_top(tmp_path, words, ram):
    job = write(tmp_path, words, ram)
    lint(tmp_path)
    run(tmp_path, job)
