"""Views of images, and the table of what a teacher says of each.

A student that is shown one of these views finds in the table what it is to imitate, so the teacher
computes once and may be large. What it says of a view is the mean of that and its mirror image:
this is right for a percent more of the images that it was not trained on. The table is one `.npz`
file: `shifts` int8 [shifts, 2], `logits` int8 [shifts, images, classes] in quarters, cut off at
32, and `teacher`, the SHA-256 of the teacher's file.
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from export.checked import ConfigError
from export.file import archived, read_member, write_whole

SHIFTS = [(dy, dx) for dy in (-2, 0, 2) for dx in (-2, 0, 2)]  # rows and columns of translation
VIEWS = [(flip, *shift) for flip in (False, True) for shift in SHIFTS]  # the second half mirrored
LIMIT = 2**27  # bytes of a table's logits
TABLE = Path("build/teacher/views.npz")


def move(images: Tensor, dy: Tensor, dx: Tensor, flip: Tensor) -> Tensor:
    """Images (n, c, h, w), each translated with its border mirrored, and mirrored if `flip`."""
    n, channels, height, width = images.shape
    edge = int(max(dy.abs().max(), dx.abs().max()))
    rows = (torch.arange(height) + dy[:, None]).clamp(-edge, height - 1 + edge)
    cols = torch.arange(width) + dx[:, None]
    cols = torch.where(flip[:, None], cols.flip(1), cols)
    rows, cols = (torch.where(at < 0, -at, torch.where(at >= side, 2 * side - 2 - at, at))
                  for at, side in ((rows, height), (cols, width)))
    index = [torch.arange(n)[:, None, None, None], torch.arange(channels)[:, None, None],
             rows[:, None, :, None], cols[:, None, None, :]]
    return images[tuple(each.to(images.device) for each in index)]


def show(images: Tensor, view: Tensor) -> Tensor:
    """Images (n, c, h, w), each in its view, an index (n,) of `VIEWS`."""
    flip, dy, dx = torch.tensor(VIEWS).T[:, view]
    return move(images, dy, dx, flip == 1)


class Table(NamedTuple):
    """Logits float32 [shifts, images, classes] of the first `SHIFTS`, and of which teacher."""

    logits: np.ndarray
    teacher: str


def save_table(table: Table, path: Path):
    """Writes the table, whole or not at all; logits in 8 bits."""
    file = io.BytesIO()
    quarters = np.round(table.logits * 4).clip(-127, 127).astype(np.int8)
    np.savez_compressed(file, shifts=np.array(SHIFTS[:len(table.logits)], np.int8),
                        logits=quarters, teacher=np.array(table.teacher))
    write_whole(path, file.getvalue())


def load_table(path: Path) -> Table:
    """A table of the first of `SHIFTS`, or of all of them.

    Raises
    ------
    ConfigError
        If the file is none, or is of other shifts.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file; hexlane train-teacher writes it, "
                          f"--table names another")
    with archived(path, "a table of a teacher's logits") as archive:
        shifts, logits, teacher = (read_member(archive, name, limit) for name, limit in
                                   (("shifts", 1024), ("logits", LIMIT), ("teacher", 1024)))
        count = len(shifts)
    if not np.array_equal(shifts, SHIFTS[:count]):
        raise ConfigError(f"{path}: is of other shifts than the {len(SHIFTS)} that are shown here")
    if logits.dtype != np.int8 or logits.ndim != 3 or len(logits) != count:
        raise ConfigError(f"{path}: logits must be int8 [{count}, images, classes], "
                          f"not {logits.dtype} {list(logits.shape)}")
    return Table(logits / np.float32(4), str(teacher))


def load_labels(path: Path, labels: Tensor, classes: int) -> Tensor:
    """The logits float16 [views, images, classes] of a whole table, for images of these labels.

    Raises
    ------
    ConfigError
        As :func:`load_table`; and if shifts are missing, or the table is of other images.
    """
    logits = load_table(path).logits
    if logits.shape[1:] != (len(labels), classes):
        raise ConfigError(f"{path}: must be of {len(labels)} images with {classes} classes, not of "
                          f"{logits.shape[1]} with {logits.shape[2]}; train.teacher = \"float\" "
                          f"needs no table")
    if len(logits) < len(SHIFTS):
        raise ConfigError(f"{path}: must have {len(SHIFTS)} shifts, not {len(logits)}; hexlane "
                          f"train-teacher goes on with it")
    right = np.mean(logits[0].argmax(1) == labels.cpu().numpy())
    if right < 0.5:
        raise ConfigError(f"{path}: is of other images: {right:.0%} of its classes are right, "
                          f"wanted at least 50 %")
    return torch.from_numpy(logits).half().repeat(2, 1, 1)
