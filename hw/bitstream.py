"""Builds an engine for a board: clock, pins, place and route, the file that a board is given.

The clock comes from a PLL, or is the board's own where no PLL makes one as slow. What it may be is
known when all is placed: if the wanted clock was too fast, the PLL is set to what was reached, and
all is placed again. A seed with which nextpnr finds no end, as where a device is nearly full, gives
way to the next one.
"""

import json
import os
import re
from importlib.util import find_spec
from math import ceil, log2
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from export.checked import ConfigError
from export.hardware import Hardware
from export.pack import Images
from hw.board_top import BoardTop
from hw.boards import BAUD, CONSTRAINTS, PLL, SILENCE, board_of, divider_of, divides, pins
from hw.devices import DEVICES, Device
from hw.path import Names, describe
from hw.pnr import require, run_tool, slowest
from hw.synth import map_netlist, sizes
from hw.verilog import write_verilog

SOURCES = "board.v", "pll.v", "pins.il"
GRADE = 6  # of speed, of all ECP5 boards here
ATTEMPTS = 4
MARGIN = 0.97  # of the clock that was reached, to ask for next
LIMIT = 15  # minutes of an attempt


class Tools(NamedTuple):
    """Of a family: its PLL's tool, its options and the megahertz that come out; what tells nextpnr
    where to write; the packer, what it reads and writes."""

    pll: str
    pll_options: tuple[str, ...]
    pll_mhz: tuple[float, float]
    write: str
    placed: str
    packer: str
    pack_options: tuple[str, ...]
    product: str


TOOLS = {
    "ecp5": Tools("ecppll", ("--file", "pll.v"), (10, 400), "--textcfg", "board.config",
                  "ecppack", ("board.config", "board.part"), "board.bit"),
    "ice40": Tools("icepll", ("-p", "-m", "-f", "pll.v"), (16, 275), "--asc", "board.asc",
                   "icepack", ("board.asc", "board.part"), "board.bin"),
    # As its tools call the device of the only board here. Its pins are shared with two ways of
    # configuration, which are over by then.
    "gowin": Tools("gowin_pll", ("-d", "GW1NR-9 C6/I5", "-f", "pll.v"), (4, 600), "--write",
                   "board.pnr.json", "gowin_pack",
                   ("-d", "GW1N-9C", "--sspi_as_gpio", "--mspi_as_gpio", "-o", "board.part",
                    "board.pnr.json"), "board.fs")}


def build(name: str, hardware: Hardware, images: Images, folder: Path, *, mhz: float,
          seed: int = 1, baud: int = BAUD) -> dict:
    """Writes `folder/board.bit` (ECP5), `board.bin` (iCE40) or `board.fs` (Gowin), and returns what
    it is.

    `folder` also holds the Verilog of the board (`board.v`, `pll.v`), its constraints and the logs.
    `mhz` is the clock at most.

    Raises
    ------
    ConfigError
        If there is no such board, nextpnr or amaranth-boards is not installed, or the clock is out
        of reach.
    RuntimeError
        If a tool fails, as nextpnr does if the engine does not fit.
    """
    board = board_of(name)
    device = DEVICES[board.device]
    nextpnr = require(device)
    if find_spec("amaranth_boards") is None:
        raise ConfigError("hexlane board build needs amaranth-boards: pip install 'hexlane[board]'")
    folder.mkdir(parents=True, exist_ok=True)
    tools = TOOLS[device.family]
    began = monotonic()
    text, constraints = pins(name)
    (folder / "pins.il").write_text(text)
    (folder / CONSTRAINTS[device.family]).write_text(constraints)
    attempts = 0
    while True:
        attempts += 1
        clock = _set_pll(folder, device, board.mhz, mhz, baud)
        divider = divider_of(clock * 1e6, baud)
        write_verilog(BoardTop(hardware, images, divider=divider,
                               timeout=_silence(clock, baud), leds=board.leds),
                      folder, "board")
        module = map_netlist(folder, device, "pins", SOURCES)
        placed = _place(folder, device, board.package, seed, clock)
        reached = placed and slowest(placed)[0]
        if placed and reached >= clock:
            break
        if attempts == ATTEMPTS:
            last = (f"of which {reached:.1f} were reached" if placed
                    else f"for which nextpnr found no end in {LIMIT} minutes")
            raise RuntimeError(f"{folder}: no clock was met in {ATTEMPTS} attempts; the last was "
                               f"{clock:g} MHz, {last}")
        if placed:
            mhz = MARGIN * reached
        else:
            seed += 1
    run_tool(folder, device, tools.packer, tools.pack_options, "pack.log")
    os.replace(folder / "board.part", folder / tools.product)
    return {"board": name, "device": device.name, "file": tools.product,
            "bytes": (folder / tools.product).stat().st_size, "clock_mhz": clock,
            "fmax_mhz": round(reached, 2),
            "critical_path": describe(slowest(placed)[1], Names(module))["words"],
            "attempts": attempts, "seed": seed, "baud": baud,
            "nextpnr": nextpnr, "seconds": round(monotonic() - began), **sizes(module, device),
            "utilization": {site: number for site, number in sorted(placed["utilization"].items())
                            if number["used"]}}


def _silence(clock: float, baud: int) -> int:
    """Cycles after which a packet is short, a power of two: twenty bits at least."""
    return 2 ** ceil(log2(max(SILENCE, 20 / baud) * clock * 1e6))


def _set_pll(folder: Path, device: Device, board_mhz: float, mhz: float, baud: int) -> float:
    """Writes `pll.v` for a clock of at most `mhz` that makes the baud rate; returns it."""
    tools, (clock_in, clock_out) = TOOLS[device.family], PLL[device.family]
    wanted, (least, most) = mhz, tools.pll_mhz
    file = folder / "pll.v"
    while wanted >= least:
        file.unlink(missing_ok=True)
        run_tool(folder, device, tools.pll, [
            "-i", f"{board_mhz:g}", "-o", f"{min(wanted, most):.4f}", *tools.pll_options],
            "pll.log")
        said = (folder / "pll.log").read_text() + file.read_text()
        found = re.search(r"(clkout0 frequency|\(achieved\)|Achieved output frequency): *([\d.]+)",
                          said)
        clock = float(found[2])
        if clock <= mhz and divides(clock * 1e6, baud):
            return clock
        wanted = min(wanted, most) - max(clock - mhz, 0.1)
    if board_mhz > mhz or not divides(board_mhz * 1e6, baud):
        raise ConfigError(f"the clock must be at most {mhz:g} MHz, made of {board_mhz:g} MHz, and "
                          f"a multiple of {baud} baud: the PLL cannot")
    file.write_text(f"module pll(input {clock_in}, output {clock_out}, output locked);\n"
                    f"  assign {clock_out} = {clock_in};\n  assign locked = 1'b1;\nendmodule\n")
    return board_mhz


def _place(folder: Path, device: Device, package: str, seed: int, clock: float) -> dict | None:
    """Runs nextpnr; what it reports, or None if it does not end in time."""
    report, tools = folder / "place.json", TOOLS[device.family]
    report.unlink(missing_ok=True)
    part = [device.options[0], "--package", package]
    # nextpnr's own choice of a router for iCE40 finds no end where a device is nearly full.
    family = {"ecp5": [*part, "--speed", str(GRADE), "--lpf", "pins.lpf"],
              "ice40": [*part, "--pcf", "pins.pcf", "--router", "router2"],
              "gowin": [*device.options, "--vopt", "cst=pins.cst"]}[device.family]
    if not run_tool(folder, device, device.package.removeprefix("yowasp_"), [
            *family, tools.write, tools.placed, *device.placer, "--json", "netlist.json",
            "--top", "pins", "--freq", f"{clock:g}", "--timing-allow-fail", "--seed", str(seed),
            "--report", report.name], "place.log", LIMIT):
        return None
    found = json.loads(report.read_text())
    report.unlink()
    return found
