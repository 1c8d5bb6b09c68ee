"""What one processing element costs, for each set of precisions."""

from importlib.metadata import version
from pathlib import Path

from rich.table import Table

from export.words import operands
from hw.devices import DEVICES
from hw.pe import ProcessingElement
from hw.synth import map_netlist, sizes
from hw.verilog import write_verilog

SETS = [(1, 2, 3), (1, 2), (3,), (2,), (1,)]
DEVICE = DEVICES["LFE5U-85F"]
BUILD = Path("build/bench")


def cost(pe: ProcessingElement) -> dict[str, int]:
    """Cells of one processing element; `total` is LUT4 and two for each carry cell."""
    write_verilog(pe, BUILD, "pe")
    cells = sizes(map_netlist(BUILD, DEVICE, "pe"), DEVICE)
    return {**cells, "total": cells["lut4"] + 2 * cells["carry"]}


def table(words: int, acc_bits: int) -> Table:
    """A row for each set of precisions."""
    result = Table(title=f"One processing element, {words} words, {acc_bits} accumulator bits",
                   caption=f"Yosys {version('pyosys')}: {DEVICE.command}. The total is LUT4 and "
                           f"two per carry cell; in brackets: for codes only, without pixels.")
    result.add_column("precisions")
    for name in ("LUT4", "carry", "FF", "total", "per 1b MAC", "2b", "3b"):
        result.add_column(name, justify="right")
    for precisions in SETS:
        sizes = {"words": words, "precisions": precisions, "acc_bits": acc_bits}
        pe = cost(ProcessingElement(horner=True, **sizes))
        plain = cost(ProcessingElement(horner=False, **sizes))
        result.add_row(
            ", ".join(map(str, precisions)),
            *(str(pe[cell]) for cell in ("lut4", "carry", "ff")),
            f"{pe['total']} ({plain['total']})",
            *(f"{pe['total'] / operands(mode, words):.1f}" if mode in precisions else ""
              for mode in (1, 2, 3)))
    return result
