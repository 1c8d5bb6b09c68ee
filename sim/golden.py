"""The golden model: what every other side must compute, bit for bit, in numpy integers.

One function per layer kind, and `run` composes them. Feature maps are [N, C, H, W].
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from export.artifact import Layer, Network
from export.config import ConfigError

WORKING_SET = 16 * 2**20  # bytes of intermediates at a time; more would leave the caches
FLOAT32_EXACT = 2**24  # every integer up to here is a float32


@dataclass(frozen=True, eq=False)
class Trace:
    """Every layer boundary of a run over N images.

    `codes` holds per layer uint8 [N, C, H, W], after pooling; `scores` is int32 [N, classes],
    `classes` int64 [N].
    """

    codes: tuple[np.ndarray, ...]
    scores: np.ndarray
    classes: np.ndarray


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


def pool(codes: np.ndarray) -> np.ndarray:
    """Maximum over 2x2; an odd last row or column is dropped."""
    height, width = (size // 2 * 2 for size in codes.shape[2:])
    rows = np.maximum(codes[:, :, 0:height:2], codes[:, :, 1:height:2])
    return np.maximum(rows[..., 0:width:2], rows[..., 1:width:2])


def summed(weight: np.ndarray, bias: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Sums int32 [N, O] over the feature map `codes`, weighted [O, I], with bias [O]."""
    sums = codes.sum((2, 3), dtype=np.int64)
    return (sums @ weight.T.astype(np.int64) + bias).astype(np.int32)


def gate(layer: Layer, codes: np.ndarray, skip: np.ndarray, skip_bits: int) -> np.ndarray:
    """Merges `codes` with the feature map `skip` of codes of `skip_bits`; no adder in either gate.

    A skip of twice the size is pooled, one of fewer channels repeated, one of other precision
    shifted. "or" works bit by bit. A channel is selected if the skip's weighted sums are not
    negative: then "mux" takes its codes, else the skip's; "mux_or" merges both, else takes its own.
    """
    passed = None
    if layer.config.selects:
        passed = summed(layer.select_weight, layer.select_bias, skip) >= 0
    if skip.shape[2:] != codes.shape[2:]:
        skip = pool(skip)
    skip = np.tile(skip, (1, codes.shape[1] // skip.shape[1], 1, 1))
    wider = layer.config.code_bits - skip_bits
    skip = skip << wider if wider > 0 else skip >> -wider
    if passed is None:
        return codes | skip
    chosen, other = (codes, skip) if layer.config.gate == "mux" else (codes | skip, codes)
    return np.where(passed[:, :, None, None], chosen, other)


def classify(network: Network, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores int32 [N, classes] and classes int64 [N]; the lowest class wins a tie."""
    scores = summed(network.classifier_weight, network.classifier_bias, codes)
    return scores, scores.argmax(1)  # numpy's argmax is the first one


def run(network: Network, images: np.ndarray) -> Trace:
    """All layer boundaries for images uint8 [N, H, W, C].

    Raises
    ------
    ConfigError
        If the images are not of the network's size and type.
    """
    traces = list(_batches(network, images))
    return Trace(codes=tuple(map(np.concatenate, zip(*(t.codes for t in traces), strict=True))),
                 scores=np.concatenate([t.scores for t in traces]),
                 classes=np.concatenate([t.classes for t in traces]))


def predict(network: Network, images: np.ndarray) -> np.ndarray:
    """Classes int64 [N] alone, in little memory; errors are those of :func:`run`."""
    return np.concatenate([trace.classes for trace in _batches(network, images)])


def _batches(network: Network, images: np.ndarray) -> Iterator[Trace]:
    config = network.config
    wanted = (config.height, config.width, config.channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
        raise ConfigError(f"images must be uint8 [N, {', '.join(map(str, wanted))}], "
                          f"not {images.dtype} {list(images.shape)}")
    step = max(1, WORKING_SET // _bytes_per_image(network))
    for start in range(0, max(1, len(images)), step):  # no images make one empty batch
        x = images[start:start + step].transpose(0, 3, 1, 2)
        pad, codes = config.pad, []
        for index, layer in enumerate(network.layers):
            x = activate(layer, conv(layer, x, pad))
            if layer.config.gate:
                source = config.skip_source(index)
                x = gate(layer, x, codes[source], config.layers[source].code_bits)
            if layer.config.pool:
                x = pool(x)
            codes.append(x)
            pad = 0
        yield Trace(tuple(codes), *classify(network, x))


def _bytes_per_image(network: Network) -> int:
    """Intermediates of the largest layer: float32 columns and three int32 maps of outputs."""
    return max(4 * shape.pixels * (shape.channels * layer.kernel**2 + 3 * layer.channels)
               for layer, shape in zip(network.config.layers, network.config.shapes, strict=False))
