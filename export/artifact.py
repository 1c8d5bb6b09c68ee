"""The frozen integer network: what training hands to the golden model and to the hardware.

:mod:`export.file` keeps it on disk. What cannot be used is refused when it is constructed.
"""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from export.automaton import cells, generated
from export.checked import ConfigError
from export.network import NetworkConfig, Operation

ALPHABET = {1: (-1, 1), 2: (-1, 0, 1), 3: (-2, -1, 0, 1, 2)}  # weight values by weight_bits
MAX_SHIFT = 15
SUM_LIMIT = 2**31  # sums with bias stay below it in size: they are accumulated in int32


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


def kernel_shape(operation: Operation) -> tuple[int, ...]:
    """The last axes of its weights: rows and columns, and frames before them if there are some.

    Of a cell x(t) and h(t-1) alone.
    """
    if operation.taps > 1:
        return (operation.taps,)
    frames = (operation.frames,) if operation.frames > 1 else ()
    return *frames, operation.kernel, operation.kernel


@dataclass(frozen=True, eq=False)
class Layer:
    """The numbers of one operation.

    `weight` is int8 [O, I / groups, k, k], or [O, I / groups, 3, k, k] of three frames, the oldest
    first, from the alphabet of `config.weight_bits`; `bias` is int32 [O]. A cell's O are gate by
    gate, and its weight is int8 [O, I, 2]: of x(t), of h(t-1). A convolution has a `shift` of
    0 ... 15: `code = clip((sums + bias) >> shift, 0, 2**code_bits - 1)`, and so has all but a class
    and a select. A layer with a generator has the `seed`, uint8 [cells] of 0 and 1, that its
    weights follow from. Raises :class:`ConfigError` where anything is not so.
    """

    config: Operation
    weight: np.ndarray
    bias: np.ndarray
    shift: int = 0
    seed: np.ndarray | None = None

    def __post_init__(self):
        config, name = self.config, self.config.name
        shape = (config.filters, None, *kernel_shape(config))
        weight = _frozen(self.weight, np.int8, shape, f"{name}: weight")
        strange = weight[~np.isin(weight, ALPHABET[config.weight_bits])]
        if strange.size:
            allowed = ", ".join(map(str, ALPHABET[config.weight_bits]))
            raise ConfigError(f"{name}: weight must be one of {allowed}, not {strange[0]}")
        most = 0 if config.kind == "sum" and not config.makes_codes else MAX_SHIFT
        if type(self.shift) is not int or not 0 <= self.shift <= most:
            raise ConfigError(f"{name}: shift must be an integer from 0 to {most}, "
                              f"not {self.shift!r}")
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", _frozen(self.bias, np.int32, (config.filters,),
                                                 f"{name}: bias"))
        if config.generator is not None:
            seed = _frozen(self.seed, np.uint8, (cells(config),), f"{name}: seed")
            if (seed > 1).any() or not np.array_equal(
                    weight[:, :, 0, 0], generated(config, seed, weight.shape[1])):
                raise ConfigError(f"{name}: weight must be what the generator makes of seed")
            object.__setattr__(self, "seed", seed)
        elif self.seed is not None:
            raise ConfigError(f"{name}: only a layer with a generator has a seed")

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays by their names in the file."""
        found = {"weight": self.weight, "bias": self.bias}
        if self.seed is not None:
            found["seed"] = self.seed
        return {f"{self.config.name}.{kind}": values for kind, values in found.items()}


@dataclass(frozen=True, eq=False)
class Network:
    """The layers of all operations, checked against each other and against int32.

    `record` says where the network came from (training, accuracy); it is plain JSON and no part of
    the digest. Raises :class:`ConfigError`.
    """

    config: NetworkConfig
    layers: tuple[Layer, ...]
    record: dict = field(default_factory=dict)

    def __post_init__(self):
        config, layers = self.config, tuple(self.layers)
        if len(layers) != len(config.operations):
            raise ConfigError(f"network must have {len(config.operations)} layers, "
                              f"not {len(layers)}")
        for layer, wanted in zip(layers, config.operations, strict=True):
            name, source = wanted.name, config.source(wanted)
            if layer.config != wanted:
                raise ConfigError(f"{name}: layer must be configured as ({wanted}), "
                                  f"not ({layer.config})")
            inputs = source.channels // wanted.groups
            if layer.weight.shape[1] != inputs:
                raise ConfigError(f"{name}: weight must have {inputs} input channels, "
                                  f"not {layer.weight.shape[1]}")
            peak = config.peak(wanted) * (source.pixels if wanted.kind == "sum" else 1)
            rows = np.abs(layer.weight.reshape(len(layer.weight), -1)).sum(1, dtype=np.int64)
            worst = max(row * peak + abs(bias) for row, bias in
                        zip(rows.tolist(), layer.bias.tolist(), strict=True))
            if worst >= SUM_LIMIT:
                raise ConfigError(f"{name}: sums with bias must stay below {SUM_LIMIT}, "
                                  f"but can reach {worst}")
        object.__setattr__(self, "layers", layers)

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        return {layer.config.name: layer for layer in self.layers}

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by its name in the file."""
        return {name: values for layer in self.layers for name, values in layer.arrays.items()}

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
