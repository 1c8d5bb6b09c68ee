"""`hexlane`: one command for all that is done with a design.

What is heavy to import, or may not be installed, is imported by the command that needs it.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

# Work is spread over the cores here. Threads of the matrix products would spin for each other
# besides, which on a busy machine took thirty times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from export.checked import MESSAGE, ConfigError
from sim import cli_board, cli_codec, cli_fpga, cli_load, cli_train
from sim.options import Design, Folder, Seed, Weights, load_design, load_machine

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True,
                  help="Hardware generator for very-low-bit convolutional networks.")
app.add_typer(cli_fpga.app)
app.add_typer(cli_train.app)
app.add_typer(cli_load.app)
app.add_typer(cli_codec.app)
app.add_typer(cli_board.app, name="board")
EXTRA = {"torch": "train", "pytorch_msssim": "train", "tensorboard": "train", "matplotlib": "train",
         "pycocotools": "train",
         "serial": "board"}  # what pip installs with hexlane[...]


def main(arguments: list[str] | None = None):
    """Runs a command and exits: with 0; 2 and one line for bad input; 1 if a tool or result fails.

    Takes the arguments of the process if none are given.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        # Typer's own handling would draw a box around what was wrong with the arguments.
        code = app(arguments, standalone_mode=False)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in EXTRA:
            raise
        print(f"error: hexlane {arguments[0]} needs {package}: "
              f"pip install 'hexlane[{EXTRA[package]}]'", file=sys.stderr)
        raise SystemExit(2) from None
    except (ConfigError, OSError, UnicodeError, RecursionError, MemoryError) as error:
        _refuse(str(error) or type(error).__name__)
    except typer.Abort as error:  # what typer makes of an input that ends
        print(f"error: {str(error.__cause__ or '') or 'the input ended'}", file=sys.stderr)
        raise SystemExit(1) from None
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except Exception as error:
        if not hasattr(error, "format_message"):  # what all of typer's refusals have
            raise
        if not error.format_message():  # no command was named, and typer has printed the help
            raise SystemExit(2) from None
        _refuse(error.format_message())
    raise SystemExit(code or 0)


def _refuse(text: str):
    line = "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))
    print(f"error: {line[:MESSAGE]}", file=sys.stderr)
    raise SystemExit(2) from None


def _generate(config: Path, weights: str | None, seed: int, output: Path | None, top: str,
              networks: Sequence[Path] = (), bus: str = "stream", **changes):
    """The configuration, the folder, what engine.json says, and what the machine is made of."""
    from hw.generate import generate_machine, up_to_date
    design, machine = load_machine(config, weights, seed, [*networks], {
        name: value for name, value in changes.items() if value is not None})
    folder = output or Path("build") / design.name
    facts = (up_to_date(design, machine, folder, top, bus)
             or generate_machine(design, machine, folder, top, bus))
    return design, folder, facts, machine


@app.command()
def generate(config: Annotated[Path | None, typer.Argument(
        help="design, a TOML file; default: the first --network", show_default=False)] = None,
             output: Folder = None, weights: Weights = None, seed: Seed = 1,
             network: Annotated[list[Path] | None, typer.Option(
                 help="another design whose network the machine runs too; may be repeated")]
             = None,
             memory: Annotated[Literal["rom", "ram"] | None, typer.Option(
                 help="of programs; ram is loaded while the machine runs")] = None,
             hold: Annotated[int | None, typer.Option(
                 min=1, help="programs that ram holds at once; default: all")] = None,
             slots: Annotated[int | None, typer.Option(
                 min=1, help="programs that ram has records for, if more")] = None,
             bus: Annotated[Literal["stream", "axi"], typer.Option(
                 help="ports: plain streams, or AXI4-Stream and AXI4-Lite with registers")]
             = "stream",
             top: Annotated[str, typer.Option(help="name of the top module")] = "engine"):
    """Writes engine.v and what belongs to it, unless it is up to date."""
    first, *others = [*([config] if config else []), *(network or [])] or [None]
    if first is None:
        raise ConfigError("generate: wanted a design, or --network, got neither")
    _, folder, facts, _ = _generate(first, weights, seed, output, top, others, bus,
                                    memory=memory, hold=hold, slots=slots)
    for program in facts["programs"]:
        _show_program(folder, program)


def _show_program(folder: Path, facts: dict):
    width = max(len(layer["name"]) for layer in facts["layers"])
    for layer in facts["layers"]:
        typer.echo(f"{layer['name']:{width}}  {layer['word_bits']} bit  "
                   f"{layer['weight_bits']:>9,} bits  "
                   f"{layer['cycles']:>9,} cycles  array use {layer['array_use']:.1%}")
    typer.echo(f"{folder}: {facts['name']}: {facts['cycles_per_frame']:,} cycles per frame, "
               f"{facts['total_bits']:,} bits stored (weights {facts['weight_bits']:,}, biases "
               f"{facts['bias_bits']:,}, program {facts['program_bits']:,}, seeds "
               f"{facts['seed_bits']:,})")


@app.command()
def estimate(config: Design,
             arrays: Annotated[str | None, typer.Option(
                 help="sizes of the array to compare instead, ROWSxCOLUMNSxWORDS, such as "
                      "'8x8x2 16x8x4'")] = None):
    """Prints cycles, stored bits, memories and estimated area, from the configuration alone."""
    import re

    from rich.console import Console

    from export.build import with_networks
    from export.config import load_config
    from sim import estimate
    designs = with_networks(load_config(config))
    if arrays is None:
        tables = estimate.tables(designs)
    else:
        sizes = arrays.split()
        if not sizes or not all(re.fullmatch(r"\d{1,3}x\d{1,3}x\d{1,3}", each, re.ASCII)
                                for each in sizes):
            raise ConfigError(f"--arrays must be sizes such as '8x8x2 16x8x4', not {arrays!r:.60}")
        tables = [estimate.arrays(designs, [tuple(map(int, each.split("x"))) for each in sizes])]
    for table in tables:
        Console().print(table)


@app.command()
def simulate(config: Design, output: Folder = None, weights: Weights = None, seed: Seed = 1,
             frames: Annotated[int, typer.Option(min=1, max=1000, help="random images; of clips "
                 "as many at least as give a result")] = 2,
             images: Annotated[Path | None, typer.Option(help="folder of PNG images, instead")]
             = None,
             simulator: Annotated[Literal["verilator", "icarus"], typer.Option(
                 help="icarus knows a fourth state")] = "verilator",
             gaps: Annotated[int, typer.Option(min=0, max=10_000,
                                               help="longest random pause at the ports")] = 0,
             waves: Annotated[bool, typer.Option("--waves", help="leave a waveform")] = False):
    """Runs frames through the Verilog and compares every code of every layer."""
    from export.cost import Cost
    from sim import golden
    from sim.demo import load_photos
    from sim.samples import random_images
    from sim.verilog import Job, clip_jobs, run_jobs
    from sim.waves import write_lists
    _, folder, _, machine = _generate(config, weights, seed, output, "engine")
    if machine.held < len(machine.programs):
        raise ConfigError(f"{config}: to be simulated, the machine must hold all of its networks "
                          f"from the start, with weights")
    jobs, traces, times = [], [], []
    for number, (program, network) in enumerate(zip(machine.programs, machine.networks,
                                                    strict=True)):
        shape = program.config.network
        pixels = (load_photos(images, program.config)[1] if images
                  else random_images(shape, max(frames, shape.period), seed))
        if len(pixels) < shape.period:
            raise ConfigError(f"{images}: must have the {shape.period} images at least that "
                              f"{program.config.name} gives a result of, not {len(pixels)}")
        if shape.timed:  # the frames of a clip, twice
            traces += [(trace, 0) for trace in golden.frame_traces(network, [pixels, pixels])]
            jobs += clip_jobs(program, [pixels, pixels], number)
            times += [*range(len(pixels))] * 2
            continue
        times += [0] * len(pixels)
        trace = golden.run(network, pixels)
        traces += [(trace, n) for n in range(len(pixels))]
        jobs += [Job(program=program, image=image, number=number) for image in pixels]
    build = folder / ("waves" if waves else "sim")
    found = run_jobs(machine.hardware, folder, jobs, simulator=simulator, gaps=gaps, seed=seed,
                     strict=simulator == "icarus", waves=waves, build=build, progress=True)
    if waves:
        wave = write_lists(build, simulator, folder / "engine.v")
        typer.echo(f"{wave}: open it with signals.gtkw (GTKWave) or signals.sucl (Surfer)")
    for n, (trace, m) in enumerate(traces):
        if difference := found.difference(n, trace, m):
            raise RuntimeError(f"{folder}: {difference}")
    for number, program in enumerate(machine.programs):
        cost = Cost(program, machine.hardware)
        for t in sorted(set(times)):  # of a clip
            cycles = sorted({sum(each) for each, job, at in
                             zip(found.cycles, jobs, times, strict=True)
                             if (job.number, at) == (number, t)})
            wanted = cost.cycles_at(t) if program.config.network.timed else cost.frame_cycles
            # The last operation waits until the result before it has left.
            if cycles and cycles[0] != wanted and not (gaps and cycles[0] > wanted):
                raise RuntimeError(f"{folder}: {program.config.name}: frames take {cycles} cycles, "
                                   f"computed {wanted}")
        count = sum(job.number == number for job in jobs)
        each = "at most" if program.config.network.timed else "each"
        typer.echo(f"{folder}: {program.config.name}: {count} frames equal to the golden model in "
                   f"every layer, {cost.frame_cycles:,} cycles {each}, in {simulator}")


@app.command()
def lint(designs: Annotated[list[Path], typer.Argument(
        help="designs, which are generated, or folders of generated ones")],
         weights: Weights = None, seed: Seed = 1):
    """Checks generated Verilog with Verilator and Yosys."""
    from hw.tools import lint as check
    for design in designs:
        folder = design if design.is_dir() else _generate(design, weights, seed, None, "engine")[1]
        check(folder)
        typer.echo(f"{folder}: clean")


@app.command()
def demo(config: Design, weights: Weights = None, seed: Seed = 1, output: Folder = None,
         photos: Annotated[Path | None, typer.Option(help="folder of PNG images")] = None,
         encoder: Annotated[Path | None, typer.Option(
             help="another design, which compresses photographs of any size on the same machine")]
         = None):
    """Classifies photographs with generated Verilog and compares every layer.

    With --encoder both programs are loaded into one machine of RAM, which classifies each
    photograph, then compresses it. A network that finds boxes gets five test images of
    HEXLANE_BOXES, and draws what it finds. One that reads clips gets five test clips, and makes
    moving pictures.
    """
    from rich.console import Console

    from sim.demo import PHOTOS
    from sim.demo import demo as run
    from sim.detect_demo import detect_demo
    from sim.tasks_demo import tasks_demo
    design, network, _ = load_design(config, weights, seed, needs="demo")
    folder = output or Path("build") / design.name
    if encoder:
        other, made, _ = load_design(encoder, "random" if weights == "random" else None, seed)
        folder = output or Path("build") / f"{design.name}_{other.name}"
        same = tasks_demo([design, other], [network, made], photos or PHOTOS, folder, Console())
    elif design.network.output == "map":
        same = detect_demo(design, network, folder, Console())
    elif design.network.timed:
        from sim.clip_demo import clip_demo
        same = clip_demo(design, network, folder, Console())
    else:
        same = run(design, network, photos or PHOTOS, folder, Console())
    if not same:
        raise typer.Exit(1)


@app.command()
def evaluate(config: Design, weights: Weights = None, seed: Seed = 1,
             split: Annotated[Literal["test", "validation"], typer.Option(
                 help="images to use")] = "test",
             limit: Annotated[int | None, typer.Option(
                 min=1, help="only so many images; nothing is written then")] = None,
             output: Folder = None,
             record: Annotated[bool, typer.Option(
                 "--record", help="keep the result with the weights; reports take it from "
                                  "there")] = False):
    """Measures the integer network with the golden model: accuracy, or precision of boxes."""
    import json
    import time
    from dataclasses import replace

    from export.cost import Cost
    from export.file import save_network, save_record, write_whole
    from sim.evaluate import accuracy, average_precision, clip_accuracy, shown
    if record and (limit or weights == "random"):
        raise ConfigError("--record keeps the result of all images with weights from a file: it "
                          "goes with neither --limit nor random weights")
    design, network, path = load_design(config, weights, seed, needs="evaluate")
    cost, start = Cost.of(design), time.perf_counter()
    if design.network.timed:
        result = clip_accuracy(design, network, split, limit)
    else:
        measure = average_precision if design.network.output == "map" else accuracy
        result = measure(network, split, limit)
    typer.echo(f"{split}: {result['images']} images, {shown(result)}, "
               f"{cost.total_bits:,} bits stored, {time.perf_counter() - start:.1f} s")
    if limit is None and path:
        text = json.dumps(result | {"digest": network.digest}, indent=1) + "\n"
        write_whole((output or Path("build") / design.name) / "accuracy.json", text.encode())
    if record:
        network = replace(network, record=network.record | {"measured": result})
        save_network(network, path)
        save_record(network, path)


@app.command()
def automaton(size: Annotated[int, typer.Option(min=8, max=512)] = 144,
              rules: Annotated[str, typer.Option()] = "22 30 45 54 60 90 105 106 110 150"):
    """Compares rules and mappings of generated weights with random ones."""
    from rich.console import Console
    from rich.table import Table

    from export.automaton import survey
    numbers = rules.split()
    if not numbers or not all(each.isdecimal() and len(each) <= 3 and int(each) <= 255
                              for each in numbers):
        raise ConfigError(f"--rules must be numbers from 0 to 255, not {rules!r:.60}")
    table = Table(title=f"{size} x {size} weights in blocks of 8 x 8")
    for column in ("mapping", "rule", "zeros", "positive", "likeness of rows", "rank"):
        table.add_column(column, justify="right")
    for mapping, rule, zeros, positive, alike, rank in survey(size, [*map(int, numbers)]):
        table.add_row(mapping, "random" if rule is None else str(rule), f"{zeros:.2f}",
                      f"{positive:.2f}", f"{alike:.3f}", f"{rank:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
