"""The golden model against independent computations: loops over pixels, over taps, and torch."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from export.artifact import ALPHABET, Layer, Network
from export.config import ConfigError
from export.network import ConvConfig, MapConfig, SumConfig
from sim import golden
from sim.samples import extreme_network, random_images, random_network
from tests.designs import conv, network, total

MIXED = network([
    conv("a", 8, 3, 3),
    conv("b", 6, 2, 2, groups=2, pool=True),
    conv("c", 12, 1, 1, kernel=1, groups=3),
    conv("d", 4, 1, 3, pool=True),
    conv("e", 7, 2, 1)], height=7, width=9, classes=5, pad=128)

# Concatenations in any order, one of them grouped across its parts, and sums of several maps.
JOINED = network([], height=5, width=6, channels=2, operations=[
    conv("a", 3, 3, 3),
    conv("b", 5, 2, 1),
    conv("c", 4, 3, 2, inputs=["b", "a"], groups=4, pool=True),
    conv("d", 2, 1, 3, pool=True, inputs=["a", "b"]),
    conv("e", 6, 3, 3, inputs=["c", "d"], groups=3),
    total("class", 3, 3, inputs=["d", "e"])])

# inputs, outputs, groups, kernel, height, width, pad
SHAPES = [(1, 1, 1, 1, 1, 1, 0), (1, 1, 1, 3, 1, 1, 255), (3, 5, 1, 3, 4, 7, 128),
          (4, 6, 2, 3, 5, 5, 0), (6, 6, 6, 3, 3, 8, 0), (6, 3, 3, 1, 2, 3, 9),
          (8, 4, 4, 1, 6, 1, 0), (2, 9, 1, 3, 1, 12, 255), (5, 10, 5, 3, 9, 2, 1)]


def layer_of(weight, bias=None, shift=0, *, weight_bits=3, code_bits=3, groups=1) -> Layer:
    config = ConvConfig(name="x", channels=len(weight), weight_bits=weight_bits, groups=groups,
                        code_bits=code_bits, kernel=weight.shape[-1])
    bias = np.zeros(len(weight), np.int32) if bias is None else np.array(bias, np.int32)
    return Layer(config, weight, bias, shift)


def random_layer(inputs, outputs, groups, kernel, seed) -> Layer:
    weight = np.random.default_rng(seed).integers(-2, 3, (outputs, inputs // groups, kernel,
                                                          kernel), np.int8)
    return layer_of(weight, groups=groups)


def conv_by_taps(layer, x, pad) -> np.ndarray:
    """Sum over taps of shifted, weighted channels in float64."""
    weight, groups = layer.weight.astype(np.float64), layer.config.groups
    outputs, inputs, kernel, _ = weight.shape
    height, width = x.shape[2:]
    edge = kernel // 2
    wide = np.full((x.shape[0], x.shape[1], height + 2 * edge, width + 2 * edge), float(pad))
    wide[:, :, edge:edge + height, edge:edge + width] = x
    acc = np.zeros((x.shape[0], outputs, height, width))
    for o, i, dy, dx in itertools.product(range(outputs), range(inputs), range(kernel),
                                          range(kernel)):
        source = o // (outputs // groups) * inputs + i
        acc[:, o] += weight[o, i, dy, dx] * wide[:, source, dy:dy + height, dx:dx + width]
    return acc


def run_by_pixels(network, image):
    """Every operation's result for one image, in Python integers from the contract."""
    shape, fold = network.config, network.config.fold
    found = {"pixels": [[[int(image[r + dy, c + dx, k]) for c in range(0, shape.width, fold)]
                         for r in range(0, shape.height, fold)]
                        for dy in range(fold) for dx in range(fold) for k in range(shape.channels)]}
    for layer in network.layers:
        config, weight = layer.config, layer.weight.tolist()
        x = [plane for name in config.inputs for plane in found[name]]
        pad = shape.pad if config.inputs == ("pixels",) else 0
        height, width, edge = len(x[0]), len(x[0][0]), config.kernel // 2
        inputs, per_group = len(weight[0]), config.channels // config.groups
        if config.kind == "sum":
            sums = [sum(map(sum, plane)) for plane in x]
            found[config.name] = [
                sum(w[0][0] * s for w, s in zip(row, sums, strict=True)) + bias
                for row, bias in zip(weight, layer.bias.tolist(), strict=True)]
            continue

        def pixel(i, r, c, x=x, pad=pad, height=height, width=width):
            return x[i][r][c] if 0 <= r < height and 0 <= c < width else pad

        codes = []
        low, high = ((-2**(config.out_bits - 1), 2**(config.out_bits - 1) - 1)
                     if config.kind == "map" else (0, 2**config.code_bits - 1))
        for o in range(config.channels):
            first = o // per_group * inputs
            codes.append([[min(high, max(low, (int(layer.bias[o]) + sum(
                weight[o][i][dy][dx] * pixel(first + i, r + dy - edge, c + dx - edge)
                for i in range(inputs) for dy in range(config.kernel)
                for dx in range(config.kernel))) // 2**layer.shift))
                for c in range(width)] for r in range(height)])
        if config.kind == "conv" and config.pool:
            codes = [[[max(plane[r][c], plane[r + 1][c], plane[r][c + 1], plane[r + 1][c + 1])
                       for c in range(0, width - 1, 2)] for r in range(0, height - 1, 2)]
                     for plane in codes]
        found[config.name] = codes
    return found


# ---- one layer

@pytest.mark.parametrize("shape", SHAPES)
def test_conv_matches_taps(shape):
    inputs, outputs, groups, kernel, height, width, pad = shape
    layer = random_layer(inputs, outputs, groups, kernel, seed=1)
    x = np.random.default_rng(2).integers(0, 256, (3, inputs, height, width), np.uint8)
    acc = golden.conv(layer, x, pad)
    assert acc.dtype == np.int32
    np.testing.assert_array_equal(acc, conv_by_taps(layer, x, pad))


@pytest.mark.parametrize("shape", SHAPES)
def test_conv_matches_torch(shape):
    torch = pytest.importorskip("torch")
    inputs, outputs, groups, kernel, height, width, pad = shape
    layer = random_layer(inputs, outputs, groups, kernel, seed=3)
    x = np.random.default_rng(4).integers(0, 256, (2, inputs, height, width), np.uint8)
    padded = torch.nn.functional.pad(torch.tensor(x).double(), (kernel // 2,) * 4, value=pad)
    acc = torch.nn.functional.conv2d(padded, torch.tensor(layer.weight).double(), groups=groups)
    np.testing.assert_array_equal(golden.conv(layer, x, pad), acc.numpy())


@pytest.mark.parametrize("weight, x, inputs", [(2, 255, 33001), (-2, 255, 33001), (1, 255, 65793),
                                               (1, 255, 65794), (2, 7, 70001)])
def test_conv_is_exact_beyond_float32(weight, x, inputs):
    values = np.full((1, inputs, 1, 1), weight, np.int8)
    values[0, 0] = 1  # an odd sum, which float32 would round
    acc = golden.conv(layer_of(values), np.full((1, inputs, 1, 1), x, np.uint8), 0)
    assert acc.item() == x * (weight * (inputs - 1) + 1)


def test_activation_is_floor_then_clip():
    layer = layer_of(np.ones((2, 1, 1, 1), np.int8), bias=[0, -3], shift=2, code_bits=2)
    acc = np.arange(-9, 21, dtype=np.int32).reshape(1, 1, 5, 6).repeat(2, 1)
    wanted = [[min(3, max(0, (a + b) // 4)) for a in range(-9, 21)] for b in (0, -3)]
    codes = golden.activate(layer, acc)
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes.reshape(2, 30), wanted)


@pytest.mark.parametrize("bits, levels", [(1, 2), (2, 4), (3, 8)])
def test_activation_levels(bits, levels):
    layer = layer_of(np.ones((1, 1, 1, 1), np.int8), shift=15, code_bits=bits)
    acc = np.array([-2**31, -1, 0, 2**15 - 1, 2**15, levels * 2**15 - 1, levels * 2**15, 2**31 - 1])
    codes = golden.activate(layer, acc.astype(np.int32).reshape(1, 1, 1, -1))
    assert codes.ravel().tolist() == [0, 0, 0, 0, 1, levels - 1, levels - 1, levels - 1]


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_values_are_floored_then_clipped_with_sign(bits):
    config = MapConfig(name="x", inputs=("a",), channels=1, weight_bits=3, out_bits=bits)
    layer = Layer(config, np.ones((1, 1, 1, 1), np.int8), np.array([-3], np.int32), 2)
    acc = np.arange(-600, 600, dtype=np.int32)
    values = golden.values(layer, acc.reshape(1, 1, 30, 40))
    assert values.dtype == np.int8
    peak = 2**(bits - 1)
    wanted = [min(peak - 1, max(-peak, (a - 3) // 4)) for a in acc.tolist()]
    assert values.ravel().tolist() == wanted


@pytest.mark.parametrize("side", [1, 2, 4])
def test_blocks_of_pixels_are_folded_into_channels(side):
    images = random_images(network([conv("a", 1, 1, 1)], height=8, width=12, channels=3), 2, side)
    folded = golden.fold(images, side)
    assert folded.shape == (2, 3 * side**2, 8 // side, 12 // side)
    for n, y, x, c in itertools.product(range(2), range(8), range(12), range(3)):
        channel = (y % side * side + x % side) * 3 + c
        assert folded[n, channel, y // side, x // side] == images[n, y, x, c]


@pytest.mark.parametrize("height, width", [(2, 2), (3, 3), (4, 7), (5, 2), (9, 8)])
def test_pool_is_the_maximum(height, width):
    codes = np.random.default_rng(5).integers(0, 8, (2, 3, height, width), np.uint8)
    pooled = golden.pool(codes)
    assert pooled.shape == (2, 3, height // 2, width // 2)
    for n, c, i, j in np.ndindex(pooled.shape):
        assert pooled[n, c, i, j] == codes[n, c, 2 * i:2 * i + 2, 2 * j:2 * j + 2].max()


def test_pool_of_one_bit_is_an_or():
    codes = np.array(list(itertools.product((0, 1), repeat=4)), np.uint8).reshape(16, 1, 2, 2)
    assert golden.pool(codes).ravel().tolist() == [0] + [1] * 15


def classifier_of(weight, bias) -> Layer:
    config = SumConfig(name="classifier", channels=len(weight), weight_bits=3)
    return Layer(config, np.array(weight, np.int8)[:, :, None, None], np.array(bias, np.int32))


def test_sums_over_pixels_and_channels():
    layer = classifier_of([[0, 0], [1, 2], [2, -1]], [0, -3, 9])
    codes = np.array([[[[5, 5, 1]], [[6, 0, 7]]], [[[0, 0, 0]], [[1, 0, 0]]]], np.uint8)
    sums = golden.summed(layer, codes)
    assert sums.dtype == np.int32
    assert sums.tolist() == [[0, 11 + 26 - 3, 22 - 13 + 9], [0, 2 - 3, -1 + 9]]


def test_lowest_class_wins_a_tie():
    config = network([conv("a", 2, 3, 3, kernel=1)], height=1, width=1, channels=2, classes=4)
    first = Layer(config.operations[0], np.eye(2, dtype=np.int8)[:, :, None, None],
                  np.zeros(2, np.int32))
    last = classifier_of([[0, 0], [1, 2], [2, 1], [1, 1]], [0, -3, -3, -9])
    tied = Network(config, (first, replace(last, config=config.operations[1])))
    images = np.array([[5, 5], [5, 6], [6, 5], [1, 1], [0, 0]], np.uint8).reshape(5, 1, 1, 2)
    trace = golden.run(tied, images)
    assert trace.scores.tolist() == [[0, 12, 12, 1], [0, 14, 13, 2], [0, 13, 14, 2], [0, 0, 0, -7],
                                     [0, -3, -3, -9]]
    assert trace.classes.tolist() == golden.predict(tied, images).tolist() == [1, 1, 2, 0, 0]


def test_classifier_sums_over_many_pixels():
    config = network([conv("a", 1, 3, 3, kernel=1)], height=200, width=300, channels=1, classes=2)
    trace = golden.run(extreme_network(config, 2), np.zeros((1, 200, 300, 1), np.uint8))
    assert trace.scores.tolist() == [[2 * 7 * 60000] * 2]


def map_of(weight, bias, shift, out_bits) -> Layer:
    config = MapConfig(name="x", channels=len(weight), weight_bits=3, out_bits=out_bits)
    return Layer(config, weight, np.array(bias, np.int32), shift)


@pytest.mark.parametrize("out_bits", range(2, 9))
@pytest.mark.parametrize("shift", [0, 3, 15])
def test_values_are_floor_then_clip(out_bits, shift):
    """In float64, around both ends and around zero, and at the ends of an accumulator."""
    layer = map_of(np.ones((3, 1, 1, 1), np.int8), [0, -5, 77], shift, out_bits)
    peak = 2**(out_bits - 1)
    near = [level * 2**shift + off for level in (-peak - 1, -peak, -1, 0, 1, peak - 1, peak)
            for off in (-1, 0, 1)]
    acc = np.array([*near, -2**30, 2**30], np.int32).reshape(1, 1, 1, -1).repeat(3, 1)
    came = golden.values(layer, acc)
    assert came.dtype == np.int8 and came.shape == acc.shape
    wanted = np.floor((acc + np.float64(layer.bias)[:, None, None]) / 2.0**shift)
    np.testing.assert_array_equal(came, np.clip(wanted, -peak, peak - 1))
    assert {came.min(), came.max()} == {-peak, peak - 1}


@pytest.mark.parametrize("side, shape", [(1, (2, 3, 5, 4)), (2, (3, 4, 6, 1)), (2, (1, 2, 2, 16)),
                                         (4, (2, 8, 4, 3)), (4, (1, 4, 12, 1))])
def test_fold_pixel_by_pixel(side, shape):
    images = np.random.default_rng(side).integers(0, 256, shape).astype(np.uint8)
    count, height, width, channels = shape
    folded = golden.fold(images, side)
    assert folded.dtype == np.uint8
    assert folded.shape == (count, channels * side**2, height // side, width // side)
    for n, y, x, c in np.ndindex(shape):
        place = (y % side * side + x % side) * channels + c
        assert folded[n, place, y // side, x // side] == images[n, y, x, c]


@pytest.mark.parametrize("fold", [1, 2])
@pytest.mark.parametrize("out_bits", [2, 5, 8])
def test_map_of_values_by_pixels(fold, out_bits):
    """Python integers from the folded pixels on; there is no class and no code of the last one."""
    config = network([], height=6, width=8, channels=2, fold=fold, operations=[
        conv("a", 5, 3, 3), conv("b", 4, 2, 2, pool=True),
        {"kind": "map", "name": "end", "channels": 3, "weight_bits": 3, "out_bits": out_bits}])
    made, images = random_network(config, out_bits), random_images(config, 3, fold)
    trace = golden.run(made, images)
    assert list(trace.codes) == ["a", "b"] and trace.sums == {}
    assert trace.values.dtype == np.int8
    for n, image in enumerate(images):
        wanted = run_by_pixels(made, image)
        assert trace.values[n].tolist() == wanted["end"]
        assert {name: codes[n].tolist() for name, codes in trace.codes.items()} == {
            name: wanted[name] for name in "ab"}


def test_codes_may_be_the_result():
    config = network([], operations=[conv("a", 4, 3, 3), conv("b", 6, 2, 2)])
    made, images = random_network(config, 1), random_images(config, 4, 1)
    trace = golden.run(made, images)
    assert list(trace.codes) == ["a", "b"] and trace.sums == {} and trace.values is None
    assert [run_by_pixels(made, image)["b"] for image in images] == trace.codes["b"].tolist()


@pytest.mark.parametrize("last, levels", [
    (conv("end", 7, 2, 1), range(2)), (conv("end", 7, 3, 3, pool=True), range(8)),
    ({"kind": "map", "name": "end", "channels": 7, "weight_bits": 3, "out_bits": 2}, range(-2, 2)),
    ({"kind": "map", "name": "end", "channels": 7, "weight_bits": 3, "out_bits": 4},
     range(-8, 8))])
def test_random_networks_use_every_level_of_their_output(last, levels):
    config = network([], height=8, width=8, operations=[conv("a", 8, 3, 3), last])
    for seed in range(4):
        trace = golden.run(random_network(config, seed), random_images(config, 30, seed))
        came = trace.codes["end"] if trace.values is None else trace.values
        assert set(np.unique(came)) == set(levels)


# ---- whole networks

@pytest.mark.parametrize("config", [MIXED, JOINED], ids=["mixed", "joined"])
@pytest.mark.parametrize("seed", range(3))
def test_run_matches_loops_over_pixels(config, seed):
    made = random_network(config, seed)
    images = random_images(config, 2, seed + 100)
    trace = golden.run(made, images)
    assert [*trace.codes, *trace.sums] == [each.name for each in config.operations]
    for n, image in enumerate(images):
        wanted = run_by_pixels(made, image)
        for name, values in (trace.codes | trace.sums).items():
            assert values[n].tolist() == wanted[name], name
        scores = wanted[config.operations[-1].name]
        assert trace.scores[n].tolist() == scores
        assert trace.classes[n] == scores.index(max(scores))


def test_trace_has_every_boundary():
    trace = golden.run(random_network(MIXED, 1), random_images(MIXED, 4, 1))
    assert {name: codes.shape for name, codes in trace.codes.items()} == {
        "a": (4, 8, 7, 9), "b": (4, 6, 3, 4), "c": (4, 12, 3, 4), "d": (4, 4, 1, 2),
        "e": (4, 7, 1, 2)}
    assert {codes.dtype for codes in trace.codes.values()} == {np.dtype(np.uint8)}
    assert list(trace.sums) == ["classifier"]
    assert (trace.scores.dtype, trace.scores.shape) == (np.int32, (4, 5))
    assert (trace.classes.dtype, trace.classes.shape) == (np.int64, (4,))


@pytest.mark.parametrize("value", [-2, -1, 1, 2])
def test_extreme_sums(value):
    extreme = extreme_network(MIXED, value)
    x, pad = np.full((1, 3, 7, 9), 255, np.uint8), 255
    for layer in extreme.layers[:-1]:
        peak = MIXED.peak(layer.config)
        weight = np.clip(value, min(ALPHABET[layer.config.weight_bits]),
                         max(ALPHABET[layer.config.weight_bits]))
        acc = golden.conv(layer, np.full_like(x, peak), pad)
        inner = acc[:, :, 1:-1, 1:-1] if pad == 0 and layer.config.kernel == 3 else acc
        assert (inner == weight * peak * layer.weight[0].size).all()
        codes = golden.activate(layer, golden.conv(layer, x, pad))
        assert (codes == 2**layer.config.code_bits - 1).all()
        x, pad = golden.pool(codes) if layer.config.pool else codes, 0
    trace = golden.run(extreme, np.full((1, 7, 9, 3), 255, np.uint8))
    assert (trace.scores == value * 7 * 2 * 1).all()  # seven channels of 1x2 pixels
    assert trace.classes.tolist() == [0]


@pytest.mark.parametrize("working_set", [1, 50000, 2**30])
def test_batches_do_not_show(monkeypatch, working_set):
    made, images = random_network(MIXED, 2), random_images(MIXED, 7, 2)
    whole = golden.run(made, images)
    monkeypatch.setattr(golden, "WORKING_SET", working_set)
    parts = golden.run(made, images)
    for name, codes in whole.codes.items():
        np.testing.assert_array_equal(codes, parts.codes[name])
    np.testing.assert_array_equal(whole.scores, parts.scores)
    np.testing.assert_array_equal(golden.predict(made, images), whole.classes)


def test_no_images():
    trace = golden.run(random_network(MIXED, 1), random_images(MIXED, 0, 1))
    assert trace.codes["a"].shape == (0, 8, 7, 9)
    assert (trace.scores.shape, trace.classes.shape) == ((0, 5), (0,))


@pytest.mark.parametrize("images, came", [
    (np.zeros((2, 7, 9, 3)), r"float64 \[2, 7, 9, 3\]"),
    (np.zeros((2, 3, 7, 9), np.uint8), r"uint8 \[2, 3, 7, 9\]"),
    (np.zeros((7, 9, 3), np.uint8), r"uint8 \[7, 9, 3\]"),
])
def test_wrong_images_are_refused(images, came):
    with pytest.raises(ConfigError, match=rf"^images must be uint8 \[N, 7, 9, 3\], not {came}$"):
        golden.run(random_network(MIXED, 1), images)


@pytest.mark.parametrize("x, came", [
    (np.zeros((1, 4, 2, 2), np.int64), r"int64 \[1, 4, 2, 2\]"),
    (np.zeros((1, 2, 2, 2), np.uint8), r"uint8 \[1, 2, 2, 2\]"),
    (np.zeros((4, 2, 2), np.uint8), r"uint8 \[4, 2, 2\]"),
])
def test_wrong_input_of_a_layer_is_refused(x, came):
    with pytest.raises(ConfigError, match=rf"^x: input must be uint8 \[N, 4, H, W\], not {came}$"):
        golden.conv(random_layer(4, 2, 2, 3, seed=1), x, 0)
