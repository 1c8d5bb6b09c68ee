"""Adds bits of many weights: full adders in carry chains, as many as fit side by side.

A full adder takes two LUTs, but in a carry chain the place of one. Chains of two or three bits end
in an odd place each, so all those of a level are one long addition. Between two of them is a place
whose operands are the same bit: whatever comes out of the first one leaves as that place's sum,
and the bit goes into the second one as its carry.
"""

from itertools import zip_longest

from amaranth import Cat, Const, Module, Signal, Value

Columns = list[list[Value]]  # bits by weight, lowest first


def add_level(m: Module, columns: Columns, peak: int, name: str) -> Columns:
    """One level of full adders: the same sum, which is `peak` at most, in fewer bits.

    A chain starts wherever three bits have the same weight: two operands and a carry; it goes on
    as long as the next weight has two bits.
    """
    columns = [list(bits) for bits in columns] + [[] for _ in range(peak.bit_length())]
    results, chains = [], []
    for weight, bits in enumerate(columns):
        while len(bits) >= 3:
            carry, places = bits.pop(0), [(bits.pop(0), bits.pop(0))]
            for above in columns[weight + 1:]:
                if len(above) < 2:
                    break
                places.append((above.pop(0), above.pop(0)))
            if len(places) > 1:
                chains.append((weight, carry, places))
            else:  # in LUTs, which may take in what is before them
                (a, b), = places
                results.append((weight, Cat(a ^ b ^ carry, a & b | carry & (a ^ b))))
    pairs = [pair for _, carry, places in chains for pair in ((carry, carry), *places)]
    total = Signal(len(pairs) + 1, name=name)
    m.d.comb += total.eq(Cat(a for a, _ in pairs) + Cat(b for _, b in pairs))
    place = 1
    for weight, _, places in chains:
        results.append((weight, total[place:place + len(places) + 1]))
        place += len(places) + 1
    for weight, bits in results:
        for column, bit in zip(columns[weight:], bits, strict=False):
            column.append(bit)
    return columns[:peak.bit_length()]


def add_levels(m: Module, columns: Columns, peak: int, name: str) -> Columns:
    """As many levels as it takes until no weight has more than two bits."""
    level = 0
    while max(map(len, columns)) > 2:
        columns, level = add_level(m, columns, peak, f"{name}_{level}"), level + 1
    return columns


def add_up(m: Module, columns: Columns, peak: int, name: str) -> Signal:
    """The sum, which is `peak` at most."""
    total = Signal(range(peak + 1), name=name)
    rows = zip_longest(*add_levels(m, columns, peak, name), fillvalue=Const(0, 1))
    m.d.comb += total.eq(sum(Cat(row) for row in rows))
    return total


def keep(m: Module, columns: Columns, name: str) -> Columns:
    """A register behind each bit."""
    kept = [Signal(len(bits), name=f"{name}_{2 ** weight}", reset_less=True)
            for weight, bits in enumerate(columns)]
    m.d.sync += [register.eq(Cat(bits)) for register, bits in zip(kept, columns, strict=True)]
    return [list(register) for register in kept]
