"""A training run that counts in batches: what compression, detection and clips share."""

import math
import time
from pathlib import Path

import torch

from export.checked import ConfigError
from model.convert import load_state
from model.train import atomic_save, resuming


class StepRun:
    """Position, and everything that a resume needs; a subclass names its `models`."""

    def __init__(self, recipe, folder: Path):
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder = recipe, folder
        self.optimizers: list[torch.optim.Optimizer] = []
        self.step, self.curve, self.seconds = 0, [], 0.0

    @property
    def models(self) -> dict[str, torch.nn.Module]:
        """What is trained."""
        raise NotImplementedError

    @property
    def parts(self) -> dict:
        """What has a state."""
        return self.models | {f"optimizer{k}": each for k, each in enumerate(self.optimizers)}

    def train_step(self, data) -> float:
        """Trains one batch, counts it, and returns its loss."""
        raise NotImplementedError

    def checked_step(self, data) -> float:
        """A step, timed; ConfigError if its loss is no number."""
        start = time.perf_counter()
        loss = self.train_step(data)
        self.seconds += time.perf_counter() - start
        if not math.isfinite(loss):
            raise ConfigError(f"{self.folder}: the loss of step {self.step} is {loss}, wanted a "
                              f"number to learn from; checkpoint.pt is of some steps before")
        return loss

    def save(self):
        atomic_save({**{name: part.state_dict() for name, part in self.parts.items()},
                     "step": self.step, "curve": self.curve, "seconds": self.seconds},
                    self.folder / "checkpoint.pt")

    def resume(self):
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = load_state(path)
        with resuming(path):
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            self.curve = [list(map(float, each)) for each in state["curve"]]
