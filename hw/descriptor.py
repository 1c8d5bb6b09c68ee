"""Layouts of the engine's ROM words, from the field widths that the packer uses."""

from amaranth import signed
from amaranth.lib import data

from export.pack import bias_width, layer_fields, tile_fields
from export.program import Program


def layer_layout(program: Program) -> data.StructLayout:
    """One layer's descriptor; :func:`export.pack.layer_words` fills it."""
    return data.StructLayout(layer_fields(program))


def tile_layout(program: Program) -> data.StructLayout:
    """One channel tile: where its input words start."""
    return data.StructLayout(tile_fields(program))


def bias_layout(program: Program) -> data.ArrayLayout:
    """Folded biases of one channel tile."""
    return data.ArrayLayout(signed(bias_width(program)), program.array.columns)
