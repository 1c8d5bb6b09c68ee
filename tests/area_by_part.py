"""What each part of a mapped engine takes, by the names in its netlist.

    python -m tests.area_by_part FOLDER

FOLDER holds what `hexlane synth` wrote for an ECP5; only the kinds of cells below are counted. A
cell counts for the part whose signal it drives, be it a component or a group of signals; what
drives none with a name of its own counts for the engine.
"""

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

KINDS = {"LUT4": "LUT4", "CCU2C": "carry cells", "TRELLIS_FF": "registers",
         "TRELLIS_DPR16X4": "cells of distributed RAM", "DP16KD": "block RAMs"}
SPLIT = "epilogue"  # its parts are told apart too


def parts(module: dict) -> dict[str, Counter]:
    """Cells of each kind, by part."""
    found = defaultdict(Counter)
    for name, cell in module["cells"].items():
        path = name.split(".")[:-1]
        part = ".".join(path[:1 + (path[:1] == [SPLIT])]).split("$")[0] or "engine"
        if cell["type"] in KINDS:
            found[part][cell["type"]] += 1
    return dict(found)


def main(folder: str):
    """Prints the table."""
    module = json.loads((Path(folder) / "netlist.json").read_text())["modules"]["engine"]
    print("| |", *(f"{text} |" for text in KINDS.values()))
    print("|---|" + "---|" * len(KINDS))
    for part, cells in sorted(parts(module).items()):
        print(f"| {part} |", *(f"{cells[kind]:,} |" for kind in KINDS))


if __name__ == "__main__":
    main(*sys.argv[1:])
