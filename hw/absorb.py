"""Puts LUTs in front of adders into the carry cells of a mapped ECP5 netlist.

Half of a CCU2C is a LUT of four inputs whose output says whether the carry goes on; if not, the
carry is made of inputs A and B alone, by the four entries of the LUT where C and D are zero. An
adder, as Yosys maps it, uses A and B only. So one of its operands may be a function f of up to
three inputs B, C, D instead: A + f, where f is zero as long as C and D are, so that these four
entries say A. A multiplexer is such a function, and so is any of two inputs, with D always one.
Which operand of the two it is makes no difference but for the sign.
"""

from itertools import permutations, product

from hw.outreg import loads_of

ADDER = "1001011010101010"  # INIT of both halves: A + B if C is zero, A - B if it is one; D is one


def absorb_luts(module: dict) -> int:
    """Moves what can be moved, in a module as `write_json` has it; the LUTs that went."""
    cells, gone = module["cells"], 0
    loads = {net: len(found) for net, found in loads_of(module).items()}
    makers = {cell["connections"]["Z"][0]: name for name, cell in cells.items()
              if cell["type"] == "LUT4"}
    for cell in [*cells.values()]:
        if cell["type"] == "CCU2C":
            for half in "01":
                gone += _absorb(cells, cell["connections"], cell["parameters"], half, makers, loads)
    return gone


def _absorb(cells: dict, nets: dict, parameters: dict, half: str, makers: dict,
            loads: dict) -> bool:
    a, *others = (f"{pin}{half}" for pin in "ABCD")
    b, c, d = (nets[pin] for pin in others)
    if (parameters[f"INIT{half}"] != ADDER or parameters[f"INJECT1_{half}"] != "NO"
            or c not in (["0"], ["1"]) or d != ["1"]):
        return False
    minus = c == ["1"]  # it is B that is inverted, and A or what equals it that is the carry
    for (net,), stays, flip in ((b, nets[a], 0), (nets[a], b, minus)):
        if net in makers and loads[net] == 1:  # nothing else reads it
            inputs, values = _function(cells[makers[net]])
            values = {bits: value ^ minus ^ flip for bits, value in values.items()}
            if found := _arranged(inputs, values):
                pins, table = found
                nets |= {a: stays, **{pin: [net] for pin, net in zip(others, pins, strict=True)}}
                parameters[f"INIT{half}"] = "".join(
                    str(x ^ flip ^ table[y, z, w]) for w, z, y, x in product((1, 0), repeat=4))
                del cells[makers[net]]
                return True
    return False


def _function(cell: dict) -> tuple[list, dict]:
    """The nets that a LUT reads, and its value by theirs."""
    init, nets = cell["parameters"]["INIT"][::-1], [cell["connections"][p][0] for p in "ABCD"]
    inputs = sorted({net for net in nets if isinstance(net, int)})
    values = {}
    for bits in product((0, 1), repeat=len(inputs)):
        at = dict(zip(inputs, bits, strict=True))
        values[bits] = int(init[sum(at.get(net, net == "1") << k for k, net in enumerate(nets))])
    return inputs, values


def _arranged(inputs: list, values: dict) -> tuple[list, dict] | None:
    """Nets of B, C and D, and the function by theirs; None if it has no place there."""
    if len(inputs) < 3:
        b, c = [*inputs, "0", "0"][:2]
        return [b, c, "1"], {bits: bits[2] and values[bits[:len(inputs)]]
                             for bits in product((0, 1), repeat=3)}
    for order in permutations(range(3)) if len(inputs) == 3 else ():
        table = {tuple(bits[k] for k in order): value for bits, value in values.items()}
        if not (table[0, 0, 0] or table[1, 0, 0]):
            return [inputs[k] for k in order], table
    return None
