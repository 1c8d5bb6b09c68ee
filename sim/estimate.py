"""What a design takes, as tables, from its configuration alone."""

from collections.abc import Sequence

from rich.table import Table

from export.area import block_bits, estimate, memories
from export.build import size
from export.checked import parse
from export.config import ArrayConfig, Config
from export.cost import Cost
from export.hardware import Hardware
from export.words import operands


def tables(configs: Sequence[Config]) -> list[Table]:
    """Of each network on the machine of the first: cycles and weight bits by operation, totals.

    The last table has the machine's memories and area.
    """
    hardware, programs = size(configs)
    found = [table for program in programs
             for table in _program(program.config, Cost(program, hardware))]
    return [*found, _blocks(configs[0], hardware),
            _machine(configs[0], Cost(programs[0], hardware))]


def arrays(configs: Sequence[Config], sizes: Sequence[tuple[int, int, int]]) -> Table:
    """The design's machine with arrays of other rows, columns and words; cycles are those of its
    first network."""
    config = configs[0]
    family = config.target.family
    table = Table(title=f"{config.name} on arrays of other sizes", title_justify="left",
                  caption=f"MACs per cycle; cycles from frame to frame, and the array's use in "
                          f"them; cycles from first pixel to result; LUT4 and block RAMs are "
                          f"estimated for {family}")
    widest = max(config.array.precisions)
    for column in ("array", f"{widest}b MACs", "period", "use", "latency", "LUT4", "BRAM"):
        table.add_column(column, justify="left" if column == "array" else "right", no_wrap=True)
    for rows, columns, words in sizes:
        array = config.array.model_dump() | {"rows": rows, "columns": columns, "words": words}
        hardware, programs = size([config.model_copy(update={
            "array": parse(array, f"array {rows}x{columns}x{words}", ArrayConfig)}), *configs[1:]])
        cost, cells = Cost(programs[0], hardware), estimate(hardware, family).cells
        table.add_row(f"{rows}x{columns}x{words}", f"{rows * columns * operands(widest, words):,}",
                      f"{cost.frame_period:,}", f"{cost.frame_use:.1%}",
                      f"{cost.input_cycles + cost.frame_cycles:,}",
                      f"{cells['lut4']:,}", f"{cells['block_ram']:,}")
    return table


def _program(config: Config, cost: Cost) -> list[Table]:
    layers = Table(title=f"{config.name}: operations, bits of weights, use of the array",
                   title_justify="left")
    for column in ("operation", "words", "input", "channels", "weights", "cycles", "use"):
        layers.add_column(column, justify="left" if column == "operation" else "right",
                          no_wrap=True)
    for layer in cost.program.layers:
        source = layer.source
        layers.add_row(layer.name, f"{layer.mode} bit",
                       f"{source.channels}x{source.height}x{source.width}",
                       str(layer.channels), f"{cost.weight_bits(layer):,}",
                       f"{cost.layer_cycles(layer):,}", f"{cost.array_use(layer):.1%}")
    totals = _pairs(f"{config.name}: totals")
    if config.network.timed:
        totals.add_row(f"cycles per frame, of {config.network.period} on average",
                       f"{cost.frame_period:,}")
        totals.add_row("cycles of a frame with a result", f"{cost.frame_cycles:,}")
    else:
        totals.add_row("cycles per frame", f"{cost.frame_cycles:,}")
        totals.add_row("cycles from frame to frame", f"{cost.frame_period:,}")
    for name, bits in cost.stored_bits.items():
        totals.add_row(f"stored bits: {name}", f"{bits:,}")
    totals.add_row("stored bits", f"{cost.total_bits:,}")
    return [layers, totals]


def _blocks(config: Config, hardware: Hardware) -> Table:
    """What each kind of memory uses of the block RAMs that it takes."""
    family = config.target.family
    table = Table(title=f"memories, estimated for {family}", title_justify="left",
                  caption="what takes no block RAM is in LUTs")
    for column in ("memory", "bits", "block RAMs", "used of them"):
        table.add_column(column, justify="left" if column == "memory" else "right", no_wrap=True)
    found = memories(hardware, family)
    for name in dict.fromkeys(each.name for each in found):
        kind = [each for each in found if each.name == name]
        bits, blocks = (sum(getattr(each, what) for each in kind) for what in ("bits", "blocks"))
        inside = sum(each.bits for each in kind if each.blocks)
        table.add_row(name, f"{bits:,}", f"{blocks:,}",
                      f"{inside / blocks / block_bits(family):.1%}" if blocks else "")
    return table


def _machine(config: Config, cost: Cost) -> Table:
    totals = _pairs(f"machine, programs in {cost.hardware.memory.upper()}: "
                    f"{cost.hardware.programs}")
    for name, bits in cost.memory_bits.items():
        totals.add_row(f"memory bits: {name}", f"{bits:,}")
    area = estimate(cost.hardware, config.target.family)
    logic = "LUT4 and two per carry cell" if config.target.family == "ecp5" else "logic cells"
    for name, label in (("lut4", logic), ("ff", "registers"),
                        ("block_ram", "block RAMs")):
        totals.add_row(f"{config.target.part}: {label}, about", f"{area.cells[name]:,}")
    totals.caption = area.error
    return totals


def _pairs(title: str) -> Table:
    table = Table("", "", show_header=False, title=title, title_justify="left")
    table.columns[1].justify = "right"
    return table
