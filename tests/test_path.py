"""Paths of nextpnr's reports: whose register a cell is, and the path in words."""

import pytest

from hw.path import Names, describe

LUT = {"type": "SB_LUT4", "attributes": {}}


def ff(d, q, line, kind="SB_DFFE"):
    return {"type": kind, "connections": {"D": [d], "Q": [q]},
            "attributes": {"src": f"engine.v:{line}.3-{line + 1}.9|/x/ff_map.v:24.66-24.119"}}


def net(bit, hdlname, hidden=0):
    return {"bits": [bit, 99], "hide_name": hidden, "attributes": {"hdlname": hdlname}}


def scope(first, last):
    return {"type": "$scopeinfo", "attributes": {"module_src": f"engine.v:{first}.1-{last}.10"}}


MODULE = {
    "attributes": {"src": "engine.v:1.1-99.10"},
    "cells": {
        "feeder": scope(100, 199), "pe.r0": scope(200, 299), "pe.r1": scope(200, 299),
        "feeder.data_SB_DFFE_Q": ff(1, 2, 150),
        "other.in_SB_DFFE_Q_D_SB_LUT4_O": LUT | {"connections": {"O": [1]}},
        "pe.r1.count_SB_DFFE_Q": ff(3, 4, 250),
        "other.layer.relu_SB_DFFE_Q": ff(5, 6, 160),
        "other.twice_SB_DFFE_Q": ff(7, 8, 250),
        "busy_SB_DFFE_Q": ff(9, 10, 50),
        "memory.bank0_lane1.0.2": {"type": "SB_RAM40_4K", "attributes": {}},
        "memory.bank0_lane1.0.2_RDATA_1_SB_DFF_Q": {
            "type": "SB_DFF", "connections": {"D": [11], "Q": [12]},
            "attributes": {"src": "/x/brams_map.v:150.3-150.9"}},
        "lut_alone": LUT | {"connections": {"O": [13]}},
    },
    "netnames": {
        "feeder.data": net(2, "feeder data"), "feeder.data.low": net(2, "feeder data.low"),
        "other.in": net(2, "other in"), "x": net(2, "feeder x", hidden=1),
        "pe.r1.count_1": net(4, "pe r1 count_1"), "pe.r0.b": net(0, "pe r0 b"),
        "pe.r0.c": net(40, "pe r0 c"),
        "other.layer.relu": net(6, "other layer.relu"),
        "other.twice": net(8, "other twice"),
        "busy": {"bits": [10], "hide_name": 0, "attributes": {}},
        "$auto$1.q": {"bits": [10], "hide_name": 1, "attributes": {}},
        "elsewhere.of_yosys_0_": {"bits": [10], "hide_name": 0, "attributes": {}},
    },
}


@pytest.mark.parametrize("cell, kind, module, name", [
    ("feeder.data_SB_DFFE_Q_DFFLC", "register", "feeder", "data"),
    # Named after a net that goes elsewhere; it shares the cell of its LUT.
    ("other.in_SB_DFFE_Q_D_SB_LUT4_O_LC", "register", "feeder", "data"),
    ("pe.r1.count_SB_DFFE_Q", "register", "pe.r1", "count_1"),
    # Yosys dropped the name in its own module, which one instance has; or two have.
    ("other.layer.relu_SB_DFFE_Q", "register", "feeder", "layer.relu"),
    ("other.twice_SB_DFFE_Q", "register", "other", "twice"),
    ("busy_SB_DFFE_Q", "register", "", "busy"),
    ("memory.bank0_lane1.0.2_RAM", "block RAM", "memory", "bank0_lane1"),
    ("memory.bank0_lane1.0.2_RDATA_1_SB_DFF_Q", "register beside", "memory", "bank0_lane1"),
    ("memory.bank0_lane1.0.2$DPRAM_COMB3", "block RAM", "memory", "bank0_lane1"),
    ("unknown.y_TRELLIS_FF_Q_2", "register", "unknown", "y"),
])
def test_names_of_registers_and_memories(cell, kind, module, name):
    assert Names(MODULE).find(cell) == {"kind": kind, "module": module, "name": name}


def step(kind, delay, source, sink):
    ends = [dict(zip(("cell", "port"), end, strict=True)) for end in (source, sink)]
    return {"type": kind, "delay": delay, "from": ends[0], "to": ends[1]}


def test_path_in_words():
    ram, lut, carry, other = "memory.bank0_lane1.0.2", "l_LC", "c$CARRY", "feeder.data_SB_DFFE_Q"
    path = [step("clk-to-q", 5.0, (ram, "RDATA_3"), (ram, "RDATA_3")),
            step("routing", 2.0, (ram, "RDATA_3"), (lut, "I2")),
            step("logic", 0.5, (lut, "I2"), (lut, "O")),
            step("routing", 0.5, (lut, "O"), (carry, "I1")),
            step("logic", 0.25, (carry, "I1"), (carry, "COUT")),
            step("routing", 0.0, (carry, "COUT"), ("c2$CARRY", "CIN")),
            step("logic", 0.25, ("c2$CARRY", "CIN"), ("c2$CARRY", "COUT")),
            step("routing", 1.0, ("c2$CARRY", "COUT"), (other, "I3")),
            step("setup", 0.5, (other, "I3"), (other, "I3"))]
    found = describe(path, Names(MODULE))
    assert (found["luts"], found["carries"]) == (2, 2)  # one is in the register's own cell
    assert found["words"] == (
        "block RAM bank0_lane1 of memory -> 2 LUTs, 2 carry cells -> register data of feeder: "
        "10.0 ns, 65% logic, 35% routing, the longest route 2.0")


@pytest.mark.parametrize("port, pin", [
    ("DI", "data"), ("M", "data"), ("CE", "clock enable"), ("LSR", "reset"), ("SR", "reset"),
    ("ADA12", "address"), ("ADB0", "address"), ("DIA3", "data"), ("WEA", "write enable"),
    ("RADDR_4", "address"), ("WDATA_11", "data"), ("I3", "data"), ("CEN", "clock enable"),
])
def test_what_a_pin_does(port, pin):
    end = "busy_SB_DFFE_Q", port
    found = describe([step("setup", 1.0, end, end)], Names(MODULE))
    assert found["to"]["pin"] == pin
    assert ("-> " + ("" if pin == "data" else f"{pin} of ") + "register busy") in found["words"]


def test_a_register_without_a_name():
    end = "feeder.$signal$13_SB_DFF_Q", "M"
    words = describe([step("setup", 1.0, end, end)], Names(MODULE))["words"]
    assert words.startswith("register without a name of feeder -> nothing -> ")
