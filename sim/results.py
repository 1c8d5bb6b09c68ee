"""Results as they leave an engine, as arrays, and what the golden model wants in their place."""

import numpy as np

from export.hardware import Hardware, bits_for
from export.host import Class, parse_result
from export.image import output_of
from export.network import NetworkConfig
from sim.golden import Trace


def unpack(network: NetworkConfig, hardware: Hardware, transfers: list[int]):
    """One frame's result: class and score, or codes uint8 or values int8 [C, H, W].

    Raises
    ------
    HostError
        If the transfers are not as many, or not padded, as the result wants.
    """
    words = (np.array(transfers, np.uint32) if hardware.result_words
             else class_words(hardware, *transfers))
    result = parse_result(output_of(network, hardware), words)
    return (result.index, result.score) if isinstance(result, Class) else result.values


def class_words(hardware: Hardware, payload: int) -> np.ndarray:
    """Class and score of one transfer as the words uint32 [2] that other machines send."""
    number_bits = bits_for(max(2, hardware.classes) - 1)
    score = payload >> number_bits
    if score >> hardware.score_bits - 1:
        score -= 1 << hardware.score_bits
    return np.array([payload & (1 << number_bits) - 1, score & 0xffffffff], np.uint32)


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
