"""An unfinished training that is kept in half of its bytes goes on as if never stopped."""

from pathlib import Path

import pytest

from export.checked import ConfigError
from tests.commands import run
from tests.test_train import design, images  # noqa: F401

torch = pytest.importorskip("torch")
keep = pytest.importorskip("model.keep")
train = pytest.importorskip("model.train")


def tensors(state, path=()):
    """All tensors of a state, by where they are."""
    if isinstance(state, torch.Tensor):
        return {path: state}
    pairs = enumerate(state) if isinstance(state, list | tuple) else (
        state.items() if isinstance(state, dict) else ())
    return {at: each for key, value in pairs for at, each in tensors(value, (*path, key)).items()}


@pytest.mark.slow
def test_a_kept_training_goes_on(images, tmp_path, monkeypatch):  # noqa: F811
    """With weights and optimizers within half of the last kept bit, all else exactly."""
    config, stopped, kept = design(epochs=4), tmp_path / "stopped", tmp_path / "kept.pt"
    one_epoch, left = train.Run.train_epoch, [2]

    def stops(of, *data):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return one_epoch(of, *data)

    monkeypatch.setattr(train.Run, "train_epoch", stops)
    with pytest.raises(KeyboardInterrupt):
        train.train(config, stopped, compiled=False)
    monkeypatch.setattr(train.Run, "train_epoch", one_epoch)
    keep.keep(stopped / "checkpoint.pt", kept)
    keep.begin(kept, tmp_path / "again")
    before, after = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
                     for name in ("stopped", "again"))
    assert after["epoch"] == 2 and after["curve"] == before["curve"]
    wanted, found = tensors(before), tensors(after)
    assert wanted.keys() == found.keys()
    rounded = 0
    for at, each in wanted.items():
        assert found[at].dtype == each.dtype
        assert torch.allclose(found[at], each, rtol=2**-8 if each.ndim > 1 else 0, atol=0)
        rounded += not torch.equal(found[at], each)
    assert rounded >= 4  # weights of two convolutions, their momentum
    resumed = train.train(config, tmp_path / "again", compiled=False)
    whole = train.train(config, stopped, compiled=False)
    assert len(resumed["curve"]) == 4
    assert resumed["curve"][-1][0] == pytest.approx(whole["curve"][-1][0], rel=0.1)
    with pytest.raises(ConfigError, match=r"checkpoint\.pt: is a training already; move it away"):
        keep.begin(kept, tmp_path / "again")


def test_half_of_the_bytes(tmp_path):
    torch.save({"encoder": {"weight": torch.rand(500, 500)}, "step": 3}, tmp_path / "a.pt")
    keep.keep(tmp_path / "a.pt", tmp_path / "b.pt")
    assert (tmp_path / "b.pt").stat().st_size < 0.51 * (tmp_path / "a.pt").stat().st_size


def test_the_commands(tmp_path, monkeypatch, capsys):
    config = Path("configs/tiny.toml").resolve()
    monkeypatch.chdir(tmp_path)
    assert run("keep", config) == 2
    assert capsys.readouterr().err == (
        "error: build/tiny/train/checkpoint.pt: no such file; train first\n")
    folder = Path("build/tiny/train")
    folder.mkdir(parents=True)
    torch.save({"step": 7, "encoder": {}}, folder / "checkpoint.pt")
    Path("weights").mkdir()
    assert run("keep", config) == 0
    assert capsys.readouterr().out.startswith("weights/tiny.resume.pt: ")
    assert run("train", config, "--resume", "weights/tiny.resume.pt") == 2
    assert "is a training already" in capsys.readouterr().err
    Path("damaged.pt").write_text("text")
    assert run("train", config, "-o", "new", "--resume", "damaged.pt") == 2
    assert capsys.readouterr().err == "error: damaged.pt: cannot be read as a checkpoint\n"
    for state in (torch.zeros(3), {"encoder": {}}, {"step": 7}):
        torch.save(state, "other.pt")
        assert run("train", config, "-o", "new", "--resume", "other.pt") == 2
        assert "other.pt: is no unfinished training" in capsys.readouterr().err
        assert run("keep", config, "-c", "other.pt") == 2
        assert "other.pt: is no unfinished training" in capsys.readouterr().err
    assert not Path("new").exists()
