import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from export.config import ConfigError
from hw import verilog
from hw.tools import lint, run_yosys
from hw.verilog import memory_files, write_verilog
from sim.runner import missing, run_bench

HERE = Path(__file__).parent
HEADER = ["A toy", "of two lines"]


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))  # cocotb hands the path on to the simulator
    import toy
    return toy


@pytest.fixture
def folder(toy, tmp_path):
    write_verilog(toy.Toy(), tmp_path / "toy", "toy", HEADER)
    return tmp_path / "toy"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_yosys_returns_its_log_and_raises_its_error(tmp_path):
    assert "Yosys" in run_yosys("log Yosys here", tmp_path)
    with pytest.raises(RuntimeError, match="No such command: nonsense"):
        run_yosys("nonsense", tmp_path)


def test_verilog_has_header_and_memory_file(folder, toy):
    text = (folder / "toy.v").read_text()
    assert text.startswith("// A toy\n// of two lines\n// Written by Amaranth ")
    plain = text.replace("\\", "").replace(" ,", ",")
    assert 'initial $readmemb("table.mem", table, 0, 4);' in plain
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


def test_nothing_but_its_own_memory_files_ever_goes(folder, toy):
    victim = folder.parent / "victim.txt"
    victim.write_text("mine")
    (folder / "notes.txt").write_text("mine")
    for name in ("../victim.txt", "notes.txt", str(victim)):
        product = folder / "toy.v"
        product.write_text(f'reg [7:0] m [4:0];\n  initial $readmemb("{name}", m, 0, 4);\n'
                           f' [4:0];\n  initial $readmemb("{name}", m);\n')
        assert memory_files(product) == {}
        write_verilog(toy.Toy(), folder, "toy", HEADER)
    assert victim.read_text() == (folder / "notes.txt").read_text() == "mine"


def test_what_a_killed_run_left_goes(folder, toy):
    (folder / ".part-x").mkdir()
    (folder / ".part-x" / "design.v").write_text("half")
    write_verilog(toy.Toy(), folder, "toy", HEADER)
    assert sorted(contents(folder)) == ["table.mem", "toy.v"]


def test_a_header_cannot_leave_its_comment(toy, tmp_path):
    product = write_verilog(toy.Toy(), tmp_path, "toy", ["a\nmodule evil; endmodule", "b\\"])
    lines = product.read_text().splitlines()
    assert lines[:2] == ["// a module evil; endmodule", "// b/"]


def test_a_prefix_leads_the_memory_files(toy, tmp_path):
    write_verilog(toy.Toy(), tmp_path, "mine", prefix="mine_", beside={"mine.json": "{}"})
    assert sorted(contents(tmp_path)) == ["mine.json", "mine.v", "mine_table.mem"]
    text = (tmp_path / "mine.v").read_text()
    assert set(re.findall(r"^module (\w+)", text, re.MULTILINE)) == {
        "mine", "mine__last", "mine__step"}


def test_no_name_looks_like_a_bit_select(toy, tmp_path):
    class Arrays(wiring.Component):
        i: In(data.ArrayLayout(3, 4))
        o: Out(data.ArrayLayout(3, 4))

        def elaborate(self, platform):
            m = Module()
            inner = Signal(data.ArrayLayout(data.StructLayout({"a": 1, "b": 2}), 4))
            m.d.sync += inner.eq(self.i)
            m.d.comb += self.o.eq(inner)
            return m

    text = write_verilog(Arrays(), tmp_path, "arrays").read_text()
    assert not re.search(r"\\\S*\[", text) and "inner" in text


def test_memory_file_ranges_draw_no_warning(folder):
    if reason := missing("icarus"):
        pytest.skip(reason)
    subprocess.run(["iverilog", "-g2012", "-o", "toy.vvp", "toy.v"], cwd=folder, check=True)
    ran = subprocess.run(["vvp", "-n", "toy.vvp"], cwd=folder, check=True, capture_output=True,
                         text=True, timeout=30)
    assert "WARNING" not in ran.stdout + ran.stderr


def test_memories_of_the_same_name_get_files_of_their_own():
    body = "".join(f'  reg [7:0] {name} [9:0];\n  initial $readmemb("design-{n}.mem", {name});\n'
                   for n, name in enumerate(["rom", "\\rom$2 ", "rom"]))
    assert verilog._memory_names(body) == {
        "design-0.mem": "rom.mem", "design-1.mem": "rom_2.mem", "design-2.mem": "rom_3.mem"}


def test_failing_write_leaves_the_folder_as_it_was(folder, toy, monkeypatch):
    before = contents(folder)

    def fail(script, cwd, log=None):
        raise RuntimeError("no Yosys")

    monkeypatch.setattr(verilog, "run_yosys", fail)
    with pytest.raises(RuntimeError, match="no Yosys"):
        write_verilog(toy.Toy([1, 2]), folder, "toy")
    assert contents(folder) == before


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
