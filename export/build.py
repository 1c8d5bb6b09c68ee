"""Several networks on one machine: its sizes, the placed programs, and what its memories hold."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from export.artifact import Network
from export.checked import ConfigError
from export.config import Config, load_config
from export.hardware import Hardware
from export.pack import Images, empty, join, pack
from export.program import Program


@dataclass(frozen=True, kw_only=True)
class Build:
    """A machine with the programs that it is made for; `images` are of the first `held` ones."""

    hardware: Hardware
    programs: tuple[Program, ...]
    networks: tuple[Network | None, ...]
    images: Images

    @property
    def held(self) -> int:
        """Programs that are in its memories from the start, in this order."""
        return len(self.images.records)


def size(configs: Sequence[Config]) -> tuple[Hardware, tuple[Program, ...]]:
    """The machine of the first configuration, made for the networks of all, and their programs.

    ROM holds all of them; RAM holds as many beside each other as `machine.hold` says.

    Raises
    ------
    ConfigError
        If a network does not fit the array, or ROM is told how many programs to hold.
    """
    first = configs[0]
    machine = first.machine
    if machine.memory == "rom" and (machine.slots or machine.hold not in (0, len(configs))):
        raise ConfigError(f"{first.name}: machine.slots and machine.hold are for memory 'ram': "
                          f"ROM holds all of its programs")
    configs = [first, *(_moved(each, first) for each in configs[1:])]
    hardware = Hardware.of([Program(config) for config in configs], memory=machine.memory,
                           hold=machine.hold or len(configs), slots=machine.slots)
    return hardware, tuple(hardware.place(config) for config in configs)


def _moved(config: Config, first: Config) -> Config:
    """A configuration with the array of another one's machine, and its buffers of pixels."""
    buffers = {"pixel_buffers": first.machine.pixel_buffers}
    return config.model_copy(update={"array": first.array,
                                     "machine": config.machine.model_copy(update=buffers)})


def with_networks(config: Config) -> list[Config]:
    """A configuration and those of its machine's other networks, from their files."""
    return [config, *map(load_config, config.machine.networks)]


def config_hash(config: Config, programs: Sequence[Program]) -> str:
    """Of a machine's configuration and of those of its programs, the first of which is its own."""
    return joined([config.digest, *(program.config.digest for program in programs[1:])])


def joined(digests: Sequence[str]) -> str | None:
    """One digest for several; a single one is its own."""
    if len(digests) < 2:
        return digests[0] if digests else None
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def build(configs: Sequence[Config], networks: Sequence[Network | None]) -> Build:
    """As :func:`size`, with what the memories hold at first.

    That is all programs or, in RAM, as many as it holds, up to the first without weights.

    Raises
    ------
    ConfigError
        As :func:`size`, if ROM lacks weights, or weights are of another network.
    """
    hardware, programs = size(configs)
    if missing := [config.name for config, network in zip(configs, networks, strict=True)
                   if hardware.memory == "rom" and network is None]:
        raise ConfigError(f"{missing[0]}: ROM needs weights")
    parts = []
    hold = configs[0].machine.hold or len(configs)
    for program, network in zip(programs[:hold], networks, strict=False):
        if network is None:
            break
        parts.append(pack(program, hardware, network))
    return Build(hardware=hardware, programs=programs, networks=tuple(networks),
                   images=join(hardware, parts) if parts else empty(hardware))
