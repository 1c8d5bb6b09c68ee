"""The commands of :mod:`sim.cli` that compress pictures: docs/compression.md."""

from pathlib import Path
from typing import Annotated

import typer

from sim.options import Weights, find_weights, load_design

app = typer.Typer()
HERE = Path(__file__).parent.parent
PatchDesign = Annotated[Path | None, typer.Option(
    "-c", "--config", help="design of the encoder; default: configs/patch.toml",
    show_default=False)]

DecoderFile = Annotated[Path | None, typer.Option(
    help="default: weights/NAME.decoder.npz, found as the encoder's weights are")]


def _design(config: Path | None) -> Path:
    """The design that is named, or the one that is shipped."""
    name = Path("configs/patch.toml")
    return config or (name if name.is_file() else HERE / name)


def _decoder(path: Path | None, design: Path) -> Path:
    """The decoder's file that is named, or that of the design."""
    from export.config import load_config
    return path or find_weights(design, f"{load_config(design).name}.decoder.npz")


@app.command()
def compress(image: Annotated[Path, typer.Argument(help="picture", show_default=False)],
             output: Annotated[Path, typer.Option("-o", "--output", help="file, NAME.hxl")],
             config: PatchDesign = None, weights: Weights = None,
             channels: Annotated[int | None, typer.Option(
                 min=1, help="keep only the first so many channels of codes; default: all")]
             = None,
             verilog: Annotated[bool, typer.Option(
                 "--verilog", help="with the generated Verilog, in Verilator: minutes")] = False):
    """Compresses a picture with the golden model, every patch into as many bits."""
    from functools import partial

    from model.data import read_picture
    from sim.codec import compress as run
    from sim.codec import verilog_codes
    design, network, _ = load_design(_design(config), weights, needs="compress")
    encode = partial(verilog_codes, design, network, folder=Path("build") / design.name)
    made = run(network, read_picture(image), encode if verilog else None)
    if channels:
        made = made.kept(channels)
    made.save(output)
    size = len(made.to_bytes())
    typer.echo(f"{output}: {made.width}x{made.height} pixels, {size:,} bytes, "
               f"{8 * size / made.width / made.height:.4f} bits per pixel")


@app.command()
def codec_bench(folder: Annotated[Path, typer.Argument(help="of pictures to test with",
                                                       show_default=False)],
                config: PatchDesign = None, weights: Weights = None, decoder: DecoderFile = None,
                trained: Annotated[list[Path] | None, typer.Option(
                    help="final.pt of another training, to compare with; may be repeated")]
                = None,
                draw: Annotated[Path | None, typer.Option(
                    help="folder for NAME-crops.png and NAME-rate.svg")] = None):
    """Compares the codec with others on the same pictures.

    The others that learn do so from the training pictures in the folder HEXLANE_IMAGES.
    """
    from rich.console import Console

    from model.decoder import load
    from sim.codec_bench import bench
    design = _design(config)
    loaded, network, _ = load_design(design, weights, needs="codec-bench")
    found = bench(network, *load(_decoder(decoder, design)), folder, trained or ())
    Console().print(found.table())
    if draw:
        from sim.codec_pictures import draw as run
        for path in run(found, loaded.name, draw):
            typer.echo(path)


@app.command()
def decompress(file: Annotated[Path, typer.Argument(help="NAME.hxl", show_default=False)],
               output: Annotated[Path, typer.Option("-o", "--output", help="picture, NAME.png")],
               config: PatchDesign = None,
               decoder: DecoderFile = None):
    """Decodes a compressed picture to a PNG file; this needs torch."""
    from io import BytesIO

    from PIL import Image

    from export.file import write_whole
    from export.picture import Picture
    from model.decoder import decompress as run
    from model.decoder import load
    picture = Picture.load(file)
    pixels = run(picture, *load(_decoder(decoder, _design(config))))
    content = BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    write_whole(output, content.getvalue())
    typer.echo(f"{output}: {picture.width}x{picture.height} pixels")
