"""The top with AXI, in Verilator, with cocotbext-axi; around a stand-in and around engines."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from export.build import build
from export.checked import ConfigError
from export.cost import Cost
from export.hardware import Hardware
from export.image import build_image
from export.loader import load_list
from export.machine import Machine, describe_machine
from export.pack import empty, join, pack
from export.program import Program
from export.registers import as_json, register_map
from hw.axi import AxiEngine
from hw.engine import Engine
from hw.generate import generate, up_to_date
from hw.tools import lint
from hw.verilog import write_verilog
from sim import golden
from sim.results import wanted
from sim.runner import run_bench
from sim.samples import random_images, random_network
from sim.streams import pixel_words
from tests.designs import buffered, conv, design
from tests.stub_engine import PIXELS, STORED, WINDOW, WORK, StubEngine, result_words

KEYS = 0x12345, 0xFFFFFF00  # loaded for the stand-in's two programs


def stub_machine(ram: bool) -> dict:
    return {"hash": bytes(range(32)).hex(), "memory": "ram" if ram else "rom",
            "programs": 2 if ram else 1, "load_address_bits": WINDOW,
            "sections": [{"name": "programs"}], "outputs": ["class"],
            "pixels": {"channels": 3, "bits": 24}, "capacities": {"classes": 5}}


def write_stub(folder: Path, words: int, ram: bool) -> dict:
    """Verilog of the top around a stand-in, and what the bench needs to know."""
    registers = register_map(stub_machine(ram))
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
        "cycles": [WORK] * len(keys), "count": 20,
        "period": [pixels + WORK + (2 * words or 2) for pixels in PIXELS[:len(keys)]],
        "load_cycles": 6,  # the stand-in takes a word every third cycle
        "load": [[k, key] for k, key in enumerate(KEYS)] if ram else [],
        "refused": [STORED] if ram else [], "unload": [[0, 0]] if ram else [],
    }


def frame_words(network, trace, frame: int) -> list[int]:
    """A frame's result as words of 32 bits."""
    want = wanted(network, trace, frame)
    if network.output == "class":
        return [want[0], want[1] % 2**32]
    size = 8 if network.output == "map" else network.operations[-1].code_bits
    values = want.astype(np.uint8).transpose(1, 2, 0).reshape(-1, 1)
    bits = np.unpackbits(values, axis=1, bitorder="little")[:, :size].ravel()
    return np.packbits(np.pad(bits, (0, -len(bits) % 32)), bitorder="little").view("<u4").tolist()


def write_engine(folder: Path, configs, memory: str, count: int) -> dict:
    """The same around an engine with these programs."""
    networks = [random_network(config.network, 1) for config in configs]
    hardware = Hardware.of([Program(each) for each in configs], memory=memory,
                           hold=len(configs))
    programs = [hardware.place(config) for config in configs]
    values = describe_machine(hardware)
    registers = register_map(values)
    job = {"load": [], "load_cycles": 4, "unload": [], "refused": []}
    if memory == "ram":
        images = empty(hardware)
        (folder / "engine.json").write_text(json.dumps({"machine": values}))
        machine = Machine.load(folder / "engine.json")
        loader, job["load"] = load_list(machine, [
            build_image(machine, *each) for each in zip(configs, networks, strict=True)])
        job["unload"] = list(loader.clear(0))
        job["refused"] = nobody(machine)
    else:
        images = join(hardware, [pack(program, hardware, network) for program, network in zip(
            programs, networks, strict=True)])
    write_verilog(AxiEngine(Engine(hardware, images, framed=True), registers), folder, "engine")
    frames = []
    for number, network in enumerate(networks):
        pixels = random_images(network.config, 4, number)
        trace = golden.run(network, pixels)
        frames += [{"program": number, "pixels": words,
                    "words": frame_words(network.config, trace, n)}
                   for n, words in enumerate(pixel_words(pixels))]
    costs = [Cost(program, hardware) for program in programs]
    return job | {
        "registers": json.loads(as_json(registers, "engine")), "frames": frames, "count": count,
        "cycles": [cost.frame_cycles for cost in costs],
        "period": [cost.frame_period for cost in costs],
    }


def nobody(machine: Machine) -> list[int]:
    """Word addresses that belong to no row: the last, and a few others."""
    end = 2**machine.load_address_bits
    owned = {section.base + row * section.stride + part for section in machine.by_name.values()
             for row in range(section.rows) for part in range(section.parts)}
    free = sorted(set(range(end)) - owned)
    return [free[0], free[len(free) // 2], free[-1]]


def run(folder: Path, job: dict):
    (folder / "job.json").write_text(json.dumps(job))
    return run_bench(verilog=folder, top="engine", build=folder / "sim", simulator="verilator",
                     bench="sim.bench_axi_registers,sim.bench_axi_frames",
                     environment={"HEXLANE_JOB": str(folder / "job.json")})


@pytest.mark.slow
@pytest.mark.parametrize("words, ram", [
    (0, True), (0, False), pytest.param(1, True, marks=pytest.mark.long), (3, True)])
def test_around_a_stand_in(tmp_path, words, ram):
    job = write_stub(tmp_path, words, ram)
    lint(tmp_path)
    run(tmp_path, job)


A = design([conv("a", 4, 3, 2), conv("b", 4, 2, 1, kernel=1, pool=True)], (2, 4, 2), height=2,
           width=4)
B = design([conv("a", 8, 2, 2, kernel=1), conv("b", 5, 1, 2)], (2, 4, 2), height=2, width=3,
           channels=2)
CODES = design([], (2, 4, 2), height=2, width=4, operations=[
    conv("a", 5, 3, 3, kernel=1), conv("b", 7, 2, 2, pool=True)])
VALUES = design([], (2, 4, 2), height=4, width=4, channels=1, fold=2, operations=[
    conv("a", 5, 3, 3), {"kind": "map", "name": "b", "channels": 6, "weight_bits": 3,
                         "out_bits": 5}])
MACHINES = {"rom": ([A], "rom"), "two programs in rom": ([A, B], "rom"), "ram": ([A, B], "ram"),
            "all outputs in ram": ([A, CODES, VALUES], "ram"),
            "... with two buffers": ([buffered(A), CODES, VALUES], "ram")}


@pytest.mark.slow
@pytest.mark.parametrize("name, count", [
    ("rom", 3), ("... with two buffers", 3),
    *(pytest.param(name, 8, marks=pytest.mark.long) for name in MACHINES)])
def test_around_an_engine(tmp_path, name, count):
    job = write_engine(tmp_path, *MACHINES[name], count=count)
    lint(tmp_path)
    run(tmp_path, job)


@pytest.mark.slow
def test_what_generate_writes(tmp_path):
    """The register map under the top's name; gone when the same folder gets the plain streams."""
    network = random_network(A.network, 1)
    machine = build([A], [network])
    plain, maps = generate(A, network, tmp_path, top="inner"), {
        f"inner_registers.{ending}" for ending in ("h", "json", "md")}
    names = {path.name for path in tmp_path.iterdir()}
    assert plain["bus"] == "stream" and up_to_date(A, machine, tmp_path, "inner", "axi") is None
    facts = generate(A, network, tmp_path, top="inner", bus="axi")
    assert {path.name for path in tmp_path.iterdir()} == names | maps
    assert up_to_date(A, machine, tmp_path, "inner", "axi") == facts
    assert up_to_date(A, machine, tmp_path, "inner") is None
    registers = register_map(facts["machine"])
    assert (tmp_path / "inner_registers.json").read_text() == as_json(registers, "inner")
    assert "#define INNER_MAGIC_RESET" in (tmp_path / "inner_registers.h").read_text()
    assert (tmp_path / "inner_registers.md").read_text().startswith("# Registers of `inner`\n")
    header = re.search(r"^module inner\(([^)]*)\);", (tmp_path / "inner.v").read_text(), re.M)[1]
    assert {port.strip() for port in header.split(",")} == set(facts["ports"])
    assert facts["ports"]["s_axis_tdata"] == {"direction": "input", "bits": 24}
    assert facts["ports"]["m_axis_tdata"] == {"direction": "output", "bits": 32}
    assert facts["ports"]["s_axil_awaddr"] == {"direction": "input", "bits": 8}
    assert facts["machine"] == plain["machine"] and "result" not in facts

    again = tmp_path / "again"
    generate(A, network, again, top="inner", bus="axi")
    for path in again.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name
    (tmp_path / "inner_registers.h").unlink()
    assert up_to_date(A, machine, tmp_path, "inner", "axi") is None
    generate(A, network, tmp_path, top="inner")
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == names


def test_pixels_without_marks_are_refused():
    config = design([conv("a", 2, 2, 2)], (2, 2, 1), height=4, width=4, channels=1)
    made = build([config], [random_network(config.network, 1)])
    engine = Engine(made.hardware, made.images)
    engine._MustUse__used = True
    with pytest.raises(ConfigError, match="an engine behind AXI must take framed pixels"):
        AxiEngine(engine, register_map(describe_machine(made.hardware)))
