"""Places and routes a mapped engine with nextpnr, which says what clock it can have.

Only `clk` and `rst` become pins. No device here has pins for the other ports, and cells that stand
for what would drive them would take up room: so those ports are left open, and no path from or to
one of them counts. An engine is timed from register to register.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median_low

from export.checked import ConfigError
from export.config import Config
from hw.devices import DEVICES, Device
from hw.path import Names, describe
from hw.synth import kept_timing, mapped, timed_netlist

PINS = "clk", "rst"
PADS = {"IBUF": "I", "OBUF": "O"}  # buffers of Gowin's pins, and their outer side
LIMIT = 60  # minutes for each seed, at most


def require(device: Device) -> str:
    """Version of the nextpnr for a device; ConfigError if it is not installed."""
    name = device.package.replace("_", "-")
    if find_spec(device.package) is None:
        raise ConfigError(f"hexlane pnr needs {name}: pip install 'hexlane[pnr]'")
    return version(name)


def place_and_route(config: Config, folder: Path, seeds: list[int],
                    limit: float = LIMIT) -> Iterator[tuple[str, dict | None]]:
    """Times the engine in `folder`, once for each of the seeds.

    Yields, after each, a line on it and what belongs into `report.json` so far: `fmax_mhz` is the
    median of the seeds that ended within `limit` minutes, the lower one of two; utilization and the
    critical path are of that seed. There is none before a seed has ended. Seeds that
    `folder/report.json` has, of the same netlist, device and nextpnr, are not run again.

    Raises
    ------
    ConfigError
        If nextpnr is not installed.
    RuntimeError
        If nextpnr fails, as it does if the engine does not fit; if no seed ends in time.
    """
    device = DEVICES[config.target.part]
    require(device)
    _, module = mapped(config, folder)
    yield from route(module, folder, device, options(device, config.target.grade),
                     timed_netlist(module, config), seeds, limit)


def route(module: dict, folder: Path, device: Device, arguments: list[str], timed: str,
          seeds: list[int], limit: float = LIMIT,
          pins: Sequence[str] = PINS) -> Iterator[tuple[str, dict | None]]:
    """Times a mapped module, which `timed` names, as :func:`place_and_route` does an engine.

    `arguments` are those of nextpnr; `pins` are the clock and the reset of the module.
    """
    names = Names(module)
    about = {"of": timed, "nextpnr": require(device), "options": " ".join(arguments)}
    kept = kept_timing(folder, timed) or {}
    known = {run["seed"]: run for run in kept.get("runs", ()) if about.items() <= kept.items()}
    runs, late = [], []
    netlist = folder / "pnr.json"
    netlist.write_text(json.dumps({"modules": {"engine": without_ports(module, pins)}}))
    if device.clock_pin:
        (folder / "pnr.cst").write_text("".join(
            f'IO_LOC "{port}" {pin};\n'
            for port, pin in zip(pins, (device.clock_pin, device.reset_pin), strict=True)))
    try:
        for seed in seeds:
            if seed in known:
                runs.append(known[seed])
            elif found := run_nextpnr(folder, device, arguments, seed, limit):
                runs.append({"seed": seed, **read_report(found, names)})
            else:
                late.append(seed)
            line = f"seed {seed}: not done in {limit:g} minutes, left out"
            if seed not in late:
                line = f"seed {seed}: {runs[-1]['fmax_mhz']:.1f} MHz, {runs[-1]['path']['words']}"
            yield line, {**about, **middle(runs), "seeds_left_out": [*late]} if runs else None
    finally:
        netlist.unlink()
        (folder / "pnr.cst").unlink(missing_ok=True)
    if not runs:
        raise RuntimeError(f"{folder}: nextpnr ended with no seed within {limit:g} minutes")


def middle(runs: list[dict]) -> dict:
    """The run whose clock is the median, the lower of two, and all of them."""
    fmax = median_low([run["fmax_mhz"] for run in runs])
    run = next(run for run in runs if run["fmax_mhz"] == fmax)
    return {"fmax_mhz": fmax, "utilization": run["utilization"],
            "critical_path": run["path"]["words"], "runs": [*runs]}


def without_ports(module: dict, pins: Sequence[str] = PINS) -> dict:
    """A mapped module of which only the clock and the reset are pins, for nextpnr.

    Cells that only say where the hierarchy was have no place on a device, and buffers of the other
    ports, where there are any, none to go to.
    """
    ports = {name: port for name, port in module["ports"].items() if name in pins}
    bits = {bit for port in ports.values() for bit in port["bits"]}

    def stays(cell: dict) -> bool:
        if cell["type"] in PADS:
            return bits.issuperset(cell["connections"][PADS[cell["type"]]])
        return cell["type"] != "$scopeinfo"

    return module | {"ports": ports, "cells": {
        name: cell for name, cell in module["cells"].items() if stays(cell)}}


def options(device: Device, grade: int | None) -> list[str]:
    """What nextpnr is told of a device and what is asked of it."""
    placed = ["--vopt", "cst=pnr.cst"] if device.clock_pin else []
    return [*device.options, *placed, *device.placer,
            *(["--speed", str(grade)] if grade else []),
            "--freq", str(device.goal_mhz), "--timing-allow-fail"]


def run_nextpnr(folder: Path, device: Device, arguments: list[str], seed: int,
                limit: float) -> dict | None:
    """Places and routes `folder/pnr.json`; nextpnr's report, or None if it took too long.

    The log is `folder/pnr-SEED.log`.
    """
    report = folder / f"pnr-{seed}.json"
    report.unlink(missing_ok=True)
    if not run_tool(folder, device, device.package.removeprefix("yowasp_"), [
            *arguments, "--json", "pnr.json", "--top", "engine", "--seed", str(seed),
            "--report", report.name], f"pnr-{seed}.log", limit):
        return None
    try:
        return json.loads(report.read_text())
    finally:
        report.unlink()


def run_tool(folder: Path, device: Device, tool: str, arguments: Sequence[str],
             log: str, limit: float = LIMIT) -> bool:
    """Runs a program of the device's package; whether it ended within so many minutes.

    It is WebAssembly that sees another temporary folder than the system's: it runs in `folder`, and
    all names are relative; but Gowin's own tools are plain Python, of the package `apycula`.
    RuntimeError if it fails; `folder/log` says how.
    """
    code = (f"import sys; from {device.package} import run_{tool} as run; "
            f"sys.exit(run(sys.argv[1:]))")
    if tool.startswith("gowin_"):
        code = f"from apycula.{tool} import main; main()"
    with (folder / log).open("w") as file:
        try:
            done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, stdout=file,
                                  stderr=subprocess.STDOUT, timeout=60 * limit, check=False)
        except subprocess.TimeoutExpired:
            return False
    if done.returncode:
        raise RuntimeError(f"{tool} failed: {reason((folder / log).read_text())}; all of it is in "
                           f"{folder / log}")
    return True


def reason(log: str) -> str:
    """The line of a log that says why nextpnr gave up."""
    lines = [line for line in log.splitlines() if line.strip()] or ["no reason given"]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    return (errors or lines[-1:])[0].removeprefix("ERROR: ")[:160]


def read_report(report: dict, names: Names) -> dict:
    """Of nextpnr's report: fmax_mhz, utilization by site, path (see :func:`hw.path.describe`)."""
    if len(report["fmax"]) != 1:
        raise RuntimeError(f"nextpnr must time one clock, not {len(report['fmax'])}")
    fmax, path = slowest(report)
    return {
        "fmax_mhz": round(fmax, 2),
        "utilization": {site: number for site, number in sorted(report["utilization"].items())
                        if number["used"]},
        "path": describe(path, names),
    }


def slowest(report: dict) -> tuple[float, list[dict]]:
    """Megahertz and longest path of the slowest clock of nextpnr's report."""
    fmax = {name: each["achieved"] for name, each in report["fmax"].items()}
    name = min(fmax, key=fmax.get, default=None)
    for each in report["critical_paths"]:
        if each["from"] == each["to"] == f"posedge {name}":
            return fmax[name], each["path"]
    raise RuntimeError("nextpnr timed no path from register to register")
