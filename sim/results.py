"""Results as they leave an engine, as arrays, and what the golden model wants in their place."""

import numpy as np

from export.hardware import Hardware
from export.network import NetworkConfig
from sim.golden import Trace


def unpack(network: NetworkConfig, hardware: Hardware, transfers: list[int]):
    """One frame's result: class and score, or codes uint8 or values int8 [C, H, W].

    Raises
    ------
    ValueError
        If the transfers are not as many, or not padded, as the result wants.
    """
    if not hardware.result_words:
        (payload,) = transfers
        bits = (max(2, hardware.classes) - 1).bit_length()
        return payload & (1 << bits) - 1, _signed(payload >> bits, hardware.score_bits)
    if network.output == "class":
        number, score = transfers
        return number, _signed(score, 32)
    last = network.operations[-1]
    shape = network.shapes[last.name]
    count = shape.pixels * shape.channels
    data = np.array(transfers, "<u4").view(np.uint8)
    size = 8 if network.output == "map" else last.code_bits
    if len(data) != -(-count * size // 32) * 4:
        raise ValueError(f"wanted {count} values of {size} bits, got {len(transfers)} words")
    bits = np.unpackbits(data, bitorder="little")
    if bits[count * size:].any():
        raise ValueError("what fills up the last word must be zero")
    values = np.packbits(bits[:count * size].reshape(count, size), -1, bitorder="little")[:, 0]
    values = values.reshape(shape.height, shape.width, shape.channels).transpose(2, 0, 1)
    return values.astype(np.int8) if network.output == "map" else values


def wanted(network: NetworkConfig, trace: Trace, frame: int):
    """What :func:`unpack` should give."""
    if network.output == "class":
        return int(trace.classes[frame]), int(trace.scores[frame].max())
    return trace.values[frame] if network.output == "map" else (
        trace.codes[network.operations[-1].name][frame])


def difference(network: NetworkConfig, came, trace: Trace, frame: int) -> str | None:
    """Where a result first departs from the golden model's."""
    want = wanted(network, trace, frame)
    name = network.operations[-1].name
    if network.output == "class":
        return None if came == want else (
            f"{name}: golden class {want[0]}, score {want[1]}, Verilog class {came[0]}, "
            f"score {came[1]}")
    places = np.argwhere(came != want)
    if not places.size:
        return None
    channel, y, x = places[0].tolist()
    return (f"{name} as it leaves, channel {channel}, y {y}, x {x}: golden "
            f"{want[channel, y, x]}, Verilog {came[channel, y, x]} "
            f"({len(places)} of {came.size} differ)")


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 else value
