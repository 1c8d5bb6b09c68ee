"""Where maps lie: random programs replayed word by word on their memories, and what is refused."""

import random
from itertools import pairwise

import pytest

from export.config import ConfigError
from export.network import PIXELS
from export.placement import Region, allocate
from export.program import Program
from export.words import operands
from tests.designs import ARRAYS, conv, design, random_maps


class Replay:
    """Goes through a program with nothing but its descriptors' addresses; asserts what it reads.

    Activation memory: {address: (precision, {operand: (map, channel)})} for all banks at once, as
    slots of a map are written and read alike. Skip and select memory: a tag per word.
    """

    def __init__(self, program: Program):
        self.program, self.network = program, program.config.network
        self.activations, self.skips, self.selects = {}, {}, {}
        first, self.selected = program.layers[0], 0
        self.pixels = range(first.in_base,
                            first.in_base + first.digits * first.digit_words * first.slots)
        assert first.in_base == 0 and self.pixels[-1] < program.activation_words
        for op in program.layers:
            read = self.read(op)
            self.merge_and_keep(op)
            if op.summed:
                if op.operation.output == "select":
                    self.select(op)
                continue
            written = self.write(op)
            assert not written & read, f"{op.name} writes what it reads"
            assert not written & set(self.pixels), f"{op.name} writes over the next frame's pixels"
            assert max(written) < program.activation_words

    def read(self, op) -> set[int]:
        """Checks that every channel of the inputs is where the operation's words have it."""
        taps, count = op.taps_per_word, operands(op.mode, self.program.array.words)
        words = {first + k for first in op.first_words for k in range(op.words)}
        assert max(words) < op.digit_words
        addresses = {op.in_base + word * op.slots + slot for word in words
                     for slot in range(op.slots)}
        if op.operation.inputs == (PIXELS,):
            return set(self.pixels)
        assert max(addresses) < self.program.activation_words and taps == 1
        channels = [(name, channel) for name in op.operation.inputs
                    for channel in range(self.network.shapes[name].channels)]
        for position, (name, channel) in zip(op.positions, channels, strict=True):
            word, operand = divmod(position, count)
            assert word in words
            for slot in range(op.slots):
                mode, values = self.activations[op.in_base + word * op.slots + slot]
                assert (mode, values[operand]) == (op.mode, (name, channel, slot)), op.name
        return addresses

    def write(self, op) -> set[int]:
        """Full tiles, so there may be more channels than the map has."""
        array, count = self.program.array, operands(op.out_mode, self.program.array.words)
        pixels = self.network.shapes[op.name].pixels
        assert op.out_slots == -(-pixels // array.rows)
        addresses = set()
        for channel in range(op.channel_tiles * array.columns):
            word, operand = divmod(channel, count)
            for slot in range(op.out_slots):
                address = op.out_base + word * op.out_slots + slot
                mode, values = self.activations.get(address, (0, {}))
                values = values if mode == op.out_mode else {}
                self.activations[address] = op.out_mode, values | {
                    operand: (op.name, channel, slot)}
                addresses.add(address)
        return addresses

    def merge_and_keep(self, op):
        """Unit by unit in the epilogue's order: a gate's word is read, then one is kept."""
        if op.summed or not (op.operation.gate or op.keep):
            return
        units, width = self.program.array.units, op.source.width
        gate, pooled = op.operation.gate, op.operation.pool or op.keep_pooled
        skip = self.network.by_name[op.operation.skip] if gate else None
        if gate:
            skip_units = -(-skip.channels // self.program.array.columns) * units
            assert op.rescale == op.operation.code_bits - skip.code_bits
        source, target, kept = op.skip_base, op.keep_base, 0
        for tile in range(op.channel_tiles):
            if op.operation.select:
                assert self.selects[op.select_base + tile] == (op.operation.select, tile)
            for pixel in range(op.source.pixels):
                y, x = divmod(pixel, width)
                for unit in range(tile * units, (tile + 1) * units):
                    if gate:
                        assert self.skips[source] == (skip.name, unit % skip_units, pixel), op.name
                        source += 1
                        if source == op.skip_base + op.skip_size:
                            source = op.skip_base
                    if op.keep and (not pooled or (y % 2 and x % 2)):
                        place = pixel if not pooled else y // 2 * (width // 2) + x // 2
                        self.skips[target] = op.name, unit, place
                        assert target < self.program.skip_words
                        target, kept = target + 1, kept + 1
        wanted = op.source.height // 2 * (width // 2) if pooled else op.source.pixels
        assert kept == (op.channel_tiles * units * wanted if op.keep else 0)

    def select(self, op):
        assert op.select_base == self.selected
        for tile in range(op.channel_tiles):
            self.selects[self.selected] = op.name, tile
            self.selected += 1
        assert self.selected <= self.program.select_words


def test_nothing_that_is_still_to_be_read_is_written():
    """Of a few hundred random networks, which have all that placement has to cope with."""
    placed, refused, seen = 0, 0, dict.fromkeys(["joined", "skips", "repeated", "pooled", "reused"],
                                                0)
    for seed in range(800):
        try:
            program = Program(random_maps(seed))
        except ConfigError:
            refused += 1
            continue
        Replay(program)
        placed += 1
        network = program.config.network
        seen["joined"] += any(len(each.inputs) > 1 for each in network.operations)
        seen["skips"] += program.skip_words > 0
        seen["repeated"] += any(each.skip and each.channels > network.by_name[each.skip].channels
                                for each in network.convs)
        seen["pooled"] += any(layer.keep_pooled for layer in program.layers)
        kept = [layer for layer in program.layers if layer.keep]
        seen["reused"] += any(a.keep_base == b.skip_base and b.keep and a is not b
                              for a in kept for b in kept)
    assert placed > 500, refused
    assert min(seen.values()) > 30, seen


@pytest.mark.parametrize("seed", range(20))
def test_a_chain_needs_no_more_than_its_largest_two_neighbours(seed):
    rng = random.Random(seed)
    rows, columns = rng.choice(ARRAYS)
    layers = [conv(f"c{k}", rng.randint(1, 30), rng.randint(1, 3), rng.randint(1, 3),
                   pool=rng.random() < 0.2) for k in range(rng.randint(1, 9))]
    program = Program(design(layers, (rows, columns, rng.randint(1, 3)), height=32, width=33))
    first = program.layers[0]
    pixels = first.digits * first.digit_words * first.slots
    sizes = [-(-op.channel_tiles * columns // operands(op.out_mode, program.array.words))
             * op.out_slots for op in program.layers if not op.summed]
    wanted = max(sum(pair) for pair in pairwise([0, *sizes]))
    assert program.activation_words == pixels + wanted
    Replay(program)


def test_a_map_that_is_kept_for_long_lies_apart():
    """`a` is read again at the end, so three maps are alive for a while, and no more."""
    program = Program(design([
        conv("a", 4, 2, 2), conv("b", 4, 2, 2), conv("c", 4, 2, 2), conv("d", 4, 2, 2),
        conv("e", 4, 2, 2, inputs=["d", "a"])], (4, 4, 2), height=8, width=8))
    Replay(program)
    first, size = program.layers[0], 16
    assert program.activation_words == first.digits * first.digit_words * first.slots + 3 * size


def region(name, size, born, dies, **more):
    return [(Region(name, size, born, dies, **more), 0)]


def test_what_is_never_alive_together_shares_its_words():
    _, words = allocate([region("a", 5, 0, 1), region("b", 7, 2, 3), region("c", 3, 4, 4)])
    assert words == 7
    _, words = allocate([region("a", 5, 0, 2), region("b", 7, 2, 3)])
    assert words == 12


def test_a_region_is_written_over_from_its_start_only():
    """While its last reader goes through it once; not if it starts over."""
    _, words = allocate([region("a", 5, 0, 2, once=True), region("b", 5, 2, 3)])
    assert words == 5
    _, words = allocate([region("a", 5, 0, 2), region("b", 5, 2, 3)])
    assert words == 10
    old, new = Region("a", 5, 0, 2, once=True), Region("b", 5, 2, 3)
    assert [base for base in range(10) if not new.clashes(base, old, 5)] == [0, 1, 2, 3, 4, 5]
    assert [base for base in range(12) if not old.clashes(5, new, base)] == [0, 1, 2, 3, 4, 5,
                                                                             10, 11]


def test_nothing_needs_nothing():
    assert allocate([]) == ({}, 0)


def maps(*inputs: list[str]):
    """Three maps, then one more of each list of them."""
    parts = [conv(name, 4, 2, 2, inputs=["pixels" if name == "a" else "a"]) for name in "abc"]
    last = [conv(f"r{k}", 4, 2, 2, inputs=names) for k, names in enumerate(inputs)]
    for k in range(1, len(last)):
        last[k] |= {"skip": f"r{k - 1}", "gate": "or"}
    return design([*parts, *last], (2, 4, 2))


@pytest.mark.parametrize("inputs, message", [
    ([["a", "b"], ["a", "c"]], "r1: a lies before b already, for another reader, and cannot lie "
                               "before c too"),
    ([["a", "c"], ["b", "c"]], "c: as an input it can lie behind one other map only"),
    ([["a", "b"], ["b", "a"], ["c"]],
     "inputs that lie behind each other in a circle cannot be placed"),
    ([["a", "b"], ["b", "c"], ["c", "a"]],
     "inputs that lie behind each other in a circle cannot be placed"),
])
def test_maps_that_cannot_lie_behind_each_other_are_refused(inputs, message):
    with pytest.raises(ConfigError) as caught:
        Program(maps(*inputs))
    assert str(caught.value) == message


@pytest.mark.parametrize("inputs", [
    [["a", "b"], ["a", "b"], ["c"]], [["a", "b", "c"], ["b", "c"], ["a", "b"], ["c"]],
    [["c", "b", "a"], ["b", "a"], ["a"]], [["b", "c"], ["a"]]])
def test_maps_that_lie_behind_each_other_for_all_readers_are_placed(inputs):
    Replay(Program(maps(*inputs)))
