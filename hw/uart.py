"""A serial line: eight bits, no parity, one stop bit.

The serial blocks of amaranth-stdio would do most of it, but there is no release of them: on the
package index the name is a placeholder, and its sources use what Amaranth 0.5 deprecates.
"""

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from export.checked import ConfigError

SHORTEST = 4  # cycles of a bit
RECEIVED = data.StructLayout({"data": 8, "error": 1})


def check_divider(divider: int):
    """ConfigError if a bit cannot take so many cycles."""
    if not SHORTEST <= divider < 2**24:
        raise ConfigError(f"a bit must take {SHORTEST} ... {2**24 - 1} cycles, not {divider}")


class Receiver(wiring.Component):
    """Bytes from a line; a bit takes `divider` cycles.

    A bit counts as what it is in its middle. A start bit that is over by then was none. A byte
    without stop bit has `error`; the next one is not looked for until the line is high.

    Members
    -------
    rx : In(1)      asynchronous, high when idle
    bytes : Out(stream of RECEIVED)     whoever takes them must always be ready
    """

    bytes: stream.Interface

    def __init__(self, divider: int):
        self._MustUse__used = True  # even if it is refused; else Amaranth warns
        check_divider(divider)
        self.divider = divider
        super().__init__({"rx": In(1, init=1),
                          "bytes": Out(stream.Signature(RECEIVED, always_ready=True))})

    def elaborate(self, platform):
        m = Module()
        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, init=1)
        timer = Signal(range(self.divider))
        left = Signal(range(8))
        byte = self.bytes.payload
        with m.If(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        m.d.sync += self.bytes.valid.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += timer.eq(self.divider // 2 - 1)
                with m.If(~line):
                    m.next = "START"
            with m.State("START"):
                with m.If(timer == 0):
                    m.d.sync += [timer.eq(self.divider - 1), left.eq(7)]
                    m.next = "BITS"
                    with m.If(line):
                        m.next = "IDLE"
            with m.State("BITS"):
                with m.If(timer == 0):
                    m.d.sync += [timer.eq(self.divider - 1), left.eq(left - 1),
                                 byte.data.eq(Cat(byte.data[1:], line))]
                    with m.If(left == 0):
                        m.next = "STOP"
            with m.State("STOP"):
                with m.If(timer == 0):
                    m.d.sync += [self.bytes.valid.eq(1), byte.error.eq(~line)]
                    m.next = "HIGH"
            with m.State("HIGH"):
                with m.If(line):
                    m.next = "IDLE"
        return m


class Transmitter(wiring.Component):
    """Bytes onto a line, 10 * `divider` cycles each, without a pause if the next one is there.

    Members
    -------
    bytes : In(stream of 8 bits)
    tx : Out(1)     high when idle
    """

    bytes: stream.Interface

    def __init__(self, divider: int):
        self._MustUse__used = True  # even if it is refused; else Amaranth warns
        check_divider(divider)
        self.divider = divider
        super().__init__({"bytes": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        timer = Signal(range(self.divider))
        left = Signal(range(10))
        bits = Signal(10, init=1)  # the one that is on the line is lowest
        over = (timer == 0) & (left == 0)
        m.d.comb += [self.tx.eq(bits[0]), self.bytes.ready.eq(over)]
        with m.If(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Elif(left != 0):
            m.d.sync += [bits.eq(bits >> 1), left.eq(left - 1), timer.eq(self.divider - 1)]
        with m.Elif(self.bytes.valid):
            m.d.sync += [bits.eq(Cat(Const(0, 1), self.bytes.payload, Const(1, 1))),
                         left.eq(9), timer.eq(self.divider - 1)]
        return m
