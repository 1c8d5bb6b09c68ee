"""Small pieces that every unit uses."""

from amaranth import Module, Signal, Value


def delay(m: Module, signal, cycles: int, name: str, reset_less: bool = False):
    """`signal` as it was `cycles` clock cycles ago; all zero after reset."""
    shape = signal.shape() if isinstance(signal, Value) else signal.as_value().shape()
    signal = Value.cast(signal)
    for k in range(cycles):
        later = Signal(shape, name=f"{name}_{k + 1}", reset_less=reset_less)
        m.d.sync += later.eq(signal)
        signal = later
    return signal


def carry(m: Module, signal, cycles: int, name: str):
    """The same for data, which count only where a pulse beside them says so: without a reset.

    Registers that are reset cannot lie beside those that are not, and thousands of them on one net
    cost clock.
    """
    return delay(m, signal, cycles, name, reset_less=True)


class Counter:
    """Counts 0 ... `last`, which is static, with a register that says that it is there.

    `last` must be there in the cycle of :meth:`zero`, and a cycle before the first :meth:`step`.
    """

    def __init__(self, m: Module, last: Value, name: str):
        self.now = Signal.like(last, name=name)
        self.at_end = Signal(name=f"{name}_last")
        self._last = last
        self._before = Signal.like(last, name=f"{name}_before")
        m.d.sync += self._before.eq(last - 1)

    def zero(self) -> list:
        """What starts it."""
        return [self.now.eq(0), self.at_end.eq(self._last == 0)]

    def step(self) -> list:
        """What counts, if it is not at its end."""
        return [self.now.eq(self.now + 1), self.at_end.eq(self.now == self._before)]
