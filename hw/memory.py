"""Activation memory: R banks of three lanes, read by pixel tile, written by pixel."""

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from export.hardware import MEMORY_CYCLES, Hardware
from hw.store import FREE_READS

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
        write = Signal.like(self.write, reset_less=True)
        m.d.sync += write.eq(self.write)
        first = write.address
        if self.hardware.carries:
            first = Signal(range(depth), reset_less=True)
            m.d.sync += first.eq(self.write.address + self.write.carry)
        # What an operation reads lies apart from what is written meanwhile, and pixels come in when
        # the first operation has read those before, or elsewhere.
        # Lanes of one address are one memory: block RAMs are wider than a lane.
        cuts = [0, 1, LANES] if self.hardware.carries else [0, LANES]
        for bank in range(array.rows):
            here = Signal(name=f"write_bank{bank}")
            words = []
            m.d.sync += here.eq(self.write.valid & (self.write.bank == bank))
            for start, stop in pairwise(cuts):
                m.submodules[f"bank{bank}_{start}"] = memory = Memory(
                    shape=(stop - start) * lane, depth=depth, init=[], attrs=FREE_READS)
                read = memory.read_port()
                port = memory.write_port(granularity=lane // len(write.enable[0]))
                word = Signal((stop - start) * lane, name=f"bank{bank}_{start}", reset_less=True)
                m.d.comb += [
                    read.addr.eq(self.address[bank]),
                    port.addr.eq(write.address if start else first),
                    port.data.eq(Cat(write.data[k] for k in range(start, stop))),
                    port.en.eq(Mux(here, Cat(write.enable[k] for k in range(start, stop)), 0)),
                ]
                m.d.sync += word.eq(read.data)
                words.append(word)
            m.d.comb += self.data[bank].eq(Cat(words))
        return m
