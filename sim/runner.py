"""Runs cocotb benches on generated Verilog, in Verilator or in Icarus Verilog.

Verilator is the fast one; Icarus knows a fourth state, so it shows what reads a word or register
that was never written. It is optional: :func:`missing` says why a simulator cannot be used.
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from cocotb_tools import runner as cocotb_runner

from hw.tools import verilator_environment
from hw.verilog import memory_files

Simulator = Literal["verilator", "icarus"]
PROGRAMS = {"verilator": ("c++", "make"), "icarus": ("iverilog", "vvp")}

VERILATOR_OPTIONS = [
    "-Wno-fatal",  # `hw.tools lint` is the place for warnings
    # With every signal visible, building takes three times as long and running four times.
    "--no-public-flat-rw",
    # Registers and memories without initial value start with noise, so none is relied upon.
    "--x-initial", "unique", "--x-assign", "unique",
]
VERILATOR_ARGUMENTS = ["+verilator+rand+reset+2", "+verilator+seed+1"]


def missing(simulator: Simulator) -> str | None:
    """Why `simulator` cannot be used here, or None if it can."""
    absent = [name for name in PROGRAMS[simulator] if shutil.which(name) is None]
    return f"{simulator} needs {' and '.join(absent)}, not installed" if absent else None


def run_bench(*, verilog: Path, top: str, bench: str, simulator: Simulator, build: Path,
              environment: Mapping[str, str] | None = None, waves: bool = False,
              harness: Path | None = None, parameters: Mapping[str, int] | None = None,
              defines: Sequence[str] = (), arguments: Sequence[str] = ()) -> Path:
    """Runs all tests of the cocotb module `bench` on `verilog/top.v`; returns the log.

    Several modules have commas between their names.

    With a `harness`, a Verilog file that instantiates `top` and has one module, of the file's name,
    the bench runs on that, with these `parameters` and `defines`. `arguments` are plusargs.

    Verilator and its C++ compiler take a while on the first call with a `build` folder, and only
    look whether anything changed on the next. `environment` is what the bench finds in
    `os.environ`. Under Verilator only the ports of `top` are visible to it. With `waves`, `build`
    holds the waveforms afterwards: `dump.vcd` (Verilator) or `TOP.fst` (Icarus).

    Raises
    ------
    RuntimeError
        If the simulator or a memory file is missing, the build fails, or any test does; the message
        ends in the last lines of the log.
    """
    if reason := missing(simulator):
        raise RuntimeError(reason)
    source = (verilog / f"{top}.v").resolve()
    build = build.resolve() / simulator
    build.mkdir(parents=True, exist_ok=True)
    # Simulators look for memory files where they run. Without one, or with too short a one, they
    # go on, with no more than a warning.
    for name, words in memory_files(source).items():
        file = source.parent / name
        if not file.is_file():
            raise RuntimeError(f"{file}: this memory file of {source.name} is missing")
        if (count := len(file.read_text().split())) != words:
            raise RuntimeError(f"{file}: must hold {words} words for {source.name}, not {count}")
        shutil.copyfile(file, build / name)

    sources, options, added = [source], [], dict(environment or {})
    if harness:
        sources, top = [source, harness], harness.stem
    if simulator == "verilator":
        ports = build / "ports.vlt"  # cocotb wants the Verilog last
        _write_if_changed(ports, _public_ports(sources[-1], top))
        sources.insert(0, ports)
        options, arguments = VERILATOR_OPTIONS, [*VERILATOR_ARGUMENTS, *arguments]
        added |= verilator_environment(build / "bin")

    with _environment(added):
        runner = cocotb_runner.get_runner(simulator)
        log = build / "build.log"
        with _explained(f"{top}: {simulator} cannot build it", log):
            runner.build(sources=sources, hdl_toplevel=top, build_dir=build, build_args=options,
                         parameters=parameters or {}, defines=dict.fromkeys(defines, 1),
                         always=simulator == "icarus", waves=waves, log_file=log,
                         timescale=("1ns", "1ps"))
        log = build / "bench.log"
        with _explained(f"{bench}: {simulator} failed", log):
            results = runner.test(test_module=bench, hdl_toplevel=top, plusargs=list(arguments),
                                  build_dir=build, test_dir=build, waves=waves, log_file=log,
                                  results_xml="results.xml", seed=1, timescale=("1ns", "1ps"))
            tests, failed = cocotb_runner.get_results(results)
            if failed or not tests:
                raise RuntimeError(f"{failed} of {tests} tests failed")
    return log


def seconds_of(results: Path) -> float:
    """How long the tests of a bench took to run, without its build."""
    return float(ElementTree.parse(results).find("testsuite").get("time"))


def _public_ports(source: Path, top: str) -> str:
    header = re.search(rf"^module {re.escape(top)}\s*(?:#\([^)]*\))?\s*\(([^)]*)\);",
                       source.read_text(), re.MULTILINE)
    if header is None:
        raise RuntimeError(f"{source}: must hold a module {top}")
    ports = [name.split()[-1] for name in header[1].split(",")]
    return "`verilator_config\n" + "".join(
        f'public_flat_rw -module "{top}" -var "{port}"\n' for port in ports)


def _write_if_changed(path: Path, text: str):
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


@contextmanager
def _explained(what: str, log: Path):
    log.unlink(missing_ok=True)
    try:
        yield
    except (RuntimeError, SystemExit) as error:
        tail = log.read_text(errors="replace").splitlines()[-30:] if log.exists() else []
        raise RuntimeError("\n".join([f"{what}: {error}", *tail])) from error


@contextmanager
def _environment(added: Mapping[str, str]):
    """Adds to os.environ, over which cocotb's runner gives its own arguments no say."""
    before = dict(os.environ)
    os.environ.update(added)
    # In a pytest process, cocotb's runner would end it rather than tell the result.
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
