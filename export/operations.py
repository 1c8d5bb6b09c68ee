"""The operations of a network: what each one reads, how it computes, and what it makes.

A convolution makes a map of codes from one or several earlier maps. A sum adds a 1x1 layer's sums
over all pixels and makes of them a class, a bit per channel that a multiplexer selects by, or the
codes of a map of one position. A cell remembers: it makes such a map from another one and from its
own last result. A map of values keeps the sums of each pixel.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from export.checked import Frozen, Name, Precision, count

MAX_CHANNELS = 4096


class GeneratorConfig(Frozen):
    """A cellular automaton that gives a layer's weights, see :mod:`export.automaton`."""

    rule: count(255, 0) = 30
    mapping: Literal["binary", "half", "quarter"] = "half"
    outputs: count(256) = 8  # of a block: the array's columns
    inputs: count(256) = 8  # ... and the operands in one of its words


class BaseOperation(Frozen):
    """What all operations have in common; without `inputs` it reads the one before it.

    `taps` counts what a weight's last axis reaches over beside rows, columns and frames.
    """

    taps: ClassVar[int] = 1

    name: Name
    inputs: Annotated[tuple[Name, ...], Field(strict=False, max_length=64, fail_fast=True)] = ()
    channels: count(MAX_CHANNELS)
    weight_bits: Precision  # 1: binary, 2: ternary, 3: quinary
    every: Literal[1, 2] = 1  # 2: at every second tick of the inputs' clock only, the odd ones

    @property
    def reads(self) -> tuple[str, ...]:
        """The operations whose results it needs."""
        return self.inputs

    @property
    def filters(self) -> int:
        """Sums that its weights and biases give at each position."""
        return self.channels

    @property
    def makes_codes(self) -> bool:
        """Whether its result is a map of codes, of `code_bits`."""
        return False


class ConvConfig(BaseOperation):
    """A convolution with bias, shift, clip and, if asked for, a gate and 2x2 max-pooling.

    Several inputs of one size are concatenated: their channels follow each other. The gate merges
    the codes with those of the earlier operation `skip`, before pooling: "or" bit by bit, "mux"
    channel by channel, by the bits of the sum `select`, and "mux_or" as "or" where they are set.
    With `frames` = 3 it sums over the last three of its inputs' clock, kernel index 0 the oldest;
    before a clip's first frame lies what lies outside of the map.

    With `bands` = k it sees its input's rows as k bands of as many rows each, one behind the other,
    whose channels follow each other: one map of k times the channels and the k-th part of the rows.
    So a 1x1 layer can be a transform of whole blocks.
    """

    kind: Literal["conv"] = "conv"
    code_bits: Precision
    kernel: Literal[1, 3] = 3
    frames: Literal[1, 3] = 1
    groups: count(MAX_CHANNELS) = 1
    bands: count(MAX_CHANNELS) = 1
    pool: bool = False
    skip: Name | None = None
    gate: Literal["or", "mux", "mux_or"] | None = None
    select: Name | None = None
    generator: GeneratorConfig | None = None

    @model_validator(mode="after")
    def _complete(self):
        if self.generator is not None:
            bits = 1 if self.generator.mapping == "binary" else 2
            if (self.kernel, self.groups, self.weight_bits) != (1, 1, bits):
                raise ValueError(f"{self.name}: generated weights must have kernel 1, groups 1 and "
                                 f"{bits} bits, not {self.kernel}, {self.groups} and "
                                 f"{self.weight_bits}")
            if self.frames != 1:
                raise ValueError(f"{self.name}: generated weights must have frames = 1, "
                                 f"not {self.frames}")
        if self.bands > 1 and (len(self.inputs), self.groups, self.frames, self.generator) != (
                1, 1, 1, None):
            raise ValueError(f"{self.name}: bands need one input, one group, one frame and "
                             f"stored weights, not {len(self.inputs)} inputs, {self.groups} "
                             f"groups and {self.frames} frames")
        if (self.skip is None) != (self.gate is None):
            raise ValueError(f"{self.name}: skip and gate come together, not alone")
        if (self.select is not None) != self.selects:
            raise ValueError(f"{self.name}: select must name a sum if the gate has a mux, and only "
                             f"then, not {self.select!r}")
        return self

    @property
    def selects(self) -> bool:
        """Whether its gate has a mux."""
        return self.gate in ("mux", "mux_or")

    @property
    def reads(self) -> tuple[str, ...]:
        return (*self.inputs, *filter(None, (self.skip, self.select)))

    @property
    def makes_codes(self) -> bool:
        return True


class PlainOperation(BaseOperation):
    """What has a 1x1 layer's weights, all of them stored."""

    kernel: ClassVar[int] = 1
    frames: ClassVar[int] = 1
    groups: ClassVar[int] = 1
    bands: ClassVar[int] = 1
    generator: ClassVar[None] = None


class SumConfig(PlainOperation):
    """A 1x1 layer's sums over all pixels, and what becomes of them.

    "class": the highest one wins; it ends the network. "select": 1 per channel where the sum is not
    negative, for the multiplexers that name it. "codes": bias, shift and clip to `code_bits` make
    of them a map of one position.
    """

    kind: Literal["sum"] = "sum"
    output: Literal["class", "select", "codes"] = "class"
    code_bits: Precision | None = None

    @model_validator(mode="after")
    def _complete(self):
        if (self.code_bits is not None) != self.makes_codes:
            raise ValueError(f"{self.name}: code_bits must be 1, 2 or 3 if its output is codes, "
                             f"and only then, not {self.code_bits}")
        return self

    @property
    def makes_codes(self) -> bool:
        return self.output == "codes"


class CellConfig(PlainOperation):
    """A recurrent cell of `channels` units: x(t), a map of one position, and h(t-1) give h(t).

    Its sums come gate by gate, i, f, g and o, or f, g and o of the "coupled" form. i, f and o are 1
    where they are not negative; g is clipped to `value_bits`, c to `state_bits`, both signed::

        full      c = clip((f ? c : 0) + (i ? g : 0))
        coupled   c = f ? c : clip(g)
        h = o ? clip((c >> state_shift) + 2**(code_bits - 1), 0, 2**code_bits - 1) : 0

    The default of `state_shift` spreads all of c over the codes. A clip begins with h = c = 0.
    """

    kind: Literal["cell"] = "cell"
    code_bits: Precision  # of h
    form: Literal["full", "coupled"] = "full"
    value_bits: count(8, 2) = 8
    state_bits: count(8, 2) = 8
    state_shift: count(7, 0) = Field(default_factory=lambda found: max(
        0, found.get("state_bits", 8) - found.get("code_bits", 1)))
    taps: ClassVar[int] = 2  # x(t), h(t-1)

    @property
    def gates(self) -> str:
        """In the order of the filters, each of `channels`."""
        return "ifgo" if self.form == "full" else "fgo"

    @property
    def filters(self) -> int:
        return len(self.gates) * self.channels

    @property
    def makes_codes(self) -> bool:
        return True


class MapConfig(PlainOperation):
    """A 1x1 layer's signed sums of each pixel, with bias, shift and clip; it ends the network.

    A value has `out_bits`: -2**(out_bits - 1) ... 2**(out_bits - 1) - 1.
    """

    kind: Literal["map"] = "map"
    out_bits: count(8, 2) = 8


Operation = ConvConfig | SumConfig | MapConfig | CellConfig
KINDS = "conv", "sum", "map", "cell"
