"""Training on clips: a tiny folder whose classes differ in the order of time only; resuming."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.checked import ConfigError
from export.clips import ClipsConfig, clip_scores
from export.config import load_config
from export.file import load_network
from sim import golden
from sim.evaluate import clip_accuracy
from tests.commands import run
from tests.designs import codes_of_clips
from tests.killed import resumes

torch = pytest.importorskip("torch")
clip_train = pytest.importorskip("model.clip_train")
clip_trunk = pytest.importorskip("model.clip_trunk")
load_checkpoint = pytest.importorskip("model.convert").load_checkpoint

DESIGN = """
[network]
height = 16
width = 16
channels = 3
pad = 128
fold = 2
classes = 2
layers = [
    {name = "a", channels = 12, weight_bits = 3, code_bits = 1},
    {name = "b", channels = 12, weight_bits = 2, code_bits = 1, frames = 3, pool = true},
    {name = "x", kind = "sum", output = "codes", channels = 16, weight_bits = 2, code_bits = 2},
    {name = "cell", kind = "cell", channels = 16, weight_bits = 2, code_bits = 1, state_bits = 6},
]
[array]
rows = 2
columns = 4
words = 2
[clips]
frames = 6
steps = 60
float_steps = 12
code_steps = 6
weight_steps = 10
batch = 16
learning_rate = 0.02
validation = 12
validate_every = 20
"""

TRUNK = """
[clips.trunk]
to = "b"
steps = 20
clips = 200
batch = 32
learning_rate = 0.01
"""


def frames_of(rng: np.random.Generator, label: int) -> np.ndarray:
    """A bright square that goes to the left or, of class 1, to the right."""
    frames = rng.integers(60, 90, (6, 16, 16, 3)).astype(np.uint8)
    y = int(rng.integers(0, 11))
    for k in range(6):
        x = 2 * k if label else 10 - 2 * k
        frames[k, y:y + 6, x:x + 6] = 220
    return frames


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder in Jester's format."""
    place, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(1)
    (place / "labels.csv").write_text("left\nright\n")
    for split, count in (("train", 120), ("validation", 24)):
        lines = []
        for k in range(count):
            folder = place / f"{split}{k}"
            folder.mkdir()
            for t, frame in enumerate(frames_of(rng, k % 2), 1):
                Image.fromarray(frame).save(folder / f"{t:05}.jpg")
            lines.append(f"{folder.name};{('left', 'right')[k % 2]}")
        (place / f"{split}.csv").write_text("\n".join(lines))
    return place


@pytest.fixture
def here(tmp_path, monkeypatch, clips):
    """A design, and the clips, whose lists may be changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEXLANE_CLIPS", "set")
    Path("mine.toml").write_text(DESIGN)
    Path("set").mkdir()
    for path in clips.iterdir():
        if path.is_dir():
            Path("set", path.name).symlink_to(path)
        else:
            shutil.copy(path, "set")
    return tmp_path


@pytest.mark.slow
def test_from_a_folder_to_an_artifact_by_commands(here):
    assert run("train", "mine.toml", "--no-compiled") == 0
    assert run("convert", "mine.toml") == 0
    record = json.loads(Path("build/mine/train/record.json").read_text())
    assert [step for step, *_ in record["curve"]] == [20, 40, 60]
    assert record["validation"] == {"accuracy": record["curve"][-1][2]}
    assert record["validation"]["accuracy"] > 0.9
    # The artifact gives what was validated, and forgets when a clip begins.
    network, design = load_network("weights/mine.npz"), load_config("mine.toml")
    clips, labels = clip_train.Folder(design.network, design.clips, "validation").part(range(12))
    trace = golden.run_clips(network, list(clips.permute(0, 1, 3, 4, 2).numpy()))
    scores = clip_scores(design.network, trace.scores.reshape(12, 6, 2))
    assert (scores.argmax(1) == labels.numpy()).mean() == record["validation"]["accuracy"]
    found = clip_accuracy(design, network, "validation")
    assert found == {**record["validation"], "images": 12, "split": "validation"}
    assert clip_accuracy(design, network, "test", 5)["images"] == 5
    encoder, _ = load_checkpoint(Path("build/mine/train/final.pt"), design)
    np.testing.assert_array_equal(scores, clip_train.scores_of(encoder, clips).numpy())
    # A training may begin with it; this one goes nowhere from there.
    Path("again.toml").write_text(re.sub(r"(float|code|weight)_steps = .*", r"\1_steps = 0", DESIGN)
                                  .replace("\nsteps = 60", "\nsteps = 1")
                                  .replace("learning_rate = 0.02", "learning_rate = 1e-12"))
    assert run("train", "again.toml", "--no-compiled", "--begin", "weights/mine.npz") == 0
    record = json.loads(Path("build/again/train/record.json").read_text())
    assert record["began"] == network.digest and record["validation"]["accuracy"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("at, more", [(30, ""), (52, TRUNK)])
def test_a_killed_run_resumes_where_it_was(here, monkeypatch, at, more):
    Path("mine.toml").write_text(DESIGN + more)
    resumes(clip_train, load_config("mine.toml"), here, at, monkeypatch)


def test_each_stage_rounds_more(here):
    design = load_config("mine.toml")
    made, seen = clip_train.Run(design, here), []
    parts = made.encoder.parts
    for made.step in (0, 11, 12, 17, 18, 27, 28, 59):
        made.begin_stage()
        seen.append((parts["b"].round_codes, parts["b"].round_weights, parts["cell"].round_codes,
                     parts["cell"].round_weights))
    no, yes = False, True
    assert seen == [(no, no, no, no)] * 2 + [(yes, no, no, no)] * 2 + [(yes, yes, no, no)] * 2 + [
        (yes, yes, yes, yes)] * 2


@pytest.mark.slow
def test_what_is_behind_a_trunk_learns_from_its_codes(here, monkeypatch):
    Path("mine.toml").write_text(DESIGN + TRUNK)
    design = load_config("mine.toml")
    made = clip_train.Run(design, here / "run")
    (here / "run").mkdir()
    source = clip_train.source_of(design.network, design.clips, "train")
    monkeypatch.setattr("model.clip_trunk.PART", 50)
    states, rates = [], []
    for _ in range(60):
        if made.step in (39, 40, 41):
            states.append({name: each.clone() for name, each in made.encoder.state_dict().items()})
        made.train_step(source)
        rates.append(made.optimizers[0].param_groups[0]["lr"])
    states.append(made.encoder.state_dict())
    # Before, all is learned; then only what is behind `b`, and there everything is.
    moved = [{name.split(".")[1] for name in old
              if name.endswith(("weight", "beta")) and not torch.equal(old[name], new[name])}
             for old, new in ((states[0], states[1]), (states[2], states[3]))]
    assert moved == [set(made.encoder.parts), {"x", "cell", "classifier"}]
    assert max(rates[:40]) == rates[4] == 0.02 and rates[39] < 0.0001
    assert max(rates[40:]) == rates[42] == 0.01 and rates[59] < 0.0001
    # All training clips, a tenth less, in the order of their numbers; files of 50.
    clips, labels = source.part(range(200))
    kept = made.kept
    assert len(kept) == len(clips) == 108 and kept.labels.tolist() == labels.tolist()
    assert len(list((here / "run").glob("*-*.pt"))) == 3
    encoder = made.encoder.eval().requires_grad_(False)
    codes = encoder(clips.float(), stop="b")
    np.testing.assert_array_equal(kept.part(range(108))[0], codes)
    np.testing.assert_array_equal(encoder(codes, start="b"), encoder(clips.float()))
    # The trunk's statistics are those of the clips, as they are of what is exported.
    exact = made.exact(source)
    assert torch.equal(exact.parts["a"].mean, encoder.parts["a"].mean)
    clip_train.calibrate(encoder, clips, 13)
    for name in encoder.parts:
        if hasattr(encoder.parts[name], "mean"):
            np.testing.assert_allclose(exact.parts[name].mean, encoder.parts[name].mean, 1e-4, 1e-4)
    # Batches: each clip once before any comes again.
    drawn = torch.cat([kept.batch(step, 36)[1] for step in range(3)])
    assert sorted(drawn.tolist()) == sorted(labels.tolist())
    # The files are read again, not computed.
    trunk = design.clips.trunk
    with monkeypatch.context() as patch:
        patch.setattr(source, "part", None)
        again = clip_trunk.keep_codes(made.encoder, source, trunk, 1, here / "run")
    assert torch.equal(again.packs, kept.packs)
    for count in 30, 60:  # a file of fewer clips is none of more
        fewer = trunk.model_copy(update={"clips": count})
        found = clip_trunk.keep_codes(made.encoder, source, fewer, 1, here / "other")
        assert torch.equal(found.packs, kept.packs[:count])


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("ticks, size", [(1, 2), (3, 6), (8, 15)])
def test_kept_codes_are_as_they_were(bits, ticks, size):
    codes = torch.randint(0, 2**bits, (5, ticks, 1, 3, 5), dtype=torch.uint8)
    packs = clip_trunk.packed(codes, bits)
    assert packs.shape == (5, size * bits)
    assert torch.equal(clip_trunk.unpacked(packs, bits, codes.shape[1:]), codes)


def test_drawn_clips_are_new_each_step_and_get_difficult(monkeypatch):
    seen = []

    def clip(split, index, seed, difficulty):
        seen.append((split, index, seed, round(difficulty, 3)))
        return np.zeros((16, 3, 96, 128), np.uint8), index % 13

    monkeypatch.setattr(clip_train.gestures, "clip", clip)
    recipe = ClipsConfig(easy_steps=4, difficulty=0.8, seed=3)
    config = load_config(Path(__file__).parent.parent / "configs/billnet.toml")
    source = clip_train.Drawn(config.network, recipe, "train")
    clips, labels = source.batch(1, 2)
    assert (clips.shape, clips.dtype) == ((2, 16, 3, 96, 128), torch.uint8)
    assert labels.tolist() == [2, 3]
    source.batch(9, 1)
    assert seen == [("train", 2, 3, 0.2), ("train", 3, 3, 0.2), ("train", 9, 3, 0.8)]
    clip_train.Drawn(config.network, recipe, "train", 5).batch(9, 1)
    assert seen[-1][1] == 4


def test_a_clip_has_the_last_scores_of_a_cell_or_all(here):
    design = load_config("mine.toml").network
    scores = np.array([[[1, 5], [3, 2]], [[0, 1], [1, 9]]])
    assert clip_scores(design, scores).tolist() == [[3, 2], [1, 9]]
    layers = [each for each in design.operations if each.name not in ("x", "cell")]
    layers[-1] = layers[-1].model_copy(update={"inputs": ("b",)})
    alone = design.model_copy(update={"operations": tuple(layers)})
    assert clip_scores(alone, scores).tolist() == [[4, 7], [1, 10]]


@pytest.mark.parametrize("power, cell, shares", [
    (2, True, [1, 4, 9]), (6, True, [1, 64, 729]), (6, False, [1, 1, 1])])
def test_later_ticks_count_more_if_a_cell_remembers(here, power, cell, shares):
    config = codes_of_clips(cell)
    recipe = config.clips.model_copy(update={"tick_power": power, "label_smoothing": 0.0})
    run = clip_train.Run(config.model_copy(update={"clips": recipe}), here)
    logits = torch.tensor([[[2.0, 0], [1, 0], [0, 3]], [[0, 1.0], [4, 0], [0, 0]]])
    run.encoder = lambda clips, start: logits
    right = torch.stack([logits[0, :, 1], logits[1, :, 0]])
    each = (logits.logsumexp(2) - right).mean(0)
    wanted = sum(share * loss for share, loss in zip(shares, each, strict=True)) / sum(shares)
    found = run.loss(torch.zeros(2, 6, 3, 96, 128), torch.tensor([1, 0]))
    assert found.item() == pytest.approx(wanted.item(), rel=1e-4)


@pytest.mark.parametrize("old, new, said", [
    ("frames = 6", "frames = 0", "clips.frames: must be greater than or equal to 1, not 0"),
    ("steps = 60", "steps = 28", "clips: float_steps, code_steps and weight_steps must be fewer "
                                 "than the 28 steps together, not 28"),
    ("frames = 6", "frames = 1\nbatches = 3", "clips.batches: is not known"),
    ("fold = 2\n", "fold = 2\noperations = []\n", "layers is short for operations"),
    ("frames = 6", "difficulty = 1.5", "clips.difficulty: must be less than or equal to 1"),
    ('code_bits = 1},\n    {name = "b"', 'code_bits = 1, every = 2},\n    {name = "b"', None),
    ("frames = 6", "frames = 1", None),
    ("validate_every = 20\n", "validate_every = 20\n" + TRUNK, None),
    ("validate_every = 20\n", "validate_every = 20\n" + TRUNK.replace("20", "33"), "clips: "
     "trunk.steps must leave the 28 steps before all is rounded, of 60, not be 33"),
    ("validate_every = 20\n", "validate_every = 20\n" + TRUNK.replace('"b"', '"x"'),
     "clips.trunk.to: must be a convolution of the network, not 'x'"),
    ("validate_every = 20\n", "validate_every = 20\n" + TRUNK.replace('"b"', '"a"'), None)])
def test_recipes_that_do_not_fit_are_refused(here, old, new, said):
    assert DESIGN.count(old) == 1
    Path("mine.toml").write_text(DESIGN.replace(old, new))
    if said is None:
        load_config("mine.toml")
        return
    with pytest.raises(ConfigError) as caught:
        load_config("mine.toml")
    assert said in str(caught.value)


def test_what_is_behind_a_trunk_reads_its_last_codes_alone(here):
    text = DESIGN.replace("frames = 3, pool = true", 'frames = 3, skip = "a", gate = "or"') + TRUNK
    Path("mine.toml").write_text(text)
    load_config("mine.toml")
    more = '{name = "c", channels = 12, weight_bits = 2, code_bits = 1, skip = "a", gate = "or"},\n'
    Path("mine.toml").write_text(text.replace('    {name = "x"', f'    {more}    {{name = "x"'))
    with pytest.raises(ConfigError, match="must be what alone is read behind it, not b: "
                                          "c reads a"):
        load_config("mine.toml")


def test_a_clip_must_give_a_class(here):
    text = DESIGN.replace('frames = 3, pool', 'frames = 3, every = 2, pool')
    Path("mine.toml").write_text(text.replace("frames = 6", "frames = 1"))
    with pytest.raises(ConfigError, match="clips: frames must be at least 2, when the network "
                                          "gives its first class, not 1"):
        load_config("mine.toml")


def test_clips_that_do_not_fit_are_refused(here, capsys, monkeypatch):
    Path("set/labels.csv").write_text("left\nright\nneither\n")
    assert run("train", "mine.toml") == 2
    assert "must be read as 3 channels and 3 classes, not as 3 and 2" in capsys.readouterr().err
    monkeypatch.delenv("HEXLANE_CLIPS")
    assert run("train", "mine.toml") == 2
    said = capsys.readouterr().err
    assert "clips that are drawn must be read as 16x3x96x128 and 13 classes" in said
    Path("mine.toml").write_text(DESIGN[:DESIGN.index("[clips]")])
    assert run("train", "mine.toml") == 2
    assert "a network that reads clips needs a table [clips]" in capsys.readouterr().err
