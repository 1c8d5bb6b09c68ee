"""The float network that labels images: resuming, its file, its table."""

import hashlib

import numpy as np
import pytest

from export.config import ConfigError

torch = pytest.importorskip("torch")
teacher = pytest.importorskip("model.teacher")
views = pytest.importorskip("model.views")


def images(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(teacher, "WIDTHS", (8, 8, 8))
    monkeypatch.setattr(teacher, "BATCH", 20)
    monkeypatch.setattr(teacher.Teacher.__init__, "__defaults__", (10, (8, 8, 8)))
    x, y = images(60), torch.arange(60) % 10
    x[:, :, :16] = (25 * y)[:, None, None, None].to(torch.uint8)
    return x, y, x[:20], y[:20]


@pytest.mark.slow
def test_a_killed_run_resumes_and_the_file_is_the_network(small, tmp_path, monkeypatch):
    whole = teacher.train_teacher(tmp_path / "whole", *small, epochs=4)
    assert whole["curve"][-1][0] < whole["curve"][0][0]
    epoch, stop = teacher.Run.train_epoch, RuntimeError("killed")

    def until_two(run, *data):
        if run.epoch == 2:
            raise stop
        return epoch(run, *data)

    monkeypatch.setattr(teacher.Run, "train_epoch", until_two)
    with pytest.raises(RuntimeError, match="killed"):
        teacher.train_teacher(tmp_path / "killed", *small, epochs=4)
    monkeypatch.setattr(teacher.Run, "train_epoch", epoch)
    again = teacher.train_teacher(tmp_path / "killed", *small, epochs=4)
    np.testing.assert_allclose(again["curve"], whole["curve"], rtol=0.02)
    loaded, record = teacher.load_teacher(tmp_path / "whole" / "teacher.npz")
    assert record == whole | {"widths": [8, 8, 8]}
    state = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)["teacher"]
    original = teacher.Teacher()
    original.load_state_dict(state)
    a, b = (teacher.logits(each.eval(), small[0]) for each in (original, loaded))
    assert (a - b).abs().max() < 0.1 * a.std() + 0.05
    path, file = tmp_path / "views.npz", tmp_path / "whole" / "teacher.npz"
    teacher.label_views(file, small[0], path)
    said = views.load_table(path).logits
    both = (b + teacher.logits(loaded, small[0].flip(3))) / 2
    np.testing.assert_allclose(said[views.SHIFTS.index((0, 0))], both, atol=0.15)


@pytest.fixture
def file(small, tmp_path):
    """The file of a teacher that has learnt nothing."""
    torch.manual_seed(5)
    network = teacher.Teacher()
    network.set_whitening(small[0])
    with torch.no_grad():
        network.head.mul_(100)  # as sure as one that has
    teacher.save_teacher(network, tmp_path / "teacher.npz", {"widths": (8, 8, 8)})
    return tmp_path / "teacher.npz"


def test_a_stopped_table_goes_on(small, file, tmp_path, monkeypatch):
    teacher.label_views(file, small[0], tmp_path / "whole.npz")
    whole = views.load_table(tmp_path / "whole.npz")
    assert whole.logits.shape == (9, 60, 10) and whole.logits.std() > 0.01
    views.save_table(whole._replace(logits=whole.logits[:8]), tmp_path / "part.npz")
    computed = []
    monkeypatch.setattr(teacher, "show", lambda x, view: computed.append(view) or views.show(
        x, view * 0 + views.VIEWS.index((bool(view[0] // 9), 0, 0))))
    teacher.label_views(file, small[0], tmp_path / "part.npz")
    assert [view.unique().tolist() for view in computed] == [[8], [17]]  # and its mirror image
    again = views.load_table(tmp_path / "part.npz")
    assert np.array_equal(again.logits[:8], whole.logits[:8])
    assert np.array_equal(again.logits[8], whole.logits[views.SHIFTS.index((0, 0))])


@pytest.mark.slow
def test_a_table_of_another_teacher_or_other_images_begins_anew(small, file, tmp_path):
    other = views.Table(np.full((9, 60, 10), 7, np.float32), "0" * 64)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    for table in (other, views.Table(other.logits[:, :59], digest)):
        views.save_table(table, tmp_path / "views.npz")
        teacher.label_views(file, small[0], tmp_path / "views.npz")
        found = views.load_table(tmp_path / "views.npz")
        assert found.teacher == digest
        assert found.logits.shape == (9, 60, 10) and not (found.logits == 7).any()


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04"])
def test_a_file_that_is_no_teacher(tmp_path, content):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.npz: not a teacher, or a damaged one: "):
        teacher.load_teacher(path)


def test_filters_whiten(small):
    network = teacher.Teacher()
    network.set_whitening(small[0])
    found = torch.nn.functional.conv2d(small[0] / 255 - 0.5, network.whiten)[:, :12]
    found = found.transpose(0, 1).flatten(1)
    second = found @ found.T / found.shape[1]
    assert (second - torch.diag(second.diag())).abs().max() < 1e-3
    assert 0.9 < second.diag().min() <= second.diag().max() < 1.001
    assert network.whiten[12:].equal(-network.whiten[:12])


@pytest.mark.slow
def test_data_and_checkpoints_that_cannot_be_used(small, tmp_path):
    with pytest.raises(ConfigError, match="wanted at least 20 training images, got 19"):
        teacher.train_teacher(tmp_path / "few", small[0][:19], small[1][:19], *small[2:])
    assert not (tmp_path / "few").exists()
    for state in ({}, [], {"teacher": 3}, {"teacher": teacher.Teacher(classes=3).state_dict()},
                  {"teacher": teacher.Teacher().state_dict(), "optimizers": [None, None]}):
        torch.save(state, tmp_path / "checkpoint.pt")
        with pytest.raises(ConfigError, match=r"checkpoint\.pt: cannot be resumed"):
            teacher.train_teacher(tmp_path, *small, epochs=1)
