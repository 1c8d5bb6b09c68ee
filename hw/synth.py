"""Synthesises a generated engine and reports its size and, once :mod:`hw.pnr` ran, its speed.

Sizes are those of the mapped netlist, `netlist.json`, which place and route starts from.
"""

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from export.area import estimate
from export.build import config_hash, size, with_networks
from export.config import Config, ConfigError
from export.facts import read_facts
from hw.absorb import absorb_luts
from hw.devices import DEVICES, Device
from hw.ecp5 import logic_sites as ecp5_sites
from hw.gowin import logic_sites as gowin_sites
from hw.ice40 import logic_cells
from hw.outreg import merge_output_registers
from hw.verilog import memory_files
from hw.yosys import YosysError, run_yosys

NETLIST = "netlist.json"
LOGIC = {"ecp5": ecp5_sites, "ice40": logic_cells, "gowin": gowin_sites}
TIMED = {"of", "fmax_mhz", "runs", "utilization", "critical_path"}  # of what was placed and routed
DIGEST = "hexlane"  # attribute of the mapped module: what it was mapped from


def map_netlist(folder: Path, device: Device, top: str = "engine",
                sources: Sequence[str] = ()) -> dict:
    """The mapped module of `folder/top.v`, as Yosys's `write_json` has it, flat.

    Other `sources` than that may be named, Verilog or RTLIL. It stays in `folder/netlist.json`;
    nothing is mapped that was mapped before.

    Raises
    ------
    RuntimeError
        If Yosys fails; `folder/synth.log` says how.
    """
    sha = hashlib.sha256(f"{device.command} {version('pyosys')} merged, absorbed 2\n".encode())
    sources = sources or [f"{top}.v"]
    for source in sources:
        memories = memory_files(folder / source) if source.endswith(".v") else ()
        for name in (source, *memories):
            sha.update((folder / name).read_bytes())
    digest = sha.hexdigest()
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        module = json.loads((folder / NETLIST).read_text())["modules"][top]
        if module["attributes"][DIGEST] == digest:
            return module
    reads = "\n".join(f"{'read_verilog' if source.endswith('.v') else 'read_rtlil'} {source}"
                      for source in sources)
    script = f"""
        {reads}
        {device.command} -top {top}
        setattr -mod -set {DIGEST} "{digest}" {top}
        write_json {NETLIST}.part
        """
    try:
        log = run_yosys(script, folder)
    except YosysError as error:
        path = folder / "synth.log"
        path.write_text(error.log)
        raise RuntimeError(f"Yosys failed: {error.reason}; all of it is in {path}") from error
    (folder / "synth.log").write_text(log)
    part = folder / f"{NETLIST}.part"
    netlist = json.loads(part.read_text())
    if device.family == "ecp5":
        merge_output_registers(netlist["modules"][top])
        absorb_luts(netlist["modules"][top])
        part.write_text(json.dumps(netlist))
    os.replace(part, folder / NETLIST)
    return netlist["modules"][top]


def sizes(module: dict, device: Device) -> dict:
    """Of a mapped module: lut4, carry, ff, block_ram, dsp, logic."""
    cells = Counter(cell["type"] for cell in module["cells"].values())

    def count(prefix: str | tuple[str, ...]) -> int:  # both come in many variants
        return sum(number for cell, number in cells.items() if cell.startswith(prefix))

    return {
        "lut4": sum(cells[cell] for cell in device.lut),
        "carry": cells[device.carry],
        "ff": count(device.ff),
        "block_ram": count(device.block_ram),
        "dsp": sum(cells[cell] for cell in device.dsp),
        "logic": LOGIC[device.family](module),
    }


def speed(frame_period: int, timing: dict | None) -> dict:
    """The clock, and frames per second at it, if there is `timing`.

    `timing` is what :func:`hw.pnr.place_and_route` returned.
    """
    clock, note = None, "frames per second: not known, `hexlane pnr` measures the clock"
    if timing:
        clock, said = timing["fmax_mhz"], ", ".join(str(run["seed"]) for run in timing["runs"])
        rate = round(clock * 1e6 / frame_period, 1)
        note = (f"{rate:,} frames per second at {clock:g} MHz, placed and routed "
                f"(median of seeds {said})")
    return {
        "frames_per_second": timing and rate,
        "clock_note": note,
        "fmax_mhz": clock,
        "utilization": timing and timing["utilization"],
        "critical_path": timing and timing["critical_path"],
        "timing": timing,
    }


def timed_netlist(module: dict, config: Config) -> str:
    """What a timing is of: a netlist on a device of a grade."""
    return f"{module['attributes'][DIGEST]} {config.target.part} {config.target.grade}"


def kept_timing(folder: Path, timed: str) -> dict | None:
    """What place and route measured before of the netlist that `timed` names, if anything."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError,
                             RecursionError):
        timing = json.loads((folder / "report.json").read_text())["timing"]
        if timing["of"] == timed and TIMED <= timing.keys() and timing["fmax_mhz"] > 0:
            return timing
    return None


def accuracy_fields(path: Path, engine: dict) -> dict:
    """What `sim.evaluate` measured for the engine's weights, here or before they were shipped."""
    found, note = engine["measured"], None
    if path.exists():
        try:
            here = json.loads(path.read_text())
            if here["digest"] == engine["hash"]["weights"]:
                found = here
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise ConfigError(f"{path}: is no accuracy; `hexlane evaluate` writes it") from error
    if found is None:
        found, note = {}, "not measured for these weights; `hexlane evaluate` does"
    return {"accuracy": found.get("accuracy"), "accuracy_images": found.get("images"),
            "accuracy_split": found.get("split"), "accuracy_note": note}


def load_facts(folder: Path, top: str = "engine") -> dict:
    """What the generator says of the engine in `folder`; ConfigError if there is none."""
    for name in (f"{top}.v", f"{top}.json"):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder / name}: is missing; `hexlane generate` writes it")
    return read_facts(folder / f"{top}.json")


def mapped(config: Config, folder: Path) -> tuple[dict, dict]:
    """What the generator says of the engine in `folder`, and its mapped module.

    Raises
    ------
    ConfigError
        If the folder holds no engine of that configuration.
    """
    engine, (_, programs) = load_facts(folder), size(with_networks(config))
    if engine["hash"]["config"] != config_hash(config, programs):
        raise ConfigError(f"{folder}: holds the engine of {engine['name']!r:.60}, or of "
                          f"another configuration of it, not of {config.name!r} as it stands")
    return engine, map_netlist(folder, DEVICES[config.target.part])


def report(config: Config, folder: Path) -> dict:
    """Synthesises the engine in `folder` and returns what belongs into `report.json`.

    A timing that is in it, of the same netlist on the same device, stays.
    """
    engine, module = mapped(config, folder)
    hardware, _ = size(with_networks(config))
    device = DEVICES[config.target.part]
    found = sizes(module, device)
    copied = ("cycles_per_frame", "frame_period", "array_use",
              "weight_bits", "bias_bits", "program_bits", "seed_bits", "total_bits")
    return {
        "name": config.name,
        "family": device.family,
        "device": device.name,
        **found,
        "estimated": estimate(hardware, device.family).cells,
        "fits": all(found[site] <= limit for site, limit in device.sites.items()),
        **{key: engine[key] for key in copied},
        **speed(engine["frame_period"],
                kept_timing(folder, timed_netlist(module, config))),
        **accuracy_fields(folder / "accuracy.json", engine),
        "yosys": version("pyosys"),
        "command": device.command,
    }


def show(result: dict, console: Console):
    """Prints the sizes beside those of the device, the speed, and the verdict."""
    device = DEVICES[result["device"]]
    table = Table("", "used", f"of {device.name}", "estimated",
                  title=f"{result['name']}: {result['command']}", title_justify="left",
                  min_width=52)
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("LUT4", f"{result['lut4']:,}", "")
    table.add_row("carry cells", f"{result['carry']:,}", "")
    about = {site: f"{number:,}" for site, number in result["estimated"].items()}
    logic = about["lut4"]
    if device.family == "ecp5":  # the estimate is without the ends of carry chains
        table.add_row("... LUT4 and two each", f"{result['lut4'] + 2 * result['carry']:,}", "",
                      logic)
        logic = ""
    for site, label, guess in (("ff", "registers", about["ff"]), ("logic", "logic cells", logic),
                               ("block_ram", "block RAMs", about["block_ram"])):
        used, limit = result[site], device.sites.get(site)
        table.add_row(label, f"{used:,}", f"{used / limit:.0%} of {limit:,}" if limit else "",
                      guess)
    table.add_row("DSP blocks", f"{result['dsp']:,}", "")
    console.print(table)
    fits = "[green]fits[/]" if result["fits"] else "[red]does not fit[/]"
    console.print(f"{result['name']} {fits} the {device.name}")
    console.print(result["clock_note"], highlight=False, soft_wrap=True, markup=False)
    for site, number in (result["utilization"] or {}).items():
        console.print(f"{site}: {number['used']:,} of {number['available']:,} "
                      f"({number['used'] / number['available']:.0%})", highlight=False)
    if result["critical_path"]:
        console.print(f"critical path: {result['critical_path']}", highlight=False, markup=False,
                      soft_wrap=True)
    if result["dsp"]:
        console.print("[red]a product went to a DSP block: the array must do without[/]")
