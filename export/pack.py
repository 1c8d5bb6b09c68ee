"""From an integer network to the engine's ROM images: weights, folded biases, descriptors.

The array never subtracts: a negative weight adds its inverted operand, `peak - a` instead of `-a`.
What that adds too much, `peak * |w|` over all negative weights of a channel, is a constant that is
folded into the channel's bias here and known nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from export.artifact import Layer, Network
from export.checked import ConfigError
from export.descriptor import layer_word, pack_fields, result_of, tile_fields
from export.hardware import Hardware
from export.program import LayerProgram, Program
from export.sections import memories, moved, placed, record_values
from export.words import bits_to_ints, operands, store_weights


def folded_bias(op: LayerProgram, layer: Layer) -> np.ndarray:
    """Biases int64 [O] that undo the inversion of negative weights' operands."""
    negative = np.where(layer.weight < 0, -layer.weight.astype(np.int64), 0)
    fold = negative.reshape(len(negative), -1).sum(1) * op.input_peak
    return layer.bias.astype(np.int64) - fold * (op.source.pixels if op.summed else 1)


def bias_words(program: Program, hardware: Hardware, network: Network) -> list[int]:
    """Folded biases, one word per channel tile; columns without a channel can never win."""
    width, words = hardware.score_bits, []
    for op, layer in zip(program.layers, network.layers, strict=True):
        folded = folded_bias(op, layer)
        lowest = -(1 << width - 1) if result_of(op) == "class" else 0
        for index in range(op.channel_tiles):
            tile = np.full(program.array.columns, lowest, np.int64)
            filters = op.filters(index, program.array.columns)
            tile[:len(filters)] = folded[filters]
            words.append(sum((value & (1 << width) - 1) << k * width
                             for k, value in enumerate(tile.tolist())))
    return words


def _steps(op: LayerProgram, weight: np.ndarray, index: int, columns: int,
           words: int) -> np.ndarray:
    """Weights [steps, columns, operands] of channel tile `index`, zero where there is none."""
    if op.operation.taps > 1:  # of one position
        weight = weight[..., None, None]
    if op.frames > 1:
        return np.concatenate([_steps_of_frame(op, weight[:, :, k], index, columns, words)
                               for k in range(op.frames)])
    return _steps_of_frame(op, weight, index, columns, words)


def _steps_of_frame(op: LayerProgram, weight: np.ndarray, index: int, columns: int,
                    words: int) -> np.ndarray:
    ops, kernel = operands(op.mode, words), op.operation.kernel
    group_in = weight.shape[1]
    group_out = op.operation.filters // op.operation.groups
    taps, positions = op.taps_per_word, np.array(op.positions)
    channels = op.filters(index, columns)
    if taps == 1:
        span = np.zeros((columns, kernel, kernel, op.words * ops), np.int8)
        for column, channel in enumerate(channels):
            group = channel // group_out * group_in
            places = positions[group:group + group_in] - op.first_words[index] * ops
            span[column][:, :, places] = weight[channel].transpose(1, 2, 0)
        return span.reshape(columns, -1, ops).transpose(1, 0, 2)
    # Operand j * channels + c of the word of pixel x is channel c of pixel x + j - centre. Each
    # kernel column goes into the step that is nearest to it, so that a masked word (one whose
    # own pixel lies outside the image) takes nothing with it that lies inside.
    packed = np.zeros((columns, 3, len(op.dx), ops), np.int8)
    centre = 1 if taps == 3 else 0
    for kx in (-1, 0, 1):
        dx = min(max(kx, op.dx[0]), op.dx[-1])
        j = kx - dx + centre
        for column, channel in enumerate(channels):
            part = weight[channel][:, :, kx + 1].transpose(1, 0)
            packed[column, :, dx - op.dx[0], j * group_in:(j + 1) * group_in] = part
    return packed.reshape(columns, -1, ops).transpose(1, 0, 2)


def weight_words(program: Program, network: Network) -> list[np.ndarray]:
    """The words of each layer's weights, bits uint8 [weight_steps, columns, stored_bits]."""
    array, layers = program.array, []
    for op, layer in zip(program.layers, network.layers, strict=True):
        steps = np.concatenate([_steps(op, layer.weight, index, array.columns, array.words)
                                for index in range(op.channel_tiles)])
        if op.operation.generator is not None:
            layers.append(np.zeros((len(steps), array.columns, 0), np.uint8))
            continue
        if op.weight_bits == 1:  # lanes without a weight are masked; any sign will do
            steps = np.where(steps == 0, 1, steps)
        layers.append(store_weights(steps, op.mode, op.weight_bits, array.words, array.dense))
    return layers


def weight_images(program: Program, hardware: Hardware, network: Network) -> list[np.ndarray]:
    """Each segment's memory, bits uint8 [steps of the layers that have it, columns, width]."""
    layers, columns = weight_words(program, network), program.array.columns
    return [np.concatenate([np.zeros((0, columns, stop - start), np.uint8),  # if none has it
                            *(words[..., start:stop] for words in layers
                              if words.shape[-1] > start)])
            for start, stop in pairwise(hardware.weight_edges)]


@dataclass(frozen=True, kw_only=True)
class Images:
    """Contents of the memories as integers: of one program whose rows begin at 0, or of several."""

    weights: list[list[int]]  # of each segment
    biases: list[int]
    tiles: list[int]
    layers: list[int]
    seeds: list[int]  # of the layers with generated weights
    records: list[dict[str, int]]  # one for each program

    def rows(self, name: str) -> list[int]:
        """Those of one of :func:`export.sections.memories`."""
        if name.startswith("weights"):
            return self.weights[int(name.removeprefix("weights"))]
        return getattr(self, name)


def empty(hardware: Hardware) -> Images:
    """A machine into which nothing is loaded."""
    return Images(weights=[[] for _ in hardware.weights], biases=[], tiles=[], layers=[], seeds=[],
                  records=[])


def join(hardware: Hardware, parts: Sequence[Images]) -> Images:
    """Programs beside each other, one behind the other in each memory.

    Raises
    ------
    ConfigError
        If a memory is too small for all of them.
    """
    found, records = empty(hardware), []
    for part in parts:
        bases = {name: len(found.rows(name)) for name in placed(hardware)}
        records += [moved(record, bases) for record in part.records]
        for name in memories(hardware):
            found.rows(name).extend(part.rows(name))
    for name, (rows, _) in memories(hardware).items():
        if len(found.rows(name)) > rows:
            raise ConfigError(f"{len(parts)} programs do not fit the machine at once: {name}: "
                              f"needs {len(found.rows(name))} rows, has {rows}")
    return replace(found, records=records)


def pack(program: Program, hardware: Hardware, network: Network) -> Images:
    """ROM images of a network on a machine.

    Raises
    ------
    ConfigError
        If the program does not fit the machine, the network is not the program's, or a bias could
        make a sum overflow.
    """
    hardware.check(program)
    config = program.config
    if network.config != config.network:
        raise ConfigError(f"{config.name}: the artifact's network differs from the configuration's:"
                          f" {_difference(network.config, config.network)}")
    for op, layer in zip(program.layers, network.layers, strict=True):
        limit = 2**(hardware.score_bits - 3) if op.summed else hardware.bias_peak
        most = np.abs(layer.bias.astype(np.int64)).max()
        if most > limit:
            raise ConfigError(f"{op.name}: accumulator could overflow: wanted |bias| <= {limit},"
                              f" got {most}")
    return Images(
        weights=[bits_to_ints(rows.reshape(len(rows), rows.shape[1] * rows.shape[2]))
                 for rows in weight_images(program, hardware, network)],
        biases=bias_words(program, hardware, network),
        tiles=[pack_fields(tile_fields(hardware), {"offset": first_word * op.slots})
               for op in program.layers for first_word in op.first_words],
        layers=[layer_word(hardware, op, layer)
                for op, layer in zip(program.layers, network.layers, strict=True)],
        seeds=[bits_to_ints(layer.seed[None])[0] for layer in network.layers
               if layer.seed is not None],
        records=[record_values(program, hardware)])


def _difference(came, wanted) -> str:
    for name in type(wanted).model_fields:
        a, b = getattr(came, name), getattr(wanted, name)
        if a != b:
            if name == "operations" and len(a) == len(b):
                name, a, b = next((y.name, x, y) for x, y in zip(a, b, strict=True) if x != y)
            return f"wanted {name} {b}, got {a}"
    return "nothing"
