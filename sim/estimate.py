"""What a design takes, as tables, from its configuration alone."""

from rich.table import Table

from export.area import estimate
from export.config import Config
from export.cost import Cost


def tables(config: Config) -> list[Table]:
    """Cycles and weight bits by operation; then bits, speed and area."""
    cost = Cost.of(config)
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
    totals = Table("", "", show_header=False, title="totals", title_justify="left")
    totals.columns[1].justify = "right"
    clock = config.target.clock_mhz
    totals.add_row("cycles per frame", f"{cost.frame_cycles:,}")
    totals.add_row(f"frames per second at {clock:g} MHz", f"{clock * 1e6 / cost.frame_period:,.1f}")
    for name, bits in cost.stored_bits.items():
        totals.add_row(f"stored bits: {name}", f"{bits:,}")
    totals.add_row("stored bits", f"{cost.total_bits:,}")
    for name, bits in cost.memory_bits.items():
        totals.add_row(f"memory bits: {name}", f"{bits:,}")
    area = estimate(cost.hardware, config.target.family)
    for name, label in (("lut4", "LUT4 and two per carry cell"), ("ff", "registers"),
                        ("block_ram", "block RAMs")):
        totals.add_row(f"{area.device}: {label}, about", f"{area.cells[name]:,}")
    totals.caption = area.error
    return [layers, totals]
