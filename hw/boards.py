"""Boards that an engine can be built for: pins, clock and LEDs come from amaranth-boards.

:func:`pins` gives the module around the engine and the constraints; :mod:`hw.bitstream` builds it.
"""

from dataclasses import dataclass
from importlib import import_module

from amaranth import ClockDomain, Elaboratable, Instance, Module, Signal
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.io import Buffer

from export.checked import ConfigError
from hw.devices import DEVICES

BAUD = 1_000_000
OFF = 0.02  # of a bit's length, at most; ten bits must not slip by half a one
SILENCE = 0.1  # seconds at least; USB adapters pause for some hundredths


@dataclass(frozen=True)
class Board:
    """Device and package, module and class in amaranth_boards, LEDs to use."""

    device: str
    package: str
    module: str
    platform: str
    leds: int
    extra: str = ""  # resources that the class does not have by itself

    def load(self):
        """The Amaranth platform."""
        module = import_module(f"amaranth_boards.{self.module}")
        platform = getattr(module, self.platform)()
        if self.extra:
            platform.add_resources(getattr(platform, self.extra))
        return platform

    @property
    def mhz(self) -> float:
        """Its own clock."""
        return self.load().default_clk_frequency / 1e6


BOARDS = {
    "ulx3s-85f": Board("LFE5U-85F", "CABGA381", "ulx3s", "ULX3S_85F_Platform", 8),
    "icepi-zero": Board("LFE5U-25F", "CABGA256", "icepi_zero", "IcepiZero1_3Platform", 5),
    # Two LEDs, and five on the part that can be broken off.
    "icebreaker": Board("iCE40UP5K", "sg48", "icebreaker", "ICEBreakerPlatform", 7,
                        "break_off_pmod"),
    "tang-nano-9k": Board("GW1NR-9C", "QN88P", "tang_nano_9k", "TangNano9kPlatform", 6),
}
PLL = {"ecp5": ("clkin", "clkout0"), "ice40": ("clock_in", "clock_out"),  # as its tool names them
       "gowin": ("clock_in", "clock_out")}
CONSTRAINTS = {"ecp5": "pins.lpf", "ice40": "pins.pcf", "gowin": "pins.cst"}


def board_of(name: str) -> Board:
    """ConfigError if there is no such board."""
    if name not in BOARDS:
        raise ConfigError(f"a board must be one of {', '.join(BOARDS)}, not {name!r:.60}")
    return BOARDS[name]


class Pins(Elaboratable):
    """The modules `board`, an engine behind a serial line, and `pll`, on the pins of a board.

    `board` is held in reset until the PLL has locked.
    """

    def __init__(self, board: Board, family: str):
        self.board, self.family = board, family

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = sync = ClockDomain()
        source = platform.request(platform.default_clk, dir="-")
        locked = Signal()
        clock_in, clock_out = PLL[self.family]
        if self.family == "ice40":  # its PLL takes the pin, not what an input buffer makes of it
            clock = source.io
        else:
            m.submodules.clock = buffer = Buffer("i", source)
            clock = buffer.i
        m.submodules.pll = Instance("pll", **{f"i_{clock_in}": clock, f"o_{clock_out}": sync.clk,
                                              "o_locked": locked})
        m.submodules.reset = ResetSynchronizer(~locked)
        line = platform.request("uart", 0, dir="-")
        leds = Signal(self.board.leds)
        m.submodules.rx = rx = Buffer("i", line.rx)
        m.submodules.tx = tx = Buffer("o", line.tx)
        m.submodules.board = Instance("board", i_clk=sync.clk, i_rst=sync.rst, i_rx=rx.i,
                                      o_tx=tx.o, o_leds=leds)
        for n, lit in enumerate(leds):
            m.submodules[f"led_{n}"] = led = Buffer("o", platform.request("led", n, dir="-"))
            m.d.comb += led.o.eq(lit)
        return m


def pins(name: str) -> tuple[str, str]:
    """The module `pins` of a board as RTLIL, and where its ports are: `CONSTRAINTS`."""
    board = board_of(name)
    family = DEVICES[board.device].family
    files = board.load().prepare(Pins(board, family), "pins", debug_verilog=False).files
    return tuple(each if isinstance(each, str) else each.decode()
                 for each in (files["pins.il"], files[CONSTRAINTS[family]]))


def divides(clock: float, baud: int) -> bool:
    """Whether a whole number of cycles is near enough to a bit."""
    return abs(max(1, round(clock / baud)) * baud / clock - 1) <= OFF


def divider_of(clock: float, baud: int) -> int:
    """Cycles of a bit; ConfigError if the clock cannot make that rate."""
    divider = max(1, round(clock / baud))
    if not divides(clock, baud):
        raise ConfigError(f"{baud} baud must be a part of {clock / 1e6:g} MHz, within "
                          f"{OFF:.0%}; the next is {clock / divider:.0f}")
    return divider
