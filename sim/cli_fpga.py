"""The commands of :mod:`sim.cli` that map, place and time engines, and compare them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from export.checked import ConfigError
from sim.options import Design, Folder, seed_list

app = typer.Typer()


@app.command()
def synth(config: Design, output: Folder = None):
    """Maps a generated engine with Yosys and writes report.json: area, cycles, stored bits."""
    from rich.console import Console

    from export.config import load_config
    from hw.synth import report, show
    design = load_config(config)
    folder, console = output or Path("build") / design.name, Console()
    with console.status("Yosys maps the engine ..."):
        result = report(design, folder)
    _write_report(folder, result)
    show(result, console)
    if not result["fits"] or result["dsp"]:
        raise typer.Exit(1)


def _write_report(folder: Path, result: dict):
    from export.file import write_whole
    write_whole(folder / "report.json", (json.dumps(result, indent=1) + "\n").encode())


@app.command()
def pnr(config: Design, output: Folder = None,
        seeds: Annotated[str, typer.Option(
            help="of the placement; the clock is the median, the lower of two")] = "1 2 3",
        limit: Annotated[float, typer.Option(
            min=0.01, help="minutes for each seed; what takes longer is left out")] = 60):
    """Places and routes a generated engine with nextpnr: its clock, and what limits it.

    Puts both into report.json, whose frames per second follow from that clock.
    """
    from rich.console import Console

    from export.config import load_config
    from hw.devices import DEVICES
    from hw.pnr import place_and_route, require
    from hw.synth import report, show, speed
    numbers = seed_list(seeds, "--seeds")
    design = load_config(config)
    folder, console = output or Path("build") / design.name, Console()
    require(DEVICES[design.target.part])
    with console.status("Yosys maps the engine, unless it has ..."):
        result = report(design, folder)
    _write_report(folder, result)
    if result["fits"]:
        with console.status("nextpnr places and routes, some minutes for each seed ..."):
            for line, timing in place_and_route(design, folder, numbers, limit):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
                result |= speed(result["frame_period"], timing)
                _write_report(folder, result)
    show(result, console)
    if not result["fits"] or result["dsp"]:
        raise typer.Exit(1)


@app.command()
def report(designs: Annotated[list[Path], typer.Argument(help="designs that `synth` mapped")],
           clock: Annotated[bool, typer.Option("--clock", help="what `pnr` measured")] = False):
    """Prints a table of what `synth` or `pnr` reported of designs, in Markdown."""
    from export.config import load_config
    from sim.report import clocks, table
    folders = [Path("build") / load_config(design).name for design in designs]
    typer.echo((clocks if clock else table)(folders))


@app.command()
def bench(config: Annotated[Path | None, typer.Argument(
        help="design whose sizes to take; else four words and 14 bits")] = None):
    """Prints what one processing element costs, for each set of precisions."""
    from rich.console import Console

    from export.config import load_config
    from export.cost import Cost
    from hw.bench import table
    words, acc_bits = 4, 14
    if config:
        hardware = Cost.of(load_config(config)).hardware
        words, acc_bits = hardware.array.words, hardware.acc_bits
    with Console().status("Yosys maps ten processing elements ..."):
        result = table(words, acc_bits)
    Console().print(result)


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
