"""One table of several designs, from the reports of `hexlane synth`."""

import json
from pathlib import Path

from export.checked import ConfigError
from hw.devices import DEVICES

HEAD = ("| design | test accuracy | stored bits | cycles per frame | frames/s | LUT4 | carry cells "
        "| registers | logic cells | block RAMs |")


def table(folders: list[Path]) -> str:
    """Markdown; frames per second are at the configured clock, which is no timing result.

    Raises
    ------
    ConfigError
        If a folder has no report.
    """
    lines = [HEAD, "|---" * HEAD.count(" |") + "|"]
    for folder in folders:
        path = folder / "report.json"
        try:
            found = json.loads(path.read_text())
            sites = DEVICES[found["device"]].sites
            accuracy = f"{found['accuracy']:.2%}" if found["accuracy"] else ""
            cells = [f"`{found['name']}` ({found['device']})", accuracy,
                     f"{found['total_bits']:,}", f"{found['cycles_per_frame']:,}",
                     f"{found['frames_per_second']:,}", f"{found['lut4']:,}",
                     f"{found['carry']:,}", f"{found['ff']:,}",
                     *(f"{found[site]:,} ({found[site] / sites[site]:.0%})"
                       for site in ("logic", "block_ram"))]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{path}: is no report; `hexlane synth` writes it: "
                              f"{error}") from error
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
