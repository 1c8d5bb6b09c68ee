"""The quantized encoder in PyTorch, built from the same configuration as the hardware.

Every tensor between layers holds integers (codes, pixels), and so do the weights inside the
convolutions; in float32 a forward pass in evaluation mode therefore computes exactly what the
golden model and the hardware compute.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.artifact import kernel_shape
from export.automaton import cells, generated
from export.config import TrainConfig
from export.network import ConvConfig, MapConfig, NetworkConfig, Operation, SumConfig, walk
from model.cell import QuantCell
from model.gates import Floor, Heaviside, gate, max_pool
from model.quant import (
    MOMENTUM,
    STICKY,
    Normalize,
    QuantWeight,
    Shifted,
    codes,
    fused_codes,
    moments,
)

__all__ = ["MOMENTUM", "STICKY", "Encoder", "QuantWeight", "calibrate"]

SPREAD = {1: 0.8, 2: 1.6, 3: 3.2}  # target standard deviation of y, in codes, by code precision
CENTRED = 0.53  # of these, for codes that begin in the middle of their range
OF_PEAK = 3 / 16  # target standard deviation of a map's values, in shares of the largest one
CELL_ROUNDS = 3  # in which a cell's statistics settle
DEFAULT_RECIPE = TrainConfig()


class Coded(Shifted):
    """Base of what makes codes of its sums (n, channels, h, w): layer-shared bit-shift
    normalization.

    `y = (acc + bias) / 2**shift`, `code = clip(floor(y))`. The shift follows the running standard
    deviation of the layer's accumulators, the bias absorbs the channel's running mean and the
    learned offset `beta` (in codes).

    `round_weights` and `round_codes` are set by :meth:`Encoder.quantize`; without them the layer
    computes with real numbers in the same ranges. Then it divides by the standard deviation itself,
    as what a power of two misses could be in the weights: deep networks learn far better so. If it
    is `steady`, training computes with the running statistics, not with those of the batch.
    """

    def __init__(self, layer: ConvConfig | SumConfig, weight: Tensor, recipe: TrainConfig,
                 centred: bool = False):
        super().__init__(weight, layer.weight_bits, recipe.steps,
                         SPREAD[layer.code_bits] * (CENTRED if centred else 1))
        self.layer = layer
        self.round_codes, self.steady = True, False
        self.norm = None
        if recipe.normalization == "batch":
            self.norm = nn.BatchNorm2d(layer.channels)
            nn.init.constant_(self.norm.weight, self.spread)
            self.norm.bias.requires_grad_(False)
        begin = 2.0 ** (layer.code_bits - 1) if centred else 1.0
        self.beta = nn.Parameter(torch.full((layer.channels,), begin))

    def accumulate(self, x: Tensor) -> Tensor:
        """Sums (n, channels, h, w) of what the operation sees; integers, exact in float32."""
        raise NotImplementedError

    def integer_bias(self) -> Tensor:
        """The hardware's bias, one integer per channel."""
        return torch.round(self.beta * 2**self.shift - self.mean)

    def scale(self, square: Tensor) -> Tensor:
        """What sums of variance `square` are multiplied by to give codes."""
        if self.round_weights:
            return torch.exp2(-self.shift)
        return self.spread / square.clamp_min(1e-6).sqrt()  # all sums may be the same

    def forward(self, x: Tensor) -> Tensor:
        acc, bits = self.accumulate(x), self.layer.code_bits
        if self.norm is not None:  # for comparison only: no integers, no export
            zero, one = torch.zeros_like(self.beta), torch.ones_like(self.shift)
            return Normalize.apply(self.norm(acc), zero, self.beta, one, bits, self.round_codes)
        if self.training:
            mean, square = moments(acc.detach())
            self.observe(mean, square, self.momentum)
            if self.steady:
                mean, square = self.mean, self.square
            return Normalize.apply(acc, mean, self.beta, self.scale(square), bits,
                                   self.round_codes, not self.steady)
        exact, scale = acc.dtype == torch.float32, self.scale(self.square)
        offset = (self.integer_bias() if self.round_weights
                  else self.beta / scale - self.mean) * scale
        return (codes if exact else fused_codes)(acc, offset, scale, bits, self.round_codes)


class QuantConv(Coded):
    """Convolution, and 2x2 maximum if asked for.

    The maximum is taken before the normalization, with which it commutes, so that the statistics
    are those of the values that become codes. With three frames it sees (n, channels, t + 2, h, w)
    and makes of it codes of t frames, or of every second one, ((n t), channels, h, w).
    """

    def __init__(self, layer: ConvConfig, in_channels: int, pad: int, recipe: TrainConfig):
        shape = in_channels // layer.groups, *kernel_shape(layer)
        weight = torch.randn(layer.channels, *shape) / math.sqrt(math.prod(shape))
        super().__init__(layer, weight, recipe, recipe.centred_muxes and layer.gate == "mux")
        self.pad = pad
        if layer.generator is not None:  # weights that are not learned
            seed = torch.randint(0, 2, (cells(layer),), dtype=torch.uint8)
            made = generated(layer, seed.numpy(), in_channels)[:, :, None, None]
            del self.weight
            self.register_buffer("seed", seed)
            self.register_buffer("weight", torch.from_numpy(made).float())

    def levels(self) -> Tensor:
        return super().levels() if self.layer.generator is None else self.weight

    def accumulate(self, x: Tensor) -> Tensor:
        """Pooled if the layer pools."""
        weight, layer = self.levels(), self.layer
        edge = layer.kernel // 2
        if edge and self.pad:
            x = F.pad(x, (edge,) * 4, value=self.pad)
            edge = 0
        if layer.frames > 1:
            acc = F.conv3d(x, weight, stride=(layer.every, 1, 1), padding=(0, edge, edge),
                           groups=layer.groups).transpose(1, 2).flatten(0, 1)
        else:
            acc = F.conv2d(x, weight, padding=edge, groups=layer.groups)
        # Behind a gate it is the merged codes that are pooled.
        return max_pool(acc) if layer.pool and not layer.gate else acc


class QuantSum(QuantWeight):
    """Weighted sums over all pixels of a map of `channels`, one for each of `layer.channels`."""

    def __init__(self, layer: SumConfig, channels: int, recipe: TrainConfig):
        weight = torch.randn(layer.channels, channels, 1, 1) / math.sqrt(channels)
        super().__init__(weight, layer.weight_bits, recipe.steps)
        self.layer = layer

    def accumulate(self, x: Tensor) -> Tensor:
        """Sums (n, outputs) of (n, channels, h, w); exact in float32."""
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float().sum((2, 3)), self.levels().flatten(1))


class QuantVector(Coded):
    """Codes (n, channels, 1, 1) of weighted sums over all pixels of a map."""

    def __init__(self, layer: SumConfig, channels: int, recipe: TrainConfig):
        weight = torch.randn(layer.channels, channels, 1, 1) / math.sqrt(channels)
        super().__init__(layer, weight, recipe)

    def accumulate(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            sums = F.linear(x.float().sum((2, 3)), self.levels().flatten(1))
        return sums[:, :, None, None]


class Select(QuantSum):
    """What a mux selects by: one bit per channel.

    It begins with a choice that few images change, every other channel passed, and of the copies
    of a repeated channel every other one. While codes are not rounded, neither is the choice: a
    ramp from 0 to 1 mixes the two sides.
    """

    def __init__(self, layer: SumConfig, channels: int, recipe: TrainConfig):
        super().__init__(layer, channels, recipe)
        self.round_selects = True
        channel = torch.arange(layer.channels)
        passed = (channel % channels + channel // channels) % 2
        self.beta = nn.Parameter(2.0 * (2 * passed - 1))
        self.register_buffer("mean", torch.zeros(layer.channels))
        self.register_buffer("square", torch.ones(()))  # of sum - mean, all channels

    def integer_bias(self) -> Tensor:
        """The hardware's bias, one integer per channel."""
        return torch.round(self.beta * self.square.sqrt() - self.mean)

    def forward(self, x: Tensor) -> Tensor:
        sums, mean = self.accumulate(x), self.mean
        if self.round_selects and not self.training:
            return (sums + self.integer_bias() >= 0).float()
        if self.training:
            mean = sums.mean(0)
            with torch.no_grad():
                self.mean.lerp_(mean, MOMENTUM)
                self.square.lerp_((sums - mean).square().mean(), MOMENTUM)
        z = (sums - mean) / (self.square.sqrt() + 1e-6) + self.beta
        return Heaviside.apply(z) if self.round_selects else ((z + 1) / 2).clamp(0, 1)


class Head(QuantSum):
    """The scores of the classes; in training they are logits.

    A logit is worth a `scale` of the integers, times what a learned gain, which no class sees,
    makes of it: standardized weights have no other way to say how sure they are.
    """

    def __init__(self, layer: SumConfig, channels: int, pixels: int, spread: float,
                 recipe: TrainConfig):
        super().__init__(layer, channels, recipe)
        self.bias = nn.Parameter(torch.zeros(layer.channels))
        self.log_gain = nn.Parameter(torch.zeros(()))
        self.pixels, self.scale = pixels, spread * math.sqrt(channels) * pixels / 2

    def integer_bias(self) -> Tensor:
        """The hardware's bias, one integer per class."""
        return torch.round(self.bias * self.scale)

    def forward(self, x: Tensor) -> Tensor:
        sums = self.accumulate(x) * (self.pixels / x[0, 0].numel())  # 1 but for crops
        if self.training:
            return (sums / self.scale + self.bias) * self.log_gain.exp()
        return sums + self.integer_bias()

    def logits(self, scores: Tensor) -> Tensor:
        """What the scores of evaluation mode are in training."""
        return scores * (self.log_gain.exp() / self.scale)


class MapHead(Shifted):
    """The signed values of each position of a map; in training real numbers, in place of them.

    A value is worth a `gain` of its channel, which is learned and which the hardware does not
    know: standardized weights have no other way to say how much. Training subtracts the running
    means of the sums, not those of the batch.
    """

    def __init__(self, layer: MapConfig, channels: int, recipe: TrainConfig):
        weight = torch.randn(layer.channels, channels, 1, 1) / math.sqrt(channels)
        peak = 2 ** (layer.out_bits - 1)
        super().__init__(weight, layer.weight_bits, recipe.steps, OF_PEAK * peak)
        self.layer, self.limits = layer, (-peak, peak - 1)
        self.unit = math.sqrt(channels)  # a sum's, before it is learned
        self.beta = nn.Parameter(torch.zeros(layer.channels))
        self.log_gain = nn.Parameter(torch.zeros(layer.channels))

    @property
    def gain(self) -> Tensor:
        """What a value of each channel is worth."""
        return self.log_gain.exp() * 2**self.shift / self.unit

    def accumulate(self, x: Tensor) -> Tensor:
        """Sums (n, outputs, h, w) of (n, channels, h, w); exact in float32."""
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x.float(), self.levels())

    def integer_bias(self) -> Tensor:
        """The hardware's bias, one integer per channel; half a value is for the rounding."""
        offset = self.beta / self.gain + 0.5
        return torch.round(offset * 2**self.shift - self.mean)

    def forward(self, x: Tensor) -> Tensor:
        acc = self.accumulate(x)
        if not self.training:
            bias = self.integer_bias()[:, None, None]
            return torch.floor((acc + bias) * 2**-self.shift).clamp(*self.limits)
        self.observe(*moments(acc.detach()), self.momentum)
        gain = self.gain[:, None, None]
        y = (acc - self.mean[:, None, None]) * 2**-self.shift + self.beta[:, None, None] / gain
        if self.round_weights:
            y = Floor.apply(y + 0.5)
        return y.clamp(*self.limits) * gain


def fold(x: Tensor, side: int) -> Tensor:
    """Pixels (n, c, h, w) as (n, side**2 c, h / side, w / side), channel (dy side + dx) c + k."""
    if side == 1:
        return x
    n, channels, height, width = x.shape
    blocks = F.pixel_unshuffle(x, side).view(n, channels, side**2, height // side, width // side)
    return blocks.transpose(1, 2).flatten(1, 2)


class Encoder(nn.Module):
    """The network of a configuration: pixels (n, channels, h, w), 0 ... 255, to what it gives.

    That is a score for each class, in evaluation mode an integer, the sum over the last map; or a
    map of codes; or of values, see :class:`MapHead`. `parts` are its operations by name.

    If the network reads clips, pixels are (n, frames, channels, h, w), and the second dimension of
    each result counts the ticks at which it is computed.
    """

    def __init__(self, network: NetworkConfig, recipe: TrainConfig = DEFAULT_RECIPE):
        super().__init__()
        self.network, self.adds = network, recipe.residuals == "add"
        self.parts = nn.ModuleDict({each.name: self._part(each, recipe)
                                    for each in network.operations
                                    if not self.adds or not _selects(each)})
        if network.output == "codes":
            # The first filters have to say how bright the pixels are. If all batches had the same
            # mean, nobody could.
            self.parts[network.operations[0].name].centred = False
            for conv in self.convs:
                conv.steady = True
        self.quantize(weights=True, codes=True)

    def _part(self, operation: Operation, recipe: TrainConfig) -> QuantWeight:
        network, source = self.network, self.network.source(operation)
        if operation.kind == "conv":
            return QuantConv(operation, source.channels, network.pad_of(operation), recipe)
        if _selects(operation):
            return Select(operation, source.channels, recipe)
        if operation.kind == "cell":
            return QuantCell(operation, recipe)
        if operation.makes_codes:
            return QuantVector(operation, source.channels, recipe)
        if operation.kind == "map":
            return MapHead(operation, source.channels, recipe)
        spread = max(SPREAD[network.by_name[name].code_bits] for name in operation.inputs)
        return Head(operation, source.channels, source.pixels, spread, recipe)

    @property
    def convs(self) -> list[QuantConv]:
        return [part for part in self.parts.values() if isinstance(part, QuantConv)]

    @property
    def head(self) -> Head | QuantConv | MapHead:
        """What gives the result."""
        return self.parts[self.network.operations[-1].name]

    def quantize(self, *, weights: bool, codes: bool, cells: bool = True):
        """Whether weights and codes are rounded to their levels, and in `cells` too; all are,
        unless told.

        Codes that leave always are: who reads them would soon live on what rounding takes away.
        """
        for part in self.parts.values():
            part.round_weights = weights
            if isinstance(part, Select):
                part.round_selects = codes
            elif isinstance(part, QuantCell):
                part.round_weights, part.round_codes = weights and cells, codes and cells
            elif isinstance(part, Coded):
                part.round_codes = (codes or part is self.head) and not self.adds
        self.round_reads = codes and self.adds

    def read(self, inputs: list[Tensor]) -> Tensor:
        """What an operation sees; where residuals are added, maps are real, y - 1/2."""
        x = inputs[0] if len(inputs) == 1 else torch.cat(inputs, -3)
        return Floor.apply(x + 0.5) if self.round_reads else x

    def seen(self, operation: Operation, inputs: list[Tensor]) -> Tensor:
        """What the operation's part takes: of clips each of its ticks, (n t, channels, h, w).

        A cell takes (n, t, channels, 1, 1), a convolution of three frames (n, channels, t, h, w)
        from the frame on that lies two before the first tick's.
        """
        network = self.network
        if not network.timed:
            return self.read(inputs)
        if operation.frames > 1:
            edge = (0, 0, 0, 0, operation.frames - 1, 0)
            x = F.pad(self.read(inputs).transpose(1, 2), edge, value=network.pad_of(operation))
            return x[:, :, operation.every - 1:]
        steps = [network.periods[operation.name] // network.periods[name]
                 for name in operation.inputs]
        x = self.read([x[:, step - 1::step] for x, step in zip(inputs, steps, strict=True)])
        return x if operation.kind == "cell" else x.flatten(0, 1)

    def apply_operation(self, operation: Operation, inputs: list[Tensor], skip: Tensor | None,
                        passed: Tensor | None) -> Tensor | None:
        """One operation's result; none of a sum whose mux is an adder, for comparison."""
        if operation.name not in self.parts:
            return None
        if not self.network.timed:
            return self._result(operation, inputs, skip, passed)
        periods = self.network.periods
        clips, ticks = inputs[0].shape[:2]
        ticks //= periods[operation.name] // periods[operation.inputs[0]]
        if not ticks:  # the clip is too short
            shape = self.network.shapes[operation.name]
            scores = operation.kind == "sum" and not operation.makes_codes
            return inputs[0].new_zeros(
                (clips, 0, shape.channels, *(() if scores else shape.size)))
        skip, passed = (None if x is None else x.flatten(0, 1) for x in (skip, passed))
        x = self._result(operation, inputs, skip, passed)
        return x if operation.kind == "cell" else x.unflatten(0, (clips, ticks))

    def _result(self, operation: Operation, inputs: list[Tensor], skip: Tensor | None,
                passed: Tensor | None) -> Tensor:
        part = self.parts[operation.name]
        x = part(self.seen(operation, inputs))
        if operation.kind != "conv" or not operation.gate:
            return x
        skip_bits = self.network.by_name[operation.skip].code_bits
        x = gate(operation, x, skip, skip_bits, passed, part.round_codes, self.adds)
        return max_pool(x) if operation.pool else x

    def folded(self, x: Tensor) -> Tensor:
        """Pixels as the first operation reads them."""
        if not self.network.timed:
            return fold(x, self.network.fold)
        frames = fold(x.flatten(0, 1), self.network.fold)
        return frames.contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])

    def forward(self, x: Tensor) -> Tensor:
        results = walk(self.network, self.folded(x), self.apply_operation, keep=False)
        return results[self.head.layer.name]


def _selects(operation: Operation) -> bool:
    return operation.kind == "sum" and operation.output == "select"


@torch.no_grad()
def calibrate(encoder: Encoder, images: Tensor, batch: int = 250):
    """Replaces the running statistics by those of `images`, in exact float32, layer by layer.

    Shifts stay. Cells are run several times, as their sums depend on them. The statistics of
    training come from bf16 sums and a moving network; these are the ones that are exported. (Codes
    themselves are exact in bfloat16.)
    """
    encoder.eval()

    def apply(operation: Operation, inputs, skips, selects) -> list[Tensor] | None:
        """As the encoder's, for lists of batches."""
        part = encoder.parts[operation.name] if operation.name in encoder.parts else None
        if part is None or isinstance(part, Head):
            return None
        batches = list(zip(*inputs, strict=True))
        for _ in range(CELL_ROUNDS if operation.kind == "cell" else 1):
            _set_statistics(part, (
                part.accumulate(encoder.seen(operation, [x.float() for x in each]))
                for each in batches))
        out = []
        for k, each in enumerate(batches):
            skip, passed = (None if of is None else of[k] for of in (skips, selects))
            codes = encoder.apply_operation(operation, [x.float() for x in each],
                                            None if skip is None else skip.float(), passed)
            out.append(codes if encoder.adds or _selects(operation) else codes.to(torch.bfloat16))
        return out

    walk(encoder.network, list(encoder.folded(images).split(batch)), apply, keep=False)


def _set_statistics(part: Shifted | Select, batches):
    """Mean of each channel, and the variance around it over all channels."""
    if isinstance(part, QuantCell):
        mean, square = part.moments(torch.cat([acc.flatten(0, 1) for acc in batches]).double())
        part.mean.copy_(mean)
        part.square.copy_(square)
        return
    if isinstance(part, Select):
        sums = torch.cat(list(batches)).double()
        part.mean.copy_(sums.mean(0))
        part.square.copy_((sums - sums.mean(0)).square().mean())
        return
    total, square, count = 0.0, 0.0, 0
    for acc in batches:
        acc = acc.double()
        total, square = total + acc.sum((0, 2, 3)), square + acc.square().sum((0, 2, 3))
        count += acc.numel() // acc.shape[1]
    part.mean.copy_(total / count)
    part.square.copy_((square / count - (total / count).square()).mean())
