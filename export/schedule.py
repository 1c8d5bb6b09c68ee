"""How the engine runs each operation: word precision, order of its words, loops; no address yet.

A word group holds the operands of one position in one precision. All maps that are read together,
and so all that these are read together with, lie in words of one precision: the largest that a
reader, for its weights, or a map, for its codes, needs.
"""

from dataclasses import dataclass

from export.checked import ConfigError
from export.config import DIGITS_OF_PIXEL, ArrayConfig
from export.network import PIXELS, NetworkConfig, Operation, Shape
from export.words import operands, stored_bits


@dataclass(frozen=True, kw_only=True)
class Loops:
    """One operation as the engine runs it; a sum is a 1x1 layer whose pixels are summed."""

    operation: Operation
    source: Shape  # its inputs, concatenated
    positions: tuple[int, ...]  # operand of each input channel, counted over all input words
    mode: int  # word precision, 1 ... 3
    weight_bits: int  # of the alphabet in which weights are stored: 1 has no zero
    stored_bits: int  # of the weights of one step and column
    digits: int  # passes over the pixels' digits; 1 behind the first layer
    digit_words: int  # words between one digit and the next
    taps_per_word: int  # horizontally neighbouring pixels in one word
    slots: int
    first_words: tuple[int, ...]  # input word that each tile of output channels starts with
    words: int  # input words that each of them reads, of every kernel tap
    tail: int  # operands in the last word of a tap

    @property
    def name(self) -> str:
        return self.operation.name

    @property
    def summed(self) -> bool:
        return self.operation.kind == "sum"

    @property
    def channels(self) -> int:
        return self.operation.channels

    @property
    def maps(self) -> tuple[str, ...]:
        """The maps that its weights see; a cell's own last one comes behind its input."""
        return maps_read(self.operation)

    @property
    def dx(self) -> range:
        """Columns of the kernel that are stepped through; packed taps need fewer."""
        if self.operation.kernel == 1 or self.taps_per_word == 3:
            return range(0, 1)
        return range(-1, 1 if self.taps_per_word == 2 else 2)

    @property
    def dy(self) -> range:
        return range(0, 1) if self.operation.kernel == 1 else range(-1, 2)

    @property
    def frames(self) -> int:
        """Of the kernel, each a pass over its rows, columns and words; of a cell, x and h."""
        return self.operation.frames * self.operation.taps

    @property
    def input_words(self) -> int:
        """Words of a digit of one position as its input lies, where no bands are joined."""
        return self.digit_words // self.operation.bands

    @property
    def input_slots(self) -> int:
        """Pixel tiles of its input, likewise."""
        return self.slots * self.operation.bands

    @property
    def channel_tiles(self) -> int:
        return len(self.first_words)

    @property
    def gates(self) -> int:
        """Tiles of weights, one behind the other, that give one tile of channels."""
        return self.operation.filters // self.channels

    @property
    def map_tiles(self) -> int:
        """Tiles of channels of what it makes."""
        return self.channel_tiles // self.gates

    def filters(self, tile: int, columns: int) -> range:
        """Rows of weights and biases of a tile; the gates of a cell's channels are neighbours."""
        index, gate = divmod(tile, self.gates)
        first = gate * self.channels
        return range(first + index * columns, first + min((index + 1) * columns, self.channels))

    @property
    def pixel_tiles(self) -> int:
        return self.slots  # a tile is a pixel of each bank

    @property
    def steps(self) -> int:
        """Steps of a tile in one pass over kernel and words; pixels take one pass per digit."""
        return self.frames * len(self.dx) * len(self.dy) * self.words

    @property
    def weight_steps(self) -> int:
        """Words of its weights that each column reads."""
        return self.channel_tiles * self.steps

    @property
    def input_peak(self) -> int:
        """What an inverted zero counts: all bits of a code, or of a pixel over its digits."""
        return 255 if self.digits > 1 else 2**self.mode - 1

    @property
    def sum_peak(self) -> int:
        """Largest value of an accumulator."""
        weight_peak = 2 if self.weight_bits == 3 else 1
        operation = self.operation
        return (self.source.channels // operation.groups * self.frames * operation.kernel**2
                * weight_peak * self.input_peak)

    @property
    def macs(self) -> int:
        operation = self.operation
        return (self.source.pixels * operation.filters * self.source.channels
                // operation.groups * self.frames * operation.kernel**2)


def schedule(network: NetworkConfig, array: ArrayConfig) -> tuple[Loops, ...]:
    """The loops of every operation, in the network's order.

    Raises
    ------
    ConfigError
        If the array lacks a precision that an operation needs, or cannot generate its weights.
    """
    bits = {PIXELS: array.digit_bits} | {each.name: each.code_bits for each in network.maps}
    made = {}  # by operation and precision: many maps may take as many rounds
    while True:  # precisions only grow
        found, before = [], dict(bits)
        for operation in network.operations:
            maps = maps_read(operation)
            key = operation.name, max(bits[name] for name in maps)
            if key not in made:
                made[key] = _loops(network, array, operation, key[1])
            loops = made[key]
            bits |= dict.fromkeys(maps, loops.mode)
            found.append(loops)
        if bits == before:
            return tuple(found)


def maps_read(operation: Operation) -> tuple[str, ...]:
    """The maps that an operation's weights see."""
    own = (operation.name,) if operation.kind == "cell" else ()
    return (*operation.inputs, *own)


def written_channels(channels: int, array: ArrayConfig) -> int:
    """Channels that the epilogue writes of a map: its tiles are full."""
    return -(-channels // array.columns) * array.columns


def map_words(network: NetworkConfig, array: ArrayConfig, inputs: tuple[str, ...],
              mode: int) -> list[int]:
    """Words from each of the maps `inputs` to the one behind it; of the last, what it is read in.

    A map's last tile may write words beyond what is read of it. A map behind it that is written
    later takes these words; for one that is there already they are left free.
    """
    order, ops = list(network.shapes), operands(mode, array.words)
    words = []
    for k, name in enumerate(inputs):
        channels = network.shapes[name].channels
        early = any(order.index(later) < order.index(name) for later in inputs[k + 1:])
        words.append(-(-(written_channels(channels, array) if early else channels) // ops))
    return words


def _loops(network: NetworkConfig, array: ArrayConfig, operation: Operation,
           bits_in: int) -> Loops:
    name, source = operation.name, network.source(operation)
    if operation.bands > 1 and source.pixels % array.rows:
        raise ConfigError(f"{name}: each band must fill the array's {array.rows} rows, "
                          f"not have {source.pixels} pixels")
    pixels = operation.inputs == (PIXELS,)
    size = source.channels // operation.groups

    def geometry(mode: int, weight_bits: int):
        """Taps per word, positions of the channels, all words, and those of each channel tile."""
        ops = operands(mode, array.words)
        taps = 1  # binary weights have no zero for the taps of a word that do not count
        if (pixels and operation.kernel == 3 and operation.groups == 1 and weight_bits > 1
                and operation.bands == 1):
            taps = max(1, min(3, ops // source.channels))
        words = map_words(network, array, operation.inputs, mode)
        words[-1] = -(-network.shapes[operation.inputs[-1]].channels * taps // ops)
        positions, start = [], 0
        for part, each in zip(operation.inputs, words, strict=True):
            positions += range(start, start + network.shapes[part].channels)
            start += each * ops
        if (bands := operation.bands) > 1:  # word after word, each of all bands: no address moves
            positions = [(word * bands + band) * ops + lane for band in range(bands)
                         for word, lane in (divmod(place, ops) for place in positions)]
            words = [bands * words[0]]
        spans = []
        for first in range(0, operation.channels, array.columns):
            last = min(first + array.columns, operation.channels) - 1
            begin, end = (c * operation.groups // operation.channels * size for c in (first, last))
            span = positions[begin] * taps, (positions[end + size - 1] + 1) * taps
            spans += [span] * (operation.filters // operation.channels)  # a cell's gates
        return ops, taps, positions, sum(words), spans

    weight_bits = operation.weight_bits
    mode = array.mode(name, max(weight_bits, bits_in))
    ops, taps, positions, total, spans = geometry(mode, weight_bits)
    # One-bit weights have no zero, so every lane of a tap must belong to every channel of the
    # tile; else they are stored as ternary ones.
    full = all(start % ops == 0 and stop - start == size * taps for start, stop in spans)
    if weight_bits == 1 and not full:
        weight_bits = 2
        mode = array.mode(f"{name}: binary weights whose channels do not fill whole words",
                          max(mode, 2))
        ops, taps, positions, total, spans = geometry(mode, weight_bits)
    generator = operation.generator
    if generator is not None:
        if (generator.outputs, generator.inputs) != (array.columns, ops):
            raise ConfigError(f"{name}: weights must be generated in blocks of {array.columns} x "
                              f"{ops} for this array, not {generator.outputs} x "
                              f"{generator.inputs}")
        if positions[-1] != len(positions) - 1:
            raise ConfigError(f"{name}: generated weights need inputs that fill whole words of "
                              f"{ops} operands, not {list(operation.inputs)}")
    # All tiles of a layer take the same steps, so that none overtakes the drain of the one before;
    # those with fewer words read some of another group, with weight zero.
    words = max(-(-stop // ops) - start // ops for start, stop in spans)
    return Loops(
        operation=operation, source=source, positions=tuple(positions), mode=mode,
        weight_bits=weight_bits,
        stored_bits=0 if generator is not None else stored_bits(
            mode, weight_bits, array.words, array.dense),
        digits=DIGITS_OF_PIXEL[array.digit_bits] if pixels else 1, digit_words=total,
        taps_per_word=taps, slots=-(-source.pixels // array.rows),
        first_words=tuple(min(start // ops, total - words) for start, _ in spans), words=words,
        tail=(size * taps - 1) % ops + 1)
