"""The golden model: what every other side must compute, bit for bit, in numpy integers.

One function per kind of operation, and `run` walks over them. Maps are [N, C, H, W]. A network
that reads clips is a :class:`Stream`: one frame in, what is computed at it out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from export.artifact import Layer, Network
from export.checked import ConfigError
from export.network import PIXELS, CellConfig, ConvConfig, NetworkConfig, walk

WORKING_SET = 16 * 2**20  # bytes of intermediates at a time; more would leave the caches
COLUMNS = 2**28  # bytes of a layer's columns at a time, however many images come
FLOAT32_EXACT = 2**24  # every integer up to here is a float32


@dataclass(frozen=True, eq=False)
class Trace:
    """Every operation's result of a run over N images, by name.

    `codes` are uint8 [N, C, H, W] of what makes codes, of convolutions after pooling; `sums` int32
    [N, C] of the other sums. `scores` are the last ones, `classes` int64 [N]. `values` are int8
    [N, C, H, W] of the map that ends the network, if one does. Of clips, N counts the frames at
    which the operation was computed.
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

    `x` is uint8 [N, I, H, W], codes or pixels, or [N, I, 3, H, W] of a layer of three frames, the
    oldest first; outside of it lies `pad`. Raises :class:`ConfigError` for any other type or number
    of channels or frames.
    """
    config = layer.config
    inputs, frames = layer.weight.shape[1] * config.groups, config.frames
    axes = f"{inputs}, {frames}" if frames > 1 else f"{inputs}"
    wanted = (inputs, frames) if frames > 1 else (inputs,)
    if x.dtype != np.uint8 or x.ndim != 3 + len(wanted) or x.shape[1:-2] != wanted:
        raise ConfigError(f"{config.name}: input must be uint8 [N, {axes}, H, W],"
                          f" not {x.dtype} {list(x.shape)}")
    if frames == 1:
        return _conv(layer.weight, config.groups, x, pad)
    return sum(_conv(layer.weight[:, :, k], config.groups, x[:, :, k], pad)
               for k in range(frames))


def _conv(weights: np.ndarray, groups: int, x: np.ndarray, pad: int) -> np.ndarray:
    channels, inputs, kernel, _ = weights.shape
    n, _, height, width = x.shape
    most = max(1, COLUMNS // (4 * inputs * kernel**2 * groups * height * width))
    if n > most:
        return np.concatenate([_conv(weights, groups, x[k:k + most], pad)
                               for k in range(0, n, most)])
    # Matrix products of floats are fast, and exact while no partial sum outgrows the mantissa;
    # float64's would hold the sums of 10**13 weights.
    reach = 255 * int(np.abs(weights).sum((1, 2, 3), dtype=np.int64).max())
    exact = np.float32 if reach < FLOAT32_EXACT else np.float64
    edge = kernel // 2
    padded = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)), constant_values=pad)
    taps = sliding_window_view(padded, (kernel, kernel), axis=(2, 3)).transpose(0, 1, 4, 5, 2, 3)
    columns = taps.astype(exact, order="C").reshape(n, groups, inputs * kernel**2, height * width)
    weight = weights.astype(exact).reshape(groups, channels // groups, inputs * kernel**2)
    return (weight @ columns).astype(np.int32).reshape(n, channels, height, width)


def activate(layer: Layer, acc: np.ndarray) -> np.ndarray:
    """Codes uint8 of `acc`'s shape: bias, arithmetic shift, clip."""
    return clipped(layer, (acc + layer.bias[:, None, None]) >> layer.shift)


def clipped(layer: Layer, y: np.ndarray) -> np.ndarray:
    """Codes uint8 of `y`'s shape."""
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


def joined(maps: list[np.ndarray], bands: int = 1) -> np.ndarray:
    """Maps [N, C, H, W] concatenated; or one's `bands`, of H / bands rows each."""
    x = maps[0] if len(maps) == 1 else np.concatenate(maps, 1)
    if bands == 1:
        return x
    n, channels, height, width = x.shape
    cut = x.reshape(n, channels, bands, height // bands, width)
    return cut.swapaxes(1, 2).reshape(n, bands * channels, height // bands, width)


def pool(codes: np.ndarray) -> np.ndarray:
    """Maximum over 2x2; an odd last row or column is dropped."""
    height, width = (size // 2 * 2 for size in codes.shape[2:])
    rows = np.maximum(codes[:, :, 0:height:2], codes[:, :, 1:height:2])
    return np.maximum(rows[..., 0:width:2], rows[..., 1:width:2])


def summed(layer: Layer, codes: np.ndarray) -> np.ndarray:
    """Sums int32 [N, O] over the map `codes`, weighted, with bias."""
    sums = codes.sum((2, 3), dtype=np.int64)
    return (sums @ layer.weight[:, :, 0, 0].T.astype(np.int64) + layer.bias).astype(np.int32)


def vector(layer: Layer, codes: np.ndarray) -> np.ndarray:
    """Codes uint8 [N, O, 1, 1] of the sums over the map `codes`."""
    return clipped(layer, summed(layer, codes) >> layer.shift)[:, :, None, None]


def begin(config: CellConfig, count: int) -> tuple[np.ndarray, np.ndarray]:
    """h(-1) uint8 [N, O, 1, 1] and c(-1) int8 [N, O] of a cell, for `count` clips."""
    return (np.zeros((count, config.channels, 1, 1), np.uint8),
            np.zeros((count, config.channels), np.int8))


def cell(layer: Layer, x: np.ndarray, h: np.ndarray, c: np.ndarray
         ) -> tuple[np.ndarray, np.ndarray]:
    """h(t), c(t) of x(t), uint8 [N, I, 1, 1], h(t-1) and c(t-1), as :func:`begin` gives them."""
    config, weight = layer.config, layer.weight.astype(np.int64)
    acc = x[..., 0, 0] @ weight[..., 0].T + h[..., 0, 0] @ weight[..., 1].T + layer.bias
    gates = dict(zip(config.gates, np.split(acc, len(config.gates), 1), strict=True))
    top, peak = 2**(config.value_bits - 1), 2**(config.state_bits - 1)
    g = np.clip(gates["g"] >> layer.shift, -top, top - 1)
    keep = gates["f"] >= 0
    if config.form == "full":
        c = np.where(keep, c, 0) + np.where(gates["i"] >= 0, g, 0)
    else:
        c = np.where(keep, c, g)
    c = np.clip(c, -peak, peak - 1)
    h = clipped(layer, (c >> config.state_shift) + 2**(config.code_bits - 1))
    return np.where(gates["o"] >= 0, h, 0)[..., None, None].astype(np.uint8), c.astype(np.int8)


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
    """One operation's result: codes, sums, or values; not of a cell, which remembers."""
    config = layer.config
    x = joined(inputs, config.bands)
    if config.kind == "sum":
        return vector(layer, x) if config.makes_codes else summed(layer, x)
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
        If the images are not of the network's size and type, or it reads clips.
    """
    return _trace(network, list(_batches(network, images)))


def _trace(network: Network, parts: list[dict[str, np.ndarray]]) -> Trace:
    found = {name: np.concatenate([part[name] for part in parts if name in part])
             for name in network.by_name if any(name in part for part in parts)}
    end = network.config.operations[-1].name
    last = found.pop(end, None) if network.config.output == "map" else None
    return Trace({name: each for name, each in found.items() if each.ndim == 4},
                 {name: each for name, each in found.items() if each.ndim == 2}, last)


def predict(network: Network, images: np.ndarray) -> np.ndarray:
    """Classes int64 [N] alone, in little memory; errors are those of :func:`run`."""
    last = network.config.operations[-1].name
    return np.concatenate([part[last].argmax(1) for part in _batches(network, images, False)])


class Stream:
    """A network that reads clips, frame after frame, and remembers what it needs of those before.

    `restart` begins a clip, as construction does. What the network gives is the result of its last
    operation, at each frame at which that is computed.
    """

    def __init__(self, network: Network):
        self.network = network
        config = network.config
        self._remembered = {name for each in config.operations if each.frames > 1
                            for name in each.inputs}
        self.restart()

    def restart(self):
        """The next frame is a clip's first one."""
        self.frames = 0  # of the clip so far
        self._past: dict[str, list[np.ndarray]] = {}  # of a map, at most the three last ones
        self.states: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # of a cell, h and c

    def step(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        """The next frame of each of N clips, uint8 [N, H, W, C]: the results at it, by name.

        They are of the operations that are computed at this frame.

        Raises
        ------
        ConfigError
            If the frames are not of the network's size and type.
        """
        config = self.network.config
        _check_images(config, frames)
        self.frames += 1

        def computed(operation, inputs, skip, sums):
            if self.frames % config.periods[operation.name]:
                return None
            layer = self.network.by_name[operation.name]
            if operation.kind == "cell":
                before = self.states.get(operation.name) or begin(operation, len(frames))
                self.states[operation.name] = cell(layer, inputs[0], *before)
                return self._remember(operation.name, self.states[operation.name][0])
            if operation.frames > 1:
                pad = config.pad_of(operation)
                inputs = [self._window(name, operation.frames, pad) for name in operation.inputs]
            return self._remember(operation.name,
                                  apply(self.network, layer, inputs, skip, sums))

        pixels = self._remember(PIXELS, fold(frames, config.fold))
        found = walk(config, pixels, computed)
        return {name: each for name, each in found.items()
                if name != PIXELS and each is not None}

    def _remember(self, name: str, result: np.ndarray) -> np.ndarray:
        if name in self._remembered:
            self._past[name] = [*self._past.get(name, []), result][-3:]
        return result

    def _window(self, name: str, frames: int, pad: int) -> np.ndarray:
        """The last so many of a map, uint8 [N, C, frames, H, W]; `pad` before the first one."""
        past = self._past[name]
        before = [np.full_like(past[0], pad)] * (frames - len(past))
        return np.stack([*before, *past], 2)


def trace_of(network: Network, results: dict[str, np.ndarray]) -> Trace:
    """What one step of a stream gives, as a trace."""
    return _trace(network, [results])


def run_clips(network: Network, clips: Sequence[np.ndarray]) -> Trace:
    """All results for clips uint8 [T, H, W, C] one behind the other; errors as of a stream's step.

    A clip may have any length.
    """
    return _trace(network, _steps(network, clips))


def frame_traces(network: Network, clips: Sequence[np.ndarray]) -> list[Trace]:
    """As :func:`run_clips`, but for each frame what is computed at it."""
    return [trace_of(network, results) for results in _steps(network, clips)]


def _steps(network: Network, clips: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
    stream, steps = Stream(network), []
    for clip in clips:
        stream.restart()
        steps += [stream.step(frame[None]) for frame in clip]
    return steps


def _check_images(config: NetworkConfig, images: np.ndarray):
    wanted = (config.height, config.width, config.channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
        raise ConfigError(f"images must be uint8 [N, {', '.join(map(str, wanted))}], "
                          f"not {images.dtype} {list(images.shape)}")


def _batches(network: Network, images: np.ndarray,
             keep: bool = True) -> Iterator[dict[str, np.ndarray]]:
    config = network.config
    if config.timed:
        raise ConfigError("a network that reads clips must be run frame after frame, not on images "
                          "alone")
    _check_images(config, images)
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
