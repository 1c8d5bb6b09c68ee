"""Tables of several designs, from the reports of `hexlane synth` and `hexlane pnr`."""

import json
from collections.abc import Callable
from pathlib import Path

from export.checked import ConfigError
from hw.devices import DEVICES

HEAD = ("| design | test accuracy | stored bits | cycles per frame | frames/s | LUT4 | carry cells "
        "| registers | logic cells | block RAMs |")
CLOCKS = "| design | MHz, by seed | median | frames/s | sites in use | critical path |"


def table(folders: list[Path]) -> str:
    """Markdown: a row for each report, with frames per second and the clock that they are at.

    Raises
    ------
    ConfigError
        If a folder has no report.
    """
    return _rows(HEAD, folders, "synth", _area)


def clocks(folders: list[Path]) -> str:
    """Markdown: clock by seed, frames per second, sites in use and the critical path.

    Raises
    ------
    ConfigError
        If a folder has no report of place and route.
    """
    return _rows(CLOCKS, folders, "pnr", _clock)


def _rows(head: str, folders: list[Path], command: str, cells: Callable[[dict], list]) -> str:
    lines = [head, "|---" * head.count(" |") + "|"]
    for folder in folders:
        path = folder / "report.json"
        try:
            lines.append(f"| {' | '.join(cells(json.loads(path.read_text())))} |")
        except (OSError, ValueError, LookupError, TypeError, AttributeError,
                ArithmeticError) as error:
            raise ConfigError(f"{path}: is no report; `hexlane {command}` writes it: "
                              f"{error}") from error
    return "\n".join(lines)


def _area(found: dict) -> list[str]:
    sites = DEVICES[found["device"]].sites
    rate = found["frames_per_second"]
    return [f"`{found['name']}` ({found['device']})",
            f"{found['accuracy']:.2%}" if found["accuracy"] else "",
            f"{found['total_bits']:,}", f"{found['cycles_per_frame']:,}",
            f"{rate:,} at {found['fmax_mhz']:g} MHz" if rate else "",
            f"{found['lut4']:,}", f"{found['carry']:,}", f"{found['ff']:,}",
            *(f"{found[site]:,} ({found[site] / sites[site]:.0%})"
              for site in ("logic", "block_ram"))]


def _clock(found: dict) -> list[str]:
    if not found["timing"]:
        raise ValueError("nothing was placed and routed")
    return [f"`{found['name']}` ({found['device']})",
            ", ".join(f"{run['fmax_mhz']:.1f}" for run in found["timing"]["runs"]),
            f"**{found['fmax_mhz']:.1f}**", f"{found['frames_per_second']:,}",
            ", ".join(f"{number['used']:,} {site} ({number['used'] / number['available']:.0%})"
                      for site, number in found["utilization"].items()),
            found["critical_path"]]
