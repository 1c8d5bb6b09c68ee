"""Quantizers whose forward values are integers and whose gradients are straight-through.

Weights: linear symmetric levels with one step per layer, chosen from the quantiles of the real
weights so that the levels are about equally filled (histogram-equalized quantization, HEQ, Nguyen
et al. 2022). The paper's formula for more than three levels is not known to us; the rules below
are ours.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from export.artifact import MAX_SHIFT

MOMENTUM = 0.1
SLOPE = {1: 2 / 3, 2: 1.0, 3: 1.0}  # of codes that are not rounded, by their bits
STICKY = 0.6  # a shift moves only if its ideal value is further away than this, against flapping


def _kth(values: Tensor, fraction: float) -> Tensor:
    rank = max(1, min(values.numel(), round(fraction * values.numel())))
    if values.device.type == "cpu":  # numpy selects three times as fast
        return torch.tensor(np.partition(values.flatten().numpy(), rank - 1)[rank - 1])
    return values.flatten().kthvalue(rank).values


def standardize(weight: Tensor, centred: bool = True) -> Tensor:
    """Each output channel's weights with mean 0 and root mean square 1, free at inference.

    Weight Standardization (Qiao et al. 2019). It stands in for the channel-wise part of batch
    normalization, which the hardware's layer-wide shift lacks. Filters of a few weights keep
    their mean, which says too much of them; so do all that are not to be `centred`.
    """
    rest = tuple(range(1, weight.ndim))
    if centred and weight[0].numel() >= 16:
        weight = weight - weight.mean(rest, keepdim=True)
    return weight / (weight.square().mean(rest, keepdim=True).sqrt() + 1e-8)


def weight_step(weight: Tensor, bits: int) -> Tensor:
    """Step `s` of the levels, a scalar; levels change at `s/2` and, for quinary, at `3s/2`.

    Ternary: twice the 1/3-quantile of |w| gives three equal thirds. Quinary: one step cannot hold
    both s/2 at the 1/5- and 3s/2 at the 3/5-quantile, so it is the mean of the two estimates.
    Binary levels are told apart by sign; their step is the mean of |w|.
    """
    size = weight.detach().abs().float()
    if bits == 1:
        return size.mean()
    if bits == 2:
        return 2 * _kth(size, 1 / 3)
    return (2 * _kth(size, 1 / 5) + 2 / 3 * _kth(size, 3 / 5)) / 2


def mean_step(weight: Tensor, bits: int) -> Tensor:
    """Fixed thresholds, for comparison: ternary at 0.7 mean |w| (Li et al., "Ternary Weight
    Networks", 2016); quinary at 0.5 and 1.5 mean |w|, our choice."""
    return (1.4 if bits == 2 else 1.0) * weight.detach().abs().float().mean()


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scaled: Tensor, bits: int) -> Tensor:
        if bits == 1:
            return torch.where(scaled >= 0, 1.0, -1.0)
        peak = bits - 1
        return torch.clamp(torch.floor(scaled + 0.5), -peak, peak)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None


def scale_weight(weight: Tensor, bits: int, step: Tensor | None = None) -> Tensor:
    """`weight` in steps, by default those of :func:`weight_step`.

    The binary threshold is the median, so its levels fill equally. Default step and median are
    constants for the gradient.
    """
    if bits == 1:
        weight = weight - _kth(weight.detach().float(), 0.5)
    if step is None:
        step = weight_step(weight, bits).clamp_min(1e-12)
    return weight / step


def quantize_weight(weight: Tensor, bits: int, step: Tensor | None = None) -> Tensor:
    """Integers -1, +1 (1 bit), -1 ... +1 (2) or -2 ... +2 (3), of `weight`'s shape.

    The gradient passes to the scaled weight unchanged.
    """
    return _Round.apply(scale_weight(weight, bits, step), bits)


class QuantWeight(nn.Module):
    """Base of what has a `weight` of some bits, and the rule for its step.

    The parameter is a matrix with a row per output channel, as the optimizer wants it.
    """

    def __init__(self, weight: Tensor, bits: int, steps: str):
        super().__init__()
        self.bits, self.steps, self.shape = bits, steps, weight.shape
        self.round_weights, self.centred = True, True
        self.weight = nn.Parameter(weight.flatten(1))
        self.log_step = None
        if steps == "learned" and bits > 1:  # as in LSQ (Esser et al. 2020), but in the logarithm
            self.log_step = nn.Parameter(torch.zeros(()))
            self.equalize()

    @torch.no_grad()
    def equalize(self):
        """A learned step begins as that of equally filled levels."""
        if self.log_step is not None:
            weight = standardize(self.weight, self.centred)
            self.log_step.copy_(weight_step(weight, self.bits).clamp_min(1e-12).log())

    def levels(self) -> Tensor:
        """The integers that `weight` stands for; or real numbers, if it is not to be rounded."""
        weight, step = standardize(self.weight, self.centred), None
        if self.log_step is not None and self.round_weights:  # real ones know no step to learn
            step = self.log_step.exp()
            inside = (weight / step).abs() < self.bits - 0.5  # it moves no weight that is cut off
            step = torch.where(inside, step, step.detach())
        elif self.steps == "mean" and self.bits > 1:
            step = mean_step(weight, self.bits)
        quantize = quantize_weight if self.round_weights else scale_weight
        return quantize(weight, self.bits, step).view(self.shape)


class Shifted(QuantWeight):
    """Base of what shifts sums of a map to the right.

    The shift follows the running standard deviation of the sums around their channels' means, so
    that what comes of them has about the standard deviation `spread`.
    """

    def __init__(self, weight: Tensor, bits: int, steps: str, spread: float):
        super().__init__(weight, bits, steps)
        self.spread, self.momentum = spread, MOMENTUM
        self.register_buffer("mean", torch.zeros(len(weight)))
        self.register_buffer("square", torch.ones(()))  # of acc - mean, all channels
        self.register_buffer("shift", torch.zeros(()))

    @torch.no_grad()
    def observe(self, mean: Tensor, square: Tensor, momentum: float):
        """Moves the running statistics and, from them, the shift."""
        self.mean.lerp_(mean, momentum)
        self.square.lerp_(square, momentum)
        self.move_shift(self.square)

    def move_shift(self, square: Tensor):
        """Towards that for sums of variance `square`."""
        ideal = 0.5 * torch.log2(square) - math.log2(self.spread)
        nearest = torch.round(ideal).clamp(0, MAX_SHIFT)
        self.shift.copy_(torch.where((ideal - self.shift).abs() > STICKY, nearest, self.shift))


class Fused:
    """A function that is one loop over the sums, compiled for each shape if `enabled`.

    Training's time on a CPU is memory traffic. Hence these loops, and backward passes that compute
    again from the sums what they would otherwise have to store. Loading the compiler takes
    seconds, so it waits for the first call.
    """

    enabled = False

    def __init__(self, function):
        self.function, self.compiled = function, None

    def __call__(self, *args):
        if not self.enabled:
            return self.function(*args)
        if self.compiled is None:
            self.compiled = torch.compile(self.function, dynamic=False, recompile_limit=256)
        return self.compiled(*args)


def codes(acc: Tensor, offset: Tensor, scale: Tensor, bits: int, rounded: bool = True) -> Tensor:
    """Codes `clip(floor(acc * scale + offset), 0, 2**bits - 1)` of sums (n, channels, h, w).

    Half-wave, most significant bits (HWMSB at 2 bits). `offset` is per channel, in codes, `scale`
    a power of two; in float32 the result is exact while sums and `offset / scale` are integers
    below 2**24. Not `rounded`, half a code is subtracted instead of the fraction.

    A code of one bit is then flatter, so that its ramp reaches as far in standard deviations as
    that of two bits: in a range of one code most sums would be cut off, and learn nothing.
    """
    y = acc.float() * scale + offset[:, None, None]
    y = torch.floor(y) if rounded else y * SLOPE[bits] - 0.5
    return y.clamp(0, 2**bits - 1).to(acc.dtype)


fused_codes = Fused(codes)


@Fused
def _moments(acc: Tensor) -> tuple[Tensor, Tensor]:
    acc = acc.float()
    return acc.sum((2, 3)), acc.square().sum((2, 3))


def _passed(acc: Tensor, offset: Tensor, scale: Tensor, grad: Tensor, low: float, high: float,
            slope: float) -> Tensor:
    y = acc.float() * scale + offset[:, None, None]
    return torch.where((y >= low) & (y <= high), grad.float() * slope, 0)


@Fused
def _passed_sum(acc: Tensor, offset: Tensor, scale: Tensor, grad: Tensor, low: float,
                high: float, slope: float) -> Tensor:
    return _passed(acc, offset, scale, grad, low, high, slope).sum((2, 3))


@Fused
def _passed_centred(acc: Tensor, offset: Tensor, scale: Tensor, grad: Tensor, mean: Tensor,
                    low: float, high: float, slope: float) -> Tensor:
    grad = _passed(acc, offset, scale, grad, low, high, slope) - mean[:, None, None]
    return (grad * scale).to(acc.dtype)


def moments(acc: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each channel (channels,) and variance around it, over all channels (scalar)."""
    total, square = _moments(acc)
    mean = total.sum(0) / (acc.numel() // acc.shape[1])
    return mean, square.sum() / acc.numel() - mean.square().mean()


class Normalize(torch.autograd.Function):
    """Codes of `y = (acc - mean) * scale + beta`, `mean` being the channel's mean of `acc`.

    With half a code of `beta` seen as rounding, the gradient passes inside the clip range and half
    a code beyond, that is for 0 <= y <= 2**bits; at one bit that is one code either side of the
    threshold. Codes that are not rounded have the true gradient. It passes through `mean` too, if
    that is the batch's own, not through `scale`.
    """

    @staticmethod
    def forward(ctx, acc: Tensor, mean: Tensor, beta: Tensor, scale: Tensor, bits: int,
                rounded: bool, own: bool = True) -> Tensor:
        offset = beta - mean * scale
        ctx.save_for_backward(acc, offset, scale)
        slope = SLOPE[bits]
        ctx.window = ((0.0, 2.0**bits, 1.0) if rounded
                      else (0.5 / slope, (2**bits - 0.5) / slope, slope))
        ctx.own = own
        return fused_codes(acc, offset, scale, bits, rounded)

    @staticmethod
    def backward(ctx, grad: Tensor):
        acc, offset, scale = ctx.saved_tensors
        total = _passed_sum(acc, offset, scale, grad, *ctx.window).sum(0)
        mean = total / (acc.numel() // acc.shape[1]) * ctx.own
        grad = _passed_centred(acc, offset, scale, grad, mean, *ctx.window)
        return grad, None, total, None, None, None, None


@Fused
def _maximum(acc: Tensor) -> Tensor:
    upper = torch.maximum(acc[:, :, ::2, ::2], acc[:, :, ::2, 1::2])
    return torch.maximum(upper, torch.maximum(acc[:, :, 1::2, ::2], acc[:, :, 1::2, 1::2]))


@Fused
def _to_maxima(acc: Tensor, pooled: Tensor, grad: Tensor) -> Tensor:
    n, channels, height, width = acc.shape

    def enlarge(x: Tensor) -> Tensor:
        shape = n, channels, height // 2, 2, width // 2, 2
        return x[:, :, :, None, :, None].expand(shape).reshape(acc.shape)

    return torch.where(acc == enlarge(pooled), enlarge(grad), 0)


class MaxPool(torch.autograd.Function):
    """2x2 maximum (even height and width); equal maxima all receive the gradient."""

    @staticmethod
    def forward(ctx, acc: Tensor) -> Tensor:
        pooled = _maximum(acc)
        ctx.save_for_backward(acc, pooled)
        return pooled

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _to_maxima(*ctx.saved_tensors, grad)
