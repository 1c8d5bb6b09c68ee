"""The frozen integer network: what training hands to the golden model and to the hardware.

On disk it is one `.npz` file. Its member `header` is JSON (format name, version, the network's
configuration, shifts, a free-form record); each layer has `NAME.weight` and `NAME.bias`, and so
has `classifier`. Whatever cannot be used is refused, on loading and on constructing alike.
"""

import contextlib
import hashlib
import io
import json
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from export.automaton import cells, generated
from export.config import ConfigError, LayerConfig, NetworkConfig, parse_config

FORMAT, VERSION = "hexlane", 1
ALPHABET = {1: (-1, 1), 2: (-1, 0, 1), 3: (-2, -1, 0, 1, 2)}  # weight values by weight_bits
PIXEL_PEAK = 255
MAX_SHIFT = 15
SELECT = "select_weight", "select_bias"  # arrays of a layer with a mux
SUM_LIMIT = 2**31  # sums with bias stay below it in size: they are accumulated in int32
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip file can name

_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, ValueError, EOFError, RuntimeError,
           NotImplementedError, MemoryError, OverflowError, OSError, KeyError, IndexError)


def _frozen(values: np.ndarray, dtype: type, shape: tuple[int | None, ...],
            what: str) -> np.ndarray:
    """A read-only copy of `values`, which must be of this type and shape (None: any size)."""
    wanted = f"{np.dtype(dtype)} {'x'.join('?' if size is None else str(size) for size in shape)}"
    if not isinstance(values, np.ndarray):
        raise ConfigError(f"{what} must be {wanted}, not a {type(values).__name__}")
    fits = len(shape) == values.ndim and all(
        size in (None, came) for size, came in zip(shape, values.shape, strict=True))
    if values.dtype != dtype or not fits:
        came = "x".join(map(str, values.shape)) or "scalar"
        raise ConfigError(f"{what} must be {wanted}, not {values.dtype} {came}")
    values = np.array(values, order="C")
    values.setflags(write=False)
    return values


def _check_alphabet(weight: np.ndarray, bits: int, what: str):
    strange = weight[~np.isin(weight, ALPHABET[bits])]
    if strange.size:
        allowed = ", ".join(map(str, ALPHABET[bits]))
        raise ConfigError(f"{what} must be one of {allowed}, not {strange[0]}")


def _check_sums(weight: np.ndarray, bias: np.ndarray, peak: int, what: str):
    """Refuses channels whose sums for inputs 0 ... `peak` could leave int32."""
    rows = np.abs(weight.reshape(len(weight), -1)).sum(1, dtype=np.int64)
    worst = int((rows * peak + np.abs(bias.astype(np.int64))).max())
    if worst >= SUM_LIMIT:
        raise ConfigError(f"{what}: sums with bias must stay below {SUM_LIMIT}, "
                          f"but can reach {worst}")


@dataclass(frozen=True, eq=False)
class Layer:
    """One convolution in integers: `code = clip((sums + bias) >> shift, 0, 2**code_bits - 1)`.

    `weight` is int8 [O, I / groups, k, k] from the alphabet of `config.weight_bits`, `bias` is
    int32 [O], `shift` is 0 ... 15. A layer with a mux also has `select_weight` int8 [O, S], S being
    the skip's channels, and `select_bias` int32 [O]; it passes channel c if the sums over the
    skip's feature map, so weighted, are not negative. A layer with a generator has the `seed`,
    uint8 [cells] of 0 and 1, that its weights follow from. Raises :class:`ConfigError` where
    anything is not so.
    """

    config: LayerConfig
    weight: np.ndarray
    bias: np.ndarray
    shift: int
    select_weight: np.ndarray | None = None
    select_bias: np.ndarray | None = None
    seed: np.ndarray | None = None

    def __post_init__(self):
        name, channels, kernel = self.config.name, self.config.channels, self.config.kernel
        weight = _frozen(self.weight, np.int8, (channels, None, kernel, kernel), f"{name}: weight")
        _check_alphabet(weight, self.config.weight_bits, f"{name}: weight")
        bias = _frozen(self.bias, np.int32, (channels,), f"{name}: bias")
        if type(self.shift) is not int or not 0 <= self.shift <= MAX_SHIFT:
            raise ConfigError(f"{name}: shift must be an integer from 0 to {MAX_SHIFT}, "
                              f"not {self.shift!r}")
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)
        if self.config.selects:
            what = f"{name}: select_weight"
            select = _frozen(self.select_weight, np.int8, (channels, None), what)
            _check_alphabet(select, self.config.select_bits, what)
            object.__setattr__(self, "select_weight", select)
            object.__setattr__(self, "select_bias", _frozen(
                self.select_bias, np.int32, (channels,), f"{name}: select_bias"))
        elif self.select_weight is not None or self.select_bias is not None:
            raise ConfigError(f"{name}: only a layer with a mux has select_weight and select_bias")
        if self.config.generator is not None:
            seed = _frozen(self.seed, np.uint8, (cells(self.config),), f"{name}: seed")
            if (seed > 1).any() or not np.array_equal(
                    weight[:, :, 0, 0], generated(self.config, seed, weight.shape[1])):
                raise ConfigError(f"{name}: weight must be what the generator makes of seed")
            object.__setattr__(self, "seed", seed)
        elif self.seed is not None:
            raise ConfigError(f"{name}: only a layer with a generator has a seed")

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays by their names in the file."""
        found = {"weight": self.weight, "bias": self.bias}
        if self.config.selects:
            found |= {"select_weight": self.select_weight, "select_bias": self.select_bias}
        if self.config.generator is not None:
            found["seed"] = self.seed
        return {f"{self.config.name}.{kind}": values for kind, values in found.items()}


@dataclass(frozen=True, eq=False)
class Network:
    """All layers and the classifier, checked against each other and against int32.

    `classifier_weight` is int8 [classes, features] from the alphabet of `config.classifier_bits`,
    `classifier_bias` int32 [classes]. `record` says where the network came from (training,
    accuracy); it is plain JSON and no part of the digest. Raises
    :class:`ConfigError`.
    """

    config: NetworkConfig
    layers: tuple[Layer, ...]
    classifier_weight: np.ndarray
    classifier_bias: np.ndarray
    record: dict = field(default_factory=dict)

    def __post_init__(self):
        config, layers = self.config, tuple(self.layers)
        if len(layers) != len(config.layers):
            raise ConfigError(f"network must have {len(config.layers)} layers, not {len(layers)}")
        for layer, wanted, shape, peak in zip(layers, config.layers, config.shapes,
                                              self.peaks, strict=False):
            name = wanted.name
            if layer.config != wanted:
                raise ConfigError(f"{name}: layer must be configured as ({wanted}), "
                                  f"not ({layer.config})")
            inputs = shape.channels // wanted.groups
            if layer.weight.shape[1] != inputs:
                raise ConfigError(f"{name}: weight must have {inputs} input channels, "
                                  f"not {layer.weight.shape[1]}")
            _check_sums(layer.weight, layer.bias, peak, name)
        for index, layer in enumerate(layers):
            if layer.config.selects:
                source = config.skip_source(index)
                skip = config.shapes[source + 1]
                if layer.select_weight.shape[1] != skip.channels:
                    raise ConfigError(f"{layer.config.name}: select_weight must have "
                                      f"{skip.channels} input channels, "
                                      f"not {layer.select_weight.shape[1]}")
                _check_sums(layer.select_weight, layer.select_bias,
                            self.peaks[source + 1] * skip.pixels, f"{layer.config.name}: select")
        features = config.shapes[-1]
        weight = _frozen(self.classifier_weight, np.int8, (config.classes, features.channels),
                         "classifier: weight")
        _check_alphabet(weight, config.classifier_bits, "classifier: weight")
        bias = _frozen(self.classifier_bias, np.int32, (config.classes,), "classifier: bias")
        _check_sums(weight, bias, self.peaks[-1] * features.pixels, "classifier")
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "classifier_weight", weight)
        object.__setattr__(self, "classifier_bias", bias)

    @property
    def peaks(self) -> tuple[int, ...]:
        """Largest value that each layer, and last the classifier, can be fed per channel."""
        return (PIXEL_PEAK, *(2**layer.code_bits - 1 for layer in self.config.layers))

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by its name in the file."""
        arrays = {}
        for layer in self.layers:
            arrays |= layer.arrays
        return arrays | {"classifier.weight": self.classifier_weight,
                         "classifier.bias": self.classifier_bias}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of configuration, shifts and arrays; the file's packing does not count."""
        # Without defaults, so that a new optional field leaves the digests of old networks alone.
        network = self.config.model_dump(mode="json", exclude_defaults=True)
        content = {"network": network, "shifts": [layer.shift for layer in self.layers]}
        sha = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
        for name, values in self.arrays.items():
            sha.update(f"{name} {values.dtype} {values.shape}\n".encode())
            sha.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
        return sha.hexdigest()


def save_network(network: Network, path: str | Path):
    """Writes one file, whole or not at all; equal networks and records give equal bytes.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """
    path = Path(path)
    header = {"format": FORMAT, "version": VERSION,
              "network": network.config.model_dump(mode="json"),
              "shifts": [layer.shift for layer in network.layers], "record": network.record}
    text = json.dumps(header, sort_keys=True, indent=1).encode()
    members = {"header": np.frombuffer(text, np.uint8), **network.arrays}
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(part, "w") as archive:
            for name, values in members.items():
                archive.writestr(*_member(name, values))
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def save_record(network: Network, path: str | Path):
    """Writes the record alone as JSON beside the artifact `path`, for people to read."""
    path = Path(path).with_suffix(".json")
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(network.record, sort_keys=True, indent=1) + "\n")
    os.replace(part, path)


def _member(name: str, values: np.ndarray) -> tuple[zipfile.ZipInfo, bytes]:
    """As numpy.savez_compressed writes it, but the same on every day and system."""
    info = zipfile.ZipInfo(f"{name}.npy", EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system, info.external_attr = 3, 0o600 << 16  # as on Unix
    file = io.BytesIO()
    np.lib.format.write_array(file, values.astype(values.dtype.newbyteorder("<")), (1, 0),
                              allow_pickle=False)
    return info, file.getvalue()


def load_network(path: str | Path) -> Network:
    """Reads and checks one file.

    Raises
    ------
    ConfigError
        One line that names the file, the layer, what was wanted and what came.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if "header.npy" not in archive.namelist():
                raise ConfigError("not a Hexlane file: it has no header")
            header = _parse_header(_read(archive, "header"))
            config = parse_config(header["network"], "header", NetworkConfig)
            return _assemble(archive, header, config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except _DAMAGE as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{path}: not a Hexlane file, or a damaged one: {said}") from error


def _read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    return np.lib.format.read_array(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)


def _parse_header(values: np.ndarray) -> dict:
    header = json.loads(values.tobytes())
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ConfigError(f"not a Hexlane file: its header does not name the format {FORMAT!r}")
    if header.get("version") != VERSION:
        raise ConfigError(f"version must be {VERSION}, not {header.get('version')!r}")
    for name, kind in (("network", dict), ("shifts", list), ("record", dict)):
        if not isinstance(header.get(name), kind):
            raise ConfigError(f"header: {name} must be a JSON {kind.__name__}, "
                              f"not {header.get(name)!r:.60}")
    return header


def _assemble(archive: zipfile.ZipFile, header: dict, config: NetworkConfig) -> Network:
    shifts = header["shifts"]
    if len(shifts) != len(config.layers):
        raise ConfigError(f"header: shifts must be {len(config.layers)}, one per layer, "
                          f"not {len(shifts)}")
    kinds = ("weight", "bias")
    wanted = [f"{layer.name}.{kind}" for layer in config.layers
              for kind in (*kinds, *SELECT * (layer.selects),
                           *("seed",) * (layer.generator is not None))]
    wanted += [f"classifier.{kind}" for kind in kinds]
    came = [name.removesuffix(".npy") for name in archive.namelist()]
    if missing := [name for name in wanted if name not in came]:
        raise ConfigError(f"{missing[0]} is missing")
    if sorted(came) != sorted([*wanted, "header"]):
        strange = [name for name in came if name not in wanted and name != "header"]
        raise ConfigError(f"array must be one of the network's, once, not {(strange or came)[0]}")
    arrays = {name: _read(archive, name) for name in wanted}
    layers = tuple(
        Layer(layer, arrays[f"{layer.name}.weight"], arrays[f"{layer.name}.bias"], shift,
              *(arrays.get(f"{layer.name}.{kind}") for kind in (*SELECT, "seed")))
        for layer, shift in zip(config.layers, shifts, strict=True))
    return Network(config, layers, arrays["classifier.weight"], arrays["classifier.bias"],
                   header["record"])
