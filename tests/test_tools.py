import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from export.config import ConfigError, parse_config
from hw import verilog
from hw.generate import generate
from hw.tools import lint, verilator_environment
from hw.verilog import memory_files, write_verilog
from hw.yosys import YosysError, run_yosys
from sim.runner import missing, run_bench
from sim.samples import random_network

HERE = Path(__file__).parent
HEADER = ["A toy", "of two lines"]
SMALL = {"name": "small",
         "network": {"height": 2, "width": 2, "channels": 1, "classes": 2, "layers": [
             {"name": "first", "channels": 2, "weight_bits": 2, "code_bits": 2}]},
         "array": {"rows": 1, "columns": 2, "words": 1, "precisions": [2, 3]}}


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))  # cocotb hands the path on to the simulator
    import toy
    return toy


@pytest.fixture
def folder(toy, tmp_path):
    write_verilog(toy.Toy(), tmp_path / "toy", "toy", HEADER)
    return tmp_path / "toy"


@pytest.fixture(scope="module")
def small():
    config = parse_config(SMALL)
    return config, random_network(config.network, 1)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_yosys_returns_its_log_and_raises_its_error(tmp_path):
    assert "Yosys" in run_yosys("log Yosys here", tmp_path)
    with pytest.raises(YosysError, match="No such command: nonsense") as caught:
        run_yosys("log first\nnonsense", tmp_path)
    assert caught.value.reason.startswith("No such command: nonsense")
    assert "first" in caught.value.log


def test_verilog_has_header_and_memory_file(folder, toy):
    text = (folder / "toy.v").read_text()
    assert text.startswith("// A toy\n// of two lines\n// Written by Amaranth ")
    assert 'initial $readmemb({MEMORY_FOLDER, "/table.mem"}, \\table , 0, 4);' in text
    assert memory_files(folder / "toy.v") == {"table.mem": len(toy.TABLE)}
    words = (folder / "table.mem").read_text().split()
    assert [int(word, 2) for word in words] == toy.TABLE
    # The buffer has no initial contents, hence no file; nothing else is left behind.
    assert sorted(contents(folder)) == ["table.mem", "toy.v"]


def test_verilog_is_readable(folder):
    text = (folder / "toy.v").read_text()
    assert re.findall(r"^module (\S+?)\(", text, re.MULTILINE) == ["toy", "toy__last", "toy__step"]
    assert re.findall(r"^  toy__step (\S+) ", text, re.MULTILINE) == ["step_0", "step_1"]
    assert re.findall(r"^  toy__last (\S+) ", text, re.MULTILINE) == ["before_0", "before_1"]
    assert ".cc:" not in text
    assert str(folder.parent) not in text


@pytest.mark.slow
def test_verilog_is_reproducible(folder, tmp_path):
    script = f"""
import sys
sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}]
from pathlib import Path
from hw.verilog import write_verilog
from toy import Toy
write_verilog(Toy(), Path(sys.argv[1]), "toy", {HEADER!r})
"""
    for seed in ("1", "2"):
        subprocess.run([sys.executable, "-c", script, tmp_path / seed], check=True,
                       env=os.environ | {"PYTHONHASHSEED": seed})
        assert contents(tmp_path / seed) == contents(folder)


def test_memory_files_of_an_earlier_design_go(folder, toy):
    product = folder / "toy.v"
    product.write_text(product.read_text().replace("table.mem", "earlier.mem"))
    (folder / "table.mem").rename(folder / "earlier.mem")
    (folder / "notes.mem").write_text("not of the design\n")
    write_verilog(toy.Toy(), folder, "toy", HEADER)
    assert sorted(contents(folder)) == ["notes.mem", "table.mem", "toy.v"]


@pytest.mark.slow
def test_only_memory_files_beside_the_verilog_are_removed(folder, toy):
    kept = ["../victim.mem", "victim.txt", "sub/victim.mem", str(folder.parent / "absolute.mem")]
    (folder / "sub").mkdir()
    for name in kept:
        (folder / name).write_text("precious\n")
    product = folder / "toy.v"
    text = product.read_text()
    for name in [*kept, "..", "."]:
        product.write_text(text.replace("table.mem", name))
        with pytest.raises(ConfigError, match=r"toy\.v: wanted memory files beside it, got '"):
            memory_files(product)
        write_verilog(toy.Toy(), folder, "toy", HEADER)
        assert product.read_text() == text
    assert all((folder / name).read_text() == "precious\n" for name in kept)


def test_memories_of_the_same_name_get_files_of_their_own():
    body = "".join(f'  reg [7:0] {name} [9:0];\n  initial $readmemb("design-{n}.mem", {name});\n'
                   for n, name in enumerate(["rom", "\\rom$2 ", "rom"]))
    assert verilog._memory_names(body) == {
        "design-0.mem": "rom.mem", "design-1.mem": "rom_2.mem", "design-2.mem": "rom_3.mem"}


def test_failing_write_leaves_the_folder_as_it_was(folder, toy, monkeypatch):
    before = contents(folder)

    def fail(script, cwd):
        raise RuntimeError("no Yosys")

    monkeypatch.setattr(verilog, "run_yosys", fail)
    with pytest.raises(RuntimeError, match="no Yosys"):
        write_verilog(toy.Toy([1, 2]), folder, "toy")
    assert contents(folder) == before


def test_write_that_fails_while_it_moves_files_leaves_the_folder_as_it_was(
        toy, tmp_path, monkeypatch):
    """Three files move out and three in, after the memory file got its name."""
    write_verilog(toy.Toy(), tmp_path, "toy", HEADER, beside=lambda memories: {"toy.json": "1"})
    before = contents(tmp_path)
    replace, left = os.replace, [0]

    def fail(source, target):
        left[0] -= 1
        if left[0] == -1:
            raise OSError("disk full")
        replace(source, target)

    def write():
        write_verilog(toy.Toy([1, 2]), tmp_path, "toy", beside=lambda memories: {"toy.json": "2"})

    monkeypatch.setattr(verilog.os, "replace", fail)
    for left[0] in range(1, 7):
        with pytest.raises(OSError, match="disk full"):
            write()
        assert contents(tmp_path) == before
    left[0] = 8
    write()
    assert contents(tmp_path)["toy.json"] == b"2"
    assert contents(tmp_path)["table.mem"] != before["table.mem"]


def test_folder_in_the_place_of_a_file_is_an_error(folder, toy):
    (folder / "table.mem").unlink()
    (folder / "table.mem").mkdir()
    text = (folder / "toy.v").read_bytes()
    with pytest.raises(ConfigError, match=r"table\.mem: wanted a file to write, got a folder$"):
        write_verilog(toy.Toy([1, 2]), folder, "toy")
    assert (folder / "toy.v").read_bytes() == text
    assert (folder / "table.mem").is_dir()


@pytest.mark.slow
def test_what_a_killed_write_left_goes(folder, tmp_path, toy):
    before = contents(folder)
    script = f"""
import os, signal, sys
sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}]
from pathlib import Path
from hw import verilog
from toy import Toy
verilog.run_yosys = lambda script, cwd: os.kill(os.getpid(), signal.SIGKILL)
verilog.write_verilog(Toy(), Path({str(folder)!r}), "toy", {HEADER!r})
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    left, = folder.glob(".part-*")
    assert (left / "design.il").exists()
    other = folder / f".part-of_another-{os.getppid()}"  # still at work
    other.mkdir()
    write_verilog(toy.Toy(), folder, "toy", HEADER)
    assert list(folder.glob(".part-*")) == [other]
    other.rmdir()
    assert contents(folder) == before


@pytest.mark.parametrize("process", ["0", "x", "9" * 30])
def test_a_part_of_no_process_goes(tmp_path, process):
    """A signal to 0 would go to all processes of our group."""
    (tmp_path / f".part-x-{process}").mkdir()
    with verilog._part_of(tmp_path) as part:
        assert [*tmp_path.iterdir()] == [part]


def test_header_is_a_comment_whatever_it_says(toy, tmp_path):
    header = ["'\nmodule evil; endmodule", "\r`include \"x\" \u2028 \x00 \u00e9", "ends in \\"]
    path = write_verilog(toy.Toy(), tmp_path, "toy", header)
    text = path.read_bytes()
    assert text.startswith(b"// '\\nmodule evil; endmodule\n"
                           b"// \\r`include \"x\" \\u2028 \\x00 \\xe9\n"
                           b"// ends in \\\\\n// Written by Amaranth ")
    assert text.isascii()
    lint(tmp_path)


@pytest.mark.parametrize("name", ["", "../toy", "a b", "a\nb", "1a", "a__b", "_a", "a" * 65,
                                  "module"])
def test_name_that_cannot_be_a_module_is_refused(toy, tmp_path, name):
    with pytest.raises(ConfigError, match=r"^top module: [^\n]{1,200}$"):
        write_verilog(toy.Toy(), tmp_path / "toy", name)
    assert sorted(path.name for path in tmp_path.rglob("*")) in ([], ["toy"])


@pytest.mark.slow
def test_no_name_looks_like_a_bit_select(folder, small, tmp_path):
    generate(*small, tmp_path / "small")
    for text in ((folder / "toy.v").read_text(), (tmp_path / "small" / "engine.v").read_text()):
        names = re.findall(r"\\(\S+) ", text)
        assert names
        assert [name for name in names if "[" in name] == []


@pytest.mark.slow
def test_two_engines_go_into_one_design(small, tmp_path):
    generate(*small, tmp_path)
    plain = contents(tmp_path)
    memories = {name for name in plain if name.endswith(".mem")}
    assert memories >= {"weights0.mem", "biases.mem"}
    generate(*small, tmp_path, top="left")
    both = contents(tmp_path)
    package = {f"left{each}" for each in (".core", ".vlt", "_instance.vh", "_litex.py")}
    assert set(both) - set(plain) == {"left.v", "left.json", "left.sha256", *package,
                                      *(f"left_{m}" for m in memories)}
    assert plain.items() <= both.items()
    assert all(both[f"left_{memory}"] == plain[memory] for memory in memories)
    assert set(memory_files(tmp_path / "left.v")) == {f"left_{memory}" for memory in memories}
    assert json.loads(both["left.json"]) == json.loads(plain["engine.json"]) | {"top": "left"}
    modules = [re.findall(rb"^module (\w+)\(", both[name], re.MULTILINE)
               for name in ("engine.v", "left.v")]
    assert [module.replace(b"engine", b"left") for module in modules[0]] == modules[1]
    run_yosys("read_verilog engine.v left.v", tmp_path)  # fails where a module comes twice


@pytest.mark.slow
def test_failing_generate_loses_nothing(small, tmp_path, monkeypatch):
    generate(*small, tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(verilog, "run_yosys", lambda script, cwd: run_yosys("nonsense", cwd))
    with pytest.raises(YosysError):
        generate(*small, tmp_path)
    assert contents(tmp_path) == before


def test_icarus_has_nothing_to_say_about_memory_files(folder):
    if reason := missing("icarus"):
        pytest.skip(reason)
    for command in (["iverilog", "-Wall", "-o", "toy.vvp", "toy.v"], ["vvp", "toy.vvp"]):
        done = subprocess.run(command, cwd=folder, check=True, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert "readmem" not in done.stdout


def test_merging_gives_unique_plain_names():
    leaf = "  wire width 1 \\x\n"
    modules = {"top": "  cell \\top.a_0 \\a_0\n  cell \\top.a_1 \\a_1\n  cell \\top.b \\b\n",
               "top.a_0": "  cell \\top.a_0.leaf \\leaf\n", "top.a_0.leaf": leaf,
               "top.a_1": "  cell \\top.a_1.leaf \\leaf\n", "top.a_1.leaf": leaf,
               "top.b": "  wire width 2 \\x\n"}
    assert verilog._merge_identical(modules) == {
        "top": "  cell \\top__a \\a_0\n  cell \\top__a \\a_1\n  cell \\top__b \\b\n",
        "top__a": "  cell \\top__a__leaf \\leaf\n", "top__a__leaf": leaf,
        "top__b": "  wire width 2 \\x\n"}
    modules = {"top": "  cell \\top.a \\a\n  cell \\top.a_0 \\a_0\n  cell \\top.a_1 \\a_1\n",
               "top.a": "  wire width 2 \\x\n", "top.a_0": leaf, "top.a_1": leaf}
    assert list(verilog._merge_identical(modules)) == ["top", "top__a", "top__a_0"]


def test_the_folder_of_the_memory_files_reaches_those_that_read_them():
    body = """\
module top(a,
  b);
  top__mid mid (
  );
  top__other other (
  );
endmodule

module top__mid(a);
  top__leaf \\leaf$1  (
  );
endmodule

module top__leaf(a);
  initial $readmemb({MEMORY_FOLDER, "/rom.mem"}, rom, 0, 3);
endmodule

module top__leaf2(a);
endmodule

module top__other(a);
  top__leaf2 leaf (
  );
endmodule
"""
    passed, declared = " #(.MEMORY_FOLDER(MEMORY_FOLDER))", '\n  parameter MEMORY_FOLDER = ".";'
    wanted = body
    for line in ("  top__mid", "  top__leaf"):
        wanted = wanted.replace(f"{line} ", f"{line}{passed} ")
    for line in ("  b);", "module top__mid(a);", "module top__leaf(a);"):
        wanted = wanted.replace(line, line + declared)
    assert verilog._pass_folder(body) == wanted
    other = body[body.index("module top__leaf2"):]
    assert verilog._pass_folder(other) == other


def test_shared_components_must_be_equal(toy):
    export = verilog._Export("toy")
    verilog.shared(toy.Step(by=1), export, "step")
    with pytest.raises(ValueError, match=r"shared as 'step' must have the same parameters, .*2"):
        verilog.shared(toy.Step(by=2), export, "step")


def test_generated_verilog_is_lint_clean(folder):
    lint(folder)


@pytest.mark.parametrize("defect, complaint", [
    ("wire [7:0] p; leaf l(.a(a[4:0]), .y(p)); assign y = p[3:0];", "WIDTHTRUNC"),
    ("wire [7:0] p; leaf l(.a(a[2:0]), .y(p)); assign y = p[3:0];", "WIDTHEXPAND"),
    ("assign y = a;", "WIDTHTRUNC"),
    ("reg [3:0] q; always @* if (a[0]) q = a[3:0]; assign y = q;", "LATCH"),
    ("assign y[2:0] = a[2:0];", "UNDRIVEN"),
    ("wire [7:0] p; leaf l(.a(p[3:0]), .y(p)); assign y = p[3:0];", "UNOPTFLAT"),
    ("assign y = a[3:0]; assign y = a[7:4];", "MULTIDRIVEN"),
])
def test_lint_finds_defects(tmp_path, defect, complaint):
    (tmp_path / "bad.v").write_text(f"""
module bad(input [7:0] a, output [3:0] y);
  {defect}
endmodule
module leaf(input [3:0] a, output [7:0] y);
  assign y = {{a, a}};
endmodule
""")
    with pytest.raises(RuntimeError, match=complaint):
        lint(tmp_path)


def test_lint_wants_verilog(tmp_path):
    with pytest.raises(ConfigError, match=r"must hold a Verilog file$"):
        lint(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_bench_passes_and_fails(folder, tmp_path, simulator):
    if reason := missing(simulator):
        pytest.skip(reason)

    def run(**environment):
        return run_bench(verilog=folder, top="toy", bench="bench_toy", simulator=simulator,
                         build=tmp_path / "sim",
                         environment={"SIMULATOR": simulator} | environment)

    assert "PASS=1 FAIL=0" in run().read_text()
    with pytest.raises(RuntimeError, match=r"bench_toy: \w+ failed: 1 of 1 tests failed"):
        run(WRONG="1")
    table = folder / "table.mem"
    words = table.read_text().splitlines(keepends=True)
    table.write_text("".join(words[:-1]))
    with pytest.raises(RuntimeError, match=r"table\.mem: must hold 5 words for toy\.v, not 4"):
        run()
    table.unlink()
    with pytest.raises(RuntimeError, match=r"table\.mem: this memory file of toy\.v is missing"):
        run()


def test_missing_simulator_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="icarus needs iverilog and vvp, not installed"):
        run_bench(verilog=folder, top="toy", bench="bench_toy", simulator="icarus",
                  build=tmp_path / "sim")


def test_verilator_takes_ccache_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("OBJCACHE", raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    assert verilator_environment(tmp_path / "here")["OBJCACHE"] == ""
    program = tmp_path / "bin" / "ccache"
    program.parent.mkdir()
    program.touch(0o755)
    found = verilator_environment(tmp_path / "here")
    assert found["OBJCACHE"] == "ccache" and str(program.parent) in found["PATH"].split(os.pathsep)
    monkeypatch.setenv("OBJCACHE", "another")
    assert verilator_environment(tmp_path / "here")["OBJCACHE"] == "another"
