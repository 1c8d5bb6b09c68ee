"""The command from outside: help without torch, any folder, exit codes, one line for bad input."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.area import estimate
from export.build import size as size_of
from export.build import with_networks
from export.config import ConfigError, load_config
from export.cost import Cost
from export.words import operands
from sim import cli_codec, cli_fpga, cli_train
from sim.cli import app, main
from sim.options import load_design
from tests.commands import run

CONFIGS = Path(__file__).parent.parent / "configs"
COMMANDS = sorted(command.name or command.callback.__name__.replace("_", "-")
                  for each in (app, cli_train.app, cli_codec.app, cli_fpga.app)
                  for command in each.registered_commands)
DESIGN = """
[network]
height = 12
width = 12
channels = 1
classes = 4
layers = [
    {name = "a", channels = 8, weight_bits = 3, code_bits = 2, pool = true},
    {name = "b", channels = 8, weight_bits = 2, code_bits = 2},
]
[array]
rows = 4
columns = 4
words = 2
[train]
epochs = 2
batch = 20
learning_rate = 0.05
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(DESIGN)
    return tmp_path


def refused(capsys) -> str:
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and len(err) <= 310, err
    return err.removeprefix("error: ").rstrip()


@pytest.mark.slow
def test_an_engine_with_axi(here, capsys):
    """Its register map lies beside it; it is not written twice."""
    assert run("generate", "mine.toml", "--weights", "random", "--bus", "axi", "-o", "out") == 0
    assert Path("out/engine_registers.h").is_file()
    before = Path("out/engine.v").stat().st_mtime_ns
    assert run("generate", "mine.toml", "--weights", "random", "--bus", "axi", "-o", "out") == 0
    assert Path("out/engine.v").stat().st_mtime_ns == before  # up to date
    assert run("lint", "out") == 0
    capsys.readouterr()
    assert run("generate", "mine.toml", "--weights", "random", "--bus", "wishbone") == 2


@pytest.mark.parametrize("command", ["demo", "evaluate", "image", "plots"])
def test_commands_that_need_weights(here, capsys, command):
    more = ("--machine", "engine.json") if command == "image" else ()
    assert run(command, "mine.toml", *more, "--weights", "none") == 2
    assert refused(capsys) == f"{command}: wanted weights, got --weights none"


@pytest.mark.slow
def test_a_clip_is_as_long_as_its_first_result_takes(here, capsys):
    """With fewer frames nothing of the later operations would be compared."""
    Path("clip.toml").write_text(DESIGN.replace("code_bits = 2", "code_bits = 2, every = 2"))
    assert run("simulate", "clip.toml", "--weights", "random", "--frames", 1) == 0
    assert "8 frames equal" in capsys.readouterr().out  # of two clips
    Path("images").mkdir()
    Image.new("L", (12, 12)).save("images/one.png")
    assert run("simulate", "clip.toml", "--weights", "random", "--images", "images") == 2
    assert "must have the 4 images at least that clip gives a result of, not 1" in (
        capsys.readouterr().err)


def test_a_report_lies_where_the_name_says(here, capsys):
    Path("mine.toml").write_text('name = "other"\n' + DESIGN)
    assert run("report", "mine.toml") == 2
    assert refused(capsys).startswith("build/other/report.json: is no report")


def test_all_commands_are_here():
    assert len(COMMANDS) == 23 and {"generate", "simulate", "estimate", "train-teacher"} < set(
        COMMANDS)


@pytest.mark.slow
def test_help_needs_nothing_that_is_heavy(tmp_path):
    code = """
import sys
for name in ("torch", "amaranth", "matplotlib", "cocotb", "numpy", "PIL"):
    sys.modules[name] = None
from sim.cli import main
main(sys.argv[1:])
"""
    for command in [[], *([each] for each in COMMANDS)]:
        done = subprocess.run([sys.executable, "-c", code, *command, "--help"], cwd=tmp_path,
                              env=os.environ | {"PYTHONPATH": str(CONFIGS.parent)},
                              capture_output=True, text=True)
        assert done.returncode == 0 and "Usage: " in done.stdout, done.stderr


@pytest.mark.parametrize("command, package", [
    ("train", "torch"), ("convert", "torch"), ("train-teacher", "torch"), ("sensitivity", "torch"),
    ("ablate", "torch"), ("plots", "matplotlib"), ("train", "tensorboard")])
def test_a_command_says_what_it_needs(here, capsys, monkeypatch, command, package):
    for name in [name for name in sys.modules if name.split(".")[0] == "model"]:
        monkeypatch.delitem(sys.modules, name)
    if package == "tensorboard":
        pytest.importorskip("torch")
        monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    designs = [] if command in ("train-teacher", "ablate") else [CONFIGS / "tiny.toml"]
    assert run(command, *designs) == 2
    assert refused(capsys) == (f"hexlane {command} needs {package}: "
                               f"pip install 'hexlane[train]'")


@pytest.mark.slow
def test_generate_from_any_folder(here, capsys):
    """Weights beside the design, or in ../weights; output under this folder; then up to date."""
    assert run("generate", CONFIGS / "tiny.toml") == 0
    facts = json.loads(Path("build/tiny/engine.json").read_text())
    assert facts["total_bits"] == 10326 and facts["descriptor"]["mode"] == 2
    assert facts["result"] == {"class": {"lowest_bit": 0, "bits": 4, "signed": False},
                               "score": {"lowest_bit": 4, "bits": 18, "signed": True}}
    assert facts["ports"]["result__payload"]["bits"] == 22
    first = Path("build/tiny/engine.v").stat().st_mtime_ns
    assert run("generate", CONFIGS / "tiny.toml") == 0
    assert Path("build/tiny/engine.v").stat().st_mtime_ns == first
    Path("build/tiny/tiles.mem").unlink()
    assert run("generate", CONFIGS / "tiny.toml") == 0
    assert Path("build/tiny/tiles.mem").exists()
    assert "41,047 cycles per frame, 10,326 bits stored" in capsys.readouterr().out


def test_weights_of_a_design_named_from_its_own_folder(here, capsys, monkeypatch):
    """`../weights` is that of the design's folder, however the design is named."""
    from export.config import load_config
    from export.file import save_network
    from sim.samples import random_network
    (here / "project/configs").mkdir(parents=True)
    Path("mine.toml").rename("project/configs/mine.toml")
    monkeypatch.chdir(here / "project/configs")
    network = random_network(load_config("mine.toml").network, 1)
    save_network(network, here / "project/weights/mine.npz")
    assert load_design(Path("mine.toml"), None)[1].digest == network.digest
    beside = random_network(network.config, 2)
    save_network(beside, "mine.npz")
    assert load_design(Path("mine.toml"), None)[1].digest == beside.digest
    monkeypatch.chdir(here)
    assert load_design(Path("project/configs/mine.toml"), None)[1].digest == beside.digest
    save_network(network, "weights/mine.npz")
    assert load_design(Path("project/configs/mine.toml"), None)[2] == Path("weights/mine.npz")


@pytest.mark.slow
def test_a_training_setting_regenerates_nothing(here):
    assert run("generate", "mine.toml", "--weights", "random") == 0
    first = Path("build/mine/engine.v").stat().st_mtime_ns
    Path("mine.toml").write_text(DESIGN.replace("epochs = 2", "epochs = 3"))
    assert run("generate", "mine.toml", "--weights", "random") == 0
    assert Path("build/mine/engine.v").stat().st_mtime_ns == first
    Path("mine.toml").write_text(DESIGN.replace("rows = 4", "rows = 3"))
    assert run("generate", "mine.toml", "--weights", "random") == 0
    assert Path("build/mine/engine.v").stat().st_mtime_ns > first


@pytest.mark.slow
def test_random_weights_and_another_top(here, capsys):
    assert run("generate", "mine.toml") == 2
    assert refused(capsys).startswith("weights/mine.npz: no such file; train the network, name one")
    assert run("generate", "mine.toml", "--weights", "random", "--seed", 3, "--top", "mine") == 0
    names = sorted(path.name for path in Path("build/mine").iterdir())
    assert {"mine.json", "mine.v", "mine.core", "mine_weights0.mem"} <= set(names)
    assert all(name.startswith("mine") for name in names)
    text = Path("build/mine/mine.v").read_text()
    assert all(name.startswith("mine") for name in re.findall(r"^module \\?(\S+)", text, re.M))
    assert run("generate", "mine.toml", "--weights", "random", "--top", "a b") == 2
    assert refused(capsys).startswith("top module: wanted letters and digits, ")


def test_estimates_of_other_arrays(here, capsys):
    assert run("estimate", "mine.toml", "--arrays", "2x4x1 4x8x2") == 0
    rows = {line.split()[1]: line.split()[3:-1:2] for line in capsys.readouterr().out.splitlines()
            if line.startswith("│")}
    config = load_config("mine.toml")
    for name, size in (("2x4x1", (2, 4, 1)), ("4x8x2", (4, 8, 2))):
        array = config.array.model_copy(update=dict(zip(("rows", "columns", "words"), size,
                                                        strict=True)))
        cost = Cost.of(config.model_copy(update={"array": array}))
        assert rows[name][1:3] == [f"{cost.frame_period:,}", f"{cost.frame_use:.1%}"]
        macs = sum(layer.macs / operands(layer.mode, size[2]) for layer in cost.program.layers)
        assert cost.frame_use == pytest.approx(macs / size[0] / size[1] / cost.frame_period)
    Path("two.toml").write_text(Path("mine.toml").read_text() + "[machine]\nmemory = 'ram'\n"
                                "slots = 8\nnetworks = ['mine.toml']\n")
    assert run("estimate", "two.toml", "--arrays", "x".join(
        str(getattr(config.array, name)) for name in ("rows", "columns", "words"))) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("│"))
    hardware, _ = size_of(with_networks(load_config("two.toml")))
    cells = estimate(hardware, config.target.family).cells
    assert row.split()[-4:-1:2] == [f"{cells['lut4']:,}", f"{cells['block_ram']:,}"]
    for wrong in ("", "8x8", "0x1x1", "8x8x1000", "axbxc"):
        assert run("estimate", "mine.toml", "--arrays", wrong) == 2
        refused(capsys)


@pytest.mark.slow
@pytest.mark.parametrize("simulator", [
    pytest.param("verilator", marks=pytest.mark.long), "icarus"])
def test_simulate_and_leave_a_waveform(here, capsys, simulator):
    from sim.runner import missing
    if reason := missing(simulator):
        pytest.skip(reason)
    assert run("simulate", "mine.toml", "--weights", "random", "--frames", 2, "--gaps", 2,
               "--waves", "--simulator", simulator) == 0
    assert "2 frames equal to the golden model in every layer" in capsys.readouterr().out
    folder = Path("build/mine/waves") / simulator
    listed = (folder / "signals.gtkw").read_text().splitlines()[1:]
    assert {"bench.engine.clk", "bench.engine.epilogue.done"} < set(listed)
    assert (folder / "signals.sucl").read_text().startswith("variable_add bench.engine.")
    if simulator == "icarus":
        assert (folder / "bench.fst").stat().st_size > 10_000
        return
    # Every listed signal is in the waveform, with this range.
    scope, found = [], set()
    with (folder / "dump.vcd").open() as file:
        for line in file:
            words = line.split()
            if words[:1] == ["$scope"]:
                scope.append(words[2])
            elif words[:1] == ["$upscope"]:
                scope.pop()
            elif words[:1] == ["$var"]:
                found.add(".".join([*scope, "".join(words[4:-1])]))
            elif words[:1] == ["$enddefinitions"]:
                break
    assert set(listed) <= found


@pytest.mark.slow
def test_simulate_names_the_first_difference(here, capsys):
    from sim.runner import missing
    which = "--simulator", "verilator" if missing("icarus") else "icarus"  # sooner built
    assert run("simulate", "mine.toml", "--weights", "random", "--frames", 2, "--gaps", 2,
               *which) == 0
    assert "2 frames equal to the golden model in every layer" in capsys.readouterr().out
    biases = Path("build/mine/biases.mem")
    digest = hashlib.sha256(biases.read_bytes()).hexdigest()
    words = biases.read_text().splitlines()
    words[0] = words[0][:-4] + ("0000" if words[0][-4:] != "0000" else "1111")
    biases.write_text("\n".join(words) + "\n")
    sums = Path("build/mine/engine.sha256")  # or the engine would be written again
    sums.write_text(sums.read_text().replace(
        digest, hashlib.sha256(biases.read_bytes()).hexdigest()))
    assert run("simulate", "mine.toml", "--weights", "random", "--frames", 1, *which) == 1
    said = capsys.readouterr().err.splitlines(keepends=True)[-1]  # before it: progress
    assert re.match(r"error: build/mine: frame 0, a, channel 0, y \d+, x \d+: golden \d, "
                    r"Verilog \d \(\d+ of 288 codes differ\)\n$", said)


@pytest.mark.parametrize("make, message", [
    (lambda: Path("bad.toml").write_text("a = " + "[" * 5000), "cannot be read as TOML"),
    (lambda: Path("bad.toml").write_bytes(b"\xff"), "cannot be read as TOML"),
    (lambda: Path("bad.toml").mkdir(), "must be a plain file"),
    (lambda: Path("bad.toml").write_text(DESIGN.replace("rows = 4", "rows = 1000")),
     "array.rows: must be less than or equal to 128, not 1000"),
])
@pytest.mark.parametrize("command", ["generate", "estimate", "train"])
def test_bad_designs_are_one_line(here, capsys, make, message, command):
    make()
    assert run(command, "bad.toml") == 2
    assert message in refused(capsys)


@pytest.mark.parametrize("option, value, message", [
    ("--slots", 65, "slots: must be less than or equal to 64, not 65"),
    ("--slots", 1_000_000, "slots: must be less than or equal to 64, not 1000000"),
    ("--hold", 65, "hold: must be less than or equal to 64, not 65"),
    ("--network", "mine.toml", "networks: must have at most 63 items, not ")])
def test_machines_of_too_many_programs(here, capsys, option, value, message):
    more = (option, value) * (64 if option == "--network" else 1)
    assert run("generate", "mine.toml", "--weights", "none", "--memory", "ram", *more) == 2
    assert refused(capsys).startswith(f"mine.toml: machine: {message}")
    assert not Path("build").exists()


def test_outputs_that_cannot_be_written_are_one_line(here, capsys):
    Path("file").write_text("mine")
    assert run("generate", "mine.toml", "--weights", "random", "-o", "file/below") == 2
    assert "cannot be written" in refused(capsys)
    assert Path("file").read_text() == "mine"


@pytest.mark.slow
def test_a_failing_write_loses_nothing(here, capsys, monkeypatch):
    assert run("generate", "mine.toml", "--weights", "random") == 0
    before = {path.name: path.read_bytes() for path in Path("build/mine").iterdir()}
    write = Path.write_text

    def full(path, *arguments, **more):
        if path.name == "engine.json":
            raise OSError(28, "No space left on device")
        return write(path, *arguments, **more)

    monkeypatch.setattr(Path, "write_text", full)
    capsys.readouterr()
    assert run("generate", "mine.toml", "--weights", "random", "--seed", 2) == 2
    assert refused(capsys) == "build/mine: cannot be written: No space left on device"
    assert {path.name: path.read_bytes() for path in Path("build/mine").iterdir()} == before


@pytest.mark.slow
def test_own_data_from_images_to_an_accuracy(here, monkeypatch, capsys):
    """Four classes of gray 12x12 drawings in folders: trained, converted, evaluated."""
    pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    for split, count in (("train", 60), ("test", 20)):
        for name, rows, columns in (("blank", 12, 12), ("dots", 2, 2), ("lines", 2, 1),
                                    ("poles", 1, 2)):
            folder = here / "data" / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                image = rng.integers(0, 40, (12, 12)).astype(np.uint8)
                image[::rows, ::columns] += 180
                Image.fromarray(image).save(folder / f"{k}.png")
    monkeypatch.setenv("HEXLANE_DATA", str(here / "data"))
    assert run("train", "mine.toml", "--no-compiled") == 0
    assert run("convert", "mine.toml") == 0
    assert run("evaluate", "mine.toml") == 0
    found = re.search(r"test: 80 images, accuracy ([\d.]+)%", capsys.readouterr().out)
    kept = json.loads(Path("build/mine/accuracy.json").read_text())
    assert kept["images"] == 80
    assert float(found[1]) == pytest.approx(100 * kept["accuracy"], abs=0.01)
    assert kept["accuracy"] > 0.7
    Path("other.toml").write_text(DESIGN.replace("= 12", "= 28"))
    assert run("train", "other.toml") == 2
    assert "0.png: wanted 28x28 pixels, got 12x12" in refused(capsys)
    assert run("train", CONFIGS / "tiny.toml") == 2
    assert "wanted a folder for each of 10 classes, got 4" in refused(capsys)
    assert not Path("build/other").exists() and not Path("build/tiny").exists()
    Path("taught.toml").write_text(DESIGN + "teacher = \"table\"\ndistillation = 1.0\n")
    for option, path in (([], "build/teacher/views.npz"), (["--table", "x.npz"], "x.npz")):
        assert run("train", "taught.toml", *option) == 2
        assert refused(capsys) == (f"{path}: no such file; hexlane train-teacher writes "
                                   f"it, --table names another")
    assert run("train-teacher", "--weights", "x.npz") == 2
    assert refused(capsys).startswith("x.npz: no such file")
    assert not Path("build/teacher").exists()


@pytest.mark.parametrize("rules", ["a", "256", "-1", "1 2 \u00b2", "9" * 5000])
def test_rules_that_are_none(capsys, rules):
    assert run("automaton", f"--rules={rules}") == 2
    assert refused(capsys).startswith("--rules must be numbers from 0 to 255, not ")


def test_a_device_that_is_not_there(here, capsys):
    pytest.importorskip("torch")
    assert run("train", "mine.toml", "--device", "abacus") == 2
    assert refused(capsys) == "device must be cpu, or cuda where there is one, not 'abacus'"


@pytest.mark.slow
def test_lint_of_a_design_without_weights(here, capsys):
    assert run("lint", "mine.toml") == 2
    assert "no such file; train the network" in refused(capsys)
    assert run("lint", "mine.toml", "--weights", "random") == 0
    assert capsys.readouterr().out == "build/mine: clean\n"


@pytest.mark.parametrize("error, code, said", [
    (ConfigError("a" * 999), 2, f"error: {'a' * 296} ...\n"),
    (OSError(28, "No space left on device", "x\x1b[2J"), 2,
     "error: [Errno 28] No space left on device: 'x\\x1b[2J'\n"),
    (OSError("a\x1b\nb" * 200), 2, "error: " + ("a? b" * 200)[:300] + "\n"),
    (RecursionError(), 2, "error: RecursionError\n"), (MemoryError(), 2, "error: MemoryError\n"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), 2,
     "error: 'utf-8' codec can't decode byte 0xff in position 0: bad\n"),
    (RuntimeError("Yosys failed:\nlog"), 1, "error: Yosys failed:\nlog\n"),
    (EOFError("no more bytes"), 1, "\nerror: no more bytes\n"),  # the first line is typer's
])
def test_exit_codes(capsys, monkeypatch, error, code, said):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("sim.cli.load_machine", fail)
    assert run("generate", "mine.toml") == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("arguments, said", [
    (["generate", "--hold", "0"], "Invalid value for '--hold': "),
    (["generate", "--nope"], "No such option: --nope"), (["nope"], "No such command 'nope'."),
    (["pnr"], "Missing argument 'config'."), (["report"], "Missing argument 'designs"),
    (["simulate", "x", "--simulator", "q"], "Invalid value for '--simulator': "),
    (["simulate", "x", "--gaps", "10001"], "Invalid value for '--gaps': "),
    (["board", "build", "x", "y", "--baud", "9" * 30], "Invalid value for '--baud': "),
    (["generate", "--hold", "a\n\x1b[2J"], "Invalid value for '--hold': ")])
def test_arguments_that_are_wrong(capsys, arguments, said):
    """One line, without typer's box around it."""
    assert run(*arguments) == 2
    assert refused(capsys).lower().startswith(said.lower())


def test_no_command_shows_the_help(capsys):
    assert run() == run("board") == 2
    shown = capsys.readouterr()
    assert shown.out.count("Usage: ") == 2 and not shown.err


def test_other_errors_are_ours(monkeypatch):
    def fail(*_, **__):
        raise KeyError("of a programmer")

    monkeypatch.setattr("sim.cli.load_machine", fail)
    with pytest.raises(KeyError):
        main(["generate", "mine.toml"])


@pytest.mark.parametrize("name", [
    "a b & touch evil.toml", "a'; touch evil; '", 'a"; touch evil; "', "`touch evil`",
    "$(shell touch evil)x", "$(touch evil)", "a\ntouch evil #", "a$b"])
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_names_for_make(tmp_path, name, by):
    """A configuration's name reaches the command as it is and is never run."""
    (tmp_path / "Makefile").write_text((CONFIGS.parent / "Makefile").read_text())
    (tmp_path / "pyproject.toml").touch()
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for program in ("hexlane", "python", "pip"):
        (programs / program).write_text('#!/bin/sh\nprintf "[%s]" "$@"\n')
        (programs / program).chmod(0o755)
    (tmp_path / ".venv/.base").touch()
    done = subprocess.run(
        ["make", "-s", "verilog", *([f"CONFIG={name}"] if by == "argument" else [])],
        cwd=tmp_path, env=os.environ | ({"CONFIG": name} if by == "environment" else {}),
        capture_output=True, text=True)
    assert done.stdout == f"[generate][{name}]", done.stderr
    assert not (tmp_path / "evil").exists()
