"""How a network that reads clips is trained, and how a class is made of its scores."""

from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from export.checked import ConfigError, Frozen, Rate, Share, Steps, check_phases, count, shown
from export.network import PIXELS, NetworkConfig


class TrunkConfig(Frozen):
    """The end of a training, in which the first operations, the trunk, stay as they are."""

    to: str  # the trunk's last operation; those behind it read no other one of the trunk
    steps: count(2**31)  # batches, the last ones of all
    clips: count(10**6)  # of which its codes are kept; of a folder, at most as many as it has
    batch: count(4096) = 104
    learning_rate: Rate = 0.0015  # peak


class ClipsConfig(Frozen):
    """The recipe of a network that classifies clips; :mod:`model.clip_train` says what it does."""

    frames: count(1000) = 16  # of a clip
    steps: count(2**31) = 20000  # batches, in all
    float_steps: Steps = 4000  # of these, at first nothing is rounded
    code_steps: Steps = 1000  # behind them codes are, but not the weights, and nothing in cells
    weight_steps: Steps = 3000  # ... then the weights too, but nothing in cells
    easy_steps: Steps = 2000  # in which the clips that are drawn get as difficult as they will be
    difficulty: Share = 0.5  # of drawn clips
    batch: count(4096) = 26
    learning_rate: Rate = 0.01  # peak
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    tick_power: Annotated[float, Field(ge=0, le=100)] = 2.0  # of a tick's number, for the loss
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    validation: count(10**6) = 390  # drawn clips of this split, and of the next one
    test: count(10**6) = 1300
    validate_every: count(2**31) = 500  # steps
    seed: Steps = 1
    trunk: TrunkConfig | None = None

    @property
    def whole_steps(self) -> int:
        """Those that train the whole network."""
        return self.steps - (self.trunk.steps if self.trunk else 0)

    @model_validator(mode="after")
    def _phases_fit(self):
        check_phases(self, "float_steps", "code_steps", "weight_steps")
        first = self.float_steps + self.code_steps + self.weight_steps
        if self.whole_steps < first:
            raise ValueError(f"trunk.steps must leave the {first} steps before all is rounded, "
                             f"of {self.steps}, not be {self.trunk.steps}")
        return self


def check_trunk(network: NetworkConfig, to: str):
    """ConfigError unless `to` is a convolution, and what is behind reads nothing before it."""
    conv = network.by_name.get(to)
    if conv is None or conv.kind != "conv":
        raise ConfigError(f"clips.trunk.to: must be a convolution of the network, not {shown(to)}")
    names = [PIXELS, *network.by_name]
    before = set(names[:names.index(to)])
    for operation in network.operations[names.index(to):]:
        if read := before & set(operation.reads):
            raise ConfigError(f"clips.trunk.to: must be what alone is read behind it, not {to}: "
                              f"{operation.name} reads {min(read)}")


def check_clips(network: NetworkConfig, frames: int, where: str):
    """ConfigError unless the network gives a class within clips of so many frames."""
    if not network.timed or network.output != "class":
        raise ConfigError(f"{where}: must be of a network that reads clips and gives a class")
    if network.period > frames:
        raise ConfigError(f"{where}: frames must be at least {network.period}, when the network "
                          f"gives its first class, not {frames}")


def remembers(network: NetworkConfig) -> bool:
    """Whether a cell keeps what the frames before have told."""
    return any(each.kind == "cell" for each in network.operations)


def clip_scores(network: NetworkConfig, scores: np.ndarray) -> np.ndarray:
    """A clip's scores (..., classes) of those at each tick, (..., ticks, classes).

    The last ones of a network that remembers the clip by a cell, else the sum of all.
    """
    return scores[..., -1, :] if remembers(network) else scores.sum(-2)
