"""Trains the layers that choose the class of a patch, of an encoder made of transforms.

They see the codes of all coefficients. At first they learn to imitate a soft choice, which is
surer the more error the others would leave; then the error that is expected of their choice falls.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.network import ConvConfig
from model.network import DEFAULT_RECIPE
from model.parts import QuantConv
from model.train import learning_rate, optimizers_of

BATCH = 512
LEARNING_RATE = 0.01
CODES, WEIGHTS, EXPECT = 0.1, 0.3, 0.6  # shares of the steps behind which these begin
SHARPNESS = 4.0  # of the soft choice, by the excess error in shares of the mean error
WORST = 50.0  # such share that counts


class Chooser(nn.Module):
    """Codes (n, inputs) to scores (n, classes): sums of the codes of the last layer."""

    def __init__(self, layers: list[ConvConfig], inputs: int, classes: int):
        super().__init__()
        self.classes, self.parts = classes, nn.ModuleList()
        for layer in layers:
            self.parts.append(QuantConv(layer, inputs, 0, DEFAULT_RECIPE))
            inputs = layer.channels
        self.sharpness = nn.Parameter(torch.ones(()))

    def quantize(self, progress: float):
        """Rounds what is rounded after this share of the steps."""
        for part in self.parts:
            part.round_codes, part.round_weights = progress >= CODES, progress >= WEIGHTS

    def forward(self, codes: Tensor) -> Tensor:
        x = codes[:, :, None, None].float()
        for part in self.parts:
            x = part(x)
        return x.view(len(x), self.classes, -1).sum(2)

    @torch.no_grad()
    def calibrate(self, codes: Tensor):
        """Replaces the running statistics by those of these codes."""
        x = codes[:, :, None, None].float()
        for part in self.parts:
            part.momentum = 1.0
            part.train()(x)
            x = part.eval()(x)


def train_chooser(chooser: Chooser, codes: Tensor, errors: Tensor, weights: Tensor, steps: int,
                  seed: int):
    """Trains it on codes uint8 (n, inputs) of patches, and the errors (n, classes) that each class
    would leave, which count by `weights` (n,)."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    least = errors.min(1, keepdim=True).values
    excess = (errors - least) * (weights / (weights @ least))[:, None] * len(errors)
    optimizers = optimizers_of(chooser.parameters(), 0.1)
    for step in range(steps):
        progress = step / steps
        chooser.train().quantize(progress)
        pick = torch.randint(0, len(codes), (BATCH,), generator=generator)
        chances = (chooser(codes[pick]) * chooser.sharpness).log_softmax(1)
        if progress < EXPECT:
            wanted = (-SHARPNESS * excess[pick]).softmax(1)
            loss = F.kl_div(chances, wanted, reduction="batchmean")
        else:
            loss = (chances.exp() * excess[pick].clamp_max(WORST)).sum(1).mean()
        chooser.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(progress, LEARNING_RATE)
            optimizer.step()
    chooser.quantize(1.0)
    chooser.calibrate(codes)
