"""Residuals merged by logic gates, and how the gradient gets through them.

HEQ (Nguyen et al. 2022) names OR and MUX gates, MOGNET (2022) a MUX with a binary control derived
from the activations. What drives the select line, where the gates stand and the gradients below are
our choices.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from export.network import ConvConfig
from model.quant import Fused, MaxPool


def max_pool(x: Tensor) -> Tensor:
    """2x2 maximum; an odd last row or column is dropped."""
    if x.dtype == torch.float32:
        return F.max_pool2d(x, 2)
    height, width = x.shape[2:]
    return MaxPool.apply(x[:, :, :height // 2 * 2, :width // 2 * 2])


class _Or(torch.autograd.Function):
    """Bit by bit. Straight-through: both inputs get the whole gradient, as if they were added."""

    @staticmethod
    def forward(ctx, codes: Tensor, skip: Tensor) -> Tensor:
        return (codes.to(torch.uint8) | skip.to(torch.uint8)).to(codes.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, grad


def _wide(passed: Tensor, like: Tensor) -> Tensor:
    return passed[:, :, None, None].to(like.dtype)


@Fused
def _mix(one: Tensor, zero: Tensor, passed: Tensor) -> Tensor:
    return zero + _wide(passed, one) * (one - zero)


@Fused
def _to_sides(grad: Tensor, passed: Tensor) -> tuple[Tensor, Tensor]:
    one = _wide(passed, grad) * grad
    return one, grad - one


@Fused
def _to_select(one: Tensor, zero: Tensor, grad: Tensor) -> Tensor:
    return ((one - zero).float() * grad.float()).sum((2, 3))


class _Mix(torch.autograd.Function):
    """`one` where `passed` (n, channels) is 1, `zero` where it is 0, a mixture between."""

    @staticmethod
    def forward(ctx, one: Tensor, zero: Tensor, passed: Tensor) -> Tensor:
        ctx.save_for_backward(one, zero, passed)
        return _mix(one, zero, passed)

    @staticmethod
    def backward(ctx, grad: Tensor):
        one, zero, passed = ctx.saved_tensors
        return *_to_sides(grad, passed), _to_select(one, zero, grad)


class Floor(torch.autograd.Function):
    """Rounds down; straight-through."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return torch.floor(x)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad


class Heaviside(torch.autograd.Function):
    """1 for z >= 0, else 0; the gradient passes where |z| < 1."""

    @staticmethod
    def forward(ctx, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return (z >= 0).to(z.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        z, = ctx.saved_tensors
        return torch.where(z.abs() < 1, grad, 0)


def gate(layer: ConvConfig, codes: Tensor, skip: Tensor, skip_bits: int,
         passed: Tensor | None, rounded: bool, added: bool = False) -> Tensor:
    """Merges codes (n, channels, h, w) with the skip's; :func:`sim.golden.gate` says how.

    `passed` (n, channels) are a mux's select bits. The output's gradient goes to the side that was
    selected, and to the select bit times the difference that it makes.
    Codes that are not `rounded` are OR-ed as probabilities are, a + b - a b. If the sides are to
    be `added`, for comparison, what is above the highest code is cut off.
    """
    if skip.shape[2:] != codes.shape[2:]:
        skip = max_pool(skip)
    if skip.shape[1] != codes.shape[1]:  # unlike `repeat`, this keeps the order of the memory
        skip = torch.cat([skip] * (codes.shape[1] // skip.shape[1]), 1)
    wider = layer.code_bits - skip_bits
    if wider:
        skip = skip * 2.0**wider
        if rounded and wider < 0:
            skip = Floor.apply(skip)
    if added:
        return (codes + skip).clamp(max=2**layer.code_bits - 1)
    both = None
    if layer.gate != "mux":
        both = (_Or.apply(codes, skip) if rounded
                else codes + skip - codes * skip / (2**layer.code_bits - 1))
    if passed is None:
        return both
    return _Mix.apply(codes, skip, passed) if both is None else _Mix.apply(both, codes, passed)
