"""Views of images, and the table of a teacher's logits for them."""

import numpy as np
import pytest

from export.config import ConfigError

torch = pytest.importorskip("torch")
views = pytest.importorskip("model.views")
COUNT = len(views.VIEWS)
SHIFTS = len(views.SHIFTS)


def images(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)


def test_views_move_and_mirror():
    x, zero = images(2), torch.zeros(2, dtype=torch.long)
    same = views.move(x, zero, zero, zero == 1)
    assert same.equal(x)
    moved = views.move(x, zero + 3, zero - 2, zero == 1)
    assert moved[:, :, :29, 2:].equal(x[:, :, 3:, :30])
    assert moved[:, :, 29:, 2:].equal(x[:, :, [30, 29, 28], :30])  # the border is a mirror
    assert views.move(x, zero, zero, zero == 0).equal(x.flip(3))


def test_each_image_is_shown_in_its_view():
    assert len(set(views.VIEWS)) == COUNT == 18
    x, order = images(COUNT), torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
    shown = views.show(x, order)
    for k in range(COUNT):
        flip, dy, dx = (torch.tensor([value]) for value in views.VIEWS[order[k]])
        assert shown[k].equal(views.move(x[k:k + 1], dy, dx, flip)[0])
    assert len({each.numpy().tobytes() for each in views.show(x[:1].repeat(COUNT, 1, 1, 1),
                                                              order)}) == COUNT


def test_the_second_half_of_the_views_mirrors_the_first():
    x, half = images(1).repeat(COUNT, 1, 1, 1), COUNT // 2
    shown = views.show(x, torch.arange(COUNT))
    assert shown[half:].equal(shown[:half].flip(3))


def table(labels):
    logits = np.random.default_rng(1).normal(0, 1, (SHIFTS, len(labels), 10)).astype(np.float32)
    logits[:, np.arange(len(labels)), labels] += 10
    logits[0, 0, 0] = 40
    return logits


def test_the_file_is_the_table(tmp_path):
    labels = torch.arange(30) % 10
    wanted = views.Table(table(labels), "a" * 64)
    views.save_table(wanted, tmp_path / "t.npz")
    found = views.load_table(tmp_path / "t.npz")
    np.testing.assert_allclose(found.logits, wanted.logits.clip(-31.75, 31.75), atol=0.125)
    assert np.abs(found.logits - wanted.logits).mean() > 0.04 and found.teacher == wanted.teacher
    views.save_table(found, tmp_path / "t.npz")
    assert np.array_equal(views.load_table(tmp_path / "t.npz").logits, found.logits)
    loaded = views.load_labels(tmp_path / "t.npz", labels, 10)
    assert loaded.dtype == torch.float16 and loaded.shape == (COUNT, 30, 10)
    for k in range(COUNT):  # of a view and its mirror image
        assert np.array_equal(loaded[k], found.logits[k % SHIFTS])


@pytest.mark.parametrize("change, said", [
    (lambda logits: logits[:8],
     "must have 9 shifts, not 8; hexlane train-teacher goes on with it"),
    (lambda logits: logits[:, :29],
     "must be of 30 images with 10 classes, not of 29 with 10; train.teacher = \"float\" needs no"),
    (lambda logits: logits[:, :, :9],
     "must be of 30 images with 10 classes, not of 30 with 9; train.teacher = \"float\" needs no"),
    (lambda logits: logits[:, ::-1], "is of other images: 0% of its classes are right, wanted at"),
    (lambda logits: logits[:, :, 0],
     "logits must be int8 [9, images, classes], not int8 [9, 30]"),
])
def test_a_wrong_table_is_refused(tmp_path, change, said):
    labels = torch.arange(30) % 10
    views.save_table(views.Table(change(table(labels)), ""), tmp_path / "t.npz")
    with pytest.raises(ConfigError) as refused:
        views.load_labels(tmp_path / "t.npz", labels, 10)
    assert str(refused.value).removeprefix(f"{tmp_path}/t.npz: ").startswith(said)


@pytest.mark.parametrize("wrong", [
    [[1, 0]] * SHIFTS, views.SHIFTS[::-1], [*views.SHIFTS, (4, 4)], [[0, 0, 0]] * SHIFTS])
def test_other_shifts_are_refused(tmp_path, wrong):
    np.savez(tmp_path / "t.npz", shifts=np.array(wrong, np.int8), teacher=np.array(""),
             logits=np.zeros((len(wrong), 30, 10), np.int8))
    with pytest.raises(ConfigError, match=r"t\.npz: is of other shifts than the 9 that are shown"):
        views.load_table(tmp_path / "t.npz")


def test_logits_of_another_type_are_refused(tmp_path):
    np.savez(tmp_path / "t.npz", shifts=np.array(views.SHIFTS, np.int8), teacher=np.array(""),
             logits=np.zeros((SHIFTS, 30, 10), np.float32))
    with pytest.raises(ConfigError, match=r"int8 \[9, images, classes\], not float32 \[9, 30, 10"):
        views.load_table(tmp_path / "t.npz")


@pytest.mark.parametrize("content", [
    b"", b"x", b"PK\x03\x04", {"shifts": 1}, {"shifts": 1, "logits": 1, "teacher": ""},
    {"shifts": np.array([None]), "logits": 1, "teacher": ""}])
def test_a_file_that_is_no_table(tmp_path, content):
    path = tmp_path / "t.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    with pytest.raises(ConfigError, match=r"t\.npz: .*(not a table of a teacher|must have)"):
        views.load_table(path)
    with pytest.raises(ConfigError, match=r"none\.npz: no such file; hexlane train-teacher wri"):
        views.load_table(tmp_path / "none.npz")
