"""What lies beside the Verilog for the flows that users have: all from what `engine.json` says."""

import re
from collections.abc import Sequence
from pathlib import Path


def package(facts: dict, memories: Sequence[str]) -> dict[str, str]:
    """Text of each file, by name, for an engine of these facts with memory files of these names."""
    return {facts["top"] + ending: write(facts, memories) for ending, write in WRITERS.items()}


def core(facts: dict, memories: Sequence[str]) -> str:
    """FuseSoC: a user's core depends on this one, whose memory files go where the tools run."""
    top = facts["top"]
    copies = "".join(f"      - {file}: {{copyto: {file}}}\n" for file in memories)
    files = f"  memories:\n    files:\n{copies}    file_type: user\n" if memories else ""
    sets = "verilog, memories, waiver" if memories else "verilog, waiver"
    return f"""\
CAPI=2:
name: hexlane:{facts["name"]}:{top}
description: Hexlane engine {facts["name"]}
filesets:
  verilog:
    files: [{top}.v]
    file_type: verilogSource-2005
{files}  waiver:
    files: [{top}.vlt]
    file_type: vlt
targets:
  default:
    filesets: [{sets}]
  lint:
    filesets: [{sets}]
    flow: lint
    flow_options: {{tool: verilator, verilator_options: [-Wall]}}
    toplevel: "{top}"
"""


def waiver(facts: dict, memories: Sequence[str]) -> str:
    """What Verilator may not complain about in the engine; elsewhere it may."""
    text = Path(__file__).with_name("lint.vlt").read_text()
    return re.sub(r'^(lint_off -rule \w+)(?: -file "\*")?',
                  rf'\1 -file "*{facts["top"]}.v"', text, flags=re.MULTILINE)


def instance(facts: dict, memories: Sequence[str]) -> str:
    """Instantiation template: each port on a wire of its name."""
    ports = ",\n".join(f"  /* {about['direction']:6} {about['bits']:4} bits */ .{port}({port})"
                       for port, about in facts["ports"].items())
    where = """// MEMORY_FOLDER is where the memory files are, as seen from where the tool runs.
""" if memories else ""
    folder = '#(.MEMORY_FOLDER(".")) ' if memories else ""
    return f"""\
// Hexlane engine {facts["name"]}: copy this, or include it where wires of these names are.
{where}{facts["top"]} {folder}{facts["top"]}_0 (
{ports}
);
"""


def litex(facts: dict, memories: Sequence[str]) -> str:
    """LiteX module: streams are endpoints, AXI4-Lite is a bus, all other ports signals."""
    signals, wires = [], {"clk": 'ClockSignal("sys")', "rst": 'ResetSignal("sys")'}
    if facts["bus"] == "axi":
        bits = {port: about["bits"] for port, about in facts["ports"].items()}
        begins = ', ("user", 1)' if "s_axis_tuser" in bits else ""  # a clip
        signals = [f'self.sink = stream.Endpoint([("data", {bits["s_axis_tdata"]}){begins}])',
                   'self.source = stream.Endpoint([("data", 32)])',
                   "self.bus = axi.AXILiteInterface(data_width=32, "
                   f"address_width={bits['s_axil_awaddr']})"]
        for port in bits:
            for part, name in (("s_axis_t", "self.sink"), ("m_axis_t", "self.source"),
                               *((f"s_axil_{channel}", f"self.bus.{channel}")
                                 for channel in ("aw", "w", "b", "ar", "r"))):
                if port.startswith(part):
                    wires[port] = f"{name}.{port.removeprefix(part)}"
    for port, about in facts["ports"].items():
        if port in wires:
            continue
        name, _, part = port.partition("__")
        name = "self." + {"pixels": "sink", "result": "source"}.get(name, name)
        if part == "payload":
            # `class` is a word of Python; a field of another stream has no parts.
            fields = {field.replace("class", "class_"): f"({place['bits']}, {place['signed']})"
                      for field, place in facts["result"].items()
                      } if name == "self.source" else {"data": about["bits"]}
            layout = ", ".join(f'("{field}", {shape})' for field, shape in fields.items()
                               if field != "last")  # every endpoint has that
            signals.append(f"{name} = stream.Endpoint([{layout}])")
            wires[port] = f"Cat({', '.join(f'{name}.{field}' for field in fields)})"
        elif part:
            wires[port] = f"{name}.{part}"
        else:
            signals.append(f"{name} = Signal({about['bits']})")
            wires[port] = name
    ports = [f"{about['direction'][0]}_{port}={wires[port]}"
             for port, about in facts["ports"].items()]
    return f'''\
"""LiteX module of the Hexlane engine {facts["name"]}: `self.engine = Engine(platform)` in an SoC.

`sink` takes frames pixel by pixel, `source` gives a class and its score for each.
"""

from pathlib import Path

from litex.gen import LiteXModule
from litex.soc.interconnect import {"axi, " if facts["bus"] == "axi" else ""}stream
from migen import Cat, ClockSignal, Instance, ResetSignal, Signal


class Engine(LiteXModule):
    def __init__(self, platform):
        folder = Path(__file__).resolve().parent
        platform.add_source(str(folder / "{facts["top"]}.v"))
        {"""
        """.join(signals)}
        self.specials += Instance(
            "{facts["top"]}", {"p_MEMORY_FOLDER=folder.as_posix()," if memories else ""}
            {""",
            """.join(ports)})
'''


WRITERS = {".core": core, ".vlt": waiver, "_instance.vh": instance, "_litex.py": litex}
