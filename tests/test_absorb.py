"""LUTs that carry cells take in: the same sums as before, whatever the functions are."""

import copy
import random
from itertools import product

import pytest

from hw.absorb import ADDER, absorb_luts


def lut(inputs, output: int, init: int) -> dict:
    """A LUT4 of up to four nets; the lowest bits of `init` are what it gives."""
    pins = [*inputs, *["0"] * (4 - len(inputs))]
    return {"type": "LUT4", "parameters": {"INIT": f"{init:016b}"},
            "connections": {**{p: [n] for p, n in zip("ABCD", pins, strict=True)}, "Z": [output]},
            "port_directions": {**dict.fromkeys("ABCD", "input"), "Z": "output"}}


def adder(a, b, sums, carry="0", *, invert="0", out=None) -> dict:
    """A carry cell as Yosys maps two places of an addition, or of a subtraction if `invert`."""
    pins = {"CIN": carry, "A0": a[0], "B0": b[0], "C0": invert, "D0": "1",
            "A1": a[1], "B1": b[1], "C1": invert, "D1": "1"}
    outs = {"S0": sums[0], "S1": sums[1], **({} if out is None else {"COUT": out})}
    return {"type": "CCU2C", "connections": {pin: [net] for pin, net in (pins | outs).items()},
            "parameters": {"INIT0": ADDER, "INIT1": ADDER, "INJECT1_0": "NO", "INJECT1_1": "NO"},
            "port_directions": {**dict.fromkeys(pins, "input"), **dict.fromkeys(outs, "output")}}


def module(outputs, cells) -> dict:
    return {"cells": {str(k): cell for k, cell in enumerate(cells)},
            "ports": {"o": {"direction": "output", "bits": [*outputs]}}}


def values(top: dict, inputs: dict) -> list:
    """The outputs of LUTs and carry cells, as their models in Yosys say (`ccu2c_sim.vh`)."""
    found, cells = {"0": 0, "1": 1} | inputs, [*top["cells"].values()]

    def table(init, pins):
        return int(init[::-1][sum(found[pin] << k for k, pin in enumerate(pins))])

    while cells:
        cell = cells.pop(0)
        nets, parameters = ({pin: net for pin, (net,) in cell["connections"].items()},
                            cell["parameters"])
        if any(net not in found for pin, net in nets.items()
               if cell["port_directions"][pin] == "input"):
            cells.append(cell)
            continue
        if cell["type"] == "LUT4":
            found[nets["Z"]] = table(parameters["INIT"], [nets[p] for p in "ABCD"])
            continue
        carry = found[nets["CIN"]]
        for half in "01":
            init, pins = parameters[f"INIT{half}"], [nets[f"{p}{half}"] for p in "ABCD"]
            goes = table(init, pins)
            found[nets[f"S{half}"]] = goes ^ carry
            carry = carry if goes else table(init[12:], pins[:2])
        if "COUT" in nets:
            found[nets["COUT"]] = carry
    return [found[net] for net in top["ports"]["o"]["bits"]]


def same(top: dict, inputs) -> int:
    """Absorbs, and compares for all values of the inputs; how many LUTs went."""
    before = copy.deepcopy(top)
    gone = absorb_luts(top)
    luts = [sum(each["type"] == "LUT4" for each in m["cells"].values()) for m in (before, top)]
    assert luts[0] - luts[1] == gone
    for bits in product((0, 1), repeat=len(inputs)):
        given = dict(zip(inputs, bits, strict=True))
        assert values(top, given) == values(before, given)
    return gone


@pytest.mark.parametrize("invert", "01")
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_every_function_of_an_operand(inputs, side, invert):
    """One or two inputs always go; three if it is zero at 000 and at one of 001, 010, 100."""
    reads = [2, 3, 4][:inputs]
    went = set()
    for init in range(2 ** 2 ** inputs):
        operands = [(20, 5), (6, 7)][::-1 if side else 1]
        top = module([30, 31, 32], [lut(reads, 20, init),
                                    adder(*operands, (30, 31), 8, invert=invert, out=32)])
        if same(top, [*reads, 5, 6, 7, 8]):
            went.add(init)
    assert len(went) == {1: 4, 2: 16, 3: 112}[inputs]
    multiplexers = {0b11001010, 0b10101100, 0b11100010} if inputs == 3 and invert == "0" else set()
    assert multiplexers <= went


def test_what_stays():
    alone = [lut([2, 3], 20, 6), adder((20, 5), (6, 7), (30, 31))]
    assert same(module([30, 31], alone), [2, 3, 5, 6, 7]) == 1
    stays = {
        "an output": module([30, 31, 20], copy.deepcopy(alone)),
        "read twice": module([30, 31], [alone[0], adder((20, 5), (6, 20), (30, 31))]),
        "both operands": module([30, 31], [alone[0], adder((20, 5), (20, 7), (30, 31))]),
        "a carry": module([30, 31], [alone[0], adder((2, 5), (6, 7), (30, 31), 20)]),
        "four inputs": module([30, 31], [lut([2, 3, 5, 6], 20, 0x8000),
                                         adder((20, 5), (6, 7), (30, 31))]),
        "adds or subtracts": module([30, 31], [alone[0],
                                               adder((20, 5), (6, 7), (30, 31), invert=3)]),
    }
    for why, top in stays.items():
        assert absorb_luts(top) == 0, why


def test_random_additions():
    """Several operands behind LUTs, some of which read other LUTs, through a whole chain."""
    rng, gone = random.Random(1), 0
    for _ in range(40):
        inputs, nets, cells = [*range(2, 10)], [*range(2, 10)], []
        for net in range(20, 26):
            reads = rng.sample(nets, rng.randint(1, 4))
            cells.append(lut(reads, net, rng.getrandbits(2 ** len(reads))))
            nets.append(net)
        carry, outputs = "0", []
        for k in range(3):
            pins = [rng.choice([*nets, 20 + 2 * k, 21 + 2 * k, "0"]) for _ in range(4)]
            sums, out = (40 + 2 * k, 41 + 2 * k), 50 + k
            cells.append(adder(pins[:2], pins[2:], sums, carry, invert=rng.choice("01"), out=out))
            outputs, carry = [*outputs, *sums], out
        gone += same(module([*outputs, carry], cells), inputs)
    assert gone > 30
