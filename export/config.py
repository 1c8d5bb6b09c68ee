"""The one configuration that training, export, golden model and hardware share.

A design is one TOML file: the network, the array that runs it, the target and the training recipe.
Reading it gives a frozen :class:`Config`; what follows from it (shapes, word precisions) is a
property and is computed nowhere else.
"""

import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

# A pixel of eight bits enters the array as digits, most significant first: 2 + 3 + 3 bits, or
# 2 + 2 + 2 + 2, or one by one, in the array's highest precision. This is how many.
DIGITS_OF_PIXEL = {3: 3, 2: 4, 1: 8}

Precision = Literal[1, 2, 3]
Positive = Annotated[int, Field(ge=1)]


class ConfigError(ValueError):
    """A configuration, artifact or image that cannot be used; the message is one line."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class GeneratorConfig(_Frozen):
    """A cellular automaton that gives a layer's weights, see :mod:`export.automaton`."""

    rule: Annotated[int, Field(ge=0, le=255)] = 30
    mapping: Literal["binary", "half", "quarter"] = "half"
    outputs: Positive = 8  # of a block: the array's columns
    inputs: Positive = 8  # ... and the operands in one of its words


class LayerConfig(_Frozen):
    """One convolution with bias, shift, clip and, if asked for, a gate and 2x2 max-pooling.

    The gate merges the layer's codes with those of the earlier layer `skip`, before pooling: "or"
    bit by bit, "mux" by choosing for each channel, from the sums over the skip's feature map, and
    "mux_or" as "or" in the channels that are so chosen.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    channels: Positive
    weight_bits: Precision  # 1: binary, 2: ternary, 3: quinary
    code_bits: Precision
    kernel: Literal[1, 3] = 3
    groups: Positive = 1
    pool: bool = False
    skip: str | None = None
    gate: Literal["or", "mux", "mux_or"] | None = None
    select_bits: Precision = 2  # of the weights that a mux chooses by
    generator: GeneratorConfig | None = None

    @model_validator(mode="after")
    def _complete(self):
        if self.generator is not None:
            bits = 1 if self.generator.mapping == "binary" else 2
            if (self.kernel, self.groups, self.weight_bits) != (1, 1, bits):
                raise ValueError(f"{self.name}: generated weights must have kernel 1, groups 1 and "
                                 f"{bits} bits, not {self.kernel}, {self.groups} and "
                                 f"{self.weight_bits}")
        if (self.skip is None) != (self.gate is None):
            raise ValueError(f"{self.name}: skip and gate come together, not alone")
        return self

    @property
    def selects(self) -> bool:
        """Whether its gate has a mux."""
        return self.gate in ("mux", "mux_or")


class Shape(_Frozen):
    """A feature map."""

    channels: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        return self.height * self.width


class NetworkConfig(_Frozen):
    """The layers, from eight-bit pixels to classes."""

    height: Positive
    width: Positive
    channels: Positive
    classes: Annotated[int, Field(ge=2)]
    classifier_bits: Precision = 3
    layers: Annotated[tuple[LayerConfig, ...], Field(min_length=1, strict=False)]
    pad: Annotated[int, Field(ge=0, le=255)] = 0

    @model_validator(mode="after")
    def _fits(self):
        names = [layer.name for layer in self.layers] + ["classifier"]
        if len(set(names)) != len(names):
            raise ValueError(f"layer names must differ from each other and from 'classifier', "
                             f"not {names[:-1]}")
        for layer, shape in zip(self.layers, self.shapes, strict=False):
            if shape.channels % layer.groups or layer.channels % layer.groups:
                raise ValueError(f"{layer.name}: groups must divide {shape.channels} input and "
                                 f"{layer.channels} output channels, not {layer.groups}")
            if layer.pool and min(shape.height, shape.width) < 2:
                raise ValueError(f"{layer.name}: pooling needs at least 2x2 pixels, "
                                 f"not {shape.height}x{shape.width}")
        if self.layers[0].generator is not None:
            raise ValueError(f"{self.layers[0].name}: the weights of the first layer must be "
                             f"stored, not generated")
        for index, layer in enumerate(self.layers):
            if layer.skip is not None:
                self._check_skip(index)
        return self

    def _check_skip(self, index: int):
        layer, out = self.layers[index], self.shapes[index]
        source = self.skip_source(index)
        if source is None:
            raise ValueError(f"{layer.name}: skip must name a layer before it, not {layer.skip!r}")
        skip = self.shapes[source + 1]
        sizes = [(skip.height, skip.width), (skip.height // 2, skip.width // 2)]
        if (out.height, out.width) not in sizes:
            raise ValueError(f"{layer.name}: skip must have {out.height}x{out.width} pixels, or "
                             f"twice as many rows and columns, not {skip.height}x{skip.width}")
        if layer.channels % skip.channels:
            raise ValueError(f"{layer.name}: its {layer.channels} channels must be a multiple of "
                             f"the skip's, not {skip.channels}")

    def skip_source(self, index: int) -> int | None:
        """Index of the layer whose codes the gate of layer `index` takes, if it has one."""
        names = [layer.name for layer in self.layers[:index]]
        skip = self.layers[index].skip
        return names.index(skip) if skip in names else None

    def skip_pooled(self, index: int) -> bool:
        """Whether the skip of layer `index` is pooled to reach the layer's size."""
        skip, out = self.shapes[self.skip_source(index) + 1], self.shapes[index]
        return (skip.height, skip.width) != (out.height, out.width)

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Input of each layer, then the classifier's input; pooling drops an odd row or column."""
        shapes = [Shape(channels=self.channels, height=self.height, width=self.width)]
        for layer in self.layers:
            step = 2 if layer.pool else 1
            shapes.append(Shape(channels=layer.channels, height=shapes[-1].height // step,
                                width=shapes[-1].width // step))
        return tuple(shapes)


class ArrayConfig(_Frozen):
    """The systolic array: `rows` pixels x `columns` channels, `words` six-bit words per PE."""

    rows: Positive
    columns: Positive
    words: Positive
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1, strict=False)] = (1, 2, 3)
    dense: bool = False  # five ternary weights are stored in 8 bits, three quinary ones in 7

    @model_validator(mode="after")
    def _sorted(self):
        if list(self.precisions) != sorted(set(self.precisions)):
            raise ValueError(f"precisions must be ascending and different, "
                             f"not {list(self.precisions)}")
        return self


class TargetConfig(_Frozen):
    """Where the engine will run."""

    family: Literal["ecp5", "ice40"] = "ecp5"
    clock_mhz: Annotated[float, Field(gt=0)] = 50.0


class TrainConfig(_Frozen):
    """The training recipe; :mod:`model.train` says what it does with it."""

    epochs: Positive = 40  # of the quantized network
    teacher_epochs: Annotated[int, Field(ge=0)] = 0  # of the float network before it
    code_epochs: Annotated[int, Field(ge=0)] = 0  # of `epochs`, with codes but not weights rounded
    distillation: Annotated[float, Field(ge=0, le=1)] = 0.0  # the teacher's share of the loss
    temperature: Annotated[float, Field(gt=0)] = 2.0
    batch: Positive = 250
    learning_rate: Annotated[float, Field(gt=0)] = 0.01  # peak
    teacher_learning_rate: Annotated[float, Field(gt=0)] = 0.01
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    cutout: Annotated[int, Field(ge=0)] = 0  # side of the hole in each training image
    # Side of the squares that are trained on before the last `full_epochs`; 0: whole images.
    # A square of 24 takes 56 % of the time of 32.
    crop: Annotated[int, Field(ge=0)] = 0
    full_epochs: Annotated[int, Field(ge=0)] = 0
    validate_every: Positive = 1  # epochs; exact float32 is slow
    # Whether codes that a mux merges begin in the middle of their range, not half-wave.
    centred_muxes: bool = False
    seed: int = 1
    # For comparisons: thresholds of the weights' levels (histogram-equalized, fixed, learned); and,
    # which cannot be exported, a float batch normalization in place of the layer's shift, and real
    # numbers that are added in place of codes that are gated.
    steps: Literal["equalized", "mean", "learned"] = "equalized"
    normalization: Literal["shift", "batch"] = "shift"
    residuals: Literal["gates", "add"] = "gates"

    @model_validator(mode="after")
    def _taught(self):
        if self.distillation and not self.teacher_epochs:
            raise ValueError("distillation needs teacher_epochs")
        if self.code_epochs >= self.epochs:
            raise ValueError(f"code_epochs must be fewer than the {self.epochs} epochs, "
                             f"not {self.code_epochs}")
        return self


class Config(_Frozen):
    """One design."""

    name: str
    network: NetworkConfig
    array: ArrayConfig
    target: TargetConfig = TargetConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _crop_fits(self):
        least = 2 ** sum(layer.pool for layer in self.network.layers)
        most = min(self.network.height, self.network.width)
        if self.train.crop and not least <= self.train.crop <= most:
            raise ValueError(f"train.crop must be 0 or from {least} to {most} pixels, "
                             f"not {self.train.crop}")
        return self


def load_config(path: str | Path) -> Config:
    """Reads one TOML file; its stem is the design's name.

    Raises
    ------
    ConfigError
        One line that names the file, the field, what was wanted and what came.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    return parse_config({"name": path.stem, **values}, str(path))


def parse_config(values: dict, where: str = "configuration", kind: type = Config):
    """A :class:`Config`, or another `kind`, from plain values.

    Raises
    ------
    ConfigError
        One line that names `where`, the field, what was wanted and what came.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        came = "" if isinstance(first["input"], dict) else f", not {first['input']!r}"
        field = ".".join(map(str, first["loc"]))
        raise ConfigError(": ".join(filter(None, (where, field, said))) + came) from error
