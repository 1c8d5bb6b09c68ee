"""Images and labels from folders and arrays, and the one line that each mistake gets."""

import hashlib
import io
import os
import shutil
import struct
import zlib
from http.client import IncompleteRead

import numpy as np
import pytest
from PIL import Image

from export.config import ConfigError, load_config
from model.data import class_names, load_images, read_image
from tests.designs import conv
from tests.designs import network as network_of

NETWORK = network_of([conv("a", 4, 3, 1)], height=12, width=10, channels=1, classes=3)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HEXLANE_DATA", str(tmp_path))
    return tmp_path


def draw(path, value, size=(10, 12), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def classes(folder):
    for split, count in (("train", 20), ("test", 2)):
        for number, name in enumerate(("ant", "bee", "cow")):
            for k in range(count):
                draw(folder / split / name / f"{k:02}.png", 60 * number + k)


def test_folders_of_images(folder):
    classes(folder)
    images, labels = load_images(NETWORK, "test")
    assert (images.shape, images.dtype) == ((6, 12, 10, 1), np.uint8)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert images[:, 0, 0, 0].tolist() == [0, 60, 120, 1, 61, 121]
    (train, _), (held, kinds) = (load_images(NETWORK, split) for split in ("train", "validation"))
    assert (len(train), len(held)) == (54, 6)  # the last tenth, of every class
    assert held[:, 0, 0, 0].tolist() == [18, 78, 138, 19, 79, 139]
    assert kinds.tolist() == [0, 1, 2, 0, 1, 2]
    assert class_names(NETWORK) == ["ant", "bee", "cow"]


def arrays(folder, count=30, shape=(12, 10, 1), labels=None, dtype=np.uint8):
    for split in ("train", "test"):
        np.save(folder / f"{split}_images.npy", np.zeros((count, *shape), dtype))
        np.save(folder / f"{split}_labels.npy",
                np.arange(count) % 3 if labels is None else labels)


def test_arrays(folder):
    arrays(folder)
    images, labels = load_images(NETWORK, "validation")
    assert images.shape == (3, 12, 10, 1) and labels.tolist() == [0, 1, 2]
    assert class_names(NETWORK) == ["0", "1", "2"]
    (folder / "classes.txt").write_text("ant\nbee\ncow\n")
    assert class_names(NETWORK) == ["ant", "bee", "cow"]


@pytest.mark.parametrize("how, message", [
    ({"shape": (28, 28, 1)}, r"images must be uint8 \[N, 12, 10, 1\], not uint8 \[30, 28, 28, 1\]"),
    ({"dtype": float}, r"images must be uint8 \[N, 12, 10, 1\], not float64 .*"),
    ({"count": 0}, r"images must be uint8 .*, not uint8 \[0, 12, 10, 1\]"),
    ({"labels": np.zeros(29, int)},
     r"labels must be 30 integers below 3, not int64 \[29\] up to 0"),
    ({"labels": np.full(30, 3)}, r"labels must be 30 integers below 3, not int64 \[30\] up to 3"),
    ({"labels": np.full(30, -1)}, r"labels must be 30 integers below 3, .*"),
    ({"labels": np.zeros(30)}, r"labels must be 30 integers below 3, not float64 .*"),
])
def test_arrays_that_do_not_fit(folder, how, message):
    arrays(folder, **how)
    with pytest.raises(ConfigError, match=rf"train {message}$"):
        load_images(NETWORK, "train")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((",
                                     b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535])
def test_damaged_array(folder, content):
    arrays(folder)
    (folder / "train_images.npy").write_bytes(content)
    with pytest.raises(ConfigError, match=r"train_images\.npy: cannot be read as an array: "):
        load_images(NETWORK, "train")


def test_nothing_is_downloaded_for_other_images(folder, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("downloads"))
    with pytest.raises(ConfigError, match=r"holds neither train_images\.npy nor train/CLASS/ with "
                                          r"images of 12x10x1"):
        load_images(NETWORK, "train")
    monkeypatch.delenv("HEXLANE_DATA")
    with pytest.raises(ConfigError, match="holds neither"):
        load_images(NETWORK, "train")
    monkeypatch.setenv("HEXLANE_DATA", str(folder))
    cifar = load_config("configs/tiny.toml").network
    with pytest.raises(ConfigError, match=r"HEXLANE_DATA holds neither train_images\.npy nor"):
        load_images(cifar, "train")


def test_a_failing_download_leaves_nothing(tmp_path, monkeypatch):
    class Source(io.BytesIO):
        def read(self, *_):
            raise IncompleteRead(b"")

    monkeypatch.delenv("HEXLANE_DATA", raising=False)
    cifar = load_config("configs/tiny.toml").network
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Source())
    with pytest.raises(ConfigError, match=r"download failed: IncompleteRead.*; set HEXLANE_DATA"):
        load_images(cifar, "test")
    assert not any((tmp_path / "build/data").iterdir())


def test_classes_are_those_of_the_training_images(folder):
    """A class without test images moves no label; files and hidden folders are no classes."""
    classes(folder)
    shutil.rmtree(folder / "test/ant")
    (folder / "train/.hidden").mkdir()
    (folder / "test/notes.txt").write_text("")
    images, labels = load_images(NETWORK, "test")
    assert labels.tolist() == [1, 2, 1, 2] and images[0, 0, 0, 0] == 60
    draw(folder / "test/dog/0.png", 0)
    with pytest.raises(ConfigError, match=r"test/dog: is none of the classes in train$"):
        load_images(NETWORK, "test")
    more = network_of([conv("a", 4, 3, 1)], height=12, width=10, channels=1, classes=4)
    with pytest.raises(ConfigError, match=r"wanted a folder for each of 4 classes, got 3$"):
        load_images(more, "train")
    assert class_names(more) == ["0", "1", "2", "3"]


def test_only_cifar10_has_its_names(folder, monkeypatch):
    cifar = load_config("configs/tiny.toml").network
    assert class_names(cifar)[0] == "airplane"
    labels = np.arange(10000) % 10
    np.save(folder / "test_labels.npy", labels)
    assert class_names(cifar) == list("0123456789")
    monkeypatch.setattr("model.data.TEST_LABELS",
                        hashlib.sha256(labels.astype(np.uint8).tobytes()).hexdigest())
    assert class_names(cifar)[9] == "truck"
    (folder / "classes.txt").write_text("".join(f"kind {k} \r\n" for k in range(10)))
    assert class_names(cifar)[9] == "kind 9"


def test_archive_of_arrays(folder):
    arrays(folder)
    np.savez(folder / "x.npz", np.zeros(3))
    (folder / "x.npz").rename(folder / "train_images.npy")
    with pytest.raises(ConfigError, match=r"train_images\.npy: wanted one array, got an archive"):
        load_images(NETWORK, "train")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(
        ">I", zlib.crc32(kind + data))


def png(width, height, depth=8, colour=0, body=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body)
            + chunk(b"IEND", b""))


def other(kind):
    file = io.BytesIO()
    Image.new("L", (10, 12)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("content, message", [
    (other("EPS"), "cannot be read as an image: cannot identify"),  # never for Ghostscript
    (other("BMP"), "cannot be read as an image: cannot identify"),
    (other("JPEG"), "cannot be read as an image: cannot identify"),
    (b"", "cannot be read as an image: "),
    (png(10, 12)[:60], "cannot be read as an image: "),
    (png(10, 12, body=b"not deflated"), "cannot be read as an image: "),
    (png(60000, 60000), "wanted 10x12 pixels, got 60000x60000|cannot be read as an image"),
    (png(10000, 10000), "wanted 10x12 pixels, got 10000x10000"),
    (bytes(2**26 + 1), "wanted an image file of at most 67108864 bytes"),
    (png(12, 10), "wanted 10x12 pixels, got 12x10"),
    (png(10, 12, 16, 0, zlib.compress(b"\0" * 252)), "wanted 8 bits a channel, got I;16"),
    *((png(10, 12, 16, colour, zlib.compress(bytes(12 * (1 + 20 * channels)))),
       "wanted 8 bits a channel, got 16") for colour, channels in ((2, 3), (4, 2), (6, 4))),
])
def test_image_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        read_image(path, (12, 10, 1))
    assert len(str(error.value)) <= 300 and str(error.value).startswith(str(path))


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_image_that_is_no_file(tmp_path, make):
    make(tmp_path / "x.png")
    with pytest.raises(ConfigError, match="wanted an image file"):
        read_image(tmp_path / "x.png", (12, 10, 1))


def test_damage_anywhere(tmp_path):
    """Bytes changed anywhere, with checksums that are right: pixels or a refusal."""
    rng, refused = np.random.default_rng(1), 0
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (12, 10), np.uint8)).convert("P").save(
        file, "PNG", transparency=b"\0\1\2", icc_profile=b"x" * 50, dpi=(72, 72))
    whole = np.frombuffer(file.getvalue(), np.uint8)
    for _ in range(300):
        data = whole.copy()
        data[rng.integers(8, len(data), 2)] = rng.integers(0, 256, 2)
        text, at = data[:8].tobytes(), 8
        while at + 12 <= len(data):
            size = int.from_bytes(data[at:at + 4].tobytes())
            text += chunk(data[at + 4:at + 8].tobytes(), data[at + 8:at + 8 + size].tobytes())
            at += 12 + size
        (tmp_path / "x.png").write_bytes(text)
        try:
            assert read_image(tmp_path / "x.png", (12, 10, 1)).shape == (12, 10, 1)
        except ConfigError:
            refused += 1
    assert 50 < refused < 300


def test_alpha_does_not_count(tmp_path):
    draw(tmp_path / "x.png", (10, 20, 30, 0), mode="RGBA")
    assert read_image(tmp_path / "x.png", (12, 10, 3))[0, 0].tolist() == [10, 20, 30]


def test_colour_or_gray_as_the_network_wants(tmp_path):
    draw(tmp_path / "x.png", (10, 20, 30), mode="RGB")
    assert read_image(tmp_path / "x.png", (12, 10, 3))[0, 0].tolist() == [10, 20, 30]
    assert read_image(tmp_path / "x.png", (12, 10, 1)).shape == (12, 10, 1)
    with pytest.raises(ConfigError, match="images have 1 or 3 channels, wanted 2"):
        read_image(tmp_path / "x.png", (12, 10, 2))
