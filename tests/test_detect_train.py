"""Training to find boxes on a small folder that code makes: learning, resuming, commands."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.config import load_config
from export.detect import decode, decoding_of
from export.file import load_network
from sim import golden
from tests.commands import run
from tests.killed import resumes

torch = pytest.importorskip("torch")
detect = pytest.importorskip("model.detect")
boxes = pytest.importorskip("model.boxes")
convert = pytest.importorskip("model.convert")

DESIGN = """
[network]
height = 48
width = 64
channels = 1
pad = 128
fold = 4
operations = [
    {name = "a", channels = 16, weight_bits = 3, code_bits = 3, pool = true},
    {name = "b", channels = 24, weight_bits = 2, code_bits = 3},
    {name = "v", kind = "map", inputs = ["a", "b"], channels = 6, weight_bits = 3},
]
[array]
rows = 4
columns = 4
words = 2
[detect]
classes = ["dark", "light"]
steps = 60
float_steps = 15
code_steps = 15
validate_every = 20
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A design, and a VOC folder of dark and light squares."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEXLANE_BOXES", "voc")
    Path("mine.toml").write_text(DESIGN)
    rng = np.random.default_rng(1)
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        Path("voc", name).mkdir(parents=True)
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for k in range(count):
            pixels, objects = rng.integers(110, 146, (96, 128)).astype(np.uint8), ""
            for number in range(2):
                side = int(rng.integers(24, 36))
                x, y = int(rng.integers(64 - side)) + 64 * number, int(rng.integers(96 - side))
                pixels[y:y + side, x:x + side] = 250 * number
                objects += (f"<object><name>{('dark', 'light')[number]}</name><bndbox>"
                            f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + side}</xmax>"
                            f"<ymax>{y + side}</ymax></bndbox></object>")
            Image.fromarray(pixels).save(f"voc/JPEGImages/{split}{k}.png")
            Path(f"voc/Annotations/{split}{k}.xml").write_text(
                f"<annotation>{objects}</annotation>")
        Path(f"voc/ImageSets/Main/{split}.txt").write_text(
            "\n".join(f"{split}{k}" for k in range(count)))
    return tmp_path


@pytest.mark.slow
def test_from_a_folder_to_precision_by_commands(here, capsys):
    assert run("train", "mine.toml", "--no-compiled") == 0
    assert run("convert", "mine.toml") == 0
    assert run("evaluate", "mine.toml", "--split", "validation") == 0
    record = json.loads(Path("build/mine/train/record.json").read_text())
    found = json.loads(Path("build/mine/accuracy.json").read_text())
    assert found["map50"] == pytest.approx(record["validation"]["map50"], abs=1e-9)
    assert found["map50"] > 0.5 and set(found["classes"]) == {"dark", "light"}
    # Torch and the golden model give the same values and boxes.
    design, network = load_config("mine.toml"), load_network("weights/mine.npz")
    encoder, _ = convert.load_checkpoint(Path("build/mine/train/final.pt"), design)
    decoding, cell = decoding_of(network.record, design.network, "x")
    images = [boxes.whole(each, (48, 64)).image for each in
              boxes.load_samples(design.network, ("dark", "light"), "test")]
    values = golden.run(network, torch.stack(images).permute(0, 2, 3, 1).numpy()).values
    with torch.no_grad():
        np.testing.assert_array_equal(values, encoder(torch.stack(images).float()).numpy())
    for one, other in zip(detect.boxes_of(encoder, images, decoding, cell), values, strict=True):
        np.testing.assert_array_equal(one.corners, decode(other, decoding, cell).corners)
    # The Verilog's too, whose boxes are drawn beside the truth and the golden model's.
    capsys.readouterr()
    assert run("demo", "mine.toml") == 0
    assert "4 of 4 images equal to the golden model in every layer" in " ".join(
        capsys.readouterr().out.split())
    sheets = [np.asarray(Image.open(f"build/mine/boxes/{k}.png")) for k in (1, 2, 3, 4)]
    for sheet, image in zip(sheets, images, strict=True):
        truth, wanted, found = np.split(sheet, 3, axis=1)
        assert sheet.shape == (48, 192, 3) and (truth != image[0, ..., None].numpy()).any()
        np.testing.assert_array_equal(wanted, found)


@pytest.mark.slow
def test_a_killed_run_resumes_where_it_was(here, monkeypatch):
    resumed, whole = resumes(detect, load_config("mine.toml"), here, 30, monkeypatch)
    assert resumed["detection"] == whole["detection"]
