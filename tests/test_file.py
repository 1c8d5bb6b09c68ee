"""The integer network's file: round trip, and the one line that each damage gets."""

import io
import json
import os
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from export.artifact import Network
from export.config import ConfigError
from export.file import load_network, save_network
from sim.samples import random_network
from tests.designs import conv
from tests.designs import network as network_of

CONFIG = network_of([conv("a", 4, 3, 3, pool=True), conv("b", 6, 2, 2, groups=2),
                     conv("c", 2, 1, 1, kernel=1)],
                    height=5, width=4, channels=2, classes=3, pad=7)


@pytest.fixture
def network() -> Network:
    return replace(random_network(CONFIG, 1), record={"accuracy": 0.5, "by": ["x"]})


@pytest.fixture
def saved(network, tmp_path):
    save_network(network, tmp_path / "net.npz")
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


def test_round_trip(network, saved):
    loaded = load_network(saved)
    assert loaded.config == network.config
    assert loaded.record == {"accuracy": 0.5, "by": ["x"]}
    assert [layer.shift for layer in loaded.layers] == [layer.shift for layer in network.layers]
    assert loaded.arrays.keys() == network.arrays.keys()
    for name, values in network.arrays.items():
        assert loaded.arrays[name].dtype == values.dtype
        np.testing.assert_array_equal(loaded.arrays[name], values)
    assert loaded.digest == network.digest


def test_file_is_a_plain_npz(network, saved):
    with np.load(saved, allow_pickle=False) as file:
        assert set(file) == {"header", *network.arrays}
        np.testing.assert_array_equal(file["b.weight"], network.layers[1].weight)
        header = json.loads(file["header"].tobytes())
    assert (header["format"], header["version"]) == ("hexlane", 2)


def test_same_network_gives_the_same_bytes(network, saved, tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 2e9)
    again = replace(network, record={"by": ["x"], "accuracy": 0.5})  # order does not count
    save_network(again, tmp_path / "deep" / "again.npz")
    assert (tmp_path / "deep" / "again.npz").read_bytes() == saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_does_not_matter(network, saved, compression):
    rewrite(saved, members(saved), compression)
    assert load_network(saved).digest == network.digest


# ---- saving

# ---- saving

def test_failed_write_leaves_the_old_file(network, saved, monkeypatch):
    before = saved.read_bytes()

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ConfigError, match=r"net\.npz: cannot be written: No space left on device$"):
        save_network(replace(network, record={}), saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["net.npz"]


def test_write_below_a_file(network, saved):
    with pytest.raises(ConfigError, match=r"deeper\.npz: cannot be written: "):
        save_network(network, saved / "deeper.npz")


# ---- loading

def refused(path) -> str:
    """The message with which a file is refused; always one line that begins with the file."""
    with pytest.raises(ConfigError) as caught:
        load_network(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_file_that_cannot_be_opened(tmp_path):
    assert refused(tmp_path / "none.npz") == "no such file"
    assert "not a Hexlane file, or a damaged one: " in refused(tmp_path)


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
    ({"network": {}}, "header: height: Field required"),
    ({"shifts": "012"}, "header: shifts must be a JSON list, not '012'"),
    ({"shifts": [1, 2, 3]}, "header: shifts must be 4, one per operation, not 3"),
    ({"shifts": [1, 2, 16, 0]}, "c: shift must be an integer from 0 to 15, not 16"),
    ({"shifts": [1.0, 2, 3, 0]}, "a: shift must be an integer from 0 to 15, not 1.0"),
    ({"shifts": [True, 2, 3, 0]}, "a: shift must be an integer from 0 to 15, not True"),
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


@pytest.mark.parametrize("name", ["a.weight", "c.bias", "classifier.weight", "classifier.bias"])
def test_missing_array(saved, name):
    content = members(saved)
    del content[f"{name}.npy"]
    rewrite(saved, content)
    assert refused(saved) == f"{name} is missing"


def test_unknown_array(saved):
    rewrite(saved, members(saved) | {"d.weight.npy": b""})
    assert refused(saved) == "array must be one of the network's, once, not d.weight"


@pytest.mark.parametrize("name, values, message", [
    ("b.weight", np.zeros((6, 2, 3, 1)), "b: weight must be int8 6x?x3x3, not float64 6x2x3x1"),
    ("b.weight", np.zeros((6, 1, 3, 3), np.int8), "b: weight must have 2 input channels, not 1"),
    ("c.weight", np.zeros((2, 6, 1, 1), np.int8), "c: weight must be one of -1, 1, not 0"),
    ("a.bias", np.zeros(4, ">i4"), "a: bias must be int32 4, not >i4 4"),
    ("a.bias", np.full(4, 2**31 - 1, np.int32), "a: sums with bias must stay below 2147483648"),
    ("classifier.bias", np.zeros(4, np.int32), "classifier: bias must be int32 3, not int32 4"),
])
def test_bad_array(saved, name, values, message):
    rewrite(saved, members(saved) | {f"{name}.npy": npy(values)})
    assert refused(saved).startswith(message)


def test_array_that_would_run_code(saved):
    rewrite(saved, members(saved) | {"a.bias.npy": npy(np.array([{}]), allow_pickle=True)})
    assert "Object arrays cannot be loaded" in refused(saved)


def test_array_that_expands_to_gigabytes(saved):
    """A deflated member of zeros: its size is known to be wrong before it is read."""
    content = members(saved)
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            if name == "a.bias.npy":
                with archive.open(name, "w", force_zip64=True) as member:
                    member.write(data)
                    for _ in range(300):
                        member.write(bytes(2**20))
            else:
                archive.writestr(name, data)
    assert saved.stat().st_size < 2**20
    tracemalloc.start()
    assert refused(saved).startswith("a.bias must have at most 16 bytes, not 31457")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_array_that_claims_to_be_huge(saved):
    content = members(saved)
    content["a.bias.npy"] = content["a.bias.npy"].replace(b"(4,), }" + b" " * 12,
                                                          b"(%d,), }" % 10**13)
    assert content["a.bias.npy"] != members(saved)["a.bias.npy"]
    rewrite(saved, content)
    assert refused(saved).startswith("not a Hexlane file, or a damaged one: ")


def test_truncated_file_is_refused(saved):
    data = saved.read_bytes()
    for size in range(len(data)):
        path = saved.with_name(str(size))  # new files are much faster than one that is rewritten
        path.write_bytes(data[:size])
        refused(path)


@pytest.mark.parametrize("flip", [0x01, 0xff])
def test_damaged_file_is_refused_or_harmless(network, saved, flip):
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
            assert loaded.digest == network.digest
            harmless += 1
    assert harmless < len(data) / 3  # times, and sizes that the file states twice
