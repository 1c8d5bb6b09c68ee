"""Networks that were trained before, as teachers of one that reads clips.

Binary networks of the same accuracy err on different clips, so the mean of what several say is
right more often than any of them (Hansen and Salamon 1990); one network can learn from it
(distillation, Hinton et al. 2015).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.checked import ConfigError
from export.clips import clip_scores
from export.file import load_network
from export.network import NetworkConfig
from model.begin import begin_with
from model.network import Encoder
from model.reals import autocast, reals

GAINS = torch.logspace(-3, 0, 61)  # of scores


class Teachers(nn.Module):
    """The mean of their probabilities at each tick.

    How sure a network's scores are is not in its file: each has the gain with which its class at
    the end of these clips, uint8 (n, frames, channels, h, w), is least surprising.

    Raises
    ------
    ConfigError
        If a file is no network, or one of other clips or classes or ticks.
    """

    def __init__(self, paths: Sequence[Path], student: NetworkConfig, clips: Tensor,
                 labels: Tensor):
        super().__init__()
        self.networks, self.gains, self.digests = nn.ModuleList(), [], []
        for path in paths:
            network = load_network(path)
            config = network.config
            reads = config.timed, config.channels, config.height, config.width
            if (*reads, config.classes, config.period) != (
                    True, student.channels, student.height, student.width, student.classes,
                    student.period):
                raise ConfigError(f"{path}: a teacher must read the same clips as its student, and "
                                  f"give as many classes, as often")
            encoder = Encoder(config)
            begin_with(encoder, network, clips)
            encoder.quantize(codes=True, weights=True, cells=True)
            self.networks.append(encoder.eval().requires_grad_(False))
            self.digests.append(network.digest)
            scores = clip_scores(config, encoder(clips.float()))
            surprise = [F.cross_entropy(scores * gain, labels).item() for gain in GAINS]
            self.gains.append(GAINS[surprise.index(min(surprise))].item())

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        """Probabilities (n, ticks, classes) of clips uint8."""
        with autocast():
            said = [encoder(clips.to(reals())) for encoder in self.networks]
        chances = [(scores.float() * gain).softmax(-1)
                   for scores, gain in zip(said, self.gains, strict=True)]
        return torch.stack(chances).mean(0)
