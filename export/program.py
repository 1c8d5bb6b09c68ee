"""What the engine does for a configuration, cycle by cycle, before any weight is known.

A :class:`Program` says for every layer in which precision and order its words are read, where its
feature maps lie in the activation memory, and how many cycles it takes. Hardware, weight packing
and the cycle model all read it; nothing of it is computed twice.

Memory map: address `base + word * slots + slot` of bank `n mod rows` holds one word group (all its
operands) of pixel `n = slot * rows + bank`. The pixels of the next frame have a region of their own
at address 0; behind it, feature maps alternate between the low and the high end.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import gcd

from export.config import DIGITS_OF_PIXEL, Config, ConfigError, Shape
from export.words import operands, stored_bits

# Cycles of a layer beyond its tiles, the array's skew and its drain: descriptor fetch, feeder,
# processing element, epilogue; then the write to the memory, or the classifier's comparisons
# (and one per column). The engine's tests hold the hardware to these numbers.
PIPELINE_CYCLES = 16
CLASSIFIER_CYCLES = 13


@dataclass(frozen=True, kw_only=True)
class LayerProgram:
    """One layer as the engine sees it; the classifier is a 1x1 layer whose pixels are summed."""

    name: str
    source: Shape  # input feature map
    channels: int  # output channels
    mode: int  # word precision, 1 ... 3
    weight_bits: int  # of the alphabet in which weights are stored: 1 has no zero
    stored_bits: int  # of the weights of one step and column
    code_bits: int
    groups: int
    kernel: int
    pool: bool
    classifier: bool
    digits: int  # passes over the pixels' digits; 1 behind the first layer
    digit_words: int  # words between one digit and the next
    taps_per_word: int  # horizontally neighbouring pixels in one word
    slots: int
    first_words: tuple[int, ...]  # input word that each tile of output channels starts with
    words: int  # input words that each of them reads, of every kernel tap
    pixel_tiles: int
    tail: int  # operands in the last word of a tap
    in_base: int = 0
    out_base: int = 0
    out_mode: int = 0  # word precision of the layer that reads the output
    out_slots: int = 0

    @property
    def dx(self) -> range:
        """Columns of the kernel that are stepped through; packed taps need fewer."""
        if self.kernel == 1 or self.taps_per_word == 3:
            return range(0, 1)
        return range(-1, 1 if self.taps_per_word == 2 else 2)

    @property
    def dy(self) -> range:
        return range(0, 1) if self.kernel == 1 else range(-1, 2)

    @property
    def channel_tiles(self) -> int:
        return len(self.first_words)

    @property
    def steps(self) -> int:
        """Steps of a tile in one pass over kernel and words; pixels take one pass per digit."""
        return len(self.dx) * len(self.dy) * self.words

    @property
    def weight_steps(self) -> int:
        """Words of its weights that each column reads."""
        return self.channel_tiles * self.steps

    @property
    def weight_peak(self) -> int:
        """Largest |weight|."""
        return 2 if self.weight_bits == 3 else 1

    @property
    def input_peak(self) -> int:
        """What an inverted zero counts: all bits of a code, or of a pixel over its digits."""
        return 255 if self.digits > 1 else 2**self.mode - 1

    @property
    def sum_peak(self) -> int:
        """Largest value of an accumulator."""
        return (self.source.channels // self.groups * self.kernel**2 * self.weight_peak
                * self.input_peak)

    @property
    def macs(self) -> int:
        return (self.source.pixels * self.channels * self.source.channels // self.groups
                * self.kernel**2)


class Program:
    """The layers of a configuration, classifier last, and all sizes that follow.

    Raises
    ------
    ConfigError
        If the array lacks a precision that a layer needs.
    """

    def __init__(self, config: Config):
        self.config = config
        self.array = config.array
        self.layers = self._place(self._unplaced())

    # ---- sizes of the array

    @property
    def digit_bits(self) -> int:
        return max(self.array.precisions)

    @property
    def unit(self) -> int:
        """Channels written per cycle; they never share a lane with half of another unit."""
        lane = 2 * self.array.words
        return lane if self.array.columns % lane == 0 else gcd(self.array.columns,
                                                              self.array.words)

    @property
    def units(self) -> int:
        """Cycles in which the epilogue takes one pixel."""
        return self.array.columns // self.unit

    @property
    def min_period(self) -> int:
        """Fewest cycles from tile to tile: the previous one must be drained, scores compared."""
        return max(self.array.rows * self.units, self.array.columns + 2, 4)

    # ---- layers

    def _unplaced(self) -> list[LayerProgram]:
        network, layers = self.config.network, []
        bits_in = self.digit_bits  # of the first layer's digits
        for index, (layer, source) in enumerate(zip(network.layers, network.shapes,
                                                    strict=False)):
            layers.append(self._layer(
                name=layer.name, source=source, channels=layer.channels, kernel=layer.kernel,
                groups=layer.groups, weight_bits=layer.weight_bits, bits_in=bits_in,
                code_bits=layer.code_bits, pool=layer.pool, pixels=index == 0, classifier=False))
            bits_in = layer.code_bits
        layers.append(self._layer(
            name="classifier", source=network.shapes[-1], channels=network.classes, kernel=1,
            groups=1, weight_bits=network.classifier_bits, bits_in=bits_in, code_bits=1,
            pool=False, pixels=False, classifier=True))
        return layers

    def _mode(self, name: str, bits: int) -> int:
        for mode in self.array.precisions:
            if mode >= bits:
                return mode
        raise ConfigError(f"{name}: needs words of {bits} bits, the array has "
                          f"precisions {list(self.array.precisions)}")

    def _layer(self, *, name, source, channels, kernel, groups, weight_bits, bits_in, code_bits,
               pool, pixels, classifier) -> LayerProgram:
        mode = self._mode(name, max(weight_bits, bits_in))
        digits = DIGITS_OF_PIXEL[self.digit_bits] if pixels else 1

        def geometry(mode):
            """Taps per word and the input words of each channel tile."""
            ops = operands(mode, self.array.words)
            taps = 1  # binary weights have no zero for the taps of a word that do not count
            if pixels and kernel == 3 and groups == 1 and weight_bits > 1:
                taps = max(1, min(3, ops // source.channels))
            spans = []
            for first in range(0, channels, self.array.columns):
                last = min(first + self.array.columns, channels) - 1
                start, stop = (c * groups // channels * (source.channels // groups)
                               for c in (first, last))
                spans.append((start, (stop + source.channels // groups) * taps))
            return ops, taps, spans

        ops, taps, spans = geometry(mode)
        # One-bit weights have no zero, so every lane of a tap must belong to every channel
        # of the tile; else they are stored as ternary ones.
        size = source.channels // groups
        binary = weight_bits == 1 and all(
            start % ops == 0 and stop - start == size for start, stop in spans)
        if weight_bits == 1 and not binary:
            weight_bits = 2
            mode = self._mode(f"{name}: binary weights whose groups do not fill whole words",
                              max(mode, 2))
            ops, taps, spans = geometry(mode)
        # All tiles of a layer take the same steps, so that none overtakes the drain of the one
        # before; those with fewer words read some of another group, with weight zero.
        total = -(-source.channels * taps // ops)
        words = max(-(-stop // ops) - start // ops for start, stop in spans)
        first_words = tuple(min(start // ops, total - words) for start, _ in spans)
        return LayerProgram(
            name=name, source=source, channels=channels, mode=mode,
            weight_bits=weight_bits,
            stored_bits=stored_bits(mode, weight_bits, self.array.words, self.array.dense),
            code_bits=code_bits, groups=groups,
            kernel=kernel, pool=pool, classifier=classifier, digits=digits,
            digit_words=total, taps_per_word=taps, slots=-(-source.pixels // self.array.rows),
            first_words=first_words, words=words,
            pixel_tiles=-(-source.pixels // self.array.rows),
            tail=(size * taps - 1) % ops + 1)

    def _place(self, layers: list[LayerProgram]) -> tuple[LayerProgram, ...]:
        sizes = [layers[0].digits * layers[0].digit_words * layers[0].slots]
        for layer, reader in pairwise(layers):
            written = layer.channel_tiles * self.array.columns
            words = -(-written // operands(reader.mode, self.array.words))
            sizes.append(words * reader.slots)
        # the first layer reads the pixels' own region
        pairs = [a + b for a, b in pairwise([0, *sizes[1:]])]
        self.depth = sizes[0] + max(pairs)
        bases = [0] + [sizes[0] if k % 2 == 0 else self.depth - size
                       for k, size in enumerate(sizes[1:])]
        placed = []
        for k, layer in enumerate(layers):
            values = dict(vars(layer), in_base=bases[k])
            if not layer.classifier:
                values |= {"out_base": bases[k + 1], "out_mode": layers[k + 1].mode,
                           "out_slots": layers[k + 1].slots}
            placed.append(LayerProgram(**values))
        return tuple(placed)

    # ---- widths

    @cached_property
    def acc_bits(self) -> int:
        """Unsigned accumulator of a processing element: no sum of this network can exceed it."""
        return max(layer.sum_peak for layer in self.layers).bit_length()

    @property
    def bias_bits(self) -> int:
        """Signed sum of an accumulator and a folded bias, if |bias| <= `bias_peak`."""
        return self.acc_bits + 3

    @property
    def bias_peak(self) -> int:
        return 2**(self.acc_bits + 1)

    @property
    def score_bits(self) -> int:
        """Signed sum over all pixels of the classifier, if |bias| <= its sums' peak."""
        last = self.layers[-1]
        return max((last.sum_peak * last.source.pixels).bit_length() + 3, self.bias_bits)

    @cached_property
    def weight_widths(self) -> tuple[int, ...]:
        """Bits per column of the weight memory's segments.

        The first segments of a stored word lie in as many memories, of which a layer with narrow
        words reads only the first ones; so no bit is spent on the difference.
        """
        edges = sorted({layer.stored_bits for layer in self.layers})
        return tuple(b - a for a, b in pairwise([0, *edges]))

    def weight_segments(self, layer: LayerProgram) -> int:
        """Segments that the layer's stored words have."""
        return 1 + sorted({layer.stored_bits for layer in self.layers}).index(layer.stored_bits)

    # ---- cycles

    def tile_cycles(self, layer: LayerProgram) -> int:
        """Cycles from tile to tile."""
        return max(layer.steps * layer.digits, self.min_period)

    def layer_cycles(self, layer: LayerProgram) -> int:
        """Cycles from the start of a layer to the start of the next one, exactly."""
        fill = self.array.rows  # border flags of the first tile
        skew = self.array.rows + self.array.columns
        drain = self.array.rows * self.units
        end = CLASSIFIER_CYCLES + self.array.columns if layer.classifier else PIPELINE_CYCLES
        tiles = layer.pixel_tiles * layer.channel_tiles
        # Nobody waits behind the last tile.
        return (fill + skew + drain + end
                + (tiles - 1) * self.tile_cycles(layer) + layer.steps * layer.digits)

    @property
    def frame_cycles(self) -> int:
        """Cycles of one frame, if its pixels are there and its result is taken at once."""
        return sum(map(self.layer_cycles, self.layers))

    @property
    def frame_period(self) -> int:
        """Cycles from result to result: one to hand it over, one to start the next frame."""
        return self.frame_cycles + 2

    def array_use(self, layer: LayerProgram) -> float:
        """Multiply-accumulates done, per those that the array could do in the layer's cycles.

        At its word precision; a layer of pixels is charged for every digit.
        """
        peak = (self.array.rows * self.array.columns
                * operands(layer.mode, self.array.words) * self.layer_cycles(layer))
        return layer.macs * layer.digits / peak
