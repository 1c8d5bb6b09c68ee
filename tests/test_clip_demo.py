"""The demo of networks that read clips."""

import pytest
from PIL import Image
from rich.console import Console

from export.checked import ConfigError
from export.config import parse_config
from sim import clip_demo
from sim.samples import random_network
from tests.designs import codes_of_clips

SMALL = codes_of_clips()


@pytest.mark.slow
def test_clips_and_moving_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_demo, "CLIPS", 1)
    console = Console(record=True, width=200)
    network = random_network(SMALL.network, 1)
    assert clip_demo.clip_demo(SMALL, network, tmp_path, console)
    said = console.export_text()
    assert said.count(" yes ") == 1 and "1 clips of 16 frames" in said
    with Image.open(tmp_path / "clips" / "1.gif") as picture:
        assert (picture.n_frames, picture.size) == (16, (256, 220))


@pytest.mark.long
def test_a_difference_is_told(tmp_path, monkeypatch):
    """The golden model runs other weights than the Verilog."""
    monkeypatch.setattr(clip_demo, "CLIPS", 1)
    networks = [random_network(SMALL.network, seed) for seed in (1, 2)]
    monkeypatch.setattr(clip_demo, "generate", lambda design, network, folder: (
        generate(design, networks[0], folder)))
    from hw.generate import generate
    console = Console(record=True, width=200)
    assert not clip_demo.clip_demo(SMALL, networks[1], tmp_path, console)
    assert "NO: frame 0, a, channel" in console.export_text()


def test_a_network_without_a_recipe_for_clips_is_refused(tmp_path):
    values = SMALL.model_dump(mode="json") | {"clips": None}
    with pytest.raises(ConfigError, match=r"needs a table \[clips\] in its design"):
        clip_demo.clip_demo(parse_config(values), None, tmp_path, Console())
