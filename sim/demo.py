"""Photographs through the Verilog that was just generated: `python -m sim.demo CONFIG`.

Generates the design, builds it in Verilator, runs the images of `sim/photos` (ten CIFAR-10 test
images, one per class) and holds every layer's codes to the golden model. Meanwhile Yosys maps the
design to the configured FPGA.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from export.cli import one_line_errors
from export.config import Config, ConfigError
from export.cost import Cost
from hw import synth
from hw.generate import generate, load_design
from model.data import CLASSES
from sim import golden
from sim.verilog import run_frames

PHOTOS = Path(__file__).with_name("photos")


def load_photos(folder: Path, config: Config) -> tuple[list[Path], np.ndarray]:
    """PNG files and their pixels, uint8 [N, H, W, 3]; ConfigError if one is not of that size."""
    network, files = config.network, sorted(folder.glob("*.png"))
    if not files:
        raise ConfigError(f"{folder}: wanted PNG images, found none")
    images = []
    for file in files:
        try:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB" if network.channels == 3 else "L"))
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read as an image: {error}") from error
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        wanted = (network.height, network.width, network.channels)
        if pixels.shape != wanted:
            raise ConfigError(f"{file}: wanted {wanted} pixels, got {pixels.shape}")
        images.append(pixels)
    return files, np.stack(images)


@one_line_errors
def main(
    config: Annotated[Path, typer.Argument(help="design, a TOML file")],
    weights: Annotated[Path | None, typer.Option(
        help="integer network; default: weights/NAME.npz")] = None,
    photos: Annotated[Path, typer.Option(help="folder of PNG images")] = PHOTOS,
):
    """Classifies photographs with generated Verilog and compares every layer."""
    console = Console()
    design, network = load_design(config, weights)
    files, images = load_photos(photos, design)
    folder = Path("build") / design.name
    with console.status(f"generate {folder}/engine.v"):
        facts = generate(design, network, folder)
    console.print(f"{folder}/engine.v: {facts['total_bits']:,} bits of ROM; Verilator builds it "
                  f"first, Yosys maps it meanwhile, a few minutes in all")
    with ThreadPoolExecutor() as pool:
        mapped = pool.submit(synth.report, design, folder)
        cost = Cost.of(design)
        frames = run_frames(cost.program, cost.hardware, folder, images, progress=True)
        with console.status("Yosys maps the engine"):
            area = mapped.result()
    trace = golden.run(network, images)
    equal = frames.equal(trace)

    names = CLASSES if design.network.classes == len(CLASSES) else [
        str(k) for k in range(design.network.classes)]
    table = Table("image", "true class", "Verilog", "golden", "equal at every layer", "cycles")
    for column in table.columns[:4]:
        column.no_wrap = True
    for n, file in enumerate(files):
        table.add_row(file.name, file.stem, names[frames.classes[n]], names[trace.classes[n]],
                      "yes" if equal[n] else "NO", f"{frames.cycles[n].sum():,}")
    console.print(table)
    right = sum(names[c] == file.stem for c, file in zip(frames.classes, files, strict=True))
    console.print(
        f"{right} of {len(files)} classes right; {sum(equal)} of {len(files)} frames equal to the "
        f"golden model in every layer, class and score\n"
        f"{facts['cycles_per_frame']:,} cycles per frame (computed), array use "
        f"{facts['array_use']:.1%} of cycles behind the first layer, "
        f"{facts['frames_per_second']:,} frames per second at {facts['clock_mhz']} MHz")
    simulated = {int(cycles.sum()) for cycles in frames.cycles}
    console.print(f"{area['device']}: {area['lut4']:,} LUT4, {area['carry']:,} carry cells, "
                  f"{area['ff']:,} registers, {area['block_ram']} block RAMs, {area['dsp']} DSPs")
    if not all(equal) or simulated != {facts["cycles_per_frame"]}:
        console.print("[red]the Verilog differs from the golden model or the cycle model[/red]")
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
