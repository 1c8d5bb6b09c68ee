"""Quantizers whose forward values are integers and whose gradients are straight-through.

Weights: linear symmetric levels with one step per layer, chosen from the quantiles of the real
weights so that the levels are about equally filled (histogram-equalized quantization, HEQ, Nguyen
et al. 2022). The paper's formula for more than three levels is not known to us; the rules below
are ours.
"""

import torch
from torch import Tensor


def _kth(values: Tensor, fraction: float) -> Tensor:
    rank = max(1, min(values.numel(), round(fraction * values.numel())))
    return values.flatten().kthvalue(rank).values


def weight_step(weight: Tensor, bits: int) -> Tensor:
    """Step `s` of the thresholds, a scalar; levels change at `s/2` and, for quinary, at `3s/2`.

    Ternary: twice the 1/3-quantile of |w| gives three equal thirds. Quinary: one step cannot hold
    both s/2 at the 1/5- and 3s/2 at the 3/5-quantile, so it is the mean of the two estimates.
    Binary needs no step.
    """
    size = weight.detach().abs().float()
    if bits == 1:
        return size.new_ones(())
    if bits == 2:
        return 2 * _kth(size, 1 / 3)
    return (2 * _kth(size, 1 / 5) + 2 / 3 * _kth(size, 3 / 5)) / 2


class _RoundWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scaled: Tensor, bits: int) -> Tensor:
        if bits == 1:
            return torch.where(scaled >= 0, 1.0, -1.0)
        peak = bits - 1
        return torch.clamp(torch.floor(scaled + 0.5), -peak, peak)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None


def quantize_weight(weight: Tensor, bits: int) -> Tensor:
    """Integers -1, +1 (1 bit), -1 ... +1 (2) or -2 ... +2 (3), of `weight`'s shape.

    The binary threshold is the median, so both levels are equally filled. The gradient passes
    to the scaled weight unchanged; the step is treated as a constant.
    """
    if bits == 1:
        return _RoundWeight.apply(weight - _kth(weight.detach().float(), 0.5), bits)
    return _RoundWeight.apply(weight / weight_step(weight, bits).clamp_min(1e-12), bits)


class _Code(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y: Tensor, bits: int) -> Tensor:
        ctx.save_for_backward((y >= 0) & (y <= 2**bits))
        return torch.clamp(torch.floor(y), 0, 2**bits - 1)

    @staticmethod
    def backward(ctx, grad: Tensor):
        inside, = ctx.saved_tensors
        return grad * inside, None


def activation_code(y: Tensor, bits: int) -> Tensor:
    """Codes `clip(floor(y), 0, 2**bits - 1)`: half-wave, most significant bits (HWMSB at 2 bits).

    With half a code of `y`'s bias seen as rounding, the gradient passes inside the clip range
    and half a code beyond, that is for 0 <= y <= 2**bits; at one bit that is one code either
    side of the threshold.
    """
    return _Code.apply(y, bits)
