"""What compression is compared with: codecs that give every patch as many bits, and JPEG.

Each takes a picture uint8 [H, W, 3], the sides multiples of a patch's, and gives what is decoded of
it. Those that learn do so from pictures of the training split.
"""

import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

# BT.601, of 0 ... 255, luminance first, as JPEG has it.
LUMA = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
RGB = np.linalg.inv(LUMA)
# What an error of each is worth in RGB; one of chrominance at half the resolution, in four pixels.
WORTH = np.linalg.norm(RGB, axis=0) * (1, 2, 2)
MOST_BITS = 8  # of a coefficient
ROUNDS = 12  # of Lloyd's iteration
FEW = 2**13  # values that levels are found from


def jpeg(picture: np.ndarray, quality: int) -> bytes:
    """A JPEG file with optimized Huffman tables and subsampled chrominance."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


def scan_bytes(file: bytes) -> int:
    """Of a JPEG file, those of entropy-coded data: behind the head of its scan, but for the end."""
    start = file.index(b"\xff\xda")
    head = 2 + int.from_bytes(file[start + 2:start + 4], "big")
    return len(file) - start - head - 2


def best_quality(picture: np.ndarray, limit: int, size=len) -> int:
    """The highest quality whose JPEG file has at most `limit` of `size`; 0 if there is none."""
    low, high = 0, 95
    while low < high:
        middle = (low + high + 1) // 2
        if size(jpeg(picture, middle)) <= limit:
            low = middle
        else:
            high = middle - 1
    return low


def jpeg_of_patches(picture: np.ndarray, side: int, bits: int) -> np.ndarray:
    """Each patch a JPEG of its own whose entropy-coded data has at most `bits`.

    Heads and tables, which are each patch's best, do not count. A patch for which no quality is low
    enough has its mean.
    """
    out = np.empty_like(picture)
    for top in range(0, picture.shape[0], side):
        for left in range(0, picture.shape[1], side):
            place = slice(top, top + side), slice(left, left + side)
            quality = best_quality(picture[place], bits // 8, scan_bytes)
            out[place] = (decoded(jpeg(picture[place], quality)) if quality
                          else picture[place].mean((0, 1)).round())
    return out


def decoded(file: bytes) -> np.ndarray:
    """The picture of a JPEG file."""
    with Image.open(io.BytesIO(file), formats=["JPEG"]) as image:
        return np.asarray(image.convert("RGB"))


def blocks(picture: np.ndarray, side: int) -> np.ndarray:
    """Squares of a picture [H, W, C] in raster order: [N, side, side, C]."""
    height, width, channels = picture.shape
    cut = picture.reshape(height // side, side, width // side, side, channels)
    return cut.swapaxes(1, 2).reshape(-1, side, side, channels)


def joined(cut: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture of its squares, rounded to uint8."""
    _, side, _, channels = cut.shape
    rows = cut.reshape(height // side, width // side, side, side, channels).swapaxes(1, 2)
    return rows.reshape(height, width, channels).round().clip(0, 255).astype(np.uint8)


def lloyd(values: np.ndarray, levels: int) -> np.ndarray:
    """The Lloyd-Max levels, ascending, of some numbers: each is the mean of those next to it."""
    found = np.quantile(values, (np.arange(levels) + 0.5) / levels)
    for _ in range(ROUNDS):
        nearest = _nearest(values, found)
        count = np.bincount(nearest, minlength=levels)
        total = np.bincount(nearest, values, levels)
        found = np.sort(np.where(count, total / np.maximum(count, 1), found))
    return found


def _nearest(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, values)


@dataclass(frozen=True, eq=False)
class Klt:
    """Zonal transform coding of patches, luminance whole and chrominance at half the resolution.

    The transform is that of the training patches' covariance (Karhunen-Loeve), the bits of each
    coefficient are fixed, its levels are Lloyd-Max levels.
    """

    side: int
    bits: int
    training: np.ndarray  # uint8 [N, side, side, 3]

    def _vectors(self, patches: np.ndarray) -> np.ndarray:
        color = patches.astype(np.float32) @ (LUMA.T * WORTH).astype(np.float32)
        half = color[..., 1:].reshape(len(color), self.side // 2, 2, self.side // 2, 2, 2)
        parts = color[..., 0], half.mean((2, 4))
        return np.concatenate([part.reshape(len(color), -1) for part in parts], 1)

    def _patches(self, vectors: np.ndarray) -> np.ndarray:
        luma, chroma = np.split(vectors, [self.side**2], 1)
        half = chroma.reshape(-1, self.side // 2, self.side // 2, 2)
        color = np.concatenate([luma.reshape(-1, self.side, self.side, 1),
                                half.repeat(2, 1).repeat(2, 2)], 3)
        return color @ (RGB / WORTH).T

    @cached_property
    def _learned(self) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Mean, transform [kept, inputs], and the levels of each coefficient that is kept."""
        vectors = self._vectors(self.training)
        mean = vectors.mean(0)
        variance, transform = np.linalg.eigh(np.cov(vectors - mean, rowvar=False))
        transform = transform[:, np.argsort(-variance)[:self.bits]].T
        values = ((vectors - mean) @ transform.T).T
        levels, kept = [np.zeros(1)] * len(values), np.zeros(len(values), bool)
        better = [self._gain(*each) for each in zip(values, levels, strict=True)]
        for _ in range(self.bits):  # each bit to where it takes away most
            best = int(np.argmax([gain for gain, _ in better]))
            kept[best], levels[best] = True, better[best][1]
            better[best] = self._gain(values[best], levels[best])
        return mean, transform[kept], [each for each in levels if len(each) > 1]

    @staticmethod
    def _gain(values: np.ndarray, levels: np.ndarray) -> tuple[float, np.ndarray]:
        """What one more bit takes away from the squared error, and the levels then."""
        if len(levels) == 2**MOST_BITS:
            return 0.0, levels
        values = values[:FEW]
        more = lloyd(values, 2 * len(levels))
        now, then = (np.square(values - each[_nearest(values, each)]).sum()
                     for each in (levels, more))
        return float(now - then), more

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        mean, transform, levels = self._learned
        values = (self._vectors(blocks(picture, self.side)) - mean) @ transform.T
        values = np.stack([each[_nearest(column, each)] for column, each in
                           zip(values.T, levels, strict=True)], 1)
        return joined(self._patches(values @ transform + mean), *picture.shape[:2])


@dataclass(frozen=True, eq=False)
class VectorQuantizer:
    """Blocks of 8x8 pixels in 16 bits: the nearest of 256 vectors, then of 256 of what is left."""

    training: np.ndarray  # uint8 [N, 8, 8, 3]
    seed: int = 1

    @cached_property
    def _books(self) -> list[np.ndarray]:
        left, books = self.training.reshape(len(self.training), -1).astype(np.float32), []
        rng = np.random.default_rng(self.seed)
        for _ in range(2):
            book = left[rng.choice(len(left), 256, replace=False)]
            for _ in range(ROUNDS):
                nearest = self._nearest(left, book)
                count = np.bincount(nearest, minlength=256)[:, None]
                order = np.argsort(nearest, kind="stable")
                starts = np.searchsorted(nearest[order], np.arange(256)).clip(max=len(left) - 1)
                total = np.add.reduceat(left[order], starts, 0)
                book = np.where(count, total / np.maximum(count, 1), book)
            books.append(book)
            left = left - book[self._nearest(left, book)]
        return books

    @staticmethod
    def _nearest(vectors: np.ndarray, book: np.ndarray) -> np.ndarray:
        return np.argmin((book**2).sum(1) - 2 * vectors @ book.T, 1)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        cut = blocks(picture, 8).astype(np.float32)
        left, made = cut.reshape(len(cut), -1), 0.0
        for book in self._books:
            chosen = book[self._nearest(left, book)]
            left, made = left - chosen, made + chosen
        return joined(made.reshape(cut.shape), *picture.shape[:2])
