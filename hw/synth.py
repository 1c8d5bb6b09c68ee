"""Synthesises a generated engine and reports its size.

There is no place and route: sizes are those of the mapped netlist.
"""

import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from export.area import estimate
from export.build import config_hash, size, with_networks
from export.config import Config, ConfigError
from hw.ice40 import logic_cells
from hw.yosys import YosysError, run_yosys


@dataclass(frozen=True)
class Device:
    """A target, its Yosys command, and the cells that take up its sites, by site.

    The number at each cell is how many sites of that kind it needs.
    """

    name: str
    command: str
    sites: dict[str, int]
    logic: dict[str, int]
    lut: str
    carry: str
    ff: str
    block_ram: str
    dsp: tuple[str, ...]


DEVICES = {
    "ecp5": Device(
        name="LFE5U-85F",
        # -nodsp: a product of a pixel digit and a weight would go to one 18x18 multiplier each.
        # -abc9 and -nowidelut give the smallest result for this kind of logic.
        command="synth_ecp5 -nodsp -abc9 -nowidelut",
        sites={"logic": 83640, "block_ram": 208},
        # A carry cell is two LUTs; a 16x4 RAM is four and two for its write port.
        logic={"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6},
        lut="LUT4", carry="CCU2C", ff="TRELLIS_FF", block_ram="DP16KD",
        dsp=("MULT18X18D", "ALU54B")),
    "ice40": Device(
        name="iCE40UP5K",
        command="synth_ice40 -device u",  # uses abc9 by itself; DSP blocks only if asked for
        sites={"logic": 5280, "block_ram": 30},
        logic={},  # see :mod:`hw.ice40`
        lut="SB_LUT4", carry="SB_CARRY", ff="SB_DFF", block_ram="SB_RAM40_4K",
        dsp=("SB_MAC16",)),
}


def synthesise(folder: Path, device: Device, top: str = "engine") -> dict:
    """Sizes of `folder/top.v` on `device`: lut4, carry, ff, block_ram, dsp, logic.

    Raises
    ------
    RuntimeError
        If Yosys fails; `folder/synth.log` says how.
    """
    with tempfile.TemporaryDirectory() as scratch:
        netlist = Path(scratch) / "netlist.json"
        script = f"""
            read_verilog {top}.v
            {device.command} -top {top}
            tee -q -o {scratch}/counts.json stat -json
            write_json {netlist}
            """
        try:
            log = run_yosys(script, folder)
        except YosysError as error:
            path = folder / "synth.log"
            path.write_text(error.log)
            raise RuntimeError(f"Yosys failed: {error.reason}; all of it is in {path}") from error
        counts = json.loads((Path(scratch) / "counts.json").read_text())
        cells = Counter(counts["design"]["num_cells_by_type"])
        module = json.loads(netlist.read_text())["modules"][top]
    (folder / "synth.log").write_text(log)

    def count(prefix: str) -> int:  # registers and block RAMs come in many variants
        return sum(number for cell, number in cells.items() if cell.startswith(prefix))

    if device is DEVICES["ice40"]:
        logic = logic_cells(module)
    else:
        logic = max(sum(sites * cells[cell] for cell, sites in device.logic.items()),
                    count(device.ff))
    return {
        "lut4": cells[device.lut],
        "carry": cells[device.carry],
        "ff": count(device.ff),
        "block_ram": count(device.block_ram),
        "dsp": sum(cells[cell] for cell in device.dsp),
        "logic": logic,
    }


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
    try:
        facts = json.loads((folder / f"{top}.json").read_text())
        if not isinstance(facts, dict) or "hash" not in facts:
            raise ValueError("is no description of an engine")
    except (ValueError, OSError, RecursionError) as error:
        raise ConfigError(f"{folder / top}.json: cannot be read: {error}") from error
    return facts


def report(config: Config, folder: Path) -> dict:
    """Synthesises the engine in `folder` and returns what belongs into `report.json`."""
    engine, (hardware, programs) = load_facts(folder), size(with_networks(config))
    if engine["hash"].get("config") != config_hash(config, programs):
        raise ConfigError(f"{folder}: holds the engine of {engine.get('name')!r:.60}, or of "
                          f"another configuration of it, not of {config.name!r} as it stands")
    device = DEVICES[config.target.family]
    sizes = synthesise(folder, device)
    copied = ("cycles_per_frame", "array_use", "frames_per_second", "clock_mhz",
              "weight_bits", "bias_bits", "program_bits", "seed_bits", "total_bits")
    return {
        "name": config.name,
        "family": config.target.family,
        "device": device.name,
        **sizes,
        "estimated": estimate(hardware, config.target.family).cells,
        "fits": all(sizes[site] <= limit for site, limit in device.sites.items()),
        **{key: engine[key] for key in copied},
        **accuracy_fields(folder / "accuracy.json", engine),
        "yosys": version("pyosys"),
        "command": device.command,
    }


def show(result: dict, console: Console):
    """Prints the sizes beside those of the device, and the verdict."""
    device = DEVICES[result["family"]]
    table = Table("", "used", f"of {device.name}", "estimated",
                  title=f"{result['name']}: {result['command']}", title_justify="left",
                  min_width=52)
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("LUT4", f"{result['lut4']:,}", "")
    table.add_row("carry cells", f"{result['carry']:,}", "")
    about = result["estimated"]
    table.add_row("registers", f"{result['ff']:,}", "", f"{about['ff']:,}")
    for site, label, guess in (("logic", "logic cells", "lut4"),
                               ("block_ram", "block RAMs", "block_ram")):
        used, limit = result[site], device.sites[site]
        table.add_row(label, f"{used:,}", f"{used / limit:.0%} of {limit:,}", f"{about[guess]:,}")
    table.add_row("DSP blocks", f"{result['dsp']:,}", "")
    console.print(table)
    fits = "[green]fits[/]" if result["fits"] else "[red]does not fit[/]"
    console.print(f"{result['name']} {fits} the {device.name}")
    if result["dsp"]:
        console.print("[red]a product went to a DSP block: the array must do without[/]")
