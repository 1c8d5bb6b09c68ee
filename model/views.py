"""Views of images, and the table of what a teacher says of each.

A student that is shown one of these views finds in the table what it is to imitate, so the teacher
computes once and may be large. The table is one `.npz` file: `views` int8 [views, 3], `logits`
float16 [views, images, classes] and `teacher`, the SHA-256 of the teacher's file.
"""

import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from export.checked import ConfigError
from export.file import write_whole

# Flip, rows and columns of translation; the second half mirrors the first.
VIEWS = [(flip, dy, dx) for flip in (False, True) for dy in (-2, 0, 2) for dx in (-2, 0, 2)]
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
    """Logits float16 [views, images, classes] of the first `VIEWS`, and of which teacher."""

    logits: np.ndarray
    teacher: str


def save_table(table: Table, path: Path):
    """Writes the table, whole or not at all."""
    file = io.BytesIO()
    np.savez(file, views=np.array(VIEWS[:len(table.logits)], np.int8), logits=table.logits,
             teacher=np.array(table.teacher))
    write_whole(path, file.getvalue())


def load_table(path: Path) -> Table:
    """A table of the first of `VIEWS`, or of all of them.

    Raises
    ------
    ConfigError
        If the file is none, is of other views, or has logits that are no numbers.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            views, logits, teacher = (arrays[name] for name in ("views", "logits", "teacher"))
            count = len(views)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; hexlane train-teacher writes it") from error
    except (OSError, EOFError, ValueError, LookupError, TypeError, NotImplementedError,
            zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: is no table of a teacher's logits: {error}") from error
    if not np.array_equal(views, VIEWS[:count]):
        raise ConfigError(f"{path}: is of other views than the {len(VIEWS)} that are shown here")
    if logits.dtype != np.float16 or logits.ndim != 3 or len(logits) != count:
        raise ConfigError(f"{path}: logits must be float16 [{count}, images, classes], "
                          f"not {logits.dtype} {list(logits.shape)}")
    if not np.isfinite(logits).all():
        raise ConfigError(f"{path}: logits must be finite, not "
                          f"{logits[~np.isfinite(logits)][0]}")
    return Table(logits, str(teacher))


def load_labels(path: Path, labels: Tensor, classes: int) -> Tensor:
    """The logits of a whole table, for images of these labels.

    Each is the mean of a view's and its mirror image's: what the teacher says of both is right for
    a percent more of the images that it was not trained on.

    Raises
    ------
    ConfigError
        As :func:`load_table`; and if views are missing, or the table is of other images.
    """
    logits = load_table(path).logits
    shape = len(VIEWS), len(labels), classes
    if logits.shape != shape:
        raise ConfigError(f"{path}: must have {shape[0]} views of {shape[1]} images with "
                          f"{classes} classes, not {logits.shape[0]} of {logits.shape[1]} with "
                          f"{logits.shape[2]}; hexlane train-teacher goes on with a part")
    right = np.mean(logits[0].argmax(1) == labels.cpu().numpy())
    if right < 0.5:
        raise ConfigError(f"{path}: is of other images: {right:.0%} of its classes are right, "
                          f"wanted at least 50 %")
    logits = torch.from_numpy(logits)
    return logits.unflatten(0, (2, -1)).float().mean(0).half().repeat(2, 1, 1)
