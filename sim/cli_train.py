"""The commands of :mod:`sim.cli` that train; they need torch."""

from pathlib import Path
from typing import Annotated

import typer

from export.checked import ConfigError
from sim.options import Design, Device, Seed, Weights, load_design

app = typer.Typer()

Table = Annotated[Path, typer.Option(help="of a teacher's logits, if the recipe's teacher is one")]
TABLE = Path("build/teacher/views.npz")


@app.command()
def train(config: Design,
          output: Annotated[Path | None, typer.Option("-o", help="default: build/NAME/train")]
          = None,
          device: Device = "",
          compiled: Annotated[bool, typer.Option(help="use torch.compile")] = True,
          limit: Annotated[int | None, typer.Option(
              min=1, help="only so many training images")] = None,
          table: Table = TABLE,
          resume: Annotated[Path | None, typer.Option(
              help="go on from what `hexlane keep` wrote")] = None,
          begin: Annotated[Path | None, typer.Option(
              help="begin with this network, which was trained before")] = None):
    """Trains the design's network, resuming a run that was stopped.

    If it gives codes, a decoder is trained with it, on the pictures in the folder HEXLANE_IMAGES;
    if it gives values, they are those of boxes, as in the VOC folder HEXLANE_BOXES. If it reads
    clips, they are drawn, or those of the folder HEXLANE_CLIPS.
    """
    from export.config import load_config
    design = load_config(config)
    folder = output or Path("build") / design.name / "train"
    if begin and resume:
        raise ConfigError("a training goes on by --resume or starts by --begin, not both")
    if begin and design.network.output == "map":
        raise ConfigError("--begin must be the network of a design that classifies or compresses: "
                          "what a value is worth is not in one that gives values")
    if resume:
        from model.keep import begin as begin_again
        begin_again(resume, folder)
    how = {"begin": begin} if begin else {}
    classifies = not design.network.timed and design.network.output == "class"
    if not classifies and device not in ("", "cpu"):
        raise ConfigError(f"device must be cpu for a network that does not classify images, "
                          f"not {device:.60}")
    if design.network.timed:
        from model import clip_train as model
    elif design.network.output == "codes":
        from model import codec as model
    elif design.network.output == "map":
        from model import detect as model
    else:
        _train_classes(design, folder, device=device, compiled=compiled, limit=limit, table=table,
                       **how)
        return
    found = model.train(design, folder, compiled=compiled, limit=limit, **how)["validation"]
    for name, each in found.items() if design.network.output == "codes" else [("", found)]:
        typer.echo(f"validation{name and f', {name}'}: {model.shown(each)}")


def _train_classes(design, folder: Path, **how):
    from model.train import train_alone_or_together
    record = train_alone_or_together(design, folder, **how)
    if record:
        typer.echo(f"validation accuracy {record['validation']:.2%} after "
                   f"{len(record['curve'])} epochs, {record['seconds']} s")


@app.command()
def keep(config: Design,
         checkpoint: Annotated[Path | None, typer.Option(
             "-c", help="default: build/NAME/train/checkpoint.pt")] = None,
         output: Annotated[Path | None, typer.Option(
             "-o", help="default: weights/NAME.resume.pt")] = None):
    """Writes an unfinished training in half of its bytes, for `hexlane train --resume`."""
    from export.config import load_config
    from model import keep as model
    name = load_config(config).name
    path = output or Path("weights") / f"{name}.resume.pt"
    model.keep(checkpoint or Path("build") / name / "train" / "checkpoint.pt", path)
    typer.echo(f"{path}: {path.stat().st_size:,} bytes")


@app.command()
def convert(config: Design,
            checkpoint: Annotated[Path | None, typer.Option(
                "-c", help="default: build/NAME/train/final.pt")] = None,
            output: Annotated[Path | None, typer.Option(
                "-o", help="default: weights/NAME.npz")] = None):
    """Converts a trained checkpoint to the integer network that the hardware runs."""
    from export.config import load_config
    from export.file import save_network, save_record
    from model import convert as model
    design = load_config(config)
    path = output or Path("weights") / f"{design.name}.npz"
    checkpoint = checkpoint or Path("build") / design.name / "train" / "final.pt"
    encoder, record = model.load_checkpoint(checkpoint, design)
    kept = {"training": record}
    if "detection" in record:  # how boxes are made of the values
        kept["detection"] = record.pop("detection")
    network = model.convert(encoder, kept)
    if design.network.output == "map":
        from export.detect import decoding_of
        decoding_of(network.record, design.network, str(checkpoint))
    if design.network.output == "codes":
        from model.codec import DECODER, convert_decoder
        from model.decoder import save
        decoder, header = convert_decoder(design, checkpoint, network)  # before anything is written
    save_network(network, path)
    save_record(network, path)
    if design.network.output == "codes":
        beside = path.with_suffix(DECODER)
        save(decoder, header, beside)
        typer.echo(f"{beside}: {sum(p.numel() for p in decoder.parameters())} parameters")
    typer.echo(f"{path}: {sum(layer.weight.size for layer in network.layers)} weights, "
               f"digest {network.digest[:16]}")


@app.command()
def transforms(config: Design,
               output: Annotated[Path | None, typer.Option(
                   "-o", help="default: build/NAME/transforms.npz")] = None,
               seed: Seed = 1,
               limit: Annotated[int, typer.Option(min=1, help="patches to learn from")] = 480000):
    """Makes an encoder of transforms, whose decoder is then trained by `train --begin`.

    It learns from the pictures in the folder HEXLANE_IMAGES.
    """
    from export.codec import patches_of
    from export.config import load_config
    from export.file import save_network
    from model.pictures import random_patches
    from model.transforms import encoder_of
    design = load_config(config)
    if design.codec is None or design.codec.encoder != "transforms":
        raise ConfigError(f"{config}: must have codec.encoder = \"transforms\" for this")
    side = patches_of(design.network, design.name).side
    network = encoder_of(design.network, design.codec.decoder.transforms,
                         *random_patches(limit, side, seed), seed)
    path = output or Path("build") / design.name / "transforms.npz"
    save_network(network, path)
    typer.echo(f"{path}: {sum(layer.weight.size for layer in network.layers)} weights, "
               f"digest {network.digest[:16]}")


@app.command()
def plots(config: Design, weights: Weights = None,
          output: Annotated[Path, typer.Option("-o", help="folder")] = Path("docs/img")):
    """Draws the training curve and the weights' levels of a trained network."""
    from model.plots import draw
    design, network, _ = load_design(config, weights, needs="plots")
    for path in draw(network, design.name, output):
        typer.echo(path)


@app.command()
def train_teacher(seed: Seed = 1,
                  epochs: Annotated[int, typer.Option(min=1)] = 15,
                  output: Annotated[Path, typer.Option("-o", help="folder")]
                  = Path("build/teacher"),
                  file: Annotated[Path | None, typer.Option(
                      "-w", "--weights", help="label with this teacher, train none")] = None):
    """Trains a float network for CIFAR-10 that labels images for others, and writes the labels.

    A stopped run goes on.
    """
    from model.teacher import train_on_cifar10
    record = train_on_cifar10(output, file, seed=seed, epochs=epochs)
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
    from model.sensitivity import table
    design = load_config(config)
    Console().print(table(
        design, checkpoint or Path("build") / design.name / "train" / "checkpoint.pt"))


@app.command()
def ablate(names: Annotated[list[str] | None, typer.Argument(help="variants; default: all")] = None,
           seeds: Annotated[int, typer.Option(min=1, help="runs of each, seeds 1, 2, ...")] = 1,
           folder: Annotated[Path, typer.Option("-o", help="where the runs are")]
           = Path("build/ablation"),
           device: Device = "",
           table: Table = TABLE,
           show: Annotated[bool, typer.Option("--show", help="train nothing")] = False,
           keep: Annotated[bool, typer.Option(
               "--keep", help="write the runs into weights/ablations.json, too")] = False):
    """Trains small variants that are not trained yet and prints the tables."""
    from model import ablate as model
    if not show:
        model.run(names or list(model.VARIANTS), seeds, folder, device, table)
    if keep:
        model.keep(folder)
    typer.echo(model.tables(model.finished(folder)))
