"""The loader against a model that knows whose each address is: rows, refusals, and cycles."""

import random
from collections import Counter
from itertools import permutations

import pytest
from amaranth.sim import Simulator

from export.hardware import Hardware
from export.program import Program
from export.sections import RECORDS, load_address_bits, record_fields, sections
from hw.loader import Loader
from tests.designs import SMALL, conv, design

PLAIN = [design([conv("a", 1, 3, 3)], (1, 1, 1), height=2, width=2, channels=1, classes=2)]
MACHINES = {"small": (SMALL, {"hold": 2, "slots": 3}), "one": (PLAIN, {}),
            "slots": (PLAIN, {"slots": 9})}


def machine(name: str) -> Hardware:
    configs, how = MACHINES[name]
    return Hardware.of([Program(config) for config in configs], memory="ram", **how)


class Model:
    """Takes the word whose turn it is, and says why it refuses another."""

    def __init__(self, hardware: Hardware):
        self.sections = sections(hardware)
        self.owner = {each.base + row * each.stride + part: (number, row, part)
                      for number, each in enumerate(self.sections)
                      for row in range(each.rows) for part in range(each.parts)}
        self.row, self.words = None, []  # the row that is open, and what has come of it

    def take(self, address: int, text: int, users) -> tuple[str, tuple | None]:
        """Why it is refused, or "good"; and the row (section, row, bits) that is written."""
        number, row, part = self.owner.get(address, (None, None, None))
        why = "good"
        if number is None:
            why = "unknown"
        elif any(row in self.rows(number, user) for user in users):
            why = "used"
        elif part and (self.row != (number, row) or len(self.words) != part):
            why = "order"
        if why != "good":
            self.row = None
            return why, None
        self.words = [*self.words, text] if part else [text]
        self.row, section = (number, row), self.sections[number]
        if part < section.parts - 1:
            return why, None
        self.row = None
        bits = sum(word << 32 * k for k, word in enumerate(self.words))
        return why, (number, row, bits & (1 << section.width) - 1)

    def rows(self, section: int, user) -> range:
        """Those that a user, (number, record) or None, needs."""
        if user is None:
            return range(0)
        number, record = user
        name = self.sections[section].name
        if name == RECORDS:
            return range(number, number + 1)
        name = "tiles" if name == "biases" else name
        return range(record[f"{name}_base"], record[f"{name}_end"])


def drive(hardware: Hardware, steps):
    """What a loader does with each (word or None, users); refused and filled as of the word.

    The users are those of the cycle behind the word's, which is when they are asked.
    """
    dut, found = Loader(hardware), []
    widths = [section.width for section in sections(hardware)]  # a memory takes no more bits

    def show(ctx, before, users):
        for port, was, user in zip(dut.users, before, users, strict=True):
            if user is not was:
                number, record = user or (0, {})
                ctx.set(port, {"valid": user is not None, "number": number, "record": record})

    async def bench(ctx):
        shown = before = [None, None]
        for word, users in [*steps, (None, before), (None, before)]:
            ctx.set(dut.words.valid, word is not None)
            if word:
                ctx.set(dut.words.payload, dict(zip(("address", "data"), word, strict=True)))
            show(ctx, shown, before)
            shown, before = before, users
            *_, ready, refused, fill = await ctx.tick().sample(
                dut.words.ready, dut.refused, dut.fill)
            assert ready
            row = fill.section, fill.row, fill.data & (1 << widths[fill.section]) - 1
            found.append((bool(refused), row if fill.valid else None))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    # The word of cycle n is refused, or its row is written, in cycle n + 2.
    return found[2:]


def random_steps(hardware: Hardware, rng: random.Random, count: int):
    """Rows in order, with gaps, strays and users that come and go meanwhile."""
    found, fields, model = sections(hardware), record_fields(hardware), Model(hardware)
    addresses = range(2**load_address_bits(hardware))
    users, steps = [None, None], []

    def user():
        record = {}
        for section in found:
            if f"{section.name}_base" in fields:
                ends = sorted(rng.choices(range(section.rows + 1), k=2))
                record |= dict(zip((f"{section.name}_base", f"{section.name}_end"), ends,
                                   strict=True))
        return rng.randrange(hardware.programs), record

    while len(steps) < count:
        number, section = rng.choice([*enumerate(found)])
        near = [end for each in users if (rows := model.rows(number, each))
                for end in (rows[0] - 1, rows[0], rows[-1], rows[-1] + 1)
                if end in range(section.rows)]
        at = rng.choice(near or range(section.rows))
        start = section.base + at * section.stride
        row = [start + k for k in range(section.parts)]
        kind = rng.random()
        if kind < 0.1:
            row = [rng.choice(addresses)]
        elif kind < 0.2:  # one behind its row's end, or before it
            row = [*row, row[-1] + 1] if rng.random() < 0.5 else [max(0, row[0] - 1), *row]
        elif kind < 0.3:
            row.insert(rng.randrange(len(row)), rng.choice(row))
        elif kind < 0.4:
            del row[rng.randrange(len(row)):][:1]
            row = row[rng.randrange(2):]
        for address in row:
            while rng.random() < 0.2:
                steps.append((None, users))
            if rng.random() < 0.08:
                users = [rng.choice([None, user()]), rng.choice([None, user()])]
            if address in addresses:
                steps.append(((address, rng.getrandbits(32)), users))
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_random_words(name):
    hardware = machine(name)
    steps = random_steps(hardware, random.Random(name), 3000)
    model, reasons, ends = Model(hardware), Counter(), Counter()
    for (word, users), came in zip(steps, drive(hardware, steps), strict=True):
        if word is None:
            assert came == (False, None)
            continue
        why, row = model.take(*word, users)
        assert came == (why != "good", row), (word, why)
        reasons[why] += 1
        if row:  # a user's rows end right before it, or begin right behind it
            ends.update((at, row[0]) for at in (-1, 1) for user in users if user
                        if (rows := model.rows(row[0], user)) and row[1] + at in rows)
        elif why == "used":
            number, at, _ = model.owner[word[0]]
            ends.update(side for side in ("first", "last") for user in users
                        if (rows := model.rows(number, user))
                        and at == {"first": rows[0], "last": rows[-1]}[side])
    assert min(reasons[why] for why in ("good", "unknown", "used", "order")) > 20, reasons
    assert min(ends["first"], ends["last"]) > 20
    if name == "small":
        assert all(ends[at, number] for at in (-1, 1)
                   for number, section in enumerate(model.sections) if section.rows > 1)


def long_row(hardware: Hardware) -> tuple[int, list[int], tuple]:
    """A section of three parts or more: its number, the addresses of row 1, users of that row."""
    number, section = next((k, each) for k, each in enumerate(sections(hardware))
                           if each.parts > 2 and each.name not in (RECORDS, "biases"))
    record = dict.fromkeys(record_fields(hardware), 0)
    record |= {f"{section.name}_base": 1, f"{section.name}_end": 2}
    return number, [section.base + section.stride + k for k in range(section.parts)], (0, record)


def test_a_row_whose_user_comes_between_its_parts():
    """The part that comes then is refused, and so is all that follows it; once each."""
    hardware = machine("small")
    _, row, user = long_row(hardware)
    for slot in range(2):
        users = [None, None]
        users[slot] = user
        for first in range(1, len(row)):
            steps = [((address, 7), users if k >= first else [None, None])
                     for k, address in enumerate(row)]
            assert drive(hardware, steps) == [(k >= first, None) for k in range(len(row))]


def test_a_row_whose_user_goes_between_its_parts():
    """Its rest is refused too; and the row is written when it comes anew."""
    hardware = machine("small")
    number, row, user = long_row(hardware)
    for first in range(1, len(row)):
        steps = [((address, 7), [user if k < first else None, None])
                 for k, address in enumerate(row)]
        came = drive(hardware, [*steps, *[((address, 5), [None, None]) for address in row]])
        assert came[:len(row)] == [(True, None)] * len(row)
        assert [each[0] for each in came[len(row):]] == [False] * len(row)
        assert came[-1][1][:2] == (number, 1) and came[-1][1][2] & 0xffffffff == 5


def test_a_row_that_goes_on_as_another():
    """In the same section or in another one; what comes of the other is refused, all of it."""
    hardware = machine("small")
    rows = [(section, row) for section in sections(hardware) if section.parts > 1
            for row in range(2)]
    words, wanted = [], []
    for one, other in permutations(rows, 2):
        first, second = ([section.base + row * section.stride + part
                          for part in range(section.parts)] for section, row in (one, other))
        for split in range(1, min(len(first), len(second))):
            words += [*first[:split], *second[split:], *second]
            wanted += [*[(False, False)] * split, *[(True, False)] * (len(second) - split),
                       *[(False, False)] * (len(second) - 1), (False, True)]
    came = drive(hardware, [((address, 3), [None, None]) for address in words])
    assert [(refused, row is not None) for refused, row in came] == wanted


def test_a_whole_image_takes_a_cycle_per_word():
    hardware = machine("small")
    rng, steps, wanted = random.Random(1), [], []
    for number, section in enumerate(sections(hardware)):
        for row in range(section.rows):
            bits = rng.getrandbits(section.width)
            start = section.base + row * section.stride
            steps += [((start + k, word), [None, None])
                      for k, word in enumerate(section.words(bits))]
            wanted += [(False, None)] * (section.parts - 1) + [(False, (number, row, bits))]
    assert drive(hardware, steps) == wanted
