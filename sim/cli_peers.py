"""The command of :mod:`sim.cli` that compares engines with other generators' circuits."""

from pathlib import Path
from typing import Annotated

import typer

from export.checked import ConfigError
from sim.options import seed_list

app = typer.Typer()


@app.command()
def peers(designs: Annotated[list[Path] | None, typer.Argument(
              help="designs that `pnr` has timed, to compare too")] = None,
          finn: Annotated[Path | None, typer.Option(
              envvar="HEXLANE_FINN", help="checkout of FINN_MatrixVector_RTL",
              show_default=False)] = None,
          output: Annotated[Path, typer.Option("-o", "--output", help="folder")]
          = Path("build/peers"),
          seeds: Annotated[str, typer.Option(
              help="of the peers' placements; a clock is the median, the lower of two")] = "1 2 3",
          engine_seeds: Annotated[str, typer.Option(
              help="of the engines of one precision, minutes each")] = "1",
          limit: Annotated[float, typer.Option(
              min=0.01, help="minutes for each seed; what takes longer is left out")] = 60):
    """Compares engines with FINN's and alkaid's circuits of the same precision, placed and routed.

    Maps FINN's matrix-vector unit, a layer that alkaid hard-wires, and engines of one, two and
    three bits only in the same way, and prints area, clock and products per LUT4.
    """
    from export.config import load_config
    from hw.peers import DEVICE
    from hw.pnr import require
    from sim.peers import CAVEATS, compare, table
    if finn is None:
        raise ConfigError("peers: wanted --finn or HEXLANE_FINN, a checkout of "
                          "FINN_MatrixVector_RTL")
    numbers = seed_list(seeds, "--seeds"), seed_list(engine_seeds, "--engine-seeds")
    require(DEVICE)
    rows = compare([load_config(each) for each in designs or ()], finn, output, *numbers, limit,
                   typer.echo)
    typer.echo(table(rows))
    typer.echo("\nNot equivalent:")
    for line in CAVEATS:
        typer.echo(f"* {line}")
