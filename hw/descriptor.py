"""Layouts of the engine's ROM words, from the field widths that the packer uses."""

from amaranth import signed
from amaranth.lib import data

from export.descriptor import RESULTS, layer_fields, tile_fields
from export.hardware import Hardware


def layer_layout(hardware: Hardware) -> data.StructLayout:
    """One operation's descriptor; :func:`export.descriptor.layer_word` fills it."""
    return data.StructLayout(layer_fields(hardware))


def tile_layout(hardware: Hardware) -> data.StructLayout:
    """One channel tile: where its input words start."""
    return data.StructLayout(tile_fields(hardware))


def bias_layout(hardware: Hardware) -> data.ArrayLayout:
    """Folded biases of one channel tile."""
    return data.ArrayLayout(signed(hardware.score_bits), hardware.array.columns)


def is_summed(layer):
    """Whether the sums of all pixels are added up."""
    summed = (layer.result == RESULTS.index("select")) | (layer.result == RESULTS.index("class"))
    return summed | makes(layer, "vector") if len(layer.result) > 2 else summed


def makes(layer, result: str):
    """Whether this becomes of the sums."""
    return layer.result == RESULTS.index(result)
