"""Encoder of patches and decoder of pictures: exact codes, crossing borders, learning, resuming."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.checked import ConfigError, parse
from export.codec import DecoderConfig, Patches, patches_of
from export.config import parse_config
from export.file import load_network, save_network
from export.picture import Picture
from sim.codec import compress
from tests.commands import run
from tests.killed import resumes

torch = pytest.importorskip("torch")
codec = pytest.importorskip("model.codec")
decoders = pytest.importorskip("model.decoder")
pictures = pytest.importorskip("model.pictures")
convert = pytest.importorskip("model.convert")
data = pytest.importorskip("model.data")
fold = pytest.importorskip("model.network").fold

SIDE = 192
DESIGN = """
[network]
height = 32
width = 32
channels = 3
pad = 128
fold = 4
operations = [
    {name = "first", channels = 12, weight_bits = 3, code_bits = 3, pool = true},
    {name = "second", channels = 12, weight_bits = 2, code_bits = 3},
    {name = "codes", inputs = ["first", "second"], channels = 4, weight_bits = 3, code_bits = 1},
]
[array]
rows = 4
columns = 4
words = 2
[codec]
decoder = {width = 12, blocks = 1, fine_width = 8, fine_blocks = 1}
steps = 12
float_steps = 3
code_steps = 3
batch = 2
crop = 192
validate_every = 4
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a design, and pictures of colored waves to train on."""
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(DESIGN)
    rng = np.random.default_rng(1)
    for k in range(10):
        at = np.mgrid[:SIDE, :SIDE + 30]
        wave = [np.sin((a * at[0] + b * at[1]) / 40 + c) for a, b, c in rng.uniform(-3, 3, (3, 3))]
        folder = Path("images", "more" if k % 2 else "")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((128 + 100 * np.stack(wave, 2)).astype(np.uint8)).save(
            folder / f"{k}.png")
    monkeypatch.setenv("HEXLANE_IMAGES", "images")
    return tmp_path


def design(**recipe):
    import tomllib
    values = {"name": "mine", **tomllib.loads(DESIGN)}
    return parse_config({**values, "codec": values["codec"] | recipe})


def tiny_decoder(seed: int = 1):
    torch.manual_seed(seed)
    config = DecoderConfig(width=6, blocks=2, fine_width=4, fine_blocks=1)
    decoder = decoders.Decoder(Patches(32, 4), config)
    for values in decoder.parameters():
        torch.nn.init.normal_(values, std=0.2)
    header = decoders.Header(side=32, channels=4, decoder=config, encoder="ab" * 32, record={})
    return decoder.eval(), header


@pytest.mark.parametrize("change, said", [
    ({"side": 20}, "side must be a multiple of 8, not 20"),
    ({"side": 8, "decoder": {"transforms": {}}}, "must have the 4 bits of a patch, not 64")])
def test_sizes_of_a_decoder_that_do_not_fit(change, said):
    values = {"side": 32, "channels": 4, "decoder": {}, "encoder": "ab" * 32, "record": {}}
    with pytest.raises(ConfigError, match=said):
        parse(values | change, "header", decoders.Header)


@pytest.mark.parametrize("size", [(64, 96), (50, 37)])
def test_torch_and_numpy_cut_and_join_alike(size):
    patches = Patches(32, 4)
    image = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    tensor = torch.from_numpy(image.transpose(2, 0, 1))
    seen = []

    def encoder(x):
        seen.append(x.numpy().transpose(0, 2, 3, 1))
        return x[:, [0, 1, 2, 0], ::8, ::8]

    found = codec.encode(encoder, tensor, patches)
    cut = patches.cut(image)
    np.testing.assert_array_equal(seen[0], cut)
    np.testing.assert_array_equal(
        found[0], patches.join(cut.transpose(0, 3, 1, 2)[:, [0, 1, 2, 0], ::8, ::8], *size))


def test_the_decoder_sees_across_patches():
    decoder, _ = tiny_decoder()
    codes = torch.randint(0, 2, (1, 4, 8, 12)).float()
    other = codes.clone()
    other[:, :, :4, 4:8] = 1 - other[:, :, :4, 4:8]  # the second patch
    changed = (decoder(2 * codes - 1) - decoder(2 * other - 1)).abs().amax((0, 1)) > 0
    assert changed[:32, 32:64].float().mean() > 0.99
    assert changed[:32, 24:32].any() and changed[:32, 64:72].any() and changed[32:40, 32:64].any()
    assert changed[:32, 88:].any()  # two blocks at an eighth reach 32 pixels far


@pytest.mark.parametrize("alone", [True, False])
def test_tiles_of_a_picture_are_those_of_the_whole(alone, monkeypatch):
    decoder, _ = tiny_decoder()
    decoder.alone = alone
    assert decoder.reach == 2  # two blocks of 16 pixels, one of 8, and 4
    codes = torch.randint(0, 2, (1, 4, 28, 32)).float()
    whole = decoders.decode(decoder, codes, 210, 250, 3).int()
    sizes, forward = [], decoder.forward
    monkeypatch.setattr(decoder, "forward", lambda x: sizes.append(x.shape[2:]) or forward(x))
    for tile in (1, 3):
        monkeypatch.setattr(decoders, "TILE", tile)
        found = decoders.decode(decoder, codes, 210, 250, 3).int()
        assert found.shape == (3, 210, 250) and (found - whole).abs().max() <= 1
        assert (found == whole).float().mean() > 0.999
    assert max(sizes) == (24, 28) and min(sizes) == (12, 12)
    assert len(sizes) == 7 * 8 + 3 * 3


def test_a_decoder_that_sees_one_patch_only():
    """For comparison: what it makes of a picture is what it makes of each patch."""
    decoder, _ = tiny_decoder()
    codes = torch.randint(-1, 2, (2, 4, 8, 12)).float()
    decoder.alone = True
    whole = decoder(codes)
    decoder.alone = False
    for row in range(2):
        for column in range(3):
            patch = codes[:, :, 4 * row:4 * row + 4, 4 * column:4 * column + 4]
            torch.testing.assert_close(whole[:, :, 32 * row:32 * row + 32,
                                             32 * column:32 * column + 32], decoder(patch))
    assert decoders.Decoder(Patches(32, 4), DecoderConfig(alone=True)).alone


def test_codes_that_are_cut_off_do_not_count():
    codes = torch.randint(0, 2, (2, 4, 4, 4)).float()
    other = codes.clone()
    other[0, 2:], other[1, 3:] = 1 - other[0, 2:], 1 - other[1, 3:]
    kept = torch.tensor([2, 3])
    assert torch.equal(decoders.only(codes, kept), decoders.only(other, kept))
    assert set(decoders.only(codes, 4).unique().tolist()) == {-1, 1}
    assert not torch.equal(decoders.only(codes, 4), decoders.only(other, 4))


def test_a_decoder_comes_back_from_its_file_and_decodes_any_size(tmp_path):
    decoder, header = tiny_decoder()
    path = tmp_path / "a.decoder.npz"
    decoders.save(decoder, header, path)
    found, again = decoders.load(path)
    assert found == header
    half = {name: values.half().float() for name, values in decoder.state_dict().items()}
    assert all(torch.equal(values, half[name]) for name, values in again.state_dict().items())
    codes = np.random.default_rng(1).integers(0, 2, (6, 4, 4, 4)).astype(np.uint8)
    picture = Picture(50, 70, header.patches, "ab" * 8, codes)
    decoder.load_state_dict(half)
    whole = decoder(2 * torch.from_numpy(picture.map).float()[None] - 1)[0]
    wanted = (whole.detach().clamp(0, 1) * 255).round()[:, :50, :70].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(decoders.decompress(picture, found, again), wanted)
    fewer = decoders.decompress(picture.kept(2), found, again)
    assert fewer.shape == (50, 70, 3) and (fewer != wanted).any()
    stranger = dataclasses.replace(picture, encoder="cd" * 8)
    with pytest.raises(ConfigError, match=r"by network cdcdcd\w+, but the decoder is that of abab"):
        decoders.decompress(stranger, found, again)


def test_damaged_decoders_are_refused(tmp_path):
    decoder, header = tiny_decoder()
    path = tmp_path / "a.npz"

    def refuses(said: str):
        with pytest.raises(ConfigError, match=rf"a\.npz: {said}"):
            decoders.load(path)

    refuses("no such file")
    path.write_bytes(b"nothing")
    refuses("not a decoder's file, or a damaged one")
    large = header.model_copy(update={"decoder": DecoderConfig(width=1024, blocks=64)})
    arrays = {name: values.numpy() for name, values in decoder.state_dict().items()}
    decoders.save_decoder(large, arrays, path)
    refuses("must have at most 16777216 parameters, not")
    decoders.save_decoder(header.model_copy(update={"side": 64}), arrays, path)
    refuses(r"patch\.weight must have at most|patch\.weight must be finite float16")
    decoders.save_decoder(header, {**arrays, "more": arrays["patch.bias"]}, path)
    refuses("must have each array of the decoder once, and no others: more")
    decoders.save_decoder(header, {**arrays, "patch.bias": arrays["patch.bias"] * np.nan}, path)
    refuses(r"patch\.bias must be finite float16")
    decoders.save(decoder, header, path)
    content, rng, refused = path.read_bytes(), np.random.default_rng(1), 0
    for _ in range(100):
        made = bytearray(content)
        for at in rng.integers(0, len(made), 3):
            made[at] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(made)
        try:
            decoders.load(path)
        except ConfigError as error:
            refused += 1
            assert len(str(error)) <= 300
    assert refused > 50


def test_entropy():
    share = torch.tensor([0.5, 0.0, 1.0, 0.25])
    np.testing.assert_allclose(codec.entropy(share), [1, 0, 0, 0.8112781], atol=1e-6)


def test_pictures_of_a_folder(here, monkeypatch):
    assert [len(pictures.load_pictures(split, 100)) for split in ("train", "validation")] == [9, 1]
    Image.fromarray(np.full((300, 200, 3), 7, np.uint8)).save("images/gray.webp", lossless=True)
    assert max(each.shape[1] for each in pictures.load_pictures("train", 193)) == 300
    for split, name in (("train", "a.png"), ("validation", "b.png")):
        Path("images", split).mkdir()
        Image.fromarray(np.full((200, 200, 3), 9, np.uint8)).save(f"images/{split}/{name}")
    assert [len(pictures.load_pictures(split, 100)) for split in ("train", "validation")] == [1, 1]
    with pytest.raises(ConfigError, match="images of at least 300 pixels each way for train, not"):
        pictures.load_pictures("train", 300)
    Path("images/train/c.png").write_text("nothing")
    with pytest.raises(ConfigError, match=r"c\.png: cannot be read as an image"):
        pictures.load_pictures("train", 100)
    monkeypatch.delenv("HEXLANE_IMAGES")
    with pytest.raises(ConfigError, match="HEXLANE_IMAGES must name a folder"):
        pictures.load_pictures("train", 100)


def test_crops_are_squares_of_the_pictures():
    image = torch.arange(3 * 20 * 30).view(3, 20, 30) % 251
    generator = torch.Generator().manual_seed(1)
    made = pictures.crops([image.to(torch.uint8)], 40, 16, generator)
    turned = set()
    for crop in made.to(torch.int64):
        ways = [(crop.transpose(1, 2) if turn else crop, turn) for turn in (False, True)]
        ways = [(way.flip(2) if flip else way, turn, flip) for way, turn in ways
                for flip in (False, True)]
        places = [(turn, flip) for way, turn, flip in ways for top in range(5) for left in range(15)
                  if torch.equal(way, image[:, top:top + 16, left:left + 16])]
        assert len(places) == 1
        turned.add(places[0])
    assert len(turned) == 4


@pytest.mark.slow
def test_training_learns_and_torch_computes_what_the_hardware_will(here):
    config = design(steps=60, float_steps=15, code_steps=15, validate_every=20)
    record = codec.train(config, here / "run", compiled=False)
    psnr = [row[2] for row in record["curve"]]
    assert psnr[-1] > psnr[0] > 8
    found = record["validation"]
    assert found["all channels"]["psnr"] > found["half of them"]["psnr"] - 0.5
    encoder, kept = convert.load_checkpoint(here / "run/final.pt", config)
    assert kept == record
    network = convert.convert(encoder)
    held = pictures.load_pictures("validation", 161)[0]
    codes = compress(network, held.numpy().transpose(1, 2, 0)).map
    np.testing.assert_array_equal(codes, codec.encode(encoder, held, Patches(32, 4))[0])
    assert 0.1 < codes.mean() < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["patch", "patch_small"])
def test_the_shipped_encoders_are_exact_on_real_patches(name):
    from model.begin import freeze, set_integers
    from model.network import Encoder
    root = Path(__file__).parent.parent
    network = load_network(root / f"weights/{name}.npz")
    encoder = Encoder(network.config)
    freeze(encoder)
    set_integers(encoder, network)
    patches = patches_of(network.config, name)
    photos = [data.read_picture(path) for path in sorted(root.glob("sim/photos/*.png"))]
    picture = np.concatenate(photos, 1)
    found = codec.codes_map(encoder, torch.from_numpy(picture.transpose(2, 0, 1)[None]).float(),
                            patches)[0]
    np.testing.assert_array_equal(compress(network, picture).map, found)
    assert 0.2 < found.mean() < 0.8


@pytest.mark.parametrize("name", ["patch", "patch_small"])
def test_the_shipped_encoder_and_decoder_belong_together(name):
    root = Path(__file__).parent.parent
    photos = [data.read_picture(path) for path in sorted(root.glob("sim/photos/*.png"))]
    pixels = np.concatenate([np.concatenate(photos[:5]), np.concatenate(photos[5:])], 1)
    header, decoder = decoders.load(root / f"weights/{name}.decoder.npz")
    made = compress(load_network(root / f"weights/{name}.npz"), pixels)
    error = [np.square(decoders.decompress(part, header, decoder) - pixels.astype(float)).mean()
             for part in (made, made.kept(8))]
    assert error[0] < error[1] < pixels.var() / 2


@pytest.mark.slow
def test_training_computes_with_what_is_exported(here):
    """With the means of each batch no code could say how bright a patch is."""
    run = codec.Run(design(), here)
    images = pictures.load_pictures("train", 192)
    run.train_step(images)  # the first one begins with statistics of some crops
    first = run.encoder.parts["first"]
    sums = first.accumulate(fold(codec.cut(torch.stack([each[:, :192, :192] for each in images])
                                           .float(), 32), 4))
    assert ((first.mean - sums.mean((0, 2, 3))).abs() < sums.std((0, 2, 3)) / 2).all()
    before = [conv.mean.clone() for conv in run.encoder.convs]
    for _ in range(7):
        run.train_step(images)
    for mean, conv in zip(before, run.encoder.convs, strict=True):
        assert (conv.mean != mean).all()
    patches = codec.cut(pictures.crops(images, 2, 192, torch.Generator().manual_seed(1)), 32)
    dark = patches.float() / 4
    exact = run.exact()(dark)
    run.encoder.train()
    for part in run.encoder.parts.values():
        part.observe = lambda *_: None
    assert (run.encoder(dark) == exact).float().mean() > 0.9


def test_the_first_filters_say_how_bright_a_patch_is():
    torch.manual_seed(1)
    parts = codec.Encoder(design().network).parts
    for name, least in (("first", 1), ("second", -1)):
        with torch.no_grad():
            parts[name].weight.normal_(1, 0.02)  # a weight far from 1 would be rounded to 0
        assert parts[name].levels().min() == least


def test_the_roundings_come_one_after_the_other_and_the_codes_are_always_bits(here, monkeypatch):
    run = codec.Run(design(), here)
    seen = []

    def loss(pixels, channels):
        parts = run.encoder.parts
        codes = run.encoder(codec.cut(pixels.float(), 32))
        seen.append((parts["first"].round_codes, parts["first"].round_weights,
                     set(codes.unique().tolist()) <= {0.0, 1.0}))
        return sum(p.square().sum() for p in [*run.encoder.parameters(),
                                              *run.decoder.parameters()])

    monkeypatch.setattr(run, "loss", loss)
    for _ in range(8):
        run.train_step(pictures.load_pictures("train", 192))
    assert seen == [(False, False, True)] * 3 + [(True, False, True)] * 3 + [(True, True, True)] * 2


@pytest.mark.slow
def test_signs_of_linear_functions_in_place_of_an_encoder(here):
    config = design(encoder="linear", steps=40, float_steps=10, code_steps=10, validate_every=20)
    record = codec.train(config, here / "run", compiled=False)
    assert record["curve"][1][2] > record["curve"][0][2] > 8
    assert record["curve"][1][4] > 0.9  # bits of entropy
    with pytest.raises(ConfigError, match="does not match the configuration"):
        convert.load_checkpoint(here / "run/final.pt", config)
    name, patches, run = codec.load_trained(here / "run/final.pt")
    held = pictures.load_pictures("validation", 161)
    found = [codec.quality_of(run(each), each) for each in
             (each.numpy().transpose(1, 2, 0) for each in held)]
    assert name == "mine" and patches == Patches(32, 4)
    assert found[0][0] == pytest.approx(record["validation"]["all channels"]["psnr"], abs=1e-3)
    encoder, _ = codec.models(config, patches)
    encoder.load_state_dict(torch.load(here / "run/final.pt", weights_only=True)["encoder"])
    x = codec.cut(held[0][None, :, :192, :192].float(), 32)
    part = encoder.eval().convs[0]
    sums = x.flatten(1) @ part.levels().flatten(1).T  # channels, rows, columns, as unshuffled
    assert part.levels().shape == (64, 3072, 1, 1)
    assert (part.levels() != part.levels().round()).any()
    assert (encoder(x).flatten(1) == (sums - part.mean + (part.beta - 1) / part.scale(part.square)
                                      >= 0)).float().mean() > 0.999


def test_truncation_takes_the_share_of_crops_that_the_recipe_says(here):
    run = codec.Run(design(batch=4000, truncation=0.25), here)
    kept = run.kept(torch.Generator().manual_seed(1))
    assert set(kept.tolist()) == {2, 3, 4}
    assert 0.23 < (kept < 4).float().mean() < 0.27


@pytest.mark.slow
def test_a_killed_run_resumes_where_it_was(here, monkeypatch):
    resumes(codec, design(), here, 6, monkeypatch)


@pytest.mark.slow
def test_a_run_that_is_killed_anywhere_goes_on(here):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent),
                   "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c",
               "import model.steps; model.steps.SAVE = 0\n"
               "import sim.cli; sim.cli.main(['train', 'mine.toml', '--no-compiled'])"]
    Path("mine.toml").write_text(DESIGN.replace("steps = 12", "steps = 400").replace(
        "validate_every = 4", "validate_every = 1000"))
    checkpoint, steps = Path("build/mine/train/checkpoint.pt"), []
    for delay in (0.05, 0.3):
        process = subprocess.Popen(command, env=environment)
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        deadline = time.monotonic() + 120
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        steps.append(torch.load(checkpoint, weights_only=True)["step"])
    assert 0 < steps[0] < steps[1]


@pytest.mark.slow
def test_what_cannot_be_trained_is_refused(here):
    for recipe, said in [
            ({"crop": 200}, "codec.crop must be a multiple of 32, and 161 at least, not 200"),
            ({"crop": 160}, "codec.crop must be a multiple of 32, and 161 at least, not 160"),
            ({"float_steps": 9}, "must be fewer than the 12 steps together, not 12"),
            ({"crop": 224}, "images of at least 224 pixels")]:
        with pytest.raises(ConfigError, match=said):
            codec.train(design(**recipe), here / "run", compiled=False)
    codec.train(design(), here / "run", compiled=False)
    other = {"decoder": {"width": 16, "blocks": 1, "fine_width": 8, "fine_blocks": 1}}
    with pytest.raises(ConfigError, match=r"checkpoint\.pt: cannot be resumed"):
        codec.train(design(**other), here / "run", compiled=False)


@pytest.mark.slow
def test_from_training_to_a_picture_by_commands(here, capsys, monkeypatch):
    assert run("train", "mine.toml", "--device", "cuda") == 2
    assert ("device must be cpu for a network that does not classify images, not cuda"
            in capsys.readouterr().err)
    assert run("train", "mine.toml", "--no-compiled") == 0
    assert run("convert", "mine.toml") == 0
    assert run("compress", "images/0.png", "-o", "a.hxl", "-c", "mine.toml") == 0
    assert run("decompress", "a.hxl", "-o", "a.png", "-c", "mine.toml") == 0
    with Image.open("a.png") as image:
        assert image.size == (SIDE + 30, SIDE) and image.mode == "RGB"
    record = json.loads(Path("build/mine/train/record.json").read_text())
    held = pictures.load_pictures("validation", 161)
    header, decoder = decoders.load(Path("weights/mine.decoder.npz"))
    network = load_network("weights/mine.npz")
    assert header.encoder == network.digest
    encoder, _ = convert.load_checkpoint(Path("build/mine/train/final.pt"), design())
    found = codec.measure(encoder, decoder, held, Patches(32, 4), 4)
    assert found["psnr"] == pytest.approx(record["validation"]["all channels"]["psnr"], abs=0.05)
    # A training may begin with both.
    again = codec.Run(design(), Path("again"))
    again.begin(network, Path("weights/mine.npz"), pictures.load_pictures("train", 192))
    assert again.began == network.digest
    assert again.validate(again.exact(), held)["all channels"] == pytest.approx(found, rel=1e-5)
    begun = codec.train(design(steps=2, float_steps=0, code_steps=0, validate_every=1),
                        Path("begun"), compiled=False, begin=Path("weights/mine.npz"))
    assert begun["began"] == network.digest
    assert begun["validation"]["all channels"]["psnr"] > found["psnr"] - 0.5
    with pytest.raises(ConfigError, match="build/mine/train: has a training that did not begin wi"):
        codec.train(design(), Path("build/mine/train"), compiled=False,
                    begin=Path("weights/mine.npz"))
    other = design(decoder={"width": 8})
    with pytest.raises(ConfigError, match="of other sizes than the recipe's, or not of weights"):
        codec.train(other, Path("other"), compiled=False, begin=Path("weights/mine.npz"))
    capsys.readouterr()
    monkeypatch.setattr("sim.codec_bench.LEARNED", 600)
    monkeypatch.setattr("model.baselines.ROUNDS", 1)
    Path("two").mkdir()
    for k in range(2):
        with Image.open("images/0.png" if k else "images/more/1.png") as image:
            image.crop((0, 0, 180, 170)).save(f"two/{k}.png")  # no whole patches
    final = "build/mine/train/final.pt"
    assert run("codec-bench", "two", "-c", "mine.toml", "--trained", final, "--draw", "img") == 0
    table = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): [each.strip() for each in line.split("│")[2:5]]
            for line in table.splitlines() if line.startswith("│")}
    for came, wanted in zip(rows["mine"][1:], rows["this codec"][1:], strict=True):
        assert float(came) == pytest.approx(float(wanted), abs=0.02)  # of the same training
    assert "2 pictures" in table and table.count("published") == 5 and "nan" not in table
    said = [float(each) for each in re.findall(r"(0\.\d+)\s+(?:in\s+the\s+mean|at\s+least)", table)]
    ones = np.concatenate([compress(network, data.read_picture(Path(f"two/{k}.png"))).codes
                           for k in range(2)]).mean(0)
    bits = codec.entropy(torch.from_numpy(ones))
    assert said == [pytest.approx(bits.mean().item(), abs=1e-3),
                    pytest.approx(bits.min().item(), abs=1e-3)]
    with Image.open("img/mine-crops.png") as image, Image.open("two/1.png") as second:
        sheet = np.asarray(image)
        assert sheet.shape == (16 + 2 * 170, 7 * 180, 3)  # original, this, JPEG, trained, KLT, ...
        np.testing.assert_array_equal(sheet[16 + 170:, :180], np.asarray(second))
    assert "0.25" in Path("img/mine-rate.svg").read_text()
    assert run("codec-bench", "two", "-c", "mine.toml", "--trained", "mine.npz") == 2
    assert "mine.npz: no such file" in capsys.readouterr().err
    assert run("codec-bench", "build", "-c", "mine.toml") == 2
    assert "build: must hold images of at least 161 pixels each way" in capsys.readouterr().err
    content = Path("a.hxl").read_bytes()
    for made in (b"", content[:20], content[:-1], content + b"a", b"PNG" + content):
        Path("b.hxl").write_bytes(made)
        assert run("decompress", "b.hxl", "-o", "b.png", "-c", "mine.toml") == 2
        err = capsys.readouterr().err
        assert err.startswith("error: b.hxl: ") and err.count("\n") == 1
    Path("mine.toml").write_text(DESIGN.replace("weight_bits = 2", "weight_bits = 1"))
    assert run("convert", "mine.toml") == 2
    assert "training was of another network" in capsys.readouterr().err
    Path("mine.toml").write_text(DESIGN)
    layer = network.layers[0]
    save_network(dataclasses.replace(network, layers=(dataclasses.replace(
        layer, bias=layer.bias + 1), *network.layers[1:])), "other.npz")
    assert run("compress", "images/0.png", "-o", "b.hxl", "-c", "mine.toml",
               "-w", "other.npz") == 0
    assert run("decompress", "b.hxl", "-o", "b.png", "-c", "mine.toml") == 2
    assert "was compressed by network" in capsys.readouterr().err
    assert not Path("b.png").exists()
