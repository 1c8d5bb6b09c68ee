"""The whole engine in Amaranth's simulator: every code of every layer, and every cycle."""

import random
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from export.config import ConfigError, parse_config
from export.cost import Cost
from export.hardware import Hardware
from export.pack import pack
from export.program import Program
from export.words import operands
from hw.engine import Engine
from sim import golden
from sim.results import difference
from sim.samples import extreme_network, random_images, random_network
from sim.streams import simulate
from tests import designs
from tests.designs import buffered

LIMIT = 20_000  # cycles times multipliers of a frame in usual tests: a second or two


def design(layers: list[dict], array: tuple, *, height=6, width=5, channels=3, **network):
    """A configuration; `array` is rows, columns, words, optionally precisions and dense."""
    rows, columns, words, *rest = array
    layers = [{"name": f"layer{k}", **layer} for k, layer in enumerate(layers)]
    return parse_config({
        "name": "test",
        "network": {"height": height, "width": width, "channels": channels, "classes": 3,
                    "layers": layers, **network},
        "array": {"rows": rows, "columns": columns, "words": words,
                  **dict(zip(("precisions", "dense"), rest, strict=False))}})


def conv(channels: int, weight_bits: int, code_bits: int, **more) -> dict:
    return {"channels": channels, "weight_bits": weight_bits, "code_bits": code_bits, **more}


def check(config, network, images, hardware=None, **how):
    """Classes, scores, codes of every operation, and its cycles."""
    program = Program(config)
    hardware = hardware or Hardware.of([program])
    cost = Cost(program, hardware)
    run = simulate(Engine(hardware, pack(program, hardware, network)), program, images, **how)
    trace = golden.run(network, images)
    for frame in range(len(images)):
        for name, codes in run.codes.codes(frame).items():
            np.testing.assert_array_equal(codes, trace.codes[name][frame], f"frame {frame}, {name}")
        assert difference(config.network, run.results[frame], trace, frame) is None
    wanted = [cost.layer_cycles(layer) for layer in program.layers]
    if cost.output_wait or how.get("gaps"):  # the last operation may have to wait for its output
        assert all(cycles[-1] >= wanted[-1] for cycles in run.cycles)
        run.cycles[1:] = [[*cycles[:-1], wanted[-1]] for cycles in run.cycles[1:]]
    assert run.cycles == [wanted] * len(images)
    return run


def few(make, seeds, count: int) -> list:
    """The first `count` seeds: one quick test, slow ones, and long ones that simulate for long."""
    found, quick = [], True
    for seed in islice(seeds, count):
        cost = Cost.of(make(seed))
        array = cost.hardware.array
        work = cost.frame_cycles * (8 + array.rows * array.columns * array.words)
        marks = [pytest.mark.long if work > LIMIT else pytest.mark.slow]
        if quick and work < LIMIT / 3:
            quick, marks = False, []
        found.append(pytest.param(seed, marks=marks))
    return found


def random_design(seed: int):
    """Layer shapes, precisions and array sizes that have nothing to do with each other."""
    rng = random.Random(seed)
    precisions = rng.choice([(1, 2, 3), (1, 2, 3), (1, 2), (2, 3), (1, 3), (3,), (2,), (1,)])
    bits = [b for b in (1, 2, 3) if b <= max(precisions)]
    channels = first = rng.choice([1, 2, 3, 5])
    height, width = rng.randint(1, 8), rng.randint(1, 8)
    layers, h, w = [], height, width
    for _ in range(rng.randint(1, 3)):
        wanted = rng.choice([1, 3, 4, 6, 7, 12, 13, 24])
        groups = rng.choice([g for g in (1, 1, 2, 3, 4) if not (channels % g or wanted % g)])
        pool = h > 1 and w > 1 and rng.random() < 0.5
        layers.append(conv(wanted, rng.choice(bits), rng.choice(bits), groups=groups,
                           kernel=rng.choice([1, 3, 3]), pool=pool))
        channels, h, w = wanted, h // (1 + pool), w // (1 + pool)
    rows, columns = rng.choice([(1, 1), (1, 4), (2, 3), (3, 4), (4, 4), (5, 2), (7, 1), (2, 8)])
    return design(layers, (rows, columns, rng.randint(1, 4), precisions, seed % 3 > 0),
                  height=height, width=width, channels=first, pad=rng.randint(0, 255),
                  classes=rng.randint(2, 6), classifier_bits=rng.choice(bits))


def packable(seeds):
    """Seeds whose design the array has the precisions for."""
    for seed in seeds:
        try:
            Program(random_design(seed))
        except ConfigError:
            continue
        yield seed


@pytest.mark.parametrize("seed", few(random_design, packable(range(48)), 36))
def test_random_networks(seed):
    config = random_design(seed)
    check(config, random_network(config.network, seed), random_images(config.network, 2, seed),
          gaps=3 * (seed % 2), seed=seed)


@pytest.mark.parametrize("seed", few(random_design, packable(range(200, 212)), 8))
def test_random_networks_with_two_buffers(seed):
    """Frames come in one after the other, in either buffer; those before are left alone."""
    config = buffered(random_design(seed))
    check(config, random_network(config.network, seed), random_images(config.network, 5, seed),
          gaps=3 * (seed % 2), seed=seed)


def random_output(seed: int):
    """As :func:`random_design`, but codes or a map of values leave; blocks of pixels are folded."""
    rng, config = random.Random(seed), random_design(seed)
    values = config.model_dump()
    network = values["network"]
    fold = rng.choice([1, 1, 2, 4]) if network["channels"] < 4 else 1
    network |= {"fold": fold, "height": fold * network["height"],
                "width": fold * network["width"]}
    *network["operations"], last = network["operations"]
    if rng.random() < 0.5:
        network["operations"].append(
            {"kind": "map", "name": "end", "inputs": last["inputs"], "channels": last["channels"],
             "weight_bits": last["weight_bits"], "out_bits": rng.choice([2, 5, 8, 8])})
    first = network["operations"][0]
    size = network["channels"] * fold**2
    first["groups"] = rng.choice([g for g in (1, 1, 2, 3)
                                  if not (size % g or first["channels"] % g)])
    return parse_config(values)


def leaving(seeds):
    """Seeds whose design the array has the precisions for."""
    for seed in seeds:
        try:
            Program(random_output(seed))
        except ConfigError:
            continue
        yield seed


@pytest.mark.slow
@pytest.mark.parametrize("seed", few(random_output, leaving(range(100, 180)), 36))
def test_random_outputs(seed):
    """A third of them with two buffers of pixels, folded or not."""
    config, count = random_output(seed), 2
    if seed % 3 == 0:
        config, count = buffered(config), 4
    check(config, random_network(config.network, seed), random_images(config.network, count, seed),
          gaps=3 * (seed % 2), seed=seed)


def random_gates(seed: int):
    """Layers of few sizes, most with a gate whose skip may be any that fits, some generated."""
    rng = random.Random(seed)
    rows, columns = rng.choice([(1, 1), (1, 4), (2, 3), (3, 4), (4, 4), (5, 2), (7, 1), (2, 8)])
    height, width = rng.randint(2, 8), rng.randint(2, 8)
    sizes, layers, size = [], [], (height, width)
    step = rng.choice([columns, 4, 5])
    for _ in range(rng.randint(3, 6)):
        wanted = step * rng.choice([1, 1, 2])
        layer = conv(wanted, rng.randint(1, 3), rng.randint(1, 3), kernel=rng.choice([1, 3]))
        halves = [(h, w) for h, w in sizes if (h // 2, w // 2) == size]
        fits = [j for j, (at, other) in enumerate(zip(sizes, layers, strict=True))
                if (at == size or at in halves) and wanted % other["channels"] == 0]
        if fits and rng.random() < 0.8:
            layer |= {"skip": f"layer{rng.choice(fits)}", "select_bits": rng.randint(1, 3),
                      "gate": rng.choice(["or", "mux", "mux_or"])}
            if layer["gate"] == "or":
                del layer["select_bits"]
        if min(size) > 1 and rng.random() < 0.3:
            layer["pool"], size = True, (size[0] // 2, size[1] // 2)
        layers.append(layer)
        sizes.append(size)
    array = rows, columns, rng.randint(1, 4), (1, 2, 3), seed % 2 > 0
    sizes = {"height": height, "width": width, "channels": rng.randint(1, 3)}
    modes = {layer.name: layer.mode for layer in Program(design(layers, array, **sizes)).layers}
    for k, layer in enumerate(layers):
        if k and layer["kernel"] == 1 and layer["weight_bits"] < 3 and rng.random() < 0.7:
            layer["generator"] = {
                "rule": rng.choice([30, 45, 105]), "outputs": columns,
                "inputs": operands(modes[f"layer{k}"], array[2]),
                "mapping": rng.choice(["half", "quarter"]) if layer["weight_bits"] == 2 else
                           "binary"}
    return design(layers, array, **sizes)


def gated(seeds):
    """Seeds whose design has a gate, and skips that can be placed."""
    for seed in seeds:
        try:
            if Program(random_gates(seed)).skip_words:
                yield seed
        except ConfigError:
            continue


@pytest.mark.slow
@pytest.mark.parametrize("seed", few(random_gates, gated(range(80)), 30))
def test_random_gates(seed):
    config = random_gates(seed)
    check(config, random_network(config.network, seed), random_images(config.network, 2, seed),
          gaps=3 * (seed % 2), seed=seed)


@pytest.mark.slow
def test_a_skip_memory_of_several_pieces(monkeypatch):
    monkeypatch.setattr("hw.gate.SIZES", (16, 8))
    seed = next(each for each in gated(range(80))
                if Program(random_gates(each)).skip_words == 28)
    config = random_gates(seed)
    check(config, random_network(config.network, seed), random_images(config.network, 2, seed),
          gaps=3, seed=seed)


def random_concatenation(seed: int):
    """Operations of one or several earlier maps, listed in any order, some with a gate."""
    rng = random.Random(seed)
    rows, columns = rng.choice([(1, 1), (1, 4), (2, 3), (3, 4), (4, 4), (5, 2), (7, 1), (2, 8)])
    height, width = rng.randint(2, 7), rng.randint(2, 7)
    layers, alike = [], []  # and the maps of the size at hand
    for k in range(rng.randint(3, 7)):
        channels = rng.choice([columns, 3, 4, 5, 7, 8, 12])
        layer = conv(channels, rng.randint(1, 3), rng.randint(1, 3), kernel=rng.choice([1, 3]))
        if len(alike) > 1 and rng.random() < 0.7:
            layer["inputs"] = rng.sample(alike, rng.randint(2, min(4, len(alike))))
            if rng.random() < 0.5:
                layer["inputs"].sort()
        elif k:
            layer["inputs"] = [alike[-1]]
        if alike and rng.random() < 0.3:
            skip = rng.choice(alike)
            width_of = layers[int(skip[5:])]["channels"]
            layer |= {"skip": skip, "gate": rng.choice(["or", "mux", "mux_or"]),
                      "channels": width_of * rng.choice([1, 1, 2])}
        if rng.random() < 0.2 and min(height, width) >> sum(x.get("pool", 0) for x in layers) > 1:
            layer["pool"], alike = True, []
        layers.append(layer)
        alike.append(f"layer{k}")
    read = {name for layer in layers for name in [*layer.get("inputs", []), layer.get("skip")]}
    if last := [name for name in alike if name not in read]:  # nothing is made in vain
        layers.append(conv(5, 2, 2, kernel=1, inputs=last))
    return design(layers, (rows, columns, rng.randint(1, 4), (1, 2, 3), seed % 2 > 0),
                  height=height, width=width, channels=rng.randint(1, 3))


def concatenating(seeds):
    """Seeds whose design can be placed."""
    for seed in seeds:
        try:
            config = random_concatenation(seed)
            Program(config)
        except ConfigError:
            continue
        if any(len(each.inputs) > 1 for each in config.network.operations):
            yield seed


@pytest.mark.slow
@pytest.mark.parametrize("seed", few(random_concatenation, concatenating(range(200)), 36))
def test_random_concatenations(seed):
    config = random_concatenation(seed)
    check(config, random_network(config.network, seed), random_images(config.network, 2, seed),
          gaps=3 * (seed % 2), seed=seed)


@pytest.mark.slow
def test_dense_block():
    """Each layer reads all maps before it: they grow one behind the other, read in any number."""
    layers = [conv(6, 3, 3)]
    layers += [conv(4, 2, 2 + k % 2, inputs=[f"layer{j}" for j in range(k)]) for k in range(1, 5)]
    config = design(layers, (4, 4, 2))
    check(config, random_network(config.network, 1), random_images(config.network, 2, 1))


@pytest.mark.slow
def test_two_programs_on_one_machine():
    """Each is as exact, and as fast, as on a machine of its own."""
    configs = [design([conv(8, 3, 3, pool=True), conv(5, 1, 1)], (4, 4, 2), classes=7),
               design([conv(4, 2, 2), conv(4, 2, 2, skip="layer0", gate="mux"),
                       conv(9, 1, 3, inputs=["layer0", "layer1"])], (4, 4, 2))]
    programs = [Program(config) for config in configs]
    hardware = Hardware.of(programs)
    for config in configs:
        check(config, random_network(config.network, 1), random_images(config.network, 2, 1),
              hardware)


@pytest.mark.slow
def test_a_skip_that_is_repeated_is_not_written_over():
    """Its last reader goes through it twice and is kept as a skip itself."""
    config = design([conv(4, 3, 3), conv(8, 2, 3, skip="layer0", gate="or"),
                     conv(8, 2, 3, skip="layer1", gate="or")], (4, 4, 2))
    check(config, random_network(config.network, 1), random_images(config.network, 2, 1))


@pytest.mark.slow
@pytest.mark.parametrize("value", [-2, 2])
@pytest.mark.parametrize("mode", [1, 2, 3])
def test_full_accumulators(value, mode):
    config = design([conv(8, 3, mode), conv(13, mode, mode), conv(9, mode, 1)], (3, 4, 2),
                    classes=5, channels=1, height=3, width=4)
    network = extreme_network(config.network, value)
    images = np.stack([np.full((3, 4, 1), level, np.uint8) for level in (255, 0)])
    check(config, network, images)


@pytest.mark.parametrize("out_bits", [2, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_values_clip_at_both_ends(out_bits, sign):
    """Sums and biases that only just, and by far, leave the range; the largest that there are."""
    config = designs.design([], (3, 4, 2), height=2, width=2, channels=1, operations=[
        conv(3, 3, 3, name="a"),
        {"kind": "map", "name": "end", "channels": 9, "weight_bits": 3, "out_bits": out_bits}])
    network, peak = extreme_network(config.network, 2 * sign), 2**(out_bits - 1)
    first, last = network.layers  # all codes are 7, and a value is the bias and 42 or -42
    limit = Hardware.of([Program(config)]).bias_peak
    bias = np.array([-limit, -peak - 1, -peak, -1, 0, peak - 1, peak, limit, 1], np.int32)
    bias[1:7] -= 42 * sign
    network = replace(network, layers=(first, replace(last, bias=bias)))
    run = check(config, network, random_images(config.network, 2, 1))
    assert run.results[1][:, 1, 1].tolist() == [
        -peak, -peak, -peak, -1, 0, peak - 1, peak - 1, peak - 1,
        max(-peak, min(peak - 1, 42 * sign + 1))]


def test_one_pixel():
    config = design([conv(1, 3, 3)], (1, 1, 1), height=1, width=1, channels=1, classes=2)
    check(config, random_network(config.network, 1), random_images(config.network, 3, 1))


@pytest.mark.slow
def test_wide_image_of_one_row():
    config = design([conv(6, 2, 2), conv(6, 1, 1)], (4, 3, 1), height=1, width=33, channels=2)
    check(config, random_network(config.network, 1), random_images(config.network, 1, 1))


@pytest.mark.slow
def test_more_rows_than_pixels():
    config = design([conv(5, 3, 2), conv(5, 2, 1)], (9, 2, 2), height=2, width=3)
    check(config, random_network(config.network, 1), random_images(config.network, 2, 1))


@pytest.mark.slow
def test_long_pauses_between_pixels_and_before_results():
    config = design([conv(4, 3, 2, pool=True)], (2, 2, 2))
    check(config, random_network(config.network, 1), random_images(config.network, 3, 1), gaps=40)


@pytest.mark.slow
def test_next_frame_is_accepted_while_this_one_is_computed():
    """So frames follow each other without waiting for pixels."""
    config = design([conv(8, 3, 3), conv(8, 3, 3), conv(8, 3, 3)], (2, 4, 1), height=4, width=4)
    cost = Cost.of(config)
    images = pack(cost.program, cost.hardware, random_network(config.network, 1))
    run = simulate(Engine(cost.hardware, images), cost.program, random_images(config.network, 4, 1))
    assert np.diff(run.offered).tolist() == [cost.frame_period] * 3
