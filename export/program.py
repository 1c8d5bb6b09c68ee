"""A network as a program of the engine: its operations with loops and addresses; no weight needed.

:mod:`export.schedule` says how each operation runs, :mod:`export.placement` where its maps lie,
:mod:`export.cost` what it takes.
"""

from dataclasses import dataclass

from export import placement
from export.checked import ConfigError
from export.config import Config
from export.network import PIXELS
from export.schedule import Loops, schedule


@dataclass(frozen=True, kw_only=True)
class LayerProgram(Loops):
    """One operation as the engine sees it: its loops, and where it reads and writes."""

    last: bool  # of the program
    in_base: int
    in_stride: int = 0  # from copy to copy of the inputs' ring; 0: they lie in none
    in_clock: int = 0  # the inputs are computed every 2**in_clock frames
    clock: int = 0  # ... and this operation every 2**clock
    out_stride: int = 0
    pad: int = 0  # pixel value outside of the image; of codes 0
    out_base: int = 0
    out_mode: int = 0  # word precision of those that read the output
    out_slots: int = 0
    units: int = 0  # of channels that leave per pixel, if it is the last one and no sum
    out_pixels: int = 0  # ... and the pixels
    keep: bool = False  # the output goes into the skip memory too
    keep_pooled: bool = False  # ... after 2x2 pooling
    keep_base: int = 0
    skip_base: int = 0
    skip_size: int = 0  # words after which the skip's channels start over
    rescale: int = 0  # bits that the gate's layer has more than its skip
    select_base: int = 0  # channel tile's select bits, of a mux and of its sums
    state_base: int = 0  # unit of a cell's state
    seed: int = 0  # number of the generated weights' seed


class Program:
    """All operations of a configuration, placed.

    Attributes
    ----------
    layers : the operations in their order
    activation_words, skip_words, select_words, state_words : depths of the memories that they need
    pixel_buffers : frames of pixels that are there or come in
    pixel_words : ... of which so many first words of activations are the pixels', of all buffers
    pixel_stride : ... from frame to frame of them, if they lie in a ring; else 0
    output_words : units of channels that leave

    `pixel_words` reserves more for the pixels than they need, as a machine of several programs
    does; `pixel_buffers` are those of the machine, if it is not the configuration's own.

    Raises
    ------
    ConfigError
        If the array lacks a precision that an operation needs, or maps cannot be placed.
    """

    def __init__(self, config: Config, pixel_words: int = 0, pixel_buffers: int = 0):
        self.config, self.array = config, config.array
        network, array = config.network, config.array
        loops = schedule(network, array)
        self.pixel_buffers = pixel_buffers or config.machine.pixel_buffers
        if self.pixel_buffers > 1 and network.timed:
            raise ConfigError(f"{config.name}: the machine's pixel_buffers must be 1 for networks "
                              f"that read clips, not {self.pixel_buffers}")
        needed = self.pixel_buffers * loops[0].operation.frames * placement.pixel_stride(loops[0])
        self.pixel_words = max(pixel_words, needed)
        maps, strides = placement.activations(network, array, loops, self.pixel_words)
        self.pixel_stride = strides.get(PIXELS, 0)
        clocks = {name: period.bit_length() - 1 for name, period in network.periods.items()}
        bases, self.activation_words = placement.allocate(maps)
        kept, pooled = placement.skips(network, array)
        skip_bases, self.skip_words = placement.allocate(kept)
        skip_sizes = {region.name: region.size for block in kept for region, _ in block}
        modes = {name: each.mode for each in loops for name in each.maps}
        selects, self.select_words, self.state_words = {}, 0, 0
        for each in loops:
            if each.summed and each.operation.output == "select":
                selects[each.name] = self.select_words
                self.select_words += each.channel_tiles
        layers, generated = [], 0
        for each in loops:
            operation, name = each.operation, each.name
            values = {"last": each is loops[-1], "in_base": bases[operation.inputs[0]],
                      "in_stride": strides.get(operation.inputs[0], 0),
                      "in_clock": clocks[operation.inputs[0]], "clock": clocks[name],
                      "pad": network.pad_of(operation)}
            if each.summed and not operation.makes_codes:
                values["select_base"] = selects.get(name, 0)
            elif values["last"]:
                values |= {"units": each.channel_tiles * array.units,
                           "out_pixels": network.shapes[name].pixels}
            else:
                values |= {"out_base": bases[name], "out_stride": strides.get(name, 0),
                           "out_mode": modes.get(name) or array.mode(name, operation.code_bits),
                           "out_slots": -(-network.shapes[name].pixels // array.rows)}
            if name in skip_bases:
                values |= {"keep": True, "keep_pooled": name in pooled,
                           "keep_base": skip_bases[name]}
            if operation.kind == "conv" and operation.gate:
                skip = network.by_name[operation.skip]
                values |= {"skip_base": skip_bases[skip.name], "skip_size": skip_sizes[skip.name],
                           "rescale": operation.code_bits - skip.code_bits,
                           "select_base": selects.get(operation.select, 0)}
            if operation.kind == "cell":
                values["state_base"] = self.state_words
                self.state_words += each.map_tiles * array.units
            if operation.generator:
                values["seed"] = generated
                generated += 1
            layers.append(LayerProgram(**vars(each), **values))
        self.layers = tuple(layers)
        self.output_words = layers[-1].units * layers[-1].out_pixels
