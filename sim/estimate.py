"""What a design takes, as tables, from its configuration alone."""

from rich.table import Table

from export.area import estimate
from export.build import plan, with_networks
from export.config import Config
from export.cost import Cost


def tables(config: Config) -> list[Table]:
    """Of each network cycles and weight bits by operation; then bits, speed and area."""
    hardware, programs = plan(with_networks(config))
    costs = [Cost(program, hardware) for program in programs]
    return [*map(_operations, costs), _totals(config, costs)]


def _operations(cost: Cost) -> Table:
    name = cost.program.config.name
    table = Table(title=f"{name}: operations, bits of weights, use of the array",
                  title_justify="left")
    for column in ("operation", "words", "input", "channels", "weights", "cycles", "use"):
        table.add_column(column, justify="left" if column == "operation" else "right",
                         no_wrap=True)
    for layer in cost.program.layers:
        source = layer.source
        table.add_row(layer.name, f"{layer.mode} bit",
                      f"{source.channels}x{source.height}x{source.width}",
                      str(layer.channels), f"{cost.weight_bits(layer):,}",
                      f"{cost.layer_cycles(layer):,}", f"{cost.array_use(layer):.1%}")
    return table


def _totals(config: Config, costs: list[Cost]) -> Table:
    """A column for each network; what the machine has once stands in the first."""
    several = len(costs) > 1
    table = Table("", *(cost.program.config.name for cost in costs), show_header=several,
                  title="totals", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    clock = config.target.clock_mhz

    def row(label: str, value):
        table.add_row(label, *(f"{value(cost):,}" for cost in costs))

    row("cycles per frame", lambda cost: cost.frame_cycles)
    row(f"frames per second at {clock:g} MHz",
        lambda cost: round(clock * 1e6 / cost.frame_period, 1))
    for name in costs[0].stored_bits:
        row(f"stored bits: {name}", lambda cost, name=name: cost.stored_bits[name])
    row("stored bits", lambda cost: cost.total_bits)
    table.add_section()
    for name, bits in costs[0].memory_bits.items():
        table.add_row(f"memory bits: {name}", f"{bits:,}")
    area = estimate(costs[0].hardware, config.target.family)
    for name, label in (("lut4", "LUT4 and two per carry cell"), ("ff", "registers"),
                        ("block_ram", "block RAMs")):
        table.add_row(f"{area.device}: {label}, about", f"{area.cells[name]:,}")
    table.caption = area.error
    return table
