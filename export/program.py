"""What the engine does for a configuration, cycle by cycle, before any weight is known.

A :class:`Program` says for every layer in which precision and order its words are read, where its
feature maps lie in the activation memory, and how many cycles it takes. Hardware, weight packing
and the cycle model all read it; nothing of it is computed twice.

Memory map: address `base + word * slots + slot` of bank `n mod rows` holds one word group (all its
operands) of pixel `n = slot * rows + bank`. The pixels of the next frame have a region of their own
at address 0; behind it, feature maps alternate between the low and the high end.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import gcd

from export.config import DIGITS_OF_PIXEL, Config, ConfigError, GeneratorConfig, Shape
from export.skips import place_skips
from export.words import operands, stored_bits

# Cycles of a layer beyond its tiles, the array's skew and its drain: descriptor fetch, feeder,
# processing element, epilogue; then the write to the memory, or the classifier's comparisons
# (and one per column). The engine's tests hold the hardware to these numbers.
PIPELINE_CYCLES = 16
CLASSIFIER_CYCLES = 13


@dataclass(frozen=True, kw_only=True)
class LayerProgram:
    """One layer as the engine sees it.

    The classifier is a 1x1 layer whose pixels are `summed`, and so is what a mux selects by; it
    runs before the layer that reads the same feature map.
    """

    name: str
    number: int  # of the network's layer; of a mux's sums that of the layer with the mux
    source: Shape  # input feature map
    channels: int  # output channels
    mode: int  # word precision, 1 ... 3
    weight_bits: int  # of the alphabet in which weights are stored: 1 has no zero
    stored_bits: int  # of the weights of one step and column
    code_bits: int
    groups: int
    kernel: int
    pool: bool
    summed: bool
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
    generator: GeneratorConfig | None = None
    gate: str | None = None
    keep: bool = False  # the output goes into the skip memory too
    keep_pooled: bool = False  # ... after 2x2 pooling
    keep_base: int = 0
    skip_base: int = 0
    skip_size: int = 0  # words after which the skip's channels start over
    rescale: int = 0  # bits that the gate's layer has more than its skip
    select_base: int = 0  # channel tile's select bits, of a mux and of its sums

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
        selects = 0  # channel tiles with select bits so far
        select_bases = {}
        bits_in = self.digit_bits  # of the first layer's digits
        for number, source in enumerate(network.shapes):
            # All that read this feature map, in one precision: what muxes select by, the layer.
            readers = [{
                "name": f"{layer.name}_select", "number": k, "channels": layer.channels,
                "weight_bits": layer.select_bits, "summed": True,
            } for k, layer in enumerate(network.layers)
                if layer.selects and network.skip_source(k) == number - 1]
            if number < len(network.layers):
                layer = network.layers[number]
                readers.append({
                    "name": layer.name, "channels": layer.channels, "kernel": layer.kernel,
                    "groups": layer.groups, "weight_bits": layer.weight_bits,
                    "code_bits": layer.code_bits, "pool": layer.pool, "pixels": number == 0,
                    "gate": layer.gate, "generator": layer.generator})
            else:
                readers.append({
                    "name": "classifier", "channels": network.classes,
                    "weight_bits": network.classifier_bits, "summed": True, "classifier": True})
            mode, found = 1, []
            while not found or any(reader.mode != mode for reader in found):
                found = [self._layer(**{"number": number, **reader}, source=source,
                                     bits_in=max(bits_in, mode)) for reader in readers]
                mode = max(reader.mode for reader in found)
            for reader in found:
                if reader.summed and not reader.classifier:
                    select_bases[reader.number] = selects
                    selects += reader.channel_tiles
                if reader.number in select_bases:
                    reader = replace(reader, select_base=select_bases[reader.number])
                layers.append(reader)
            if number < len(network.layers):
                bits_in = layer.code_bits
        self.select_words = selects
        return layers

    def _mode(self, name: str, bits: int) -> int:
        for mode in self.array.precisions:
            if mode >= bits:
                return mode
        raise ConfigError(f"{name}: needs words of {bits} bits, the array has "
                          f"precisions {list(self.array.precisions)}")

    def _layer(self, *, name, number, source, channels, weight_bits, bits_in, kernel=1, groups=1,
               code_bits=1, pool=False, pixels=False, summed=False, classifier=False,
               gate=None, generator=None) -> LayerProgram:
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
        if generator is not None and (generator.outputs, generator.inputs) != (
                self.array.columns, ops):
            raise ConfigError(f"{name}: weights must be generated in blocks of "
                              f"{self.array.columns} x {ops} for this array, "
                              f"not {generator.outputs} x {generator.inputs}")
        # All tiles of a layer take the same steps, so that none overtakes the drain of the one
        # before; those with fewer words read some of another group, with weight zero.
        total = -(-source.channels * taps // ops)
        words = max(-(-stop // ops) - start // ops for start, stop in spans)
        first_words = tuple(min(start // ops, total - words) for start, _ in spans)
        return LayerProgram(
            name=name, number=number, source=source, channels=channels, mode=mode,
            weight_bits=weight_bits,
            stored_bits=0 if generator is not None else stored_bits(
                mode, weight_bits, self.array.words, self.array.dense),
            generator=generator,
            code_bits=code_bits, groups=groups,
            kernel=kernel, pool=pool, summed=summed, classifier=classifier, gate=gate,
            digits=digits,
            digit_words=total, taps_per_word=taps, slots=-(-source.pixels // self.array.rows),
            first_words=first_words, words=words,
            pixel_tiles=-(-source.pixels // self.array.rows),
            tail=(size * taps - 1) % ops + 1)

    def _place(self, layers: list[LayerProgram]) -> tuple[LayerProgram, ...]:
        network = self.config.network
        # Feature map k is the input of the network's layer k, and lies as its reader wants it.
        readers = [next(layer for layer in layers if layer.source is source)
                   for source in network.shapes]
        sizes = [readers[0].digits * readers[0].digit_words * readers[0].slots]
        for layer, reader in zip(network.layers, readers[1:], strict=True):
            written = -(-layer.channels // self.array.columns) * self.array.columns
            words = -(-written // operands(reader.mode, self.array.words))
            sizes.append(words * reader.slots)
        # the first layer reads the pixels' own region
        pairs = [a + b for a, b in pairwise([0, *sizes[1:]])]
        self.depth = sizes[0] + max(pairs)
        bases = [0] + [sizes[0] if k % 2 == 0 else self.depth - size
                       for k, size in enumerate(sizes[1:])]
        skips, self.skip_depth = place_skips(network, self.array.columns, self.units)
        placed = []
        for layer in layers:
            at = next(k for k, source in enumerate(network.shapes) if source is layer.source)
            values = {"in_base": bases[at]}
            if not layer.summed:
                values |= {"out_base": bases[at + 1], "out_mode": readers[at + 1].mode,
                           "out_slots": readers[at + 1].slots, **skips[at]}
            placed.append(replace(layer, **values))
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
        """Signed sum over all pixels, if |bias| <= the sums' peak."""
        peak = max(layer.sum_peak * layer.source.pixels for layer in self.layers if layer.summed)
        return max(peak.bit_length() + 3, self.bias_bits)

    @property
    def generators(self) -> list[LayerProgram]:
        """The layers whose weights are generated."""
        return [layer for layer in self.layers if layer.generator is not None]

    @property
    def gated(self) -> bool:
        """Whether any layer has a gate, so that there is a skip memory."""
        return self.skip_depth > 0

    @cached_property
    def weight_widths(self) -> tuple[int, ...]:
        """Bits per column of the weight memory's segments.

        The first segments of a stored word lie in as many memories, of which a layer with narrow
        words reads only the first ones; so no bit is spent on the difference.
        """
        edges = sorted({0} | {layer.stored_bits for layer in self.layers})
        return tuple(b - a for a, b in pairwise(edges))

    def weight_segments(self, layer: LayerProgram) -> int:
        """Segments that the layer's stored words have."""
        return sorted({0} | {each.stored_bits for each in self.layers}).index(layer.stored_bits)

    # ---- cycles

    def tile_cycles(self, layer: LayerProgram) -> int:
        """Cycles from tile to tile."""
        return max(layer.steps * layer.digits, self.min_period)

    def layer_cycles(self, layer: LayerProgram) -> int:
        """Cycles from the start of a layer to the start of the next one, exactly."""
        fill = self.array.rows  # border flags of the first tile
        skew = self.array.rows + self.array.columns
        drain = self.array.rows * self.units
        end = CLASSIFIER_CYCLES + self.array.columns if layer.summed else PIPELINE_CYCLES
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
