"""Small modules of Verilog, mapped by Yosys: all in one run, as most of a run is its start."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from hw.yosys import run_yosys


def counted(folder: Path, count: Callable[[dict], int], command: str,
            bodies: Mapping[str, tuple[int, str]]) -> dict[str, int]:
    """What `count` finds in each mapped module; a body is what follows `module top(input clk, `."""
    script = []
    for k, (_, body) in enumerate(bodies.values()):
        (folder / f"{k}.v").write_text(f"module top(input clk, {body} endmodule\n")
        script += ["design -reset", f"read_verilog {k}.v", f"{command} -top top",
                   f"write_json {k}.json"]
    run_yosys("\n".join(script), folder)
    return {name: count(json.loads((folder / f"{k}.json").read_text())["modules"]["top"])
            for k, name in enumerate(bodies)}
