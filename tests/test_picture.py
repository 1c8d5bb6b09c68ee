"""Compressed pictures: patches cut and joined, the file, whatever is wrong with it, the command."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.checked import ConfigError
from export.codec import Patches, patches_of
from export.config import parse_config
from export.file import save_network
from export.network import NetworkConfig
from export.picture import HEAD, Picture
from sim import golden
from sim.codec import compress
from sim.samples import random_network
from tests.commands import run

NETWORK = {"height": 16, "width": 16, "channels": 3, "pad": 128, "fold": 4, "operations": [
    {"name": "first", "channels": 8, "weight_bits": 3, "code_bits": 3},
    {"name": "codes", "channels": 6, "weight_bits": 2, "code_bits": 1, "pool": True}]}


def pixels(height: int, width: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def network():
    return random_network(parse_config(NETWORK, kind=NetworkConfig), 1)


def picture(height: int = 30, width: int = 50, channels: int = 6, seed: int = 1) -> Picture:
    patches = Patches(16, channels)
    rows, columns = patches.count(height, width)
    codes = np.random.default_rng(seed).integers(0, 2, (rows * columns, channels, 2, 2))
    return Picture(height, width, patches, "0123456789abcdef" * 4, codes.astype(np.uint8))


def test_patches_cover_a_picture_in_raster_order_and_repeat_its_edges():
    image = pixels(20, 40)
    found = Patches(16, 6).cut(image)
    assert found.shape == (6, 16, 16, 3)
    np.testing.assert_array_equal(found[1], image[:16, 16:32])
    np.testing.assert_array_equal(found[3, :4], image[16:, :16])
    np.testing.assert_array_equal(found[3, 4:], np.broadcast_to(image[19, :16], (12, 16, 3)))
    np.testing.assert_array_equal(found[5, 7, 8:], np.broadcast_to(image[19, 39], (8, 3)))


def test_codes_of_patches_are_joined_where_the_patches_are():
    patches = Patches(16, 3)
    codes = np.arange(6 * 3 * 4).reshape(6, 3, 2, 2)
    found = patches.join(codes, 20, 40)
    assert found.shape == (3, 4, 6)
    for patch in range(6):
        row, column = divmod(patch, 3)
        np.testing.assert_array_equal(found[:, 2 * row:2 * row + 2, 2 * column:2 * column + 2],
                                      codes[patch])


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (33, 16), (70, 90), (16, 4800)])
def test_every_patch_has_the_codes_of_the_golden_model(network, size):
    image = pixels(*size)
    found = compress(network, image)
    for patch, codes in zip(found.patches.cut(image), found.codes, strict=True):
        np.testing.assert_array_equal(codes, golden.run(network, patch[None]).codes["codes"][0])
    assert found.encoder == network.digest and 0.05 < found.codes.mean() < 0.95


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_a_file_comes_back_and_has_the_bytes_of_the_table(channels, tmp_path):
    made = picture(channels=channels)
    made.save(tmp_path / "a.hxl")
    content = (tmp_path / "a.hxl").read_bytes()
    found = Picture.load(tmp_path / "a.hxl")
    assert (found.height, found.width, found.patches) == (30, 50, Patches(16, channels))
    assert found.encoder == "0123456789abcdef"
    np.testing.assert_array_equal(found.codes, made.codes)
    head = struct.pack("<4sHHHHH", b"HXLP", 1, 16, channels, 30, 50)
    assert content[:22] == head + bytes.fromhex("0123456789abcdef")
    bits = made.codes.reshape(-1)
    assert [content[22 + k // 8] >> 7 - k % 8 & 1 for k in range(len(bits))] == bits.tolist()
    assert content[-4:] == struct.pack("<I", zlib.crc32(content[:-4]))
    assert len(content) == 26 + -(-len(bits) // 8)


def test_the_first_channels_alone():
    made = picture()
    half = made.kept(3)
    np.testing.assert_array_equal(half.codes, made.codes[:, :3])
    np.testing.assert_array_equal(half.map, made.map[:3])
    assert Picture.from_bytes(half.to_bytes()).patches.channels == 3
    for channels in (0, 7, -1):
        with pytest.raises(ConfigError, match=rf"channels must be 1 to 6, not {channels}$"):
            made.kept(channels)


@pytest.mark.parametrize("at, form, value, said", [
    (4, "<H", 2, "version must be 1, not 2"),
    (6, "<H", 0, "patches must have a side that is a multiple of 8"),
    (6, "<H", 12, "patches must have a side that is a multiple of 8"),
    (6, "<H", 8192, "patches must have a side that is a multiple of 8"),
    (8, "<H", 0, "patches must have a side that is a multiple of 8"),
    (8, "<H", 65535, "patches must have a side that is a multiple of 8"),
    (8, "<H", 5, r"must have \d+ bytes, not"),
    (10, "<H", 0, "pictures must have sides of 1 to 32768 pixels"),
    (10, "<H", 32769, "pictures must have sides of 1 to 32768 pixels"),
    (10, "<HH", 32768, "at most 33554432 of them, not 32768x32768"),
    (10, "<HH", 4096, r"must have \d+ bytes, not"),
    (22, "<B", 0, "is damaged: its CRC does not fit")])
def test_a_head_that_cannot_be(at, form, value, said):
    content = bytearray(picture().to_bytes())
    struct.pack_into(form, content, at, *[value] * (len(form) - 1))
    if not said.endswith("fit"):
        content[-4:] = struct.pack("<I", zlib.crc32(content[:-4]))
    else:
        content[22] ^= 1
    with pytest.raises(ConfigError, match=said):
        Picture.from_bytes(bytes(content))


def test_the_last_byte_is_filled_with_zeros():
    content = bytearray(picture(16, 16, channels=1).to_bytes())  # four bits
    content[22] |= 1
    content[-4:] = struct.pack("<I", zlib.crc32(content[:-4]))
    with pytest.raises(ConfigError, match="the bits that fill its last byte must be 0"):
        Picture.from_bytes(bytes(content))


def test_codes_that_do_not_fit_are_refused():
    made = picture()
    for codes in (made.codes[1:], made.codes + 2, made.codes.astype(int)):
        with pytest.raises(ConfigError, match=r"codes must be uint8 \[8, 6, 2, 2\] of 0 and 1"):
            Picture(30, 50, made.patches, made.encoder, codes)


@pytest.mark.parametrize("change, said", [
    ({"channels": 1}, "codes of 1 bit from 3 channels, not of 1 from 1"),
    ({"width": 32}, r"square patches.* not 16x32 pixels and 2x4 codes"),
    ({"fold": 2}, r"an eighth as high and wide, not 16x16 pixels and 4x4 codes"),
    ({"operations": [{"name": "codes", "channels": 6, "weight_bits": 2, "code_bits": 2,
                      "pool": True}]}, "codes of 1 bit from 3 channels, not of 2 from 3"),
    ({"operations": [{"name": "a", "channels": 6, "weight_bits": 2, "code_bits": 2},
                     {"name": "b", "kind": "map", "channels": 2, "weight_bits": 2}]},
     "give codes, not map")])
def test_networks_that_do_not_compress_are_refused(change, said):
    with pytest.raises(ConfigError, match=rf"^here: a network that compresses must .*{said}$"):
        patches_of(parse_config({**NETWORK, **change}, kind=NetworkConfig), "here")


@pytest.fixture
def here(tmp_path, monkeypatch, network):
    """A folder with a design, its weights and a picture."""
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("""
[network]
height = 16
width = 16
channels = 3
pad = 128
fold = 4
operations = [
    {name = "first", channels = 8, weight_bits = 3, code_bits = 3},
    {name = "codes", channels = 6, weight_bits = 2, code_bits = 1, pool = true},
]
[array]
rows = 4
columns = 4
words = 2
""")
    save_network(network, "mine.npz")
    Image.fromarray(pixels(30, 50)).save("picture.png")
    return tmp_path


def line(capsys) -> str:
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and len(err) <= 310, err
    return err


def test_compress(here, network, capsys):
    assert run("compress", "picture.png", "-o", "a.hxl", "-c", "mine.toml") == 0
    size = Path("a.hxl").stat().st_size
    assert capsys.readouterr().out == (f"a.hxl: 50x30 pixels, {size} bytes, "
                                       f"{8 * size / 1500:.4f} bits per pixel\n")
    np.testing.assert_array_equal(Picture.load(Path("a.hxl")).codes,
                                  compress(network, pixels(30, 50)).codes)
    assert run("compress", "picture.png", "-o", "b.hxl", "-c", "mine.toml", "--channels", 3) == 0
    np.testing.assert_array_equal(Picture.load(Path("b.hxl")).codes,
                                  compress(network, pixels(30, 50)).codes[:, :3])


def test_compress_refuses(here, capsys):
    assert run("compress", "none.png", "-o", "a.hxl", "-c", "mine.toml") == 2
    assert "none.png: wanted an image file" in line(capsys)
    Path("text.png").write_text("no picture")
    assert run("compress", "text.png", "-o", "a.hxl", "-c", "mine.toml") == 2
    assert "text.png: cannot be read as an image" in line(capsys)
    assert run("compress", "picture.png", "-o", "a.hxl", "-c", "mine.toml", "--channels", 7) == 2
    assert "channels must be 1 to 6, not 7" in line(capsys)
    assert not Path("a.hxl").exists()


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Bits turned, parts left out, put in or exchanged; half of the time with a CRC that fits."""
    made = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, HEAD.size if rng.random() < 0.5 else len(made)))
        kind = rng.integers(0, 4)
        if kind == 0:
            made[min(at, len(made) - 1)] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del made[at:at + int(rng.integers(1, 30))]
        elif kind == 2:
            made[at:at] = rng.bytes(int(rng.integers(1, 30)))
        else:
            made[at:at + 2] = rng.bytes(2)
        if not made:
            return b""
    if rng.random() < 0.5 and len(made) > 4:
        made[-4:] = struct.pack("<I", zlib.crc32(made[:-4]))
    return bytes(made)


@pytest.mark.slow
def test_a_thousand_damaged_files(tmp_path):
    content, rng, refused = picture().to_bytes(), np.random.default_rng(1), 0
    for _ in range(1000):
        made = damaged(content, rng)
        (tmp_path / "a.hxl").write_bytes(made)
        try:
            found = Picture.load(tmp_path / "a.hxl")
        except ConfigError as error:
            refused += 1
            assert len(str(error)) <= 300 and str(error).startswith(f"{tmp_path}/a.hxl: ")
        else:  # a damage that is another picture, of the same length and with its CRC
            assert found.to_bytes() == made
    assert 700 < refused < 1000


@pytest.mark.slow
def test_verilog_compresses_to_the_same_bytes(here):
    assert run("compress", "picture.png", "-o", "a.hxl", "-c", "mine.toml") == 0
    assert run("compress", "picture.png", "-o", "b.hxl", "-c", "mine.toml", "--verilog") == 0
    assert Path("a.hxl").read_bytes() == Path("b.hxl").read_bytes()
    assert Path("build/mine/engine.v").is_file()
