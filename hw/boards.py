"""Boards that an engine can be built for: clock, pins and LEDs from amaranth-boards.

    plan = prepare("ulx3s-85f", hardware, images)       # an Amaranth BuildPlan; nothing is run
    plan.execute_local("build/board")                   # Yosys, nextpnr-ecp5, ecppack
"""

from dataclasses import dataclass
from importlib import import_module

from amaranth import Elaboratable, Module
from amaranth.build.run import BuildPlan
from amaranth.lib.io import Buffer

from export.checked import ConfigError
from export.hardware import Hardware
from export.pack import Images
from hw.board_top import BoardTop

BAUD = 1_000_000
OFF = 0.02  # of a bit's length, at most; ten bits must not slip by half a one
SILENCE = 0.1  # seconds; USB adapters pause for some hundredths


@dataclass(frozen=True)
class Board:
    """Module and class in amaranth_boards, and how many LEDs to use."""

    module: str
    platform: str
    leds: int


BOARDS = {
    "ulx3s-85f": Board("ulx3s", "ULX3S_85F_Platform", 8),  # LFE5U-85F, 25 MHz
    "icepi-zero": Board("icepi_zero", "IcepiZero1_3Platform", 5),  # LFE5U-25F, 50 MHz
}


class OnBoard(Elaboratable):
    """The top module with a board's own pins, at the board's own clock."""

    def __init__(self, board: Board, hardware: Hardware, images: Images, baud: int):
        self.board, self.hardware, self.images, self.baud = board, hardware, images, baud

    def elaborate(self, platform):
        m = Module()
        clock = platform.default_clk_frequency
        divider = divider_of(clock, self.baud)
        m.submodules.engine = top = BoardTop(self.hardware, self.images, divider=divider,
                                             timeout=round(SILENCE * clock), leds=self.board.leds)
        line = platform.request("uart", 0, dir="-")
        m.submodules.rx = rx = Buffer("i", line.rx)
        m.submodules.tx = tx = Buffer("o", line.tx)
        m.d.comb += [top.rx.eq(rx.i), tx.o.eq(top.tx)]
        for n, lit in enumerate(top.leds):
            m.submodules[f"led_{n}"] = led = Buffer("o", platform.request("led", n, dir="-"))
            m.d.comb += led.o.eq(lit)
        return m


def divider_of(clock: float, baud: int) -> int:
    """Cycles of a bit; ConfigError if the clock cannot make that rate."""
    divider = max(1, round(clock / baud))
    if abs(divider * baud / clock - 1) > OFF:
        raise ConfigError(f"{baud} baud must be a part of {clock / 1e6:g} MHz, within "
                          f"{OFF:.0%}; the next is {clock / divider:.0f}")
    return divider


def prepare(name: str, hardware: Hardware, images: Images, *, baud: int = BAUD) -> BuildPlan:
    """What Amaranth would run to make the bitstream.

    Raises
    ------
    ConfigError
        If there is no such board, or the engine cannot be put behind such a line.
    """
    if name not in BOARDS:
        raise ConfigError(f"a board must be one of {', '.join(BOARDS)}, not {name!r}")
    board = BOARDS[name]
    platform = getattr(import_module(f"amaranth_boards.{board.module}"), board.platform)()
    return platform.prepare(OnBoard(board, hardware, images, baud), "board",
                            debug_verilog=False)
