"""Compression beside other codecs on the same pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table
from tqdm import tqdm

from export.artifact import Network
from export.checked import ConfigError
from export.codec import Patches, patches_of
from model import baselines
from model.codec import LEAST, load_trained, quality_of
from model.data import PICTURE_FORMATS, read_picture
from model.decoder import Decoder, Header, decompress
from model.pictures import random_patches
from sim.codec import compress

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


def _padded(codec: Callable, patches: Patches) -> Callable:
    """A codec of whole patches as one of any picture."""
    def run(picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        more = [(0, -size % patches.side) for size in (height, width)]
        return codec(np.pad(picture, (*more, (0, 0)), mode="edge"))[:height, :width]
    return run


def codecs(patches: Patches) -> dict[str, Callable]:
    """Those that are compared, by name; they learn from the training pictures."""
    training = random_patches(LEARNED, patches.side)
    eighths = baselines.blocks(training[:4096].reshape(-1, patches.side, 3), 8)
    klt = baselines.Klt(patches.side, patches.bits, training)
    return {
        "JPEG per patch, heads not counted": _padded(
            lambda each: baselines.jpeg_of_patches(each, patches.side, patches.bits), patches),
        f"KLT of {patches.side}x{patches.side}, fixed bits": _padded(klt, patches),
        "two-stage vector quantization of 8x8": _padded(baselines.VectorQuantizer(eighths),
                                                        patches)}


def bench(network: Network, header: Header, decoder: Decoder, folder: Path,
          trained: Sequence[Path] = ()) -> Table:
    """A table of all codecs, means over the pictures in a folder.

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
    others, rows = {}, {}
    for path in trained:
        name, its, run = load_trained(path)
        if its != patches:
            raise ConfigError(f"{path}: must have patches of {patches.side} pixels with "
                              f"{patches.channels} channels, not {its.side} and {its.channels}")
        others[name] = run
    others |= codecs(patches)

    def note(name: str, found: np.ndarray, wanted: np.ndarray, rate: float):
        rows.setdefault(name, []).append(
            (rate, *quality_of(found, wanted), blockiness(found, wanted, patches.side)))

    for picture in tqdm(pictures, desc="pictures"):
        made, area = compress(network, picture), picture.shape[0] * picture.shape[1]
        for name, channels in (("this codec", patches.channels),
                               ("this codec, half of its codes", patches.channels // 2)):
            part = made.kept(channels)
            size = len(part.to_bytes())
            note(name, decompress(part, header, decoder), picture, 8 * size / area)
            if channels == patches.channels:
                file = baselines.best_jpeg(picture, size) or baselines.jpeg(picture, 1)
                note("JPEG of as many bytes", baselines.decoded(file), picture,
                     8 * len(file) / area)
        for name, codec in others.items():
            note(name, codec(picture), picture, patches.bits / patches.side**2)

    table = Table("codec", "bits per pixel", "PSNR, dB", "MS-SSIM", "borders less inside, dB",
                  title=f"{len(pictures)} pictures")
    for name, values in rows.items():
        rate, psnr, likeness, blocks = np.mean(values, 0)
        table.add_row(name, f"{rate:.4f}", f"{psnr:.2f}", f"{likeness:.4f}", f"{blocks:+.2f}")
    for name, psnr, likeness in PUBLISHED:
        table.add_row(f"{name} (published, Kodak)", "0.25", f"{psnr or '-'}", f"{likeness}", "-")
    return table
