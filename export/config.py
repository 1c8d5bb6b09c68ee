"""One design: a network, the engine that runs it, and the recipe that trains it.

A design is one TOML file with the tables `network`, `array`, `machine`, `target` and `train`, or
`codec` for a network that compresses, `detect` for one that finds boxes, `clips` for one that reads
clips.
`engine` (array, machine and target), `network` or `train` may also be the path of another TOML
file, beside the design's: so several designs name the same engine. Reading it gives a frozen
:class:`Config`; what follows from it is a property and is computed nowhere else.
"""

import hashlib
import json
import tomllib
from math import gcd
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from export.checked import ConfigError, DesignName, Frozen, Precision, count, parse, shown
from export.clips import ClipsConfig, check_clips, check_trunk
from export.codec import CodecConfig
from export.detect import DetectConfig, cell_of
from export.file import read_whole
from export.network import NetworkConfig

# A pixel of eight bits enters the array as digits, most significant first: 2 + 3 + 3 bits, or
# 2 + 2 + 2 + 2, or one by one, in the array's highest precision. This is how many.
DIGITS_OF_PIXEL = {3: 3, 2: 4, 1: 8}
FILE_LIMIT = 2**20  # bytes of a TOML file
# Of dots in a line of it, and in all: a key takes tomllib time and memory by the square of its
# parts.
LINE_DOTS, FILE_DOTS = 100, 10_000
MAX_PROGRAMS = 64
# By family, the usual one first.
DEVICES = {"ecp5": ("LFE5U-85F", "LFE5U-45F", "LFE5U-25F"), "ice40": ("iCE40UP5K", "iCE40HX8K"),
           "gowin": ("GW1NR-9C", "GW2A-18C")}
Positive, Natural = count(2**31), count(2**31, 0)


class ArrayConfig(Frozen):
    """The systolic array: `rows` pixels x `columns` channels, `words` six-bit words per PE."""

    rows: count(128)
    columns: count(128)
    words: count(64)
    precisions: Annotated[tuple[Precision, ...],
                          Field(min_length=1, strict=False, fail_fast=True)] = (1, 2, 3)
    dense: bool = False  # five ternary weights are stored in 8 bits, three quinary ones in 7

    @model_validator(mode="after")
    def _sorted(self):
        if list(self.precisions) != sorted(set(self.precisions)):
            raise ValueError(f"precisions must be ascending and different, "
                             f"not {list(self.precisions)}")
        return self

    @property
    def digit_bits(self) -> int:
        """Bits in which pixels enter."""
        return max(self.precisions)

    @property
    def unit(self) -> int:
        """Channels written per cycle; they never share a lane with half of another unit."""
        lane = 2 * self.words
        return lane if self.columns % lane == 0 else gcd(self.columns, self.words)

    @property
    def units(self) -> int:
        """Cycles in which the epilogue takes one pixel."""
        return self.columns // self.unit

    @property
    def min_period(self) -> int:
        """Fewest cycles from tile to tile: the previous one must be drained, scores compared."""
        return max(self.rows * self.units, self.columns + 2, 4)

    def mode(self, name: str, bits: int) -> int:
        """The smallest word precision that holds `bits`; ConfigError if there is none."""
        for mode in self.precisions:
            if mode >= bits:
                return mode
        raise ConfigError(f"{name}: needs words of {bits} bits, the array has "
                          f"precisions {list(self.precisions)}")


class MachineConfig(Frozen):
    """How the machine holds programs; by default one, in ROM."""

    memory: Literal["rom", "ram"] = "rom"
    # Other designs whose networks it runs too: files beside the design's. Their arrays, targets
    # and machines do not count.
    networks: Annotated[tuple[str, ...], Field(strict=False, max_length=MAX_PROGRAMS - 1,
                                               fail_fast=True)] = ()
    hold: count(MAX_PROGRAMS, 0) = 0  # of them RAM holds any so many at once; 0: all
    slots: count(MAX_PROGRAMS, 0) = 0  # programs that RAM has records for, if more than it holds
    pixel_buffers: Literal[1, 2] = 1  # 2: a frame comes in while the first operation reads another


class TargetConfig(Frozen):
    """Where the engine will run."""

    family: Literal["ecp5", "ice40", "gowin"] = "ecp5"
    device: str = ""  # one of the family's `DEVICES`; default: its first
    speed: Literal[6, 7, 8] | None = None  # grade, of ecp5 only; default: 6, the slowest
    clock_mhz: Annotated[float, Field(gt=0)] = 50.0  # of a board, where pnr has measured none

    @model_validator(mode="after")
    def _of_the_family(self):
        names = DEVICES[self.family]
        if self.device and self.device not in names:
            raise ValueError(f"device must be {' or '.join(names)} for {self.family}, "
                             f"not {shown(self.device)}")
        if self.speed and self.family != "ecp5":
            raise ValueError(f"speed is a grade of ecp5, there is none for {self.family}, "
                             f"not {self.speed}")
        return self

    @property
    def part(self) -> str:
        """Name of the device."""
        return self.device or DEVICES[self.family][0]

    @property
    def grade(self) -> int | None:
        """Speed grade of the device, if it has any."""
        return (self.speed or 6) if self.family == "ecp5" else None


class TrainConfig(Frozen):
    """The recipe of a network that classifies; :mod:`model.train` says what it does with it."""

    epochs: Positive = 40  # of the quantized network
    teacher_epochs: Natural = 0  # of the float network before it
    code_epochs: Natural = 0  # of `epochs`, with codes but not weights rounded
    distillation: Annotated[float, Field(ge=0, le=1)] = 0.0  # the teacher's share of the loss
    # Who that is: the float network, for the epochs behind its own; or, for all, another one whose
    # logits `hexlane train-teacher` has written down, of views that take the place of augmentation.
    teacher: Literal["float", "table"] = "float"
    temperature: Annotated[float, Field(gt=0)] = 2.0
    batch: Positive = 250
    learning_rate: Annotated[float, Field(gt=0)] = 0.01  # peak
    teacher_learning_rate: Annotated[float, Field(gt=0)] = 0.01
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    cutout: Natural = 0  # side of the hole in each training image
    # Side of the squares that are trained on before the last `full_epochs`; 0: whole images.
    # A square of 24 takes 56 % of the time of 32.
    crop: Natural = 0
    full_epochs: Natural = 0
    validate_every: Positive = 1  # epochs; exact float32 is slow
    # Whether codes that a mux merges begin in the middle of their range, not half-wave.
    centred_muxes: bool = False
    seed: Natural = 1
    # For comparisons: thresholds of the weights' levels (histogram-equalized, fixed, learned); and,
    # which cannot be exported, a float batch normalization in place of the layer's shift, and real
    # numbers that are added in place of codes that are gated.
    steps: Literal["equalized", "mean", "learned"] = "equalized"
    normalization: Literal["shift", "batch"] = "shift"
    residuals: Literal["gates", "add"] = "gates"

    @model_validator(mode="after")
    def _taught(self):
        table = self.teacher == "table"
        if self.distillation and not (self.teacher_epochs or table):
            raise ValueError("distillation needs teacher_epochs")
        if table and (self.cutout or not self.distillation):
            raise ValueError("teacher = \"table\" needs distillation and no cutout")
        if self.code_epochs >= self.epochs:
            raise ValueError(f"code_epochs must be fewer than the {self.epochs} epochs, "
                             f"not {self.code_epochs}")
        return self


class Config(Frozen):
    """One design."""

    name: DesignName
    network: NetworkConfig
    array: ArrayConfig
    machine: MachineConfig = MachineConfig()
    target: TargetConfig = TargetConfig()
    train: TrainConfig = TrainConfig()
    codec: CodecConfig = CodecConfig()
    detect: DetectConfig | None = None
    clips: ClipsConfig | None = None

    @model_validator(mode="after")
    def _crop_fits(self):
        crop, fold = self.train.crop, self.network.fold
        least = fold * 2 ** sum(conv.pool for conv in self.network.convs)
        most = min(self.network.height, self.network.width)
        if crop and not least <= crop <= most:
            raise ValueError(f"train.crop must be 0 or from {least} to {most} pixels, not {crop}")
        if crop % fold:
            raise ValueError(f"train.crop must be a multiple of fold = {fold}, not {crop}")
        return self

    @model_validator(mode="after")
    def _results_fit(self):
        if self.detect:
            cell_of(self.network, len(self.detect.classes), "detect")
        if self.clips:
            check_clips(self.network, self.clips.frames, "clips")
            if self.clips.trunk:
                check_trunk(self.network, self.clips.trunk.to)
        return self

    @property
    def alone(self) -> "Config":
        """The same on a machine of its own: one program, in ROM."""
        machine = MachineConfig(pixel_buffers=self.machine.pixel_buffers)
        return self.model_copy(update={"machine": machine})

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what the hardware depends on: network, array and machine.

        Where the machine's other networks are to be found does not count; they have digests too.
        """
        machine = self.machine.model_copy(update={"networks": ()})
        values = {"network": self.network.model_dump(), "array": self.array.model_dump(),
                  "machine": machine.model_dump()}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def load_config(path: str | Path) -> Config:
    """Reads one TOML file; its stem is the design's name.

    Raises
    ------
    ConfigError
        One line that names the file, the field, what was wanted and what came.
    """
    path = Path(path)
    values = {"name": path.stem, **read_toml(path)}
    beside = path.parent  # of the file that has the table [machine]
    if "engine" in values:
        named = values.pop("engine")
        engine = _table(named, path)
        if not isinstance(engine, dict):
            raise ConfigError(f"{path}: engine: must be a table or a file, not {shown(engine)}")
        strange = [key for key in engine
                   if key not in ("array", "machine", "target") or key in values]
        if strange:
            raise ConfigError(f"{path}: engine: must give array, machine and target, "
                              f"once, not {strange[0]!r}")
        values |= engine
        if "machine" in engine and isinstance(named, str):
            beside = (path.parent / named).parent
    for name in ("network", "train"):
        if isinstance(values.get(name), str):
            values[name] = _table(values[name], path)
    config = parse_config(values, str(path))
    networks = tuple(str(beside / name) for name in config.machine.networks)
    return config.model_copy(
        update={"machine": config.machine.model_copy(update={"networks": networks})})


def _table(value, path: Path) -> dict:
    """A table, or that of the file which is named in its place."""
    return read_toml(path.parent / value) if isinstance(value, str) else value


def read_toml(path: Path) -> dict:
    """A TOML file in UTF-8, of at most `FILE_LIMIT` bytes; ConfigError if it is none."""
    try:
        text = read_whole(path, FILE_LIMIT).decode()
        dots = [line.count(".") for line in text.split("\n")]
        if max(dots) > LINE_DOTS or sum(dots) > FILE_DOTS:
            raise ValueError(f"must have at most {LINE_DOTS} dots in a line and {FILE_DOTS} in "
                             f"all, not {max(dots)} and {sum(dots)}")
        return tomllib.loads(text)
    except ConfigError:  # it names the file
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error


def parse_config(values: dict, where: str = "configuration", kind: type = Config):
    """A :class:`Config`, or another `kind`, from plain values; ConfigError if it is none."""
    return parse(values, where, kind)
