"""What a machine can do: all that `hw/` knows. It says nothing of a network, but what would fit.

:meth:`Hardware.of` gives the smallest machine for some programs, :meth:`Hardware.check` refuses a
program that does not fit one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal, get_type_hints

from export.automaton import CELLS
from export.checked import ConfigError
from export.config import DIGITS_OF_PIXEL, ArrayConfig
from export.network import PIXELS
from export.program import Program
from export.words import operands

# Cycles of the blocks of `hw/`, which take them from here: a program's cycles are known without it.
SEQUENCER_CYCLES = 4  # fetch, load, clear, first channel tile
BUFFER_CYCLES = 1  # until the next frame's pixels may come, where another buffer is free
LOOK_CYCLES = 2  # fetch, and see that the operation is not of this frame of a clip
MEMORY_CYCLES = 2  # block RAM and its output register
FEEDER_CYCLES = 7 + MEMORY_CYCLES  # addresses, memory, border, rotation, relay
UNPACKER_CYCLES = 1  # of weights
DECODER_CYCLES = 1  # of weights, which enter the array so much earlier
PE_CYCLES = 2  # activations before their control
DRAIN_CYCLES = 3  # sum kept, shown, of the column
CLUSTER = 2  # rows and columns of processing elements that share a register of what they read
EPILOGUE_CYCLES = 6  # select, bias, shift, clip, gate and first pair of a pool, pool
WRITE_CYCLES = 2  # of the memory, and until all is known to be in it
TOTALS_CYCLES = 4  # sums complete, taken to be compared, last comparison done, best one written
VECTOR_CYCLES = WRITE_CYCLES  # ... clipped meanwhile, and written


def bits_for(peak: int) -> int:
    """Bits of an unsigned field that holds 0 ... `peak`; at least one."""
    return max(1, peak.bit_length())


@dataclass(frozen=True, order=True)
class PixelFormat:
    """The pixels of a frame, and how words hold a position of `fold` x `fold` of them."""

    channels: int
    fold: int
    digit_words: int
    taps_per_word: int

    @property
    def bits(self) -> int:
        """Of a position."""
        return 8 * self.channels * self.fold**2

    def __str__(self) -> str:
        return f"{self.channels} channels, fold {self.fold}, {self.taps_per_word} in a word"


@dataclass(frozen=True, order=True)
class GeneratorFormat:
    """An automaton that gives weights."""

    rule: int
    mapping: str
    mode: int  # word precision of its layers

    def cells(self, array: ArrayConfig) -> int:
        """Its cells: one block of weights of all columns."""
        return array.columns * operands(self.mode, array.words) * CELLS[self.mapping]

    def __str__(self) -> str:
        return f"rule {self.rule}, mapping {self.mapping}, words of {self.mode} bits"


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Sizes, formats and features of a machine."""

    array: Annotated[ArrayConfig, "array"]
    memory: Annotated[Literal["rom", "ram"], "memory of programs"] = "rom"
    programs: Annotated[int, "programs"] = 1
    pixels: Annotated[frozenset[PixelFormat], "pixel formats"]
    pixel_words: Annotated[int, "words of activation memory for pixels"]
    pixel_slots: Annotated[int, "pixel tiles of a frame"]
    frame_width: Annotated[int, "columns of a frame"]  # in positions
    frame_height: Annotated[int, "rows of a frame"]
    layers: Annotated[int, "operations of a program"]
    operations: Annotated[int, "operations"]
    tiles: Annotated[int, "channel tiles of all operations"]
    activation_words: Annotated[int, "words of activation memory"]
    skip_words: Annotated[int, "words of skip memory"]
    select_words: Annotated[int, "words of select bits"]
    # Stored bits of a word of weights, ascending, and the words that are at least so wide.
    weights: Annotated[tuple[tuple[int, int], ...], "stored words of weights"]
    seeds: Annotated[int, "seeds of generated weights"]
    acc_bits: Annotated[int, "bits of an accumulator"]
    total_bits: Annotated[int, "bits of a sum over all pixels"]
    classes: Annotated[int, "classes"]
    width: Annotated[int, "columns of a map"]
    height: Annotated[int, "rows of a map"]
    slots: Annotated[int, "pixel tiles of a map"]
    words: Annotated[int, "input words of a tap"]
    channel_tiles: Annotated[int, "channel tiles of an operation"]
    pool_width: Annotated[int, "columns of a pooled map"]
    formats: Annotated[frozenset[tuple[int, int]], "formats of stored weights"]
    gates: Annotated[frozenset[str], "gates"]
    rescales: Annotated[frozenset[int], "rescalings of a skip"]
    generators: Annotated[frozenset[GeneratorFormat], "generators of weights"]
    outputs: Annotated[frozenset[str], "outputs"]
    output_words: Annotated[int, "words of output memory"]
    output_units: Annotated[int, "units of channels that leave of a pixel"]
    output_pixels: Annotated[int, "pixels of an output"]
    output_channels: Annotated[int, "channels of an output"]
    clocks: Annotated[int, "clocks of a clip"] = 0  # 0: no frame depends on those before
    pixel_frames: Annotated[int, "frames of pixels that are kept"] = 1
    pixel_buffers: Annotated[int, "frames of pixels that are there or come in"] = 1
    vectors: Annotated[int, "sums that make codes"] = 0  # 0 or 1: there are
    state_words: Annotated[int, "words of the state of cells"] = 0
    state_bits: Annotated[int, "bits of the state of a cell"] = 0

    @classmethod
    def of(cls, programs: Sequence[Program], *, memory: str = "rom", slots: int = 0,
           hold: int = 1) -> "Hardware":
        """The smallest machine that runs each of the programs.

        It holds any one of them at a time or, with `hold`, any so many beside each other; RAM can
        have records for more, `slots`.

        Raises
        ------
        ConfigError
            If their arrays differ.
        """
        if not 1 <= hold <= len(programs):
            raise ConfigError(f"a machine for {len(programs)} programs must hold 1 ... "
                              f"{len(programs)} of them, not {hold}")
        buffers = max(program.pixel_buffers for program in programs)
        alike = [program if program.pixel_buffers == buffers
                 else Program(program.config, pixel_buffers=buffers) for program in programs]
        pixel_words = max(program.pixel_words for program in alike)
        needs = [_needs(program if program.pixel_words == pixel_words
                        else Program(program.config, pixel_words, buffers)) for program in alike]
        return replace(_merge(needs, hold), memory=memory, programs=max(hold, slots))

    def place(self, config) -> Program:
        """The program of a configuration as this machine runs it, or a ConfigError."""
        program = Program(config, self.pixel_words, self.pixel_buffers)
        self.check(program)
        return program

    def check(self, program: Program):
        """Refuses a program that does not fit; the line names what it needs and what is there."""
        need = _needs(program)
        for each in fields(self):
            wanted, there = getattr(need, each.name), getattr(self, each.name)
            if each.name in ("memory", "programs"):
                continue
            if _united(each.name, (there, wanted)) != there:
                raise ConfigError(f"{program.config.name}: does not fit the machine: "
                                  f"{_TEXTS[each.name]}: needs {_said(wanted)}, "
                                  f"has {_said(there)}")
        for name in ("pixel_words", "pixel_buffers"):
            if getattr(need, name) != getattr(self, name):
                raise ConfigError(f"{program.config.name}: must be placed for a machine with "
                                  f"{getattr(self, name)} {_TEXTS[name]}, "
                                  f"not {getattr(need, name)}")

    # ---- what follows

    @property
    def bias_bits(self) -> int:
        """Signed sum of an accumulator and a folded bias, if |bias| <= `bias_peak`."""
        return self.acc_bits + 3

    @property
    def bias_peak(self) -> int:
        return 2**(self.acc_bits + 1)

    @property
    def score_bits(self) -> int:
        """Signed sum over all pixels with its bias; no less than a stored bias."""
        return max(self.total_bits, self.bias_bits)

    @property
    def side(self) -> int:
        return max(self.width, self.height)

    @property
    def gated(self) -> bool:
        """Whether there is a skip memory."""
        return self.skip_words > 0

    @property
    def carries(self) -> bool:
        """Whether a write of codes may begin in a word's last lane and end in the next's first."""
        return 2 in self.array.precisions and self.array.unit == 2 * self.array.words

    @property
    def digits(self) -> int:
        """Passes over a pixel's digits."""
        return DIGITS_OF_PIXEL[self.array.digit_bits]

    @property
    def second_buffer(self) -> int:
        """Where the second one of two buffers of pixels begins; the first one does at 0."""
        return self.pixel_words // 2

    @property
    def pixel_bits(self) -> int:
        """Of a pixel on its way in."""
        return 8 * max(each.channels for each in self.pixels)

    @property
    def sequencer_cycles(self) -> int:
        """From the end of an operation to its successor's border flags; rings take one more."""
        return SEQUENCER_CYCLES + (self.clocks > 0)

    @property
    def result_words(self) -> bool:
        """Whether results leave as words of 32 bits: if there are others than a class."""
        return self.outputs != {"class"}

    @property
    def summing(self) -> bool:
        """Whether sums over all pixels are needed: of a class, or of a mux."""
        return self.select_words > 0 or self.vectors > 0 or "class" in self.outputs

    @property
    def cells(self) -> bool:
        """Whether there are recurrent cells."""
        return self.state_words > 0

    @property
    def folds(self) -> bool:
        """Whether blocks of pixels are made one position."""
        return any(each.fold > 1 for each in self.pixels)

    @property
    def valued(self) -> bool:
        """Whether sums are clipped to signed values: of a map, or of a cell."""
        return self.cells or "map" in self.outputs

    @property
    def value_bits(self) -> int:
        """Of a channel in the output memory."""
        return 8 if "map" in self.outputs else 3

    @property
    def weight_edges(self) -> list[int]:
        """Bits at which the stored words of weights are cut into segments, 0 first.

        Each segment has a memory of its own, of which a layer with narrow words reads only the
        first ones; so no bit is spent on the difference.
        """
        return [0, *(bits for bits, _ in self.weights)]

    @property
    def seed_bits(self) -> int:
        """Cells of the largest automaton."""
        return max((each.cells(self.array) for each in self.generators), default=0)


_TEXTS = {name: hint.__metadata__[0]
          for name, hint in get_type_hints(Hardware, include_extras=True).items()}


def _needs(program: Program) -> Hardware:
    layers, network, array = program.layers, program.config.network, program.array
    stored = sorted({layer.stored_bits for layer in layers if layer.stored_bits})
    convs = [layer for layer in layers if layer.operation.kind == "conv"]
    gated = [layer for layer in convs if layer.operation.gate]
    generated = [layer for layer in layers if layer.operation.generator]
    pooling = [layer.source.width // 2 for layer in convs
               if layer.keep_pooled or layer.operation.pool]
    acc_bits = max(layer.sum_peak for layer in layers).bit_length()
    first, last, leaves = layers[0], layers[-1], network.output != "class"
    frame = network.shapes[PIXELS]
    return Hardware(
        array=array,
        pixels=frozenset([PixelFormat(network.channels, network.fold, first.input_words,
                                      first.taps_per_word)]),
        pixel_words=program.pixel_words, pixel_slots=first.input_slots,
        frame_width=frame.width, frame_height=frame.height,
        layers=len(layers), operations=len(layers),
        tiles=sum(layer.channel_tiles for layer in layers),
        activation_words=program.activation_words, skip_words=program.skip_words,
        select_words=program.select_words,
        weights=tuple((bits, weight_rows(program, bits)) for bits in stored),
        seeds=len(generated),
        acc_bits=acc_bits,
        total_bits=3 + max((layer.sum_peak * layer.source.pixels
                            for layer in layers if layer.summed), default=0).bit_length(),
        classes=network.classes if network.output == "class" else 0,
        width=max(layer.source.width for layer in layers),
        height=max(layer.source.height for layer in layers),
        slots=max(layer.slots for layer in layers),
        words=max(layer.words for layer in layers),
        channel_tiles=max(layer.channel_tiles for layer in layers),
        pool_width=max(pooling, default=0),
        formats=frozenset((layer.mode, layer.weight_bits) for layer in layers
                          if not layer.operation.generator),
        gates=frozenset(layer.operation.gate for layer in gated),
        rescales=frozenset(layer.rescale for layer in gated),
        generators=frozenset(generator_format(layer) for layer in generated),
        outputs=frozenset([network.output]),
        output_words=program.output_words, output_units=last.units,
        output_pixels=last.out_pixels, output_channels=last.channels if leaves else 0,
        clocks=1 + last.clock if network.timed else 0, pixel_frames=first.frames,
        pixel_buffers=program.pixel_buffers,
        vectors=int(any(layer.summed and layer.operation.makes_codes for layer in layers)),
        state_words=program.state_words,
        state_bits=max((layer.operation.state_bits for layer in layers
                        if layer.operation.kind == "cell"), default=0))


def weight_rows(program: Program, bits: int) -> int:
    """Steps whose stored words have `bits` or more: what a segment that ends there holds."""
    return sum(layer.weight_steps for layer in program.layers if layer.stored_bits >= bits)


def generator_format(layer) -> GeneratorFormat:
    generator = layer.operation.generator
    return GeneratorFormat(generator.rule, generator.mapping, layer.mode)


def _merge(needs: Sequence[Hardware], hold: int) -> Hardware:
    values = {}
    for each in fields(Hardware):
        found = [getattr(need, each.name) for need in needs]
        values[each.name] = _united(each.name, found, hold)
        if values[each.name] is None:
            other = next(value for value in found if value != found[0])
            raise ConfigError(f"programs of one machine must have the same {_TEXTS[each.name]}, "
                              f"not {_said(found[0])} and {_said(other)}")
    return Hardware(**values)


def _rows(weights: tuple[tuple[int, int], ...], edge: int) -> int:
    """Words of at least `edge` bits."""
    return next((depth for bits, depth in weights if bits >= edge), 0)


def _united(name: str, found: Sequence, hold: int = 1):
    """The least that serves all, any `hold` of them beside each other; None if nothing does."""
    if name in ("operations", "tiles", "seeds"):  # what programs lie beside each other in
        return sum(sorted(found)[-hold:])
    if name == "weights":
        edges = sorted({bits for weights in found for bits, _ in weights})
        return tuple((edge, sum(sorted(_rows(weights, edge) for weights in found)[-hold:]))
                     for edge in edges)
    if isinstance(found[0], frozenset):
        return frozenset.union(*found)
    if isinstance(found[0], int):
        return max(found)
    return found[0] if all(value == found[0] for value in found) else None


def _said(value) -> str:
    if isinstance(value, frozenset):
        between = "; " if any("," in str(each) for each in value) else ", "
        return between.join(map(str, sorted(value))) or "none"
    if isinstance(value, tuple):
        return ", ".join(f"{rows} of {bits} bits" for bits, rows in value) or "none"
    return str(value)
