"""An encoder of transforms: what its bits say, integers for vectors, its logic, its decoder."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.checked import ConfigError
from export.codec import Patches, patches_of
from export.config import load_config, parse_config
from export.file import load_network
from export.network import NetworkConfig
from export.transforms import Ramps, TransformsConfig
from sim import golden
from sim.codec import compress
from tests.commands import run
from tests.test_engine import check

torch = pytest.importorskip("torch")
codec = pytest.importorskip("model.codec")
mixture = pytest.importorskip("model.mixture")
transforms = pytest.importorskip("model.transforms")
chooser = pytest.importorskip("model.chooser")
begin = pytest.importorskip("model.begin")
decoders = pytest.importorskip("model.decoder")
Tables = pytest.importorskip("model.tables").Tables
Encoder = pytest.importorskip("model.network").Encoder
load_pictures = pytest.importorskip("model.pictures").load_pictures

SMALL = TransformsConfig(classes=4, mean_bits=4, slots=(4, 3, 2, 1))
DESIGN = """
[network]
height = 16
width = 16
channels = 3
fold = 4
operations = [
    {name = "first", channels = 22, weight_bits = 2, code_bits = 3, kernel = 1, bands = 4},
    {name = "hidden", channels = 12, weight_bits = 2, code_bits = 3, kernel = 1},
    {name = "scores", channels = 12, weight_bits = 2, code_bits = 3, kernel = 1},
    {name = "wins", channels = 6, weight_bits = 2, code_bits = 1, kernel = 1},
    {name = "class", channels = 8, weight_bits = 3, code_bits = 3, kernel = 1},
    {name = "chosen", channels = 22, weight_bits = 3, code_bits = 3, kernel = 1, gate = "or", \
skip = "first"},
    {name = "slots", channels = 7, weight_bits = 2, code_bits = 3, kernel = 1},
    {name = "levels", channels = 39, weight_bits = 2, code_bits = 1, kernel = 1},
    {name = "codes", inputs = ["class", "levels"], channels = 16, weight_bits = 2, code_bits = 1, \
kernel = 1},
]
[array]
rows = 4
columns = 4
words = 2
[codec]
encoder = "transforms"
decoder = {width = 12, blocks = 1, fine_width = 8, fine_blocks = 1, transforms = {classes = 4, \
mean_bits = 4, slots = [4, 3, 2, 1]}}
steps = 20
batch = 2
crop = 192
decoder_learning_rate = 0.001
validate_every = 10
"""


def design(**changes):
    values = tomllib.loads(DESIGN)
    return parse_config({"name": "small", **values, "codec": values["codec"] | changes})


def pixels(count: int, seed: int = 1) -> np.ndarray:
    """Patches uint8 [n, 8, 8, 3] of four kinds: waves across, down and in both ways, and flat."""
    rng = np.random.default_rng(seed)
    at = np.arange(8)
    kind = rng.integers(0, 4, count)
    phase, pace = rng.uniform(0, 6, (2, count, 1, 1)), rng.uniform(0.3, 0.9, (count, 1, 1))
    across = np.where(np.isin(kind, (0, 2))[:, None, None], at, 0)
    down = np.where(np.isin(kind, (1, 2))[:, None, None], at[:, None], 0)
    wave = np.where((kind == 3)[:, None, None], 0, np.sin(pace * (across + down) + phase[0]))
    gray = rng.uniform(60, 190, (count, 1, 1)) + 50 * wave
    return (gray[..., None] + rng.normal(0, 3, (count, 8, 8, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def made():
    """A small encoder, trained for an instant."""
    steps, transforms.STEPS = transforms.STEPS, 300
    try:
        return transforms.encoder_of(design().network, SMALL, pixels(3000), np.arange(3000) % 10)
    finally:
        transforms.STEPS = steps


@pytest.mark.parametrize("config", [TransformsConfig(), SMALL])
def test_each_bit_of_each_field_comes_once_and_the_first_ones_first(config):
    assert sorted(config.order) == [(field, bit) for field, ramps in enumerate(config.fields)
                                    for bit in range(ramps.bits)]
    left = [config.fields[field].bits - bit for field, bit in config.order]
    assert left == sorted(left, reverse=True)
    assert TransformsConfig().bits == 64 and SMALL.bits == 16


@pytest.mark.parametrize("bits", range(1, 7))
def test_ramps(bits):
    """Levels are told apart by codes of neighbours that differ in one bit; the middle is one."""
    ramps = Ramps(bits)
    assert len(ramps.gray) == ramps.levels <= 2**bits
    assert (ramps.gray[1:] != ramps.gray[:-1]).sum(1).tolist() == [1] * (ramps.levels - 1)
    assert len({tuple(each) for each in ramps.gray.tolist()}) == ramps.levels
    assert not ramps.gray[0].any()
    assert 1 <= ramps.thresholds[0] and ramps.thresholds[-1] <= 7 * ramps.count
    below = sum(each < ramps.middle for each in ramps.thresholds)
    above = sum(each > ramps.middle for each in ramps.thresholds)
    assert below == above


def test_vectors_are_rounded_where_it_does_not_matter():
    rng = np.random.default_rng(1)
    vectors = rng.normal(0, 0.5, (6, 64))
    smooth = 0.97 ** np.abs(np.subtract.outer(np.arange(64), np.arange(64)))
    found, nearest = mixture.rounded(vectors, smooth), vectors.round().clip(-1, 1)
    assert set(np.unique(found)) <= {-1, 0, 1}
    errors = [np.einsum("ij,jk,ik->i", each - vectors, smooth, each - vectors)
              for each in (found, nearest)]
    assert (errors[0] < 0.3 * errors[1]).all()
    np.testing.assert_array_equal(mixture.rounded(vectors, np.eye(64)), nearest)


def test_no_other_value_of_a_single_weight_is_better():
    rng = np.random.default_rng(1)
    vectors, patches = rng.normal(0, 0.5, (6, 32)), rng.normal(size=(40, 32))
    energy = patches.T @ patches
    ridge = np.eye(32) * np.trace(energy) / 32 * mixture.RIDGE

    def error(made):
        return np.einsum("ij,jk,ik->i", made - vectors, energy + ridge, made - vectors)

    found = mixture.rounded(vectors, energy)
    for k in range(32):
        for value in (-1, 0, 1):
            other = found.copy()
            other[:, k] = value
            assert (error(other) >= error(found) - 1e-9).all()


def test_classes_are_found():
    """Four kinds of patches, each along its own direction, of more and more energy."""
    generator = torch.Generator().manual_seed(1)
    directions = torch.linalg.qr(torch.randn(12, 4, generator=generator)).Q.T
    kind = torch.arange(4000) % 4
    x = 4.0 ** (kind[:, None] + 1) * torch.randn(4000, 1, generator=generator) * directions[kind]
    x = x + torch.randn(4000, 12, generator=generator)
    config = TransformsConfig(classes=4, mean_bits=3, slots=(4,))
    found, chosen, _ = mixture.mixture(x, kind, config)  # a picture of each kind
    along = (torch.stack([each.vectors[0] for each in found]) @ directions.T).abs()
    assert along.max(1).values.min() > 0.95 and len(set(along.argmax(1).tolist())) == 4
    by = mixture.quantizers(config)
    errors = torch.stack([each.error(x, by) for each in found], 1)
    own = errors.gather(1, chosen[:, None])[:, 0]
    assert own.mean() < 0.2 * (errors.sum(1) - own).mean() / 3


def test_patches_count_by_their_pictures():
    """Twice as often is as twice the weight; a picture of half the error weighs twice as much."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(50, 6, generator=generator)
    twice = mixture.moments(torch.cat([x, x[:20]]), torch.ones(70))
    weighed = mixture.moments(x, 1.0 + (torch.arange(50) < 20))
    torch.testing.assert_close(weighed, twice, check_dtype=False)
    np.testing.assert_allclose(twice[1], np.cov(torch.cat([x, x[:20]]).T, bias=True), atol=1e-5)
    pictures = torch.tensor([0, 2, 2, 0])
    weights = mixture.weights_of(torch.tensor([10.0, 1.0, 3.0, 30.0]), pictures)
    torch.testing.assert_close(1 / weights - mixture.FLOOR, torch.tensor([20.0, 2.0, 2.0, 20.0]))
    # Two classes for a quiet picture along one direction, and a loud one along two others: if all
    # patches count alike, both are the loud one's.
    kind = torch.arange(3000) % 3
    x = torch.tensor([20.0, 300.0, 300.0])[kind][:, None] * torch.eye(6)[kind]
    x = x * torch.randn(3000, 1, generator=generator) + torch.randn(3000, 6, generator=generator)
    config = TransformsConfig(classes=2, mean_bits=3, slots=(4,))
    for pictures, quiet in ((kind.clamp(max=1), True), (torch.zeros_like(kind), False)):
        found = mixture.mixture(x, pictures, config)[0]
        assert any(each.vectors[0, 0].abs() > 0.9 for each in found) == quiet


def test_the_error_of_a_transform_is_that_of_what_it_leaves():
    generator = torch.Generator().manual_seed(1)
    x = 5 * torch.randn(300, 12, generator=generator) + 3
    by = mixture.quantizers(SMALL)
    made = mixture.Transform.of(x, torch.ones(300), len(SMALL.slots))
    left = x - made.mean
    for quantize, vector, deviation in zip(by, made.vectors, made.deviations, strict=True):
        value = (x - made.mean) @ vector
        left = left - (quantize(value / deviation) * deviation)[:, None] * vector
    torch.testing.assert_close(made.error(x, by), left.square().sum(1), rtol=1e-3, atol=1e-2)


def expected(trace, config: TransformsConfig) -> np.ndarray:
    """Bits [n, bits] by integers of Python, from the codes of the first layer and the scores."""
    first, scores = (trace.codes[name][:, :, 0].transpose(0, 2, 1).astype(int)
                     for name in ("first", "scores"))
    found = []
    for codes, score in zip(first.reshape(-1, first.shape[2]),
                            scores.reshape(-1, scores.shape[2]), strict=True):
        k = int(score.reshape(config.classes, -1).sum(1).argmax())
        ramps = [each.count for each in config.fields]
        per_class, numbers = sum(ramps[1:]), []
        own = codes[k * per_class:(k + 1) * per_class].tolist()
        mean = codes[config.classes * per_class:].tolist()
        for count, values in ((ramps[0], mean), *((count, own) for count in ramps[1:])):
            numbers.append(sum(values[:count]))
            del values[:count]
        levels = [sum(number >= end for end in field.thresholds)
                  for number, field in zip(numbers, config.fields, strict=True)]
        bits = [int(each) for each in f"{k:0{config.class_bits}b}"]
        found.append(bits + [int(config.fields[field].gray[levels[field]][bit])
                             for field, bit in config.order])
    return np.array(found)


def frames_of(patches: np.ndarray, network: NetworkConfig) -> np.ndarray:
    return patches_of(network, "here").frames(patches)


def test_bits_say_the_chosen_class_and_its_levels(made):
    frames = frames_of(pixels(400, seed=2), made.config)
    trace = golden.run(made, frames)
    codes = trace.codes["codes"][:, :, 0].transpose(0, 2, 1).reshape(-1, SMALL.bits)
    wanted = expected(trace, SMALL)
    np.testing.assert_array_equal(codes, wanted)
    assert len({tuple(each) for each in wanted[:, :2].tolist()}) == 4  # all classes
    sums = trace.codes["scores"][:, :, 0].transpose(0, 2, 1).reshape(-1, 4, 3).sum(2)
    assert ((sums == sums.max(1, keepdims=True)).sum(1) > 1).any()  # and ties


@pytest.mark.slow
def test_the_engine_computes_every_layer_of_it(made):
    check(design(), made, frames_of(pixels(6, seed=3), made.config))


@pytest.mark.parametrize("expect", [0, 1])
def test_either_loss_alone_finds_the_best_class(expect, monkeypatch):
    """Of two codes the larger one says which of two classes leaves no error."""
    monkeypatch.setattr(chooser, "EXPECT", expect)
    codes = torch.randint(0, 8, (2000, 2), generator=torch.Generator().manual_seed(1))
    best = (codes[:, 1] > codes[:, 0]).long()
    errors = 10.0 + 90 * torch.nn.functional.one_hot(1 - best, 2)
    layers = design().network.convs[1:3]
    small = [layers[0], layers[1].model_copy(update={"channels": 6})]
    made = chooser.Chooser(small, 2, 2)
    chooser.train_chooser(made, codes.to(torch.uint8), errors, torch.ones(2000), 300, 1)
    with torch.no_grad():
        assert (made(codes).argmax(1) == best).float().mean() > 0.85


def test_classes_are_chosen_better_than_by_chance(made):
    x = torch.from_numpy(transforms.block_order(pixels(2000, seed=4), 4)).float()
    first = made.layers[0]
    codes = transforms.codes_of(x, first.weight[:, :, 0, 0].copy(), first.bias.copy())
    trace = golden.run(made, frames_of(pixels(2000, seed=4), made.config))
    np.testing.assert_array_equal(
        codes, trace.codes["first"][:, :, 0].transpose(0, 2, 1).reshape(-1, 22))
    scores = trace.codes["scores"][:, :, 0].transpose(0, 2, 1).reshape(-1, 4, 3).sum(2)
    chosen = torch.from_numpy(scores.argmax(1))
    tables = Tables(SMALL, x.shape[1])
    tables.fit(x, codes, chosen)
    errors = tables.errors(x, codes)
    by_chance, least = errors.mean(), errors.min(1).values.mean()
    came = errors.gather(1, chosen[:, None]).mean()
    assert came - least < 0.3 * (by_chance - least)


def told(network, patches: np.ndarray) -> tuple:
    """The bits (n, 16) that a network makes of patches, tables that are fitted to them, and the
    patches as vectors."""
    maps = golden.run(network, frames_of(patches, network.config)).codes["codes"]
    bits = torch.from_numpy(maps[:, :, 0].transpose(0, 2, 1).reshape(-1, 16)).float()
    tables = Tables(SMALL, 192)
    transforms.fit_tables(tables, network, patches, bits)
    return bits, tables, torch.from_numpy(transforms.block_order(patches, 4)).float()


def test_the_errors_of_tables_are_those_of_what_they_decode(made):
    bits, tables, x = told(made, pixels(500, seed=6))
    first = made.layers[0]
    codes = transforms.codes_of(x, first.weight[:, :, 0, 0].copy(), first.bias.copy())
    found = tables.errors(x, codes).gather(1, (2 * bits[:, :1] + bits[:, 1:2]).long())[:, 0]
    with torch.no_grad():
        wanted = (tables(2 * bits - 1) - x).square().sum(1)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1.0)


def test_tables_decode_what_the_encoder_gives(made):
    """With all bits the levels' values; with fewer, the mean of what they may have been."""
    bits, tables, x = told(made, pixels(2000, seed=5))
    with torch.no_grad():
        error = {kept: (tables((2 * bits - 1) * (torch.arange(16) < kept)) - x).square().mean()
                 for kept in (16, 12, 8, 6, 2)}
        assert error[16] < error[12] < error[8] < error[6] < error[2]
        # Nothing known: the mean of all that there is.
        nothing = tables.means.mean() + (tables.offset + torch.stack([
            (tables.values[:, slot, :ramps.levels].mean(1, keepdim=True) * tables.matrix[:, slot])
            for slot, ramps in enumerate(SMALL.fields[1:])]).sum(0)).mean(0)
        torch.testing.assert_close(tables(torch.zeros(1, 16))[0], nothing, rtol=1e-4, atol=1e-2)
        # One patch by hand.
        one, k = bits[:1], int(bits[0, 0] * 2 + bits[0, 1])
        levels = []
        for field, ramps in enumerate(SMALL.fields):
            own = [int(one[0, 2 + SMALL.order.index((field, bit))]) for bit in range(ramps.bits)]
            levels.append(ramps.gray.astype(int).tolist().index(own))
        wanted = tables.offset[k] + tables.means[levels[0]] + sum(
            tables.values[k, slot, level] * tables.matrix[k, slot]
            for slot, level in enumerate(levels[1:]))
        torch.testing.assert_close(tables(2 * one - 1)[0], wanted, rtol=1e-4, atol=1e-2)


def test_an_untrained_decoder_shows_what_the_tables_say(made):
    """Two rows of three patches, each in its place."""
    torch.manual_seed(1)
    shape = patches_of(made.config, "here")
    decoder = decoders.Decoder(shape, design().codec.decoder)
    for each in decoder.tables.parameters():
        torch.nn.init.uniform_(each, 0, 20)
    codes = torch.randint(0, 2, (1, 16, 2, 3)) * 2.0 - 1
    with torch.no_grad():
        found = decoder(codes)[0]
        for row, column in np.ndindex(2, 3):
            patch = decoder.tables(codes[:, :, row, column]).view(2, 2, 4, 4, 3)
            wanted = patch.permute(4, 0, 2, 1, 3).reshape(3, 8, 8) / 255  # of blocks, to rows
            place = found[:, 8 * row:8 * row + 8, 8 * column:8 * column + 8]
            torch.testing.assert_close(place, wanted, rtol=1e-4, atol=1e-4)


def test_frames_hold_the_blocks_of_each_patch(made):
    """Torch and numpy alike; the last frame is filled up."""
    patches = pixels(5)
    shape = patches_of(made.config, "here")
    assert shape == Patches(8, 16, together=4, block=4)
    frames = shape.frames(patches)
    assert frames.shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(frames[0, 4:8, 12:], patches[3, :4, 4:])  # block 1 of the fourth
    np.testing.assert_array_equal(frames[1, :, :4], frames[1, :, 4:8])
    x = torch.from_numpy(patches).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(codec.framed(x, shape).permute(0, 2, 3, 1), frames)
    encoder = Encoder(made.config)
    begin.freeze(encoder)
    begin.set_integers(encoder, made)
    picture = np.concatenate(patches, 1)  # 8 x 40 pixels
    found = codec.codes_map(encoder, torch.from_numpy(picture.transpose(2, 0, 1)[None]).float(),
                            shape)
    coded = compress(made, picture)
    np.testing.assert_array_equal(found[0], coded.map)
    trace = golden.run(made, frames)
    np.testing.assert_array_equal(coded.codes[:, :, 0, 0], expected(trace, SMALL)[:5])


@pytest.mark.parametrize("change, said", [
    ({"kernel": 3}, "nothing but 1x1 convolutions"),
    ({"channels": 15}, "a multiple of"),
])
def test_networks_of_bands_that_do_not_compress(change, said):
    values = tomllib.loads(DESIGN)["network"]
    values["operations"][-1] |= change
    network = parse_config({**values, "height": 64, "width": 16, "operations": [
        {**values["operations"][0], "bands": 16}, *values["operations"][1:]]}, kind=NetworkConfig)
    with pytest.raises(ConfigError, match=said):
        patches_of(network, "here")


def test_what_does_not_fit_is_refused(made, tmp_path):
    with pytest.raises(ConfigError, match=r"decoder\.transforms must be given if encoder is"):
        design(encoder="network", float_steps=0, code_steps=0)
    with pytest.raises(ConfigError, match="first: an encoder of these transforms must have an ope"):
        transforms.check(made.config, TransformsConfig(classes=2))
    for name, field, value in (("first", "weight_bits", 3), ("class", "code_bits", 2),
                               ("chosen", "weight_bits", 2),
                               ("codes", "inputs", ["levels", "class"])):
        values = tomllib.loads(DESIGN)["network"]
        next(each for each in values["operations"] if each["name"] == name)[field] = value
        network = parse_config(values, kind=NetworkConfig)
        with pytest.raises(ConfigError, match=f"^{name}: an .* with {field} = "):
            transforms.check(network, SMALL)
    with pytest.raises(ConfigError, match="must be given, by --begin with what `hexlane transfor"):
        codec.train(design(), tmp_path, compiled=False)
    with pytest.raises(ConfigError, match="fold must be 4 in an encoder of transforms, not 2"):
        transforms.check(made.config.model_copy(update={"fold": 2}), SMALL)
    other = Encoder(design().network.model_copy(update={"pad": 7}))
    begin.freeze(other)
    with pytest.raises(ConfigError, match="with a network of its own design only"):
        begin.set_integers(other, made)


@pytest.mark.slow
def test_from_pictures_to_a_picture_by_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(DESIGN)
    Path("images").mkdir()
    for k in range(10):
        y, x = np.mgrid[:192, :208]
        waves = [np.sin((np.cos(turn) * x + np.sin(turn) * y) / 9) for turn in (k, k + 0.3, k + 1)]
        Image.fromarray((128 + 90 * np.stack(waves, 2)).astype(np.uint8)).save(f"images/{k}.png")
    monkeypatch.setenv("HEXLANE_IMAGES", "images")
    monkeypatch.setattr(transforms, "STEPS", 200)
    assert run("transforms", "small.toml", "--limit", 3000) == 0
    assert run("train", "small.toml", "--no-compiled") == 2
    assert "by --begin with what `hexlane transforms` makes" in capsys.readouterr().err
    made = Path("build/small/transforms.npz")
    assert run("train", "small.toml", "--no-compiled", "--begin", made) == 0
    assert run("keep", "small.toml") == 0  # and what is kept has the same encoder
    assert run("train", "small.toml", "-o", "ended", "--resume", "weights/small.resume.pt") == 2
    assert "ended at step 20, without its record; steps must be more" in capsys.readouterr().err
    Path("more.toml").write_text(DESIGN.replace("steps = 20", "steps = 22"))
    assert run("train", "more.toml", "--no-compiled", "-o", "again", "--resume",
               "weights/small.resume.pt") == 0
    assert run("convert", "more.toml", "-c", "again/final.pt", "-o", "again.npz") == 0
    assert load_network("again.npz").digest == load_network(made).digest
    assert run("convert", "small.toml") == 0
    network = load_network("weights/small.npz")
    assert network.digest == load_network(made).digest  # only the decoder is trained
    assert run("compress", "images/0.png", "-o", "a.hxl", "-c", "small.toml") == 0
    assert run("decompress", "a.hxl", "-o", "a.png", "-c", "small.toml") == 0
    with Image.open("images/0.png") as one, Image.open("a.png") as other:
        error = np.square(np.subtract(one, other, dtype=float)).mean()
        assert error < 0.5 * np.asarray(one).var()
    header, decoder = decoders.load(Path("weights/small.decoder.npz"))
    assert header.encoder == network.digest and decoder.tables is not None
    # A training may begin with both.
    monkeypatch.setattr(codec.Run, "fit", None)
    begun = codec.Run(load_config("small.toml"), Path("begun"))
    begun.begin(network, Path("weights/small.npz"), [])
    assert begun.began == network.digest
    assert all(torch.equal(values, decoder.state_dict()[name])
               for name, values in begun.decoder.state_dict().items())
    assert run("transforms", Path(__file__).parent.parent / "configs/tiny.toml") == 2
    assert "must have codec.encoder = \"transforms\"" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["patch", "patch_small"])
def test_the_designs_are_those_of_their_transforms(name):
    config = load_config(Path(__file__).parent.parent / f"configs/{name}.toml")
    transforms.check(config.network, config.codec.decoder.transforms)
    assert patches_of(config.network, "here") == Patches(16, 16, together=16, block=4)
    assert config.codec.decoder.transforms.bits == 64 == 0.25 * 16**2


def test_a_decoder_of_single_patches_sees_no_other():
    torch.manual_seed(1)
    config = design(decoder={"width": 8, "blocks": 1, "fine_width": 8, "fine_blocks": 1,
                             "alone": True, "transforms": SMALL.model_dump()})
    decoder = decoders.Decoder(Patches(8, 16, together=4, block=4), config.codec.decoder)
    for each in decoder.parameters():
        torch.nn.init.uniform_(each, -0.2, 0.2)
    codes = torch.randint(0, 2, (2, 16, 3, 4)) * 2.0 - 1
    with torch.no_grad():
        found = decoder(codes)
        for row, column in np.ndindex(3, 4):
            place = found[:, :, 8 * row:8 * row + 8, 8 * column:8 * column + 8]
            torch.testing.assert_close(place, decoder(codes[:, :, row:row + 1, column:column + 1]))


def test_what_is_in_place_of_such_an_encoder_reads_patches_one_by_one():
    config = design(encoder="linear", float_steps=1, code_steps=1,
                    decoder={"width": 8, "blocks": 1, "fine_width": 8, "fine_blocks": 1})
    patches = codec.patches_for(config)
    assert patches == Patches(8, 16)
    assert codec.patches_for(design()) == patches_of(config.network, "here") != patches
    encoder, decoder = codec.models(config, patches)
    codes = codec.codes_map(encoder, torch.rand(2, 3, 16, 24), patches)
    assert codes.shape == (2, 16, 2, 3) and decoder(codes).shape == (2, 3, 16, 24)


def test_all_parts_of_a_decoder_are_used():
    torch.manual_seed(1)
    decoder = decoders.Decoder(Patches(8, 16, together=4, block=4), design().codec.decoder)
    for each in decoder.parameters():
        torch.nn.init.uniform_(each, -0.2, 0.2)
    decoder(torch.randint(0, 2, (2, 16, 3, 4)) * 2.0 - 1).square().sum().backward()
    assert all(each.grad.any() for each in decoder.parameters())
