"""Counts the logic of a Gowin netlist as nextpnr does, which packs it: LUTs, carry chains, RAMs.

A carry chain has one cell more in front, which gives it its first carry. It ends where its carry
is used by anything else, with another cell that leads it out, and at an even place.
"""

RAM = 8  # sites of a distributed RAM of 16 words of four bits


def logic_sites(module: dict) -> int:
    """LUT sites that nextpnr-himbaechel takes for a module as Yosys's `write_json` has it, flat."""
    cells = [(cell["type"], cell["connections"]) for cell in module["cells"].values()]
    carries = [pins for kind, pins in cells if kind == "ALU"]
    used = {bit for kind, pins in cells for pin, bits in pins.items() for bit in bits
            if not (kind == "ALU" and pin in ("CIN", "COUT"))}
    used.update(bit for port in module["ports"].values() for bit in port["bits"])
    follower = {pins["CIN"][0]: pins for pins in carries}
    inner = {pins["COUT"][0] for pins in carries} - used
    sites = sum(kind in ("LUT1", "LUT2", "LUT3", "LUT4") for kind, _ in cells)
    sites += RAM * sum(kind.startswith("RAM16") for kind, _ in cells)
    for first in carries:
        if first["CIN"][0] in inner:
            continue
        length, pins = 2, first
        while (carry := pins["COUT"][0]) in follower and carry not in used:
            length, pins = length + 1, follower[carry]
        length += carry in used
        sites += length + length % 2
    return sites
