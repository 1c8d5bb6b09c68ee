"""Boards: the files from which a bitstream would be made."""

import re

import pytest

from export.checked import ConfigError
from export.hardware import Hardware
from export.pack import pack
from export.program import Program
from hw.boards import BOARDS, divider_of, prepare
from sim.samples import random_network
from tests.designs import conv, design

A = design([conv("a", 4, 3, 2), conv("b", 4, 2, 1)], (2, 4, 2), height=4, width=4)


@pytest.mark.slow
@pytest.mark.parametrize("name, rx, tx, leds, mhz", [
    ("ulx3s-85f", "M1", "L4", "B2 C2 C1 D2 D1 E2 E1 H3", 25),
    ("icepi-zero", "K16", "K15", "E13 D14 E12 C13 D13", 50)])
def test_pins_and_clock(name, rx, tx, leds, mhz):
    program = Program(A)
    hardware = Hardware.of([program])
    files = prepare(name, hardware, pack(program, hardware, random_network(A.network, 1))).files
    pins = dict(re.findall(r'LOCATE COMP "(\w+)" SITE "(\w+)";', files["board.lpf"]))
    wanted = {"uart_0__rx__io": rx, "uart_0__tx__io": tx,
              **{f"led_{n}__io": pin for n, pin in enumerate(leds.split())}}
    assert pins.items() >= wanted.items() and len(pins) == len(wanted) + 1  # the clock
    assert re.search(rf'FREQUENCY PORT "\w+" {mhz}000000\.0 HZ;', files["board.lpf"])


def test_every_board_is_tested():
    assert set(BOARDS) == {"ulx3s-85f", "icepi-zero"}


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


def test_boards_that_are_not_known():
    with pytest.raises(ConfigError, match=r"^a board must be one of ulx3s-85f, icepi-zero, "
                                          r"not 'other'$"):
        prepare("other", None, None)
