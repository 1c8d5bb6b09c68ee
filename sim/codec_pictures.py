"""What a comparison of codecs looks like: squares of pictures side by side, quality over rate."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw

from sim.codec_bench import JPEG, OURS, PER_PATCH, PUBLISHED, Found

HEAD = 16  # pixels above the columns, for their names


def _others(found: Found) -> list[str]:
    """Names of all codecs but this one and JPEG of whole files."""
    return [name for name in found.rows
            if name.startswith(PER_PATCH) or not name.startswith((OURS, "JPEG"))]


def sheet(found: Found, names: list[str]) -> Image.Image:
    """A row for each picture that is shown, a column for each codec."""
    height, width = np.max([each.shape[:2] for crops in found.crops for each in crops.values()], 0)
    image = Image.new("RGB", (len(names) * width, HEAD + len(found.crops) * height), "white")
    draw = ImageDraw.Draw(image)
    for column, name in enumerate(names):
        draw.text((column * width + 4, 2), name, fill="black")
        for row, crops in enumerate(found.crops):
            image.paste(Image.fromarray(crops[name]), (column * width, HEAD + row * height))
    return image


def curves(found: Found) -> plt.Figure:
    """PSNR and MS-SSIM over bits per pixel, in the mean of all pictures."""
    figure, both = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    means = found.means
    lines = {OURS: [name for name in means if name.startswith(OURS)],
             "JPEG": [name for name in means if name.startswith("JPEG, quality")]}
    for k, (axes, label) in enumerate(zip(both, ("PSNR, dB", "MS-SSIM"), strict=True), 1):
        for name, members in lines.items():
            points = np.array(sorted(means[each][[0, k]].tolist() for each in members)).T
            axes.plot(*points, marker="o", markersize=4, label=name)
        for name in _others(found):
            axes.plot(*means[name][[0, k]], marker="s", markersize=5, linestyle="", label=name)
        for name, *values in PUBLISHED:
            if values[k - 1]:
                axes.plot(0.25, values[k - 1], marker="x", color="gray", linestyle="")
                axes.annotate(name, (0.25, values[k - 1]), xytext=(4, -3), fontsize="x-small",
                              textcoords="offset points", color="gray")
        axes.set(xlabel="bits per pixel (gray: published)", ylabel=label)
        axes.grid(alpha=0.3)
    both[0].legend(fontsize="x-small")
    return figure


def draw(found: Found, name: str, folder: Path) -> list[Path]:
    """Writes `NAME-crops.png` and `NAME-rate.svg`, and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    crops, rate = folder / f"{name}-crops.png", folder / f"{name}-rate.svg"
    sheet(found, ["original", OURS, JPEG, *_others(found)]).save(crops, optimize=True)
    curves(found).savefig(rate, metadata={"Date": None})
    return [crops, rate]
