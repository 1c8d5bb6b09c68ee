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
from export.config import Config, LayerConfig, NetworkConfig
from model.quant import activation_code, quantize_weight

SPREAD = {1: 0.8, 2: 1.6, 3: 3.2}  # target standard deviation of y, in codes, by code precision
MOMENTUM = 0.1
STICKY = 0.6  # a shift moves only if its ideal value is further away than this, against flapping


class QuantConv(nn.Module):
    """Convolution, 2x2 maximum if asked for, layer-shared bit-shift normalization, codes.

    `y = (acc + bias) / 2**shift`, `code = clip(floor(y))`. The shift follows the running standard
    deviation of the layer's accumulators, the bias absorbs the channel's running mean and the
    learned offset `beta` (in codes). The maximum is taken before the normalization, with which
    it commutes, so that the statistics are those of the values that become codes.
    """

    def __init__(self, layer: LayerConfig, in_channels: int, pad: int):
        super().__init__()
        self.layer, self.pad = layer, pad
        fan_in = in_channels // layer.groups * layer.kernel**2
        weight = torch.randn(layer.channels, in_channels // layer.groups, layer.kernel,
                             layer.kernel)
        self.weight = nn.Parameter(weight / math.sqrt(fan_in))
        self.beta = nn.Parameter(torch.ones(layer.channels))
        self.register_buffer("mean", torch.zeros(layer.channels))
        self.register_buffer("square", torch.ones(()))  # of acc - mean, all channels
        self.register_buffer("shift", torch.zeros(()))

    def accumulate(self, x: Tensor) -> Tensor:
        """Integer sums (n, channels, h, w), pooled if the layer pools; exact in float32."""
        weight = quantize_weight(self.weight, self.layer.weight_bits)
        edge = self.layer.kernel // 2
        if edge and self.pad:
            x = F.pad(x, (edge,) * 4, value=self.pad)
            edge = 0
        acc = F.conv2d(x, weight, padding=edge, groups=self.layer.groups)
        return F.max_pool2d(acc, 2) if self.layer.pool else acc

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
        acc = self.accumulate(x).float()
        if self.training:
            mean, square = acc.mean((0, 2, 3)), acc.detach().square().mean()
            self.observe(mean.detach(), square - mean.detach().square().mean(), MOMENTUM)
            y = (acc - mean[:, None, None]) * torch.exp2(-self.shift) + self.beta[:, None, None]
        else:
            y = (acc + self.integer_bias()[:, None, None]) * torch.exp2(-self.shift)
        return activation_code(y, self.layer.code_bits)


class Encoder(nn.Module):
    """The network of a configuration: pixels (n, channels, h, w), 0 ... 255, to class scores.

    In evaluation mode the scores are integers: the sums over the last feature map.
    """

    def __init__(self, network: NetworkConfig):
        super().__init__()
        self.network = network
        self.convs = nn.ModuleList(
            QuantConv(layer, shape.channels, network.pad if index == 0 else 0)
            for index, (layer, shape) in enumerate(zip(network.layers, network.shapes,
                                                       strict=False)))
        features = network.layers[-1].channels
        self.head = nn.Parameter(torch.randn(network.classes, features) / math.sqrt(features))
        self.head_bias = nn.Parameter(torch.zeros(network.classes))

    @property
    def head_scale(self) -> float:
        """What one unit of a training-time logit is in integer sums; constant per network."""
        spread = SPREAD[self.network.layers[-1].code_bits] * math.sqrt(self.head.shape[1])
        return spread * self.network.shapes[-1].pixels / 2

    def integer_head(self) -> tuple[Tensor, Tensor]:
        """Integer weights (classes, features) and biases (classes,)."""
        return (quantize_weight(self.head, self.network.classifier_bits),
                torch.round(self.head_bias * self.head_scale))

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x)
        weight = quantize_weight(self.head, self.network.classifier_bits)
        with torch.autocast(x.device.type, enabled=False):
            sums = F.linear(x.float().sum((2, 3)), weight)
            if self.training:
                return sums / self.head_scale + self.head_bias
            return sums + self.integer_head()[1]


def load_weights(config: Config, state: dict) -> Encoder:
    """An encoder in evaluation mode with the weights of a checkpoint."""
    encoder = Encoder(config.network)
    encoder.load_state_dict(state)
    return encoder.eval()


@torch.no_grad()
def calibrate(encoder: Encoder, images: Tensor, batch: int = 250):
    """Replaces the running statistics by those of `images`, in exact float32, layer by layer.

    Shifts stay. The statistics of training come from bf16 sums and a moving network; these
    are the ones that are exported.
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
        features = [conv(x.float()).to(torch.uint8) for x in features]
