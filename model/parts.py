"""What the operations of a network are in PyTorch, but for the cell.

Each part computes sums, in :meth:`accumulate`, and makes of them what its operation gives. It keeps
running statistics of them: shifts and biases follow from these.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.artifact import kernel_shape
from export.automaton import cells, generated
from export.config import TrainConfig
from export.network import ConvConfig, MapConfig, SumConfig
from model.gates import Floor, Heaviside, max_pool
from model.quant import (
    MOMENTUM,
    Normalize,
    QuantWeight,
    Shifted,
    codes,
    fused_codes,
    moments,
)

SPREAD = {1: 0.8, 2: 1.6, 3: 3.2}  # target standard deviation of y, in codes, by code precision
CENTRED = 0.53  # of these, for codes that begin in the middle of their range
OF_PEAK = 3 / 16  # target standard deviation of a map's values, in shares of the largest one


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

    def missing(self, x: Tensor) -> Tensor | float:
        """What the sums of :meth:`accumulate` lack, of each channel."""
        return 0.0

    def integer_bias(self) -> Tensor:
        """The hardware's bias, one integer per channel."""
        return torch.round(self.beta * 2**self.shift - self.mean)

    def set_bias(self, bias: Tensor):
        """What is learned becomes that which gives this `integer_bias`."""
        self.beta.copy_((bias + self.mean) / 2**self.shift)

    def scale(self, square: Tensor) -> Tensor:
        """What sums of variance `square` are multiplied by to give codes."""
        if self.round_weights:
            return torch.exp2(-self.shift)
        return self.spread / square.clamp_min(1e-6).sqrt()  # all sums may be the same

    def forward(self, x: Tensor) -> Tensor:
        acc, missing, bits = self.accumulate(x), self.missing(x), self.layer.code_bits
        if self.norm is not None:  # for comparison only: no integers, no export
            zero, one = torch.zeros_like(self.beta), torch.ones_like(self.shift)
            return Normalize.apply(self.norm(acc), zero, self.beta, one, bits, self.round_codes)
        if self.training:
            mean, square = moments(acc.detach())
            self.observe(mean + missing, square, self.momentum)
            if self.steady:
                mean, square = self.mean, self.square
            return Normalize.apply(acc, mean, self.beta, self.scale(square), bits,
                                   self.round_codes, not self.steady)
        exact, scale = acc.dtype == torch.float32, self.scale(self.square)
        offset = (self.integer_bias() if self.round_weights
                  else self.beta / scale - self.mean) * scale + missing * scale
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
        """Weights that are no parameter are integers already."""
        learned = isinstance(self.weight, nn.Parameter)
        return super().levels() if learned else self.weight.view(self.shape)

    def less_pad(self, x: Tensor) -> bool:
        """Whether sums are of pixels less `pad`: rounded to bfloat16, those of the pixels would say
        how bright the image is and little else. A layer that is `steady` has to say that."""
        return bool(self.pad) and x.dtype == torch.bfloat16 and not self.steady

    @torch.no_grad()
    def missing(self, x: Tensor) -> Tensor | float:
        return self.pad * self.levels().sum((1, 2, 3)) if self.less_pad(x) else 0.0

    def accumulate(self, x: Tensor) -> Tensor:
        """Pooled if the layer pools."""
        weight, layer = self.levels(), self.layer
        edge = layer.kernel // 2
        if self.less_pad(x):
            x = x - self.pad
        elif edge and self.pad:
            x = F.pad(x, (edge,) * 4, value=self.pad)
            edge = 0
        if layer.frames > 1:
            acc = F.conv3d(x, weight, stride=(layer.every, 1, 1), padding=(0, edge, edge),
                           groups=layer.groups).transpose(1, 2).flatten(0, 1)
        else:
            acc = F.conv2d(x, weight, padding=edge, groups=layer.groups)
        # Behind a gate it is the merged codes that are pooled.
        return max_pool(acc) if layer.pool and not layer.gate else acc


class _Total(torch.autograd.Function):
    """Sums (n, channels) over a map's pixels, in float32.

    The gradient has the map's type before it is spread out: converted afterwards, as torch does
    it, it would be written out, and in another order than the map.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.like = x.shape, x.dtype
        return x.sum((2, 3), dtype=torch.float32)

    @staticmethod
    def backward(ctx, grad: Tensor):
        shape, dtype = ctx.like
        return grad.to(dtype)[:, :, None, None].expand(shape)


class QuantSum(QuantWeight):
    """Weighted sums over all pixels of a map of `channels`, one for each of `layer.channels`."""

    def __init__(self, layer: SumConfig, channels: int, recipe: TrainConfig):
        weight = torch.randn(layer.channels, channels, 1, 1) / math.sqrt(channels)
        super().__init__(weight, layer.weight_bits, recipe.steps)
        self.layer = layer

    def accumulate(self, x: Tensor) -> Tensor:
        """Sums (n, outputs) of (n, channels, h, w); exact in float32."""
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(_Total.apply(x), self.levels().flatten(1))


class QuantVector(Coded):
    """Codes (n, channels, 1, 1) of weighted sums over all pixels of a map."""

    def __init__(self, layer: SumConfig, channels: int, recipe: TrainConfig):
        weight = torch.randn(layer.channels, channels, 1, 1) / math.sqrt(channels)
        super().__init__(layer, weight, recipe)

    def accumulate(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            sums = F.linear(_Total.apply(x), self.levels().flatten(1))
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

    def set_bias(self, bias: Tensor):
        """As a layer's of codes."""
        self.beta.copy_((bias + self.mean) / self.square.clamp_min(1e-6).sqrt())

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

    def set_bias(self, bias: Tensor):
        """As a layer's of codes."""
        self.bias.copy_(bias / self.scale)

    def forward(self, x: Tensor) -> Tensor:
        sums = self.accumulate(x) * (self.pixels / x.shape[2:].numel())  # 1 but for crops
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

    def set_bias(self, bias: Tensor):
        """As a layer's of codes."""
        self.beta.copy_(((bias + self.mean) / 2**self.shift - 0.5) * self.gain)

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
