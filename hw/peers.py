"""Other generators' circuits for a layer, mapped, placed and routed as engines are.

The layer is a 3x3 convolution of 16 channels to 16: sums of 144 products of random weights. Nothing
of theirs is kept here: FINN's matrix-vector unit is read from a checkout, alkaid is a Python
package.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from export.checked import ConfigError
from export.file import write_whole
from hw.devices import DEVICES
from hw.pnr import options, route
from hw.synth import DIGEST, map_netlist
from hw.yosys import YosysError, run_yosys

FINN, ALKAID = "FINN's RTL unit", "alkaid, hard-wired"
DEVICE, GRADE = DEVICES["LFE5U-85F"], 6
INPUTS, OUTPUTS = 144, 16
FOLDED = 16  # FINN's unit: elements, and products of each in a cycle
LEVELS = {1: (-1, 1), 2: (-1, 0, 0, 1), 3: (-2, -1, 0, 1, 2)}  # of weights, equally often
SUM_BITS = {1: 8, 2: 10, 3: 12}  # of FINN's unit; one-bit sums count equal bits
# What alkaid puts between registers, in its measure of delay; shorter stages were not tried.
CUTOFF = {1: 3, 2: 2, 3: 3}
SOURCES = Path("proj/src/mvau_top")  # of FINN_MatrixVector_RTL
PLACERS = {"static": options(DEVICE, GRADE)}
PLACERS["heap"] = [each for each in PLACERS["static"] if each not in DEVICE.placer]


@dataclass(frozen=True)
class Unit:
    """A circuit `top` in `folder`, of Verilog or RTLIL `sources`; clock and reset are `pins`."""

    name: str
    bits: int
    macs: int  # in a cycle
    folder: Path
    top: str
    sources: tuple[str, ...]
    pins: tuple[str, ...] = ("clk", "rst")
    placers: tuple[str, ...] = ("static",)


def weights(bits: int) -> np.ndarray:
    """Random weights of the layer, int [144, 16]."""
    return np.random.default_rng(1).choice(LEVELS[bits], (INPUTS, OUTPUTS))


def finn(checkout: Path, folder: Path, bits: int) -> Unit:
    """FINN's matrix-vector unit (RTL) for the layer, 256 products in a cycle.

    At one bit both operands are -1 and 1, else activations are unsigned.

    Raises
    ------
    ConfigError
        If `checkout` holds no FINN_MatrixVector_RTL.
    """
    source = checkout / SOURCES
    found = [source / "mvau.sv", source / "mvau_control_block.sv",
             *sorted((source / "mvau_stream").rglob("*.sv"))]
    scripts = [source / f"gen_mvau_weight_mem{name}.py" for name in ("", "_merged")]
    for path in (*found, *scripts):
        if not path.is_file():
            raise ConfigError(f"{path}: is missing; --finn names a checkout of "
                              f"FINN_MatrixVector_RTL")
    folder.mkdir(parents=True, exist_ok=True)
    for path in found:
        shutil.copyfile(path, folder / path.name)
    depth = INPUTS // FOLDED
    # Element p has the output p; the operand 0 of a step is highest in its word.
    words = weights(bits).T.reshape(OUTPUTS, depth, FOLDED)
    words = (words > 0) if bits == 1 else words & (2**bits - 1)
    for element, rows in enumerate(words.tolist()):
        lines = [f"{sum(int(each) << bits * n for n, each in enumerate(reversed(row))):x}\n"
                 for row in rows]
        (folder / f"weight_mem{element}.mem").write_text("".join(lines))
    code = (f"from gen_mvau_weight_mem import gen_mvau_weight_mem as each; "
            f"from gen_mvau_weight_mem_merged import gen_mvau_weight_mem_merged as top; "
            f"top({FOLDED}); [each(n) for n in range({FOLDED})]")
    done = subprocess.run([sys.executable, "-B", "-c",
                           f"import sys; sys.path.insert(0, {str(source.resolve())!r}); {code}"],
                          cwd=folder, check=False, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{source}: its generator failed: "
                           f"{done.stderr.strip().splitlines()[-1]:.160}")
    files = [path.name for path in found] + ["mvau_weight_mem_merged.sv"] + [
        f"mvau_weight_mem{n}.sv" for n in range(FOLDED)]
    binary = int(bits == 1)
    parameters = {
        "KDim": 3, "IFMCh": 16, "OFMCh": OUTPUTS, "IFMDim": 3, "MatrixW": INPUTS,
        "MatrixH": OUTPUTS, "SIMD": FOLDED, "PE": FOLDED, "WMEM_DEPTH": depth, "TSrcI": bits,
        "TSrcI_BIN": binary, "TI": FOLDED * bits, "TW": bits, "TW_BIN": binary,
        "TDstI": SUM_BITS[bits], "TO": FOLDED * SUM_BITS[bits], "TA": SUM_BITS[bits],
        "OP_SGN": 0 if binary else 2}
    said = " ".join(f"-G {name}={value}" for name, value in parameters.items())
    _elaborate(folder, "mvau", f"read_slang --top mvau {said} {' '.join(files)}")
    return Unit(FINN, bits, FOLDED * FOLDED, folder, "mvau", ("mvau.il",),
                ("aclk", "aresetn"), tuple(PLACERS))


def has_alkaid() -> bool:
    """Whether the package is installed."""
    return find_spec("alkaid") is not None


def alkaid(folder: Path, bits: int) -> Unit:
    """The layer hard-wired by alkaid: all 2,304 products in a cycle, activations unsigned."""
    from alkaid.codegen.rtl import RTLModel
    from alkaid.trace import FVArrayInput, trace
    from alkaid.trace.ops import quantize
    shutil.rmtree(folder / "src", ignore_errors=True)
    inputs = FVArrayInput((INPUTS,))
    sums = quantize(inputs, 0, bits, 0) @ weights(bits).astype(float)
    RTLModel(trace(inputs, sums), folder, "vmodel", latency_cutoff=CUTOFF[bits]).write()
    files = sorted(str(path.relative_to(folder)) for path in (folder / "src").rglob("*.v"))
    _elaborate(folder, "vmodel", f"read_verilog -defer {' '.join(files)}")
    return Unit(ALKAID, bits, INPUTS * OUTPUTS, folder, "vmodel", ("vmodel.il",),
                ("clk", "rst"), tuple(PLACERS))


def _elaborate(folder: Path, top: str, read: str):
    """Writes `folder/top.il`, from which a circuit is mapped: the same for the same sources."""
    try:
        run_yosys(f"{read}\nhierarchy -check -top {top}\nwrite_rtlil {top}.il", folder)
    except YosysError as error:
        path = folder / "read.log"
        path.write_text(error.log)
        raise RuntimeError(f"Yosys failed: {error.reason}; all of it is in {path}") from error


def measure(unit: Unit, seeds: list[int], limit: float, say=print) -> dict:
    """Area and clock of a circuit on an LFE5U-85F, speed 6.

    Keys: unit, bits, macs, comb, ff, block_ram, fmax_mhz, placer, clocks (by placer, those of the
    seeds), critical_path. The clock is the median of the seeds, with that of the unit's placers
    which is better for it. What was measured before of the same netlist is not run again. Takes
    seconds to minutes for each seed and placer; `say` gets a line for each.
    """
    module = map_netlist(unit.folder, DEVICE, unit.top, unit.sources)
    found = {}
    for placer in unit.placers:
        folder = unit.folder / placer
        folder.mkdir(exist_ok=True)
        timed = f"{module['attributes'][DIGEST]} {DEVICE.name} {GRADE}"
        for line, timing in route(module, folder, DEVICE, PLACERS[placer], timed, seeds, limit,
                                  unit.pins):
            say(f"{unit.name}, {unit.bits} bit, {placer}: {line}")
            write_whole(folder / "report.json", json.dumps({"timing": timing}, indent=1).encode())
            found[placer] = timing
    placer = max(found, key=lambda name: found[name]["fmax_mhz"])
    return row(unit.name, unit.bits, unit.macs, found[placer]) | {
        "placer": placer,
        "clocks": {name: [run["fmax_mhz"] for run in timing["runs"]]
                   for name, timing in found.items()}}


def row(unit: str, bits: int, macs: int, timing: dict) -> dict:
    """What a timing of place and route says of a circuit with so many products in a cycle."""
    used = {site: number["used"] for site, number in timing["utilization"].items()}
    return {"unit": unit, "bits": bits, "macs": macs, "comb": used["TRELLIS_COMB"],
            "ff": used.get("TRELLIS_FF", 0), "block_ram": used.get("DP16KD", 0),
            "fmax_mhz": timing["fmax_mhz"], "critical_path": timing["critical_path"]}
