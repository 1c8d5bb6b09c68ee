"""One machine for several programs: what it must have, and what is refused."""

from dataclasses import fields, replace
from typing import get_type_hints

import numpy as np
import pytest

from export.checked import MESSAGE
from export.config import ConfigError
from export.hardware import Hardware, PixelFormat, weight_rows
from export.pack import pack
from export.program import Program
from hw.engine import Engine
from sim import golden
from sim.samples import random_images, random_network
from sim.streams import simulate
from tests.designs import buffered, clip_designs, conv, design, machine, random_maps

TEXTS = {name: hint.__metadata__[0]
         for name, hint in get_type_hints(Hardware, include_extras=True).items()}
SIZES = {"height": 6, "width": 5}

# Words of 4 bits, pooling, generated weights, but no gate.
PLAIN = design([conv("a", 8, 1, 1), conv("b", 20, 1, 1, pool=True),
                conv("c", 8, 2, 1, kernel=1, generator={"outputs": 4, "inputs": 6})],
               (2, 4, 2), classifier_bits=1, classes=7, **SIZES)
# Wider words, gates of every kind, two selects.
GATED = design([conv("a", 4, 3, 3), conv("b", 8, 2, 2, skip="a", gate="mux"),
                conv("c", 8, 3, 1, skip="b", gate="or"),
                conv("d", 8, 2, 2, inputs=["c", "b"], skip="b", gate="mux_or")],
               (2, 4, 2), **SIZES)


@pytest.fixture(scope="module")
def programs():
    return Program(PLAIN), Program(GATED)


@pytest.fixture(scope="module")
def common(programs):
    return Hardware.of(programs)


def holds(there, wanted) -> bool:
    """Whether a capacity is at least another, by its kind."""
    if isinstance(wanted, frozenset):
        return there >= wanted
    if isinstance(wanted, int):
        return there >= wanted
    if isinstance(wanted, tuple):  # each width that a program cuts its words at, and what is read
        return all(dict(there).get(bits, 0) >= depth for bits, depth in wanted)
    return there == wanted


def test_a_common_machine_has_what_each_needs_and_no_more(programs, common):
    needs = [Hardware.of([program]) for program in programs]
    for each in fields(Hardware):
        there, wanted = getattr(common, each.name), [getattr(need, each.name) for need in needs]
        if each.name in ("memory", "programs"):  # not the programs' business
            continue
        assert all(holds(there, value) for value in wanted), each.name
        if isinstance(there, int):
            assert there == max(wanted)
        if isinstance(there, frozenset):
            assert there == wanted[0] | wanted[1]
    assert any(getattr(needs[0], each.name) != getattr(needs[1], each.name)
               for each in fields(Hardware))
    assert Hardware.of(programs[::-1]) == common
    assert Hardware.of([programs[0], programs[1], programs[0]]) == common
    for program in programs:
        common.check(program)


def test_words_of_weights_are_counted_by_their_bits(programs, common):
    """At each width, as many words as one program reads of those that are at least so wide."""
    wanted = {}
    for bits in {layer.stored_bits for program in programs for layer in program.layers} - {0}:
        wanted[bits] = max(sum(layer.weight_steps for layer in program.layers
                               if layer.stored_bits >= bits) for program in programs)
    assert dict(common.weights) == wanted
    assert common.weight_edges == [0, *sorted(wanted)]
    assert len(wanted) > 2


def smaller(value):
    """What is just not enough."""
    if isinstance(value, frozenset):
        return frozenset(sorted(value)[1:])
    if isinstance(value, int):
        return value - 1
    if isinstance(value, tuple):
        return (*value[:-1], (value[-1][0], value[-1][1] - 1))
    return None


@pytest.mark.parametrize("name", [
    each.name for each in fields(Hardware) if each.name not in ("array", "memory", "programs")])
def test_a_program_that_does_not_fit_is_refused(programs, common, name):
    """By the capacity's name, with what it needs and what is there."""
    there = smaller(getattr(common, name))
    tight, refused = replace(common, **{name: there}), 0
    for program in programs:
        need = getattr(Hardware.of([program]), name)
        if holds(there, need):
            tight.check(program)
            continue
        with pytest.raises(ConfigError) as caught:
            tight.check(program)
        message, refused = str(caught.value), refused + 1
        assert message.startswith(f"test: does not fit the machine: {TEXTS[name]}: needs ")
        assert len(message) <= MESSAGE and "\n" not in message
        if isinstance(need, int):
            assert message.endswith(f": needs {need}, has {there}")
        with pytest.raises(ConfigError, match="does not fit the machine"):
            pack(program, tight, random_network(program.config.network, 1))
    assert refused


def test_nothing_is_said_as_none():
    program, hardware = machine(GATED)
    with pytest.raises(ConfigError, match=r"gates: needs mux, mux_or, or, has none$"):
        replace(hardware, gates=frozenset()).check(program)
    with pytest.raises(ConfigError, match=r"rescalings of a skip: needs -1, 0, has 0$"):
        replace(hardware, rescales=frozenset([0])).check(program)


def test_words_of_another_width_do_not_fit():
    """Even if there is more room: the memory's segments end elsewhere."""
    program, hardware = machine(GATED)
    (bits, depth), *rest = hardware.weights
    with pytest.raises(ConfigError, match=rf": stored words of weights: needs {depth} of {bits} "
                                          rf"bits, .*, has {10 * depth} of {bits + 1} bits, "):
        replace(hardware, weights=((bits + 1, 10 * depth), *rest)).check(program)


def test_formats_are_said_in_words():
    program, hardware = machine(PLAIN)
    gray = PixelFormat(1, 4, 1, 1)
    with pytest.raises(ConfigError, match=r": pixel formats: needs 3 channels, fold 1, 1 in a "
                                          r"word, has 1 channels, fold 4, 1 in a word$"):
        replace(hardware, pixels=frozenset([gray])).check(program)
    with pytest.raises(ConfigError, match=r"has 1 channels, fold 2, 3 in a word; 1 channels, "):
        replace(hardware, pixels=frozenset([gray, PixelFormat(1, 2, 1, 3)])).check(program)


@pytest.mark.parametrize("array", [(3, 4, 2), (2, 8, 2), (2, 4, 1), (2, 4, 2, (1, 3)),
                                   (2, 4, 2, (1, 2, 3), True)])
def test_different_arrays_are_refused(array):
    other = Program(design([conv("a", 8, 1, 1)], array, **SIZES))
    with pytest.raises(ConfigError, match=r"^programs of one machine must have the same array, "
                                          r"not rows=2 columns=4 words=2 .* and rows="):
        Hardware.of([Program(PLAIN), other])
    with pytest.raises(ConfigError, match=r"does not fit the machine: array: needs rows="):
        machine(PLAIN)[1].check(other)


@pytest.mark.parametrize("changes", [{"height": 9}, {"width": 7}, {"channels": 2}, {"pad": 1},
                                     {"fold": 2, "height": 8, "width": 4}])
def test_frames_of_another_format_share_a_machine(changes):
    """Maps lie behind the pixels of the larger frame: it may come while the other is in work."""
    other = Program(design([conv("a", 8, 1, 1)], (2, 4, 2), **SIZES | changes))
    common = Hardware.of([Program(PLAIN), other])
    programs = [common.place(each.config) for each in (Program(PLAIN), other)]
    assert common.pixel_words == max(Program(PLAIN).pixel_words, other.pixel_words)
    for program in programs:
        common.check(program)
        assert all(layer.in_base >= common.pixel_words for layer in program.layers[1:])


def test_a_program_that_is_placed_for_fewer_pixels_is_refused():
    other = Program(design([conv("a", 8, 1, 1)], (2, 4, 2), height=9, width=9))
    common = Hardware.of([Program(PLAIN), other])
    with pytest.raises(ConfigError, match=rf"must be placed for a machine with "
                                          rf"{common.pixel_words} words of activation memory for "
                                          rf"pixels, not {Program(PLAIN).pixel_words}$"):
        common.check(Program(PLAIN))


def test_two_buffers_of_pixels():
    """Each has room for the larger frame, whichever program asks for them."""
    large = design([conv("a", 8, 1, 1)], (2, 4, 2), height=9, width=9)
    one, two = Program(PLAIN), Program(buffered(PLAIN))
    assert two.pixel_words == 2 * one.pixel_words and two.layers[0].in_base == 0
    assert all(layer.in_base >= two.pixel_words for layer in two.layers[1:])
    for configs in ((buffered(PLAIN), large), (PLAIN, buffered(large))):
        common = Hardware.of([Program(config) for config in configs])
        assert (common.pixel_buffers, common.pixel_words) == (2, 2 * Program(large).pixel_words)
        assert common.second_buffer >= Program(large).pixel_words
        for config in (PLAIN, large):
            common.check(common.place(config))
    with pytest.raises(ConfigError, match=r"test: does not fit the machine: words of activation "
                                          "memory for pixels: needs"):
        machine(buffered(PLAIN))[1].place(large)
    with pytest.raises(ConfigError, match="placed for a machine with 2 frames of pixels that are"):
        machine(buffered(PLAIN))[1].check(Program(PLAIN, two.pixel_words))
    with pytest.raises(ConfigError, match="test: the machine's pixel_buffers must be 1 for"):
        Program(buffered(next(clip_designs(range(9)))[1]))


def test_a_machine_that_holds_several(programs):
    """Memories are as long as the longest programs together, the rest as for one of them."""
    one, two = (Hardware.of([program]) for program in programs)
    for hold in (1, 2):
        common = Hardware.of(programs, memory="ram", hold=hold, slots=3)
        assert common.programs == 3
        for name in ("operations", "tiles", "seeds"):
            both = getattr(one, name), getattr(two, name)
            assert getattr(common, name) == (sum(both) if hold == 2 else max(both)), name
        for bits, rows in common.weights:
            both = [weight_rows(program, bits) for program in programs]
            assert rows == (sum(both) if hold == 2 else max(both)), bits
        assert common.layers == max(one.layers, two.layers)
        assert common.activation_words == max(one.activation_words, two.activation_words)
    with pytest.raises(ConfigError, match=r"must hold 1 ... 2 of them, not 3$"):
        Hardware.of(programs, hold=3)


@pytest.mark.slow
def test_both_programs_run_on_the_common_machine(programs, common):
    """Every code, score and class; its memories hold the images of each."""
    for program in programs:
        made = random_network(program.config.network, 1)
        images = pack(program, common, made)
        assert len(images.weights) == len(common.weights)
        for rom, (_, depth) in zip(images.weights, common.weights, strict=True):
            assert len(rom) <= depth
        assert len(images.biases) == len(images.tiles) <= common.tiles
        assert len(images.layers) == len(program.layers) <= common.operations
        assert len(images.seeds) <= common.seeds
        frames = random_images(program.config.network, 2, 3)
        run = simulate(Engine(common, images), program, frames)
        trace = golden.run(made, frames)
        for frame in range(len(frames)):
            for name, codes in run.codes.codes(frame).items():
                np.testing.assert_array_equal(codes, trace.codes[name][frame], name)
        assert run.results == list(zip(trace.classes, trace.scores.max(1), strict=True))


def test_a_program_without_wide_words_leaves_their_memory_empty():
    narrow = Program(design([conv("a", 8, 2, 3)], (2, 4, 2), classifier_bits=2, **SIZES))
    wide = Program(design([conv("a", 8, 3, 3)], (2, 4, 2), **SIZES))
    common = Hardware.of([narrow, wide])
    images = pack(narrow, common, random_network(narrow.config.network, 1))
    assert [len(rom) for rom in images.weights] == [
        sum(layer.weight_steps for layer in narrow.layers), 0]
    assert common.weight_edges == [0, 8, 12]


@pytest.mark.slow
def test_random_programs_share_machines():
    """Of those with one array, each packs for the machine of all."""
    groups, checked = {}, 0
    for seed in range(300):
        try:
            program = Program(random_maps(seed))
        except ConfigError:
            continue
        hardware = Hardware.of([program])
        groups.setdefault(repr(hardware.array), []).append(program)
    for group in groups.values():
        common = Hardware.of(group)
        for program in group if len(group) > 1 else []:
            placed = common.place(program.config)
            images = pack(placed, common, random_network(program.config.network, 1))
            assert len(images.weights) == len(common.weights)
            checked += 1
    assert checked > 5


def test_what_follows(common):
    assert common.bias_bits == common.acc_bits + 3
    assert common.score_bits == max(common.total_bits, common.bias_bits)
    assert common.side == 6 and common.gated
    assert common.seed_bits == 4 * 6 * 2
    assert not machine(PLAIN)[1].gated
    assert machine(GATED)[1].seed_bits == 0
