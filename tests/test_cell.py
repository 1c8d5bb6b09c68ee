"""Recurrent cells and sums of codes: configuration, artifact, file, and the golden model."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from amaranth import ResetInserter, Signal
from amaranth.sim import Simulator

from export.area import estimate
from export.artifact import Layer
from export.checked import ConfigError, parse
from export.config import load_config, parse_config
from export.cost import Cost
from export.file import load_network, save_network
from export.network import CellConfig, Shape
from export.pack import pack
from hw.cell import Cell
from hw.descriptor import layer_layout
from hw.engine import Engine
from sim import golden
from sim.runner import missing
from sim.samples import extreme_network, random_clips, random_images, random_network
from sim.streams import pixel_words
from tests.clips import check_clips, engine_run
from tests.designs import conv, design, machine, network, total


def cell(name: str, channels: int, weight_bits: int, code_bits: int, **more) -> dict:
    return {"kind": "cell", **conv(name, channels, weight_bits, code_bits, **more)}


def codes(name: str, channels: int, weight_bits: int, code_bits: int, **more) -> dict:
    return total(name, channels, weight_bits, "codes", code_bits=code_bits, **more)


A = conv("a", 6, 3, 3, pool=True)
# Cells on two clocks, one behind the other; what else may read a vector.
CELLS = network([], height=6, width=5, channels=2, operations=[
    conv("a", 6, 3, 3, frames=3), codes("s", 7, 2, 3, inputs=["a"]),
    cell("b", 7, 2, 2), conv("c", 9, 3, 3, kernel=1), codes("d", 5, 3, 2, every=2),
    cell("e", 5, 3, 3, form="coupled", value_bits=6, state_bits=3),
    total("f", 3, 2, inputs=["d", "e"])])


# ---- configuration

def test_vectors_of_codes_are_maps():
    assert [each.inputs for each in CELLS.operations] == [
        ("pixels",), ("a",), ("s",), ("b",), ("c",), ("d",), ("d", "e")]
    assert [CELLS.shapes[name] for name in "sbcde"] == [
        Shape(channels=channels, height=1, width=1) for channels in (7, 7, 9, 5, 5)]
    assert [each.name for each in CELLS.maps] == list("asbcde")
    assert [CELLS.peak(each) for each in CELLS.operations] == [255, 7, 7, 3, 7, 7, 7]
    assert CELLS.periods == dict.fromkeys(["pixels", *"asbc"], 1) | dict.fromkeys("def", 2)
    assert [each.filters for each in CELLS.operations] == [6, 7, 28, 9, 5, 15, 3]


def test_layers_may_have_cells_and_sums_of_codes():
    short = network([A, codes("s", 4, 2, 2), cell("b", 4, 2, 2)])
    assert [each.inputs for each in short.operations] == [("pixels",), ("a",), ("s",), ("b",)]
    assert parse(short.model_dump(mode="json"), "again", type(short)) == short


def test_a_network_with_a_cell_reads_clips():
    assert network([A, codes("s", 4, 2, 2), cell("b", 4, 2, 2)]).timed
    assert not network([A, codes("s", 4, 2, 2)]).timed


@pytest.mark.parametrize("code_bits, state_bits, shift", [(1, 8, 7), (3, 8, 5), (3, 2, 0)])
def test_the_state_is_spread_over_the_codes(code_bits, state_bits, shift):
    found = CellConfig(name="a", channels=4, weight_bits=1, code_bits=code_bits,
                       state_bits=state_bits)
    assert (found.form, found.value_bits, found.state_shift) == ("full", 8, shift)


@pytest.mark.parametrize("operations, said", [
    ([cell("b", 6, 2, 2)], "b: a cell must read one map of 1x1 pixels and 6 channels, as many as "
                           "its own, not one of 3x2 and 6"),
    ([codes("s", 4, 2, 2), cell("b", 6, 2, 2)], "as many as its own, not one of 1x1 and 4"),
    ([codes("s", 2, 2, 2), codes("t", 4, 2, 2), cell("b", 6, 2, 2, inputs=["s", "t"])],
     "not 2 of 1x1 and 6"),
    ([total("s", 6, 2, "codes"), cell("b", 6, 2, 2)],
     "s: code_bits must be 1, 2 or 3 if its output is codes, and only then, not None"),
    ([total("s", 6, 2, "select", code_bits=2), conv("b", 6, 2, 2)], "and only then, not 2"),
    ([codes("s", 6, 2, 4), cell("b", 6, 2, 2)], "code_bits: must be 1, 2 or 3, not 4"),
    ([codes("s", 6, 2, 2), cell("b", 6, 2, 2, form="half")], "form: must be 'full' or 'coupled'"),
    ([codes("s", 6, 2, 2), cell("b", 6, 2, 2, value_bits=9)], "value_bits: must be less than"),
    ([codes("s", 6, 2, 2), cell("b", 6, 2, 2, state_bits=1)], "state_bits: must be greater than"),
    ([codes("s", 6, 2, 2), cell("b", 6, 2, 2, state_shift=8)], "state_shift: must be less than"),
    ([codes("s", 6, 2, 2), cell("b", 6, 2, 2, frames=3)], "frames: is not known"),
    ([codes("s", 6, 2, 2, inputs=["a"]), conv("b", 6, 2, 2, inputs=["s"], skip="s", gate="or")],
     "b: skip must name a convolution, not 's'")])
def test_what_does_not_fit_is_refused(operations, said):
    with pytest.raises(ConfigError) as caught:
        network([], operations=[A, *operations, total("end", 3, 3)])
    assert said in str(caught.value)
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("last, said", [
    (codes("s", 4, 2, 2), "s: the last operation must be a sum whose output is a class, a map of "
                          "values or a convolution, not codes"),
    (cell("b", 4, 2, 2), "a convolution, not a cell")])
def test_a_vector_ends_no_network(last, said):
    with pytest.raises(ConfigError, match=said):
        network([], operations=[A, codes("t", 4, 2, 2), *([last] if last["kind"] == "cell" else [
            cell("c", 4, 2, 2), last])])


# ---- artifact and file

def test_a_file_holds_cells(tmp_path):
    made = random_network(CELLS, 1)
    assert [made.by_name[name].weight.shape for name in "sbe"] == [
        (7, 6, 1, 1), (28, 7, 2), (15, 5, 2)]
    assert [made.by_name[name].bias.shape for name in "sbe"] == [(7,), (28,), (15,)]
    assert made.by_name["s"].shift > 0
    save_network(made, tmp_path / "net.npz")
    assert load_network(tmp_path / "net.npz").digest == made.digest


def test_layers_that_do_not_fit_are_refused():
    b, s = (random_network(CELLS, 1).by_name[name] for name in "bs")
    with pytest.raises(ConfigError, match=r"b: weight must be int8 28x.x2, not int8 28x7x1"):
        Layer(b.config, b.weight[..., :1], b.bias)
    with pytest.raises(ConfigError, match="b: bias must be int32 28, not int32 7"):
        Layer(b.config, b.weight, b.bias[:7])
    with pytest.raises(ConfigError, match="s: shift must be an integer from 0 to 15, not 16"):
        Layer(s.config, s.weight, s.bias, 16)


def test_sums_of_a_cell_stay_in_their_range():
    made = random_network(CELLS, 1)
    worst = 2**31 - 1
    layers = [Layer(each.config, each.weight, np.full_like(each.bias, worst), each.shift)
              if each.config.kind == "cell" else each for each in made.layers]
    with pytest.raises(ConfigError, match="b: sums with bias must stay below 2147483648"):
        type(made)(CELLS, tuple(layers))


# ---- the golden model against plain Python

def clip(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))


def plain_cell(layer, ticks):
    """h and c of every tick, from x as lists of integers: one unit after the other."""
    config = layer.config
    units, full = config.channels, config.form == "full"
    names = ["i", "f", "g", "o"] if full else ["f", "g", "o"]
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    h, c, found = [0] * units, [0] * units, []
    low, high = -2 ** (config.state_bits - 1), 2 ** (config.state_bits - 1) - 1
    for x in ticks:
        new_h, new_c = [], []
        for unit in range(units):
            sums = {}
            for k, name in enumerate(names):
                row = k * units + unit
                sums[name] = bias[row] + sum(
                    weight[row][j][0] * x[j] + weight[row][j][1] * h[j] for j in range(units))
            g = clip(sums["g"] // 2**layer.shift, -2 ** (config.value_bits - 1),
                     2 ** (config.value_bits - 1) - 1)
            if full:
                state = (c[unit] if sums["f"] >= 0 else 0) + (g if sums["i"] >= 0 else 0)
            else:
                state = c[unit] if sums["f"] >= 0 else g
            state = clip(state, low, high)
            code = clip(state // 2**config.state_shift + 2 ** (config.code_bits - 1), 0,
                        2**config.code_bits - 1)
            new_h.append(code if sums["o"] >= 0 else 0)
            new_c.append(state)
        h, c = new_h, new_c
        found.append((h, c))
    return found


FORMS = [{}, {"form": "coupled"}, {"value_bits": 3, "state_bits": 5},
         {"value_bits": 8, "state_bits": 2, "state_shift": 1},
         {"form": "coupled", "value_bits": 6, "state_bits": 4, "state_shift": 3}]


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("form", FORMS)
def test_a_cell_is_its_equations(bits, form):
    config = network([], operations=[
        A, codes("s", 11, 2, 3), cell("b", 11, 4 - bits, bits, **form), total("end", 3, 3)])
    made, clips = random_network(config, bits), random_clips(config, [20, 1, 6], 2)
    stream = golden.Stream(made)
    for each in clips:
        stream.restart()
        found = []
        for frame in each:
            step = stream.step(frame[None])
            found.append((step["s"].ravel(), step["b"].ravel(), stream.states["b"][1].ravel()))
        x, h, c = map(np.stack, zip(*found, strict=True))
        wanted = plain_cell(made.by_name["b"], x.tolist())
        assert (h.dtype, c.dtype) == (np.uint8, np.int8)
        np.testing.assert_array_equal(h, [each[0] for each in wanted])
        np.testing.assert_array_equal(c, [each[1] for each in wanted])
        if len(found) == 20:  # it does something, and remembers
            assert len(np.unique(h)) > 1 and len(np.unique(c)) > 2
            assert sum(not np.array_equal(*pair) for pair in pairwise(h)) > 10


def test_a_sum_of_codes_is_its_equation():
    made, images = random_network(CELLS, 3), random_images(CELLS, 12, 4)
    trace = golden.run_clips(made, [images])
    layer = made.by_name["s"]
    sums = np.einsum("nchw,oc->no", trace.codes["a"].astype(np.float64), layer.weight[..., 0, 0])
    wanted = np.floor((sums + layer.bias) / 2**layer.shift).clip(0, 7)
    np.testing.assert_array_equal(trace.codes["s"], wanted[:, :, None, None])
    assert set(trace.codes["s"].ravel()) == set(range(8))
    assert list(trace.sums) == ["f"]


def test_cells_compute_at_their_ticks_and_begin_anew():
    made, clips = random_network(CELLS, 3), random_clips(CELLS, [5, 8], 4)
    trace = golden.run_clips(made, clips)
    assert {name: len(each) for name, each in trace.codes.items()} == {
        **dict.fromkeys("asbc", 13), **dict.fromkeys("de", 6)}
    first, second = (golden.run_clips(made, [each]) for each in clips)
    for name in "be":
        np.testing.assert_array_equal(
            trace.codes[name], np.concatenate([first.codes[name], second.codes[name]]))
    x = trace.codes["d"][2:].reshape(4, 5).tolist()
    wanted = [h for h, _ in plain_cell(made.by_name["e"], x)]
    np.testing.assert_array_equal(second.codes["e"].reshape(4, 5), wanted)


def test_several_clips_at_a_time():
    made, clips = random_network(CELLS, 5), np.stack(random_clips(CELLS, [6, 6, 6], 6))
    stream = golden.Stream(made)
    found = [stream.step(clips[:, t]) for t in range(6)]
    for k, each in enumerate(clips):
        alone = golden.run_clips(made, [each])
        np.testing.assert_array_equal([step["b"][k] for step in found], alone.codes["b"])


# ---- made networks

@pytest.mark.parametrize("bits", [1, 2, 3])
def test_random_networks_use_every_code_of_cells(bits):
    config = network([], operations=[
        conv("a", 8, bits, bits), codes("s", 12, bits, bits), cell("b", 12, bits, bits),
        cell("c", 12, bits, bits, form="coupled", every=2), total("end", 4, 3)])
    for seed in range(3):
        trace = golden.run_clips(random_network(config, seed), random_clips(config, [12] * 20, 9))
        for name in "sbc":
            shares = np.bincount(trace.codes[name].ravel(), minlength=2**bits)
            assert shares.min() > 0.002 * trace.codes[name].size, name
        assert len(set(trace.classes.tolist())) > 1


def test_extreme_networks_saturate_cells():
    for value in (-2, 2):
        stream = golden.Stream(extreme_network(CELLS, value))
        for _ in range(4):
            found = stream.step(np.full((1, 6, 5, 2), 255, np.uint8))
        assert all((found[name] == 2**CELLS.by_name[name].code_bits - 1).all() for name in "sbe")
        assert [stream.states[name][1].max() for name in "be"] == [127, 3]


# ---- the engine

@pytest.mark.parametrize("unit, units", [(2, 1), (2, 3), (1, 1)])
@pytest.mark.parametrize("form, state_bits", [("full", 8), ("coupled", 8), ("full", 3)])
def test_the_cell_component(form, state_bits, unit, units):
    """Random values and extremes of several channels over ticks, against the golden model."""
    config = design([], (1, unit * units, 1), height=1, width=1, channels=1, operations=[
        conv("a", 5, 1, 1), cell("b", 5, 1, 3, form=form, state_bits=state_bits),
        total("c", 2, 1)])
    hardware = replace(machine(config)[1], state_words=9)
    operation = config.network.by_name["b"]
    rng, gates = np.random.default_rng(1), len(operation.gates)
    tiles = -(-5 // (unit * units))
    dut, layer = Cell(hardware), layer_layout(hardware)
    assert (hardware.array.unit, hardware.array.units) == (unit, units)
    state = np.zeros(tiles * unit * units, int)

    async def tick(ctx, first):
        values = rng.choice([-128, -9, -1, 0, 1, 7, 127], (gates, tiles, units, unit))
        ctx.set(dut.fetch, 1)
        await ctx.tick()
        ctx.set(dut.fetch, 0)
        await ctx.tick()
        found = []
        for t in range(tiles):
            for g in range(gates):
                ends = (t, g) == (tiles - 1, gates - 1)
                for k in range(units + 3 + ends):  # the last codes come four cycles behind
                    ctx.set(dut.walk.valid, k < units)
                    ctx.set(dut.walk.inside, 1)
                    ctx.set(dut.walk.unit, min(k, units - 1))
                    ctx.set(dut.walk.channels_last, k == units - 1)
                    if k < units:
                        for u in range(unit):
                            ctx.set(dut.values[u], int(values[g, t, k, u]))
                    if ctx.get(dut.emit):
                        found += list(ctx.get(dut.codes))
                        assert ctx.get(dut.last) == (len(found) % (unit * units) == 0)
                    await ctx.tick()
        flat = dict(zip(operation.gates, values.reshape(gates, -1), strict=True))
        peak, old = 2**(state_bits - 1), state * (not first)
        keep = flat["f"] >= 0
        if form == "full":
            new = keep * old + (flat["i"] >= 0) * flat["g"]
        else:
            new = np.where(keep, old, flat["g"])
        state[:] = new.clip(-peak, peak - 1)
        code = ((state >> operation.state_shift) + 4).clip(0, 7) * (flat["o"] >= 0)
        assert found == code.tolist()

    async def ticks(ctx):
        fields = {"code_bits": 3, "coupled": form == "coupled", "state_bits": state_bits - 1,
                  "state_shift": operation.state_shift, "state_base": 1}
        ctx.set(dut.layer, layer.const(fields))
        ctx.set(dut.active, 1)
        for n in range(12):
            ctx.set(dut.first, n % 5 == 0)
            await tick(ctx, n % 5 == 0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(ticks)
    simulator.run()


def cells(array):
    return parse_config({"name": "cells", "network": CELLS.model_dump(mode="json"),
                         "array": dict(zip(("rows", "columns", "words"), array, strict=True))})


@pytest.mark.slow
@pytest.mark.parametrize("simulator, array, lengths", [
    ("icarus", (3, 3, 1), [5, 1, 4]), ("verilator", (5, 8, 4), [1, 2, 16, 40])])
def test_the_engine_runs_cells(tmp_path, simulator, array, lengths):
    if reason := missing(simulator):
        pytest.skip(reason)
    check_clips(cells(array), 1, tmp_path, lengths, simulator)


@pytest.mark.slow
def test_a_vector_without_clips():
    """Sums of codes are of no clip; a class is compared beside them."""
    config = design([], (2, 4, 2), height=3, width=3, operations=[
        conv("a", 6, 2, 2), codes("s", 9, 2, 3), conv("b", 5, 3, 3, kernel=1),
        codes("t", 6, 1, 1), total("end", 4, 2)])
    assert not config.network.timed
    engine_run(config, [1, 1, 1])


def test_a_class_that_waits_is_not_touched_by_a_vector():
    """Frames are there before the class of the one before is taken."""
    config = design([], (1, 2, 1), height=1, width=2, channels=1, operations=[
        conv("a", 2, 3, 3, kernel=1), codes("s", 8, 3, 3), conv("b", 6, 3, 3, kernel=1),
        total("end", 4, 3)])
    engine_run(config, [1] * 12, gaps=250)


@pytest.mark.parametrize("form", ["full", pytest.param("coupled", marks=pytest.mark.slow)])
def test_a_small_engine_with_a_cell(form):
    """Gates and state of its own last codes; the second clip begins without them."""
    config = design([], (2, 4, 1), height=2, width=2, channels=1, operations=[
        conv("a", 4, 3, 3), codes("s", 7, 3, 3), cell("h", 7, 3, 3, form=form),
        total("end", 4, 3, inputs=["h"])])
    run, _ = engine_run(config, [6, 3], seed=2)
    assert len({run.codes.codes(n)["h"].tobytes() for n in range(9)}) > 6


@pytest.mark.slow
def test_clips_of_any_length_in_an_engine_with_all_of_billnet():
    """Groups over three frames, a MUX-OR gate, a slow clock, a vector, a cell."""
    config = design([], (2, 4, 2), height=2, width=3, channels=1, operations=[
        conv("a", 4, 3, 1, kernel=1), total("m", 4, 1, "select", inputs=["a"]),
        conv("b", 4, 1, 1, inputs=["a"], frames=3, groups=2, skip="a", gate="mux_or", select="m"),
        conv("c", 4, 1, 1, inputs=["b"], kernel=1, every=2), codes("s", 5, 1, 2),
        cell("h", 5, 2, 2, state_bits=6), total("end", 4, 2, inputs=["h"])])
    run, _ = engine_run(config, [1, 2, 16, 40])
    assert len(run.results) == 29


@pytest.mark.slow
def test_a_vector_leaves_select_bits_alone():
    config = design([], (2, 4, 2), height=3, width=3, operations=[
        conv("a", 8, 2, 2), total("m", 8, 2, "select", inputs=["a"]),
        codes("s", 8, 3, 2, inputs=["a"]), conv("b", 8, 2, 2, inputs=["a"], skip="a", gate="mux",
                                                select="m"),
        codes("t", 8, 2, 2, inputs=["b"]), total("end", 3, 2, inputs=["s", "t"])])
    engine_run(config, [1, 1, 1])


@pytest.mark.parametrize("name, most", [("billnet", 1_000_000), ("billnet_small", 500_000)])
def test_the_shipped_video_networks_fit(name, most):
    """Stored bits, and block RAMs of an LFE5U-45F; the 85F has 208."""
    cost = Cost.of(load_config(f"configs/{name}.toml"))
    assert cost.total_bits <= most
    assert estimate(cost.hardware, "ecp5").cells["block_ram"] <= 108


@pytest.mark.parametrize("periods, results", [
    pytest.param(1.5, 1, marks=pytest.mark.slow),
    *(pytest.param(*each, marks=pytest.mark.long) for each in ((0.4, 0), (1, 0), (2.2, 2)))])
def test_a_reset_in_the_middle_of_a_clip_begins_a_new_one(periods, results):
    """Nothing of it is left in rings or states: the next clips, the first unmarked, are right."""
    cost = Cost.of(cells((2, 4, 2)))
    made = random_network(cost.program.config.network, 1)
    reset, engine = Signal(), Engine(cost.hardware, pack(cost.program, cost.hardware, made))

    async def feed(ctx, clips, cycles):
        """Results of clips, or what there are after so many cycles."""
        words = [(word, k > 0 and t == 0) for k, clip in enumerate(clips)
                 for t, frame in enumerate(pixel_words(clip)) for word in frame]
        wanted = sum(len(clip) // cost.program.config.network.period for clip in clips)
        results = []
        for _ in range(cycles):
            ctx.set(engine.pixels.valid, bool(words))
            if words:
                ctx.set(engine.pixels.payload, words[0][0])
                ctx.set(engine.clip, words[0][1])
            ctx.set(engine.result.ready, 1)
            *_, taken, valid, payload = await ctx.tick().sample(
                engine.pixels.ready, engine.result.valid, engine.result.payload)
            if taken and words:
                words.pop(0)
            if valid:
                results.append((payload["class"], payload.score))
            if len(results) == wanted:
                break
        return results

    async def process(ctx):
        clips = random_clips(cost.program.config.network, [6, 2, 3], 1)
        left = await feed(ctx, clips, int(periods * cost.result_period))
        assert (len(left), ctx.get(engine.busy)) == (results, 1)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        trace = golden.run_clips(made, clips[1:])
        assert await feed(ctx, clips[1:], 20_000) == list(
            zip(trace.classes.tolist(), trace.scores.max(1).tolist(), strict=True))

    simulator = Simulator(ResetInserter(reset)(engine))
    simulator.add_clock(1e-6)
    simulator.add_testbench(process)
    simulator.run()
