"""An integer network on disk: one `.npz` file, without pickles.

Its member `header` is JSON (format name, version, the network's configuration, shifts, a free-form
record); each operation has `NAME.weight`, `NAME.bias` and, with a generator, `NAME.seed`. Sizes are
known from the configuration before an array is read, so a file takes no more memory than its
network needs. Whatever cannot be used is refused.
"""

import contextlib
import io
import json
import math
import os
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError

import numpy as np

from export.artifact import Layer, Network
from export.automaton import cells
from export.checked import ConfigError, parse
from export.network import NetworkConfig, weight_count

FORMAT, VERSION = "hexlane", 2
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip file can name
FILE_LIMIT = 2**26  # bytes; no network or decoder has as many
HEADER_LIMIT = 2**23  # bytes
NPY_LIMIT = 1024  # bytes of an array's own header
MEMBER_LIMIT = 4096  # arrays, of which a network has at most three for each operation

DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, ValueError, EOFError,
           RuntimeError, MemoryError, OverflowError, OSError, LookupError, TypeError, SyntaxError,
           AttributeError, TokenError)


def save_network(network: Network, path: str | Path):
    """Writes one file, whole or not at all; equal networks and records give equal bytes.

    Raises
    ------
    ConfigError
        If the file is not to be called `.npz`, cannot be written, or the record is no JSON.
    """
    if Path(path).suffix != ".npz":  # its record goes to `.json` beside it, a decoder likewise
        raise ConfigError(f"{path}: a network's file must end in .npz")
    header = {"format": FORMAT, "version": VERSION,
              "network": network.config.model_dump(mode="json"),
              "shifts": [layer.shift for layer in network.layers], "record": network.record}
    members = {"header": np.frombuffer(_json(header, path).encode(), np.uint8), **network.arrays}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, values in members.items():
            archive.writestr(*member(name, values))
    write_whole(Path(path), file.getvalue())


def save_record(network: Network, path: str | Path):
    """Writes the record alone as JSON beside the artifact `path`, for people to read."""
    path = Path(path).with_suffix(".json")
    write_whole(path, (_json(network.record, path) + "\n").encode())


def _json(values: dict, path: str | Path) -> str:
    try:
        return json.dumps(values, sort_keys=True, indent=1, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: record must be plain JSON: {error}") from error


def write_whole(path: Path, content: bytes):
    """Writes a file, and its folder if need be, or leaves what was there; ConfigError if not."""
    if not path.name:
        raise ConfigError(f"{path}: must be a plain file to be written")
    part = path.with_name(path.name + ".part")
    try:
        if path.exists() and not path.is_file():  # a device would be replaced
            raise ConfigError(f"{path}: must be a plain file to be written")
        if path.is_symlink():  # what it points to is written, and it stays
            write_whole(path.resolve(), content)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def read_whole(path: Path, limit: int) -> bytes:
    """The bytes of a plain file of at most `limit`; ConfigError that names it if it is none."""
    try:
        if path.exists() and not path.is_file():  # a pipe might never end
            raise ConfigError(f"{path}: must be a plain file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise ConfigError(f"{path}: must have at most {limit} bytes, not {size}")
            return file.read(size)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def member(name: str, values: np.ndarray) -> tuple[zipfile.ZipInfo, bytes]:
    """As numpy.savez_compressed writes it, but the same on every day and system."""
    info = zipfile.ZipInfo(f"{name}.npy", EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system, info.external_attr = 3, 0o600 << 16  # as on Unix
    file = io.BytesIO()
    np.lib.format.write_array(file, values.astype(values.dtype.newbyteorder("<")), (1, 0),
                              allow_pickle=False)
    return info, file.getvalue()


def load_network(path: str | Path, wanted: NetworkConfig | None = None,
                 design: str | Path = "wanted") -> Network:
    """Reads and checks one file; its arrays only if the network is that `wanted` by a design.

    Raises
    ------
    ConfigError
        One line that names the file, the layer, what was wanted and what came.
    """
    with opened(Path(path), "a Hexlane file") as (archive, header):
        header = _parse_header(header)
        config = parse(header["network"], "header", NetworkConfig)
        if wanted is not None and config != wanted:
            raise ConfigError(f"is of another network than {design}")
        return _assemble(archive, header, config)


@contextlib.contextmanager
def archived(path: Path, kind: str):
    """An archive; what is wrong in it becomes a ConfigError of `path`, which is to be `kind`."""
    if not os.path.exists(path):
        raise ConfigError(f"{path}: no such file")
    content = read_whole(path, FILE_LIMIT)
    if (found := content.count(b"PK\1\2")) > MEMBER_LIMIT:  # each would be read here for its name
        raise ConfigError(f"{path}: must have at most {MEMBER_LIMIT} arrays, not {found}")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield archive
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except DAMAGE as error:
        said = str(error) or type(error).__name__
        raise ConfigError(f"{path}: not {kind}, or a damaged one: {said}") from error


@contextlib.contextmanager
def opened(path: Path, kind: str):
    """As :func:`archived`, an archive, and its member `header`."""
    with archived(path, kind) as archive:
        if "header.npy" not in archive.namelist():
            raise ConfigError(f"not {kind}: it has no header")
        yield archive, read_member(archive, "header", HEADER_LIMIT)


def read_member(archive: zipfile.ZipFile, name: str, limit: int) -> np.ndarray:
    """One array of at most `limit` bytes."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Of the others, zipfile may decompress more than it was asked for, without a limit.
        raise ConfigError(f"{name} must be stored or deflated, not packed in another way")
    if info.file_size > limit + NPY_LIMIT:
        raise ConfigError(f"{name} must have at most {limit} bytes, not {info.file_size}")
    with archive.open(info) as member:  # the size above is only what the file claims
        content = member.read(limit + NPY_LIMIT + 1)
    if len(content) > limit + NPY_LIMIT:
        raise ConfigError(f"{name} must have at most {limit} bytes, not more")
    file = io.BytesIO(content)
    if (version := np.lib.format.read_magic(file)) != (1, 0):
        raise ConfigError(f"{name} must be in version 1.0 of numpy's format, not {version}")
    with warnings.catch_warnings(action="ignore"):  # of headers as Python 2 wrote them
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if (size := math.prod(shape) * dtype.itemsize) > limit:  # numpy would reserve as much
        raise ConfigError(f"{name} must have at most {limit} bytes, not {size}")
    file.seek(0)
    with warnings.catch_warnings(action="ignore"):
        return np.lib.format.read_array(file, allow_pickle=False)


def _no_number(name: str):
    raise ConfigError(f"header: numbers must be finite, not {name}")


def _finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _no_number(text)


def _parse_header(values: np.ndarray) -> dict:
    header = json.loads(values.tobytes(), parse_constant=_no_number, parse_float=_finite)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ConfigError(f"not a Hexlane file: its header does not name the format {FORMAT!r}")
    if header.get("version") != VERSION:
        raise ConfigError(f"version must be {VERSION}, not {header.get('version')!r:.60}")
    for name, kind in (("network", dict), ("shifts", list), ("record", dict)):
        if not isinstance(header.get(name), kind):
            raise ConfigError(f"header: {name} must be a JSON {kind.__name__}, "
                              f"not {header.get(name)!r:.60}")
    return header


def _assemble(archive: zipfile.ZipFile, header: dict, config: NetworkConfig) -> Network:
    shifts = header["shifts"]
    if len(shifts) != len(config.operations):
        raise ConfigError(f"header: shifts must be {len(config.operations)}, one per operation, "
                          f"not {len(shifts)}")
    sizes = {}  # bytes of every array
    for operation in config.operations:
        inputs = config.source(operation).channels
        sizes[f"{operation.name}.weight"] = weight_count(operation, inputs)
        sizes[f"{operation.name}.bias"] = 4 * operation.filters
        if operation.generator is not None:
            sizes[f"{operation.name}.seed"] = cells(operation)
    came = [name.removesuffix(".npy") for name in archive.namelist()]
    if missing := [name for name in sizes if name not in came]:
        raise ConfigError(f"{missing[0]} is missing")
    if sorted(came) != sorted([*sizes, "header"]):
        strange = [name for name in came if name not in sizes and name != "header"]
        raise ConfigError(f"array must be one of the network's, once, not {(strange or came)[0]}")
    arrays = {name: read_member(archive, name, size) for name, size in sizes.items()}
    layers = tuple(
        Layer(operation, arrays[f"{operation.name}.weight"], arrays[f"{operation.name}.bias"],
              shift, arrays.get(f"{operation.name}.seed"))
        for operation, shift in zip(config.operations, shifts, strict=True))
    return Network(config, layers, header["record"])
