"""Clips through the engine, in both simulators, held to the golden model at every frame."""

import numpy as np

from export.cost import Cost
from export.pack import pack
from hw.engine import Engine
from hw.generate import generate
from sim import golden
from sim.samples import random_clips, random_network
from sim.streams import simulate
from sim.verilog import clip_jobs, run_jobs


def engine_run(config, lengths, seed=1, gaps=0, made=None):
    """Runs clips through the engine, checks all, and gives the run and its cost."""
    cost, made = Cost.of(config), made or random_network(config.network, seed)
    clips = random_clips(config.network, lengths, seed + 1)
    dut = Engine(cost.hardware, pack(cost.program, cost.hardware, made))
    run = simulate(dut, cost.program, np.concatenate(clips), clips=lengths, seed=seed, gaps=gaps)
    frames, results = iter(enumerate(run.cycles)), iter(run.results)
    for clip in clips:
        stream = golden.Stream(made)
        for t, frame in enumerate(clip):
            wanted, (n, cycles) = stream.step(frame[None]), next(frames)
            came = run.codes.codes(n)
            for name, codes in came.items():
                np.testing.assert_array_equal(codes, wanted[name][0], f"{name}, frame {n}")
            assert came.keys() == {name for name, each in wanted.items() if each.ndim == 4}
            if (end := wanted.get(config.network.operations[-1].name)) is not None:
                assert next(results) == (int(end.argmax(1)[0]), int(end.max()))
            if not gaps:
                assert sum(cycles) == cost.cycles_at(t), f"frame {n}"
    return run, cost


def check_clips(config, seed, folder, lengths, simulator):
    """Every code and result of the Verilog at every frame, and its cycles."""
    made, cost = random_network(config.network, seed), Cost.of(config)
    clips = random_clips(config.network, lengths, seed)
    generate(config, made, folder)
    found = run_jobs(cost.hardware, folder, clip_jobs(cost.program, clips), simulator=simulator,
                     gaps=seed % 3, seed=seed, strict=simulator == "icarus")
    for n, trace in enumerate(golden.frame_traces(made, clips)):
        assert found.difference(n, trace, 0) is None
    times = [t for length in lengths for t in range(length)]
    assert [sum(each) for each in found.cycles] == list(map(cost.cycles_at, times))
