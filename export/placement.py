"""Where every map lies, and for how long: one allocator by lifetime for both memories.

Activation memory: address `base + word * slots + slot` of bank `n mod rows` holds one word group
(all its operands) of pixel `n = slot * rows + bank`. The pixels of the next frame may come at any
time, so their region is nobody else's. Maps that an operation reads together lie behind each other.
Those of which frames before are read lie there three times, a ring of copies that are written in
turn, and nobody else ever lies there.

Skip memory: a word is one unit of channels of one pixel, in the order in which the epilogue writes
them, which is the order in which a gate needs them. So a map may be written over from its start
while its last reader goes through it, unless that one starts over.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

from export.checked import ConfigError
from export.config import ArrayConfig
from export.network import PIXELS, ConvConfig, NetworkConfig
from export.schedule import Loops, map_words, written_channels
from export.words import operands

ALWAYS = -1, 2**31  # lives from before the first to behind the last operation


@dataclass(frozen=True)
class Region:
    """A map in a memory: written by operation `born`, last read by operation `dies`."""

    name: str
    size: int
    born: int
    dies: int
    once: bool = False  # the last reader goes through it once, from its start

    def clashes(self, base: int, other: "Region", other_base: int) -> bool:
        """Whether the two cannot lie at these bases."""
        if base >= other_base + other.size or other_base >= base + self.size:
            return False
        for (old, at), (new, to) in (((self, base), (other, other_base)),
                                     ((other, other_base), (self, base))):
            if old.dies < new.born or (old.dies == new.born and old.once and to <= at):
                return False
        return True


Block = list[tuple[Region, int]]  # regions that lie together, and where in the block


def allocate(blocks: list[Block]) -> tuple[dict[str, int], int]:
    """Bases of all regions by name, and the words that the memory needs.

    Tries to alternate between both ends of the least memory that could do, which is best for a
    chain, and to fill from below, by time and by size; takes what needs least.
    """
    times = {time for block in blocks for region, _ in block for time in (region.born, region.dies)}
    least = max((sum(region.size for block in blocks for region, _ in block
                     if region.born <= time <= region.dies) for time in times), default=0)
    by_time = sorted(blocks, key=lambda block: min(region.born for region, _ in block))
    # The pixels come first there too: their input starts at address 0.
    by_size = sorted(blocks, key=lambda block: (
        block[0][0].name != PIXELS, block[0][0].born >= 0,
        -max(at + region.size for region, at in block)))
    found = [result for result in (_alternate(by_time, least), _fill(by_time), _fill(by_size))
             if result is not None]
    return min(found, key=lambda result: result[1])


def _free(block: Block, base: int, placed: list[tuple[Region, int]]) -> bool:
    return base >= 0 and not any(region.clashes(base + at, other, other_base)
                                 for region, at in block for other, other_base in placed)


def _fill(blocks: list[Block]) -> tuple[dict[str, int], int]:
    placed: list[tuple[Region, int]] = []
    for block in blocks:
        bases = {0} | {base + other.size - at for other, base in placed for _, at in block}
        base = min(base for base in bases if _free(block, base, placed))
        placed += [(region, base + at) for region, at in block]
    return _result(placed)


def _alternate(blocks: list[Block], depth: int) -> tuple[dict[str, int], int] | None:
    placed: list[tuple[Region, int]] = []
    upper = True
    for block in blocks:
        always = block[0][0].dies == ALWAYS[1]  # which comes first, and low, and does not count
        upper = upper if always else not upper
        size = max(at + region.size for region, at in block)
        low = {0} | {base + other.size - at for other, base in placed for _, at in block}
        high = {depth - size} | {base - at - region.size for _, base in placed
                                 for region, at in block}
        bases = [base for base in low | high
                 if base + size <= depth and _free(block, base, placed)]
        if not bases:
            return None
        base = max(bases) if upper and not always else min(bases)
        placed += [(region, base + at) for region, at in block]
    return _result(placed)


def _result(placed: list[tuple[Region, int]]) -> tuple[dict[str, int], int]:
    return ({region.name: base for region, base in placed},
            max((base + region.size for region, base in placed), default=0))


def activations(network: NetworkConfig, array: ArrayConfig, loops: tuple[Loops, ...],
                pixel_words: int) -> tuple[list[Block], dict[str, int]]:
    """The maps in the activation memory, those that are read together in one block, and rings.

    Of the maps in a ring, by name, the words from copy to copy.

    The pixels have `pixel_words`: where programs alternate, so many that another one's next frame
    has room there. What the last operation gives leaves, and lies in no memory here.

    Raises
    ------
    ConfigError
        If maps would have to lie before or behind several others, or in a ring with a map of
        another clock.
    """
    order = {name: k for k, name in enumerate(network.shapes)}  # pixels: 0, operation k: k + 1
    modes = {name: each.mode for each in loops for name in each.maps}
    follows: dict[str, tuple[str, int]] = {}  # the map behind a map, and the words up to it
    for each in loops:
        inputs = each.operation.inputs
        words = map_words(network, array, inputs, each.mode)
        for (name, behind), count in zip(pairwise(inputs), words, strict=False):
            if follows.setdefault(name, (behind, count)) != (behind, count):
                raise ConfigError(f"{each.name}: {name} lies before {follows[name][0]} already, "
                                  f"for another reader, and cannot lie before {behind} too")
    behinds = [behind for behind, _ in follows.values()]
    if twice := [name for name in behinds if behinds.count(name) > 1]:
        raise ConfigError(f"{twice[0]}: as an input it can lie behind one other map only")
    regions = {}
    for name, shape in network.shapes.items():
        if name == PIXELS:
            regions[name] = Region(name, pixel_words, *ALWAYS)
        elif network.by_name[name].makes_codes and name != loops[-1].name:
            mode = modes.get(name) or array.mode(name, network.by_name[name].code_bits)
            words = -(-written_channels(shape.channels, array) // operands(mode, array.words))
            last = max([order[name], *(order[each.name] for each in network.readers(name))])
            regions[name] = Region(name, words * -(-shape.pixels // array.rows), order[name], last)
    blocks = []
    for name in regions:
        if name in behinds:
            continue
        block, at, slots = [(regions[name], 0)], 0, -(-network.shapes[name].pixels // array.rows)
        while name in follows:
            name, count = follows[name]
            at += count * slots
            block.append((regions[name], at))
        blocks.append(block)
    placed = sum(len(block) for block in blocks)
    if placed < len(regions):
        raise ConfigError("inputs that lie behind each other in a circle cannot be placed")
    return _rings(network, loops, blocks)


def _rings(network: NetworkConfig, loops: tuple[Loops, ...],
           blocks: list[Block]) -> tuple[list[Block], dict[str, int]]:
    """The blocks, three times those of which frames before are read, and the words between."""
    past = {name for each in loops if each.operation.frames > 1 for name in each.operation.inputs}
    past |= {each.name for each in loops if each.operation.kind == "cell"}
    strides = {PIXELS: pixel_stride(loops[0])} if PIXELS in past else {}
    found = []
    for block in blocks:
        names = [region.name for region, _ in block]
        if names == [PIXELS] or not past & set(names):
            found.append(block)
            continue
        periods = [network.periods[name] for name in names]
        if len(set(periods)) > 1:
            said = ", ".join(f"{name} every {period}"
                             for name, period in zip(names, periods, strict=True))
            raise ConfigError(f"maps that are read together, and of which frames before are read, "
                              f"must be on one clock, not {said}")
        size = max(at + region.size for region, at in block)
        strides |= dict.fromkeys(names, size)
        first, last = ALWAYS
        found.append([*((replace(region, born=first, dies=last, once=False), at)
                        for region, at in block),
                      (Region(f"{names[0]} before", 2 * size, first, last), size)])
    return found, strides


def pixel_stride(first: Loops) -> int:
    """Words of one frame of pixels."""
    return first.digits * first.digit_words * first.slots


def skips(network: NetworkConfig, array: ArrayConfig) -> tuple[list[Block], set[str]]:
    """The maps in the skip memory, and the names of those that are kept pooled.

    Raises
    ------
    ConfigError
        If a skip would be needed both pooled and not, or its repeated channels do not fill columns.
    """
    order = {name: k for k, name in enumerate(network.shapes)}
    blocks, pooled = [], set()
    for conv in network.convs:
        readers = [each for each in network.convs if each.skip == conv.name]
        if not readers:
            continue
        kept = {skip_pooled(network, each) for each in readers}
        if len(kept) > 1 or (conv.pool and True in kept):
            raise ConfigError(f"{conv.name}: as a skip it must be pooled for all gates or "
                              f"for none, and not be pooled already")
        pooled |= {conv.name} if True in kept else set()
        repeated = [each for each in readers if each.channels != conv.channels]
        if repeated and conv.channels % array.columns:
            raise ConfigError(f"{repeated[0].name}: to be repeated, the skip's channels must fill "
                              f"the array's {array.columns} columns, not {conv.channels}")
        size = (written_channels(conv.channels, array) // array.unit
                * network.source(readers[0]).pixels)
        region = Region(conv.name, size, order[conv.name], order[readers[-1].name],
                        once=readers[-1] not in repeated)
        blocks.append([(region, 0)])
    return blocks, pooled


def skip_pooled(network: NetworkConfig, conv: ConvConfig) -> bool:
    """Whether the skip of `conv` is pooled to reach the size of its codes."""
    return network.shapes[conv.skip].size != network.source(conv).size
