"""Writes the Verilog of a design.

`engine.v` is the netlist, the `.mem` files beside it are its ROM contents, `engine.json` says what
they are: ports, parameters, memory map, cycles per layer, and the hash of what they came from.
`engine.sha256` is written last, for `sha256sum -c`. With AXI, the register map lies beside it.
:mod:`hw.package` has the files for FuseSoC, LiteX and the like.
"""

import hashlib
import json
from pathlib import Path

from amaranth.hdl import Shape
from amaranth.lib import data, wiring

from export.artifact import Network
from export.build import Build, build, config_hash, joined
from export.config import Config, ConfigError
from export.cost import Cost
from export.descriptor import layer_fields
from export.facts import read_facts
from export.file import write_whole
from export.hardware import Hardware
from export.image import Frame, output_of
from export.machine import describe_machine
from export.pack import pack
from export.program import Program
from export.registers import FILES, register_map
from export.sections import memories
from hw.axi import AxiEngine
from hw.engine import Engine
from hw.epilogue import probe_layout
from hw.output import result_layout
from hw.package import WRITERS, package
from hw.verilog import memory_files, write_verilog

TOP = "engine"
BUSES = "stream", "axi"
SUMS = ".sha256"  # what the name of the file with hashes of all others ends in


def describe(engine: wiring.Component, machine: Build, config: Config, top: str = TOP,
             bus: str = BUSES[0]) -> dict:
    """Contents of `engine.json`; all cycles are computed, none is simulated."""
    hardware, array = machine.hardware, machine.hardware.array
    memory = Cost(machine.programs[0], hardware).memory_bits
    programs = [program_facts(program, hardware, made)
                for program, made in zip(machine.programs, machine.networks, strict=True)]
    for slot in range(machine.held):
        programs[slot]["slot"] = slot
    return {
        "name": config.name,
        "top": top,
        "bus": bus,
        "measured": _measured(machine),
        "hash": hashes(config, machine),
        "ports": ports(engine),
        **({"result": layout(result_layout(hardware)), "probe": layout(probe_layout(hardware))}
           if bus == "stream" else {}),
        "parameters": {
            "rows": array.rows, "columns": array.columns, "words": array.words,
            "precisions": list(array.precisions), "accumulator_bits": hardware.acc_bits,
            "bias_bits": hardware.score_bits, "score_bits": hardware.score_bits,
            "channels_per_write": array.unit,
        },
        "descriptor": layer_fields(hardware),
        "memories": {
            "activations": {"banks": array.rows, "depth": hardware.activation_words,
                            "width": 6 * array.words},
            **{name: {"depth": rows, "width": width}
               for name, (rows, width) in memories(hardware).items()},
            **({"skips": {"depth": hardware.skip_words, "width": 3 * array.unit}}
               if hardware.gated else {}),
            **({"states": {"depth": hardware.state_words,
                           "width": hardware.state_bits * array.unit}} if hardware.cells else {}),
            **({"results": {"depth": hardware.output_words,
                            "width": hardware.value_bits * array.unit}}
               if hardware.output_words else {}),
        },
        "activation_memory_bits": memory["activations"],
        "skip_memory_bits": memory["skips"],
        **programs[0],
        "machine": describe_machine(hardware),
        "programs": programs,
    }


def program_facts(program: Program, hardware: Hardware, network: Network | None) -> dict:
    """What `engine.json` says of each program."""
    cost = Cost(program, hardware)
    stored, shape = cost.stored_bits, program.config.network
    return {
        "name": program.config.name,
        "weights": network and network.digest,
        "output": shape.output,
        "frame": {side: getattr(shape, side) for side in Frame.model_fields},
        "gives": output_of(shape, hardware).model_dump(),
        "layers": [{
            "name": layer.name, "word_bits": layer.mode, "taps_per_word": layer.taps_per_word,
            "input_address": layer.in_base, "input_slots": layer.slots,
            "macs": layer.macs,
            "weight_bits": cost.weight_bits(layer),
            "cycles": cost.layer_cycles(layer),
            "array_use": round(cost.array_use(layer), 4),
        } for layer in program.layers],
        "cycles_per_frame": cost.frame_cycles,
        "cycles_to_leave": cost.output_cycles,  # of a result that is always taken at once
        "array_use": round(cost.hidden_use, 4),  # of the layers between the first and the sums
        "frame_period": cost.frame_period,  # cycles from result to result
        "weight_bits": stored["weights"],
        "bias_bits": stored["biases"],
        "program_bits": stored["program"],
        "seed_bits": stored["seeds"],
        "total_bits": cost.total_bits,
    }


def hashes(config: Config, machine: Build) -> dict:
    """Of all that an engine follows from; weights only of those that it holds from the start."""
    held = [network.digest for network in machine.networks[:machine.held]]
    return {"config": config_hash(config, machine.programs), "weights": joined(held),
            "generator": generator_hash()}


def layout(fields: data.StructLayout) -> dict:
    """Place, bits and signedness of each field of a port."""
    return {name: {"lowest_bit": field.offset, "bits": field.width,
                   "signed": Shape.cast(field.shape).signed} for name, field in fields}


def generator_hash() -> str:
    """SHA-256 (hex) of the sources that an engine follows from."""
    here, sha = Path(__file__).parent, hashlib.sha256()
    for path in sorted([*here.glob("*.py"), here / "lint.vlt",
                        *here.with_name("export").glob("*.py")]):
        sha.update(path.read_bytes())
    return sha.hexdigest()


def up_to_date(config: Config, machine: Build, folder: Path, top: str = TOP,
               bus: str = BUSES[0]) -> dict | None:
    """What `engine.json` says, if it is of this design, these weights and this generator."""
    try:
        facts = read_facts(folder / f"{top}.json")
        same = facts["hash"] == hashes(config, machine)
        same &= (facts["name"], facts["bus"]) == (config.name, bus)
        same &= [each["name"] for each in facts["programs"]] == [
            program.config.name for program in machine.programs]
        same &= facts["measured"] == _measured(machine)
        written = (folder / f"{top}{SUMS}").read_text()
        return facts if same and written == _sums(folder, top, bus) else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _measured(machine: Build) -> dict | None:
    """The accuracy, as it is kept with the first network's weights."""
    network = machine.networks[0]
    return network and network.record.get("measured")


def _sums(folder: Path, top: str, bus: str) -> str:
    """SHA-256 (hex) and name of each file of an engine, a line each, for `sha256sum -c`."""
    files = [f"{top}.v", *memory_files(folder / f"{top}.v"), f"{top}.json",
             *(top + each for each in WRITERS)]
    files += [top + each for each in FILES if bus == "axi"]
    return "".join(f"{hashlib.sha256((folder / file).read_bytes()).hexdigest()}  {file}\n"
                   for file in files)


def ports(component: wiring.Component) -> dict:
    """Direction and bits of each Verilog port."""
    found = {"clk": {"direction": "input", "bits": 1}, "rst": {"direction": "input", "bits": 1}}
    for path, member, _ in component.signature.flatten(component):
        found["__".join(path)] = {
            "direction": "input" if member.flow == wiring.In else "output",
            "bits": Shape.cast(member.shape).width}
    return found


def generate(config: Config, network: Network, folder: Path,
             hardware: Hardware | None = None, top: str = TOP, bus: str = BUSES[0]) -> dict:
    """Writes a machine for one network, see :func:`generate_machine`.

    The machine is `hardware`, or the smallest one that runs the network.
    """
    if hardware is None:
        return generate_machine(config, build([config], [network]), folder, top, bus)
    program = hardware.place(config)
    machine = Build(hardware=hardware, programs=(program,), networks=(network,),
                      images=pack(program, hardware, network))
    return generate_machine(config, machine, folder, top, bus)


def generate_machine(config: Config, machine: Build, folder: Path, top: str = TOP,
                     bus: str = BUSES[0]) -> dict:
    """Writes the design into `folder` and returns what `engine.json` says.

    The same configuration, weights and machine give the same bytes. Another `top` than "engine"
    names the files and leads the names of all modules and memory files, so that two engines can be
    in one design. Its ports are streams or, with `bus` "axi", those of :class:`hw.axi.AxiEngine`.

    Raises
    ------
    ConfigError
        If the folder cannot be written, or `top` is no name of a module.
    """
    engine, beside = Engine(machine.hardware, machine.images, framed=bus == "axi"), {}
    if bus == "axi":
        registers = register_map(describe_machine(machine.hardware))
        engine = AxiEngine(engine, registers)
        beside = {top + ending: write(registers, top) for ending, write in FILES.items()}
    facts, array = describe(engine, machine, config, top, bus), config.array
    header = [
        f"Hexlane engine '{config.name}': {array.rows} x {array.columns} processing elements of "
        f"{array.words} words, precisions {list(array.precisions)}",
    ]
    if machine.hardware.memory == "ram":
        header.append(f"programs in RAM, {machine.hardware.programs} at once at most; machine "
                      f"sha256 {facts['machine']['hash']}")
    for program, said in zip(machine.programs, facts["programs"], strict=True):
        shape = program.config.network
        layers = ", ".join(f"{layer.name} {layer.channels}" for layer in program.layers)
        header += [f"network {said['name']}: {shape.channels} x {shape.height} x {shape.width} "
                   f"pixels, {layers}",
                   f"cycles per frame: {said['cycles_per_frame']}"]
    header += [f"configuration sha256 {facts['hash']['config']}",
               f"weights sha256 {facts['hash']['weights']}"]
    try:
        write_verilog(engine, folder, top, header, memory_prefix="" if top == TOP else f"{top}_",
                      beside=lambda memories: {f"{top}.json": json.dumps(facts, indent=1) + "\n",
                                               **package(facts, memories), **beside})
        for ending in FILES:  # of an engine with AXI that was here before
            if top + ending not in beside:
                (folder / f"{top}{ending}").unlink(missing_ok=True)
        write_whole(folder / f"{top}{SUMS}", _sums(folder, top, bus).encode())
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error
    return facts
