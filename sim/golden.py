"""The golden model: what every other side must compute, bit for bit, in numpy integers.

One function per kind of operation, and `run` walks over them. Maps are [N, C, H, W].
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from export.artifact import Layer, Network
from export.checked import ConfigError
from export.network import PIXELS, ConvConfig, walk

WORKING_SET = 16 * 2**20  # bytes of intermediates at a time; more would leave the caches
FLOAT32_EXACT = 2**24  # every integer up to here is a float32


@dataclass(frozen=True, eq=False)
class Trace:
    """Every operation's result of a run over N images, by name.

    `codes` are uint8 [N, C, H, W] of the convolutions, after pooling; `sums` int32 [N, C] of the
    sums. `scores` are the last ones, `classes` int64 [N]. `values` are int8 [N, C, H, W] of the
    map that ends the network, if one does.
    """

    codes: dict[str, np.ndarray]
    sums: dict[str, np.ndarray]
    values: np.ndarray | None = None

    @property
    def scores(self) -> np.ndarray:
        return list(self.sums.values())[-1]

    @property
    def classes(self) -> np.ndarray:
        return self.scores.argmax(1)  # numpy's argmax is the first one


def conv(layer: Layer, x: np.ndarray, pad: int) -> np.ndarray:
    """Sums of weight times input over taps and channels, without bias: int32 [N, O, H, W].

    `x` is uint8 [N, I, H, W], codes or pixels; outside of it lies `pad`. Raises
    :class:`ConfigError` for any other type or number of channels.
    """
    channels, inputs, kernel, _ = layer.weight.shape
    groups = layer.config.groups
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[1] != inputs * groups:
        raise ConfigError(f"{layer.config.name}: input must be uint8 [N, {inputs * groups}, H, W],"
                          f" not {x.dtype} {list(x.shape)}")
    n, _, height, width = x.shape
    # Matrix products of floats are fast, and exact while no partial sum outgrows the mantissa;
    # float64's would hold the sums of 10**13 weights.
    reach = 255 * int(np.abs(layer.weight).sum((1, 2, 3), dtype=np.int64).max())
    exact = np.float32 if reach < FLOAT32_EXACT else np.float64
    edge = kernel // 2
    padded = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)), constant_values=pad)
    taps = sliding_window_view(padded, (kernel, kernel), axis=(2, 3)).transpose(0, 1, 4, 5, 2, 3)
    columns = taps.astype(exact, order="C").reshape(n, groups, inputs * kernel**2, height * width)
    weight = layer.weight.astype(exact).reshape(groups, channels // groups, inputs * kernel**2)
    return (weight @ columns).astype(np.int32).reshape(n, channels, height, width)


def activate(layer: Layer, acc: np.ndarray) -> np.ndarray:
    """Codes uint8 of `acc`'s shape: bias, arithmetic shift, clip."""
    y = (acc + layer.bias[:, None, None]) >> layer.shift
    return np.clip(y, 0, 2**layer.config.code_bits - 1).astype(np.uint8)


def values(layer: Layer, acc: np.ndarray) -> np.ndarray:
    """Signed values int8 of `acc`'s shape: bias, arithmetic shift, clip."""
    y = (acc + layer.bias[:, None, None]) >> layer.shift
    peak = 2**(layer.config.out_bits - 1)
    return np.clip(y, -peak, peak - 1).astype(np.int8)


def fold(images: np.ndarray, side: int) -> np.ndarray:
    """Images [N, H, W, C] as maps [N, side**2 C, H / side, W / side]: space to depth.

    Channel (dy * side + dx) * C + c is channel c of the pixel in row dy, column dx of a block.
    """
    n, height, width, channels = images.shape
    blocks = images.reshape(n, height // side, side, width // side, side, channels)
    return blocks.transpose(0, 2, 4, 5, 1, 3).reshape(
        n, side**2 * channels, height // side, width // side)


def pool(codes: np.ndarray) -> np.ndarray:
    """Maximum over 2x2; an odd last row or column is dropped."""
    height, width = (size // 2 * 2 for size in codes.shape[2:])
    rows = np.maximum(codes[:, :, 0:height:2], codes[:, :, 1:height:2])
    return np.maximum(rows[..., 0:width:2], rows[..., 1:width:2])


def summed(layer: Layer, codes: np.ndarray) -> np.ndarray:
    """Sums int32 [N, O] over the map `codes`, weighted, with bias."""
    sums = codes.sum((2, 3), dtype=np.int64)
    return (sums @ layer.weight[:, :, 0, 0].T.astype(np.int64) + layer.bias).astype(np.int32)


def gate(config: ConvConfig, codes: np.ndarray, skip: np.ndarray, skip_bits: int,
         sums: np.ndarray | None) -> np.ndarray:
    """Merges `codes` with the map `skip` of codes of `skip_bits`; no adder in any gate.

    A skip of twice the size is pooled, one of fewer channels repeated, one of other precision
    shifted. "or" works bit by bit. A channel is selected if its `sums` [N, C] are not negative:
    then "mux" takes its codes, else the skip's; "mux_or" merges both, else takes its own.
    """
    if skip.shape[2:] != codes.shape[2:]:
        skip = pool(skip)
    skip = np.tile(skip, (1, codes.shape[1] // skip.shape[1], 1, 1))
    wider = config.code_bits - skip_bits
    skip = skip << wider if wider > 0 else skip >> -wider
    if sums is None:
        return codes | skip
    chosen, other = (codes, skip) if config.gate == "mux" else (codes | skip, codes)
    return np.where((sums >= 0)[:, :, None, None], chosen, other)


def apply(network: Network, layer: Layer, inputs: list[np.ndarray], skip: np.ndarray | None,
          sums: np.ndarray | None) -> np.ndarray:
    """One operation's result: codes, sums, or values."""
    config = layer.config
    x = inputs[0] if len(inputs) == 1 else np.concatenate(inputs, 1)
    if config.kind == "sum":
        return summed(layer, x)
    acc = conv(layer, x, network.config.pad_of(config))
    if config.kind == "map":
        return values(layer, acc)
    codes = activate(layer, acc)
    if config.gate:
        bits = network.config.by_name[config.skip].code_bits
        codes = gate(config, codes, skip, bits, sums)
    return pool(codes) if config.pool else codes


def run(network: Network, images: np.ndarray) -> Trace:
    """All results for images uint8 [N, H, W, C].

    Raises
    ------
    ConfigError
        If the images are not of the network's size and type.
    """
    parts = list(_batches(network, images))
    found = {name: np.concatenate([part[name] for part in parts])
             for name in parts[0] if name != PIXELS}
    last = found.pop(network.config.operations[-1].name) if network.config.output == "map" else None
    return Trace({name: each for name, each in found.items() if each.ndim == 4},
                 {name: each for name, each in found.items() if each.ndim == 2}, last)


def predict(network: Network, images: np.ndarray) -> np.ndarray:
    """Classes int64 [N] alone, in little memory; errors are those of :func:`run`."""
    last = network.config.operations[-1].name
    return np.concatenate([part[last].argmax(1) for part in _batches(network, images, False)])


def _batches(network: Network, images: np.ndarray,
             keep: bool = True) -> Iterator[dict[str, np.ndarray]]:
    config = network.config
    wanted = (config.height, config.width, config.channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
        raise ConfigError(f"images must be uint8 [N, {', '.join(map(str, wanted))}], "
                          f"not {images.dtype} {list(images.shape)}")
    step = max(1, WORKING_SET // _bytes_per_image(network))
    for start in range(0, max(1, len(images)), step):  # no images make one empty batch
        pixels = fold(images[start:start + step], config.fold)
        yield walk(config, pixels, lambda operation, *each: apply(
            network, network.by_name[operation.name], *each), keep=keep)


def _bytes_per_image(network: Network) -> int:
    """Intermediates of the largest layer: float32 columns and three int32 maps of outputs."""
    config = network.config
    return max(4 * source.pixels * (source.channels * each.kernel**2 + 3 * each.channels)
               for each in config.operations for source in [config.source(each)])
