"""Gates in training: gradients, and a network that can only learn with them."""

from itertools import product

import pytest

from export.config import TrainConfig, parse_config
from export.network import ConvConfig, SumConfig, walk

torch = pytest.importorskip("torch")
gates = pytest.importorskip("model.gates")
network = pytest.importorskip("model.network")


def some(*shape, top, seed):
    return torch.randint(0, top + 1, shape, generator=torch.Generator().manual_seed(seed)).float()


def layer_of(gate, code_bits):
    return ConvConfig(name="x", channels=6, weight_bits=1, code_bits=code_bits, skip="y",
                      gate=gate, select=None if gate == "or" else "z")


def gradients(layer, code_bits, skip_bits, passed=None, rounded=True):
    codes = some(4, 6, 3, 5, top=2**code_bits - 1, seed=1).requires_grad_()
    skip = some(4, 3, 3, 5, top=2**skip_bits - 1, seed=2).requires_grad_()
    out = gates.gate(layer, codes, skip, skip_bits, passed, rounded)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    out.backward(upstream)
    return codes, skip, upstream


def test_or_is_straight_through():
    codes, skip, upstream = gradients(layer_of("or", 2), 2, 2)
    assert codes.grad.equal(upstream)
    torch.testing.assert_close(skip.grad, upstream[:, :3] + upstream[:, 3:])  # was repeated


@pytest.mark.parametrize("bits, skip_bits", [(3, 1), (1, 3)])
def test_rescaling_scales_the_gradient(bits, skip_bits):
    _, skip, upstream = gradients(layer_of("or", bits), bits, skip_bits)
    torch.testing.assert_close(skip.grad,
                               2.0**(bits - skip_bits) * (upstream[:, :3] + upstream[:, 3:]))


def test_mux_sends_the_gradient_through_the_select():
    passed = some(4, 6, top=1, seed=4).requires_grad_()
    codes, skip, upstream = gradients(layer_of("mux", 2), 2, 2, passed)
    chosen = passed.detach()[:, :, None, None]
    torch.testing.assert_close(codes.grad, upstream * chosen)
    other = upstream * (1 - chosen)
    torch.testing.assert_close(skip.grad, other[:, :3] + other[:, 3:])
    difference = (codes - skip.repeat(1, 2, 1, 1)).detach()
    torch.testing.assert_close(passed.grad, (upstream * difference).sum((2, 3)))


def test_mux_or_lets_the_skip_in_where_it_is_selected():
    passed = some(4, 6, top=1, seed=4).requires_grad_()
    codes, skip, upstream = gradients(layer_of("mux_or", 2), 2, 2, passed)
    torch.testing.assert_close(codes.grad, upstream)
    let_in = upstream * passed.detach()[:, :, None, None]
    torch.testing.assert_close(skip.grad, let_in[:, :3] + let_in[:, 3:])
    before, other = codes.detach().byte(), skip.detach().repeat(1, 2, 1, 1).byte()
    difference = (before | other) - before
    torch.testing.assert_close(passed.grad, (upstream * difference).sum((2, 3)))


def test_heaviside_passes_the_gradient_near_its_step():
    z = torch.tensor([-2.0, -0.9, -0.0, 0.0, 0.5, 1.5]).requires_grad_()
    step = gates.Heaviside.apply(z)
    assert step.tolist() == [0, 0, 1, 1, 1, 1]
    step.backward(torch.full((6,), 3.0))
    assert z.grad.tolist() == [0, 3, 3, 3, 3, 0]


def test_or_of_real_numbers_meets_the_bits_at_one_bit():
    layer = layer_of("or", 1)
    codes, skip = some(2, 6, 4, 4, top=1, seed=1), some(2, 6, 4, 4, top=1, seed=2)
    assert gates.gate(layer, codes, skip, 1, None, False).equal(
        gates.gate(layer, codes, skip, 1, None, True))


def test_added_residuals_are_real_and_layers_read_codes():
    """For comparison: a float32 network by hand, around the sums that the layers compute."""
    layers = [{"name": "a", "channels": 4, "weight_bits": 3, "code_bits": 3},
              {"name": "b", "channels": 4, "weight_bits": 3, "code_bits": 3},
              {"name": "c", "channels": 4, "weight_bits": 3, "code_bits": 3, "skip": "a",
               "gate": "mux", "pool": True}]
    config = parse_config({
        "name": "test", "array": {"rows": 1, "columns": 1, "words": 1},
        "network": {"height": 6, "width": 6, "channels": 3, "classes": 5, "layers": layers},
        "train": {"residuals": "add"}})
    encoder = network.Encoder(config.network, config.train)
    assert [*encoder.parts] == ["a", "b", "c", "classifier"]
    images = some(20, 3, 6, 6, top=255, seed=1)
    for _ in range(100):
        encoder(images)
    network.calibrate(encoder, images)

    def real(conv, x):
        y = conv.accumulate(x) + conv.integer_bias()[:, None, None]
        return (y / 2**conv.shift - 0.5).clamp(0, 7)

    def read(x):
        return torch.floor(x + 0.5)

    a, b, c = encoder.convs
    first = real(a, images)
    torch.testing.assert_close(b.mean, b.accumulate(read(first)).mean((0, 2, 3)))
    merged = (first + real(c, read(real(b, read(first))))).clamp(max=7)
    assert len(merged.unique()) > 100 and (merged == 7).any() and (merged < 7).any()
    pooled = torch.nn.functional.max_pool2d(merged, 2)
    weight, bias = encoder.head.levels().flatten(1), encoder.head.integer_bias()
    torch.testing.assert_close(encoder(images), read(pooled).sum((2, 3)) @ weight.T + bias)


def colours(gate):
    """Two blocks of 1x1 layers, whose inner layer has one channel of one bit."""
    layers = [{"name": "a", "channels": 6}]
    for name in "bc":
        block = {"name": f"{name}2", "channels": 6}
        if gate:
            block |= {"gate": gate, "skip": layers[-1]["name"]}
        layers += [{"name": f"{name}1", "channels": 1}, block]
    layers = [{"kernel": 1, "weight_bits": 3, "code_bits": 1, **layer} for layer in layers]
    return parse_config({
        "name": "test", "array": {"rows": 1, "columns": 1, "words": 1},
        "network": {"height": 2, "width": 2, "channels": 3, "classes": 8, "layers": layers}})


@pytest.mark.parametrize("gate", ["or", "mux", "mux_or"])
def test_centred_codes_of_a_mux_cover_their_range(gate):
    torch.manual_seed(1)
    layers = [{"name": name, "channels": 32, "weight_bits": 2, "code_bits": 3} for name in "ab"]
    layers[1] |= {"gate": gate, "skip": "a"}
    config = parse_config({
        "name": "test", "array": {"rows": 1, "columns": 1, "words": 1},
        "network": {"height": 8, "width": 8, "channels": 3, "classes": 2, "layers": layers},
        "train": {"centred_muxes": True}})
    first, gated = network.Encoder(config.network, config.train).convs
    images = some(20, 3, 8, 8, top=255, seed=1)
    for _ in range(100):
        before = first(images)
        codes = gated(before).detach()
    assert before.median() <= 1
    if gate != "mux":
        assert codes.median() <= 1
        return
    assert codes.mean() == pytest.approx(3.5, abs=0.05)  # floor() takes half a code
    assert 1.1 < codes.std() < 2.5  # the shift is a whole number
    assert ((codes == 0) | (codes == 7)).float().mean() < 0.25


def test_unrounded_selects_are_a_ramp_that_the_rounded_ones_cut_in_half():
    torch.manual_seed(1)
    layer = SumConfig(name="a", channels=6, weight_bits=2, output="select")
    select = network.Select(layer, 3, TrainConfig())
    # Each channel of the skip is passed in one copy and not in the other.
    assert select.beta.sign().tolist() == [-1, 1, -1, 1, -1, 1]
    maps = torch.randint(0, 8, (200, 3, 4, 4)).float()
    select.beta.data.fill_(0.25)
    for _ in range(200):
        hard = select(maps)
    select.round_selects = False
    for training in (True, False):
        select.train(training)
        soft = select(maps)
        sums = select.accumulate(maps)
        z = (sums - sums.mean(0)) / (sums - sums.mean(0)).square().mean().sqrt() + 0.25
        torch.testing.assert_close(soft, (z / 2 + 0.5).clamp(0, 1), atol=1e-3, rtol=0)
        assert 0.1 < ((soft > 0) & (soft < 1)).float().mean() < 0.9
    decided = (soft - 0.5).abs() > 0.01
    assert torch.equal(hard[decided], (soft > 0.5).float()[decided])


def test_calibration_takes_a_select_s_statistics_from_the_images_too():
    torch.manual_seed(1)
    encoder = network.Encoder(colours("mux").network)
    images = some(100, 3, 2, 2, top=255, seed=1)
    network.calibrate(encoder, images)
    skip = walk(encoder.network, images, encoder.apply_operation)["b2"]
    select = encoder.parts["c2_select"]
    sums = select.accumulate(skip)
    assert sums.std() > 0.1
    torch.testing.assert_close(select.mean, sums.mean(0))
    torch.testing.assert_close(select.square, (sums - sums.mean(0)).square().mean())
    encoder.quantize(weights=True, codes=False)
    mixed = select(skip)
    assert ((mixed > 0) & (mixed < 1)).any()


@pytest.mark.slow
@pytest.mark.parametrize("gate, least", [(None, 0), ("or", 0.5), ("mux", 0.5), ("mux_or", 0.375)])
def test_two_blocks_learn_with_gates_what_they_cannot_without(gate, least):
    """Eight colours through one bit: two can be told apart, unless there is a way around."""
    values = torch.tensor(list(product((60, 190), repeat=3))).float()
    images, labels = values[:, :, None, None].expand(8, 3, 2, 2), torch.arange(8)
    best = 0.0
    for seed in (1, 2, 3, 4):
        torch.manual_seed(seed)
        encoder = network.Encoder(colours(gate).network)
        optimizer = torch.optim.Adam(encoder.parameters(), lr=0.02)
        for step in range(300):
            optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 300)
            loss = torch.nn.functional.cross_entropy(encoder.train()(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.calibrate(encoder, images)
        best = max(best, (encoder(images).argmax(1) == labels).float().mean().item())
        if gate and best >= least:  # one that learns it is enough
            break
    assert best >= least if gate else best <= 0.25


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_over_a_map_give_each_pixel_its_channel_s_gradient(dtype):
    config = SumConfig(name="s", channels=5, weight_bits=2, output="select", inputs=("a",))
    select = network.Select(config, 6, TrainConfig())
    x = some(3, 6, 4, 2, top=7, seed=1).to(dtype).requires_grad_()
    sums = select.accumulate(x)
    weight = select.levels().flatten(1)
    torch.testing.assert_close(sums, x.detach().float().sum((2, 3)) @ weight.T)
    upstream = some(3, 5, top=3, seed=2)
    sums.backward(upstream)
    wanted = (upstream @ weight)[:, :, None, None].expand(x.shape)
    assert x.grad.dtype == dtype
    torch.testing.assert_close(x.grad, wanted.to(dtype))
