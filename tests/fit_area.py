"""Fits `export/area.py` to the engines and elements in `engines.json` and prints its tables.

    python -m tests.fit_area            # the tables
    python -m tests.fit_area measure    # synthesises all of them anew first, two at a time
    python -m tests.fit_area measure gowin  # or those of a family

`engines.json` holds what Yosys 0.70 made of single elements and of whole engines with random
weights: `{"elements": [[precisions, words, acc_bits, family, cells], ...], "engines": [[design,
family, cells], ...]}`; `lut4` is LUT4 and two per carry cell, on iCE40 and Gowin logic cells.
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from export.area import _around
from export.config import DEVICES as NAMES
from export.config import parse_config
from export.cost import Cost
from hw.devices import DEVICES
from hw.generate import generate
from hw.pe import ProcessingElement
from hw.synth import map_netlist, sizes
from hw.verilog import write_verilog
from sim.samples import random_network

DATA = Path(__file__).with_name("engines.json")
KINDS = "lut4", "ff"


def measure(data: dict, families: list[str]) -> dict:
    """The same elements and engines, those of `families` as Yosys maps them now."""
    with ProcessPoolExecutor(2) as pool:
        jobs = {(name, k): pool.submit(run, *each[:-1])
                for name, run in (("elements", element), ("engines", engine))
                for k, each in enumerate(data[name]) if each[-2] in families}
        return {name: [[*each[:-1], jobs[name, k].result() if (name, k) in jobs else each[-1]]
                       for k, each in enumerate(rows)] for name, rows in data.items()}


def cells_of(folder: Path, family: str, top: str) -> dict:
    """`lut4`, `ff` and `block_ram` of a mapped module."""
    device = DEVICES[NAMES[family][0]]
    found = sizes(map_netlist(folder, device, top), device)
    lut4 = found["lut4"] + 2 * found["carry"] if family == "ecp5" else found["logic"]
    return {"lut4": lut4, "ff": found["ff"], "block_ram": found["block_ram"]}


def element(precisions: list[int], words: int, acc_bits: int, family: str) -> dict:
    """A processing element that takes pixels too."""
    with TemporaryDirectory() as folder:
        write_verilog(ProcessingElement(words=words, precisions=tuple(precisions),
                                        acc_bits=acc_bits, horner=True), Path(folder), "pe")
        return cells_of(Path(folder), family, "pe")


def engine(design: dict, family: str) -> dict:
    """An engine with random weights."""
    config = parse_config(design)
    with TemporaryDirectory() as folder:
        generate(config, random_network(config.network, 1), Path(folder))
        return cells_of(Path(folder), family, "engine")


def elements(data: dict) -> dict:
    """Least squares of each set of precisions' cells: per word, per accumulator bit, constant."""
    found = {}
    for family in NAMES:
        for kind in KINDS:
            rows = {}
            for precisions, words, acc_bits, of, cells in data["elements"]:
                if of == family:
                    rows.setdefault(tuple(precisions), []).append((words, acc_bits, 1, cells[kind]))
            found[family, kind] = {
                precisions: np.linalg.lstsq(np.array(each)[:, :3], np.array(each)[:, 3],
                                            rcond=None)[0].round(1).tolist()
                for precisions, each in sorted(rows.items())}
    return found


def engines(data: dict, family: str) -> list:
    """Machine and cells of each engine."""
    return [(Cost.of(parse_config(design)).hardware, cells)
            for design, of, cells in data["engines"] if of == family]


def fit(table: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Least squares without negative weights: the worst one goes until there is none."""
    kept = list(range(table.shape[1]))
    while True:
        found, *_ = np.linalg.lstsq(table[:, kept], wanted, rcond=None)
        if (found >= 0).all():
            break
        kept.pop(int(np.argmin(found * np.abs(table[:, kept]).mean(0))))
    whole = np.zeros(table.shape[1])
    whole[kept] = found
    return whole


def around(data: dict, family: str, kind: str, each_element: dict) -> tuple[list, np.ndarray]:
    """Weights of what is around the elements, and the errors of engines that are left out."""
    machines = engines(data, family)
    sizes = np.array([cells[kind] for _, cells in machines], float)
    inner = np.array([hardware.array.rows * hardware.array.columns * np.dot(
        each_element[hardware.array.precisions], (hardware.array.words, hardware.acc_bits, 1))
        for hardware, _ in machines])
    outer = np.array([_around(hardware, family, kind) for hardware, _ in machines], float)
    table, wanted = outer / sizes[:, None], 1 - inner / sizes
    errors = [(inner[k] + outer[k] @ fit(np.delete(table, k, 0), np.delete(wanted, k))) / sizes[k]
              - 1 for k in range(len(sizes))]
    return fit(table, wanted).round(3).tolist(), np.array(errors)


if __name__ == "__main__":
    found = json.loads(DATA.read_text())
    if sys.argv[1:2] == ["measure"]:
        found = measure(found, sys.argv[2:] or [*NAMES])
        parts = (f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "]"
                 for name, rows in found.items())
        DATA.write_text("{" + ",\n".join(parts) + "}\n")
    for (family, kind), table in elements(found).items():
        print(family, kind, table)
        weights, errors = around(found, family, kind, table)
        print(weights, f"left out: {np.sqrt(np.square(errors).mean()):.1%} rms, "
                       f"{np.abs(errors).max():.1%} at most, {len(errors)} engines")
