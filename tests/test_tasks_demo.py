"""One Verilog that classifies photographs and compresses them, by programs that are loaded."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from export.config import load_config
from sim import demo as demos
from sim import golden, tasks_demo
from sim.codec import compress
from sim.demo import load_photos
from sim.samples import random_network
from tests.commands import run

ARRAY = """
[array]
rows = 2
columns = 4
words = 2
"""
LABEL = """
[network]
height = 8
width = 8
channels = 3
classes = 4
layers = [
    {name = "first", channels = 8, weight_bits = 3, code_bits = 2, pool = true},
    {name = "second", channels = 8, weight_bits = 2, code_bits = 1},
]
"""
PATCH = """
[network]
height = 16
width = 16
channels = 3
pad = 128
fold = 4
operations = [
    {name = "first", channels = 8, weight_bits = 3, code_bits = 3},
    {name = "codes", channels = 4, weight_bits = 2, code_bits = 1, pool = true},
]
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with both designs and two photographs."""
    monkeypatch.chdir(tmp_path)
    Path("label.toml").write_text(LABEL + ARRAY)
    Path("patch.toml").write_text(PATCH + ARRAY)
    Path("photos").mkdir()
    rng = np.random.default_rng(1)
    for name, size in (("a", (40, 24)), ("b", (8, 8))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(f"photos/{name}.png")
    return tmp_path


def demo(*arguments) -> int:
    return run("demo", "label.toml", "--weights", "random", "--encoder", *arguments)


@pytest.mark.slow
def test_two_tasks_on_one_verilog(here, capsys, monkeypatch):
    found, simulate = [], tasks_demo.run_jobs
    monkeypatch.setattr(tasks_demo, "run_jobs", lambda *args, **how: found.append(
        simulate(*args, **how)) or found[0])
    assert demo("patch.toml", "--photos", "photos", "-o", "out") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "all 9 frames equal to the golden model in every layer" in said  # 1 + 6 and 1 + 1
    network = random_network(load_config("patch.toml").network, 1)
    for name in "ab":
        pixels = np.asarray(Image.open(f"photos/{name}.png"))
        wanted = compress(network, pixels).to_bytes()
        assert Path(f"out/{name}.hxl").read_bytes() == wanted

    # A difference is seen: in a code that stays inside, in a frame that is late, in a refused word.
    for change in ({"codes": [{n: c ^ (k == 3) for n, c in each.items()}
                              for k, each in enumerate(found[0].codes)]},
                   {"left": [at + (k >= 4) for k, at in enumerate(found[0].left)]},
                   {"refused": 1}):
        other = replace(found[0], **change)
        monkeypatch.setattr(tasks_demo, "run_jobs", lambda *_, other=other, **__: other)
        assert demo("patch.toml", "--photos", "photos", "-o", "out") == 1
        assert "differs from the golden model" in " ".join(capsys.readouterr().out.split())


@pytest.mark.long
def test_the_shipped_designs_on_one_verilog(tmp_path, monkeypatch, capsys):
    configs = Path(__file__).parent.parent / "configs"
    monkeypatch.chdir(tmp_path)
    assert run("demo", configs / "megabit.toml", "--encoder", configs / "patch.toml") == 0
    assert "all 20 frames equal" in " ".join(capsys.readouterr().out.split())


def test_names_are_shown_as_they_are(here, capsys, monkeypatch):
    """Rich would take brackets for its markup; of the demo that classifies, without Verilog."""
    Image.new("RGB", (8, 8)).save("[b].png")
    network = random_network(load_config("label.toml").network, 1)
    trace = golden.run(network, load_photos(Path(), load_config("label.toml"))[1])
    frames = SimpleNamespace(classes=trace.classes, cycles=[[9]], left=[9], seconds=1.0,
                             equal=lambda _: [True], first_difference=lambda _: None)
    monkeypatch.setattr(demos, "run_frames", lambda *_, **__: frames)
    monkeypatch.setattr(demos, "generate", lambda *_: {
        "total_bits": 1, "cycles_per_frame": 9, "array_use": 0.5})
    monkeypatch.setattr(demos.synth, "report", lambda *_: defaultdict(int))
    monkeypatch.setattr(demos, "class_names", lambda _: ["[/x]"] * 4)
    assert run("demo", "label.toml", "--weights", "random", "--photos", ".", "-o", "o[/b]") == 0
    said = capsys.readouterr().out
    assert "o[/b]/engine.v: 1 bits" in said
    assert all(f" {name} " in said for name in ("[b].png", "[b]", "[/x]"))


def test_what_is_no_demo_of_two_tasks_is_refused(here, capsys):
    Path("none").mkdir()
    for arguments, said in ((("label.toml",), "a network that compresses must give codes"),
                            (("patch.toml", "--photos", "none"), "none: must hold images"),
                            (("missing.toml",), "missing.toml")):
        assert demo(*arguments) == 2
        err = capsys.readouterr().err
        assert said in err and err.startswith("error: ") and err.count("\n") == 1
    assert run("demo", "label.toml", "--weights", "none") == 2
    assert "demo: wanted weights" in capsys.readouterr().err
    Path("label.toml").write_text(LABEL.replace("channels = 3\n", "channels = 1\n") + ARRAY)
    assert demo("patch.toml") == 2
    assert "must give a class of colors" in capsys.readouterr().err


def test_the_middle_of_a_picture_is_what_is_classified():
    picture = np.zeros((60, 100, 3), np.uint8)
    picture[:, 20:80] = 200  # the middle square
    assert (tasks_demo.shrunk(picture, 12, 12) == 200).all()
    wide = tasks_demo.shrunk(picture, 6, 10)
    assert wide.shape == (6, 10, 3) and wide[3, 0, 0] < 50 and wide[3, 5, 0] > 195
    assert (tasks_demo.shrunk(picture[:, :60], 60, 60) == picture[:, :60]).all()
