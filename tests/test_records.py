"""Which record is shown when, cycle by cycle, while records are written and frames come and go."""

import random
from itertools import islice

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from export.hardware import Hardware
from export.program import Program
from export.sections import record_fields, record_values, record_word, sections
from hw.loader import Loader
from hw.records import Records
from tests.designs import SMALL

PROGRAMS = [Program(config) for config in SMALL]


def machine(memory: str, programs: int):
    """The hardware, and records of the first `programs` that differ in every field."""
    hardware = Hardware.of(PROGRAMS, memory=memory, hold=programs)
    placed = [Program(program.config, hardware.pixel_words) for program in PROGRAMS]
    records = [record_values(program, hardware) for program in placed[:programs]]
    for number, record in enumerate(records):
        record["tiles_base"], record["tiles_end"] = number, number + 3
    return hardware, records


def random_record(hardware: Hardware, rng: random.Random) -> int:
    """Any word; valid with even odds."""
    return rng.getrandbits(sum(record_fields(hardware).values()))


def simulate(dut, bench):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_one_program_in_rom_has_a_constant_record():
    """Without the ends of its rows, by which two programs of one format would differ."""
    hardware, records = machine("rom", 1)
    dut = Records(hardware, records)
    wanted = {name: 0 if name.endswith("_end") else value for name, value in records[0].items()}

    async def bench(ctx):
        for taken, free in [(0, 0), (1, 0), (0, 0), (0, 1), (1, 1)]:
            ctx.set(dut.taken, taken)
            ctx.set(dut.free, free)
            await ctx.delay(1e-6)
            assert (ctx.get(dut.accept), ctx.get(dut.unloaded)) == (1, 0)
            assert ctx.get(dut.record).as_bits() == record_word(hardware, wanted)

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("memory, programs", [("rom", 2), ("rom", 3), ("ram", 1), ("ram", 3)])
def test_every_cycle(memory, programs):
    """A record is known if it was selected in the cycle before, and none is written now or then."""
    hardware, records = machine(memory, programs)
    dut, rng = Records(hardware, records), random.Random(programs)
    stored = [record_word(hardware, each) for each in records]
    held, before, seen = None, None, set()  # frame's program and record; what was selected

    async def bench(ctx):
        nonlocal held, before
        program, fill = 0, None
        for _ in range(1500):
            if rng.random() < 0.3:
                program = rng.randrange(programs)
            ctx.set(dut.program, program)
            fill = None
            if memory == "ram":
                if rng.random() < 0.2:
                    section = rng.choice([0, 0, 1, 2])
                    # The loader lets nobody write the record of a frame that comes.
                    rows = [row for row in range(programs) if held is None or row != held[0]]
                    if section or rows:
                        fill = section, rng.choice(rows or [0]), random_record(hardware, rng)
                ctx.set(dut.fill.valid, fill is not None)
                if fill:
                    for name, value in zip(("section", "row", "data"), fill, strict=True):
                        ctx.set(dut.fill[name], value)
            writing = fill is not None and fill[0] == 0

            # What it must be, from the cycles before.
            number = program if held is None else held[0]
            known = before == (number, False) and not writing
            word = stored[number] if held is None else held[1]
            accept = held is not None or (known and bool(word & 1))
            taken = accept and rng.random() < 0.3
            free = held is not None and rng.random() < 0.2
            ctx.set(dut.taken, taken)
            ctx.set(dut.free, free)
            came = [ctx.get(each) for each in (dut.accept, dut.unloaded, dut.pending, dut.number)]
            unloaded = held is None and known and not word & 1
            assert came == [accept, unloaded, held is not None or taken, number]
            if accept or unloaded:
                assert ctx.get(dut.record).as_bits() == word
            seen.add((held is None, known, accept, writing))

            before = number, writing
            if taken and held is None:
                held = number, word
            if free:
                held = None
            if writing:
                stored[fill[1]] = fill[2]
            await ctx.tick()

    simulate(dut, bench)
    wanted = {(True, True, True, False), (False, True, True, False)}
    if programs > 1:
        wanted |= {(True, False, False, False)}
    if memory == "ram":
        wanted |= {(True, True, False, False), (True, False, False, True)}
    assert seen >= wanted


def test_a_frame_that_ends_with_its_first_pixel():
    """Dropped at once: nothing is held."""
    hardware, records = machine("rom", 2)
    dut = Records(hardware, records)

    async def bench(ctx):
        await ctx.tick().until(dut.accept)
        ctx.set(dut.taken, 1)
        ctx.set(dut.free, 1)
        assert ctx.get(dut.pending)
        await ctx.tick()
        ctx.set(dut.taken, 0)
        ctx.set(dut.free, 0)
        assert not ctx.get(dut.pending)
        ctx.set(dut.program, 1)
        assert ctx.get(dut.number) == 1

    simulate(dut, bench)


class Loaded(wiring.Component):
    """Records and their loader, which knows the frame that comes as its user."""

    def __init__(self, hardware: Hardware):
        self.hardware = hardware
        self.loader, self.records = Loader(hardware), Records(hardware, [])
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.loader, m.submodules.records = loader, records = self.loader, self.records
        user = loader.users[0]
        m.d.comb += [records.fill.eq(loader.fill), user.valid.eq(records.pending),
                     user.number.eq(records.number), user.record.eq(records.record)]
        return m


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_records_are_rewritten_while_frames_begin(seed):
    """A frame has one record from its first pixel on: all of the one that was there, and valid."""
    hardware, _ = machine("ram", 3)
    dut, rng = Loaded(hardware), random.Random(seed)
    records, first = dut.records, sections(hardware)[0]
    stored, frames, refused, written = [0] * 3, [], [0], []
    pixel, wait = rng.choice([0.05, 0.5, 1]), rng.randint(1, 12)

    def load():
        """Rows one after the other, some parts apart."""
        while True:
            row, text = rng.randrange(3), random_record(hardware, rng) | 1
            text -= rng.random() < 0.4
            written.append((row, text))
            for part, word in enumerate(first.words(text)):
                yield {"address": first.base + row * first.stride + part, "data": word}
                if rng.random() < 0.1:
                    yield from [None] * rng.randint(1, 9)

    async def bench(ctx):
        frame, left, loaded = None, 0, dut.loader.words
        for word in islice(load(), 2000):
            ctx.set(loaded.valid, word is not None)
            if word:
                ctx.set(loaded.payload, word)
            if rng.random() < 0.1:
                ctx.set(records.program, rng.randrange(3))
            accept, number = ctx.get(records.accept), ctx.get(records.number)
            word, fill = ctx.get(records.record).as_bits(), ctx.get(dut.loader.fill)
            filled = fill.valid and fill.section == 0
            if frame is None:
                assert not (accept and filled)
                if accept:
                    assert word & 1 and word == stored[number]
            else:
                assert accept and (number, word) == frame
                assert not (filled and fill.row == number)
            taken = accept and rng.random() < pixel
            ctx.set(records.taken, taken)
            if frame is None and taken:
                frame, left = (number, word), wait
                frames.append(frame)
            free = frame is not None and left == 0
            ctx.set(records.free, free)
            left -= 1
            if free:
                frame = None
            refused[0] += ctx.get(dut.loader.refused)
            if filled:
                stored[fill.row] = fill.data & (1 << first.width) - 1
                assert (fill.row, stored[fill.row]) in written
            await ctx.tick()

    simulate(dut, bench)
    assert len(frames) > 20 and refused[0] > 5
    assert {number for number, _ in frames} == {0, 1, 2}
