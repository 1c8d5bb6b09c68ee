"""Several networks on one machine: its sizes, the placed programs, and what its memories hold."""

from collections.abc import Sequence
from dataclasses import dataclass

from export.artifact import Network
from export.checked import ConfigError
from export.config import Config
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


def build(configs: Sequence[Config], networks: Sequence[Network | None]) -> Build:
    """The machine of the first configuration, made for the networks of all.

    ROM holds all of them. RAM holds as many beside each other as `machine.hold` says, at first
    those whose weights are given, up to the first without.

    Raises
    ------
    ConfigError
        If a network does not fit the array, ROM lacks weights, or the programs do not fit.
    """
    first = configs[0]
    machine = first.machine
    configs = [first, *(each.model_copy(update={"array": first.array}) for each in configs[1:])]
    rom = machine.memory == "rom"
    if rom and (machine.slots or machine.hold not in (0, len(configs))):
        raise ConfigError(f"{first.name}: machine.slots and machine.hold are for memory 'ram': "
                          f"ROM holds all of its programs")
    if missing := [config.name for config, network in zip(configs, networks, strict=True)
                   if rom and network is None]:
        raise ConfigError(f"{missing[0]}: ROM needs weights")
    hold = machine.hold or len(configs)
    hardware = Hardware.of([Program(config) for config in configs], memory=machine.memory,
                           hold=hold, slots=machine.slots)
    programs = tuple(hardware.place(config) for config in configs)
    parts = []
    for program, network in zip(programs[:hold], networks, strict=False):
        if network is None:
            break
        parts.append(pack(program, hardware, network))
    return Build(hardware=hardware, programs=programs, networks=tuple(networks),
                   images=join(hardware, parts) if parts else empty(hardware))
