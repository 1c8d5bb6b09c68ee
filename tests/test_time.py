"""Networks that read clips: clocks, the golden model's memory, and the engine's rings."""

import random
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from amaranth import ResetInserter, Signal
from amaranth.sim import Simulator

from export.artifact import Layer
from export.build import build
from export.checked import ConfigError
from export.config import MachineConfig, parse_config
from export.cost import Cost
from export.file import load_network, save_network
from export.image import build_image
from export.loader import Loader
from export.machine import Machine, describe_machine
from export.pack import pack
from export.registers import register_map
from hw.axi import AxiEngine
from hw.engine import Engine
from hw.rings import Rings
from hw.verilog import write_verilog
from sim import golden
from sim.runner import missing
from sim.samples import random_clips, random_images, random_network
from sim.verilog import Job, Load, run_jobs
from tests.clips import check_clips, engine_run
from tests.designs import clip_designs, conv, design, network, total

# Three clocks; grouped kernels of three frames; gates and several inputs on a slow clock.
CLIPS = network([], height=5, width=6, channels=2, pad=77, operations=[
    conv("a", 6, 3, 3, frames=3),
    conv("b", 4, 2, 2, inputs=["a"], frames=3, every=2, groups=2, pool=True),
    conv("c", 4, 1, 3, inputs=["b"], frames=3, kernel=1),
    conv("d", 4, 3, 2, inputs=["b", "c"], frames=3, skip="b", gate="or"),
    total("end", 3, 3, inputs=["d"], every=2)])


def test_clocks():
    assert CLIPS.periods == {"pixels": 1, "a": 1, "b": 2, "c": 2, "d": 2, "end": 4}
    assert (CLIPS.timed, CLIPS.period) == (True, 4)
    assert not network([conv("a", 4, 3, 3)]).timed


@pytest.mark.parametrize("operations, said", [
    ([conv("a", 4, 3, 3), conv("b", 4, 3, 3, inputs=["a"], every=2),
      conv("c", 4, 3, 3, inputs=["b", "a"], frames=3)], "c: inputs of 3 frames must be on one"),
    ([conv("a", 4, 3, 3), conv("b", 4, 3, 3, inputs=["a"], every=2, skip="a", gate="or")],
     "b: a, which its gate reads, must be on its clock, every 2 frames, not every 1"),
    ([conv("a", 4, 3, 3), conv("b", 4, 3, 3, inputs=["a"], every=2),
      conv("c", 4, 3, 3, inputs=["a"]), conv("d", 4, 3, 3, inputs=["b", "c"])],
     "c: operations must come in the order of their clocks"),
    ([conv(f"c{k}", 4, 3, 3, every=2) for k in range(7)], "c6: must be computed every 64 frames"),
    ([conv("a", 4, 3, 3, frames=2)], "frames"), ([conv("a", 4, 3, 3, every=3)], "every"),
    ([conv("a", 4, 3, 3), conv("b", 4, 2, 3, kernel=1, frames=3, generator={})],
     "b: generated weights must have frames = 1, not 3")])
def test_what_does_not_fit_is_refused(operations, said):
    with pytest.raises(ConfigError, match=said) as caught:
        network([], operations=[*operations, total("end", 3, 3, inputs=[operations[-1]["name"]])])
    assert len(str(caught.value)) <= 300


def test_a_file_holds_kernels_of_three_frames(tmp_path):
    made = random_network(CLIPS, 1)
    assert made.by_name["b"].weight.shape == (4, 3, 3, 3, 3)
    save_network(made, tmp_path / "net.npz")
    assert load_network(tmp_path / "net.npz").digest == made.digest
    with pytest.raises(ConfigError, match=r"b: weight must be int8 4x.x3x3x3, not int8 4x3x3x3"):
        Layer(made.by_name["b"].config, made.by_name["b"].weight[:, :, 0],
              made.by_name["b"].bias, 0)


# ---- the golden model against one convolution of whole clips in three dimensions

def conv3d(layer, clip, pad):
    """Sums float64 [T, O, H, W] at every tick of maps [T, I, H, W], tap by tap."""
    weight, groups = layer.weight.astype(np.float64), layer.config.groups
    if weight.ndim == 4:
        weight = weight[:, :, None]
    outputs, inputs, frames, kernel, _ = weight.shape
    edge, (count, _, height, width) = kernel // 2, clip.shape
    wide = np.pad(clip.astype(np.float64), ((frames - 1, 0), (0, 0), (edge,) * 2, (edge,) * 2),
                  constant_values=pad)
    acc = np.zeros((count, outputs, height, width))
    for o in range(outputs):
        first = o // (outputs // groups) * inputs
        for k, dy, dx in np.ndindex(frames, kernel, kernel):
            part = wide[k:k + count, first:first + inputs, dy:dy + height, dx:dx + width]
            acc[:, o] += (weight[o, :, k, dy, dx, None, None] * part).sum(1)
    return acc


def whole_clip(made, clip):
    """Every operation's results at its ticks, over a whole clip at once."""
    config, found = made.config, {"pixels": golden.fold(clip, made.config.fold)}
    for each in config.operations:
        layer, period = made.by_name[each.name], config.periods[each.name]
        maps = [found[name] for name in each.inputs]
        steps = [period // config.periods[name] for name in each.inputs]
        if each.frames == 1:
            maps = [x[step - 1::step] for x, step in zip(maps, steps, strict=True)]
        x = np.concatenate(maps, 1)
        if each.kind == "sum":
            found[each.name] = x.sum((2, 3)) @ layer.weight[:, :, 0, 0].T.astype(int) + layer.bias
            continue
        acc = conv3d(layer, x, config.pad_of(each))
        acc = acc[steps[0] - 1::steps[0]] if each.frames > 1 else acc
        codes = np.floor((acc + layer.bias[:, None, None]) / 2**layer.shift)
        codes = codes.clip(0, 2**each.code_bits - 1).astype(np.uint8)
        if each.gate:
            codes |= found[each.skip]
        found[each.name] = golden.pool(codes) if each.pool else codes
    return found


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 9, 16])
def test_a_stream_is_a_convolution_of_the_whole_clip(length):
    made = random_network(CLIPS, 1)
    clip = random_images(CLIPS, length, 2)
    stream = golden.Stream(made)
    stream.step(clip[:1] if length else random_images(CLIPS, 1, 3))  # of a clip before
    stream.restart()
    found = [stream.step(frame[None]) for frame in clip]
    wanted = whole_clip(made, clip)
    for name, period in CLIPS.periods.items():
        if name == "pixels":
            continue
        ticks = [t for t, each in enumerate(found) if name in each]
        assert ticks == list(range(period - 1, length, period))
        for t, want in zip(ticks, wanted[name], strict=True):
            np.testing.assert_array_equal(found[t][name][0], want, f"{name}, frame {t}")
    if length > 8:  # nothing is all zeros
        assert all(len(np.unique(each)) > 1 for each in wanted.values())


def test_clips_one_behind_the_other_do_not_see_each_other():
    made, clips = random_network(CLIPS, 1), random_clips(CLIPS, [5, 4, 8], 3)
    trace = golden.run_clips(made, clips)
    each = [golden.run_clips(made, [clip]) for clip in clips]
    assert [len(one.scores) for one in each] == [1, 1, 2]
    np.testing.assert_array_equal(trace.scores, np.concatenate([one.scores for one in each]))
    np.testing.assert_array_equal(trace.codes["b"],
                                  np.concatenate([one.codes["b"] for one in each]))


def test_images_are_no_clips():
    with pytest.raises(ConfigError, match="must be run frame after frame, not on images"):
        golden.run(random_network(CLIPS, 1), random_images(CLIPS, 2, 1))


# ---- the engine

def clip_design(array, **more):
    return parse_config({"name": "clips", "network": {**CLIPS.model_dump(mode="json"), **more},
                         "array": dict(zip(("rows", "columns", "words"), array, strict=False))})


@pytest.mark.slow
def test_the_engine_reads_clips():
    """Of any length, one behind the other, with a ring of pixels and three clocks."""
    run, cost = engine_run(clip_design((2, 4, 2)), [5, 1, 4])
    assert (cost.hardware.clocks, cost.hardware.pixel_frames) == (3, 3)
    assert len(run.results) == 2


SMALL = design([], (2, 2, 1), height=2, width=3, channels=1, operations=[
    conv("a", 2, 2, 2, kernel=1), conv("b", 2, 3, 2, inputs=["a"], kernel=1, frames=3),
    conv("c", 4, 1, 1, inputs=["b"], kernel=1, frames=3, every=2),
    total("end", 2, 3, inputs=["c"])])


@pytest.mark.slow
def test_a_clip_longer_than_all_counters():
    run, _ = engine_run(SMALL, [40, 2])
    assert len(run.results) == 21
    assert len(np.unique([run.codes.codes(n)["b"] for n in range(42)])) == 4


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2])
def test_results_come_in_their_period(every):
    """Paced by the operations, or by pixels, which a network that looks only now and then takes."""
    operations = [conv("a", 2, 2, 2, every=every), conv("b", 4, 2, 1, inputs=["a"], frames=3),
                  total("end", 2, 3, inputs=["b"], every=2)]
    config = design([], (2, 2, 1), height=4, width=4, channels=1, operations=operations)
    run, cost = engine_run(config, [6 * 2 * every])
    assert np.diff(run.offered).tolist() == [cost.result_period] * 5
    assert cost.result_period == sum(map(cost.period_at, range(2 * every)))
    if every == 2:
        assert cost.period_at(0) == cost.input_cycles + 3  # nothing is computed


def test_rings_count_what_they_are_told():
    """Marks, dropped frames, other programs and resets, against a count of each clip's frames."""
    hardware = replace(Cost.of(clip_design((2, 4, 2))).hardware, programs=2)
    reset, rng, seen = Signal(), random.Random(1), set()
    rings = Rings(hardware)

    async def frames(ctx):
        ran, copies, starts, frame, ticks = None, [0, 0, 0], True, 0, [0, 0, 0]
        for _ in range(300):
            event = rng.choice(["frame"] * 6 + ["reset", "dropped"])
            if event == "reset":
                ctx.set(reset, 1)
                await ctx.tick()
                ctx.set(reset, 0)
                ran, copies, starts = None, [0, 0, 0], True
                continue
            mark, number = rng.random() < 0.1, int(rng.random() < 0.1)
            assert ctx.get(rings.next_copy) == (copies[0] + 1) % 3
            ctx.set(rings.clip, mark)
            for _ in range(rng.randint(1, 3)):  # pixels; only the first one's mark counts
                ctx.set(rings.taken, 1)
                await ctx.tick()
                ctx.set(rings.taken, 0)
                ctx.set(rings.clip, rng.random() < 0.5)
                await ctx.tick().repeat(rng.randint(0, 2) or 1)
            starts |= mark  # also if the frame is dropped
            if event == "frame":
                ctx.set(rings.number, number)
                ctx.set(rings.begin, 1)
                await ctx.tick()
                ctx.set(rings.begin, 0)
                starts |= number != ran
                frame, ticks = (0, [0, 0, 0]) if starts else (frame + 1, ticks)
                ran, starts = number, False
                for k in range(3):
                    due = (frame + 1) % 2**k == 0
                    copies[k], ticks[k] = (copies[k] + due) % 3, ticks[k] + due
                    assert ctx.get(rings.now.due[k]) == due
                    assert ctx.get(rings.now.copy[k]) == copies[k]
                    assert ctx.get(rings.now.ticks[k]) == min(3, ticks[k])
                    seen.add((k, due, copies[k], min(3, ticks[k])))
            ctx.set(rings.free, 1)
            await ctx.tick()
            ctx.set(rings.free, 0)

    simulator = Simulator(ResetInserter(reset)(rings))
    simulator.add_clock(1e-6)
    simulator.add_testbench(frames)
    simulator.run()
    assert len(seen) > 30


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["rom", "ram"])
def test_another_program_begins_a_clip(tmp_path, memory):
    """Three programs of one machine, one without clips, in any order."""
    plain = design([], (2, 2, 1), height=2, width=3, channels=1, operations=[
        conv("a", 4, 2, 2), total("end", 2, 1, inputs=["a"])])
    other = design([], (2, 2, 1), height=2, width=3, channels=1, operations=[
        conv("a", 2, 2, 2, frames=3), total("end", 2, 3, inputs=["a"])])
    configs = [SMALL, plain, other]
    made = [random_network(config.network, k) for k, config in enumerate(configs)]
    configs[0] = SMALL.model_copy(update={"machine": MachineConfig(memory=memory)})
    machine = build(configs, made if memory == "rom" else [None] * 3)
    write_verilog(Engine(machine.hardware, machine.images), tmp_path, "engine")
    words = []
    if memory == "ram":
        description = Machine(**describe_machine(machine.hardware))
        loader = Loader(description)
        for k, (config, network) in enumerate(zip(configs, made, strict=True)):
            _, placed = loader.place(build_image(description, config, network), k)
            words += loader.load(k, placed)
            loader.programs[k] = placed
    rng, jobs, traces, streams, ran = random.Random(2), [], [], {}, None
    for _ in range(40):
        number = ran if ran is not None and rng.random() < 0.7 else rng.randrange(3)
        clip = rng.random() < 0.15
        (image,) = random_images(configs[number].network, 1, len(jobs))
        if clip or number != ran:
            streams[number] = golden.Stream(made[number])
        found, ran = streams[number].step(image[None]), number
        traces.append(golden.trace_of(made[number], found))
        jobs.append(Job(program=machine.programs[number], image=image, number=number, clip=clip,
                        result="end" in found, needs=len(words)))
    came = run_jobs(machine.hardware, tmp_path, jobs, [Load(words=words)] if words else [])
    assert came.refused == 0
    for n, trace in enumerate(traces):
        assert came.difference(n, trace, 0) is None


def check_random(tmp_path, config, seed, simulator):
    """Three ticks of each operation at least, and what they leave behind for the next clips."""
    period = config.network.period
    check_clips(config, seed, tmp_path, [3 * period + 1, 1, period], simulator)


@pytest.mark.slow
@pytest.mark.parametrize("simulator, seed, config", [
    (simulator, *each) for simulator, each in zip(
        ("icarus", "icarus", "icarus", "verilator"), clip_designs(range(100), 4), strict=False)])
def test_random_networks_over_clips(tmp_path, simulator, seed, config):
    if reason := missing(simulator):
        pytest.skip(reason)
    check_random(tmp_path, config, seed, simulator)


@pytest.mark.long
@pytest.mark.parametrize("seed, config", [*islice(clip_designs(range(100, 200)), 40)])
def test_more_random_networks_over_clips(tmp_path, seed, config):
    check_random(tmp_path, config, seed, "icarus")


def test_axi_marks_clips_with_tuser():
    """The mark counts with a frame's first pixel, even if the frame is dropped; behind a soft reset
    a clip needs none."""
    config = design([], (2, 2, 1), height=2, width=3, channels=1, operations=[
        conv("a", 2, 3, 3, frames=3), total("end", 3, 3, inputs=["a"])])
    cost, made = Cost.of(config), random_network(config.network, 1)
    clips = random_clips(config.network, [2, 3, 4], 1)  # the reset is behind the first one
    engine = Engine(cost.hardware, pack(cost.program, cost.hardware, made), framed=True)
    dut = AxiEngine(engine, register_map(describe_machine(cost.hardware)))
    found = []

    async def control(ctx, bits):
        for name, value in (("awaddr", 0x40), ("wdata", bits), ("wstrb", 15), ("bready", 1),
                            ("awvalid", 1), ("wvalid", 1)):
            ctx.set(getattr(dut, f"s_axil_{name}"), value)
        await ctx.tick().until(dut.s_axil_awready & dut.s_axil_wready)
        ctx.set(dut.s_axil_awvalid, 0)
        ctx.set(dut.s_axil_wvalid, 0)
        await ctx.tick().until(dut.s_axil_bvalid)

    async def pixels(ctx):
        await control(ctx, 1)  # run
        for number, clip in enumerate(clips):
            ctx.set(dut.s_axis_tvalid, 1)
            frames = [frame.ravel().tolist() for frame in clip]
            if number == 2:
                frames.insert(0, [1, 2])  # too short
            for t, frame in enumerate(frames):
                for n, pixel in enumerate(frame):
                    ctx.set(dut.s_axis_tdata, pixel)
                    ctx.set(dut.s_axis_tuser, t == 0 and number != 1 if n == 0 else n % 2)
                    ctx.set(dut.s_axis_tlast, n == len(frame) - 1)
                    await ctx.tick().until(dut.s_axis_tready)
            ctx.set(dut.s_axis_tvalid, 0)
            if number == 0:
                while len(found) < 4:
                    await ctx.tick()
                await control(ctx, 3)  # reset, and run

    async def results(ctx):
        ctx.set(dut.m_axis_tready, 1)
        while len(found) < 18:
            *_, word = await ctx.tick().sample(dut.m_axis_tdata).until(dut.m_axis_tvalid)
            found.append(word)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(pixels, background=True)
    simulator.add_testbench(results)
    simulator.run_until(0.004)
    scores = golden.run_clips(made, clips).scores
    wanted = [word for each in scores for word in (int(each.argmax()), int(each.max()) % 2**32)]
    assert found == wanted
    assert len(set(scores.max(1).tolist())) > 3
