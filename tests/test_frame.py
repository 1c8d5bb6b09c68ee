"""Frames folded and checked: every position, every dropped frame, any pauses; then in an engine."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from export.hardware import Hardware
from export.pack import pack
from export.program import Program
from export.sections import record_values, record_word
from hw.engine import Engine
from hw.frame import Frame
from sim import golden
from sim.results import unpack
from sim.samples import random_images, random_network
from sim.streams import pixel_words
from tests.designs import buffered, conv, design

# Height, width, channels, fold of programs on one machine.
ALONE = [[(3, 5, 3, 1)], [(6, 4, 3, 2)], [(8, 8, 2, 4)], [(2, 2, 1, 2)], [(1, 1, 4, 1)]]
MIXED = [(3, 5, 3, 1), (6, 4, 3, 2), (8, 12, 2, 4), (4, 4, 1, 4), (2, 10, 5, 2), (2, 3, 7, 1)]


def machine(shapes):
    configs = [design([conv("a", 2, 2, 1)], (2, 2, 2), height=height, width=width,
                      channels=channels, fold=fold) for height, width, channels, fold in shapes]
    hardware = Hardware.of([Program(config) for config in configs])
    return hardware, [hardware.place(config) for config in configs]


def positions(program, image) -> list[int]:
    """What an image uint8 [H, W, C] becomes, as the golden model folds it, channel 0 lowest."""
    folded = golden.fold(image[None], program.config.network.fold)[0]
    return [int.from_bytes(folded[:, y, x].tobytes(), "little")
            for y in range(folded.shape[1]) for x in range(folded.shape[2])]


def whole(program, count: int) -> int:
    """Positions that are there with the first `count` pixels."""
    network = program.config.network
    fold, width = network.fold, network.width
    return sum((y + fold) * width - width + x + fold <= count
               for y in range(0, network.height, fold) for x in range(0, width, fold))


def run(hardware, frames, framed: bool, *, rng=None, gaps=(0, 0, 0)):
    """Frames, each a program and its pixels as (bits, last), through a :class:`Frame`.

    Positions and drops of each frame, and the cycles from its first pixel to its last. `gaps` are
    the longest pauses before a pixel, before a position is taken, and while nothing is accepted.
    A frame's record is shown from the one before its end on, and it is `read` some time later.
    """
    dut, rng = Frame(hardware, framed), rng or random.Random(0)
    wide = hardware.pixel_bits
    found, cycles = [([], []) for _ in frames], []

    async def bench(ctx):
        pause, stop, refuse, wait, shown = 0, 0, 0, None, None
        left, number = list(frames[0][1]), 0
        began, now = None, 0
        while True:
            program = frames[number][0]
            if shown is not program:
                shown = program
                ctx.set(dut.record.as_value(),
                        record_word(hardware, record_values(program, hardware)))
            pause, stop, refuse = (rng.randint(0, most) if was <= 0 and rng.random() < 0.5 else
                                   was - 1 for was, most in zip(
                                       (pause, stop, refuse), gaps, strict=True))
            valid, accept = pause <= 0 and left != [], refuse <= 0
            ctx.set(dut.pixels.valid, valid)
            if left:
                bits, last = left[0]
                ctx.set(dut.pixels.payload, {"data": bits, "last": last} if framed else bits)
            ctx.set(dut.positions.ready, stop <= 0)
            ctx.set(dut.accept, accept)
            ctx.set(dut.read, wait == 0)
            (taken, ready, offered, position, dropped, short, long) = (ctx.get(each) for each in (
                dut.taken, dut.pixels.ready, dut.positions.valid, dut.positions.payload,
                dut.dropped, dut.short, dut.long))
            assert dropped == (short | long)
            assert not taken or (valid and ready and accept)
            if offered and stop <= 0:
                found[number][0].append(position)
            if dropped:
                found[number][1].append("short" if short else "long")
                assert not offered
            gone = valid and ready
            if gone and began is None:
                began = now
            await ctx.tick()
            now += 1
            assert now < 50_000, "it hangs"
            if wait is not None:
                assert not ready
                wait -= 1
                if wait < 0:
                    wait = None
                    if number + 1 == len(frames):
                        return
                    number += 1
                    left = list(frames[number][1])
                continue
            if not gone:
                continue
            left.pop(0)
            if left:
                continue
            cycles.append(now - began)
            began = None
            if not found[number][1]:  # a good one stays until it is read
                wait = rng.randint(0, 5)
                left = [(rng.getrandbits(wide), rng.getrandbits(1))]  # ... whatever comes
                continue
            if number + 1 == len(frames):
                return
            number += 1
            left = list(frames[number][1])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found, cycles


def pixels(hardware, image, rng) -> list[tuple[int, int]]:
    """An image's pixels with their mark, and anything in the bits that it does not use."""
    words, used = pixel_words(image[None])[0], 8 * image.shape[-1]
    return [(word | rng.getrandbits(hardware.pixel_bits) >> used << used, k == len(words) - 1)
            for k, word in enumerate(words)]


@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize("gaps", [(0, 0, 0), (0, 5, 0), (2, 3, 9)])
@pytest.mark.parametrize("shapes", [*ALONE, MIXED], ids=[*map(str, range(len(ALONE))), "mixed"])
def test_frames_are_folded(shapes, gaps, framed):
    """A pixel per cycle if nothing holds it up."""
    rng = random.Random(str([shapes, gaps]))
    hardware, programs = machine(shapes)
    order = [*programs, rng.choice(programs)]
    images = [random_images(program.config.network, 1, k)[0] for k, program in enumerate(order)]
    frames = [(program, pixels(hardware, image, rng))
              for program, image in zip(order, images, strict=True)]
    found, cycles = run(hardware, frames, framed, rng=rng, gaps=gaps)
    for program, image, came in zip(order, images, found, strict=True):
        assert came == (positions(program, image), [])
    if not any(gaps):
        assert cycles == [len(each) for _, each in frames]


@pytest.mark.slow
@pytest.mark.parametrize("gaps", [(0, 0, 0), (2, 3, 9)])
@pytest.mark.parametrize("shapes", [*ALONE, MIXED], ids=[*map(str, range(len(ALONE))), "mixed"])
def test_frames_of_another_length_are_dropped(shapes, gaps):
    """Too short, too long, by one and by many; nothing of their end comes out."""
    rng = random.Random(str([shapes, gaps]))
    hardware, programs = machine(shapes)
    frames, wanted = [], []
    for change in [0, -1, 0, 1, -1, -1, 1, 1, 0, "one", "many", 2, -2, "double", "one", -1, 0, 0]:
        program = rng.choice(programs)
        image = random_images(program.config.network, 1, len(frames))[0]
        frame = pixels(hardware, image, rng)
        size = len(frame)
        length = {"one": 1, "many": size + rng.randint(3, 40), "double": 2 * size}.get(
            change, size + change if isinstance(change, int) else None)
        if length < 1:
            continue
        frame = [(bits, 0) for bits, _ in [*frame, *frame, *frame * 40][:length]]
        frame[-1] = frame[-1][0], 1
        frames.append((program, frame))
        if length == size:
            wanted.append((positions(program, image), []))
        else:  # the pixel with which it is dropped gives none
            came = positions(program, image)[:whole(program, min(length, size) - 1)]
            wanted.append((came, ["short" if length < size else "long"]))
    found, cycles = run(hardware, frames, True, rng=rng, gaps=gaps)
    assert found == wanted
    if not any(gaps):
        assert cycles == [len(each) for _, each in frames]


def through_engine(config, lengths: list[int], pauses):
    """Frames of any length through a framed engine: what it says of them, in which order.

    `pauses(frame, k)` is how long pixel k of a frame waits.
    """
    program, size = Program(config), config.network.height * config.network.width
    hardware, network = Hardware.of([program]), random_network(config.network, 1)
    images = random_images(config.network, len(lengths), 1)
    trace = golden.run(network, images)
    dut = Engine(hardware, pack(program, hardware, network), framed=True)
    wanted = [k for k, length in enumerate(lengths) if length == size]
    errors, results = [], []

    async def produce(ctx):
        for number, (frame, length) in enumerate(zip(pixel_words(images), lengths, strict=True)):
            for k in range(length):
                if pause := pauses(number, k):
                    await ctx.tick().repeat(pause)
                ctx.set(dut.pixels.payload, {"data": frame[k % size], "last": k == length - 1})
                ctx.set(dut.pixels.valid, 1)
                await ctx.tick().until(dut.pixels.ready)
                ctx.set(dut.pixels.valid, 0)

    async def consume(ctx):
        transfers = []
        now = 0
        ctx.set(dut.result.ready, 1)
        async for *_, valid, payload, error in ctx.tick().sample(
                dut.result.valid, dut.result.payload, dut.frame_error):
            now += 1
            assert now < 10_000, "it hangs"
            if error:
                errors.append({1: "short", 2: "long"}[error])
            if not valid:
                continue
            transfers.append(payload.data)
            if payload.last:
                results.append(unpack(config.network, hardware, transfers))
                transfers = []
                if len(results) == len(wanted):
                    return

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(produce, background=True)
    simulator.add_testbench(consume)
    simulator.run()
    assert errors == ["short" if length < size else "long" for length in lengths if length != size]
    for frame, codes in zip(wanted, results, strict=True):
        np.testing.assert_array_equal(codes, trace.codes["a"][frame])


@pytest.mark.parametrize("channels, fold, pause, buffers", [
    (1, 1, 0, 1), *(pytest.param(*each, marks=pytest.mark.slow) for each in (
        (2, 2, 1, 1), (3, 1, 2, 1), (1, 4, 1, 1), (1, 1, 0, 2), (2, 2, 1, 2)))])
def test_engine_drops_frames(channels, fold, pause, buffers):
    """What has come of one is forgotten, in the middle of a pixel's words too."""
    config = design([], (2, 3, 2), height=2 * fold, width=3 * fold, channels=channels, fold=fold,
                    operations=[conv("a", 4, 2, 2)])
    config = buffered(config) if buffers > 1 else config
    rng = random.Random(channels)
    size = config.network.height * config.network.width
    lengths = [size, *rng.sample(range(1, size), 5), size - 1, size, size + 1, 2 * size, size + 5,
               size, 1, size]
    through_engine(config, lengths, lambda number, k: (
        rng.randint(1, pause * 9) if pause and rng.random() < 0.3 else 0))


@pytest.mark.slow
def test_engine_drops_a_frame_at_a_row_of_blocks():
    """In each of the cycles in which a row's last words and what lies beside it are written."""
    config = design([], (1, 2, 4), height=4, width=4, channels=1, fold=2,
                    operations=[conv("a", 2, 2, 2)])
    assert Program(config).layers[0].taps_per_word > 1
    through_engine(config, [9, 16] * 14, lambda number, k: number // 2 if k == 8 else 0)
