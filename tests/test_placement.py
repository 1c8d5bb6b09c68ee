"""Where maps lie: no two that live overlap, and nothing that is still to be read is written."""

import random
from itertools import pairwise

import pytest

from export.config import ConfigError, parse_config
from export.cost import Cost
from export.hardware import Hardware
from export.network import PIXELS
from export.placement import Region, allocate
from export.program import Program
from export.schedule import written_channels
from export.words import operands
from tests.designs import conv, design
from tests.test_engine import random_concatenation, random_gates


def programs(make, count):
    found = []
    for seed in range(10 * count):
        try:
            found.append(Program(make(seed)))
        except ConfigError:
            continue
        if len(found) == count:
            break
    return found


def addresses_of(program, name, base, mode):
    """What the epilogue writes of a map, word by word."""
    shape = program.config.network.shapes[name]
    slots = -(-shape.pixels // program.array.rows)
    words = written_channels(shape.channels, program.array)
    return range(base, base + -(-words // operands(mode, program.array.words)) * slots)


def replay_activations(program):
    """Runs the operations on a memory of names: each word knows who wrote it last, and in which
    word of its map. Reads must find what they want."""
    network = program.config.network
    memory = {}
    first = program.layers[0]
    for address in range(first.digits * first.digit_words * first.slots):
        memory[address] = PIXELS, address
    for layer in program.layers:
        address = layer.in_base
        for k, name in enumerate(layer.operation.inputs):
            if name == PIXELS:
                wanted = [(PIXELS, n) for n in range(layer.digit_words * layer.slots)]
            else:
                channels = network.shapes[name].channels
                words = -(-channels // operands(layer.mode, program.array.words))
                wanted = [(name, n) for n in range(words * layer.slots)]
            found = [memory.get(address + n) for n in range(len(wanted))]
            assert found == wanted, f"{layer.name} reads {name}"
            inputs = layer.operation.inputs[:k + 1]
            if inputs != layer.operation.inputs:
                # Where the next one lies follows from the operands of its channels.
                position = layer.positions[sum(network.shapes[each].channels for each in inputs)]
                word, rest = divmod(position, operands(layer.mode, program.array.words))
                assert rest == 0
                address = layer.in_base + word * layer.slots
        if not layer.summed:
            for n, address in enumerate(addresses_of(program, layer.name, layer.out_base,
                                                     layer.out_mode)):
                assert address < program.activation_words
                memory[address] = layer.name, n
        assert all(memory[n] == (PIXELS, n) for n in range(
            first.digits * first.digit_words * first.slots)), "the next frame's pixels"


def replay_skips(program):
    """Unit by unit: a gate reads a word, then the same pixel's codes may be kept."""
    memory = {}
    for layer in program.layers:
        if layer.summed:
            continue
        network, array = program.config.network, program.array
        units = written_channels(layer.channels, array) // array.unit
        skip = layer.operation.skip if layer.operation.gate else None
        pixels, width = layer.source.pixels, layer.source.width
        kept, read = 0, 0
        for _tile in range(units // array.units):
            for pixel in range(pixels):
                for _ in range(array.units):
                    if skip:
                        address = layer.skip_base + read % layer.skip_size
                        assert memory.get(address) == (skip, read % layer.skip_size), layer.name
                        read += 1
                    y, x = divmod(pixel, width)
                    whole = y // 2 * 2 + 1 < layer.source.height and x // 2 * 2 + 1 < width
                    pooled = layer.operation.pool or layer.keep_pooled
                    if layer.keep and (not pooled or (y % 2 and x % 2 and whole)):
                        assert layer.keep_base + kept < program.skip_words
                        memory[layer.keep_base + kept] = layer.name, kept
                        kept += 1
        if layer.keep:
            readers = [each for each in network.convs if each.skip == layer.name]
            assert kept == units * network.source(readers[0]).pixels


@pytest.mark.parametrize("make", [random_concatenation, random_gates])
def test_everything_that_is_read_is_there(make):
    found = programs(make, 400)
    assert len(found) == 400
    for program in found:
        replay_activations(program)
        replay_skips(program)


def chain(sizes):
    return [[(Region(str(k), size, k, k + 1), 0)] for k, size in enumerate(sizes)]


def test_a_chain_needs_no_more_than_its_largest_neighbours():
    rng = random.Random(1)
    for _ in range(300):
        sizes = [rng.randint(1, 50) for _ in range(rng.randint(2, 12))]
        _, depth = allocate(chain(sizes))
        assert depth == max(a + b for a, b in pairwise(sizes))


def test_a_map_may_take_the_place_of_one_that_is_read_once_but_not_before_it():
    old, new = Region("a", 10, 0, 1, once=True), Region("b", 10, 1, 2)
    assert not old.clashes(4, new, 4) and not new.clashes(4, old, 4)
    assert not old.clashes(4, new, 0)
    assert old.clashes(4, new, 5) and new.clashes(5, old, 4)
    twice = Region("a", 10, 0, 1)
    assert twice.clashes(4, new, 4)


@pytest.mark.parametrize("layers, message", [
    ([conv("a", 4, 3, 3), conv("b", 4, 2, 2), conv("c", 4, 2, 2),
      conv("d", 4, 2, 2, inputs=["a", "b"]), conv("e", 4, 2, 2, inputs=["a", "c"]),
      conv("f", 4, 2, 2, inputs=["d", "e"])],
     "e: a lies before b already, for another reader, and cannot lie before c too"),
    ([conv("a", 4, 3, 3), conv("b", 4, 2, 2), conv("c", 4, 2, 2),
      conv("d", 4, 2, 2, inputs=["a", "c"]), conv("e", 4, 2, 2, inputs=["b", "c"]),
      conv("f", 4, 2, 2, inputs=["d", "e"])],
     "c: as an input it can lie behind one other map only"),
    ([conv("a", 4, 3, 3), conv("b", 4, 2, 2), conv("c", 4, 2, 2, inputs=["a", "b"]),
      conv("d", 4, 2, 2, inputs=["b", "a"]), conv("e", 4, 2, 2, inputs=["c", "d"])],
     "inputs that lie behind each other in a circle cannot be placed"),
])
def test_maps_that_cannot_lie_so_are_refused(layers, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        Program(design(layers, 2, 4, 2))


# ---- machines

def two():
    return (Program(design([conv("a", 8, 3, 3, pool=True), conv("b", 5, 1, 1)], 4, 4, 2,
                           classes=7)),
            Program(design([conv("a", 4, 2, 2), conv("b", 12, 2, 2, skip="a", gate="mux")],
                           4, 4, 2)))


def test_a_machine_holds_each_of_its_programs():
    one, other = two()
    both = Hardware.of([one, other])
    for program in (one, other):
        both.check(program)
        alone = Hardware.of([program])
        for name in ("tiles", "activation_words", "skip_words", "acc_bits", "total_bits",
                     "classes", "slots", "words", "channel_tiles", "pool_width"):
            assert getattr(both, name) >= getattr(alone, name), name
        assert both.gates >= alone.gates and both.formats >= alone.formats
        assert set(both.weight_edges) >= set(alone.weight_edges)
    assert both.classes == 7 and both.gates == {"mux"}
    assert Hardware.of([other, one]) == both


def test_weights_of_a_common_machine_are_cut_at_the_edges_of_both():
    """Steps of at least so many bits, per program; the deeper one counts."""
    one, other = two()
    both = Hardware.of([one, other])
    for bits, depth in both.weights:
        assert depth == max(sum(layer.weight_steps for layer in program.layers
                                if layer.stored_bits >= bits) for program in (one, other))


@pytest.mark.parametrize("make, message", [
    (lambda: design([conv("a", 8, 3, 3, pool=True), conv("b", 5, 1, 1)], 4, 4, 2, classes=9),
     "test: does not fit the machine: channel tiles of all operations: needs 7, has 6"),
    (lambda: design([conv("a", 8, 3, 3, pool=True), conv("b", 5, 1, 1)], 4, 4, 2, classes=8),
     "test: does not fit the machine: classes: needs 8, has 7"),
    (lambda: design([conv("a", 4, 3, 3, kernel=1), conv("b", 4, 1, 1, skip="a", gate="or")],
                    4, 4, 2, height=2, width=2), "test: does not fit the machine: .*needs .*"),
    (lambda: design([conv("a", 8, 3, 3)], 4, 4, 1),
     "test: does not fit the machine: array: needs .*words=1 .*, has .*words=2 .*"),
    (lambda: design([conv("a", 8, 3, 3)], 4, 4, 2, pad=3),
     r"test: does not fit the machine: pixel format: needs .*pad=3.*, has .*pad=0.*"),
])
def test_a_program_that_does_not_fit_is_refused(make, message):
    hardware = Hardware.of([two()[0]])
    with pytest.raises(ConfigError, match=f"^{message}$") as error:
        hardware.check(Program(make()))
    assert len(str(error.value)) <= 300


def test_programs_of_different_arrays_make_no_machine():
    one = Program(design([conv("a", 8, 3, 3)], 4, 4, 2))
    other = Program(design([conv("a", 8, 3, 3)], 4, 4, 1))
    with pytest.raises(ConfigError, match=r"^programs of one machine must have the same array, "):
        Hardware.of([one, other])


def test_costs_are_those_of_the_machine():
    """Descriptors are as wide as the machine's, cycles are the program's own."""
    one, other = two()
    alone, shared = Cost(one, Hardware.of([one])), Cost(one, Hardware.of([one, other]))
    assert alone.frame_cycles == shared.frame_cycles
    assert shared.stored_bits["program"] > alone.stored_bits["program"]
    assert parse_config(one.config.model_dump()) == one.config
