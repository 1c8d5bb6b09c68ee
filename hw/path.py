"""Says in words where a path begins and ends and what is between.

nextpnr names the cells of a path as Yosys named them, after whichever net was nearest. Whose
register a cell is, follows from the netlist: it is the one declared in the module that holds the
line of Verilog which the register came from.
"""

import re

RAMS = {"DP16KD": "block RAM", "SB_RAM40_4K": "block RAM", "TRELLIS_DPR16X4": "distributed RAM",
        **dict.fromkeys(("DPB", "DPX9B", "SDPB", "SDPX9B", "SP", "SPX9", "pROM", "pROMX9"),
                        "block RAM"), "RAM16SDP4": "distributed RAM"}
# What a pin of a register or a memory does, if it takes no data.
PINS = {"CE": "clock enable", "CEN": "clock enable", "LSR": "reset", "SR": "reset",
        "AD": "address", "RADDR": "address", "WADDR": "address", "WE": "write enable",
        "WCLKE": "write enable", "RE": "read enable", "RCLKE": "read enable",
        "RESET": "reset", "SET": "reset", "WRE": "write enable"}
_PACKED = re.compile(r"(\$[A-Z][A-Z0-9_]*|_LC|_DFFLC|_RAM)$")  # what nextpnr adds to a name
_MAPPED = re.compile(r"_(TRELLIS|DP16KD|LUT[1-4]|CCU2C|SB|DFF[A-Z]*|ALU)_.*")  # and Yosys
_MEMORY = re.compile(r"(\.\d+)+(_.*)?$")  # the latter also to a memory, or what it puts beside it
_NAMELESS = re.compile(r"|\$\d+|\$signal\b.*")
_LINES = re.compile(r"(?:^|\|)[^/|]+\.v:(\d+)\.\d+-(\d+)")  # not of Yosys's own files


class Names:
    """Finds the register or the memory that a cell of a placed netlist is, or is packed with."""

    def __init__(self, module: dict):
        """Of the mapped module, as :func:`hw.synth.map_netlist` returns it."""
        self.cells = module["cells"]
        self.nets = module["netnames"]
        # Lines of Verilog of the module of each instance; "" is the top.
        self.lines = {"": _lines(module["attributes"].get("src", ""))} | {
            name: _lines(cell["attributes"].get("module_src", ""))
            for name, cell in self.cells.items() if cell["type"] == "$scopeinfo"}
        self.behind = {cell["connections"]["D"][0]: name for name, cell in self.cells.items()
                       if cell["type"].startswith("SB_DFF")}

    def find(self, packed: str) -> dict:
        """Kind, module (the path of its instance; the top has none) and name of a cell."""
        name = packed
        while name not in self.cells and _PACKED.search(name):
            name = _PACKED.sub("", name)
        cell = self.cells.get(name, {"type": ""})
        if "connections" in cell and "O" in cell["connections"]:  # a LUT that shares its cell
            cell = self.cells.get(self.behind.get(cell["connections"]["O"][0]), cell)
        if cell["type"] in RAMS:
            return {"kind": RAMS[cell["type"]], **_split(_MEMORY.sub("", name))}
        own = self._declared(cell) if _register(cell) else None
        if own is None and _MEMORY.search(name):  # as which it emulates what a block RAM lacks
            return {"kind": "register beside", **_split(_MEMORY.sub("", name))}
        return {"kind": "register", **(own or _split(_MAPPED.sub("", name)))}

    def _declared(self, register: dict) -> dict | None:
        """Module and name of a register, if any name was left that the Verilog gave to it."""
        line = next(iter(_lines(register["attributes"].get("src", ""))), None)
        owners = {name for name, lines in self.lines.items() if line in lines}
        bit, found = register["connections"]["Q"][0], []
        for net, about in self.nets.items():
            if bit in about["bits"] and not about["hide_name"]:
                *instance, name = about["attributes"].get("hdlname", net).split(" ")
                if instance or "." not in net:
                    # A register as a whole rather than a field of it, which has a dot.
                    found.append((".".join(instance) not in owners, "." in name, len(name), name,
                                  ".".join(instance)))
        if not found:
            return None
        elsewhere, _, _, name, instance = min(found)
        if elsewhere and len(owners) == 1:  # known by the name that it has where it is used
            instance, = owners
        return {"module": instance, "name": name.removeprefix("\\")}


def _register(cell: dict) -> bool:
    return cell["type"].startswith(("TRELLIS_FF", "SB_DFF", "DFF"))


def _lines(src: str) -> range:
    """The lines of the design that an attribute names, the first such."""
    match = _LINES.search(src)
    return range(int(match[1]), int(match[2]) + 1) if match else range(0)


def _split(name: str) -> dict:
    module, _, name = name.rpartition(".")
    return {"module": module, "name": name.removeprefix("\\")}


def describe(path: list[dict], names: Names) -> dict:
    """A critical path of nextpnr's report: both ends, cells between, nanoseconds, all in words."""
    spent = {"routing": [0.0], "logic": [0.0]}
    for step in path:
        spent["routing" if step["type"] == "routing" else "logic"].append(step["delay"])
    passed = [step for step in path if step["type"] == "logic"]
    carries = sum(step["from"]["port"] in ("FCI", "CIN") or step["to"]["port"] in ("FCO", "COUT")
                  for step in passed)
    last = path[-1]["to"]
    result = {
        "from": names.find(path[0]["from"]["cell"]),
        "to": {**names.find(last["cell"]), "pin": _pin(last["port"])},
        # The setup of a register on iCE40 is that of the LUT in front of it.
        "luts": len(passed) - carries + bool(re.fullmatch("I[0-3]", last["port"])),
        "carries": carries,
        "ns": round(sum(map(sum, spent.values())), 2),
        "logic_ns": round(sum(spent["logic"]), 2),
        "routing_ns": round(sum(spent["routing"]), 2),
        "longest_route_ns": round(max(spent["routing"]), 2),
    }
    return result | {"words": _words(result)}


def _pin(port: str) -> str:
    """What a pin does; ECP5 numbers the pins of its block RAMs behind a letter for the port."""
    name = re.sub(r"_?\d+$", "", port)
    return PINS.get(name) or PINS.get(name[:-1], "data")


def _words(path: dict) -> str:
    between = [f"{path[kind]} {name if path[kind] == 1 else name + 's'}"
               for kind, name in (("luts", "LUT"), ("carries", "carry cell")) if path[kind]]
    share = path["routing_ns"] / path["ns"] if path["ns"] else 0
    pin = "" if path["to"]["pin"] == "data" else f"{path['to']['pin']} of "
    return (f"{_place(path['from'])} -> {', '.join(between) or 'nothing'} -> "
            f"{pin}{_place(path['to'])}: {path['ns']:.1f} ns, {1 - share:.0%} logic, "
            f"{share:.0%} routing, the longest route {path['longest_route_ns']:.1f}")


def _place(end: dict) -> str:
    name = "without a name" if _NAMELESS.fullmatch(end["name"]) else end["name"]
    return f"{end['kind']} {name} of {end['module'] or 'the top'}"
