"""A network as an ordered list of operations that name their inputs, and the one walk over it.

:mod:`export.operations` says what operations there are. The last one is what the network gives.

A network may read a clip, frame after frame: t = 0, 1, 2, ... An operation has a clock, every so
many frames, and is computed at the last frame of each such period.
Whatever is done with a network (shapes, numpy, torch, cycles) is done by :func:`walk`.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from export.checked import Frozen, count, shown
from export.operations import (
    KINDS,
    MAX_CHANNELS,
    BaseOperation,
    CellConfig,
    ConvConfig,
    MapConfig,
    Operation,
    SumConfig,
)

__all__ = ["MAX_CHANNELS", "PIXELS", "CellConfig", "ConvConfig", "MapConfig", "NetworkConfig",
           "Operation", "Shape", "SumConfig", "walk", "weight_count"]

PIXELS = "pixels"  # the name of the network's input
PIXEL_PEAK = 255
MAX_SIDE, MAX_OPERATIONS = 4096, 256
MAX_PIXEL_CHANNELS = 64
MAX_PERIOD = 64  # frames
MAX_POSITIONS = 2**20  # of a map, so that nothing here takes minutes or gigabytes
MAX_WEIGHTS = 2**25  # of all operations, likewise
MAX_BLOCKS = 2**16  # of generated weights, which come one after the other


class Shape(Frozen):
    """A map of codes, or of pixels; the sums of an operation have one position."""

    channels: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


class NetworkConfig(Frozen):
    """The operations, from eight-bit pixels to a result.

    `fold` makes one position of each block of `fold` x `fold` pixels (space to depth): channel
    `(dy * fold + dx) * channels + c` is channel c of the pixel in row dy, column dx of the block.

    In a file, `layers` is short for `operations`: `classes` adds a classifier of `classifier_bits`
    at their end, and a layer with a mux but no `select` the sum `NAME_select` behind its skip, with
    weights of `select_bits`.
    """

    height: count(MAX_SIDE)
    width: count(MAX_SIDE)
    channels: count(MAX_PIXEL_CHANNELS)
    fold: Literal[1, 2, 4] = 1
    pad: count(PIXEL_PEAK, 0) = 0
    operations: Annotated[tuple[Annotated[Operation, Field(discriminator="kind")], ...],
                          Field(strict=False, min_length=1, max_length=MAX_OPERATIONS,
                                fail_fast=True)]

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, values):
        if not isinstance(values, dict):
            raise ValueError(f"must be a table, not {shown(values)}")
        if "layers" in values:
            if "operations" in values:
                raise ValueError("layers is short for operations: give one of them, not both")
            values = _write_out(values)
        return values

    @field_validator("operations", mode="before")
    @classmethod
    def _with_defaults(cls, operations):
        """Kind and inputs of each, where they are left out."""
        if not isinstance(operations, (list, tuple)):
            return operations
        found, before = [], PIXELS
        for each in operations:
            if isinstance(each, BaseOperation):
                return operations
            if not isinstance(each, dict):
                raise ValueError(f"must be tables, not {shown(each)}")
            each = {"kind": "conv", **each}
            if each["kind"] not in KINDS:
                raise ValueError(f"kind must be one of {', '.join(KINDS)}, "
                                 f"not {shown(each['kind'])}")
            if not each.get("inputs"):
                each["inputs"] = (before,)
            if _makes_codes(each):
                before = each.get("name")
            found.append(each)
        return found

    @model_validator(mode="after")
    def _fits(self):
        if self.height * self.width > MAX_POSITIONS:
            raise ValueError(f"height x width must be at most {MAX_POSITIONS}, "
                             f"not {self.height}x{self.width}")
        if self.height % self.fold or self.width % self.fold:
            raise ValueError(f"height and width must be multiples of fold = {self.fold}, "
                             f"not {self.height}x{self.width}")
        if (channels := self.channels * self.fold**2) > MAX_PIXEL_CHANNELS:
            raise ValueError(f"channels x fold x fold must be at most {MAX_PIXEL_CHANNELS}, "
                             f"not {channels}")
        _check(self)
        return self

    @cached_property
    def by_name(self) -> dict[str, Operation]:
        return {operation.name: operation for operation in self.operations}

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Of the folded pixels and each operation's result; pooling drops an odd row or column."""
        return walk(self, _pixels(self), _shape_of)

    def source(self, operation: Operation) -> Shape:
        """All that the operation's weights see: its inputs, concatenated, or one's bands."""
        return _source(operation, [self.shapes[name] for name in operation.inputs])

    def peak(self, operation: Operation) -> int:
        """The largest value in what the operation's weights see."""
        own = (operation.name,) if operation.kind == "cell" else ()
        return max(PIXEL_PEAK if name == PIXELS else 2**self.by_name[name].code_bits - 1
                   for name in (*operation.inputs, *own))

    def pad_of(self, operation: Operation) -> int:
        """What lies outside of its inputs."""
        return self.pad if operation.inputs == (PIXELS,) else 0

    def readers(self, name: str) -> list[Operation]:
        """The operations that read a map as an input."""
        return [operation for operation in self.operations if name in operation.inputs]

    @cached_property
    def periods(self) -> dict[str, int]:
        """Frames from tick to tick of the clock of the pixels and of each operation's result.

        The slowest input decides. An operation is computed at frame t if t + 1 is a multiple.
        """
        found = {PIXELS: 1}
        for each in self.operations:
            found[each.name] = each.every * max(found[name] for name in each.inputs)
        return found

    @property
    def timed(self) -> bool:
        """Whether it reads a clip, so that what it gives depends on frames before."""
        return any(each.frames > 1 or each.every > 1 or each.kind == "cell"
                   for each in self.operations)

    @property
    def period(self) -> int:
        """Frames from result to result."""
        return self.periods[self.operations[-1].name]

    @property
    def maps(self) -> list[Operation]:
        """The operations that make a map of codes."""
        return [each for each in self.operations if each.makes_codes]

    @property
    def convs(self) -> list[ConvConfig]:
        return [each for each in self.operations if each.kind == "conv"]

    @property
    def output(self) -> Literal["class", "codes", "map"]:
        """What leaves: a class, the codes of the last convolution, or the values of a map."""
        last = self.operations[-1]
        return {"sum": "class", "conv": "codes", "map": "map"}[last.kind]

    @property
    def classes(self) -> int:
        """Of a network that classifies; else the channels of what leaves."""
        return self.operations[-1].channels


def weight_count(operation: Operation, inputs: int) -> int:
    """Weights of an operation that reads so many channels."""
    taps = operation.taps * operation.frames * operation.kernel**2
    return operation.filters * (inputs // operation.groups) * taps


def _pixels(network: NetworkConfig) -> Shape:
    fold = network.fold
    return Shape(channels=network.channels * fold**2, height=network.height // fold,
                 width=network.width // fold)


def walk(network: NetworkConfig, given, apply: Callable, *, keep: bool = True,
         start: str = PIXELS, stop: str | None = None) -> dict:
    """Results by name, what is `given` first: `apply(operation, inputs, skip, select)` for each.

    `inputs` are the results of the operations that it reads, in their order; `skip` and `select`
    are those of its gate, or None. Unless all are to be kept, a result goes with its last reader.
    Given are the pixels, or what the operation `start` gives those behind it; `stop` is the last.
    """
    found, names = {start: given}, [PIXELS, *network.by_name]
    part = slice(names.index(start), names.index(stop) if stop else None)
    last = {name: each.name for each in network.operations for name in each.reads}
    for operation in network.operations[part]:
        skip = select = None
        if operation.kind == "conv":
            skip, select = found.get(operation.skip), found.get(operation.select)
        found[operation.name] = apply(operation, [found[name] for name in operation.inputs],
                                      skip, select)
        if not keep:
            for name in {name for name in operation.reads if last[name] == operation.name}:
                del found[name]
    return found


def _source(operation: Operation, inputs: list[Shape]) -> Shape:
    bands = operation.bands
    return Shape(channels=bands * sum(each.channels for each in inputs),
                 height=inputs[0].height // bands, width=inputs[0].width)


def _shape_of(operation: Operation, inputs: list[Shape], skip, select) -> Shape:
    step = 2 if operation.kind == "conv" and operation.pool else 1
    if operation.kind in ("sum", "cell"):
        return Shape(channels=operation.channels, height=1, width=1)
    source = _source(operation, inputs)
    return Shape(channels=operation.channels, height=source.height // step,
                 width=source.width // step)


def _makes_codes(table: dict) -> bool:
    """Whether the operation of a table makes a map of codes."""
    kind = table["kind"]
    return kind in ("conv", "cell") or (kind == "sum" and table.get("output") == "codes")


def _write_out(values: dict) -> dict:
    """The operations that `layers`, `classes` and muxes without a select are short for."""
    values = dict(values)
    layers, classes = values.pop("layers"), values.pop("classes", None)
    if classes is None and "classifier_bits" in values:
        raise ValueError("classifier_bits must stand beside classes")
    bits = values.pop("classifier_bits", 3)
    if not isinstance(layers, (list, tuple)) or not all(isinstance(each, dict) for each in layers):
        raise ValueError(f"layers must be a list of tables, not {shown(layers)}")
    if len(layers) > MAX_OPERATIONS:
        raise ValueError(f"layers must be at most {MAX_OPERATIONS}, not {len(layers)}")
    operations, before = [], PIXELS
    for layer in layers:
        layer = {"kind": "conv", **layer}
        if _makes_codes(layer):
            layer["inputs"] = layer.get("inputs") or (before,)
            before = layer.get("name")
        if layer.get("gate") in ("mux", "mux_or") and "select" not in layer:
            choice = layer.pop("select_bits", 2)
            layer["select"] = f"{layer.get('name')}_select"
            select = {"kind": "sum", "name": layer["select"], "inputs": (layer.get("skip"),),
                      "channels": layer.get("channels"), "weight_bits": choice, "output": "select"}
            # Right behind what it reads, and behind the selects that are there already.
            at = next((k + 1 for k, each in enumerate(operations)
                       if each.get("name") == layer.get("skip")), 0)
            while at < len(operations) and operations[at].get("output") == "select":
                at += 1
            operations.insert(at, select)
        operations.append(layer)
    if classes is not None:
        operations.append({"kind": "sum", "name": "classifier", "inputs": (before,),
                           "channels": classes, "weight_bits": bits, "output": "class"})
    return {**values, "operations": operations}


def _check(network: NetworkConfig):
    """Refuses operations that do not fit to each other; raises ValueError."""
    names = [operation.name for operation in network.operations]
    if twice := [name for name in names if names.count(name) > 1 or name == PIXELS]:
        raise ValueError(f"names must differ from each other and from {PIXELS!r}, not {twice[0]!r}")
    maps, sums = {PIXELS}, set()
    for operation in network.operations:
        read_sums = [operation.select] if operation.kind == "conv" and operation.select else []
        read_maps = operation.reads[:len(operation.reads) - len(read_sums)]  # select comes last
        for kind, read, known in (("maps", read_maps, maps), ("sums", read_sums, sums)):
            if strange := [name for name in read if name not in known]:
                raise ValueError(f"{operation.name}: must read {kind} of operations before it, "
                                 f"not {strange[0]!r}")
        (maps if operation.makes_codes else sums).add(operation.name)
    first, last = network.operations[0], network.operations[-1]
    if first.inputs != (PIXELS,) or first.kind != "conv" or first.generator is not None:
        raise ValueError(f"{first.name}: the first operation must be a convolution of the pixels "
                         f"with stored weights")
    read = {name for operation in network.operations[1:] for name in operation.reads}
    if PIXELS in read:
        raise ValueError("only the first operation may read the pixels")
    if unread := [name for name in names[:-1] if name not in read]:
        raise ValueError(f"{unread[0]}: no operation reads it")
    if ends := [each.name for each in network.operations[:-1] if _leaves(each)]:
        raise ValueError(f"{ends[0]}: a class or a map of values ends the network, so no operation "
                         f"must come behind it")
    if last.kind not in ("map", "conv") and not _leaves(last):
        came = "a cell" if last.kind == "cell" else "codes" if last.makes_codes else "a select"
        raise ValueError(f"{last.name}: the last operation must be a sum whose output is a class, "
                         f"a map of values or a convolution, not {came}")
    if last.kind == "sum" and last.channels < 2:
        raise ValueError(f"{last.name}: classes must be at least 2, not {last.channels}")
    shapes = walk(network, _pixels(network), lambda *each: _check_operation(network, *each))
    _check_clocks(network)
    weights = sum(weight_count(each, _source(each, [shapes[name] for name in each.inputs]).channels)
                  for each in network.operations)
    blocks = sum(-(-each.channels // each.generator.outputs)
                 * -(-_source(each, [shapes[name] for name in each.inputs]).channels
                     // each.generator.inputs)
                 for each in network.operations if each.generator)
    if blocks > MAX_BLOCKS:
        raise ValueError(f"generated weights must be at most {MAX_BLOCKS} blocks in all, "
                         f"not {blocks}")
    if weights > MAX_WEIGHTS:
        raise ValueError(f"weights must be at most {MAX_WEIGHTS} in all, not {weights}")


def _check_clocks(network: NetworkConfig):
    """Refuses clocks that do not fit to each other; raises ValueError."""
    periods, before = network.periods, PIXELS
    for each in network.operations:
        name, period = each.name, periods[each.name]
        if period > MAX_PERIOD:
            raise ValueError(f"{name}: must be computed every {MAX_PERIOD} frames at least, "
                             f"not every {period}")
        if each.frames > 1 and len(found := {periods[other] for other in each.inputs}) > 1:
            raise ValueError(f"{name}: inputs of {each.frames} frames must be on one clock, not "
                             f"every {' and every '.join(map(str, sorted(found)))} frames")
        for other in each.reads[len(each.inputs):]:
            if periods[other] != period:
                raise ValueError(f"{name}: {other}, which its gate reads, must be on its clock, "
                                 f"every {period} frames, not every {periods[other]}")
        # So the operations of a frame are the first ones, as many as its clocks let through.
        if period < periods[before]:
            raise ValueError(f"{name}: operations must come in the order of their clocks, so every "
                             f"{periods[before]} frames as {before} before it, or less often, "
                             f"not every {period}")
        before = name


def _leaves(operation: Operation) -> bool:
    return operation.kind == "map" or (operation.kind == "sum" and operation.output == "class")


def _check_operation(network: NetworkConfig, operation: Operation, inputs: list[Shape],
                     skip: Shape | None, select: Shape | None) -> Shape:
    name, size = operation.name, inputs[0].size
    if len(set(operation.inputs)) < len(operation.inputs):
        raise ValueError(f"{name}: inputs must differ, not {list(operation.inputs)}")
    for other, shape in zip(operation.inputs, inputs, strict=True):
        if shape.size != size:
            raise ValueError(f"{name}: inputs must have one size, not {size[0]}x{size[1]} and "
                             f"{shape.height}x{shape.width} of {other}")
    if size[0] % operation.bands:
        raise ValueError(f"{name}: bands must divide the {size[0]} rows of its input, "
                         f"not {operation.bands}")
    source = _source(operation, inputs)
    size, channels = source.size, source.channels
    if channels > MAX_CHANNELS:
        raise ValueError(f"{name}: inputs must have at most {MAX_CHANNELS} channels together, "
                         f"not {channels}")
    if operation.kind == "cell" and (len(inputs), size, channels) != (1, (1, 1),
                                                                      operation.channels):
        came = f"{len(inputs)} of" if len(inputs) > 1 else "one of"
        raise ValueError(f"{name}: a cell must read one map of 1x1 pixels and "
                         f"{operation.channels} channels, as many as its own, not {came} "
                         f"{size[0]}x{size[1]} and {channels}")
    if operation.kind != "conv":
        return _shape_of(operation, inputs, skip, select)
    if channels % operation.groups or operation.channels % operation.groups:
        raise ValueError(f"{name}: groups must divide {channels} input and "
                         f"{operation.channels} output channels, not {operation.groups}")
    if operation.pool and min(size) < 2:
        raise ValueError(f"{name}: pooling needs at least 2x2 pixels, not {size[0]}x{size[1]}")
    if skip is not None and network.by_name[operation.skip].kind != "conv":
        raise ValueError(f"{name}: skip must name a convolution, not {operation.skip!r}")
    if skip is not None and size not in (skip.size, (skip.height // 2, skip.width // 2)):
        raise ValueError(f"{name}: skip must have {size[0]}x{size[1]} pixels, or twice as many "
                         f"rows and columns, not {skip.height}x{skip.width}")
    if skip is not None and operation.channels % skip.channels:
        raise ValueError(f"{name}: its {operation.channels} channels must be a multiple of the "
                         f"skip's, not {skip.channels}")
    if select is not None and select.channels != operation.channels:
        raise ValueError(f"{name}: select must be a sum of {operation.channels} channels, not of "
                         f"{select.channels}")
    return _shape_of(operation, inputs, skip, select)
