"""The registers that :mod:`export.registers` lists, behind plain writes and reads."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from export.registers import Register, RegisterMap
from hw.axi_lite import AccessSignature

LOAD_LATENCY = 2  # cycles of the loader, from a word to its refusal


def register_layout(register: Register) -> data.FlexibleLayout:
    """The fields, by their names in small letters."""
    return data.FlexibleLayout(max(field.lowest + field.bits for field in register.fields), {
        field.name.lower(): data.Field(field.bits, field.lowest) for field in register.fields})


def load_layout(address_bits: int) -> data.StructLayout:
    """One 32-bit word for the load window, and its word address there."""
    return data.StructLayout({"address": address_bits, "data": 32})


class RegisterBank(wiring.Component):
    """Every access is done at once, but for a write to the load window.

    That waits until `load` has transferred the word and it is known whether it was refused.

    Members
    -------
    access : In(AccessSignature)
    (ro) NAME : In(register_layout)     what is read
    (rw) NAME : Out(register_layout)    what was written; a field that is write-only is high for one
                                        cycle
    (w1c) NAME : Out(register_layout)   bits that are set
          NAME_set : In(register_layout)    sets bits, even if they are cleared in this cycle
    load : Out(stream of load_layout)   only if there is a window
    load_refused : In(1)        ... LOAD_LATENCY cycles behind the transfer of a word
    """

    def __init__(self, registers: RegisterMap):
        self.registers = registers
        members = {"access": In(AccessSignature(registers.address_bits - 2))}
        for each in registers.registers:
            name, layout = each.name.lower(), register_layout(each)
            if each.access == "rw":
                members[name] = Out(layout)
            elif each.access == "w1c":
                members |= {name: Out(layout), f"{name}_set": In(layout)}
            elif not each.fixed:
                members[name] = In(layout)
        if registers.window_size:
            bits = (registers.window_size // 4 - 1).bit_length()
            members |= {"load": Out(stream.Signature(load_layout(bits))), "load_refused": In(1)}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        access = self.access
        mask = Cat(strobe.replicate(8) for strobe in access.write_strobe)
        m.d.comb += [access.write_ready.eq(1), access.write_refused.eq(1),
                     access.read_ready.eq(1), access.read_refused.eq(1)]

        # What happens without a write; the write itself, below, comes later and wins.
        for each in self.registers.registers:
            if each.access == "w1c":
                value, event = self._value(each), getattr(self, f"{each.name.lower()}_set")
                m.d.sync += value.eq(value | event.as_value())
            for field in each.fields:
                if field.access == "wo":
                    m.d.sync += getattr(self, each.name.lower())[field.name.lower()].eq(0)

        with m.Switch(access.write_address):
            for each in self.registers.registers:
                if each.access != "ro":
                    with m.Case(each.offset // 4):
                        self._write(m, each, mask)
        with m.Switch(access.read_address):
            for each in self.registers.registers:
                with m.Case(each.offset // 4):
                    m.d.comb += [access.read_data.eq(self._readable(each)),
                                 access.read_refused.eq(0)]
        if self.registers.window_size:
            self._window(m)
        return m

    def _write(self, m: Module, register: Register, mask: Value):
        access, value = self.access, self._value(register)
        if register.access == "w1c":
            event = getattr(self, f"{register.name.lower()}_set").as_value()
            m.d.comb += access.write_refused.eq(0)
            with m.If(access.write_valid):
                m.d.sync += value.eq(value & ~(access.write_data & mask) | event)
            return
        kept = Cat(Mux(mask[8 * k], access.write_data[8 * k:8 * k + 8],
                       self._readable(register)[8 * k:8 * k + 8]) for k in range(4))
        fits = kept < register.limit if register.limit else 1
        m.d.comb += access.write_refused.eq(~fits)
        with m.If(access.write_valid & fits):
            m.d.sync += [getattr(self, register.name.lower())[field.name.lower()].eq(
                kept[field.lowest:field.lowest + field.bits]) for field in register.fields]

    def _value(self, register: Register) -> Value:
        return getattr(self, register.name.lower()).as_value()

    def _readable(self, register: Register) -> Value | int:
        """What a read gives: nothing outside of the fields, nor of those that are write-only."""
        if register.fixed:
            return register.reset
        value = self._value(register)
        shown = sum(field.mask for field in register.fields if field.access != "wo")
        return Cat(value & shown, Const(0, 32 - len(value)))

    def _window(self, m: Module):
        access, load = self.access, self.load
        base = self.registers.window_base // 4
        inside = Signal()
        bits = len(load.p.address)
        m.d.comb += [
            inside.eq(access.write_address[bits:] == base >> bits),
            load.p.address.eq(access.write_address), load.p.data.eq(access.write_data),
        ]
        transferred = Signal(LOAD_LATENCY)  # so many cycles ago
        m.d.sync += transferred.eq(Cat(load.valid & load.ready, transferred))
        with m.If(inside & access.write_strobe.all()):
            m.d.comb += [load.valid.eq(access.write_valid & ~transferred.any()),
                         access.write_ready.eq(transferred[-1]),
                         access.write_refused.eq(self.load_refused)]
