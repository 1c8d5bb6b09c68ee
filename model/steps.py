"""A training run that counts in batches: what compression, detection and clips share.

It writes into its folder: `checkpoint.pt` every few minutes (a killed run resumes from it), and
whenever it validates `final.pt` (what is exported, and the record), `record.json` and TensorBoard
logs.
"""

import json
import math
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from export.artifact import Network
from export.checked import ConfigError
from export.config import Config
from export.file import write_whole
from model.allocator import keep_freed
from model.begin import begin_with, first_network
from model.convert import load_state
from model.train import atomic_save, resuming

SAVE = 120  # seconds between checkpoints


class Validation(NamedTuple):
    """What a run is worth now."""

    models: dict[str, torch.nn.Module]  # as they are exported
    numbers: dict[str, float]  # for the curve
    record: dict  # what the record says of it
    shown: str


class StepRun:
    """Position, and everything that a resume needs; a subclass has an `encoder`."""

    def __init__(self, recipe, folder: Path):
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder = recipe, folder
        self.optimizers: list[torch.optim.Optimizer] = []
        self.step, self.curve, self.seconds = 0, [], 0.0
        self.began = None  # the digest of the network that it began with

    @property
    def models(self) -> dict[str, torch.nn.Module]:
        """What is trained."""
        return {"encoder": self.encoder}

    @property
    def parts(self) -> dict:
        """What has a state."""
        return self.models | {f"optimizer{k}": each for k, each in enumerate(self.optimizers)}

    def sample(self, data) -> Tensor:
        """Some of the pixels that are trained on, as the encoder sees them."""
        raise NotImplementedError

    def begin(self, network: Network, path: Path, data):
        """Begins with the network of a file; ConfigError if it does not fit."""
        begin_with(self.encoder, network, self.sample(data))
        self.began = network.digest

    def train_step(self, data) -> float:
        """Trains one batch, counts it, and returns its loss."""
        raise NotImplementedError

    def learn(self, loss: Tensor, rates: Iterable[float], limited: Iterable[Tensor] = ()) -> float:
        """Follows the gradients of a batch, each optimizer at its rate; ends the step.

        Those of the parameters `limited` have a norm of 1 at most.
        """
        for optimizer, rate in zip(self.optimizers, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(limited, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        return loss.item()

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
                     "step": self.step, "curve": self.curve, "seconds": self.seconds,
                     "began": self.began},
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
            self.began = state.get("began")

    def train(self, config: Config, data, counts: dict, validate: Callable[[], Validation],
              begin: Path | None = None) -> dict:
        """Trains to the end (or from where a killed run was) and returns the record.

        `data` is what :meth:`train_step` takes; `counts` say in the record what it is. A new run
        begins with the network in `begin`, if there is one.

        Raises
        ------
        ConfigError
            If a checkpoint cannot be resumed or has nothing left to learn, the network does not
            fit, or the loss is no number.
        """
        folder = self.folder
        keep_freed()
        folder.mkdir(parents=True, exist_ok=True)
        self.resume()
        if self.step >= self.recipe.steps and not (folder / "record.json").exists():
            raise ConfigError(f"{folder}: has a training that ended at step {self.step}, without "
                              f"its record; steps must be more, not {self.recipe.steps}")
        if begin and (network := first_network(begin, folder, self.began, fresh=not self.step)):
            self.begin(network, begin, data)
        with SummaryWriter(folder / "logs") as writer:
            self._go_on(config, data, counts, validate, writer)
        return json.loads((folder / "record.json").read_bytes())

    def _go_on(self, config: Config, data, counts: dict, validate: Callable[[], Validation],
               writer: SummaryWriter):
        """Trains to the end, and writes at times what the run is worth."""
        recipe, folder = self.recipe, self.folder
        saved, losses = time.perf_counter(), []
        while self.step < recipe.steps:
            losses.append(self.checked_step(data))
            looks = self.step == recipe.steps or self.step % recipe.validate_every == 0
            if looks:
                found = validate()
                numbers, losses = {"loss": sum(losses) / len(losses), **found.numbers}, []
                self.curve.append([self.step, *numbers.values()])
                record = {"command": f"hexlane train configs/{config.name}.toml",
                          "config": config.model_dump(), "python": platform.python_version(),
                          "torch": torch.__version__, "machine": platform.machine(),
                          "seconds": round(self.seconds), "steps": self.step,
                          "began": self.began, **counts,
                          "curve": self.curve, **found.record}
                text = json.dumps(record, indent=1) + "\n"
                states = {name: each.state_dict() for name, each in found.models.items()}
                atomic_save({**states, "record": json.loads(text)}, folder / "final.pt")
                write_whole(folder / "record.json", text.encode())
                for name, value in numbers.items():
                    writer.add_scalar(name, value, self.step)
                print(f"step {self.step}/{recipe.steps}: loss {numbers['loss']:.4f}, "
                      f"{found.shown}; {self.seconds / self.step:.2f} s per step", flush=True)
            if looks or time.perf_counter() > saved + SAVE:
                self.save()
                saved = time.perf_counter()
