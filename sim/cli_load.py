"""The commands of :mod:`sim.cli` that make program images and load them."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sim.options import Design, Seed, Weights, load_design

app = typer.Typer()
MachineFile = Annotated[Path, typer.Option(
    "-m", "--machine", help="engine.json of the machine, as generate writes it")]


@app.command()
def image(config: Design, machine: MachineFile, weights: Weights = None, seed: Seed = 1,
          output: Annotated[Path | None, typer.Option(
              "-o", "--output", help="default: build/NAME/NAME.hxi")] = None):
    """Writes a network as a program image for a machine with memory 'ram'."""
    from export.image import build_image
    from export.machine import Machine
    design, network, _ = load_design(config, weights, seed, needs="image")
    made = build_image(Machine.load(machine), design, network)
    path = output or Path("build") / design.name / f"{design.name}.hxi"
    made.save(path)
    typer.echo(f"{path}: {len(made.words):,} words, network {made.program[:16]}, "
               f"machine {made.machine[:16]}")


@app.command()
def load(images: Annotated[list[Path], typer.Argument(help="program images, NAME.hxi",
                                                      show_default=False)],
         machine: MachineFile,
         slot: Annotated[int, typer.Option(min=0, help="of the first one; the others follow")] = 0,
         output: Annotated[Path | None, typer.Option(
             "-o", "--output", help="file for the writes to the load window, one 'ADDRESS WORD' "
                                    "in hex per line")] = None):
    """Checks program images against a machine and places them beside each other."""
    from rich.console import Console
    from rich.table import Table

    from export.file import write_whole
    from export.image import Image
    from export.loader import load_list
    from export.machine import Machine
    target = Machine.load(machine)
    loader, writes = load_list(target, [Image.load(path) for path in images], slot)
    table = Table(title=f"machine {target.hash[:16]}")
    for column in ("section", "bits of a row", "rows", "free"):
        table.add_column(column, justify="left" if column == "section" else "right")
    programs = loader.programs
    for number in programs:
        table.add_column(f"slot {number}", justify="right")
    for section in target.contents:
        rows = [placed.rows(section.name) for placed in programs.values()]
        free = section.rows - sum(map(len, rows))
        table.add_row(section.name, *(f"{n:,}" for n in (section.width, section.rows, free)),
                      *(f"{each.start} ... {each.stop - 1}" if each else "" for each in rows))
    # What is no terminal has room for all columns.
    narrow = sys.stdout and sys.stdout.isatty()
    Console(width=None if narrow else 30 * (len(programs) + 4)).print(table)
    for number, placed in programs.items():
        header = placed.image.header
        frame, out = header.frame, header.output
        gives = f"one of {header.classes} classes" if out.kind == "class" else (
            f"{out.channels} x {out.height} x {out.width} {out.kind} of {out.bits} bits")
        typer.echo(f"slot {number}: {header.name}, network {placed.image.program[:16]}: "
                   f"{frame.channels} x {frame.height} x {frame.width} pixels give {gives}, "
                   f"{header.cycles:,} cycles")
    if output:
        lines = "".join(f"{address:08x} {word:08x}\n" for address, word in writes)
        write_whole(output, lines.encode())
        typer.echo(f"{output}: {len(writes):,} writes")
