"""What compression is compared with: budgets that hold, levels and vectors that are the best."""

from statistics import NormalDist

import numpy as np
import pytest

from model import baselines


def waves(height: int = 64, width: int = 96, seed: int = 1) -> np.ndarray:
    rng, at = np.random.default_rng(seed), np.mgrid[:height, :width]
    parts = [np.sin((a * at[0] + b * at[1]) / 9 + c) for a, b, c in rng.uniform(-3, 3, (3, 3))]
    noise = rng.normal(0, 12, (height, width, 3))
    return (128 + 90 * np.stack(parts, 2) + noise).clip(0, 255).astype(np.uint8)


def error(a: np.ndarray, b: np.ndarray) -> float:
    return np.square(a.astype(float) - b).mean()


def test_the_best_jpeg_is_the_largest_that_fits():
    picture, limit = waves(), 2000
    sizes = [len(baselines.jpeg(picture, quality)) for quality in range(1, 96)]
    found = sizes[baselines.best_quality(picture, limit) - 1]
    assert found == max(size for size in sizes if size <= limit)
    assert baselines.best_quality(picture, 10) == 0
    assert baselines.best_quality(picture, 10**6) == 95


@pytest.mark.parametrize("rate, wanted", [(0.2, (0.2, 20.0)), (0.4, (0.4, 25.0)),
                                          (0.1, (0.2, 20.0)), (2.0, (0.8, 30.0))])
def test_between_two_files(rate, wanted):
    from sim.codec_bench import between
    assert between((0.2, 20.0), (0.8, 30.0), rate) == pytest.approx(wanted)
    assert between((0.2, 20.0), (0.2, 30.0), rate) == (0.2, 20.0)


def test_entropy_coded_bytes_of_a_jpeg_file():
    file = baselines.jpeg(waves(), 50)
    size = baselines.scan_bytes(file)
    assert file[-2:] == b"\xff\xd9"  # the end
    head = file[:len(file) - size - 2]
    assert head[-3:] == bytes([0, 63, 0])  # the last of a scan's head: all coefficients
    assert size > 1000


def test_each_patch_keeps_its_budget(monkeypatch):
    picture, files = waves(), []
    decoded = baselines.decoded
    monkeypatch.setattr(baselines, "decoded", lambda file: files.append(file) or decoded(file))
    found = baselines.jpeg_of_patches(picture, 32, 256)
    assert len(files) == 6 and all(16 < baselines.scan_bytes(each) <= 32 for each in files)
    np.testing.assert_array_equal(found[32:, 64:], decoded(files[5]))
    assert error(found, picture) < error(picture.mean((0, 1)), picture)
    flat = baselines.jpeg_of_patches(picture, 32, 8)  # for which there is none
    np.testing.assert_array_equal(flat[:32, 32:64],
                                  np.broadcast_to(picture[:32, 32:64].mean((0, 1)).round(),
                                                  (32, 32, 3)))


def test_squares_are_cut_and_joined():
    picture = waves()
    cut = baselines.blocks(picture, 16)
    np.testing.assert_array_equal(cut[7], picture[16:32, 16:32])
    np.testing.assert_array_equal(baselines.joined(cut.astype(float), 64, 96), picture)


def test_lloyd_s_levels():
    values = np.random.default_rng(1).uniform(0, 1, 20000)
    np.testing.assert_allclose(baselines.lloyd(values, 2), [0.25, 0.75], atol=0.01)
    values = np.array([NormalDist().inv_cdf((k + 0.5) / 4000) for k in range(4000)])
    np.testing.assert_allclose(baselines.lloyd(values, 2), [-0.798, 0.798], atol=0.01)
    four = baselines.lloyd(values, 4)  # Max 1960: 0.4528, 1.510
    np.testing.assert_allclose(four, [-1.51, -0.453, 0.453, 1.51], atol=0.05)


def test_the_transform_s_units_are_those_of_errors_in_rgb():
    klt = baselines.Klt(8, 16, np.zeros((1, 8, 8, 3), np.uint8))
    color = np.random.default_rng(1).uniform(0, 255, (5, 4, 1, 4, 1, 3))
    smooth = np.broadcast_to(color, (5, 4, 2, 4, 2, 3)).reshape(5, 8, 8, 3)
    vectors = klt._vectors(smooth)
    np.testing.assert_allclose(klt._patches(vectors), smooth, atol=0.01)
    for part, unit in ((0, 0), (64, 1), (65, 2)):  # of luminance and of both chrominances
        moved = vectors.copy()
        moved[:, part] += 7
        change = np.square(klt._patches(moved) - klt._patches(vectors)).sum((1, 2, 3))
        np.testing.assert_allclose(change, 49, rtol=0.01, err_msg=str(unit))


def test_the_transform_spends_its_bits():
    training = baselines.blocks(waves(800, 800, 2), 8)
    found = []
    for bits in (8, 32):
        klt = baselines.Klt(8, bits, training)
        levels = klt._learned[2]
        assert sum(len(each).bit_length() - 1 for each in levels) == bits
        assert len(levels) == len(klt._learned[1])
        found.append(error(klt(waves()), waves()))
    assert found[1] < 0.7 * found[0] < 0.7 * error(waves().mean((0, 1)), waves())


def test_vectors_that_are_all_known_come_back():
    """Each is one of sixteen coarse ones and one of sixteen fine ones."""
    rng = np.random.default_rng(1)
    coarse, fine = (rng.integers(low, high, (16, 1, 8, 8, 3)) for low, high in ((20, 230), (-9, 9)))
    few = (coarse + fine.swapaxes(0, 1)).reshape(-1, 8, 8, 3)
    noise = rng.integers(-2, 3, (16, *few.shape))
    training = (few + noise).reshape(-1, 8, 8, 3).astype(np.uint8)
    quantizer = baselines.VectorQuantizer(training)
    picture = baselines.joined(few.astype(float), 128, 128)
    assert error(quantizer(picture), picture) < 1  # the noise has 2
    assert [len(book) for book in quantizer._books] == [256, 256]


@pytest.mark.parametrize("size", [(64, 96), (70, 90)])
def test_blockiness(size):
    from sim.codec_bench import blockiness
    wanted = np.full((*size, 3), 100, np.uint8)
    found = wanted + 1
    assert blockiness(found, wanted, 32) == 0
    found[30:34] = 110
    found[:, 30:34] = found[:, 62:66] = 110
    if size[0] == 70:
        found[62:66] = 110
    assert blockiness(found, wanted, 32) == pytest.approx(-20)
    found = wanted + 1
    found[:2], found[:, -2:] = 110, 110  # an edge of the picture is no border
    assert blockiness(found, wanted, 32) > 0
