"""Builds an engine for a board: clock, pins, place and route, the file that a board is given.

The clock comes from a PLL, or is the board's own where no PLL makes one as slow. What it may be is
known when all is placed: if the wanted clock was too fast, the PLL is set to what was reached, and
all is placed again.
"""

import json
import os
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

from export.checked import ConfigError
from export.hardware import Hardware
from export.pack import Images
from hw.board_top import BoardTop
from hw.boards import BAUD, PLL, SILENCE, board_of, divider_of, divides, pins
from hw.devices import DEVICES, Device
from hw.pnr import require, run_tool
from hw.synth import map_netlist, sizes
from hw.verilog import write_verilog

SOURCES = "board.v", "pll.v", "pins.il"
GRADE = 6  # of speed, of all ECP5 boards here
PLL_MHZ = {"ecp5": (10, 400), "ice40": (16, 275)}  # what comes out
ATTEMPTS = 4
MARGIN = 0.97  # of the clock that was reached, to ask for next
# Tools of each family: PLL, packer; names of what nextpnr writes and of the file for the board.
TOOLS = {"ecp5": ("ecppll", "ecppack", "board.config", "board.bit"),
         "ice40": ("icepll", "icepack", "board.asc", "board.bin")}


def build(name: str, hardware: Hardware, images: Images, folder: Path, *, mhz: float,
          seed: int = 1, baud: int = BAUD) -> dict:
    """Writes `folder/board.bit` (ECP5) or `board.bin` (iCE40), and returns what it is.

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
        raise ConfigError("hexlane bitstream needs amaranth-boards: pip install 'hexlane[board]'")
    folder.mkdir(parents=True, exist_ok=True)
    _, packer, placed, product = TOOLS[device.family]
    began = monotonic()
    text, constraints = pins(name)
    (folder / "pins.il").write_text(text)
    (folder / f"pins{_suffix(device)}").write_text(constraints)
    attempts = 0
    while True:
        attempts += 1
        clock = _set_pll(folder, device, board.mhz, mhz, baud)
        divider = divider_of(clock * 1e6, baud)
        write_verilog(BoardTop(hardware, images, divider=divider,
                               timeout=round(SILENCE * clock * 1e6), leds=board.leds),
                      folder, "board")
        module = map_netlist(folder, device, "pins", SOURCES)
        fmax, used = _place(folder, device, board.package, placed, seed, clock)
        if fmax >= clock:
            break
        if attempts == ATTEMPTS:
            raise RuntimeError(f"{folder}: no clock was met in {ATTEMPTS} attempts; the last was "
                               f"{clock:g} MHz, of which {fmax:.1f} were reached")
        mhz = MARGIN * fmax
    run_tool(folder, device, packer, [placed, f"{product}.part"], "pack.log")
    os.replace(folder / f"{product}.part", folder / product)
    return {"board": name, "device": device.name, "file": product,
            "bytes": (folder / product).stat().st_size, "clock_mhz": clock,
            "fmax_mhz": round(fmax, 2), "attempts": attempts, "seed": seed, "baud": baud,
            "nextpnr": nextpnr, "seconds": round(monotonic() - began), **sizes(module, device),
            "utilization": {site: number for site, number in sorted(used.items())
                            if number["used"]}}


def _suffix(device: Device) -> str:
    return ".lpf" if device.family == "ecp5" else ".pcf"


def _set_pll(folder: Path, device: Device, board_mhz: float, mhz: float, baud: int) -> float:
    """Writes `pll.v` for a clock of at most `mhz` that makes the baud rate; returns it."""
    tool, (clock_in, clock_out) = TOOLS[device.family][0], PLL[device.family]
    wanted, (least, most) = mhz, PLL_MHZ[device.family]
    file = folder / "pll.v"
    while wanted >= least:
        file.unlink(missing_ok=True)
        run_tool(folder, device, tool, [
            "-i", f"{board_mhz:g}", "-o", f"{min(wanted, most):.4f}",
            *(["--file", "pll.v"] if device.family == "ecp5" else ["-p", "-m", "-f", "pll.v"])],
            "pll.log")
        found = [line for line in (folder / "pll.log").read_text().splitlines()
                 if line.startswith("clkout0 frequency:") or "(achieved)" in line]
        clock = float(found[0].split(":")[1].split()[0])
        if clock <= mhz and divides(clock * 1e6, baud):
            return clock
        wanted = min(wanted, most) - max(clock - mhz, 0.1)
    if board_mhz > mhz or not divides(board_mhz * 1e6, baud):
        raise ConfigError(f"the clock must be at most {mhz:g} MHz, made of {board_mhz:g} MHz, and "
                          f"a multiple of {baud} baud: the PLL cannot")
    file.write_text(f"module pll(input {clock_in}, output {clock_out}, output locked);\n"
                    f"  assign {clock_out} = {clock_in};\n  assign locked = 1'b1;\nendmodule\n")
    return board_mhz


def _place(folder: Path, device: Device, package: str, placed: str, seed: int, clock: float
           ) -> tuple[float, dict]:
    """Runs nextpnr; the clock that was reached, and what is used."""
    report, ecp5 = folder / "place.json", device.family == "ecp5"
    report.unlink(missing_ok=True)
    family = ["--speed", str(GRADE), "--lpf", "pins.lpf", "--textcfg"] if ecp5 else [
        "--pcf", "pins.pcf", "--asc"]
    if not run_tool(folder, device, device.package.removeprefix("yowasp_"), [
            device.options[0], "--package", package, *device.placer, *family, placed,
            "--json", "netlist.json", "--top", "pins", "--freq", f"{clock:g}",
            "--timing-allow-fail", "--seed", str(seed), "--report", report.name], "place.log"):
        raise RuntimeError(f"{folder}: nextpnr did not end in time")
    found = json.loads(report.read_text())
    report.unlink()
    return min(each["achieved"] for each in found["fmax"].values()), found["utilization"]
