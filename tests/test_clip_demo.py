"""The demo of networks that read clips."""

import pytest
from PIL import Image
from rich.console import Console

from export.checked import ConfigError
from export.config import parse_config
from model import clip_train
from sim import clip_demo, golden
from sim.samples import random_network
from tests.designs import codes_of_clips

SMALL = codes_of_clips()


@pytest.mark.slow
@pytest.mark.parametrize("cell, seed", [(True, 4), (False, 1)])
def test_clips_and_moving_pictures(tmp_path, monkeypatch, cell, seed):
    """The class is that of the last tick, without a cell that of all ticks: another one, here."""
    monkeypatch.setattr(clip_demo, "CLIPS", 2)
    console, design = Console(record=True, width=200), codes_of_clips(cell)
    network = random_network(design.network, seed)
    assert clip_demo.clip_demo(design, network, tmp_path, console)
    said = console.export_text()
    assert said.count(" yes ") == 2 and "2 clips of 16 frames" in said
    source = clip_train.Drawn(design.network, design.clips, "test")
    clips, labels = source.part(range(2))
    trace = golden.run_clips(network, list(clips.permute(0, 1, 3, 4, 2).numpy()))
    scores = trace.scores.reshape(2, -1, 13)
    last, together = scores[:, -1].argmax(1), scores.sum(1).argmax(1)
    assert (last != together).any()
    wanted = last if cell else together
    for n, (label, found) in enumerate(zip(labels, wanted, strict=True), 1):
        line = next(line for line in said.splitlines() if f"{n}.gif" in line)
        assert line.split()[3:6:2] == [source.classes[label], source.classes[found]]
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
