"""Activation memory: R banks of three lanes, read by pixel tile, written by pixel."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from export.hardware import MEMORY_CYCLES, Hardware

LANES = 3


def write_layout(hardware: Hardware) -> data.StructLayout:
    """One write: a word group, or the lanes and parts of lanes of it that `enable` names."""
    array = hardware.array
    lane = 2 * array.words
    part = min(array.unit, lane)  # channels that are written together
    return data.StructLayout({
        "valid": 1,
        "bank": range(array.rows),
        "address": range(hardware.activation_words),
        # Added to lane 0's address: its word is the next.
        "carry": hardware.activation_words.bit_length(),
        "data": data.ArrayLayout(lane, LANES),
        "enable": data.ArrayLayout(lane // part, LANES),
    })


class ActivationMemory(wiring.Component):
    """Pixel n lives in bank n mod R; one word group per bank is read and one written per cycle.

    Data follows its address by :attr:`LATENCY` cycles (block RAM and its output register).

    Members
    -------
    address : In(ArrayLayout(range(depth), R))     one per bank
    data : Out(ArrayLayout(6 * words, R))          in memory order, see :mod:`export.words`
    write : In(write_layout(hardware))
    """

    LATENCY = MEMORY_CYCLES

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        array = hardware.array
        super().__init__({
            "address": In(data.ArrayLayout(range(hardware.activation_words), array.rows)),
            "data": Out(data.ArrayLayout(6 * array.words, array.rows)),
            "write": In(write_layout(hardware)),
        })

    def elaborate(self, platform):
        m = Module()
        array, depth = self.hardware.array, self.hardware.activation_words
        lane = 2 * array.words
        write = Signal.like(self.write)
        following = Signal(range(depth))
        m.d.sync += [write.eq(self.write),
                     following.eq(self.write.address + self.write.carry)]
        for bank in range(array.rows):
            word = []
            for k in range(LANES):
                m.submodules[f"bank{bank}_lane{k}"] = memory = Memory(
                    shape=lane, depth=depth, init=[])
                read = memory.read_port()
                port = memory.write_port(granularity=lane // len(write.enable[k]))
                m.d.comb += [
                    read.addr.eq(self.address[bank]),
                    port.addr.eq(following if k == 0 else write.address),
                    port.data.eq(write.data[k]),
                    port.en.eq(Mux(write.valid & (write.bank == bank), write.enable[k], 0)),
                ]
                word.append(read.data)
            m.d.sync += self.data[bank].eq(Cat(word))
        return m
