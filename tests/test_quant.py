"""The quantizers: alphabets, shares of the levels, windows of the activation, gradients."""

import math
from importlib import import_module

import pytest

from export.artifact import ALPHABET
from export.config import TrainConfig
from export.network import ConvConfig, NetworkConfig, walk

torch = pytest.importorskip("torch")
quant = import_module("model.quant")
network = import_module("model.network")


def gaussian(*shape, seed=1, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_levels_are_about_equally_filled(bits, scale):
    levels = quant.quantize_weight(gaussian(100, 100, 3, 3, scale=scale), bits)
    values, counts = levels.unique(return_counts=True)
    assert tuple(values.int().tolist()) == ALPHABET[bits]
    shares = counts / levels.numel()
    # One step cannot fill five levels equally; two and three it can.
    within = 0.03 if bits == 3 else 0.005
    assert (shares - 1 / len(values)).abs().max() < within


# |w| of a normal variable is below 0.253347, 0.430727, 0.841621 in 1/5, 1/3, 3/5 of all cases.
@pytest.mark.parametrize("bits, wanted", [(2, 2 * 0.430727),
                                          (3, (2 * 0.253347 + 2 / 3 * 0.841621) / 2)])
def test_step_is_from_the_normal_quantiles(bits, wanted):
    assert quant.weight_step(gaussian(10**6), bits).item() == pytest.approx(wanted, abs=4e-3)


def test_standardized_channels():
    weight = gaussian(5, 3, 3, 3) * torch.arange(1, 6)[:, None, None, None] + 0.5
    found = quant.standardize(weight)
    torch.testing.assert_close(found.mean((1, 2, 3)), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.square().mean((1, 2, 3)), torch.ones(5))
    torch.testing.assert_close(quant.standardize(3 * weight), found)
    few = quant.standardize(gaussian(5, 1, 3, 3) + 0.5)  # these keep their mean
    assert few.mean((1, 2, 3)).abs().max() > 0.1


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_shape_and_alphabet(bits):
    for shape in [(1, 1, 1, 1), (5, 3, 3, 3), (10, 7)]:
        levels = quant.quantize_weight(gaussian(*shape), bits)
        assert levels.shape == shape
        assert set(levels.int().flatten().tolist()) <= set(ALPHABET[bits])
        assert (levels == levels.int()).all()


@pytest.mark.parametrize("bits", [2, 3])
def test_levels_grow_with_the_weight_and_are_odd(bits):
    weight = gaussian(1001).sort().values
    levels = quant.quantize_weight(weight, bits)
    assert (levels.diff() >= 0).all()
    # One weight of two bits is the threshold itself, which belongs to the level above.
    assert (quant.quantize_weight(-weight, bits) != -levels).sum() <= 1
    assert (quant.quantize_weight(2**-5 * weight, bits) == levels).all()


def test_levels_change_at_half_steps():
    weight = gaussian(3001)
    for bits in (2, 3):
        step = quant.weight_step(weight, bits)
        levels = quant.quantize_weight(weight, bits)
        assert (levels == 0).equal((weight / step >= -0.5) & (weight / step < 0.5))
        if bits == 3:
            assert (levels == 2).equal(weight / step >= 1.5)


def test_binary_threshold_is_the_median():
    weight = gaussian(1000) + 7
    levels = quant.quantize_weight(weight, 1)
    assert 499 <= (levels == -1).sum() <= 500
    assert weight[levels == 1].min() > weight[levels == -1].max()


def test_weights_that_are_all_equal():
    for value in (0.0, 0.25):
        weight = torch.full((4, 4), value)
        assert (quant.quantize_weight(weight, 1) == 1).all()
        assert (quant.quantize_weight(weight, 2) == bool(value)).all()
        assert (quant.quantize_weight(weight, 3).abs() <= 2).all()


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_weight_gradient_is_straight_through(bits):
    weight = gaussian(6, 5).requires_grad_()
    upstream = gaussian(6, 5, seed=2)
    quant.quantize_weight(weight, bits).backward(upstream)
    centred = weight - weight.median() if bits == 1 else weight
    torch.testing.assert_close(weight.grad, upstream / quant.weight_step(centred, bits))


def codes(y, bits, **options):
    """Codes of values `y`, given as sums in one channel without offset."""
    acc = torch.as_tensor(y, dtype=torch.float32).reshape(-1, 1, 1, 1)
    return quant.codes(acc, torch.zeros(1), torch.ones(()), bits, **options).flatten()


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_activation_windows(bits):
    """Code k is the window k <= y < k + 1, the first and the last one are open-ended."""
    y = torch.arange(-40, 100) / 8
    top = 2**bits - 1
    for k in range(top + 1):
        inside = (y >= k) & (y < k + 1)
        if k == 0:
            inside |= y < 0
        if k == top:
            inside |= y >= top
        assert (codes(y, bits) == k).equal(inside)


def test_activation_of_one_bit_is_a_step():
    y = [-1e9, -1.0, 0.0, 0.999, 1.0, 1.001, 1e9]
    assert codes(y, 1).tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_codes_that_are_not_rounded_are_the_same_on_average():
    y = torch.arange(0, 8, 1 / 64)
    exact = codes(y, 3, rounded=False)
    assert exact.equal((y - 0.5).clamp(0, 7))
    assert exact.mean().item() == pytest.approx(codes(y, 3).mean().item(), abs=0.01)


def test_activation_is_the_hardware_s_shift():
    acc = torch.arange(-300, 300)
    for bias, shift in [(0, 0), (5, 3), (-7, 6)]:
        scale = torch.tensor(2.0**-shift)
        y = quant.codes(acc.float().reshape(-1, 1, 1, 1), bias * scale.reshape(1), scale, 2)
        assert y.flatten().int().equal(((acc + bias) >> shift).clamp(0, 3).int())


def sums(seed=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-60, 60, (6, 8, 4, 6), generator=generator).float()


def test_moments():
    acc = sums()
    mean, variance = quant.moments(acc)
    torch.testing.assert_close(mean, acc.mean((0, 2, 3)))
    torch.testing.assert_close(variance, (acc - mean[:, None, None]).square().mean())


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("rounded", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_normalization_and_its_gradient(bits, rounded, own):
    """Against autograd's gradient of a clipped line with the same window."""
    acc, beta = sums().requires_grad_(), gaussian(8, seed=5).requires_grad_()
    scale, upstream = torch.tensor(2.0**-4), gaussian(6, 8, 4, 6, seed=6)
    mean, _ = quant.moments(acc.detach())
    centre = acc.mean((0, 2, 3), keepdim=True)
    y = (acc - (centre if own else centre.detach())) * scale + beta[:, None, None]
    slope = 2 / 3 if bits == 1 and not rounded else 1  # a flatter ramp in place of a step
    edge = 0 if rounded else 0.5
    (y * slope).clamp(edge, 2**bits - edge).backward(upstream)
    wanted = acc.grad, beta.grad
    acc.grad = beta.grad = None

    out = quant.Normalize.apply(acc, mean, beta, scale, bits, rounded, own)
    y = torch.floor(y) if rounded else y * slope - 0.5
    torch.testing.assert_close(out, y.clamp(0, 2**bits - 1))
    out.backward(upstream)
    torch.testing.assert_close((acc.grad, beta.grad), wanted, atol=1e-5, rtol=1e-5)


def test_pooling_gives_the_gradient_to_every_maximum():
    acc = sums().requires_grad_()
    acc.data[0, 0, :2, :2] = 99
    pooled = quant.MaxPool.apply(acc)
    assert pooled.equal(torch.nn.functional.max_pool2d(acc, 2))
    pooled.backward(torch.full_like(pooled, 2.0))
    assert (acc.grad[0, 0, :2, :2] == 2).all()
    windows = acc.grad[1:].unfold(2, 2, 2).unfold(3, 2, 2)
    values = acc.detach()[1:].unfold(2, 2, 2).unfold(3, 2, 2)
    assert windows.equal(2.0 * (values == values.amax((-1, -2), keepdim=True)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler has many
def test_fused_functions_give_the_same_as_plain_ones(monkeypatch):
    acc = sums().bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    arguments = quant.moments(acc.detach())[0], torch.ones(8), torch.tensor(2.0**-3), 3, True

    def both():
        acc.grad = None
        out = quant.Normalize.apply(quant.MaxPool.apply(acc), *arguments)
        out.backward(torch.ones_like(out))
        return out.detach(), acc.grad

    plain = both()
    monkeypatch.setattr(quant.Fused, "enabled", True)
    fused = both()
    torch.testing.assert_close(fused, plain)


def test_a_learned_step_moves_no_weight_that_is_cut_off():
    for bits, peak in ((2, 1), (3, 2)):
        torch.manual_seed(1)
        part = network.QuantWeight(torch.randn(20, 30), bits, "learned")
        upstream = torch.randn(20, 30)
        part.levels().backward(upstream)
        scaled = quant.standardize(part.weight.detach()) / part.log_step.detach().exp()
        inside = scaled.abs() < peak + 0.5
        assert 0.02 < inside.logical_not().float().mean() < 0.5
        torch.testing.assert_close(part.log_step.grad, -(upstream * scaled)[inside].sum())
    assert network.QuantWeight(torch.randn(20, 30), 1, "learned").log_step is None


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_sums_of_real_weights_fill_the_range_exactly_those_of_rounded_ones_by_a_shift(bits):
    torch.manual_seed(1)
    layer = ConvConfig(name="a", channels=16, weight_bits=2, code_bits=bits)
    conv = network.QuantConv(layer, 8, 0, TrainConfig())
    x = torch.randint(0, 8, (20, 8, 6, 6)).float()
    for rounded in (False, True):
        conv.round_weights = conv.round_codes = rounded
        conv.train()
        for _ in range(200):  # of the running statistics
            out = conv(x)
        acc = conv.accumulate(x)
        mean = acc.mean((0, 2, 3), keepdim=True)
        square = (acc - mean).square().mean()
        spread = (square.sqrt() * conv.scale(square)).item()
        if rounded:
            assert conv.scale(square).log2() == -conv.shift != 0
            assert abs(math.log2(spread / network.SPREAD[bits])) < network.STICKY + 0.01
        else:
            assert spread == pytest.approx(network.SPREAD[bits])
        share = (conv.eval()(x) - out).abs() < 1e-3  # a bias is an integer if weights are rounded
        assert share.float().mean() > (0.9 if rounded else 0.9999)


@pytest.mark.parametrize("training", [True, False])
def test_sums_of_bright_pixels_in_bfloat16(training):
    """As in float32, but for sums that lie next to a threshold; so are their statistics."""
    torch.manual_seed(1)
    layer = ConvConfig(name="a", channels=64, weight_bits=3, code_bits=1, pool=True)
    conv = network.QuantConv(layer, 48, 128, TrainConfig())
    conv.momentum = 1
    x = torch.randint(190, 211, (8, 48, 12, 12)).float()
    wanted = conv(x)
    mean = conv.mean.clone()
    conv.train(training)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = conv(x.bfloat16())
    assert (found == wanted).float().mean() > 0.99
    torch.testing.assert_close(conv.mean, mean, atol=1.0, rtol=0)


def test_real_weights_on_an_image_of_one_value():
    layer = ConvConfig(name="a", channels=16, weight_bits=2, code_bits=3, kernel=1)
    conv = network.QuantConv(layer, 8, 0, TrainConfig())
    conv.round_weights = conv.round_codes = False
    assert torch.isfinite(conv(torch.zeros(2, 8, 3, 3))).all()


def test_calibrated_real_network_computes_what_training_does():
    torch.manual_seed(1)
    layers = [{"name": name, "channels": 8, "weight_bits": 2, "code_bits": 3} for name in "abc"]
    encoder = network.Encoder(NetworkConfig(height=6, width=6, channels=3, classes=2,
                                            layers=layers))
    encoder.quantize(weights=False, codes=False)
    images = torch.randint(0, 256, (30, 3, 6, 6)).float()
    network.calibrate(encoder, images, batch=10)
    maps = {}
    for mode in (False, True):
        encoder.train(mode)
        found = walk(encoder.network, images, encoder.apply_operation)
        maps[mode] = [found[name] for name in "abc"]
    torch.testing.assert_close(maps[False], maps[True], atol=2e-3, rtol=0)
