"""cocotb bench of `toy.Toy`; `WRONG` in the environment is added to what it expects."""

import os
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge
from toy import DEPTH, RESULT, TABLE, TAG


@cocotb.test()
async def adds_the_table(dut):
    Clock(dut.clk, 10, "ns").start()
    dut.rst.value = 1
    dut.i__valid.value = 0
    dut.i__payload.value = 0
    dut.o__ready.value = 1
    await FallingEdge(dut.clk)
    await FallingEdge(dut.clk)
    dut.rst.value = 0
    words = [random.randrange(256) for _ in range(20)]
    for n, word in enumerate(words):
        dut.i__valid.value = 1
        dut.i__payload.value = word
        await FallingEdge(dut.clk)  # the rising edge before it took the word
        dut.i__valid.value = 0
        await FallingEdge(dut.clk)
        result = dut.o__payload.value
        follows = (n + 1) % len(TABLE)
        full = n + 1 >= DEPTH
        assert field(result, "sum") == (word + 2 + TABLE[follows]
                                        + int(os.environ.get("WRONG", "0"))) % 256
        assert field(result, "tag") == TAG
        assert field(result, "full") == full
        assert field(result, "last") == word + 256 * (words[n - 1] if n else 0)
        oldest = bits(result, "oldest")
        if full:
            assert oldest.to_unsigned() == words[n + 1 - DEPTH]
        elif os.environ["SIMULATOR"] == "icarus":
            assert not oldest.is_resolvable  # no initial value hides a read before the write


def bits(payload, name):
    part = RESULT[name]
    return payload[part.offset + part.width - 1:part.offset]


def field(payload, name):
    return bits(payload, name).to_unsigned()
