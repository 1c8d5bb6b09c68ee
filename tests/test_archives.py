"""CIFAR-100 and STL-10 in their official formats: small archives of the same form, and damaged."""

import dataclasses
import hashlib
import io
import tarfile

import numpy as np
import pytest

from export.config import ConfigError, load_config
from model import archives, data
from model.archives import CIFAR10, CIFAR100, SETS, STL10

NETWORKS = {name: load_config(f"configs/{name}.toml").network
            for name in ("tiny", "cifar100", "stl10")}


def pixels(count, side, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def cifar100(images, fine, coarse=19) -> bytes:
    """`<coarse><fine><red, row by row><green><blue>`, an image at a time."""
    return b"".join(bytes([coarse, label]) + b"".join(
        image[:, :, channel].tobytes() for channel in range(3))
        for image, label in zip(images, fine, strict=True))


def stl10(images) -> bytes:
    """Red, column by column, then green and blue, an image at a time."""
    return b"".join(image[:, x, channel].tobytes() for image in images for channel in range(3)
                    for x in range(96))


def pack(folder, archive, files, monkeypatch):
    """Writes a small archive and lets its MD5 stand for the published one."""
    path = folder / archive.name
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{archive.folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    small = dataclasses.replace(
        archive, md5=hashlib.md5(path.read_bytes()).hexdigest(),
        unpacked={name: hashlib.md5(files[name]).hexdigest() for name in archive.unpacked
                  if name in files})
    monkeypatch.setattr(data, "SETS", {key: small if value is archive else value
                                       for key, value in SETS.items()})
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HEXLANE_DATA", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("downloads"))
    return tmp_path


def small_cifar100(folder, monkeypatch, **changed):
    files = {"train.bin": cifar100(pixels(20, 32), range(80, 100)),
             "test.bin": cifar100(pixels(3, 32, 2), [7, 99, 0])}
    return pack(folder, CIFAR100, files | changed, monkeypatch)


def small_stl10(folder, monkeypatch, **changed):
    files = {"train_X.bin": stl10(pixels(10, 96)), "train_y.bin": bytes(range(1, 11)),
             "test_X.bin": stl10(pixels(2, 96, 2)), "test_y.bin": bytes([10, 1])}
    return files | changed, pack(folder, STL10, files | changed, monkeypatch)


def test_cifar100(folder, monkeypatch):
    small_cifar100(folder, monkeypatch)
    images, labels = data.load_images(NETWORKS["cifar100"], "test")
    assert (images == pixels(3, 32, 2)).all() and images.dtype == np.uint8
    assert labels.tolist() == [7, 99, 0] and labels.dtype == np.int64
    images, labels = data.load_images(NETWORKS["cifar100"], "validation")
    assert (images == pixels(20, 32)[18:]).all() and labels.tolist() == [98, 99]
    names = data.class_names(NETWORKS["cifar100"])
    assert (names[0], names[51], names[99]) == ("apple", "mushroom", "worm")


@pytest.mark.parametrize("unpacked", [False, True])
def test_stl10(folder, monkeypatch, unpacked):
    files, path = small_stl10(folder, monkeypatch)
    if unpacked:
        path.unlink()
        (folder / STL10.folder).mkdir()
        for name, content in files.items():
            (folder / STL10.folder / name).write_bytes(content)
    images, labels = data.load_images(NETWORKS["stl10"], "test")
    assert (images == pixels(2, 96, 2)).all() and labels.tolist() == [9, 0]
    images, labels = data.load_images(NETWORKS["stl10"], "train")
    assert (images == pixels(10, 96)[:9]).all() and labels.tolist() == list(range(9))
    assert data.class_names(NETWORKS["stl10"])[7] == "monkey"


@pytest.mark.parametrize("files, message", [
    ({"train.bin": b""}, "train.bin: wanted records of 3074 bytes, got 0 bytes"),
    ({"train.bin": bytes(3073)}, "train.bin: wanted records of 3074 bytes, got 3073 bytes"),
    ({"train.bin": cifar100(pixels(2, 32), [1, 100])},
     r"train labels must be 2 integers below 100, not int64 \[2\] up to 100"),
])
def test_cifar100_that_does_not_fit(folder, monkeypatch, files, message):
    small_cifar100(folder, monkeypatch, **files)
    with pytest.raises(ConfigError, match=rf"{message}$"):
        data.load_images(NETWORKS["cifar100"], "train")


@pytest.mark.parametrize("files, message", [
    ({"test_X.bin": stl10(pixels(2, 96))[1:]},
     "test_X.bin: wanted records of 27648 bytes, got 55295 bytes"),
    ({"test_y.bin": bytes([0, 1])}, "test labels must be 2 integers below 10, .*"),
    ({"test_y.bin": bytes([1, 11])}, "test labels must be 2 integers below 10, .* up to 10"),
    ({"test_y.bin": bytes([1])}, r"test labels must be 2 integers below 10, not int64 \[1\].*"),
])
def test_stl10_that_does_not_fit(folder, monkeypatch, files, message):
    small_stl10(folder, monkeypatch, **files)
    with pytest.raises(ConfigError, match=rf"{message}$"):
        data.load_images(NETWORKS["stl10"], "test")


def test_a_damaged_archive(folder, monkeypatch):
    path = small_cifar100(folder, monkeypatch)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(ConfigError, match=r"md5 should be [0-9a-f]{32}, is .*; delete it and try"):
        data.load_images(NETWORKS["cifar100"], "test")


def test_an_archive_without_what_it_should_hold(folder, monkeypatch):
    pack(folder, CIFAR100, {"train.bin": cifar100(pixels(1, 32), [1])}, monkeypatch)
    with pytest.raises(ConfigError, match=r"binary\.tar\.gz: cannot be read: .*test\.bin"):
        data.load_images(NETWORKS["cifar100"], "test")


@pytest.mark.parametrize("damage, message", [
    (lambda path: path.write_bytes(bytes(27648)), "X.bin: md5 should be [0-9a-f]+, is .*"),
    (lambda path: path.unlink(), "X.bin: cannot be read: .*"),
])
def test_a_damaged_unpacked_file(folder, monkeypatch, damage, message):
    files, _ = small_stl10(folder, monkeypatch)
    (folder / STL10.folder).mkdir()
    for name, content in files.items():
        (folder / STL10.folder / name).write_bytes(content)
    damage(folder / STL10.folder / "train_X.bin")
    with pytest.raises(ConfigError, match=message):
        data.load_images(NETWORKS["stl10"], "train")
    assert len(data.load_images(NETWORKS["stl10"], "test")[0]) == 2


@pytest.mark.parametrize("name, archive", [("tiny", CIFAR10), ("cifar100", CIFAR100),
                                           ("stl10", STL10)])
def test_what_is_missing_is_named_or_downloaded(folder, monkeypatch, name, archive):
    with pytest.raises(ConfigError, match=rf"HEXLANE_DATA holds neither .* nor {archive.name}$"):
        data.load_images(NETWORKS[name], "train")
    monkeypatch.delenv("HEXLANE_DATA")
    monkeypatch.chdir(folder)
    asked = []
    monkeypatch.setattr("urllib.request.urlopen",
                        lambda url, **_: asked.append(url) or io.BytesIO(b"not this one"))
    with pytest.raises(ConfigError, match=rf"{archive.name}: md5 should be {archive.md5}, is "):
        data.load_images(NETWORKS[name], "train")
    assert asked == [archive.url] and archive.url.startswith("https://")
    assert [path.name for path in (folder / "build/data").iterdir()] == [archive.name]


def test_arrays_come_before_archives(folder, monkeypatch):
    small_cifar100(folder, monkeypatch)
    np.save(folder / "test_images.npy", np.zeros((1, 32, 32, 3), np.uint8))
    np.save(folder / "test_labels.npy", np.array([5]))
    assert data.load_images(NETWORKS["cifar100"], "test")[1].tolist() == [5]


def test_every_class_has_one_name():
    assert [len(set(archive.classes)) for archive in (CIFAR10, CIFAR100, STL10)] == [10, 100, 10]
    assert archives.CIFAR100.classes == tuple(sorted(CIFAR100.classes))
