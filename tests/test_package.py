"""What lies beside the Verilog, used as its users would, from folders of their own."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.build import build
from export.config import parse_config
from export.hardware import Hardware
from export.program import Program
from hw import generate as generator
from hw.generate import generate, generate_machine, up_to_date
from hw.tools import verilator_environment
from hw.yosys import YosysError, run_yosys
from sim import golden
from sim.runner import missing
from sim.samples import random_images, random_network
from sim.verilog import run_frames
from tests.designs import conv, design
from tests.test_tools import SMALL, contents

CONFIG = parse_config(SMALL)
DESIGN = """\
[network]
height = 2
width = 2
channels = 1
classes = 2
layers = [{name = "first", channels = 2, weight_bits = 2, code_bits = 2}]
[array]
rows = 1
columns = 2
words = 1
"""
NETWORK = random_network(CONFIG.network, 7)  # classes and scores of the images differ
BUILT = build([CONFIG], [NETWORK])
MEMORIES = {"inner_biases.mem", "inner_layers.mem", "inner_tiles.mem", "inner_weights0.mem",
            "inner_weights1.mem"}


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    return generate(CONFIG, NETWORK, folder, top="inner"), folder


@pytest.fixture
def product(generated, tmp_path):
    """What `engine.json` says, and the folder of an engine whose top module is `inner`: a copy."""
    facts, folder = generated
    return facts, shutil.copytree(folder, tmp_path / "product")


def user(facts: dict, folder: Path, body: str, tmp_path: Path) -> Path:
    """A folder with a user's `engine.v`: a module with the ports of the engine around `body`."""
    ports = "".join(f"  {about['direction']} [{about['bits'] - 1}:0] {port};\n"
                    for port, about in facts["ports"].items())
    (tmp_path / "user").mkdir()
    (tmp_path / "user/engine.v").write_text(
        f'`include "{folder}/inner.v"\n'
        f"module engine({', '.join(facts['ports'])});\n{ports}{body}\nendmodule\n")
    return tmp_path / "user"


def check(folder: Path, simulator: str):
    """Frames through `folder/engine.v` give the golden model's codes, classes and scores."""
    program, images = Program(CONFIG), random_images(CONFIG.network, 3, 1)
    frames = run_frames(program, Hardware.of([program]), folder, images, simulator=simulator,
                        gaps=2, strict=simulator == "icarus")
    trace = golden.run(NETWORK, images)
    assert frames.first_difference(trace) is None
    assert np.ptp(trace.classes) and np.ptp(trace.scores.max(1))


def verilator(folder: Path, *arguments) -> str:
    environment = os.environ | verilator_environment(folder / "bin")
    done = subprocess.run([folder / "bin/verilator", *arguments], cwd=folder, env=environment,
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.stdout if done.returncode else ""


@pytest.mark.slow
def test_the_same_design_gives_the_same_files(product, tmp_path):
    facts, folder = product
    assert generate(CONFIG, NETWORK, tmp_path / "again", top="inner") == facts
    assert contents(tmp_path / "again") == contents(folder)
    assert set(contents(folder)) == MEMORIES | {
        "inner.v", "inner.json", "inner.core", "inner.vlt", "inner_instance.vh", "inner_litex.py",
        "inner.sha256"}


@pytest.mark.slow
@pytest.mark.parametrize("file", ["inner.core", "inner.vlt", "inner_instance.vh", "inner_litex.py"])
def test_an_engine_is_up_to_date_with_all_its_files(product, file):
    facts, folder = product
    assert up_to_date(CONFIG, BUILT, folder, "inner") == facts
    (folder / file).unlink()
    assert up_to_date(CONFIG, BUILT, folder, "inner") is None


@pytest.mark.slow
@pytest.mark.parametrize("file", ["inner.v", "inner_weights0.mem", "inner.json", "inner.sha256"])
def test_an_engine_that_was_cut_off_is_not_up_to_date(product, file):
    facts, folder = product
    subprocess.run(["sha256sum", "-c", "--quiet", "inner.sha256"], cwd=folder, check=True)
    assert set((folder / "inner.sha256").read_text().split()[1::2]) == (
        set(contents(folder)) - {"inner.sha256"})
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:len(content) // 2])
    assert up_to_date(CONFIG, BUILT, folder, "inner") is None
    (folder / file).write_bytes(content)
    assert up_to_date(CONFIG, BUILT, folder, "inner") == facts


def test_names_and_accuracy_are_a_part_of_it(product):
    _, folder = product
    kept = replace(NETWORK, record={"measured": {"accuracy": 0.5}})
    assert up_to_date(CONFIG, build([CONFIG], [kept]), folder, "inner") is None
    other = CONFIG.model_copy(update={"name": "other"})
    assert up_to_date(CONFIG, build([other], [NETWORK]), folder, "inner") is None


@pytest.mark.parametrize("change", [{}, {"programs": 3}, {"programs": [{}]}, {"total_bits": "1"}])
def test_a_damaged_description_is_not_up_to_date(product, change):
    """So that the engine is written again."""
    facts, folder = product
    (folder / "inner.json").write_text(json.dumps(facts | change, indent=1) + "\n")
    assert up_to_date(CONFIG, BUILT, folder, "inner") == (None if change else facts)


def test_the_waiver_is_part_of_the_generator(tmp_path, monkeypatch):
    for name in ("hw", "export"):
        shutil.copytree(name, tmp_path / name)
    before = generator.generator_hash()
    monkeypatch.setattr(generator, "__file__", str(tmp_path / "hw/generate.py"))
    assert generator.generator_hash() == before
    (tmp_path / "hw/lint.vlt").write_text("`verilator_config\n")
    assert generator.generator_hash() != before


@pytest.fixture
def elsewhere(product, tmp_path):
    """The template in a module of the user's, the memory files in a folder of their own."""
    facts, folder = product
    (tmp_path / "memories").mkdir()
    for memory in MEMORIES:
        (folder / memory).rename(tmp_path / "memories" / memory)
    text = (folder / "inner_instance.vh").read_text()
    changed = text.replace('"."', f'"{tmp_path}/memories"')
    assert changed != text
    return user(facts, folder, changed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_simulators_find_memory_files_in_their_folder(elsewhere, simulator):
    if reason := missing(simulator):
        pytest.skip(reason)
    check(elsewhere, simulator)


@pytest.mark.slow
@pytest.mark.parametrize("defer", ["-defer", ""])
def test_yosys_finds_memory_files_in_their_folder(elsewhere, tmp_path, defer):
    """Unless told to wait for the parameter, it wants them beside the Verilog as well."""
    (tmp_path / "empty").mkdir()
    script = (f"read_verilog {defer} {elsewhere}/engine.v\n"
              "hierarchy -check -top engine\nproc\ncheck -assert")
    if not defer:
        with pytest.raises(YosysError, match=r"Can not open file `\./inner_\w+\.mem`"):
            run_yosys(script, tmp_path / "empty")
        return
    run_yosys(script, tmp_path / "empty")
    (tmp_path / "memories/inner_biases.mem").unlink()
    with pytest.raises(YosysError, match=r"Can not open file `.*/memories/inner_biases\.mem`"):
        run_yosys(script, tmp_path / "empty")


@pytest.mark.slow
def test_yosys_finds_memory_files_beside_the_verilog(product, tmp_path):
    _, folder = product
    (tmp_path / "empty").mkdir()
    script = f"read_verilog {folder}/inner.v\nhierarchy -check -top inner"
    run_yosys(script, tmp_path / "empty")
    (folder / "inner_biases.mem").unlink()
    with pytest.raises(YosysError, match=r"Can not open file `\./inner_biases\.mem`"):
        run_yosys(script, tmp_path / "empty")


def test_the_template_names_every_port_and_its_bits(product):
    facts, folder = product
    found = re.findall(r"^  /\* (input|output) +(\d+) bits \*/ \.(\w+)\(\3\),?$",
                       (folder / "inner_instance.vh").read_text(), re.MULTILINE)
    assert found == [(about["direction"], str(about["bits"]), port)
                     for port, about in facts["ports"].items()]


@pytest.mark.slow
def test_the_template_is_lint_clean_and_the_waiver_is_the_engine_s_alone(product, tmp_path):
    facts, folder = product
    source = user(facts, folder, '`include "inner_instance.vh"', tmp_path) / "engine.v"
    lint = ["--lint-only", "-Wall", "-Wno-INCABSPATH", f"-I{folder}", "--top-module", "engine"]
    said = verilator(source.parent, *lint, "engine.v")
    assert "WIDTHEXPAND" in said and "UNUSEDSIGNAL" in said
    lint.append(folder / "inner.vlt")
    assert verilator(source.parent, *lint, "engine.v") == ""
    whole = source.read_text()
    source.write_text(whole.replace("endmodule", "  wire mine;\nendmodule"))
    assert re.search("Warning-UNUSEDSIGNAL: engine.v.*'mine'",
                     verilator(source.parent, *lint, "engine.v"))
    source.write_text(re.sub(r"output \[\d+:0\] probe", "output probe", whole))
    assert "Warning-WIDTHEXPAND: " in verilator(source.parent, *lint, "engine.v")


def fusesoc(folder: Path, *arguments) -> subprocess.CompletedProcess:
    """FuseSoC as in a new home, with the simulators of this project."""
    pytest.importorskip("fusesoc")
    environment = os.environ | verilator_environment(folder / "bin") | {
        f"XDG_{each}_HOME": str(folder / "home") for each in ("CONFIG", "DATA", "CACHE")}
    return subprocess.run([sys.executable, "-m", "fusesoc.main", *map(str, arguments)], cwd=folder,
                          env=environment, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_fusesoc_lints_the_core(product, tmp_path):
    _, folder = product
    (tmp_path / "work").mkdir()
    command = "--cores-root", folder, "run", "--target=lint", "hexlane:small:inner"
    done = fusesoc(tmp_path / "work", *command)
    assert done.returncode == 0, done.stdout
    assert "Warning" not in done.stdout
    assert "Built from" in done.stdout  # by Verilator
    text = (folder / "inner.v").read_text()
    (folder / "inner.v").write_text(text.replace("  output busy;\n", "  output [1:0] busy;\n", 1))
    done = fusesoc(tmp_path / "work", *command)
    assert done.returncode != 0 and "inner.v" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 3])
def test_litex_of_an_engine_behind_axi(tmp_path, frames):
    """One that reads clips has a mark of where they begin, in the endpoint too."""
    pytest.importorskip("litex")
    config = design([conv("a", 4, 2, 2, frames=frames)], (2, 4, 2), channels=1)
    facts = generate(config, random_network(config.network, 1), tmp_path, top="inner", bus="axi")
    engine = load(tmp_path / "inner_litex.py").Engine(Sources())
    assert len(engine.sink.data) == 8 and len(engine.source.data) == 32
    assert hasattr(engine.sink, "user") == ("s_axis_tuser" in facts["ports"]) == (frames == 3)


BENCH = """\
module bench;
  {wires}
`include "inner_instance.vh"
  initial begin
    #1 $display("found %b", inner_0.weights.weights0[1]);
    $finish;
  end
endmodule
"""
CORE = """\
CAPI=2:
name: ::mine
filesets:
  bench:
    files: [bench.v: {file_type: verilogSource}, inner_instance.vh: {file_type: verilogSource,
            is_include_file: true}]
    depend: ["hexlane:small:inner"]
targets:
  sim:
    filesets: [bench]
    flow: sim
    flow_options: {tool: icarus}
    toplevel: bench
"""


@pytest.mark.slow
def test_a_core_that_depends_on_the_engine_finds_its_memory_files(product, tmp_path):
    if reason := missing("icarus"):
        pytest.skip(reason)
    facts, folder = product
    (tmp_path / "mine").mkdir()
    shutil.copy(folder / "inner_instance.vh", tmp_path / "mine")
    (tmp_path / "mine/mine.core").write_text(CORE)
    wires = " ".join(f"wire [{about['bits'] - 1}:0] {port};"
                     for port, about in facts["ports"].items())
    (tmp_path / "mine/bench.v").write_text(BENCH.format(wires=wires))
    done = fusesoc(tmp_path / "mine", "--cores-root", folder, "--cores-root", ".",
                   "run", "--target=sim", "::mine")
    assert done.returncode == 0, done.stdout
    words = (folder / "inner_weights0.mem").read_text().split()
    assert words[0] != words[1]
    assert f"found {words[1]}\n" in done.stdout, done.stdout
    assert "readmem" not in done.stdout
    work = next((tmp_path / "mine/build").glob("*/sim"))
    assert {path.name for path in work.iterdir()} >= MEMORIES
    assert (work / "src/hexlane_small_inner_0/inner.vlt").exists()


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Sources(list):
    """A LiteX platform, as far as the wrapper needs one."""

    def add_source(self, path: str):
        self.append(path)


@pytest.mark.slow
def test_litex_makes_verilog_that_computes_the_same(product, tmp_path):
    pytest.importorskip("litex")
    from litex.gen import LiteXModule
    from litex.gen.fhdl.verilog import convert
    from migen import Cat, ClockDomain, Signal
    facts, folder = product
    ports = {port: Signal(about["bits"], name=port) for port, about in facts["ports"].items()}
    sources, module = Sources(), LiteXModule()
    module.cd_sys = ClockDomain("sys")
    module.engine = engine = load(folder / "inner_litex.py").Engine(sources)
    assert sources == [str(folder / "inner.v")]
    sink, source = engine.sink, engine.source
    module.comb += [
        module.cd_sys.clk.eq(ports["clk"]), module.cd_sys.rst.eq(ports["rst"]),
        sink.data.eq(ports["pixels__payload"]), sink.valid.eq(ports["pixels__valid"]),
        ports["pixels__ready"].eq(sink.ready), ports["result__valid"].eq(source.valid),
        ports["result__payload"].eq(Cat(source.class_, source.score)),
        source.ready.eq(ports["result__ready"]),
        *(ports[name].eq(getattr(engine, name)) for name in ("probe", "busy", "layer"))]
    assert len(source.class_) == 1 and source.score.signed
    convert(module, ios={*ports.values()}, name="made").write(str(tmp_path / "made.v"))
    made = (tmp_path / "made.v").read_text()
    assert re.search(r"\.clk +\(sys_clk\)", made) and re.search(r"\.rst +\(sys_rst\)", made)
    named = ", ".join(f".{port}({port})" for port in ports)
    body = f"made made_0({named});"
    top = user(facts, folder, body, tmp_path)
    with (top / "engine.v").open("a") as file:
        file.write(made)
    check(top, "verilator" if missing("icarus") else "icarus")  # builds faster


@pytest.mark.slow
def test_an_engine_of_several_programs_and_results(tmp_path):
    """A port chooses; a result has words of which the last one is marked."""
    pytest.importorskip("litex")
    from litex.gen import LiteXModule
    from litex.gen.fhdl.verilog import convert
    from migen import ClockDomain, Signal
    several = [design([conv("a", 4, 2, 2)], (2, 4, 2)), design([], (2, 4, 2), operations=[
        conv("a", 5, 3, 3)])]
    made = build(several, [random_network(each.network, 1) for each in several])
    folder = tmp_path / "product"
    facts = generate_machine(several[0], made, folder, top="inner")
    assert "slot" in facts["ports"] and set(facts["result"]) == {"data", "last"}
    template = '`include "inner_instance.vh"'
    source = user(facts, folder, template, tmp_path) / "engine.v"
    lint = "--lint-only", "-Wall", "-Wno-INCABSPATH", f"-I{folder}", "--top-module", "engine"
    assert verilator(source.parent, *lint, folder / "inner.vlt", "engine.v") == ""

    module, last = LiteXModule(), Signal(name="last")
    module.cd_sys = ClockDomain("sys")
    module.engine = engine = load(folder / "inner_litex.py").Engine(Sources())
    module.comb += last.eq(engine.source.last)
    assert len(engine.source.data) == 32
    convert(module, ios={last}, name="made").write(str(tmp_path / "made.v"))
    run_yosys(f"read_verilog {folder}/inner.v made.v\nhierarchy -check -top made\nproc\n"
              "check -assert", tmp_path)
    assert re.search(r"result__payload +\(\{\w*source_last, ?\w*source_payload_data\}\)",
                     (tmp_path / "made.v").read_text())


@pytest.mark.slow
def test_litex_knows_the_axi_ports(tmp_path):
    """Every port is wired, to a signal of its width, in its direction."""
    pytest.importorskip("litex")
    from litex.gen.fhdl.verilog import convert
    from migen import ClockDomain
    facts = generate(CONFIG, NETWORK, tmp_path, top="inner", bus="axi")
    engine = load(tmp_path / "inner_litex.py").Engine(Sources())
    engine.cd_sys = ClockDomain("sys")
    channels = [engine.sink, engine.source, *(getattr(engine.bus, name) for name in
                                              ("aw", "w", "b", "ar", "r"))]
    ios = {engine.irq, engine.cd_sys.clk, engine.cd_sys.rst}
    for channel in channels:
        ios |= {*channel.flatten()}
    text = str(convert(engine, ios=ios, name="made"))
    widths = {name: int(top or 0) + 1 for top, name in
              re.findall(r"(?:input|output|inout) +(?:wire|reg) +(?:\[(\d+):0\] )?(\w+)", text)}
    wires = dict(re.findall(r"\.(\w+) +\((\w+)\)", text[text.index("inner #("):]))
    assert set(wires) == set(facts["ports"])
    assert len(set(wires.values())) == len(wires)
    for port, about in facts["ports"].items():
        assert widths[wires[port]] == about["bits"], port
        channel, part = re.fullmatch(r"(?:s_axil_)?(s_axis_t|m_axis_t|aw|w|b|ar|r|)(\w+)",
                                     port).groups() if "_" in port else ("", port)
        named = {"s_axis_t": "sink", "m_axis_t": "source"}.get(channel, channel)
        assert wires[port].replace("payload_", "").replace("sys_", "") == (
            f"{named}_{part}" if channel else port)


@pytest.mark.slow
def test_the_documentation(tmp_path):
    """Every block of `verilog.md`, in order; then LiteX's own script for Yosys.

    After that come place and route and a board.
    """
    pytest.importorskip("fusesoc")
    pytest.importorskip("litex")
    text = Path("docs/verilog.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in blocks] == ["sh", "python"]
    (tmp_path / "mine.toml").write_text(DESIGN)
    hexlane, lint = (shlex.split(line) for line in blocks[0][1].splitlines())
    assert hexlane.pop(0) == "hexlane" and lint.pop(0) == "fusesoc"
    root = {"PYTHONPATH": str(Path.cwd())}
    subprocess.run([sys.executable, "-m", "sim.cli", *hexlane], cwd=tmp_path, check=True,
                   env=os.environ | root)
    done = fusesoc(tmp_path, *lint)
    assert done.returncode == 0, done.stdout
    table = text[text.index("| file | for |"):].split("\n\n")[0]
    named = set(re.findall(r"`(engine\S*)`", table))
    assert named == {path.name for path in (tmp_path / "build/mine").glob("engine*")}

    (tmp_path / "soc.py").write_text(blocks[1][1])
    subprocess.run([sys.executable, "-W", "error", "soc.py"], cwd=tmp_path, check=True)
    made = tmp_path / "build/soc/gateware"
    script, = made.glob("*.ys")
    assert f"read_verilog {tmp_path}/build/mine/engine.v\n" in script.read_text()
    log = run_yosys(script.read_text(), made)
    assert "Found and reported 0 problems." in log
    module = json.loads(next(made.glob("*.json")).read_text())["modules"][script.stem]
    wires = {bit for name, net in module["netnames"].items() if name.startswith("engine.")
             for bit in net["bits"]}
    registers = [cell for cell in module["cells"].values()
                 if cell["type"] == "TRELLIS_FF" and cell["connections"]["Q"][0] in wires]
    assert len(registers) > 400  # with memories of zeros 72 are left
