"""Random crops, mirror images and holes."""

import pytest

torch = pytest.importorskip("torch")
augment = pytest.importorskip("model.augment").augment


def test_augmentation_moves_and_mirrors_whole_images():
    image = torch.arange(3 * 32 * 32, dtype=torch.int32).reshape(1, 3, 32, 32)
    several = augment(image.repeat(64, 1, 1, 1), torch.Generator().manual_seed(1), -1)
    centres = several[:, 0, 8:24, 8:24]
    steps = (centres[:, :, 1:] - centres[:, :, :-1]).flatten(1)
    assert ((steps == 1).all(1) | (steps == -1).all(1)).all()
    assert len(torch.unique(centres[:, 0, 0])) > 20
    assert (steps == -1).all(1).float().mean() == pytest.approx(0.5, abs=0.2)


def test_smaller_crops_stay_inside_and_move():
    image = torch.arange(32 * 32, dtype=torch.int32).reshape(1, 1, 32, 32).expand(200, 1, 32, 32)
    several = augment(image, torch.Generator().manual_seed(1), -1, crop=24)[:, 0]
    assert several.shape == (200, 24, 24) and several.min() >= 0
    assert (several.diff(dim=1) == 32).all() and (several.diff(dim=2).abs() == 1).all()
    corners = several.amin((1, 2))  # the smallest is the upper left one, mirrored or not
    assert set((corners // 32).tolist()) == set((corners % 32).tolist()) == set(range(9))


def test_cutout_puts_a_square_of_padding_into_each_image():
    image = torch.zeros(200, 2, 32, 32, dtype=torch.int32)
    holes = augment(image, torch.Generator().manual_seed(1), 7, crop=32, cutout=6) == 7
    assert holes[:, 0].equal(holes[:, 1])
    rows, cols = holes[:, 0].any(2).sum(1), holes[:, 0].any(1).sum(1)
    assert (holes[:, 0].sum((1, 2)) == rows * cols).all()  # a rectangle, cut off at the edges
    assert rows.min() == cols.min() == 3 and rows.max() == cols.max() == 6
    assert holes.any(0).all() and not holes.all(0).any()
    assert not (augment(image, torch.Generator().manual_seed(1), 7, crop=32) == 7).any()
