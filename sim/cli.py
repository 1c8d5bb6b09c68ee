"""`hexlane`: one command for all that is done with a design.

What is heavy to import, or may not be installed, is imported by the command that needs it.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

# Work is spread over the cores here. Threads of the matrix products would spin for each other
# besides, which on a busy machine took thirty times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from export.checked import MESSAGE, ConfigError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True,
                  help="Hardware generator for very-low-bit convolutional networks.")

Design = Annotated[Path, typer.Argument(help="design, a TOML file", show_default=False)]
Weights = Annotated[str | None, typer.Option(
    help="integer network, a .npz file, or 'random'; default: weights/NAME.npz here, beside the "
         "design, or in ../weights of its folder")]
Seed = Annotated[int, typer.Option(min=0, help="of random weights and images")]
Folder = Annotated[Path | None, typer.Option("-o", "--output", help="folder; default: build/NAME")]
Device = Annotated[str, typer.Option(help="cpu or cuda; default: cuda if there is one")]


def main(arguments: list[str] | None = None):
    """Runs a command; exit code 2 and one line for bad input, 1 for a tool or a result that fails.

    Takes the arguments of the process if none are given.
    """
    try:
        app(arguments)
    except (ConfigError, OSError, UnicodeError, RecursionError, MemoryError) as error:
        line = " ".join(str(error).split()) or type(error).__name__
        print(f"error: {line[:MESSAGE]}", file=sys.stderr)
        raise SystemExit(2) from None
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def load_design(config: Path, weights: str | None, seed: int = 1):
    """A configuration, its network, and the file that the network came from (None: random)."""
    from export.config import load_config
    from export.file import load_network
    design = load_config(config)
    if weights == "random":
        from sim.samples import random_network
        return design, random_network(design.network, seed), None
    name = f"{design.name}.npz"
    places = [Path("weights") / name, config.parent / name, config.parent.parent / "weights" / name]
    path = Path(weights) if weights else next((p for p in places if p.is_file()), places[0])
    if not weights and not path.is_file():
        raise ConfigError(f"{path}: no such file; train the network, name one with --weights, or "
                          f"take --weights random")
    network = load_network(path)
    if network.config != design.network:
        raise ConfigError(f"{path}: is of another network than {config}")
    return design, network, path


def _model(name: str):
    """A module that needs torch."""
    try:
        return import_module(f"model.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(f"this command needs {error.name}: pip install 'hexlane[train]'"
                          ) from error


def _generate(config: Path, weights: str | None, seed: int, output: Path | None, top: str):
    from hw.generate import generate, up_to_date
    design, network, _ = load_design(config, weights, seed)
    folder = output or Path("build") / design.name
    facts = up_to_date(design, network, folder, top)
    return design, network, folder, facts or generate(design, network, folder, top=top)


@app.command()
def generate(config: Design, output: Folder = None, weights: Weights = None, seed: Seed = 1,
             top: Annotated[str, typer.Option(help="name of the top module")] = "engine"):
    """Writes engine.v, its memory files and engine.json, unless they are up to date."""
    *_, folder, facts = _generate(config, weights, seed, output, top)
    width = max(len(layer["name"]) for layer in facts["layers"])
    for layer in facts["layers"]:
        typer.echo(f"{layer['name']:{width}}  {layer['word_bits']} bit  "
                   f"{layer['weight_bits']:>9,} bits  "
                   f"{layer['cycles']:>9,} cycles  array use {layer['array_use']:.1%}")
    typer.echo(f"{folder}: {facts['cycles_per_frame']:,} cycles per frame, "
               f"{facts['total_bits']:,} bits stored (weights {facts['weight_bits']:,}, biases "
               f"{facts['bias_bits']:,}, program {facts['program_bits']:,}, seeds "
               f"{facts['seed_bits']:,})")


@app.command()
def estimate(config: Design):
    """Prints cycles, stored bits, memories and estimated area, from the configuration alone."""
    from rich.console import Console

    from export.config import load_config
    from sim.estimate import tables
    for table in tables(load_config(config)):
        Console().print(table)


@app.command()
def simulate(config: Design, output: Folder = None, weights: Weights = None, seed: Seed = 1,
             frames: Annotated[int, typer.Option(min=1, max=1000, help="random images")] = 2,
             images: Annotated[Path | None, typer.Option(help="folder of PNG images, instead")]
             = None,
             simulator: Annotated[Literal["verilator", "icarus"], typer.Option(
                 help="icarus knows a fourth state")] = "verilator",
             gaps: Annotated[int, typer.Option(min=0, help="longest random pause at the ports")]
             = 0,
             waves: Annotated[bool, typer.Option("--waves", help="leave a waveform")] = False):
    """Runs frames through the Verilog and compares every code of every layer."""
    from export.cost import Cost
    from sim import golden
    from sim.demo import load_photos
    from sim.samples import random_images
    from sim.verilog import run_frames
    from sim.waves import write_lists
    design, network, folder, _ = _generate(config, weights, seed, output, "engine")
    pixels = (load_photos(images, design)[1] if images
              else random_images(design.network, frames, seed))
    cost, build = Cost.of(design), folder / ("waves" if waves else "sim")
    found = run_frames(cost.program, cost.hardware, folder, pixels, simulator=simulator, gaps=gaps,
                       seed=seed, strict=simulator == "icarus", waves=waves, build=build,
                       progress=True)
    difference = found.first_difference(golden.run(network, pixels))
    cycles = sorted({int(each.sum()) for each in found.cycles})
    if waves:
        wave = write_lists(build, simulator, folder / "engine.v")
        typer.echo(f"{wave}: open it with signals.gtkw (GTKWave) or signals.sucl (Surfer)")
    if difference:
        raise RuntimeError(f"{folder}: {difference}")
    if cycles != [cost.frame_cycles]:
        raise RuntimeError(f"{folder}: frames take {cycles} cycles, computed {cost.frame_cycles}")
    typer.echo(f"{folder}: {len(pixels)} frames equal to the golden model in every layer, "
               f"{cost.frame_cycles:,} cycles each, in {simulator}")


@app.command()
def synth(config: Design, output: Folder = None):
    """Maps a generated engine with Yosys and writes report.json: area, cycles, stored bits."""
    import json

    from rich.console import Console

    from export.config import load_config
    from export.file import write_whole
    from hw.synth import report, show
    design = load_config(config)
    folder, console = output or Path("build") / design.name, Console()
    with console.status("Yosys maps the engine ..."):
        result = report(design, folder)
    write_whole(folder / "report.json", (json.dumps(result, indent=1) + "\n").encode())
    show(result, console)
    if not result["fits"] or result["dsp"]:
        raise typer.Exit(1)


@app.command()
def report(designs: Annotated[list[Path], typer.Argument(help="designs that `synth` mapped")]):
    """Prints a table of what `synth` reported of designs, in Markdown."""
    from sim.report import table
    typer.echo(table([Path("build") / design.stem for design in designs]))


@app.command()
def lint(designs: Annotated[list[Path], typer.Argument(
        help="designs, which are generated, or folders of generated ones")]):
    """Checks generated Verilog with Verilator and Yosys."""
    from hw.tools import lint as check
    for design in designs:
        folder = design if design.is_dir() else _generate(design, None, 1, None, "engine")[2]
        check(folder)
        typer.echo(f"{folder}: clean")


@app.command()
def demo(config: Design, weights: Weights = None, seed: Seed = 1, output: Folder = None,
         photos: Annotated[Path | None, typer.Option(help="folder of PNG images")] = None):
    """Classifies photographs with generated Verilog and compares every layer."""
    from rich.console import Console

    from sim.demo import PHOTOS
    from sim.demo import demo as run
    design, network, _ = load_design(config, weights, seed)
    if not run(design, network, photos or PHOTOS, output or Path("build") / design.name, Console()):
        raise typer.Exit(1)


@app.command()
def evaluate(config: Design, weights: Weights = None, seed: Seed = 1,
             split: Annotated[Literal["test", "validation"], typer.Option(
                 help="images to use")] = "test",
             limit: Annotated[int | None, typer.Option(
                 min=1, help="only so many images; nothing is written then")] = None,
             record: Annotated[bool, typer.Option(
                 "--record", help="keep the result with the weights; reports take it from "
                                  "there")] = False):
    """Measures the accuracy of the integer network with the golden model."""
    import json
    import time
    from dataclasses import replace

    from export.cost import Cost
    from export.file import save_network, save_record, write_whole
    from sim.evaluate import accuracy
    if record and (limit or weights == "random"):
        raise ConfigError("--record keeps the result of all images with weights from a file: it "
                          "goes with neither --limit nor random weights")
    design, network, path = load_design(config, weights, seed)
    cost, start = Cost.of(design), time.perf_counter()
    result = accuracy(network, split, limit)
    typer.echo(f"{split}: {result['images']} images, accuracy {result['accuracy']:.2%}, "
               f"{cost.total_bits:,} bits stored, {time.perf_counter() - start:.1f} s")
    if limit is None:
        text = json.dumps(result | {"digest": network.digest}, indent=1) + "\n"
        write_whole(Path("build") / design.name / "accuracy.json", text.encode())
    if record:
        network = replace(network, record=network.record | {"measured": result})
        save_network(network, path)
        save_record(network, path)


@app.command()
def train(config: Design,
          output: Annotated[Path | None, typer.Option("-o", help="default: build/NAME/train")]
          = None,
          device: Device = "",
          compiled: Annotated[bool, typer.Option(help="use torch.compile")] = True,
          limit: Annotated[int | None, typer.Option(
              min=1, help="only so many training images")] = None):
    """Trains the design's network, resuming a run that was stopped."""
    from export.config import load_config
    design = load_config(config)
    record = _model("train").train_alone_or_together(
        design, output or Path("build") / design.name / "train", device=device, compiled=compiled,
        limit=limit)
    if record:
        typer.echo(f"validation accuracy {record['validation']:.2%} after "
                   f"{len(record['curve'])} epochs, {record['seconds']} s")


@app.command()
def convert(config: Design,
            checkpoint: Annotated[Path | None, typer.Option(
                "-c", help="default: build/NAME/train/final.pt")] = None,
            output: Annotated[Path | None, typer.Option(
                "-o", help="default: weights/NAME.npz")] = None):
    """Converts a trained checkpoint to the integer network that the hardware runs."""
    from export.config import load_config
    from export.file import save_network, save_record
    design, model = load_config(config), _model("convert")
    path = output or Path("weights") / f"{design.name}.npz"
    encoder, record = model.load_checkpoint(
        checkpoint or Path("build") / design.name / "train" / "final.pt", design)
    network = model.convert(encoder, {"training": record})
    save_network(network, path)
    save_record(network, path)
    typer.echo(f"{path}: {sum(layer.weight.size for layer in network.layers)} weights, "
               f"digest {network.digest[:16]}")


@app.command()
def plots(config: Design, weights: Weights = None,
          output: Annotated[Path, typer.Option("-o", help="folder")] = Path("docs/img")):
    """Draws the training curve and the weights' levels of a trained network."""
    design, network, _ = load_design(config, weights)
    for path in _model("plots").draw(network, design.name, output):
        typer.echo(path)


@app.command()
def train_teacher(seed: Seed = 1,
                  epochs: Annotated[int, typer.Option(min=1)] = 15,
                  output: Annotated[Path, typer.Option("-o", help="folder")]
                  = Path("build/teacher")):
    """Trains a float network for CIFAR-10 that labels images for others, resuming a stopped run."""
    record = _model("teacher").train_on_cifar10(output, seed=seed, epochs=epochs)
    typer.echo(f"validation accuracy {record['validation']:.2%} after {record['epochs']} epochs, "
               f"{record['seconds']} s")


@app.command()
def sensitivity(config: Design,
                checkpoint: Annotated[Path | None, typer.Option(
                    "-c", help="of a training with a teacher; default: "
                               "build/NAME/train/checkpoint.pt")] = None):
    """Measures what the precision of each layer's weights costs, and chooses precisions."""
    from rich.console import Console

    from export.config import load_config
    design = load_config(config)
    Console().print(_model("sensitivity").table(
        design, checkpoint or Path("build") / design.name / "train" / "checkpoint.pt"))


@app.command()
def ablate(names: Annotated[list[str] | None, typer.Argument(help="variants; default: all")] = None,
           seeds: Annotated[int, typer.Option(min=1, help="runs of each, seeds 1, 2, ...")] = 1,
           folder: Annotated[Path, typer.Option("-o", help="where the runs are kept")]
           = Path("build/ablation"),
           device: Device = "",
           show: Annotated[bool, typer.Option("--show", help="train nothing")] = False):
    """Trains small variants that are not trained yet and prints the tables."""
    model = _model("ablate")
    if not show:
        model.run(names or list(model.VARIANTS), seeds, folder, device)
    typer.echo(model.tables(model.results(folder)))


@app.command()
def automaton(size: Annotated[int, typer.Option(min=8, max=512)] = 144,
              rules: Annotated[str, typer.Option()] = "22 30 45 54 60 90 105 106 110 150"):
    """Compares rules and mappings of generated weights with random ones."""
    from rich.console import Console
    from rich.table import Table

    from export.automaton import survey
    table = Table(title=f"{size} x {size} weights in blocks of 8 x 8")
    for column in ("mapping", "rule", "zeros", "positive", "likeness of rows", "rank"):
        table.add_column(column, justify="right")
    for mapping, rule, zeros, positive, alike, rank in survey(size, [*map(int, rules.split())]):
        table.add_row(mapping, "random" if rule is None else str(rule), f"{zeros:.2f}",
                      f"{positive:.2f}", f"{alike:.3f}", f"{rank:.0f}")
    Console().print(table)


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


if __name__ == "__main__":
    main()
