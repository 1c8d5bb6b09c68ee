"""The integer network: its file, its digest, and the one line that each mistake gets."""

import io
import json
import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from export.artifact import Layer, Network, load_network, save_network
from export.config import ConfigError, LayerConfig, NetworkConfig
from sim.samples import random_network

CONFIG = NetworkConfig(height=5, width=4, channels=2, classes=3, pad=7, layers=(
    LayerConfig(name="a", channels=4, weight_bits=3, code_bits=3, pool=True),
    LayerConfig(name="b", channels=6, weight_bits=2, code_bits=2, groups=2),
    LayerConfig(name="c", channels=2, weight_bits=1, code_bits=1, kernel=1)))


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


def changed(values, index, value) -> np.ndarray:
    values = values.copy()
    values[index] = value
    return values


def relayer(network, index, **changes) -> Network:
    layers = list(network.layers)
    layers[index] = replace(layers[index], **changes)
    return replace(network, layers=tuple(layers))


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
    assert (header["format"], header["version"]) == ("hexlane", 1)


def test_same_network_gives_the_same_bytes(network, saved, tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 2e9)
    again = replace(network, record={"by": ["x"], "accuracy": 0.5})  # order does not count
    save_network(again, tmp_path / "deep" / "again.npz")
    assert (tmp_path / "deep" / "again.npz").read_bytes() == saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_digest_is_of_the_content(network, saved):
    digests = {network.digest}
    for name in ("a", "b", "c"):
        index = "abc".index(name)
        layer = network.layers[index]
        weight = changed(layer.weight, (0, 0, 0, 0), -layer.weight[0, 0, 0, 0] or 1)
        digests.add(relayer(network, index, weight=weight).digest)
        digests.add(relayer(network, index, bias=changed(layer.bias, 1, 9)).digest)
        digests.add(relayer(network, index, shift=layer.shift + 1).digest)
    weight = network.classifier_weight
    digests.add(replace(network, classifier_weight=changed(weight, (0, 0), 2 - weight[0, 0] // 2)
                        ).digest)
    digests.add(replace(network, classifier_bias=network.classifier_bias + 1).digest)
    digests.add(replace(network, config=CONFIG.model_copy(update={"pad": 8})).digest)
    assert len(digests) == 13
    assert replace(network, record={}).digest == network.digest
    rewrite(saved, members(saved), zipfile.ZIP_BZIP2)
    assert load_network(saved).digest == network.digest


def test_digest_is_the_same_everywhere():
    layer = LayerConfig(name="a", channels=1, weight_bits=2, code_bits=1, kernel=1)
    config = NetworkConfig(height=1, width=1, channels=1, classes=2, layers=(layer,))
    network = Network(config, (Layer(layer, np.full((1, 1, 1, 1), -1, np.int8),
                                     np.array([300], np.int32), 4),),
                      np.array([[1], [-2]], np.int8), np.array([0, -1], np.int32))
    assert network.digest == (
        "204c0dc87379d4ed9c2de9d6a7e8966ce52741264ed5f646d822035044776e2c")


def test_arrays_are_read_only_copies(network):
    weight = network.layers[0].weight.copy()
    layer = replace(network.layers[0], weight=weight)
    weight[:] = 0
    np.testing.assert_array_equal(layer.weight, network.layers[0].weight)
    for values in network.arrays.values():
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 0


def test_peaks(network):
    assert network.peaks == (255, 7, 3, 1)


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


# ---- constructing

WEIGHT = np.ones((4, 2, 3, 3), np.int8)
BIAS = np.zeros(4, np.int32)


@pytest.mark.parametrize("weight, bias, shift, message", [
    (WEIGHT * 3, BIAS, 0, r"weight must be one of -2, -1, 0, 1, 2, not 3"),
    (WEIGHT.astype(float), BIAS, 0, r"weight must be int8 4x\?x3x3, not float64 4x2x3x3"),
    (WEIGHT[:3], BIAS, 0, r"weight must be int8 4x\?x3x3, not int8 3x2x3x3"),
    (WEIGHT[..., 0], BIAS, 0, r"weight must be int8 4x\?x3x3, not int8 4x2x3"),
    (WEIGHT[..., :1], BIAS, 0, r"weight must be int8 4x\?x3x3, not int8 4x2x3x1"),
    (WEIGHT.tolist(), BIAS, 0, r"weight must be int8 4x\?x3x3, not a list"),
    (WEIGHT, BIAS.astype(np.int64), 0, r"bias must be int32 4, not int64 4"),
    (WEIGHT, BIAS[:3], 0, r"bias must be int32 4, not int32 3"),
    (WEIGHT, np.array(0, np.int32), 0, r"bias must be int32 4, not int32 scalar"),
    (WEIGHT, BIAS, -1, r"shift must be an integer from 0 to 15, not -1"),
    (WEIGHT, BIAS, 16, r"shift must be an integer from 0 to 15, not 16"),
    (WEIGHT, BIAS, 2.0, r"shift must be an integer from 0 to 15, not 2\.0"),
    (WEIGHT, BIAS, True, r"shift must be an integer from 0 to 15, not True"),
])
def test_bad_layer_is_refused(weight, bias, shift, message):
    with pytest.raises(ConfigError, match=rf"^a: {message}$"):
        Layer(CONFIG.layers[0], weight, bias, shift)


@pytest.mark.parametrize("index, value, message", [
    (1, 2, r"b: weight must be one of -1, 0, 1, not 2"),
    (1, -2, r"b: weight must be one of -1, 0, 1, not -2"),
    (2, 0, r"c: weight must be one of -1, 1, not 0"),
    (0, -128, r"a: weight must be one of -2, -1, 0, 1, 2, not -128"),
])
def test_weight_outside_its_alphabet_is_refused(network, index, value, message):
    weight = changed(network.layers[index].weight, (-1, 0, 0, 0), value)
    with pytest.raises(ConfigError, match=rf"^{message}$"):
        replace(network.layers[index], weight=weight)


def test_bad_classifier_is_refused(network):
    for bits, value, message in [(3, 3, "-2, -1, 0, 1, 2, not 3"), (2, 2, "-1, 0, 1, not 2"),
                                 (1, 0, "-1, 1, not 0")]:
        weight = changed(np.ones_like(network.classifier_weight), (1, 1), value)
        config = CONFIG.model_copy(update={"classifier_bits": bits})
        with pytest.raises(ConfigError, match=rf"^classifier: weight must be one of {message}$"):
            replace(network, config=config, classifier_weight=weight)
    with pytest.raises(ConfigError, match=r"^classifier: weight must be int8 3x2, not int8 2x3$"):
        replace(network, classifier_weight=network.classifier_weight.T)
    with pytest.raises(ConfigError, match=r"^classifier: bias must be int32 3, not int32 2$"):
        replace(network, classifier_bias=network.classifier_bias[:2])


def test_layers_that_do_not_fit_are_refused(network):
    with pytest.raises(ConfigError, match=r"^network must have 3 layers, not 2$"):
        replace(network, layers=network.layers[:2])
    with pytest.raises(ConfigError, match=r"^a: layer must be configured as \(name='a'.*\), "
                                          r"not \(name='b'.*\)$"):
        replace(network, layers=network.layers[::-1][1:] + network.layers[:1])
    with pytest.raises(ConfigError, match=r"^b: weight must have 2 input channels, not 4$"):
        relayer(network, 1, weight=np.ones((6, 4, 3, 3), np.int8))


def test_sums_that_could_overflow_are_refused(network):
    rows = np.abs(network.layers[0].weight.astype(int)).sum((1, 2, 3))
    most = 2**31 - 1 - 255 * int(rows[2])
    for sign in (1, -1):
        relayer(network, 0, bias=changed(network.layers[0].bias, 2, sign * most))
        with pytest.raises(ConfigError, match=r"^a: sums with bias must stay below 2147483648, "
                                              r"but can reach 2147483648$"):
            relayer(network, 0, bias=changed(network.layers[0].bias, 2, sign * (most + 1)))
    # Codes of three bits reach 7; two channels of one bit reach 1 on each of 2 x 2 pixels.
    most = 2**31 - 1 - 7 * int(np.abs(network.layers[1].weight[0].astype(int)).sum())
    relayer(network, 1, bias=changed(network.layers[1].bias, 0, -most))
    with pytest.raises(ConfigError, match=r"^b: sums with bias must stay below"):
        relayer(network, 1, bias=changed(network.layers[1].bias, 0, -most - 1))
    most = 2**31 - 1 - 4 * int(np.abs(network.classifier_weight[1].astype(int)).sum())
    replace(network, classifier_bias=changed(network.classifier_bias, 1, most))
    for bias in (most + 1, -2**31):
        with pytest.raises(ConfigError, match=r"^classifier: sums with bias must stay below"):
            replace(network, classifier_bias=changed(network.classifier_bias, 1, bias))


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
    ({"version": 2}, "version must be 1, not 2"),
    ({"version": None}, "version must be 1, not None"),
    ({"network": None}, "header: network must be a JSON dict, not None"),
    ({"network": 3}, "header: network must be a JSON dict, not 3"),
    ({"network": {}}, "header: height: Field required"),
    ({"shifts": "012"}, "header: shifts must be a JSON list, not '012'"),
    ({"shifts": [1, 2]}, "header: shifts must be 3, one per layer, not 2"),
    ({"shifts": [1, 2, 16]}, "c: shift must be an integer from 0 to 15, not 16"),
    ({"shifts": [1.0, 2, 3]}, "a: shift must be an integer from 0 to 15, not 1.0"),
    ({"shifts": [True, 2, 3]}, "a: shift must be an integer from 0 to 15, not True"),
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
    ("b.weight", np.zeros((6, 2, 3, 3)), "b: weight must be int8 6x?x3x3, not float64 6x2x3x3"),
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
