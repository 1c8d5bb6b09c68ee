"""Logic cells that a netlist takes on an iCE40, counted as nextpnr-ice40 packs them.

A logic cell is a LUT, a register behind it and a carry beside it. Yosys maps to the three one by
one; which of them share a cell is for a packer to decide. The steps are those of nextpnr, which
calls them by the names given. One is left out: it cuts a carry chain that is longer than a column
of the device, or along which the registers of a tile differ in clock, enable or reset.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass

from hw.outreg import loads_of

NOTHING = ("0", "x", "z")  # an input of a LUT or a carry with this needs no wire


@dataclass(eq=False)
class LogicCell:
    """`pins` has the net at each pin in use: I0 to I3 and O, CIN and COUT of the carry."""

    pins: dict[str, int | str]
    register: bool = False
    carry: bool = False


def logic_cells(netlist: dict) -> int:
    """Logic cells for a flat module of iCE40 primitives, in the form of Yosys's `write_json`."""
    mapped = defaultdict(list)  # the nets at the pins of each cell, by kind of cell
    kinds = {}
    for name, cell in netlist["cells"].items():
        kind = "SB_DFF" if cell["type"].startswith("SB_DFF") else cell["type"]
        mapped[kind].append({pin: bits[0] for pin, bits in cell["connections"].items() if bits})
        kinds[name] = kind
    loads = defaultdict(list, {  # kind and pin of whatever a net drives
        net: [(pin if pin == "port" else kinds[name], pin) for name, pin in found]
        for net, found in loads_of(netlist).items()})
    cells = _pack_registers(mapped["SB_LUT4"], mapped["SB_DFF"], loads)
    cells += _pack_carries(mapped["SB_CARRY"], cells)
    merged = _merge_luts(cells)
    ends = _chain_ends(cells, loads)
    constants = 1 + ("0" in loads)  # a cell that drives a one is there in any case
    return len(cells) - merged + ends + constants


def _pack_registers(luts: list[dict], registers: list[dict], loads: dict) -> list[LogicCell]:
    """`pack_lut_lutffs`, `pack_nonlut_ffs`: a LUT shares a cell if it drives a register only."""
    alone = dict(enumerate(registers))
    behind = {pins["D"]: number for number, pins in alone.items()}
    cells = []
    for lut in luts:
        cell = LogicCell({pin: net for pin, net in lut.items() if net not in NOTHING})
        if loads[lut["O"]] == [("SB_DFF", "D")]:
            cell.register, cell.pins["O"] = True, alone.pop(behind[lut["O"]])["Q"]
        cells.append(cell)
    return cells + [LogicCell({"I0": pins["D"], "O": pins["Q"]}, register=True)
                    for pins in alone.values()]


def _pack_carries(carries: list[dict], cells: list[LogicCell]) -> list[LogicCell]:
    """`pack_carries`: puts each carry beside the LUT that adds the same bits; returns new cells."""
    at = defaultdict(list)
    for cell in cells:
        for pin, net in cell.pins.items():
            at[pin, net].append(cell)
    new = []
    for carry in carries:
        a, b = (None if carry[pin] in NOTHING else carry[pin] for pin in ("I0", "I1"))
        matches = [cell for cell in (at["I2", b] if a is None else at["I1", a])
                   if not cell.carry and (cell.pins.get("I1"), cell.pins.get("I2")) == (a, b)]
        constant = isinstance(carry["CI"], str)
        adds = next(iter([] if constant else at["I3", carry["CI"]]), None)
        if adds in matches:
            cell = adds
        elif constant and len(matches) == 1:
            cell = matches[0]
        else:
            cell = LogicCell({pin: net for pin, net in (("I1", a), ("I2", b)) if net is not None})
            new.append(cell)
        cell.carry = True
        cell.pins |= {"COUT": carry["CO"]} | ({} if constant else {"CIN": carry["CI"]})
    return new


def _merge_luts(cells: list[LogicCell]) -> int:
    """`merge_carry_luts`: how many LUTs of two inputs go into the cell whose carry they drive."""
    free = {cell.pins["O"]: cell for cell in cells if "O" in cell.pins and not (
        cell.carry or cell.register or "I0" in cell.pins or "I1" in cell.pins)}
    merged = 0
    for cell in cells:
        if cell.carry and "O" not in cell.pins:
            net = next((cell.pins[pin] for pin in ("I1", "I2") if cell.pins.get(pin) in free), None)
            if net is not None:
                del free[net]
                merged += 1
    return merged


def _chain_ends(cells: list[LogicCell], loads: dict) -> int:
    """`constrain_chains`: a carry is led in or out through a cell, but to the next in its chain."""
    users = defaultdict(list)
    for cell in cells:
        for pin, net in cell.pins.items():
            if pin not in ("O", "COUT"):
                users[net].append((pin, cell))
    others = Counter({net: sum(kind not in ("SB_LUT4", "SB_CARRY") and pin != "D"
                               for kind, pin in found) for net, found in loads.items()})
    couts = {cell.pins["COUT"] for cell in cells if cell.carry}
    ends = 0
    for cell in cells:
        cin = cell.pins.get("CIN")
        if not cell.carry or cin in couts:
            continue  # not the first of a chain
        ends += cin is not None
        while cell and cell.carry:
            found = users[cell.pins["COUT"]]
            carry = next((user for pin, user in found if pin == "CIN"), None)
            lut = next((user for pin, user in found if pin == "I3"), None)
            last = next((user for pin, user in found if pin == "I3" and not user.carry), None)
            count = len(found) + others[cell.pins["COUT"]]
            cell = carry or last
            ends += count > 2 or not cell or (count == 2 and lut is not carry)
    return ends
