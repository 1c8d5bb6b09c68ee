"""Keeps an unfinished training in half of its bytes, so that it can be committed and gone on with.

Weights, and what their optimizers remember, lose the lower halves of their bits, bfloat16: a
relative error of 2^-8, which the next steps make good. Numbers per channel stay as they are.
"""

from pathlib import Path

import torch
from torch import Tensor

from export.checked import ConfigError
from model.convert import load_state
from model.train import atomic_save


def keep(checkpoint: Path, path: Path):
    """Writes `checkpoint.pt` of a training to `path`; ConfigError if it is none."""
    state = _cast(_training(checkpoint), torch.float32, torch.bfloat16)
    atomic_save(state, path)


def begin(path: Path, folder: Path):
    """Lets a training in `folder` go on from what :func:`keep` wrote.

    Raises
    ------
    ConfigError
        If it is none, or a training is in the folder already.
    """
    there = folder / "checkpoint.pt"
    if there.exists():
        raise ConfigError(f"{there}: is a training already; move it away, or go on with it without "
                          f"--resume")
    state = _cast(_training(path), torch.bfloat16, torch.float32)
    atomic_save(state, there)


def _training(path: Path) -> dict:
    """What a `checkpoint.pt` holds; ConfigError if it is none."""
    state = load_state(path)
    if not isinstance(state, dict) or "encoder" not in state or not {"epoch", "step"} & set(state):
        raise ConfigError(f"{path}: is no unfinished training, as checkpoint.pt is one")
    return state


def _cast(state, old: torch.dtype, new: torch.dtype):
    """The state with its matrices of type `old` as `new`."""
    if isinstance(state, Tensor):
        return state.to(new) if state.dtype == old and state.ndim > 1 else state
    if isinstance(state, dict):
        return {key: _cast(value, old, new) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_cast(value, old, new) for value in state]
    return state
