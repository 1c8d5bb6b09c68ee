"""Writes the Verilog of a design.

`engine.v` is the netlist, the `.mem` files beside it are its ROM contents, `engine.json` says what
they are: ports, parameters, memory map, cycles per layer, and the hash of what they came from.
:mod:`hw.package` has the files for FuseSoC, LiteX and the like.
"""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

from amaranth.hdl import Shape
from amaranth.lib import data, wiring

from export.artifact import Network
from export.config import Config, ConfigError
from export.cost import Cost
from export.descriptor import layer_fields
from export.hardware import Hardware
from export.pack import pack
from export.program import Program
from hw.engine import Engine
from hw.epilogue import probe_layout
from hw.output import result_layout
from hw.package import WRITERS, package
from hw.verilog import memory_files, write_verilog

TOP = "engine"


def describe(engine: Engine, program: Program, network: Network, top: str = TOP) -> dict:
    """Contents of `engine.json`; all cycles are computed, none is simulated."""
    hardware, cost, config = engine.hardware, Cost(program, engine.hardware), program.config
    array, edges = hardware.array, hardware.weight_edges
    stored, memory = cost.stored_bits, cost.memory_bits
    return {
        "name": config.name,
        "top": top,
        "measured": network.record.get("measured"),  # accuracy, as kept with the weights
        "hash": {"config": config.digest, "weights": network.digest, "generator": generator_hash()},
        "ports": ports(engine.signature),
        "result": layout(result_layout(hardware)),
        "probe": layout(probe_layout(hardware)),
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
            **{f"weights{k}": {"depth": depth, "width": (stop - start) * array.columns}
               for k, ((start, stop), (_, depth)) in enumerate(
                   zip(pairwise(edges), hardware.weights, strict=True))},
            "biases": {"depth": hardware.tiles, "width": hardware.score_bits * array.columns},
            "tiles": {"depth": hardware.tiles},
            "layers": {"depth": hardware.operations},
            **({"skips": {"depth": hardware.skip_words, "width": 3 * array.unit}}
               if hardware.gated else {}),
        },
        "layers": [{
            "name": layer.name, "word_bits": layer.mode, "taps_per_word": layer.taps_per_word,
            "input_address": layer.in_base, "input_slots": layer.slots,
            "macs": layer.macs,
            "weight_bits": cost.weight_bits(layer),
            "cycles": cost.layer_cycles(layer),
            "array_use": round(cost.array_use(layer), 4),
        } for layer in program.layers],
        "cycles_per_frame": cost.frame_cycles,
        "array_use": round(cost.hidden_use, 4),  # of the layers between the first and the sums
        "clock_mhz": config.target.clock_mhz,
        "frames_per_second": round(config.target.clock_mhz * 1e6 / cost.frame_period, 1),
        "weight_bits": stored["weights"],
        "bias_bits": stored["biases"],
        "program_bits": stored["program"],
        "seed_bits": stored["seeds"],
        "total_bits": cost.total_bits,
        "activation_memory_bits": memory["activations"],
        "skip_memory_bits": memory["skips"],
    }


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


def up_to_date(config: Config, network: Network, folder: Path, top: str = TOP) -> dict | None:
    """What `engine.json` says, if it is of this design, these weights and this generator."""
    try:
        facts = json.loads((folder / f"{top}.json").read_text())
        same = facts["hash"] == {"config": config.digest, "weights": network.digest,
                                 "generator": generator_hash()}
        same &= (facts["name"], facts["clock_mhz"]) == (config.name, config.target.clock_mhz)
        files = [f"{top}.v", *memory_files(folder / f"{top}.v"), *(top + each for each in WRITERS)]
        return facts if same and all((folder / file).is_file() for file in files) else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def ports(signature: wiring.Signature) -> dict:
    """Direction and bits of each Verilog port."""
    found = {"clk": {"direction": "input", "bits": 1}, "rst": {"direction": "input", "bits": 1}}
    for path, member in _leaves(signature):
        found["__".join(path)] = {
            "direction": "input" if member.flow == wiring.In else "output",
            "bits": Shape.cast(member.shape).width}
    return found


def _leaves(signature: wiring.Signature, path=()):
    for name, member in signature.members.items():
        if member.is_signature:  # seen from this side, so already flipped where it has to be
            yield from _leaves(member.signature, (*path, name))
        else:
            yield (*path, name), member


def generate(config: Config, network: Network, folder: Path,
             hardware: Hardware | None = None, top: str = TOP) -> dict:
    """Writes the design into `folder` and returns what `engine.json` says.

    The machine is `hardware`, or the smallest one that runs the network. The same configuration,
    weights and machine give the same bytes. Another `top` than "engine" names the files and leads
    the names of all modules and memory files, so that two engines can be in one design.

    Raises
    ------
    ConfigError
        If the network is not the configured one or does not fit the array.
    """
    program = Program(config)
    hardware = hardware or Hardware.of([program])
    engine = Engine(hardware, pack(program, hardware, network))
    facts = describe(engine, program, network, top)
    network_line = ", ".join(f"{layer.name} {layer.channels}" for layer in program.layers)
    array = config.array
    header = [
        f"Hexlane engine '{config.name}': {array.rows} x {array.columns} processing elements of "
        f"{array.words} words, precisions {list(array.precisions)}",
        f"network: {config.network.channels} x {config.network.height} x {config.network.width} "
        f"pixels, {network_line}",
        f"cycles per frame: {facts['cycles_per_frame']}",
        f"configuration sha256 {facts['hash']['config']}",
        f"weights sha256 {facts['hash']['weights']}",
    ]
    try:
        write_verilog(engine, folder, top, header, memory_prefix="" if top == TOP else f"{top}_",
                      beside=lambda memories: {f"{top}.json": json.dumps(facts, indent=1) + "\n",
                                               **package(facts, memories)})
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error
    return facts
