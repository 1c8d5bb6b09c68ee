"""AXI4-Lite subordinate: five channels on one side, plain writes and reads on the other."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

OKAY, SLVERR = 0, 2


class AxiLiteSignature(wiring.Signature):
    """AXI4-Lite with 32 data bits, as the manager sees it."""

    def __init__(self, address_bits: int):
        super().__init__({
            "awaddr": Out(address_bits), "awprot": Out(3), "awvalid": Out(1), "awready": In(1),
            "wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1),
            "bresp": In(2), "bvalid": In(1), "bready": Out(1),
            "araddr": Out(address_bits), "arprot": Out(3), "arvalid": Out(1), "arready": In(1),
            "rdata": In(32), "rresp": In(2), "rvalid": In(1), "rready": Out(1),
        })


class AccessSignature(wiring.Signature):
    """Writes and reads of 32-bit words, each done in a cycle with `valid` and `ready`.

    In that cycle `refused` says that nothing was changed or read, else `read_data` holds the word.
    """

    def __init__(self, word_bits: int):
        super().__init__({
            "write_valid": Out(1), "write_address": Out(word_bits), "write_data": Out(32),
            "write_strobe": Out(4), "write_ready": In(1), "write_refused": In(1),
            "read_valid": Out(1), "read_address": Out(word_bits), "read_data": In(32),
            "read_ready": In(1), "read_refused": In(1),
        })


class AxiLite(wiring.Component):
    """One write and one read at a time, both at once; addresses and data may come in any order.

    No path leads from an input through this component to an output of the same side. At best a
    write or a read takes two cycles. An address that is no multiple of four is answered with SLVERR
    and goes no further, and so is what the other side refuses. `awprot` and `arprot` are ignored.

    Members
    -------
    axil : In(AxiLiteSignature(address_bits))
    access : Out(AccessSignature(address_bits - 2))
    """

    def __init__(self, address_bits: int):
        super().__init__({
            "axil": In(AxiLiteSignature(address_bits)),
            "access": Out(AccessSignature(address_bits - 2)),
        })

    def elaborate(self, platform):
        m = Module()
        axil, access = self.axil, self.access

        # Write: both halves are kept until the response can be given.
        address = Signal.like(axil.awaddr)
        has_address = Signal()
        has_data = Signal()
        write = Signal()
        aligned = Signal()
        written = Signal()
        m.d.comb += [
            axil.awready.eq(~has_address), axil.wready.eq(~has_data),
            write.eq(has_address & has_data & ~axil.bvalid),
            aligned.eq(address[:2] == 0),
            access.write_valid.eq(write & aligned), access.write_address.eq(address[2:]),
            written.eq(write & (access.write_ready | ~aligned)),
        ]
        with m.If(axil.awvalid & axil.awready):
            m.d.sync += [address.eq(axil.awaddr), has_address.eq(1)]
        with m.If(axil.wvalid & axil.wready):
            m.d.sync += [access.write_data.eq(axil.wdata), access.write_strobe.eq(axil.wstrb),
                         has_data.eq(1)]
        with m.If(axil.bready):
            m.d.sync += axil.bvalid.eq(0)
        with m.If(written):
            m.d.sync += [axil.bvalid.eq(1), has_address.eq(0), has_data.eq(0), axil.bresp.eq(OKAY)]
            with m.If(~aligned | access.write_refused):
                m.d.sync += axil.bresp.eq(SLVERR)

        # Read.
        source = Signal.like(axil.araddr)
        asked = Signal()
        read = Signal()
        straight = Signal()
        done = Signal()
        m.d.comb += [
            axil.arready.eq(~asked),
            read.eq(asked & ~axil.rvalid),
            straight.eq(source[:2] == 0),
            access.read_valid.eq(read & straight), access.read_address.eq(source[2:]),
            done.eq(read & (access.read_ready | ~straight)),
        ]
        with m.If(axil.arvalid & axil.arready):
            m.d.sync += [source.eq(axil.araddr), asked.eq(1)]
        with m.If(axil.rready):
            m.d.sync += axil.rvalid.eq(0)
        with m.If(done):
            m.d.sync += [axil.rvalid.eq(1), asked.eq(0), axil.rresp.eq(OKAY),
                         axil.rdata.eq(access.read_data)]
            with m.If(~straight | access.read_refused):
                m.d.sync += [axil.rresp.eq(SLVERR), axil.rdata.eq(0)]
        return m
