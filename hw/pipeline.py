"""Small pieces that every unit uses."""

from amaranth import Module, Signal, Value


def delay(m: Module, signal, cycles: int, name: str):
    """`signal` as it was `cycles` clock cycles ago; all zero after reset."""
    shape = signal.shape() if isinstance(signal, Value) else signal.as_value().shape()
    signal = Value.cast(signal)
    for k in range(cycles):
        later = Signal(shape, name=f"{name}_{k + 1}")
        m.d.sync += later.eq(signal)
        signal = later
    return signal
