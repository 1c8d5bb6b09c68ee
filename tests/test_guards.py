"""What a program that runs, or whose pixels come, needs cannot be written; all else can."""

import random

import pytest

from export.loader import Loader
from tests.ram import CONFIGS, Bench


async def write(bench: Bench, ctx, words, **how) -> int:
    """Words while pixels come or not, and how many of them are refused."""
    before, bench.words = bench.refused, list(words)
    while bench.words:
        await bench.cycle(ctx, **how)
    for _ in range(3):  # until the last one is refused or written
        await bench.cycle(ctx, word=False, **how)
    return bench.refused - before


async def guarded(bench: Bench, ctx, loader: Loader, slot: int, **how):
    """Every section refuses garbage for the program in `slot`, each of its words once."""
    for name, words in bench.garbage(loader, slot):
        assert await write(bench, ctx, words, **how) == len(words), name


async def free(bench: Bench, ctx, loader: Loader, number: int, slot: int, **how):
    """The image can be loaded anew."""
    bench.load(loader, number, slot)
    assert await write(bench, ctx, bench.words, **how) == 0


@pytest.mark.parametrize("first, second", [
    (1, 2), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in [(0, 1), (2, 0)])])
def test_rows_in_use_are_refused(first, second):
    """Two programs beside each other: pixels of one come, it runs, pixels of the other come."""
    bench = Bench(random.Random(first))
    engine = bench.engine

    async def process(ctx):
        loader = Loader(bench.machine)
        for slot, number in enumerate((first, second)):
            await free(bench, ctx, loader, number, slot)

        bench.clear()
        bench.add(0, first, 0)
        size = len(bench.frames[0][1])
        while len(bench.frames[0][1]) == size:
            await bench.cycle(ctx)
        await guarded(bench, ctx, loader, 0, pixel=False)  # its first pixel is there
        await free(bench, ctx, loader, second, 1, pixel=False)
        while not ctx.get(engine.busy):
            await bench.cycle(ctx, ready=False)
        await guarded(bench, ctx, loader, 0, ready=False)
        await free(bench, ctx, loader, second, 1, ready=False)

        bench.add(1, second, 1)  # comes while the first one runs, and stays half there
        while ctx.get(engine.busy) and len(bench.frames[0][1]) > 1:
            await bench.cycle(ctx, ready=False)
        assert len(bench.frames[0][1]) == 1
        if ctx.get(engine.busy):
            await guarded(bench, ctx, loader, 1, pixel=False, ready=False)
        while ctx.get(engine.busy):
            await bench.cycle(ctx, pixel=False, ready=False)
        await guarded(bench, ctx, loader, 1, pixel=False, ready=False)
        await free(bench, ctx, loader, first, 0, pixel=False, ready=False)
        refused = bench.refused
        bench.add(0, first, 2)
        await bench.finish(ctx, 3)
        assert bench.refused == refused  # nothing but what was counted
        for number, frame, transfers in zip((first, second, first), range(3), bench.results,
                                            strict=True):
            assert bench.difference(number, frame, transfers) is None

    bench.simulate(process)


@pytest.mark.slow
def test_the_program_that_runs_is_guarded_while_another_ones_pixels_come():
    """Its number and record are its own then, not those of the frame that comes."""
    bench = Bench(random.Random(5))
    engine, first, second = bench.engine, 0, 2

    async def process(ctx):
        loader = Loader(bench.machine)
        for slot, number in enumerate((second, first)):
            await free(bench, ctx, loader, number, slot)
        bench.clear()
        bench.add(1, first, 0)
        bench.add(0, second, 1)
        size = len(bench.frames[1][1])
        while len(bench.frames) == 2 or len(bench.frames[0][1]) == size:
            await bench.cycle(ctx)
        assert ctx.get(engine.busy)
        await guarded(bench, ctx, loader, 1, pixel=False)
        assert ctx.get(engine.busy)  # so they were all refused for its sake
        await bench.finish(ctx, 2)
        for number, frame, transfers in zip((first, second), range(2), bench.results, strict=True):
            assert bench.difference(number, frame, transfers) is None

    bench.simulate(process)


def test_a_slot_without_a_program_takes_no_pixel():
    bench = Bench(random.Random(6))
    engine = bench.engine

    async def process(ctx):
        loader = Loader(bench.machine)
        await free(bench, ctx, loader, 1, 0)
        bench.add(1, 1, 0)
        for _ in range(30):
            await bench.cycle(ctx)
        assert ctx.get(engine.unloaded) and not ctx.get(engine.busy)
        assert len(bench.frames[0][1]) == CONFIGS[1].network.height * CONFIGS[1].network.width
        await free(bench, ctx, loader, 2, 1)
        await bench.check(ctx, 1, 2)
        assert not ctx.get(engine.unloaded)

    bench.simulate(process)


@pytest.mark.slow
def test_a_program_whose_frame_is_dropped_is_free():
    """The next frame may be another one's, and the rows are guarded no more."""
    bench = Bench(random.Random(7))

    async def process(ctx):
        loader = Loader(bench.machine)
        for slot, number in enumerate((1, 2)):
            await free(bench, ctx, loader, number, slot)
        for length in (1, 5):
            bench.clear()
            bench.add(0, 1, 0)
            pixels = bench.frames[0][1]
            del pixels[length:]
            pixels[-1]["last"] = 1
            while bench.frames:
                await bench.cycle(ctx)
            await free(bench, ctx, loader, 1, 0)
            assert bench.dropped == 1
            await bench.check(ctx, 1, 2)

    bench.simulate(process)
