"""Registers that become a block RAM's own, and those that must not."""

import json

import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.devices import DEVICES
from hw.outreg import merge_output_registers
from hw.synth import map_netlist
from hw.verilog import write_verilog


def ram(width: int, pins: dict[str, int], first_clock=2) -> dict:
    """A DP16KD whose outputs drive these nets; the clocks of its ports are nets 2 and 3."""
    nets = {"CLKA": [first_clock], "CLKB": [3], "CEA": [first_clock], "OCEB": ["1"],
            "OCEA": ["0" if width == 36 else "1"], **{pin: [net] for pin, net in pins.items()}}
    return {"type": "DP16KD", "connections": nets,
            "parameters": {"DATA_WIDTH_A": f"{width:032b}", "DATA_WIDTH_B": f"{width:032b}",
                           "REGMODE_A": "NOREG", "REGMODE_B": "NOREG"},
            "port_directions": {pin: "output" if pin in pins else "input" for pin in nets}}


def register(source: int, target: int, clock: int = 2, *, reset="0", **parameters) -> dict:
    return {"type": "TRELLIS_FF",
            "connections": {"CLK": [clock], "DI": [source], "LSR": [reset], "Q": [target]},
            "parameters": {"CEMUX": "1 ", "CLKMUX": "CLK", "LSRMUX": "LSR", "REGSET": "RESET",
                           "GSR": "DISABLED", **parameters},
            "port_directions": {"CLK": "input", "DI": "input", "LSR": "input", "Q": "output"}}


def module(ports=(), **cells) -> dict:
    return {"cells": cells,
            "ports": {"o": {"direction": "output", "bits": [*ports]}}}


def test_a_register_behind_each_output_goes():
    top = module([20, 21], ram=ram(9, {"DOA0": 10, "DOA1": 11, "DOA2": 12}),
                 a=register(10, 20), b=register(11, 21), other=register(20, 30))
    assert merge_output_registers(top) == 2
    assert {*top["cells"]} == {"ram", "other"}
    cell = top["cells"]["ram"]
    assert [cell["connections"][f"DOA{k}"] for k in range(3)] == [[20], [21], [12]]
    assert (cell["parameters"]["REGMODE_A"], cell["parameters"]["REGMODE_B"]) == ("OUTREG", "NOREG")


@pytest.mark.parametrize("first_clock", ["0", 3])
def test_a_word_of_36_bits_has_one_clock(first_clock):
    """Both halves' registers have it, and are enabled, whether or not the first port writes."""
    pins = {"DOA0": 10, "DOB17": 11}
    top = module(ram=ram(36, pins, first_clock), a=register(10, 20, 3), b=register(11, 21, 3))
    assert merge_output_registers(top) == 2
    cell = top["cells"]["ram"]
    assert cell["parameters"]["REGMODE_A"] == cell["parameters"]["REGMODE_B"] == "OUTREG"
    assert [cell["connections"][pin] for pin in ("CLKA", "CLKB", "OCEA", "OCEB")] == [
        [3], [3], ["1"], ["1"]]
    top = module(ram=ram(36, pins, first_clock), a=register(10, 20, 2), b=register(11, 21, 3))
    assert merge_output_registers(top) == 0


@pytest.mark.parametrize("width, pin, net", [
    (36, "CLKA", 2), (36, "CEA", 9), (36, "OCEB", 9), (9, "OCEA", "0")])
def test_registers_stay_where_the_block_s_own_would_differ(width, pin, net):
    """Another clock writes, what does not may begin to, or not every clock is enabled."""
    top = module(ram=ram(width, {"DOA0": 10}, "0"), a=register(10, 20, 3 if width == 36 else "0"))
    top["cells"]["ram"]["connections"][pin] = [net]
    assert merge_output_registers(top) == 0
    top["cells"]["ram"]["connections"] |= {
        "CLKA": ["0"], "CEA": ["0"], "OCEB": ["1"], "OCEA": ["0" if width == 36 else "1"]}
    assert merge_output_registers(top) == 1


@pytest.mark.parametrize("other", [
    register(11, 21, 3), register(11, 21, reset=7), register(11, 21, CEMUX="CE"),
    register(11, 21, REGSET="SET"), register(11, 21, CLKMUX="INV"),
    register(40, 21, 11), {**register(11, 21), "type": "LUT4"}])
def test_one_that_cannot_go_keeps_them_all(other):
    top = module(ram=ram(9, {"DOA0": 10, "DOA1": 11}), a=register(10, 20), b=other)
    assert merge_output_registers(top) == 0
    assert {*top["cells"]} == {"ram", "a", "b"}
    assert top["cells"]["ram"]["connections"]["DOA0"] == [10]
    assert top["cells"]["ram"]["parameters"]["REGMODE_A"] == "NOREG"


def test_an_output_that_has_other_uses_stays():
    pins = {"DOA0": 10}
    for top in (module(ram=ram(9, pins), a=register(10, 20), b=register(10, 21)),
                module([10], ram=ram(9, pins), a=register(10, 20))):
        assert merge_output_registers(top) == 0


class Table(wiring.Component):
    address: In(11)
    word: Out(18)

    def elaborate(self, platform):
        m = Module()
        m.submodules.table = table = Memory(
            shape=18, depth=2048, init=[k * 40503 & 0x3FFFF for k in range(2048)])
        port, word = table.read_port(), Signal(18, reset_less=True)
        m.d.comb += [port.addr.eq(self.address), self.word.eq(word)]
        m.d.sync += word.eq(port.data)
        return m


@pytest.mark.slow
def test_a_mapped_memory_with_a_register_has_no_other(tmp_path):
    write_verilog(Table(), tmp_path, "engine")
    found = map_netlist(tmp_path, DEVICES["LFE5U-85F"])
    cells = [*found["cells"].values()]
    assert sum(cell["type"] == "TRELLIS_FF" for cell in cells) == 0
    assert [cell["parameters"]["REGMODE_A"] for cell in cells
            if cell["type"] == "DP16KD"] == ["OUTREG", "OUTREG"]
    kept = json.loads((tmp_path / "netlist.json").read_text())["modules"]["engine"]
    assert kept == found == map_netlist(tmp_path, DEVICES["LFE5U-85F"])
