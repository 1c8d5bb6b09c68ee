"""The quantized encoder in PyTorch, built from the same configuration as the hardware.

Every tensor between layers holds integers (codes, pixels), and so do the weights inside the
convolutions; in float32 a forward pass in evaluation mode therefore computes exactly what the
golden model and the hardware compute.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.artifact import MAX_SHIFT
from export.automaton import cells, generated
from export.config import LayerConfig, NetworkConfig, TrainConfig
from model.gates import Floor, Heaviside, gate, max_pool
from model.quant import (
    Normalize,
    codes,
    fused_codes,
    mean_step,
    moments,
    quantize_weight,
    scale_weight,
    standardize,
    weight_step,
)

SPREAD = {1: 0.8, 2: 1.6, 3: 3.2}  # target standard deviation of y, in codes, by code precision
CENTRED = 0.53  # of these, for codes that begin in the middle of their range
MOMENTUM = 0.1
DEFAULT_RECIPE = TrainConfig()
STICKY = 0.6  # a shift moves only if its ideal value is further away than this, against flapping


class QuantWeight(nn.Module):
    """Base of what has a `weight` of some bits, and the rule for its step.

    The parameter is a matrix with a row per output channel, as the optimizer wants it.
    """

    def __init__(self, weight: Tensor, bits: int, steps: str):
        super().__init__()
        self.bits, self.steps, self.shape = bits, steps, weight.shape
        self.round_weights = True
        self.weight = nn.Parameter(weight.flatten(1))
        self.log_step = None
        if steps == "learned" and bits > 1:  # as in LSQ (Esser et al. 2020), but in the logarithm
            self.log_step = nn.Parameter(weight_step(standardize(self.weight.detach()), bits).log())

    def levels(self) -> Tensor:
        """The integers that `weight` stands for; or real numbers, if it is not to be rounded."""
        weight, step = standardize(self.weight), None
        if self.log_step is not None:
            step = self.log_step.exp()
            if self.round_weights:  # it moves no weight that is cut off
                inside = (weight / step).abs() < self.bits - 0.5
                step = torch.where(inside, step, step.detach())
        elif self.steps == "mean" and self.bits > 1:
            step = mean_step(weight, self.bits)
        quantize = quantize_weight if self.round_weights else scale_weight
        return quantize(weight, self.bits, step).view(self.shape)


class QuantConv(QuantWeight):
    """Convolution, 2x2 maximum if asked for, layer-shared bit-shift normalization, codes.

    `y = (acc + bias) / 2**shift`, `code = clip(floor(y))`. The shift follows the running standard
    deviation of the layer's accumulators, the bias absorbs the channel's running mean and the
    learned offset `beta` (in codes). The maximum is taken before the normalization, with which
    it commutes, so that the statistics are those of the values that become codes.

    `round_weights` and `round_codes` are set by :meth:`Encoder.quantize`; without them the layer
    computes with real numbers in the same ranges. Then it divides by the standard deviation itself,
    as what a power of two misses could be in the weights: deep networks learn far better so.
    """

    def __init__(self, layer: LayerConfig, in_channels: int, pad: int, recipe: TrainConfig):
        fan_in = in_channels // layer.groups * layer.kernel**2
        weight = torch.randn(layer.channels, in_channels // layer.groups, layer.kernel,
                             layer.kernel)
        super().__init__(weight / math.sqrt(fan_in), layer.weight_bits, recipe.steps)
        self.layer, self.pad = layer, pad
        self.round_codes = True
        if layer.generator is not None:  # weights that are not learned
            seed = torch.randint(0, 2, (cells(layer),), dtype=torch.uint8)
            made = generated(layer, seed.numpy(), in_channels)[:, :, None, None]
            del self.weight
            self.register_buffer("seed", seed)
            self.register_buffer("weight", torch.from_numpy(made).float())
        centred = recipe.centred_muxes and layer.gate == "mux"
        self.spread = SPREAD[layer.code_bits] * (CENTRED if centred else 1)
        self.norm = None
        if recipe.normalization == "batch":
            self.norm = nn.BatchNorm2d(layer.channels)
            nn.init.constant_(self.norm.weight, self.spread)
            self.norm.bias.requires_grad_(False)
        begin = 2.0 ** (layer.code_bits - 1) if centred else 1.0
        self.beta = nn.Parameter(torch.full((layer.channels,), begin))
        self.register_buffer("mean", torch.zeros(layer.channels))
        self.register_buffer("square", torch.ones(()))  # of acc - mean, all channels
        self.register_buffer("shift", torch.zeros(()))

    def levels(self) -> Tensor:
        return super().levels() if self.layer.generator is None else self.weight

    def accumulate(self, x: Tensor) -> Tensor:
        """Sums (n, channels, h, w), pooled if the layer pools; integers, exact in float32."""
        weight = self.levels()
        edge = self.layer.kernel // 2
        if edge and self.pad:
            x = F.pad(x, (edge,) * 4, value=self.pad)
            edge = 0
        acc = F.conv2d(x, weight, padding=edge, groups=self.layer.groups)
        # Behind a gate it is the merged codes that are pooled.
        return max_pool(acc) if self.layer.pool and not self.layer.gate else acc

    def integer_bias(self) -> Tensor:
        """The hardware's bias, one integer per channel."""
        return torch.round(self.beta * 2**self.shift - self.mean)

    @torch.no_grad()
    def observe(self, mean: Tensor, square: Tensor, momentum: float):
        """Moves the running statistics and, from them, the shift."""
        self.mean.lerp_(mean, momentum)
        self.square.lerp_(square, momentum)
        ideal = 0.5 * torch.log2(self.square) - math.log2(self.spread)
        nearest = torch.round(ideal).clamp(0, MAX_SHIFT)
        self.shift.copy_(torch.where((ideal - self.shift).abs() > STICKY, nearest, self.shift))

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
            self.observe(mean, square, MOMENTUM)
            return Normalize.apply(acc, mean, self.beta, self.scale(square), bits,
                                   self.round_codes)
        exact, scale = acc.dtype == torch.float32, self.scale(self.square)
        offset = (self.integer_bias() if self.round_weights
                  else self.beta / scale - self.mean) * scale
        return (codes if exact else fused_codes)(acc, offset, scale, bits, self.round_codes)


class Select(QuantWeight):
    """What a mux selects by: weighted sums over a feature map, one bit per channel.

    It begins with a choice that few images change, every other channel passed, and of the copies
    of a repeated channel every other one. While codes are not rounded, neither is the choice: a
    ramp from 0 to 1 mixes the two sides.
    """

    def __init__(self, layer: LayerConfig, channels: int, recipe: TrainConfig):
        weight = torch.randn(layer.channels, channels) / math.sqrt(channels)
        super().__init__(weight, layer.select_bits, recipe.steps)
        self.round_selects = True
        channel = torch.arange(layer.channels)
        passed = (channel % channels + channel // channels) % 2
        self.beta = nn.Parameter(2.0 * (2 * passed - 1))
        self.register_buffer("mean", torch.zeros(layer.channels))
        self.register_buffer("square", torch.ones(()))  # of sum - mean, all channels

    def accumulate(self, x: Tensor) -> Tensor:
        """Sums (n, channels) over all pixels of (n, channels, h, w); exact in float32."""
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float().sum((2, 3)), self.levels())

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
        self.adds = recipe.residuals == "add"
        self.selects = nn.ModuleDict({
            layer.name: Select(layer, network.shapes[network.skip_source(k) + 1].channels, recipe)
            for k, layer in enumerate(network.layers) if layer.selects and not self.adds})
        features = network.layers[-1].channels
        weight = torch.randn(network.classes, features) / math.sqrt(features)
        self.head = QuantWeight(weight, network.classifier_bits, recipe.steps)
        self.head_bias = nn.Parameter(torch.zeros(network.classes))
        self.quantize(weights=True, codes=True)

    def quantize(self, *, weights: bool, codes: bool):
        """Whether weights and codes are rounded to their levels; both are, unless told."""
        for part in (self.head, *self.selects.values()):
            part.round_weights = weights
        for select in self.selects.values():
            select.round_selects = codes
        for conv in self.convs:
            conv.round_weights, conv.round_codes = weights, codes and not self.adds
        self.round_reads = codes and self.adds

    @property
    def head_scale(self) -> float:
        """What one unit of a training-time logit is in integer sums; constant per network."""
        spread = SPREAD[self.network.layers[-1].code_bits] * math.sqrt(self.head.weight.shape[1])
        return spread * self.network.shapes[-1].pixels / 2

    def integer_head(self) -> tuple[Tensor, Tensor]:
        """Integer weights (classes, features) and biases (classes,)."""
        return self.head.levels(), torch.round(self.head_bias * self.head_scale)

    def read(self, x: Tensor) -> Tensor:
        """What a layer sees of a map; where residuals are added, maps are real, y - 1/2."""
        return Floor.apply(x + 0.5) if self.round_reads else x

    def run_layer(self, index: int, maps: Sequence[Tensor]) -> Tensor:
        """Output of one layer; `maps` are the pixels and the outputs of the layers before it."""
        conv = self.convs[index]
        x, layer = conv(self.read(maps[index])), conv.layer
        if not layer.gate:
            return x
        source = self.network.skip_source(index)
        skip = maps[source + 1]
        passed = self.selects[layer.name](skip) if layer.name in self.selects else None
        x = gate(layer, x, skip, self.network.layers[source].code_bits, passed, conv.round_codes,
                 self.adds)
        return max_pool(x) if layer.pool else x

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for index in range(len(self.convs)):
            maps.append(self.run_layer(index, maps))
        x, weight = self.read(maps[-1]), self.head.levels()
        part = self.network.shapes[-1].pixels / x[0, 0].numel()  # 1 but for crops in training
        with torch.autocast(x.device.type, enabled=False):
            sums = F.linear(x.float().sum((2, 3)) * part, weight)
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
    network = encoder.network
    parts = [[x] for x in images.split(batch)]  # of each batch: pixels, outputs of the layers
    for index, conv in enumerate(encoder.convs):
        if conv.layer.name in encoder.selects:
            select, source = encoder.selects[conv.layer.name], network.skip_source(index)
            sums = torch.cat([select.accumulate(maps[source + 1]) for maps in parts]).double()
            select.mean.copy_(sums.mean(0))
            select.square.copy_((sums - sums.mean(0)).square().mean())
        total, square, count = 0.0, 0.0, 0
        for maps in parts:
            acc = conv.accumulate(encoder.read(maps[index].float())).double()
            total, square = total + acc.sum((0, 2, 3)), square + acc.square().sum((0, 2, 3))
            count += acc.numel() // acc.shape[1]
        conv.mean.copy_(total / count)
        conv.square.copy_((square / count - (total / count).square()).mean())
        later = {network.skip_source(k) for k in range(index + 1, len(encoder.convs))}
        for maps in parts:
            out = encoder.run_layer(index, [x if x is None else x.float() for x in maps])
            maps.append(out if encoder.adds else out.to(torch.bfloat16))
            if index - 1 not in later:
                maps[index] = None  # nobody needs it any more
