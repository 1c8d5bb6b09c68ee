"""Reset in the middle of anything: the next frame is right, and what was loaded is still there."""

import random

import pytest

from export.loader import Loader
from tests.ram import Bench


async def disturb(bench: Bench, ctx, loader: Loader, first: int, other: int) -> str:
    """Anything, up to a reset at a random cycle; what it was in the middle of."""
    rng, engine = bench.rng, bench.engine
    pause, hold = rng.choice([0, 0.5, 0.9]), rng.choice([0, 1, None, None])  # or after a word
    bench.clear()
    for _ in range(3):
        bench.add(0, first, rng.randrange(3))
    if rng.random() < 0.5:
        bench.load(loader, other, 1)
    for _ in range(rng.randint(0, rng.choice([30, 300, 1000]))):
        ready = not bench.transfers if hold is None else rng.random() >= hold
        await bench.cycle(ctx, ready=ready, pixel=rng.random() >= pause,
                          word=rng.random() >= pause)
    found = [name for name, there in {
        "a result": ctx.get(engine.result.valid), "a result's middle": bool(bench.transfers),
        "pixels": bool(bench.frames) and len(bench.frames[0][1]) not in (6, 12, 16),
        "an operation": ctx.get(engine.busy), "a load": bool(bench.words)}.items() if there]
    await bench.cycle(ctx, ready=rng.random() < 0.5, reset=True)
    for _ in range(rng.choice([0, 0, 3])):
        await bench.cycle(ctx, reset=True)
    bench.clear()
    assert not (ctx.get(engine.result.valid) or ctx.get(engine.busy) or ctx.get(engine.load_error))
    return found


async def half_a_row(bench: Bench, ctx, loader: Loader):
    """The first parts of a row before a reset, the others behind it: they are refused."""
    row = bench.rng.choice([row for _, row in bench.garbage(loader, 0) if len(row) > 1])
    split = bench.rng.randint(1, len(row) - 1)
    bench.clear()
    bench.words = row[:split]
    await bench.finish(ctx, 0)
    for _ in range(bench.rng.randrange(3)):
        await bench.cycle(ctx)
    await bench.cycle(ctx, reset=True)
    assert not bench.refused
    bench.words = row[split:]
    await bench.finish(ctx, 0)
    for _ in range(3):
        await bench.cycle(ctx)
    assert bench.refused == len(row) - split


@pytest.mark.parametrize("seed, resets", [
    (0, 2), pytest.param(2, 12, marks=pytest.mark.slow),
    *(pytest.param(seed, 18, marks=pytest.mark.long) for seed in (1, 3))])
def test_reset_in_the_middle_of_anything(seed, resets):
    bench, found = Bench(random.Random(seed)), set()
    first, *others = [seed % 3, (seed + 1) % 3, (seed + 2) % 3]

    async def process(ctx):
        loader = Loader(bench.machine)
        bench.words = [write for slot in range(2) for write in loader.clear(slot)]
        bench.load(loader, first, 0)
        await bench.finish(ctx, 0)
        for k in range(resets):
            found.update(await disturb(bench, ctx, loader, first, others[k % 2]))
            await bench.check(ctx, 0, first)
            if k % 3 == 0:
                await half_a_row(bench, ctx, loader)
                await bench.check(ctx, 0, first)
            if k % 3 == 1:  # what was half loaded
                bench.clear()
                bench.load(loader, others[k % 2], 1)
                await bench.finish(ctx, 0)
                await bench.check(ctx, 1, others[k % 2])
                await bench.check(ctx, 0, first)

    bench.simulate(process)
    if resets > 10:
        assert found == {"a result", "a result's middle", "pixels", "an operation", "a load"}
