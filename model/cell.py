"""The recurrent cell in PyTorch: what :func:`sim.golden.cell` computes, and how gradients pass it.

Binary weights fail in recurrent networks unless the sums are normalized (Ardakani et al. 2019; Hou
et al. 2019). Here the weights are standardized, each gate's threshold is counted in standard
deviations of its sums, and one shift serves g. The equations and the gradients are our choices.
"""

import math

import torch
from torch import Tensor, nn

from export.config import TrainConfig
from export.network import CellConfig
from model.gates import Floor, Heaviside
from model.quant import Shifted

OPEN = {"i": 0.0, "f": 1.0, "g": 0.0, "o": 1.0}  # where each begins, in standard deviations
OF_PEAK = 3 / 16  # target standard deviation of g, in shares of the highest value of c


class QuantCell(Shifted):
    """x(t) of all ticks, codes (n, t, channels, 1, 1), to h(t) of the same shape.

    i, f and o are steps whose gradient passes within a standard deviation; what is clipped passes
    it inside of its range, what is rounded always. While the cell is not rounded, by
    `round_weights` and `round_codes`, the gates are ramps from 0 to 1, and everything else is a
    real number in the same range. Training computes with the running statistics: those of all
    ticks, which the sums of one tick do not know.
    """

    def __init__(self, layer: CellConfig, recipe: TrainConfig):
        units = layer.channels
        weight = torch.randn(layer.filters, units, layer.taps) / math.sqrt(layer.taps * units)
        peak = 2.0 ** (min(layer.value_bits, layer.state_bits) - 1)
        super().__init__(weight, layer.weight_bits, recipe.steps, OF_PEAK * peak)
        self.layer, self.round_codes = layer, True
        self.square = torch.ones(len(layer.gates))  # of acc - mean, each gate's
        self.beta = nn.Parameter(torch.tensor([OPEN[gate] for gate in layer.gates])
                                 .repeat_interleave(units))

    @property
    def unit(self) -> Tensor:
        """What `beta` counts in: a value of g, or a standard deviation of a gate's sums."""
        shift = torch.exp2(self.shift)
        each = [shift if gate == "g" else square.clamp_min(1e-6).sqrt()
                for gate, square in zip(self.layer.gates, self.square, strict=True)]
        return torch.stack(each).repeat_interleave(self.layer.channels)

    def integer_bias(self) -> Tensor:
        """The hardware's bias, one integer per filter."""
        return torch.round(self.beta * self.unit - self.mean)

    def set_bias(self, bias: Tensor):
        """What is learned becomes that which gives this `integer_bias`."""
        self.beta.copy_((bias + self.mean) / self.unit)

    @torch.no_grad()
    def observe(self, mean: Tensor, square: Tensor, momentum: float):
        """As the base's, with a `square` of each gate; the shift is that of g."""
        self.mean.lerp_(mean, momentum)
        self.square.lerp_(square, momentum)
        self.move_shift(self.square[self.layer.gates.index("g")])

    def moments(self, acc: Tensor) -> tuple[Tensor, Tensor]:
        """Of sums (..., filters): mean of each filter, variance around it of each gate."""
        acc = acc.flatten(0, -2)
        mean = acc.mean(0)
        return mean, (acc - mean).square().mean(0).view(-1, self.layer.channels).mean(1)

    def accumulate(self, x: Tensor) -> Tensor:
        """Sums (n, t, filters) with the statistics as they are."""
        return self.run(x)[1]

    def forward(self, x: Tensor) -> Tensor:
        h, acc = self.run(x)
        if self.training:
            self.observe(*self.moments(acc.detach()), self.momentum)
        return h[..., None, None]

    def run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """h (n, t, channels) and the sums (n, t, filters)."""
        with torch.autocast(x.device.type, enabled=False):
            weight = self.levels()
            seen = x[..., 0, 0].float() @ weight[..., 0].T
            bias, unit = self.beta * self.unit - self.mean, self.unit
            if not self.training and self.round_codes:
                bias = self.integer_bias()
            h = c = x.new_zeros(len(x), self.layer.channels, dtype=torch.float32)
            codes, sums = [], []
            for tick in seen.unbind(1):
                acc = tick + h @ weight[..., 1].T
                h, c = self.step((acc + bias) / unit, c)
                codes.append(h)
                sums.append(acc)
        return torch.stack(codes, 1), torch.stack(sums, 1)

    def step(self, y: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """h(t) and c(t) of sums with bias in units, (n, filters)."""
        layer, rounded = self.layer, self.round_codes
        gates = dict(zip(layer.gates, y.split(layer.channels, 1), strict=True))
        g, top = gates.pop("g"), 2 ** (layer.value_bits - 1)
        g = (Floor.apply(g) if rounded else g - 0.5).clamp(-top, top - 1)
        gates = {gate: Heaviside.apply(z) if rounded else ((z + 1) / 2).clamp(0, 1)
                 for gate, z in gates.items()}
        taken = gates["i"] if layer.form == "full" else 1 - gates["f"]
        peak, middle = 2 ** (layer.state_bits - 1), 2 ** (layer.code_bits - 1)
        c = (gates["f"] * c + taken * g).clamp(-peak, peak - 1)
        h = c * 2.0**-layer.state_shift
        h = ((Floor.apply(h) if rounded else h + 0.5) + middle).clamp(0, 2 * middle - 1)
        return gates["o"] * h, c
