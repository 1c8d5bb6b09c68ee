"""Compression beside other codecs on the same pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from tqdm import tqdm

from export.artifact import Network
from export.checked import ConfigError
from export.codec import Patches, patches_of
from model import baselines
from model.codec import LEAST, entropy, load_trained, quality_of
from model.data import PICTURE_FORMATS, read_picture
from model.decoder import Decoder, Header, decompress
from model.pictures import random_patches
from sim.codec import compress

OURS, JPEG, PER_PATCH = "this codec", "JPEG of as many bytes", "JPEG per patch of "
BETWEEN = "JPEG between two qualities, exactly as many"
LARGER = 32  # pixels, side of the patches that others may have too, as it favours them
QUALITIES = 3, 6, 10, 15, 20  # of JPEG, for its curve
CROP, SHOWN = 192, 4  # side of the squares that are shown, and of how many pictures
BORDER = 2  # pixels on each side of a border between patches
LEARNED = 18000  # patches, twelve times as many as the transform of one has inputs
# RGB PSNR and MS-SSIM on Kodak at 0.25 bits per pixel, from CompressAI's tables (averages over the
# 24 pictures, interpolated over the logarithm of the rate); the last from the tables of a
# reimplementation of Toderici et al. 2016.
PUBLISHED = (("JPEG", 24.66, 0.830), ("JPEG 2000", 28.57, 0.921), ("WebP", 28.55, 0.930),
             ("BPG 4:4:4", 30.32, 0.945), ("fixed-rate binary LSTM codes", None, 0.917))


def blockiness(found: np.ndarray, wanted: np.ndarray, side: int) -> float:
    """PSNR on the pixels near borders of patches less that on the others, in dB.

    Both pictures are uint8 [H, W, 3]; the edges of the picture are no borders.
    """
    near = [((np.arange(size) + BORDER) % side < 2 * BORDER)
            & (np.arange(size) >= BORDER) & (np.arange(size) < size - BORDER)
            for size in found.shape[:2]]
    border = near[0][:, None] | near[1]
    error = ((found.astype(float) - wanted) ** 2).mean(2)
    return 10 * np.log10(max(error[~border].mean(), 1e-9) / max(error[border].mean(), 1e-9))


def _padded(codec: Callable, side: int) -> Callable:
    """A codec of whole patches as one of any picture."""
    def run(picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        more = [(0, -size % side) for size in (height, width)]
        return codec(np.pad(picture, (*more, (0, 0)), mode="edge"))[:height, :width]
    return run


def codecs(patches: Patches) -> dict[str, Callable]:
    """Those that are compared, by name, at as many bits per pixel; they learn from the training
    pictures."""
    found, training = {}, {side: random_patches(LEARNED, side)[0]
                           for side in sorted({patches.side, LARGER})}
    for side, learned in training.items():
        bits = patches.bits * side**2 // patches.side**2
        found[f"{PER_PATCH}{side}x{side}"] = _padded(  # whose heads do not count
            partial(baselines.jpeg_of_patches, side=side, bits=bits), side)
        found[f"KLT of {side}x{side}, fixed bits"] = _padded(
            baselines.Klt(side, bits, learned), side)
    eighths = baselines.blocks(training[LARGER][:4096].reshape(-1, LARGER, 3), 8)
    return found | {"two-stage vector quantization of 8x8": _padded(
        baselines.VectorQuantizer(eighths), LARGER)}


def between(low: tuple[float, ...], high: tuple[float, ...], rate: float) -> tuple[float, ...]:
    """Of two rows, one at `rate`: linear over the logarithm of it; the nearer one outside."""
    if high[0] <= low[0]:
        return low
    rate = np.clip(rate, low[0], high[0])
    share = np.log(rate / low[0]) / np.log(high[0] / low[0])
    return rate, *(one + share * (other - one)
                   for one, other in zip(low[1:], high[1:], strict=True))


@dataclass(frozen=True, eq=False)
class Found:
    """What a comparison finds.

    `rows`: by codec, of each picture bits per pixel, PSNR in dB, MS-SSIM and :func:`blockiness`.
    `crops`: of some pictures, by codec the middle of what it makes of it, uint8 [H, W, 3]. `ones`:
    the share of ones of each bit of a patch, [channels, grid, grid].
    """

    rows: dict[str, list[tuple[float, ...]]]
    crops: list[dict[str, np.ndarray]]
    ones: np.ndarray

    @property
    def means(self) -> dict[str, np.ndarray]:
        """Over the pictures."""
        return {name: np.mean(values, 0) for name, values in self.rows.items()}

    def table(self) -> Table:
        """All codecs, and those that are published."""
        bits = entropy(torch.from_numpy(self.ones))
        table = Table("codec", "bits per pixel", "PSNR, dB", "MS-SSIM", "borders less inside, dB",
                      title=f"{len(self.rows[OURS])} pictures", caption=(
                          f"entropy of {OURS}'s bits: {bits.mean():.3f} in the mean of the "
                          f"{bits.numel()} of a patch, {bits.min():.3f} at least"))
        for name, (rate, psnr, likeness, blocks) in self.means.items():
            table.add_row(name, f"{rate:.4f}", f"{psnr:.2f}", f"{likeness:.4f}", f"{blocks:+.2f}")
        for name, psnr, likeness in PUBLISHED:
            table.add_row(f"{name} (published, Kodak)", "0.25", f"{psnr or '-'}", f"{likeness}",
                          "-")
        return table


def middle(picture: np.ndarray) -> np.ndarray:
    """The square in the middle of a picture [H, W, 3], of :data:`CROP` pixels at most."""
    top, left = (max(size - CROP, 0) // 2 for size in picture.shape[:2])
    return picture[top:top + CROP, left:left + CROP]


def bench(network: Network, header: Header, decoder: Decoder, folder: Path,
          trained: Sequence[Path] = ()) -> Found:
    """All codecs on the pictures of a folder.

    `trained` are results of other trainings, `final.pt`, of patches of the same size.

    Raises
    ------
    ConfigError
        If there are no pictures, or they are too small for MS-SSIM.
    """
    patches = patches_of(network.config, "codec-bench")
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURE_FORMATS)
    pictures = [read_picture(path) for path in files]
    if not pictures or min(min(each.shape[:2]) for each in pictures) < LEAST:
        raise ConfigError(f"{folder}: must hold images of at least {LEAST} pixels each way")
    others, rows, crops, codes = {}, {}, [], []
    for path in trained:
        name, its, run = load_trained(path)
        if (its.side, its.channels) != (patches.side, patches.channels):
            raise ConfigError(f"{path}: must have patches of {patches.side} pixels with "
                              f"{patches.channels} channels, not {its.side} and {its.channels}")
        others[name] = run
    others |= codecs(patches)

    for picture in tqdm(pictures, desc="pictures"):
        crops.append({"original": middle(picture)})

        def note(name: str, found: np.ndarray, rate: float, wanted: np.ndarray = picture):
            rows.setdefault(name, []).append(
                (rate, *quality_of(found, wanted), blockiness(found, wanted, patches.side)))
            crops[-1][name] = middle(found)

        made, area = compress(network, picture), picture[..., 0].size
        codes.append(made.codes)
        for name, quarters in ((OURS, 4), (f"{OURS}, three quarters of its codes", 3),
                               (f"{OURS}, half of its codes", 2)):
            channels = -(-patches.channels * quarters // 4)
            part = made.kept(channels)
            size = len(part.to_bytes())
            note(name, decompress(part, header, decoder), 8 * size / area)
            if channels == patches.channels:
                quality = max(baselines.best_quality(picture, size), 1)
                ends = [baselines.jpeg(picture, each) for each in (quality, quality + 1)]
                for name, file in zip((JPEG, BETWEEN), ends, strict=True):
                    note(name, baselines.decoded(file), 8 * len(file) / area)
                rows[BETWEEN][-1] = between(rows[JPEG][-1], rows[BETWEEN][-1], 8 * size / area)
        for name, codec in others.items():
            note(name, codec(picture), patches.bits / patches.side**2)
        for quality in QUALITIES:
            file = baselines.jpeg(picture, quality)
            note(f"JPEG, quality {quality}", baselines.decoded(file), 8 * len(file) / area)
    return Found(rows, crops[::-(-len(crops) // SHOWN)], np.concatenate(codes).mean(0))
