"""What the commands share: arguments, options, and how a design and its weights are found."""

from pathlib import Path
from typing import Annotated

import typer

from export.checked import ConfigError, parse

Design = Annotated[Path, typer.Argument(help="design, a TOML file", show_default=False)]
Weights = Annotated[str | None, typer.Option(
    "-w", "--weights",
    help="integer network, a .npz file, 'random', or 'none' (a machine of RAM); default: "
         "weights/NAME.npz here, beside the design, or in ../weights of its folder")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="of random weights and images")]
Folder = Annotated[Path | None, typer.Option("-o", "--output", help="folder; default: build/NAME")]
Device = Annotated[str, typer.Option(help="cpu or cuda; default: cuda if there is one")]


def load_design(config: Path, weights: str | None, seed: int = 1, needs: str = ""):
    """A configuration, its network, and the file that the network came from (None: random).

    With weights "none" there is no network, which a command that `needs` one refuses.
    """
    from export.config import load_config
    from export.file import load_network
    design = load_config(config)
    if weights == "random":
        from sim.samples import random_network
        return design, random_network(design.network, seed), None
    if weights == "none" and needs:
        raise ConfigError(f"{needs}: wanted weights, got --weights none")
    if weights == "none":
        return design, None, None
    path = Path(weights) if weights else find_weights(config, f"{design.name}.npz")
    if not weights and not path.is_file():
        raise ConfigError(f"{path}: no such file; train the network, name one with --weights, or "
                          f"take --weights random")
    return design, load_network(path, design.network, config), path


def find_weights(config: Path, name: str) -> Path:
    """Where the file `name` of a design lies: in weights/ here, beside it, or in ../weights."""
    beside = config.absolute().parent  # the parent of a bare name's folder is not in its path
    places = [Path("weights") / name, beside / name, beside.parent / "weights" / name]
    return next((path for path in places if path.is_file()), places[0])


def load_machine(config: Path, weights: str | None, seed: int, networks: list[Path],
                 changes: dict):
    """A configuration with the machine that it asks for, changed, and what that is made of.

    Other networks' weights are found as the first one's are, or random, or none. Returns the
    configuration and the :class:`export.build.Build`.
    """
    from export.build import build
    from export.config import MachineConfig
    design, network, _ = load_design(config, weights, seed)
    changes = {**changes, "networks": (*design.machine.networks, *map(str, networks))}
    machine = parse(design.machine.model_dump() | changes, f"{config}: machine", MachineConfig)
    design = design.model_copy(update={"machine": machine})
    others = [load_design(Path(name), weights if weights in ("random", "none") else None, seed)
              for name in machine.networks]
    return design, build([design, *(other for other, _, _ in others)],
                         [network, *(made for _, made, _ in others)])


def seed_list(text: str, option: str) -> list[int]:
    """Seeds of a placement, divided by blanks, each once; ConfigError if they are none."""
    numbers = text.split()
    if not numbers or not all(each.isascii() and each.isdecimal() and len(each) <= 10
                              and 0 < int(each) < 2**31 for each in numbers):
        raise ConfigError(f"{option} must be numbers from 1 to 2147483647, not {text!r:.60}")
    return [*dict.fromkeys(map(int, numbers))]
