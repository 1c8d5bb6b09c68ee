"""Counts the logic of an ECP5 netlist as nextpnr does, which packs it: LUTs, carry chains, RAMs.

A carry chain has one cell more in front, through which its first carry comes, and one behind it,
or wherever its carry is used by anything else, which leads it out. The one or two LUTs that drive
constants are left out.
"""

SITES = {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6}  # a RAM: four, and two for its write port


def logic_sites(module: dict) -> int:
    """LUT sites that nextpnr-ecp5 takes for a module as Yosys's `write_json` has it, flat."""
    cells = [(cell["type"], cell["connections"]) for cell in module["cells"].values()]
    carries = [pins for kind, pins in cells if kind == "CCU2C"]
    used = {bit for kind, pins in cells for pin, bits in pins.items() for bit in bits
            if not (kind == "CCU2C" and pin in ("CIN", "COUT"))}
    used.update(bit for port in module["ports"].values() for bit in port["bits"])
    outs, ins = {pins["COUT"][0] for pins in carries}, {pins["CIN"][0] for pins in carries}
    ends = sum(pins["CIN"][0] not in outs for pins in carries) + len(outs & used | outs - ins)
    return sum(SITES.get(kind, 0) for kind, _ in cells) + SITES["CCU2C"] * ends
