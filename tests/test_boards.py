"""Boards: the files from which a bitstream would be made."""

import json
import re

import pytest

from export.checked import ConfigError
from export.hardware import Hardware
from export.pack import pack
from export.program import Program
from hw import bitstream
from hw.bitstream import build
from hw.boards import BOARDS, divider_of, divides, pins
from hw.devices import DEVICES
from hw.path import Names, describe
from hw.pnr import slowest
from sim.cli_board import _measured
from sim.samples import random_network
from tests.designs import conv, design

A = design([conv("a", 2, 2, 1)], (1, 2, 1, (1, 2, 3)), height=3, width=3)


PINS = {"ulx3s-85f": ("M1", "L4", "B2 C2 C1 D2 D1 E2 E1 H3", "G2", 25),
        "icepi-zero": ("K16", "K15", "E13 D14 E12 C13 D13", None, 50),
        "icebreaker": ("6", "9", "11 37 26 27 25 23 21", "35", 12),
        "tang-nano-9k": ("18", "17", "10 11 13 14 15 16", "52", 27)}


@pytest.mark.parametrize("name", BOARDS)
def test_pins_and_clock(name):
    """As the boards' own documentation has them."""
    rx, tx, leds, clock, mhz = PINS[name]
    _, text = pins(name)
    found = (dict(re.findall(r'LOCATE COMP "(\w+)" SITE "(\w+)";', text))
             or dict(re.findall(r"set_io (\w+) (\w+)", text))
             or dict(re.findall(r'IO_LOC "(\w+)" (\w+);', text)))
    wanted = {"uart_0__rx__io": rx, "uart_0__tx__io": tx,
              **{f"led_{n}__io": pin for n, pin in enumerate(leds.split())}}
    assert found.items() >= wanted.items() and len(found) == len(wanted) + 1
    assert clock in (None, *found.values())
    assert BOARDS[name].mhz == mhz


@pytest.mark.parametrize("clock, baud, divider", [
    (25e6, 1_000_000, 25), (50e6, 1_000_000, 50), (25e6, 115_200, 217), (12e6, 2_000_000, 6)])
def test_dividers(clock, baud, divider):
    assert divider_of(clock, baud) == divider


@pytest.mark.parametrize("clock, baud, text", [
    (25e6, 2_000_000, "2000000 baud must be a part of 25 MHz, within 2%; the next is 2083333"),
    (25e6, 10**8, "100000000 baud must be a part of 25 MHz, within 2%; the next is 25000000")])
def test_rates_that_cannot_be(clock, baud, text):
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        divider_of(clock, baud)


@pytest.mark.parametrize("baud, seconds", [(1_000_000, 0.1), (9600, 0.1), (50, 0.4)])
def test_a_silence_is_longer_than_a_slow_byte(baud, seconds):
    cycles = bitstream._silence(25, baud)
    assert cycles.bit_count() == 1 and seconds <= cycles / 25e6 < 2 * seconds


@pytest.mark.parametrize("text, clock", [
    ('{"fmax_mhz": 47.4, "device": "iCE40UP5K"}', 47.4),
    ('{"fmax_mhz": 47.4, "device": "LFE5U-25F"}', None),
    ('{"fmax_mhz": null, "device": "iCE40UP5K"}', None), ("[]", None), ("{", None)])
def test_a_clock_is_that_of_the_boards_device(tmp_path, text, clock):
    (tmp_path / "report.json").write_text(text)
    assert _measured(tmp_path / "report.json", "iCE40UP5K") == clock


def test_boards_that_are_not_known():
    with pytest.raises(ConfigError, match=r"^a board must be one of ulx3s-85f, icepi-zero, "
                                          r"icebreaker, tang-nano-9k, not 'other'$"):
        pins("other")


@pytest.mark.slow
@pytest.mark.parametrize("name, mhz, suffix", [
    pytest.param("ulx3s-85f", 400, ".bit", marks=pytest.mark.long), ("icebreaker", 12, ".bin"),
    pytest.param("icepi-zero", 400, ".bit", marks=pytest.mark.long),
    pytest.param("tang-nano-9k", 400, ".fs", marks=pytest.mark.long)])
def test_bitstreams(tmp_path, name, mhz, suffix):
    """What is too fast is built again, at a clock that is met."""
    program = Program(A)
    hardware = Hardware.of([program])
    images = pack(program, hardware, random_network(A.network, 1))
    found = build(name, hardware, images, tmp_path, mhz=mhz)
    file = tmp_path / found["file"]
    assert file.suffix == suffix and file.stat().st_size == found["bytes"] > 50_000
    assert found["clock_mhz"] <= found["fmax_mhz"] and found["clock_mhz"] < mhz + 0.01
    assert (found["attempts"] > 1) == (mhz == 400)
    assert not (tmp_path / "board.part").exists()
    assert divides(found["clock_mhz"] * 1e6, found["baud"])
    assert " -> " in found["critical_path"] and "longest route" in found["critical_path"]
    pll = (tmp_path / "pll.v").read_text()
    cells = {"icebreaker": "assign", "tang-nano-9k": "rPLL"}
    assert cells.get(name, "EHXPLLL") in pll


def test_boards_are_placed_as_designs_are(tmp_path, monkeypatch):
    asked = []

    def place(folder, device, tool, arguments, log, limit):
        asked.append(" ".join(arguments))
        ends = {"from": {"cell": "a", "port": "Q"}, "to": {"cell": "b", "port": "DI"}}
        found = {"fmax": {"clk": {"achieved": 50.0}, "board": {"achieved": 90.0}},
                 "utilization": {}, "critical_paths": [
            {"from": f"posedge {begins}", "to": f"posedge {ends_at}",
             "path": [{"type": "routing", "delay": delay, **ends}]}
            for begins, ends_at, delay in [("board", "clk", 9.0), ("board", "board", 1.0),
                                           ("clk", "clk", 2.0)]]}
        (folder / "place.json").write_text(json.dumps(found))
        return True

    monkeypatch.setattr(bitstream, "run_tool", place)
    names = Names({"cells": {}, "netnames": {}, "attributes": {}})
    for name in ("LFE5U-25F", "iCE40UP5K", "GW1NR-9C"):
        fmax, path = slowest(bitstream._place(tmp_path, DEVICES[name], "any", 1, 40.0))
        words = describe(path, names)["words"]
        assert fmax == 50.0
        assert words.startswith("register a of the top -> ") and ": 2.0 ns, " in words
    assert ["--placer static" in each for each in asked] == [True, False, False]
    assert ["--router router2" in each for each in asked] == [False, True, False]
    assert asked[2].startswith("--device GW1NR-LV9QN88PC6/I5 --vopt family=GW1N-9C --vopt cst=")


@pytest.mark.parametrize("reached, asked, text", [
    ([None, 40.0, 39.0], [(1, 50.0), (2, 50.0), (2, 38.8)], None),
    ([30.0, None, None, None], [(1, 50.0), (1, 29.1), (2, 29.1), (3, 29.1)],
     "the last was 29.1 MHz, for which nextpnr found no end in 15 minutes"),
    ([30.0, 20.0, 10.0, 5.0], [(1, 50.0), (1, 29.1), (1, 19.4), (1, 9.7)],
     "the last was 9.7 MHz, of which 5.0 were reached")])
def test_a_clock_or_a_seed_that_does_not_do(tmp_path, monkeypatch, reached, asked, text):
    """None: nextpnr does not end with this seed at this clock."""
    found, results = [], iter(reached)
    module = {"cells": {}, "netnames": {}, "attributes": {}}

    def place(folder, device, package, seed, clock):
        found.append((seed, round(clock, 1)))
        clock = next(results)
        return clock and {"clock": clock, "utilization": {}}

    def pack_it(folder, *_):
        (folder / "board.part").write_text("bits")

    for name, instead in (("_place", place), ("run_tool", pack_it),
                          ("_set_pll", lambda folder, device, own, mhz, baud: mhz),
                          ("write_verilog", lambda *_: None), ("BoardTop", lambda *_, **__: None),
                          ("divider_of", lambda *_: 40), ("map_netlist", lambda *_: module),
                          ("sizes", lambda *_: {}), ("describe", lambda *_: {"words": "a path"}),
                          ("slowest", lambda placed: (placed["clock"], []))):
        monkeypatch.setattr(bitstream, name, instead)
    if text:
        with pytest.raises(RuntimeError, match=f"no clock was met in 4 attempts; {text}$"):
            build("icebreaker", None, None, tmp_path, mhz=50.0)
        assert not (tmp_path / "board.bin").exists()
    else:
        made = build("icebreaker", None, None, tmp_path, mhz=50.0)
        assert (made["seed"], made["attempts"], made["fmax_mhz"]) == (2, 3, 39.0)
        assert made["critical_path"] == "a path" and made["bytes"] == 4
    assert found == asked


def test_a_clock_that_no_pll_makes(tmp_path):
    program = Program(A)
    hardware = Hardware.of([program])
    with pytest.raises(ConfigError, match=r"^the clock must be at most 2 MHz, made of 25 MHz, "):
        build("ulx3s-85f", hardware, None, tmp_path, mhz=2)
