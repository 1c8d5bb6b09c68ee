"""The exported Verilog under cocotb: the photographs, four states, ratios, back-pressure."""

import json
import shutil
from pathlib import Path

import pytest

from export.config import load_config, parse_config
from export.cost import Cost
from export.file import load_network
from export.hardware import Hardware
from export.program import Program
from hw.generate import generate
from hw.tools import lint
from model import gestures
from sim import golden
from sim.demo import PHOTOS, load_photos
from sim.results import wanted
from sim.runner import missing
from sim.samples import random_images, random_network
from sim.verilog import Frames, clip_jobs, run_frames, run_jobs
from tests.designs import conv, design
from tests.product import RECORD, hashes


def check(config, network, folder, images, hardware=None, **how):
    """All codes, classes, scores; cycles as computed."""
    program = Program(config)
    cost = Cost(program, hardware or Hardware.of([program]))
    frames = run_frames(program, cost.hardware, folder, images, **how)
    trace = golden.run(network, images)
    assert frames.first_difference(trace) is None
    assert frames.equal(trace) == [True] * len(images)
    cycles = [cost.layer_cycles(layer) for layer in program.layers]
    if how.get("gaps") or cost.output_wait:  # the last operation may wait for the result before
        assert all(each[-1] >= cycles[-1] for each in frames.cycles)
        frames.cycles[1:] = [[*each[:-1], cycles[-1]] for each in frames.cycles[1:]]
    assert frames.cycles == [cycles] * len(images)
    return frames


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    config = load_config("configs/tiny.toml")
    network = load_network("weights/tiny.npz")
    folder = tmp_path_factory.mktemp("tiny")
    generate(config, network, folder)
    return config, network, folder


@pytest.mark.slow
def test_same_design_gives_the_same_bytes(tiny, tmp_path):
    config, network, folder = tiny
    generate(config, network, tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["biases.mem", "engine.core", "engine.json", "engine.sha256", "engine.v",
                     "engine.vlt",
                     "engine_instance.vh", "engine_litex.py", "layers.mem", "tiles.mem",
                     "weights0.mem", "weights1.mem"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.slow
def test_verilog_is_clean(tiny):
    lint(tiny[2])


@pytest.mark.slow
def test_an_engine_of_one_operation(tmp_path):
    """Its number needs no bit, but a port does."""
    config = design([], (2, 2, 1), height=4, width=4, channels=1, operations=[conv("a", 4, 2, 2)])
    network = random_network(config.network, 1)
    facts = generate(config, network, tmp_path)
    assert facts["ports"]["layer"]["bits"] == 1
    lint(tmp_path)
    images = random_images(config.network, 2, 1)
    frames = run_frames(Program(config), Cost.of(config).hardware, tmp_path, images)
    assert frames.first_difference(golden.run(network, images)) is None


@pytest.mark.slow
def test_gaps_and_back_pressure(tiny):
    config, network, folder = tiny
    _, images = load_photos(PHOTOS, config)
    check(config, network, folder, images[:3], gaps=5, seed=2)


@pytest.mark.long
def test_four_states(tiny):
    """No X on any output after reset; designs of all kinds are held to it in usual tests."""
    if reason := missing("icarus"):
        pytest.skip(reason)
    config, network, folder = tiny
    images = random_images(config.network, 1, 1)
    check(config, network, folder, images, simulator="icarus", strict=True, gaps=2)


SHIPPED = "megabit", "mognet", "cifar10", "heq_residual"
SHIPPED_CLIPS = "billnet_small"


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow),
                                   pytest.param(10, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", SHIPPED)
def test_photographs(tmp_path, name, count):
    config = load_config(f"configs/{name}.toml")
    network = load_network(f"weights/{name}.npz")
    files, images = load_photos(PHOTOS, config)
    assert len(files) == 10
    found = hashes(name, tmp_path)
    check(config, network, tmp_path, images[:count])
    assert found == json.loads(RECORD.read_text())[name]  # nothing changes by accident


@pytest.mark.slow
@pytest.mark.parametrize("name", [SHIPPED_CLIPS,
                                  pytest.param("billnet", marks=pytest.mark.long)])
def test_clips_of_gestures(tmp_path, name):
    """The first five frames of a clip and the first of another one, with the trained weights."""
    config = load_config(f"configs/{name}.toml")
    network, cost = load_network(f"weights/{name}.npz"), Cost.of(config)
    clips = [gestures.clip("test", k)[0][:length].transpose(0, 2, 3, 1)
             for k, length in ((0, 5), (1, 1))]
    assert hashes(name, tmp_path) == json.loads(RECORD.read_text())[name]
    frames = run_jobs(cost.hardware, tmp_path, clip_jobs(cost.program, clips))
    for n, trace in enumerate(golden.frame_traces(network, clips)):
        assert frames.difference(n, trace, 0) is None
    assert [each is None for each in frames.results] == [True, False, True, False, True, True]
    assert [sum(each) for each in frames.cycles] == [
        cost.cycles_at(t) for t in (0, 1, 2, 3, 4, 0)]


@pytest.mark.long
@pytest.mark.parametrize("name", ["cifar100", "stl10"])
def test_designs_that_are_not_trained(tmp_path, name):
    config = load_config(f"configs/{name}.toml")
    network = random_network(config.network, 1)
    generate(config, network, tmp_path)
    check(config, network, tmp_path, random_images(config.network, 1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("rows, size", [
    (4, 16), pytest.param(16, 32, marks=pytest.mark.long)])  # the latter as in docs/results.md
def test_precisions_take_cycles_in_their_ratio(tmp_path, rows, size):
    """The same layer with 3, 2 and 1 bit: 3 : 2 : 1 within 3 %, measured."""
    values = load_config(Path(__file__).with_name("precisions.toml")).model_dump()
    values["array"]["rows"] = rows
    values["network"] |= {"height": size, "width": size}
    config = parse_config(values)
    network = random_network(config.network, 1)
    generate(config, network, tmp_path)
    frames = check(config, network, tmp_path, random_images(config.network, 1, 1))
    _, three, two, one, _ = frames.cycles[0]
    assert three / one == pytest.approx(3, rel=0.03)
    assert two / one == pytest.approx(2, rel=0.03)


@pytest.fixture(scope="module")
def gates(tmp_path_factory):
    """Both gates, a chain of blocks, pooled and repeated skips, dense and generated weights."""
    config = load_config(Path(__file__).with_name("gates.toml"))
    network = random_network(config.network, 1)
    folder = tmp_path_factory.mktemp("gates")
    generate(config, network, folder)
    return config, network, folder


@pytest.mark.slow
def test_gates(gates):
    config, network, folder = gates
    lint(folder)
    facts = json.loads((folder / "engine.json").read_text())
    stored = [facts[f"{part}_bits"] for part in ("weight", "bias", "program", "seed")]
    assert all(stored) and sum(stored) == facts["total_bits"]
    check(config, network, folder, random_images(config.network, 4, 1), gaps=3)


@pytest.mark.slow
def test_gates_in_four_states(gates):
    if reason := missing("icarus"):
        pytest.skip(reason)
    config, network, folder = gates
    check(config, network, folder, random_images(config.network, 1, 1), simulator="icarus",
          strict=True)


CONCATENATION = {
    "name": "concatenation", "array": {"rows": 4, "columns": 4, "words": 2, "dense": True},
    "network": {"height": 8, "width": 6, "channels": 3, "classes": 4, "layers": [
        {"name": "a", "channels": 8, "weight_bits": 3, "code_bits": 3},
        {"name": "b", "channels": 5, "weight_bits": 2, "code_bits": 2},
        {"name": "c", "channels": 4, "weight_bits": 1, "code_bits": 3, "inputs": ["a", "b"]},
        {"name": "d", "channels": 8, "weight_bits": 2, "code_bits": 2, "inputs": ["a", "b", "c"],
         "skip": "a", "gate": "mux_or", "pool": True}]}}


@pytest.mark.slow
@pytest.mark.parametrize("simulator", [pytest.param("verilator", marks=pytest.mark.long), "icarus"])
def test_concatenation(tmp_path, simulator):
    if reason := missing(simulator):
        pytest.skip(reason)
    config = parse_config(CONCATENATION)
    network = random_network(config.network, 1)
    generate(config, network, tmp_path)
    count = 3 if simulator == "verilator" else 1
    check(config, network, tmp_path, random_images(config.network, count, 1), simulator=simulator,
          strict=simulator == "icarus", gaps=2)


def shipped():
    """`cifar10` and `heq_residual`, whose arrays are made equal, and a photograph or two."""
    configs = [load_config(f"configs/{name}.toml") for name in ("cifar10", "heq_residual")]
    for config in configs:
        config = config.model_copy(update={"array": configs[0].array.model_copy(
            update={"dense": True})})
        yield config, load_network(f"weights/{config.name}.npz"), load_photos(PHOTOS, config)[1][:2]


def small():
    """The same of designs with what tells those two apart: depth, precisions, gates.

    Their images are of one size: where only one program is in ROM, its own is in the netlist.
    """
    array = (2, 4, 2, (1, 2, 3), True)
    for config in (
            design([conv("a", 8, 3, 3), conv("b", 12, 2, 2, pool=True), conv("c", 16, 1, 1)],
                   array, height=6, width=6, classes=10),
            design([conv("a", 8, 3, 3), conv("b", 8, 3, 3), conv("c", 8, 3, 3, gate="or", skip="a"),
                    conv("d", 16, 2, 3, pool=True), conv("e", 24, 1, 3)],
                   array, height=6, width=6, classes=7)):
        yield config, random_network(config.network, 1), random_images(config.network, 2, 1)


@pytest.mark.slow
@pytest.mark.parametrize("designs", [small, pytest.param(shipped, marks=pytest.mark.long)])
def test_two_networks_on_one_machine(tmp_path, designs):
    """One netlist, two programs."""
    designs = [*designs()]
    hardware = Hardware.of([Program(config) for config, *_ in designs])
    netlists, built = set(), tmp_path / "built"
    for number, (config, network, images) in enumerate(designs):
        folder = tmp_path / str(number)
        generate(config, network, folder, hardware)
        lines = (folder / "engine.v").read_text().splitlines()
        netlists.add("\n".join(line for line in lines if not line.startswith("//")))
        built.mkdir(exist_ok=True)
        for file in folder.iterdir():
            if file.suffix == ".mem" or not (built / file.name).exists():
                shutil.copy(file, built)  # the netlist stays the first one's: one build
        check(config, network, built, images, hardware)
    assert len(netlists) == 1


@pytest.mark.slow
@pytest.mark.parametrize("columns", [24, pytest.param(32, marks=pytest.mark.long)])
def test_more_channels_per_write_than_a_machine_word_holds(tmp_path, columns):
    """24 columns of 12 words: 24 codes of three bits leave in one cycle, 72 bits."""
    layers = [{"name": "a", "channels": columns, "weight_bits": 2, "code_bits": 3},
              {"name": "b", "channels": columns, "weight_bits": 1, "code_bits": 3}]
    config = parse_config({
        "name": "wide",
        "array": {"rows": 1, "columns": columns, "words": columns // 2, "precisions": [3]},
        "network": {"height": 3, "width": 3, "channels": 3, "classes": 3, "layers": layers}})
    assert config.array.unit == columns
    network = random_network(config.network, 1)
    generate(config, network, tmp_path)
    check(config, network, tmp_path, random_images(config.network, 2, 1))


def test_the_first_difference_is_named():
    config = parse_config(CONCATENATION)
    network, images = random_network(config.network, 1), random_images(config.network, 2, 1)
    trace = golden.run(network, images)
    frames = Frames(programs=[Program(config)] * 2, results=[wanted(config.network, trace, n)
                                                             for n in range(2)],
                    codes=[{name: codes[n].copy() for name, codes in trace.codes.items()}
                           for n in range(2)], cycles=[])
    assert frames.first_difference(trace) is None
    frames.results[1] = frames.results[1][0], frames.results[1][1] + 1
    assert frames.first_difference(trace).startswith("frame 1, classifier: golden class")
    frames.codes[1]["b"][2, 3, 4] ^= 1
    frames.codes[1]["b"][4, 0, 0] ^= 1
    code = trace.codes["b"][1, 2, 3, 4]
    assert frames.first_difference(trace) == (
        f"frame 1, b, channel 2, y 3, x 4: golden {code}, Verilog {code ^ 1} "
        f"(2 of 240 codes differ)")
    assert frames.equal(trace) == [True, False]


@pytest.mark.slow
def test_every_port_register_and_wire_has_a_name(tiny):
    """`$signal` is one of several that were assigned at once, `$like` one made after another."""
    text = (tiny[2] / "engine.v").read_text()
    assert not [name for name in ("port$", "$signal", "$like") if name in text]


def test_memory_files_are_called_as_memories_are(tmp_path):
    """A register of a memory's name would take it from the memory, and from its file."""
    config = design([conv("a", 3, 2, 3)], (1, 2, 1), height=2, width=2, channels=1)
    facts = generate(config, random_network(config.network, 1), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.mem")) == [
        "biases.mem", "layers.mem", "tiles.mem", "weights0.mem", "weights1.mem"], facts
