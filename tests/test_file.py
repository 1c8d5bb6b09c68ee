"""The file of an integer network: what it holds, and the one line that each damage gets."""

import contextlib
import io
import json
import os
import random
import struct
import time
import tracemalloc
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.artifact import Network
from export.checked import MESSAGE
from export.config import ConfigError
from export.file import load_network, save_network, save_record, write_whole
from sim.samples import random_network
from tests.designs import conv, network, total

CONFIG = network([], height=5, width=4, channels=2, pad=7, operations=[
    conv("a", 4, 3, 3, pool=True),
    conv("b", 6, 2, 2, groups=2),
    total("s", 8, 2, "select", inputs=["a"]),
    conv("c", 8, 1, 1, kernel=1, inputs=["b", "a"], skip="a", gate="mux", select="s"),
    conv("d", 8, 2, 1, kernel=1, generator={"outputs": 4, "inputs": 4}),
    total("classifier", 3, 3)])


@pytest.fixture
def made() -> Network:
    return replace(random_network(CONFIG, 1), record={"accuracy": 0.5, "by": ["x"]})


@pytest.fixture
def saved(made, tmp_path):
    save_network(made, tmp_path / "net.npz")
    return tmp_path / "net.npz"


def members(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path, content: dict[str, bytes], compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def npy(values, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, values, **options)
    return file.getvalue()


def with_header(path, **changes):
    """Replaces fields of the header; None removes one."""
    content = members(path)
    header = json.loads(np.load(io.BytesIO(content["header.npy"])).tobytes()) | changes
    header = {name: value for name, value in header.items() if value is not None}
    content["header.npy"] = npy(np.frombuffer(json.dumps(header).encode(), np.uint8))
    rewrite(path, content)


def test_round_trip(made, saved):
    loaded = load_network(saved)
    assert loaded.config == made.config
    assert loaded.record == {"accuracy": 0.5, "by": ["x"]}
    assert [layer.shift for layer in loaded.layers] == [layer.shift for layer in made.layers]
    assert loaded.arrays.keys() == made.arrays.keys()
    for name, values in made.arrays.items():
        assert loaded.arrays[name].dtype == values.dtype
        np.testing.assert_array_equal(loaded.arrays[name], values)
    assert loaded.digest == made.digest


def test_file_is_a_plain_npz(made, saved):
    with np.load(saved, allow_pickle=False) as file:
        assert set(file) == {"header", *made.arrays}
        np.testing.assert_array_equal(file["b.weight"], made.by_name["b"].weight)
        np.testing.assert_array_equal(file["d.seed"], made.by_name["d"].seed)
        header = json.loads(file["header"].tobytes())
    assert (header["format"], header["version"]) == ("hexlane", 2)


def test_same_network_gives_the_same_bytes(made, saved, tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 2e9)
    again = replace(made, record={"by": ["x"], "accuracy": 0.5})  # order does not count
    save_network(again, tmp_path / "deep" / "again.npz")
    assert (tmp_path / "deep" / "again.npz").read_bytes() == saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_packing_does_not_count(made, saved, compression):
    rewrite(saved, members(saved), compression)
    assert load_network(saved).digest == made.digest


def test_an_archive_of_too_many_members_is_refused_unread(saved, monkeypatch):
    content = members(saved)
    rewrite(saved, content | {f"{k}.npy": b"" for k in range(4096 - len(content))})
    with pytest.raises(ConfigError, match="array must be one of the"):
        load_network(saved)  # as many as there may be: it is read, and one named
    rewrite(saved, content | {f"{k}.npy": b"" for k in range(4097 - len(content))})
    monkeypatch.setattr("zipfile.ZipFile", None)
    with pytest.raises(ConfigError, match=r"net.npz: must have at most 4096 arrays, not 4097"):
        load_network(saved)


# ---- saving

def test_what_a_link_points_to_is_written(made, tmp_path):
    (tmp_path / "link.npz").symlink_to("target.npz")
    (tmp_path / "target.npz").write_bytes(b"old")
    save_network(made, tmp_path / "link.npz")
    assert (tmp_path / "link.npz").is_symlink()
    assert load_network(tmp_path / "target.npz").digest == made.digest


@pytest.mark.parametrize("name", ["net.json", "net", "net.npz.json"])
def test_another_name_would_be_that_of_the_record(made, tmp_path, name):
    with pytest.raises(ConfigError, match=r"a network's file must end in \.npz"):
        save_network(made, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_failed_write_leaves_the_old_file(made, saved, monkeypatch):
    before = saved.read_bytes()

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ConfigError, match=r"net\.npz: cannot be written: No space left on device$"):
        save_network(replace(made, record={}), saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["net.npz"]


def test_write_below_a_file(made, saved):
    with pytest.raises(ConfigError, match=r"deeper\.npz: cannot be written: "):
        save_network(made, saved / "deeper.npz")


@pytest.mark.parametrize("record", [
    {"loss": float("nan")}, {"deep": [{"loss": float("-inf")}]}, {"seed": np.int64(3)},
    {"by": object()}, {"by": {1, 2}}, {1: 2, "a": 3}])
@pytest.mark.parametrize("save", [save_network, save_record])
def test_a_record_that_is_no_json_is_refused(made, saved, record, save):
    before = saved.read_bytes()
    with pytest.raises(ConfigError, match=r"net\.(npz|json): record must be plain JSON: ."):
        save(replace(made, record=record), saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["net.npz"]


def test_record_for_people(made, tmp_path):
    save_record(made, tmp_path / "net.npz")
    assert json.loads((tmp_path / "net.json").read_text()) == made.record


# ---- loading

def refused(path) -> str:
    """The message with which a file is refused; always one line that begins with the file."""
    with pytest.raises(ConfigError) as caught:
        load_network(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) <= MESSAGE
    return message.removeprefix(f"{path}: ")


def test_file_that_cannot_be_opened(tmp_path):
    assert refused(tmp_path / "none.npz") == "no such file"
    assert refused(tmp_path) == "must be a plain file"


@pytest.mark.parametrize("path", ["", "/", "folder", "pipe"])
def test_what_is_no_file_is_not_replaced(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r": must be a plain file to be written$"):
        write_whole(Path(path), b"new")
    assert {each.name for each in tmp_path.iterdir()} == {"folder", "pipe"}
    assert (tmp_path / "pipe").is_fifo()


def test_a_name_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"x: cannot be written: (?i:file name too long)$"):
        write_whole(Path("x" * 256), b"new")


@pytest.mark.parametrize("path", ["pipe", "/dev/zero"])
def test_what_might_never_end_is_not_read(tmp_path, path):
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / path) == "must be a plain file"


@pytest.mark.parametrize("content", [b"", b"hello", npy(np.zeros(3)), b"PK\x03\x04"])
def test_file_of_another_kind(tmp_path, content):
    path = tmp_path / "net.npz"
    path.write_bytes(content)
    assert refused(path) == "not a Hexlane file, or a damaged one: File is not a zip file"


def test_npz_of_something_else(tmp_path):
    np.savez(tmp_path / "net.npz", weight=np.zeros(3))
    assert refused(tmp_path / "net.npz") == "not a Hexlane file: it has no header"


@pytest.mark.parametrize("changes, message", [
    ({"format": "other"}, "not a Hexlane file: its header does not name the format 'hexlane'"),
    ({"version": 1}, "version must be 2, not 1"),
    ({"version": None}, "version must be 2, not None"),
    ({"network": None}, "header: network must be a JSON dict, not None"),
    ({"network": 3}, "header: network must be a JSON dict, not 3"),
    ({"network": {}}, "header: height: is missing"),
    ({"shifts": "012"}, "header: shifts must be a JSON list, not '012'"),
    ({"shifts": [1, 2]}, "header: shifts must be 6, one per operation, not 2"),
    ({"shifts": [1, 2, 0, 16, 0, 0]}, "c: shift must be an integer from 0 to 15, not 16"),
    ({"shifts": [1, 2, 0, 0, 0, 1]}, "classifier: shift must be an integer from 0 to 0, not 1"),
    ({"shifts": [1.0, 2, 0, 3, 0, 0]}, "a: shift must be an integer from 0 to 15, not 1.0"),
    ({"shifts": [True, 2, 0, 3, 0, 0]}, "a: shift must be an integer from 0 to 15, not True"),
    ({"record": None}, "header: record must be a JSON dict, not None"),
    ({"record": [1] * 999}, f"header: record must be a JSON dict, not {str([1] * 999)[:60]}"),
])
def test_bad_header(saved, changes, message):
    with_header(saved, **changes)
    assert refused(saved) == message


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100000])
def test_header_that_is_no_json_object(saved, text):
    rewrite(saved, members(saved) | {"header.npy": npy(np.frombuffer(text, np.uint8))})
    assert refused(saved).startswith("not a Hexlane file")


@pytest.mark.parametrize("name", ["a.weight", "s.bias", "d.seed", "classifier.weight",
                                  "classifier.bias"])
def test_missing_array(saved, name):
    content = members(saved)
    del content[f"{name}.npy"]
    rewrite(saved, content)
    assert refused(saved) == f"{name} is missing"


def test_unknown_array(saved):
    rewrite(saved, members(saved) | {"a.seed.npy": b""})
    assert refused(saved) == "array must be one of the network's, once, not a.seed"


@pytest.mark.parametrize("name, values, message", [
    ("b.weight", np.zeros((6, 1, 3, 3), np.int16),
     "b: weight must be int8 6x?x3x3, not int16 6x1x3x3"),
    ("b.weight", np.zeros((6, 20, 3, 3)), "b.weight must have at most 108 bytes, not 8768"),
    ("d.weight", np.ones((8, 8, 1, 1), np.int8),
     "d: weight must be what the generator makes of seed"),
    ("b.weight", np.zeros((6, 1, 3, 3), np.int8), "b: weight must have 2 input channels, not 1"),
    ("c.weight", np.zeros((8, 10, 1, 1), np.int8), "c: weight must be one of -1, 1, not 0"),
    ("a.bias", np.zeros(4, ">i4"), "a: bias must be int32 4, not >i4 4"),
    ("a.bias", np.full(4, 2**31 - 1, np.int32), "a: sums with bias must stay below 2147483648"),
    ("classifier.bias", np.zeros((3, 1), np.int32),
     "classifier: bias must be int32 3, not int32 3x1"),
    ("classifier.bias", np.zeros(4, np.int32),
     "classifier.bias must have at most 12 bytes, not 16"),
])
def test_bad_array(saved, name, values, message):
    rewrite(saved, members(saved) | {f"{name}.npy": npy(values)})
    assert refused(saved).startswith(message)


def test_array_that_would_run_code(saved):
    rewrite(saved, members(saved) | {"a.bias.npy": npy(np.array([{}]), allow_pickle=True)})
    assert "Object arrays cannot be loaded" in refused(saved)


@pytest.mark.parametrize("record", ["NaN", "-Infinity", "[Infinity]", "1e999", "-1e999"])
def test_record_with_a_number_that_is_none(saved, record):
    with_header(saved, record={"loss": 123456})
    content = members(saved)
    text = np.load(io.BytesIO(content["header.npy"])).tobytes().replace(b"123456", record.encode())
    rewrite(saved, content | {"header.npy": npy(np.frombuffer(text, np.uint8))})
    assert refused(saved) == f"header: numbers must be finite, not {record.strip('[]')}"


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_cannot_be_read_in_bounds(saved, compression):
    rewrite(saved, members(saved), compression)
    assert refused(saved) == "header must be stored or deflated, not packed in another way"


def with_npy_header(header: bytes, version=b"\x01\x00", data=bytes(16)) -> bytes:
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize("descr, order, shape", [
    ("'<i4'", "False", "(10000000000000,)"),
    ("'<i4'", "False", "(1000000000,)"),
    ("'<i4'", "False", "(-4,)"),
    ("'<i4'", "False", "(0, -1)"),
    ("'<i4'", "False", "4"),
    ("'<i4'", "False", "(4.0,)"),
    ("'<i4'", "False", "(5,)"),
    ("'<i4'", "False", "(" * 300 + "4," + ")" * 300),
    ("'<i4'", "7", "(4,)"),
    ("'<i4'", "False", "(%s,)" % ("9" * 5000)),
    ("'<U1000000000'", "False", "(4,)"),
    ("'V99999999999'", "False", "(4,)"),
    ("'|O'", "False", "(4,)"),
    ("[('a', '<i4')]", "False", "(4,)"),
    ("('<i4', (1000000000,))", "False", "(1,)"),
    ("'<i99'", "False", "(4,)"),
    ("{}", "False", "(4,)"),
    ("'<i4', 'x': 1", "False", "(4,)"),
    ("[1", "False", "(4,)"),
    ("__import__('os')", "False", "(4,)"),
])
def test_damaged_header_of_an_array(saved, descr, order, shape):
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    content = members(saved)
    assert content["a.bias.npy"][:10] == with_npy_header(
        b"{'descr': '<i4', 'fortran_order': False, 'shape': (4,), }")[:10]
    rewrite(saved, content | {"a.bias.npy": with_npy_header(header)})
    with in_bounds():
        refused(saved)


@pytest.mark.parametrize("content", [
    b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff", b"\x93NUMPX\x01\x00",
    with_npy_header(b"{'descr': '<i4', 'fortran_order': False, 'shape': (4,), }", b"\x02\x00"),
    with_npy_header(b"\xff\xfe"), with_npy_header(b""), with_npy_header(b"\x00" * 40)])
def test_array_without_a_header(saved, content):
    rewrite(saved, members(saved) | {"a.bias.npy": content})
    refused(saved)


def test_array_in_another_version_of_the_format(saved):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.zeros(4, np.int32), version=(2, 0))
    rewrite(saved, members(saved) | {"a.bias.npy": file.getvalue()})
    assert refused(saved) == "a.bias must be in version 1.0 of numpy's format, not (2, 0)"


# ---- bounds

@contextlib.contextmanager
def in_bounds(megabytes=64, seconds=20):
    """What is done inside takes no more memory and time."""
    tracemalloc.start()
    began = time.process_time()
    try:
        yield
        took, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < megabytes * 2**20
    assert took < seconds


def bomb(name: str, megabytes: int, claimed: int) -> bytes:
    """A zip file whose one member is deflated zeros and claims to have some other size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    chunk = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.npy", chunk * (megabytes // 16))
    data = bytearray(file.getvalue())
    directory = data.index(b"PK\x01\x02")
    for method, size in ((8, 22), (directory + 10, directory + 24)):
        struct.pack_into("<H", data, method, zipfile.ZIP_DEFLATED)
        struct.pack_into("<I", data, size, claimed)
    return bytes(data)


@pytest.mark.parametrize("claimed, message", [
    (2**32 - 2, "header must have at most 8388608 bytes, not 4294967294"),
    (2**23, "not a Hexlane file, or a damaged one: "), (200, "not a Hexlane file, or a damaged")])
def test_four_megabytes_that_expand_to_four_gigabytes(tmp_path, claimed, message):
    content = bomb("header", 4096, claimed)
    assert 3 * 2**20 < len(content) < 5 * 2**20
    (tmp_path / "net.npz").write_bytes(content)
    with in_bounds():
        assert refused(tmp_path / "net.npz").startswith(message)


def test_array_that_is_larger_than_the_network_needs(saved):
    rewrite(saved, members(saved) | {"a.bias.npy": npy(np.zeros(10**7, np.int32))},
            zipfile.ZIP_DEFLATED)
    with in_bounds():
        assert refused(saved) == "a.bias must have at most 16 bytes, not 40000128"


def test_many_members(saved):
    rewrite(saved, members(saved) | {f"x{k}": b"" for k in range(3_000)})
    with in_bounds():
        assert refused(saved) == "array must be one of the network's, once, not x0"


def test_a_file_as_large_as_no_network_is_not_read(tmp_path):
    with (tmp_path / "net.npz").open("wb") as file:
        file.truncate(2**36)
    assert refused(tmp_path / "net.npz") == "must have at most 67108864 bytes, not 68719476736"


def test_a_network_of_too_many_weights_is_refused(saved):
    layers = [conv(f"c{k}", 4096, 1, 1) for k in range(255)]
    with_header(saved, network={"height": 6, "width": 5, "channels": 3, "layers": layers,
                                "classes": 2})
    with in_bounds():
        assert refused(saved) == ("header: weights must be at most 33554432 in all, not "
                                  f"{3 * 9 * 4096 + 254 * 9 * 4096**2 + 2 * 4096}")


def test_another_network_is_refused_before_its_arrays_are_read(made, saved):
    assert load_network(saved, CONFIG, "a.toml").digest == made.digest
    rewrite(saved, members(saved) | {"a.bias.npy": b"damaged"})
    with pytest.raises(ConfigError, match=r"net\.npz: is of another network than a\.toml$"):
        load_network(saved, CONFIG.model_copy(update={"pad": 8}), "a.toml")


def test_array_that_is_there_twice(saved):
    content = members(saved)
    with zipfile.ZipFile(saved, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.bias.npy", content["a.bias.npy"])
    assert refused(saved).startswith("array must be one of the network's, once, not ")


@pytest.mark.parametrize("seed", range(6))
def test_a_few_damaged_bytes(made, saved, seed):
    """In the whole file, or in one member of a file that is sound else."""
    rng, plain = random.Random(seed), members(saved)
    whole = saved.read_bytes()

    def damaged(data: bytes) -> bytes:
        data = bytearray(data)
        for _ in range(rng.choice([1, 2, 8])):
            place = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(128)
            data[place] ^= 1 << rng.randrange(8)
        return bytes(data)

    loads = 0
    for k in range(100):
        path = saved.with_name(f"{k}.npz")
        if k % 4 == 0:
            path.write_bytes(damaged(whole))
        else:
            name = rng.choice(list(plain))
            rewrite(path, plain | {name: damaged(plain[name])})
        try:
            load_network(path)
            loads += 1  # another bias or seed may be as good
        except ConfigError as error:
            assert len(str(error)) <= MESSAGE and "\n" not in str(error)
    assert loads < 50


def test_truncated_file_is_refused(saved):
    data = saved.read_bytes()
    for size in range(len(data)):
        path = saved.with_name(str(size))  # new files are much faster than one that is rewritten
        path.write_bytes(data[:size])
        refused(path)


@pytest.mark.slow
@pytest.mark.parametrize("flip", [0x01, 0xff])
def test_damaged_file_is_refused_or_harmless(made, saved, flip):
    data = saved.read_bytes()
    harmless = 0
    for place in range(len(data)):
        path = saved.with_name(str(place))
        path.write_bytes(data[:place] + bytes([data[place] ^ flip]) + data[place + 1:])
        try:
            loaded = load_network(path)
        except ConfigError as error:
            assert "\n" not in str(error)
        else:
            assert loaded.digest == made.digest
            harmless += 1
    assert harmless < len(data) / 3  # times, and sizes that the file states twice
