"""Muon (Jordan et al. 2024) in the real numbers that a CPU is fast at."""

import math

import torch
from torch import Tensor

from model.reals import reals


def orthogonalized(update: Tensor, coefficients: tuple[float, float, float], steps: int,
                   smallest: float) -> Tensor:
    """The matrix with its singular values brought near 1, by Newton-Schulz steps."""
    a, b, c = coefficients
    wide = update.T if update.shape[0] > update.shape[1] else update
    x = wide / wide.norm().clamp_min(smallest)
    for _ in range(steps):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if update.shape[0] > update.shape[1] else x


class Muon(torch.optim.Muon):
    """torch's, which orthogonalizes in bfloat16; in float32 where that is faster (`reals`), as
    half of a step can go there. Learning rates are those of AdamW ("match_rms_adamw")."""

    def __init__(self, matrices: list[Tensor], weight_decay: float):
        super().__init__(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure=None):
        matrices = [p for group in self.param_groups for p in group["params"]]
        if reals(matrices[0].device.type) is torch.bfloat16:
            return super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p.grad)
                average = state["momentum_buffer"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(average, group["momentum"])
                update = orthogonalized(update, group["ns_coefficients"], group["ns_steps"],
                                        group["eps"])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-0.2 * math.sqrt(max(p.shape)) * group["lr"])
        return None
