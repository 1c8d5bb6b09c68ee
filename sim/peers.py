"""Compares engines with other generators' circuits: `hexlane peers`, docs/performance.md."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from export.checked import ConfigError
from export.config import Config, parse_config
from export.words import operands
from hw import peers
from hw.generate import generate
from hw.peers import Unit, row
from sim.samples import random_network

PRECISIONS = 1, 2, 3
HEAD = ("| unit | bits | MACs per cycle | LUT4 | registers | DP16KD | MHz | millions of MAC/s per "
        "LUT4 | to FINN |")
CAVEATS = (
    "An engine is a whole one: feeder, memories of activations and weights, sequencer, shift and "
    "clip, head. FINN's unit is the products, their sums and a ROM of 9 words (in LUTs), alkaid's "
    "circuit the products and sums alone: neither lines up pixels, nor normalizes, nor keeps maps.",
    "At one bit FINN's activations are -1 and 1, which makes a product an XNOR; an engine's and "
    "alkaid's are 0 and 1.",
    "Weights: FINN's are fixed in ROM, alkaid's wired into adders, which an engine's are not: it "
    "runs any layers whose weights fit its block RAMs. alkaid's circuit is for one layer and grows "
    "with it.",
    "FINN's unit is the published RTL of 2022; FINN itself makes such a unit with vendor tools.",
    "MACs per cycle are the most: an engine does fewer where pixels or channels do not fill its "
    "array, and between operations; FINN's unit and alkaid's circuit where pixels do not come.",
)


def small(name: str, bits: Sequence[int]) -> Config:
    """A network of the peers' layer, of so many bits each, on 16 x 8 elements of four words."""
    layers = [{"name": f"conv{n}", "channels": 16, "weight_bits": each, "code_bits": each}
              for n, each in enumerate(bits, 1)]
    return parse_config({
        "name": name,
        "network": {"height": 16, "width": 16, "channels": 3, "pad": 128, "classes": 10,
                    "classifier_bits": bits[-1], "layers": layers},
        "array": {"rows": 16, "columns": 8, "words": 4, "precisions": sorted(set(bits))}})


def macs(config: Config, bits: int) -> int:
    """Products in a cycle of words of so many bits."""
    array = config.array
    return array.rows * array.columns * operands(bits, array.words)


def engine(folder: Path, bits: int) -> Unit:
    """An engine that does nothing but `bits`, with random weights."""
    config = small(f"only{bits}b", 3 * [bits])
    generate(config, random_network(config.network, 1), folder)
    return Unit(f"engine, {bits}b only", bits, macs(config, bits), folder, "engine",
                ("engine.v",))


def shipped(config: Config, folder: Path) -> list[dict]:
    """Of an engine that `hexlane pnr` has timed in `folder`, a row for each of its precisions.

    Raises
    ------
    ConfigError
        If it has not, or for another device than the peers'.
    """
    path, wanted = folder / "report.json", f"{peers.DEVICE.name} {peers.GRADE}"
    try:
        timing = json.loads(path.read_text())["timing"]
        if not timing or not timing["of"].endswith(f" {wanted}"):
            raise ValueError(f"there is no clock on {wanted}")
        return [row(f"`{config.name}`", bits, macs(config, bits), timing) | {
                    "clocks": {"static": [run["fmax_mhz"] for run in timing["runs"]]}}
                for bits in config.array.precisions]
    except (OSError, ValueError, LookupError, TypeError, AttributeError,
            RecursionError) as error:
        raise ConfigError(f"{path}: is no report that `hexlane pnr` wrote: {error}") from error


def table(rows: list[dict]) -> str:
    """Markdown: a row for each, by precision, with the ratio to FINN's unit of that precision."""
    finn = {each["bits"]: rate(each) for each in rows if each["unit"] == peers.FINN}
    lines = [HEAD, "|---" * HEAD.count(" |") + "|"]
    for each in sorted(rows, key=lambda each: each["bits"]):
        clocks = "; ".join(f"{placer} {', '.join(f'{clock:.1f}' for clock in found)}"
                           for placer, found in each["clocks"].items())
        ratio = f"{rate(each) / finn[each['bits']]:.2f}x" if each["bits"] in finn else ""
        lines.append(f"| {each['unit']} | {each['bits']} | {each['macs']:,} | {each['comb']:,} | "
                     f"{each['ff']:,} | {each['block_ram']} | {each['fmax_mhz']:.1f} ({clocks}) | "
                     f"{rate(each):.2f} | {ratio} |")
    return "\n".join(lines)


def rate(found: dict) -> float:
    """Millions of products in a second for each LUT4 that is in use."""
    return found["macs"] * found["fmax_mhz"] / found["comb"]


def compare(designs: list[Config], checkout: Path, folder: Path, seeds: list[int],
            engine_seeds: list[int], limit: float, say: Callable[[str], None]) -> list[dict]:
    """Measures all that is compared; a row for each circuit and precision.

    `designs` were timed before, in `build/NAME`. `checkout` is of FINN_MatrixVector_RTL. What was
    measured before in `folder` is not run again.
    """
    rows = [each for design in designs for each in shipped(design, Path("build") / design.name)]
    rows += [peers.measure(peers.finn(checkout, folder / f"finn{bits}b", bits), seeds, limit, say)
             for bits in PRECISIONS]
    if peers.has_alkaid():
        rows += [peers.measure(peers.alkaid(folder / f"alkaid{bits}b", bits), seeds, limit, say)
                 for bits in PRECISIONS]
    else:
        say("alkaid is not installed and left out: pip install 'hexlane[peers]'")
    return rows + [peers.measure(engine(folder / f"only{bits}b", bits), engine_seeds, limit, say)
                   for bits in PRECISIONS]
