"""Waveforms of a simulation, and lists of signals to open them with.

`signals.gtkw` is for GTKWave, `signals.sucl` a command file for Surfer; both show the ports of the
engine and of the blocks in it, block by block.
"""

import re
from pathlib import Path

TOP = "bench"  # instantiates the engine
FILES = {"verilator": "dump.vcd", "icarus": "bench.fst"}
_MODULE = re.compile(r"^module \\?(\S+?) ?\((.*?)\);\n(.*?)^endmodule", re.MULTILINE | re.DOTALL)
_PORT = re.compile(r"^  (?:input|output) (?:signed )?(\[\d+:0\] )?(\w+) ?;", re.MULTILINE)
_INSTANCE = re.compile(r"^  (engine__\w+) (?:#\(.*\) )?(\w+) \($", re.MULTILINE)


def signals(verilog: Path) -> list[tuple[str, str]]:
    """Hierarchical name and range ("[7:0]" or "") of each port of the top and of its blocks."""
    modules = {name: body for name, _, body in _MODULE.findall(verilog.read_text())}

    def ports(module: str, path: str):
        return [(f"{path}.{name}", span.strip()) for span, name in _PORT.findall(modules[module])]

    found = ports("engine", f"{TOP}.engine")
    for module, instance in _INSTANCE.findall(modules["engine"]):
        found += ports(module, f"{TOP}.engine.{instance}")
    return found


def write_lists(build: Path, simulator: str, verilog: Path) -> Path:
    """Writes both lists beside the waveform of `simulator` in `build`; returns the waveform."""
    folder = build / simulator
    wave = folder / FILES[simulator]
    found = signals(verilog)
    lines = [f'[dumpfile] "{wave.name}"', *(f"{name}{span}" for name, span in found)]
    (folder / "signals.gtkw").write_text("\n".join(lines) + "\n")
    (folder / "signals.sucl").write_text(
        "".join(f"variable_add {name}\n" for name, _ in found))
    return wave
