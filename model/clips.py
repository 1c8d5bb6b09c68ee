"""Clips of the user's own, in the format of Jester: folders of JPEG frames, and lists of labels.

`HEXLANE_CLIPS` names a folder with `labels.csv` (a class in each line), `train.csv` and
`validation.csv` (`ID;class` in each line), all of which may have a prefix as in
`jester-v1-labels.csv`, and the frames `ID/00001.jpg`, `ID/00002.jpg` and so on, in the folder
itself or in one of its own, as `20bn-jester-v1`. J. Materzynska and others, "The Jester Dataset: A
Large-Scale Video Dataset of Human Gestures", ICCV workshops 2019.

The labels of Jester's test clips are not public. So `validation.csv` is what is tested on, and the
last tenth of `train.csv` is held out for validation.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from export.checked import ConfigError
from export.file import read_whole
from model.data import holdout, read_picture

LIST_LIMIT = 2**25  # bytes of a list
MOST_CLASSES, MOST_FRAMES = 1000, 1000
ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
FRAME = re.compile(r"(\d{5})\.jpg", re.ASCII)


@dataclass(frozen=True, eq=False)
class Clips:
    """The clips of a split; frames are read when they are asked for."""

    classes: list[str]
    folders: list[Path]
    labels: np.ndarray  # int64 (n,)
    frames: int
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        """Frames uint8 (frames, 3, height, width) and the class.

        Raises
        ------
        ConfigError
            One line with the file, if a frame is missing or damaged.
        """
        return read_clip(self.folders[number], self.frames, self.size), int(self.labels[number])


def load_clips(split: str, frames: int = 16, size: tuple[int, int] = (96, 128)) -> Clips:
    """The clips of `train`, `validation` or `test`, in the order of their list.

    Each has `frames` frames of `size` (height, width).

    Raises
    ------
    ConfigError
        One line with the file: no list, or two; a line that is not `ID;class`; a class that
        `labels.csv` does not have; a clip without a folder.
    """
    named = os.environ.get("HEXLANE_CLIPS")
    if not named:
        raise ConfigError("HEXLANE_CLIPS must name a folder of clips, not nothing")
    folder = Path(named)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: must be a folder of clips")
    listed = _list(folder, "labels")
    classes = _lines(listed)
    if not 2 <= len(classes) <= MOST_CLASSES or len(set(classes)) < len(classes):
        raise ConfigError(f"{listed}: must have 2 to {MOST_CLASSES} different classes, "
                          f"not {len(classes)} of which {len(set(classes))} differ")
    listed = _list(folder, "validation" if split == "test" else "train")
    rows = [_row(listed, number, line, classes) for number, line in enumerate(_lines(listed), 1)]
    if len({name for name, _ in rows}) < len(rows):
        raise ConfigError(f"{listed}: must list each clip once")
    first = len(rows) - holdout(len(rows))
    part = {"train": slice(first), "validation": slice(first, None), "test": slice(None)}[split]
    rows = rows[part]
    if not rows:
        raise ConfigError(f"{listed}: must list clips for {split}, not none")
    # The frames lie in one folder, that of the first clip.
    inside = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    place = next((path for path in inside if (path / rows[0][0]).is_dir()), folder)
    folders = [place / name for name, _ in rows]
    if missing := next((path for path in folders if not path.is_dir()), None):
        raise ConfigError(f"{listed}: there is no folder {missing}")
    return Clips(classes, folders, np.array([kind for _, kind in rows], np.int64), frames, size)


def read_clip(folder: Path, frames: int, size: tuple[int, int]) -> np.ndarray:
    """Frames uint8 (frames, 3, height, width), evenly from the clip, stretched to `size`.

    A clip that has fewer repeats some.

    Raises
    ------
    ConfigError
        One line with the file, if there is a gap in the frames' numbers, or one is damaged.
    """
    found = sorted(int(match[1]) for path in folder.iterdir()
                   if (match := FRAME.fullmatch(path.name)))
    if not 1 <= len(found) <= MOST_FRAMES:
        raise ConfigError(f"{folder}: must have 1 to {MOST_FRAMES} frames 00001.jpg and so on, "
                          f"not {len(found)}")
    gap = next((number for k, number in enumerate(found, 1) if number != k), None)
    if gap is not None:
        raise ConfigError(f"{folder}: frames must be numbered from 00001.jpg without a gap, "
                          f"but one is missing before {gap:05}.jpg")
    picks = (2 * np.arange(frames) + 1) * len(found) // (2 * frames)  # the middles of equal parts
    height, width = size
    read = {}
    for pick in set(picks.tolist()):
        picture = Image.fromarray(read_picture(folder / f"{pick + 1:05}.jpg"))
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        read[pick] = np.asarray(picture).transpose(2, 0, 1)
    return np.stack([read[pick] for pick in picks.tolist()])


def _list(folder: Path, kind: str) -> Path:
    found = sorted(path for path in folder.iterdir()
                   if path.name == f"{kind}.csv" or path.name.endswith(f"-{kind}.csv"))
    if len(found) != 1:
        raise ConfigError(f"{folder}: must hold one file {kind}.csv or PREFIX-{kind}.csv, "
                          f"not {len(found)}")
    return found[0]


def _lines(path: Path) -> list[str]:
    text = read_whole(path, LIST_LIMIT).decode("utf-8", "replace")
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line]


def _row(path: Path, number: int, line: str, classes: list[str]) -> tuple[str, int]:
    name, mark, kind = (each.strip() for each in line.partition(";"))
    if not mark or not ID.fullmatch(name):
        raise ConfigError(f"{path}: entry {number} must be ID;class, not {line!r:.60}")
    if kind not in classes:
        raise ConfigError(f"{path}: entry {number}: the class must be one of labels.csv, "
                          f"not {kind!r:.60}")
    return name, classes.index(kind)
