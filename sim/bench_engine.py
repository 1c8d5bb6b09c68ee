"""cocotb bench of `bench.v`: clock and reset, until it is through with its traffic.

Runs inside the simulator; :mod:`sim.verilog` starts it and compares.
"""

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge


@cocotb.test()
async def run_frames(dut):
    dut.rst.value = 1
    Clock(dut.clk, 10, unit="ns").start()
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.done)
