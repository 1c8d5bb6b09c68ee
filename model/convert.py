"""Checkpoint to integer network. A `record.json` beside the checkpoint goes into its record."""

import json
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from export.artifact import Layer, Network
from export.config import Config, ConfigError, parse_config
from export.network import NetworkConfig
from model.begin import freeze
from model.network import Encoder


def _integers(values: Tensor, dtype: torch.dtype, what: str):
    """`values` as an array of integers; they must be some already, and fit."""
    limits = torch.iinfo(dtype)
    values = values.detach().double().cpu()
    fits = (values == values.round()) & (values >= limits.min) & (values <= limits.max)
    if not fits.all():
        raise ConfigError(f"{what} must be integers from {limits.min} to {limits.max}, "
                          f"not {values[~fits][0].item():g}")
    return values.to(dtype).numpy()


def convert(encoder: Encoder, record: dict | None = None) -> Network:
    """The integers that `encoder` computes with in evaluation mode.

    Raises
    ------
    ConfigError
        If one of them is none, or does not fit the hardware: of a diverged training.
    """
    layers = []
    for name, part in encoder.parts.items():
        shift, extra = 0, {}
        if part.layer.kind != "sum" or part.layer.makes_codes:
            shift = _integers(part.shift, torch.int32, f"{name}: shift").item()
        if part.layer.generator is not None:
            extra["seed"] = part.seed.cpu().numpy()
        layers.append(Layer(part.layer, _integers(part.levels(), torch.int8, f"{name}: weight"),
                            _integers(part.integer_bias(), torch.int32, f"{name}: bias"), shift,
                            **extra))
    return Network(encoder.network, tuple(layers), record or {})


def load_state(path: Path):
    """What a checkpoint holds, read without running any code; ConfigError if it is none."""
    if path.exists() and not path.is_file():  # a pipe might never end
        raise ConfigError(f"{path}: cannot be read as a checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:  # torch packs nothing
            if sum(each.file_size for each in archive.infolist()) > path.stat().st_size:
                raise ConfigError(f"{path}: must not be packed to be read as a checkpoint")
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; train first") from error
    except ConfigError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise ConfigError(f"{path}: cannot be read as a checkpoint") from error


def load_checkpoint(path: Path, config: Config) -> tuple[Encoder, dict]:
    """The encoder of `final.pt` or `checkpoint.pt` in evaluation mode, and its record.

    The statistics of a `checkpoint.pt` are the running ones of the training, not calibrated.

    Raises
    ------
    ConfigError
        If there is no such file, or it is no checkpoint of this network.
    """
    state = load_state(path)
    if isinstance(state, dict) and "encoder" in state:
        record = {"epoch": state.get("epoch"), "curve": state.get("curve")}
        if "record" in state:
            record = _checked(state["record"], config, path)
        state = state["encoder"]
    else:
        record = _read_record(path.with_name("record.json"), config)
    if config.train.normalization == "batch":
        raise ConfigError(f"{config.name}: batch normalization has no integers to export; "
                          f"wanted normalization = \"shift\"")
    if config.train.residuals == "add":
        raise ConfigError(f"{config.name}: added real numbers have no integers to export; "
                          f"wanted residuals = \"gates\"")
    encoder = Encoder(config.network, config.train)
    if config.codec and config.codec.encoder == "transforms":
        freeze(encoder)
    fill(encoder, state, path)
    return encoder.eval(), record


def fill(encoder: Encoder, state: dict, path: Path):
    """Loads a state; ConfigError if it is not of tensors of the encoder's names and shapes."""
    wanted = encoder.state_dict()
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ConfigError(f"{path}: is no checkpoint of this training")
    for name, values in wanted.items():
        if name not in state:
            raise ConfigError(f"{path}: does not match the configuration: {name} is missing")
        if state[name].shape != values.shape:
            raise ConfigError(f"{path}: does not match the configuration: {name} must be "
                              f"{list(values.shape)}, not {list(state[name].shape)}")
        layout = str(state[name].layout).removeprefix("torch.")
        if state[name].dtype != values.dtype or state[name].is_meta or layout != "strided":
            raise ConfigError(f"{path}: {name} must hold {values.dtype}, not {state[name].dtype} "
                              f"on {state[name].device}"
                              + f", {layout}" * (layout != "strided"))
    if strange := sorted(map(str, set(state) - set(wanted))):
        raise ConfigError(f"{path}: does not match the configuration: {strange[0]} is unknown")
    encoder.load_state_dict(state)


def _read_record(path: Path, config: Config) -> dict:
    """The training's record, if there is one; it must be of the same network."""
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: is no record of a training") from error
    return _checked(record, config, path)


def _checked(record: dict, config: Config, path: Path) -> dict:
    try:
        network = dict(record)["config"]["network"]
    except (LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: is no record of a training") from error
    if parse_config(network, str(path), NetworkConfig) != config.network:
        # Precisions, pooling and padding do not show in the shapes of the checkpoint.
        raise ConfigError(f"{path}: training was of another network than the configuration's")
    return record
