"""From an integer network to the engine's ROM images: weights, folded biases, descriptors.

The array never subtracts: a negative weight adds its inverted operand, `peak - a` instead of `-a`.
What that adds too much, `peak * |w|` over all negative weights of a channel, is a constant that is
folded into the channel's bias here and known nowhere else.
"""

from dataclasses import dataclass

import numpy as np

from export.artifact import MAX_SHIFT, Network
from export.config import Config, ConfigError
from export.program import LayerProgram, Program
from export.words import bits_to_ints, operands, store_weights

GATES = None, "or", "mux", "mux_or"  # by their number in the descriptor
RESCALES = 0, 1, 2, -1, -2  # left shifts of a skip's codes, by their number in the descriptor


def bits_for(peak: int) -> int:
    """Bits of an unsigned field that holds 0 ... `peak`; at least one."""
    return max(1, peak.bit_length())


def layer_fields(program: Program) -> dict[str, int]:
    """Bits of each field of a layer descriptor, lowest first."""
    layers = program.layers
    gates = {}
    if program.gated:
        skip = bits_for(program.skip_depth)
        gates = {"gate": 2, "rescale": 3, "skip_base": skip,
                 "skip_end": skip, "keep": 1, "keep_pooled": 1, "keep_base": skip,
                 "select_base": bits_for(program.select_words)}
    if program.generators:
        gates["generator"] = bits_for(len(program.generators))
    pixels = max(max(layer.source.width, layer.source.height) for layer in layers)
    slots = bits_for(max(layer.slots for layer in layers))
    address = bits_for(program.depth)
    rot = bits_for(program.array.rows - 1)
    return {
        "mode": 2, "weight_bits": 2, "segments": bits_for(len(program.weight_widths)),
        "summed": 1, "classifier": 1, "pool": 1, "code_bits": 2, "out_mode": 2,
        "both_rows": 1,  # the kernel's rows are -1, 0 and 1, else 0 only
        "left": 1, "right": 1,  # the kernel has a column -1, a column 1
        "shift": bits_for(MAX_SHIFT),
        "pad": 8,
        "last_digit": bits_for(max(layer.digits for layer in layers) - 1),
        "tail": bits_for(6 * program.array.words),
        "last_x": bits_for(pixels), "last_y": bits_for(pixels),
        "last_word": bits_for(max(layer.words for layer in layers) - 1),
        "last_channel_tile": bits_for(max(layer.channel_tiles for layer in layers) - 1),
        "last_pixel_tile": bits_for(max(layer.pixel_tiles for layer in layers) - 1),
        "slots": slots, "out_slots": slots, "digit_stride": address,
        "in_base": address, "out_base": address,
        "up_slots": slots, "up_rot": rot,  # one image row up is this many slots back,
        "down_slots": slots, "down_rot": rot,  # then this many banks on; down likewise
        **gates,
    }


def tile_fields(program: Program) -> dict[str, int]:
    """Bits of each field of a channel tile's record, lowest first."""
    return {"offset": bits_for(program.depth)}


def bias_width(program: Program) -> int:
    """Bits of one folded bias; the classifier's are sums over all its pixels."""
    return max(program.bias_bits, program.score_bits)


def _pack_fields(fields: dict[str, int], values: dict[str, int]) -> int:
    word, position = 0, 0
    for name, width in fields.items():
        value = int(values[name])
        if not 0 <= value < 2**width:
            raise ConfigError(f"{name}: wanted 0 ... {2**width - 1}, got {value}")
        word |= value << position
        position += width
    return word


def layer_words(program: Program, network: Network) -> list[int]:
    """The layer descriptors, one word each."""
    rows, words = program.array.rows, []
    for index, layer in enumerate(program.layers):
        shift = 0 if layer.summed else network.layers[layer.number].shift
        gates = {}
        if program.gated:
            gates = {"gate": GATES.index(layer.gate),
                     "rescale": RESCALES.index(layer.rescale),
                     "skip_base": layer.skip_base, "skip_end": layer.skip_base + layer.skip_size,
                     "keep": layer.keep, "keep_pooled": layer.keep_pooled,
                     "keep_base": layer.keep_base, "select_base": layer.select_base}
        if program.generators:
            gates["generator"] = (0 if layer.generator is None
                                  else 1 + program.generators.index(layer))
        slots, rot = divmod(layer.source.width, rows)
        words.append(_pack_fields(layer_fields(program), {
            "mode": layer.mode, "weight_bits": layer.weight_bits,
            "segments": program.weight_segments(layer),
            "summed": layer.summed, "classifier": layer.classifier,
            "pool": layer.pool, "code_bits": layer.code_bits, "out_mode": layer.out_mode,
            "both_rows": len(layer.dy) > 1, "left": -1 in layer.dx, "right": 1 in layer.dx,
            "shift": shift, "pad": network.config.pad if index == 0 else 0,
            "last_digit": layer.digits - 1, "tail": layer.tail,
            "last_x": layer.source.width - 1, "last_y": layer.source.height - 1,
            "last_word": layer.words - 1,
            "last_channel_tile": layer.channel_tiles - 1, "last_pixel_tile": layer.pixel_tiles - 1,
            "slots": layer.slots, "out_slots": layer.out_slots,
            "digit_stride": layer.digit_words * layer.slots,
            "in_base": layer.in_base, "out_base": layer.out_base,
            "up_slots": slots + (rot > 0), "up_rot": -rot % rows,
            "down_slots": slots, "down_rot": rot, **gates,
        }))
    return words


def tile_words(program: Program) -> list[int]:
    """The channel tiles' records of all layers, in the order in which they run."""
    return [_pack_fields(tile_fields(program), {"offset": first_word * layer.slots})
            for layer in program.layers for first_word in layer.first_words]


def folded_bias(layer: LayerProgram, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Biases int64 [O] that undo the inversion of negative weights' operands."""
    negative = np.where(weight < 0, -weight.astype(np.int64), 0)
    fold = negative.reshape(len(weight), -1).sum(1) * layer.input_peak
    return bias.astype(np.int64) - fold * (layer.source.pixels if layer.summed else 1)


def bias_words(program: Program, network: Network) -> list[int]:
    """Folded biases, one word per channel tile; columns without a channel can never win."""
    width = bias_width(program)
    words = []
    for layer, (weight, bias) in zip(program.layers, _parameters(program, network), strict=True):
        folded = folded_bias(layer, weight, bias)
        lowest = -(1 << width - 1) if layer.classifier else 0
        columns = np.full(layer.channel_tiles * program.array.columns, lowest, np.int64)
        columns[:len(folded)] = folded
        words += [sum((value & (1 << width) - 1) << k * width for k, value in enumerate(tile))
                  for tile in columns.reshape(layer.channel_tiles, -1).tolist()]
    return words


def _parameters(program: Program, network: Network) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights [out, in / groups, k, k] and biases [out] of the program's layers."""
    pairs = []
    for layer in program.layers:
        if layer.classifier:
            pairs.append((network.classifier_weight[:, :, None, None], network.classifier_bias))
        elif layer.summed:
            mux = network.layers[layer.number]
            pairs.append((mux.select_weight[:, :, None, None], mux.select_bias))
        else:
            pairs.append((network.layers[layer.number].weight, network.layers[layer.number].bias))
    return pairs


def _steps(layer: LayerProgram, weight: np.ndarray, index: int, columns: int,
           words: int) -> np.ndarray:
    """Weights [steps, columns, operands] of channel tile `index`, zero where there is none."""
    ops = operands(layer.mode, words)
    group_in = weight.shape[1]
    group_out = layer.channels // layer.groups
    taps = layer.taps_per_word
    span = np.zeros((columns, layer.kernel, layer.kernel, layer.words * ops), np.int8)
    for column in range(min(columns, layer.channels - index * columns)):
        channel = index * columns + column
        first = channel // group_out * group_in - layer.first_words[index] * ops
        if taps == 1:
            span[column, :, :, first:first + group_in] = weight[channel].transpose(1, 2, 0)
    if taps == 1:
        return span.reshape(columns, -1, ops).transpose(1, 0, 2)
    # Operand j * channels + c of the word of pixel x is channel c of pixel x + j - centre. Each
    # kernel column goes into the step that is nearest to it, so that a masked word (one whose
    # own pixel lies outside the image) takes nothing with it that lies inside.
    packed = np.zeros((columns, 3, len(layer.dx), ops), np.int8)
    centre = 1 if taps == 3 else 0
    for kx in (-1, 0, 1):
        dx = min(max(kx, layer.dx[0]), layer.dx[-1])
        j = kx - dx + centre
        for column in range(min(columns, layer.channels - index * columns)):
            part = weight[index * columns + column][:, :, kx + 1].transpose(1, 0)
            packed[column, :, dx - layer.dx[0], j * group_in:(j + 1) * group_in] = part
    return packed.reshape(columns, -1, ops).transpose(1, 0, 2)


def weight_words(program: Program, network: Network) -> list[np.ndarray]:
    """The words of each layer's weights, bits uint8 [weight_steps, columns, stored_bits]."""
    array, layers = program.array, []
    for layer, (weight, _) in zip(program.layers, _parameters(program, network), strict=True):
        steps = np.concatenate([_steps(layer, weight, index, array.columns, array.words)
                                for index in range(layer.channel_tiles)])
        if layer.generator is not None:
            layers.append(np.zeros((len(steps), array.columns, 0), np.uint8))
            continue
        if layer.weight_bits == 1:  # lanes without a weight are masked; any sign will do
            steps = np.where(steps == 0, 1, steps)
        layers.append(store_weights(steps, layer.mode, layer.weight_bits, array.words,
                                    array.dense))
    return layers


def weight_images(program: Program, network: Network) -> list[np.ndarray]:
    """Each segment's memory, bits uint8 [steps of the layers that have it, columns, width]."""
    layers, images, start = weight_words(program, network), [], 0
    for width in program.weight_widths:
        images.append(np.concatenate([words[..., start:start + width] for words in layers
                                      if words.shape[-1] > start]))
        start += width
    return images


@dataclass(frozen=True, kw_only=True)
class Images:
    """ROM contents as integers, and the bits that they take, by the rule for "1 Mb"."""

    weights: list[list[int]]  # of each segment
    biases: list[int]
    tiles: list[int]
    layers: list[int]
    seeds: list[int]  # of the layers with generated weights
    bits: dict[str, int]

    @property
    def total_bits(self) -> int:
        return sum(self.bits.values())


def pack(config: Config, network: Network) -> tuple[Program, Images]:
    """Program and ROM images of a network on the configured array.

    Raises
    ------
    ConfigError
        If the network is not the configured one, or a bias could make a sum overflow.
    """
    program = Program(config)
    if network.config != config.network:
        raise ConfigError(f"{config.name}: the artifact's network differs from the configuration's:"
                          f" {_difference(network.config, config.network)}")
    for layer, (_, bias) in zip(program.layers, _parameters(program, network), strict=True):
        limit = program.bias_peak
        if layer.summed:
            limit = 2**(program.score_bits - 3)
        if np.abs(bias.astype(np.int64)).max() > limit:
            raise ConfigError(f"{layer.name}: accumulator could overflow: wanted |bias| <= {limit},"
                              f" got {np.abs(bias.astype(np.int64)).max()}")
    segments = weight_images(program, network)
    seeds = [network.layers[layer.number].seed for layer in program.generators]
    images = {
        "weights": [bits_to_ints(rows.reshape(len(rows), -1)) for rows in segments],
        "biases": bias_words(program, network),
        "tiles": tile_words(program),
        "layers": layer_words(program, network),
        "seeds": [bits_to_ints(seed[None])[0] for seed in seeds],
    }
    tile_bits = sum(tile_fields(program).values())
    bits = {
        "weights": sum(rows.size for rows in segments),
        "biases": len(images["biases"]) * program.array.columns * bias_width(program),
        "program": (len(images["tiles"]) * tile_bits
                    + len(images["layers"]) * sum(layer_fields(program).values())),
        **({"seeds": sum(seed.size for seed in seeds)} if seeds else {}),
    }
    return program, Images(**images, bits=bits)


def _difference(came, wanted) -> str:
    for name in type(wanted).model_fields:
        a, b = getattr(came, name), getattr(wanted, name)
        if a != b:
            if name == "layers" and len(a) == len(b):
                name, a, b = next((y.name, x, y) for x, y in zip(a, b, strict=True) if x != y)
            return f"wanted {name} {b}, got {a}"
    return "nothing"
