"""Puts the registers behind block RAMs of a mapped ECP5 netlist into the block RAMs.

A DP16KD has a register at its outputs, which Yosys leaves unused: data then comes 5.6 ns behind the
clock. A register of the design that takes nothing but such an output, at every clock and with
neither enable nor reset, is the same register. Both are zero at first.

In words of 36 bits both ports' registers hold halves of one word that the second port reads. No
document says whose clock and enable the first one's has, so both ports get the same; Yosys leaves
the first port's at constants where nothing is written.
"""

from collections import defaultdict

PLAIN = {"CEMUX": "1", "CLKMUX": "CLK", "LSRMUX": "LSR", "REGSET": "RESET"}


def loads_of(module: dict) -> dict[int | str, list[tuple[str, str]]]:
    """Cell and pin of all that a net drives; of an output its name and "port"."""
    loads = defaultdict(list)
    for name, cell in module["cells"].items():
        for pin, bits in cell["connections"].items():
            if cell["port_directions"][pin] == "input":
                for net in bits:
                    loads[net].append((name, pin))
    for name, port in module["ports"].items():
        if port["direction"] == "output":
            for net in port["bits"]:
                loads[net].append((name, "port"))
    return loads


def merge_output_registers(module: dict) -> int:
    """Merges what can be merged of a module as `write_json` has it; the registers that went."""
    loads, merged = loads_of(module), 0
    for cell in [*module["cells"].values()]:
        if cell["type"] == "DP16KD":
            for pins, modes, clock in _ports(cell):
                merged += _merge(module, cell, pins, modes, clock, loads)
    return merged


def _ports(cell: dict):
    """Each port's outputs, the parameters that place a register there, and its clock.

    In words of 36 bits the outputs of both ports are one word, and read by the second port's clock.
    """
    wide = int(cell["parameters"]["DATA_WIDTH_B"], 2) == 36
    for side in ["AB"] if wide else "AB":
        pins = [pin for pin in cell["connections"] if pin.rstrip("0123456789")[:2] == "DO"
                and pin[2] in side]
        yield pins, [f"REGMODE_{each}" for each in side], f"CLK{side[-1]}"


def _merge(module: dict, cell: dict, pins: list, modes: list, clock: str, loads: dict) -> int:
    """Merges the registers of one port, if all that it drives are such."""
    behind, nets = {}, cell["connections"]
    if nets[f"OCE{clock[-1]}"] != ["1"]:
        return 0
    if len(modes) == 2 and nets["CLKA"] != nets["CLKB"] and [nets["CLKA"], nets["CEA"]] != 2 * [
            ["0"]]:
        return 0
    for pin in pins:
        found = [load for net in nets[pin] for load in loads[net]]
        if len(found) > 1 or (found and not _plain(module, *found[0], nets[clock])):
            return 0
        if found:
            behind[pin] = found[0][0]
    for pin, register in behind.items():
        nets[pin] = module["cells"].pop(register)["connections"]["Q"]
    if behind:
        cell["parameters"] |= dict.fromkeys(modes, "OUTREG")
        if len(modes) == 2:
            nets["CLKA"], nets["OCEA"] = nets["CLKB"], ["1"]
    return len(behind)


def _plain(module: dict, name: str, pin: str, clock: list) -> bool:
    """Whether that is the data pin of a register which takes its input at every clock."""
    cell = module["cells"].get(name, {"type": "port"})
    return (cell["type"] == "TRELLIS_FF" and pin == "DI" and cell["connections"]["CLK"] == clock
            and cell["connections"]["LSR"] == ["0"]
            and all(cell["parameters"].get(key, "").strip() == value
                    for key, value in PLAIN.items()))
