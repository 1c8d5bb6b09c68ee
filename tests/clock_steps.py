"""What a step for the clock is worth today: takes one away at a time, and places what is left.

    python -m tests.clock_steps FOLDER [SEEDS]

Prints a row for each step, of `megabit`'s network with random weights on 8 x 8 elements of two
words, LFE5U-85F, speed 6: see docs/performance.md. Some minutes for each row and seed; what was
placed in the folder before is not placed again. Steps that are stages of the pipeline have no row:
the units' latencies are built on them.
"""

import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from export.config import parse_config, read_toml
from export.sections import pieces
from hw.generate import generate
from hw.peers import Unit, measure
from hw.pipeline import carry
from sim.samples import random_network

DESIGN = Path(__file__).parents[1] / "configs" / "megabit.toml"


def _whole(rows: int, sizes=None) -> list[tuple[int, int, int]]:
    return [(0, rows, (rows - 1).bit_length())]


def _at_once(rows: int) -> list[int]:
    count = len(pieces(rows))
    return [1 << (count - 1).bit_length()] if count > 1 else []


def _same(m, before, row, name):
    return carry(m, before, 1, name)


# Of each step what is in its place, by where the code finds it.
STEPS: dict[str, dict[str, object]] = {
    "all of it": {},
    "registers not merged into block RAMs": {"hw.synth.merge_output_registers": lambda module: 0},
    "LUTs not put into carry cells": {"hw.synth.absorb_luts": lambda module: 0},
    "read as it was before a write in the same cycle (no `no_rw_check`)": {
        "hw.memory.FREE_READS": {}, "hw.store.FREE_READS": {}},
    "weights' memories not cut into pieces": {"hw.store.pieces": _whole},
    "a piece chosen in one step": {"hw.store.choices": _at_once},
    "clusters may share registers": {"hw.array.SystolicArray._apart": staticmethod(_same)},
    "no clusters: each element has registers of its own": {
        "export.hardware.CLUSTER": 1, "export.cost.CLUSTER": 1, "hw.array.CLUSTER": 1},
}


def row(name: str, folder: Path, seeds: list[int]) -> str:
    """A row of the table, of a state that lacks the step `name`."""
    values = read_toml(DESIGN)
    values |= {"name": "megabit", "array": values["array"] | {"rows": 8, "columns": 8, "words": 2}}
    config = parse_config(values)
    folder /= "".join(each if each.isalnum() else "_" for each in name)
    with ExitStack() as stack:
        for where, other in STEPS[name].items():
            stack.enter_context(patch(where, other))
        generate(config, random_network(config.network, 1), folder)
        found = measure(Unit(name, 3, 256, folder, "engine", ("engine.v",)), seeds, 60,
                        lambda line: print(line, file=sys.stderr, flush=True))
    clocks = ", ".join(f"{clock:.1f}" for clock in found["clocks"]["static"])
    return (f"| {name} | {clocks} | {found['comb']:,} | {found['ff']:,} | {found['block_ram']} | "
            f"{found['critical_path']} |")


def main(folder: str, seeds: str = "1 2 3"):
    """Prints the table."""
    print("| without | MHz, by seed | COMB | FF | DP16KD | the longest path |")
    print("|---|---|---|---|---|---|")
    for name in STEPS:
        print(row(name, Path(folder), [*map(int, seeds.split())]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
