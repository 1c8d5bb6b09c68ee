"""The quantized encoder in PyTorch, built from the same configuration as the hardware.

Every tensor between layers holds integers (codes, pixels), and so do the weights inside the
convolutions; in float32 a forward pass in evaluation mode therefore computes exactly what the
golden model and the hardware compute.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.artifact import MAX_SHIFT
from export.config import LayerConfig, NetworkConfig, TrainConfig
from model.quant import (
    MaxPool,
    Normalize,
    codes,
    fused_codes,
    mean_step,
    moments,
    quantize_weight,
    scale_weight,
    weight_step,
)

SPREAD = {1: 0.8, 2: 1.6, 3: 3.2}  # target standard deviation of y, in codes, by code precision
MOMENTUM = 0.1
DEFAULT_RECIPE = TrainConfig()
STICKY = 0.6  # a shift moves only if its ideal value is further away than this, against flapping


class QuantWeight(nn.Module):
    """Base of what has a `weight` of some bits, and the rule for its step."""

    def __init__(self, weight: Tensor, bits: int, steps: str):
        super().__init__()
        self.bits, self.steps = bits, steps
        self.round_weights = True
        self.weight = nn.Parameter(weight)
        if steps == "learned":  # as in LSQ (Esser et al. 2020), but in the logarithm
            self.log_step = nn.Parameter(weight_step(weight, bits).log())

    def levels(self) -> Tensor:
        """The integers that `weight` stands for; or real numbers, if it is not to be rounded."""
        step = None
        if self.steps == "learned":
            step = self.log_step.exp()
        elif self.steps == "mean" and self.bits > 1:
            step = mean_step(self.weight, self.bits)
        quantize = quantize_weight if self.round_weights else scale_weight
        return quantize(self.weight, self.bits, step)


class QuantConv(QuantWeight):
    """Convolution, 2x2 maximum if asked for, layer-shared bit-shift normalization, codes.

    `y = (acc + bias) / 2**shift`, `code = clip(floor(y))`. The shift follows the running standard
    deviation of the layer's accumulators, the bias absorbs the channel's running mean and the
    learned offset `beta` (in codes). The maximum is taken before the normalization, with which
    it commutes, so that the statistics are those of the values that become codes.

    `round_weights` and `round_codes` are set by :meth:`Encoder.quantize`; without them the layer
    computes with real numbers in the same ranges.
    """

    def __init__(self, layer: LayerConfig, in_channels: int, pad: int, recipe: TrainConfig):
        fan_in = in_channels // layer.groups * layer.kernel**2
        weight = torch.randn(layer.channels, in_channels // layer.groups, layer.kernel,
                             layer.kernel)
        super().__init__(weight / math.sqrt(fan_in), layer.weight_bits, recipe.steps)
        self.layer, self.pad = layer, pad
        self.round_codes = True
        self.norm = None
        if recipe.normalization == "batch":
            self.norm = nn.BatchNorm2d(layer.channels)
            nn.init.constant_(self.norm.weight, SPREAD[layer.code_bits])
            self.norm.bias.requires_grad_(False)
        self.beta = nn.Parameter(torch.ones(layer.channels))
        self.register_buffer("mean", torch.zeros(layer.channels))
        self.register_buffer("square", torch.ones(()))  # of acc - mean, all channels
        self.register_buffer("shift", torch.zeros(()))

    def accumulate(self, x: Tensor) -> Tensor:
        """Sums (n, channels, h, w), pooled if the layer pools; integers, exact in float32."""
        weight = self.levels()
        edge = self.layer.kernel // 2
        if edge and self.pad:
            x = F.pad(x, (edge,) * 4, value=self.pad)
            edge = 0
        acc = F.conv2d(x, weight, padding=edge, groups=self.layer.groups)
        if not self.layer.pool:
            return acc
        if acc.dtype == torch.float32:
            return F.max_pool2d(acc, 2)
        height, width = acc.shape[2:]
        return MaxPool.apply(acc[:, :, :height // 2 * 2, :width // 2 * 2])

    def integer_bias(self) -> Tensor:
        """The hardware's bias, one integer per channel."""
        return torch.round(self.beta * 2**self.shift - self.mean)

    @torch.no_grad()
    def observe(self, mean: Tensor, square: Tensor, momentum: float):
        """Moves the running statistics and, from them, the shift."""
        self.mean.lerp_(mean, momentum)
        self.square.lerp_(square, momentum)
        ideal = 0.5 * torch.log2(self.square) - math.log2(SPREAD[self.layer.code_bits])
        nearest = torch.round(ideal).clamp(0, MAX_SHIFT)
        self.shift.copy_(torch.where((ideal - self.shift).abs() > STICKY, nearest, self.shift))

    def forward(self, x: Tensor) -> Tensor:
        acc, scale, bits = self.accumulate(x), torch.exp2(-self.shift), self.layer.code_bits
        if self.norm is not None:  # for comparison only: no integers, no export
            zero, acc = torch.zeros_like(self.beta), self.norm(acc)
            return Normalize.apply(acc, zero, self.beta, scale, bits, self.round_codes)
        if self.training:
            mean, square = moments(acc.detach())
            self.observe(mean, square, MOMENTUM)
            return Normalize.apply(acc, mean, self.beta, scale, bits, self.round_codes)
        exact = acc.dtype == torch.float32
        offset = (self.integer_bias() if self.round_weights
                  else self.beta / scale - self.mean) * scale
        return (codes if exact else fused_codes)(acc, offset, scale, bits, self.round_codes)


class Encoder(nn.Module):
    """The network of a configuration: pixels (n, channels, h, w), 0 ... 255, to class scores.

    In evaluation mode the scores are integers: the sums over the last feature map.
    """

    def __init__(self, network: NetworkConfig, recipe: TrainConfig = DEFAULT_RECIPE):
        super().__init__()
        self.network = network
        self.convs = nn.ModuleList(
            QuantConv(layer, shape.channels, network.pad if index == 0 else 0, recipe)
            for index, (layer, shape) in enumerate(zip(network.layers, network.shapes,
                                                       strict=False)))
        features = network.layers[-1].channels
        weight = torch.randn(network.classes, features) / math.sqrt(features)
        self.head = QuantWeight(weight, network.classifier_bits, recipe.steps)
        self.head_bias = nn.Parameter(torch.zeros(network.classes))

    def quantize(self, *, weights: bool, codes: bool):
        """Whether weights and codes are rounded to their levels; both are, unless told."""
        self.head.round_weights = weights
        for conv in self.convs:
            conv.round_weights, conv.round_codes = weights, codes

    @property
    def head_scale(self) -> float:
        """What one unit of a training-time logit is in integer sums; constant per network."""
        spread = SPREAD[self.network.layers[-1].code_bits] * math.sqrt(self.head.weight.shape[1])
        return spread * self.network.shapes[-1].pixels / 2

    def integer_head(self) -> tuple[Tensor, Tensor]:
        """Integer weights (classes, features) and biases (classes,)."""
        return self.head.levels(), torch.round(self.head_bias * self.head_scale)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x)
        weight = self.head.levels()
        with torch.autocast(x.device.type, enabled=False):
            sums = F.linear(x.float().sum((2, 3)), weight)
            if self.training:
                return sums / self.head_scale + self.head_bias
            return sums + self.integer_head()[1]


@torch.no_grad()
def calibrate(encoder: Encoder, images: Tensor, batch: int = 250):
    """Replaces the running statistics by those of `images`, in exact float32, layer by layer.

    Shifts stay. The statistics of training come from bf16 sums and a moving network; these are
    the ones that are exported. (Codes themselves are exact in bfloat16.)
    """
    encoder.eval()
    features = list(images.split(batch))
    for conv in encoder.convs:
        total, count = 0.0, 0
        for x in features:
            acc = conv.accumulate(x.float())
            total = total + acc.sum((0, 2, 3), dtype=torch.float64)
            count += acc.numel() // acc.shape[1]
        conv.mean.copy_(total / count)
        features = [conv(x.float()).to(torch.bfloat16) for x in features]
