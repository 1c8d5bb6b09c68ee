"""What whole engines of 16 x 8 elements take: of one precision each, and of all three.

    python -m tests.small_engines FOLDER

Maps four engines for an LFE5U-85F, some minutes, unless the folder has them, and prints a row for
each: see docs/performance.md. Cells are per product and cycle at the narrowest words.
"""

import sys
from pathlib import Path

from hw.generate import generate
from hw.peers import DEVICE
from hw.synth import map_netlist, sizes
from sim.peers import macs, small
from sim.samples import random_network

ENGINES = {"only1b": [1, 1, 1], "only2b": [2, 2, 2], "only3b": [3, 3, 3], "mixed": [3, 2, 1]}


def main(path: str):
    """Prints the table."""
    print("| | LUT4 and two per CCU2C | each | registers | as packed | each |")
    print("|---|---|---|---|---|---|")
    for name, bits in ENGINES.items():
        config, folder = small(name, bits), Path(path) / name
        generate(config, random_network(config.network, 1), folder)
        cells = sizes(map_netlist(folder, DEVICE, "engine"), DEVICE)
        cells["lut4"] += 2 * cells["carry"]
        each = {kind: cells[kind] / macs(config, min(bits)) for kind in ("lut4", "logic")}
        print(f"| {name} | {cells['lut4']:,} | {each['lut4']:.1f} | {cells['ff']:,} | "
              f"{cells['logic']:,} | {each['logic']:.1f} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
