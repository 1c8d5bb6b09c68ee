"""Whole images through the Verilog that was just generated, and a picture of the boxes found."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from export.artifact import Network
from export.config import Config
from export.cost import Cost
from export.detect import UNIT, Boxes, Decoding, decode, decoding_of
from hw.generate import generate
from sim import golden
from sim.demo import faithful
from sim.verilog import run_frames

IMAGES = 5
COLORS = "#e41a1c", "#377eb8", "#4daf4a", "#984ea3", "#ff7f00", "#a65628", "#f781bf", "#999999"


def detect_demo(design: Config, network: Network, folder: Path, console: Console) -> bool:
    """Finds boxes in the first test images of HEXLANE_BOXES, and draws them beside the truth.

    Writes `folder/boxes/NUMBER.png`: truth, golden model, Verilog. Returns whether every layer of
    all images is equal, and takes the cycles that were computed. Raises ConfigError if the network
    finds no boxes, or the images do not fit.
    """
    from model.boxes import load_samples, whole  # which needs torch
    design, config = design.alone, design.network
    decoding, cell = decoding_of(network.record, config, design.name)
    samples = [whole(each, (config.height, config.width))
               for each in load_samples(config, decoding.classes, "test", IMAGES)]
    images = np.stack([each.image.permute(1, 2, 0).numpy() for each in samples])
    with console.status(escape(f"generate {folder}/engine.v")):
        generate(design, network, folder)
    cost = Cost.of(design)
    frames = run_frames(cost.program, cost.hardware, folder, images, progress=True)
    trace = golden.run(network, images)
    equal = frames.equal(trace)
    (folder / "boxes").mkdir(exist_ok=True)
    table = Table("image", "boxes true", "Verilog", "equal at every layer", "cycles")
    for n, sample in enumerate(samples):
        found = [decode(values[n], decoding, cell).shown(decoding)
                 for values in (trace.values, frames.results)]
        truth = Boxes(corners=np.asarray(sample.corners * UNIT).astype(np.int64),
                      classes=np.asarray(sample.classes), scores=np.zeros(len(sample.classes)))
        path = folder / "boxes" / f"{n + 1}.png"
        picture([truth, *found], images[n], decoding).save(path)
        table.add_row(escape(str(path)), str(len(truth.classes)), str(len(found[1].classes)),
                      "yes" if equal[n] else "NO", f"{sum(frames.cycles[n]):,}")
    console.print(table)
    console.print(f"{sum(equal)} of {len(equal)} images equal to the golden model in every layer "
                  f"and box; pictures: truth, golden model, Verilog; "
                  f"{frames.left[-1]:,} cycles simulated in {frames.seconds:.1f} s")
    return faithful(frames, trace, cost.frame_cycles, console)


def picture(all_boxes: list[Boxes], image: np.ndarray, decoding: Decoding) -> Image.Image:
    """`image` uint8 [H, W, 1 or 3], once for each of `all_boxes`, from left to right."""
    height, width, channels = image.shape
    pixels = Image.fromarray(image[:, :, 0] if channels == 1 else image).convert("RGB")
    sheet = Image.new("RGB", (width * len(all_boxes), height))
    for k, boxes in enumerate(all_boxes):
        panel = pixels.copy()
        draw = ImageDraw.Draw(panel)
        for corners, number in zip((boxes.corners / UNIT).tolist(), boxes.classes.tolist(),
                                   strict=True):
            color = COLORS[number % len(COLORS)]
            draw.rectangle([min(max(v, 0), side - 1) for v, side in zip(
                corners, (width, height) * 2, strict=True)], outline=color, width=2)
            draw.text((max(0, corners[0]) + 3, max(0, corners[1]) + 2),
                      decoding.classes[number], fill=color)
        sheet.paste(panel, (k * width, 0))
    return sheet
