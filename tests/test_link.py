"""The board's side of the protocol, byte by byte, with an engine that a testbench plays."""

import random

import pytest
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.sim import Simulator

from export.checked import ConfigError
from export.hardware import Hardware
from export.machine import describe_machine
from export.packets import Code, Packet, Parser, Type
from export.program import Program
from hw.board_top import BoardTop
from hw.link import Link, capacity
from hw.packet import PacketReader, PacketWriter
from hw.uart import RECEIVED
from tests.designs import conv, design

A = design([conv("a", 4, 2, 2)], (2, 2, 1), height=2, width=3, channels=3)
B = design([], (2, 2, 1), height=2, width=2, channels=2, operations=[conv("a", 4, 2, 2)])
ROM = Hardware.of([Program(A)])
RAM = Hardware.of([Program(A), Program(B)], memory="ram", hold=2, slots=3)
TIMEOUT = 64
ENGINE = "pixels", "frame_error", "result", "slot", "load", "load_error", "unloaded"


class Ends(wiring.Component):
    """A link with what is around it, but for the engine."""

    def __init__(self, hardware: Hardware):
        self.link = Link(hardware)
        self.engine = [name for name in ENGINE if name in self.link.signature.members]
        super().__init__({
            "bytes": In(stream.Signature(RECEIVED, always_ready=True)),
            "answers": Out(stream.Signature(8)),
            **{name: self.link.signature.members[name] for name in self.engine}})

    def elaborate(self, platform):
        m = Module()
        m.submodules.link = link = self.link
        m.submodules.reader = reader = PacketReader(link.capacity, TIMEOUT)
        m.submodules.writer = writer = PacketWriter()
        connect(m, flipped(self.bytes), reader.bytes)
        connect(m, reader.payload, link.payload)
        connect(m, link.answers, writer.packet)
        connect(m, writer.bytes, flipped(self.answers))
        m.d.comb += [link.packet.eq(reader.packet), link.fault.eq(reader.fault),
                     reader.done.eq(link.done)]
        for name in self.engine:
            mine, its, member = (getattr(self, name), getattr(link, name),
                                 link.signature.members[name])
            if member.is_signature:
                connect(m, *((flipped(mine), its) if member.flow == In else (its, flipped(mine))))
            else:
                m.d.comb += its.eq(mine) if member.flow == In else mine.eq(its)
        return m


class Bench:
    """Requests are sent one by one; answers, pixels and words are kept as they come.

    `results` are given as soon as they are there: (class, score), or words.
    """

    def __init__(self, hardware: Hardware, seed: int = 1):
        self.hardware, self.rng = hardware, random.Random(seed)
        self.ends = ends = Ends(hardware)
        self.pixels, self.words, self.answers = [], [], []  # (slot, data, last); (address, word)
        self.results = []
        self.takes, self.slow = True, 0.3  # pixels; how often a ready or a byte is late
        self.wrong, self.refused = 0, set()  # frame_error of the next frame; addresses
        self.simulator = Simulator(ends)
        self.simulator.add_clock(1e-6)
        for bench in (self._take_pixels, self._give_results, self._take_answers, self._load):
            if bench != self._load or hardware.memory == "ram":
                self.simulator.add_testbench(bench, background=True)

    async def _take_pixels(self, ctx):
        pixels, several, begins = self.ends.pixels, self.hardware.programs > 1, True
        while True:
            ready = self.takes and self.rng.random() > self.slow
            ctx.set(pixels.ready, ready)
            # A frame that is too short is so at its last pixel, one that is too long before.
            at = ctx.get(pixels.payload.last) if self.wrong == 1 else begins
            taken = ready and ctx.get(pixels.valid)
            ctx.set(self.ends.frame_error, self.wrong if taken and at else 0)
            _, _, valid, payload, slot = await ctx.tick().sample(
                pixels.valid, pixels.payload, self.ends.slot if several else pixels.valid)
            if valid and ready:
                self.pixels.append((slot if several else 0, payload.data, payload.last))
                begins = payload.last

    async def _give_results(self, ctx):
        result, words = self.ends.result, self.hardware.result_words
        while True:
            while not self.results:
                await ctx.tick()
            given = self.results.pop(0)
            parts = [{"data": word, "last": n == len(given) - 1}
                     for n, word in enumerate(given)] if words else [
                         {"class": given[0], "score": given[1]}]
            for part in parts:
                while self.rng.random() < self.slow:
                    await ctx.tick()
                ctx.set(result.payload, part)
                ctx.set(result.valid, 1)
                ready = False
                while not ready:
                    _, _, ready = await ctx.tick().sample(result.ready)
                ctx.set(result.valid, 0)

    async def _take_answers(self, ctx):
        parser, answers = Parser(), self.ends.answers
        while True:
            ready = self.rng.random() > self.slow
            ctx.set(answers.ready, ready)
            _, _, valid, byte = await ctx.tick().sample(answers.valid, answers.payload)
            if valid and ready:
                self.answers += parser.feed(bytes([byte]))

    async def _load(self, ctx):
        load, late = self.ends.load, [False, False]
        ctx.set(load.ready, 1)
        while True:
            ctx.set(self.ends.load_error, late[0])
            _, _, valid, payload = await ctx.tick().sample(load.valid, load.payload)
            if valid:
                self.words.append((payload.address, payload.data))
            late = [late[1], bool(valid) and payload.address in self.refused]

    async def send(self, ctx, content: bytes):
        for byte in content:
            ctx.set(self.ends.bytes.payload, {"data": byte, "error": 0})
            ctx.set(self.ends.bytes.valid, 1)
            await ctx.tick()
            ctx.set(self.ends.bytes.valid, 0)
            await ctx.tick().repeat(5)

    async def ask(self, ctx, request: Packet, cycles: int = 300) -> list[Packet]:
        """What comes after a request, up to this many cycles behind it."""
        return await self.say(ctx, request.to_bytes(), cycles)

    async def say(self, ctx, content: bytes, cycles: int = 300) -> list[Packet]:
        await self.send(ctx, content)
        await ctx.tick().repeat(cycles)
        found, self.answers[:] = [*self.answers], []
        return found

    def run(self, testbench):
        self.simulator.add_testbench(testbench)
        self.simulator.run()


def frame(number: int, pixels: int, slot: int = 0, channels: int = 3) -> Packet:
    content = random.Random(number).randbytes(pixels * channels)
    return Packet(Type.FRAME, number, bytes([slot]) + content)


def taken(packet: Packet, channels: int = 3) -> list[tuple[int, int, int]]:
    """A frame's pixels as the engine should get them."""
    data = packet.payload[1:]
    pixels = [int.from_bytes(data[k:k + channels], "little")
              for k in range(0, len(data), channels)]
    return [(packet.payload[0], pixel, n == len(pixels) - 1) for n, pixel in enumerate(pixels)]


def done(number: int) -> list[Packet]:
    return [Packet(Type.DONE, number)]


def error(code: Code, number: int) -> list[Packet]:
    return [Packet(Type.ERROR, number, bytes([code]))]


def result(number: int, *words: int) -> list[Packet]:
    return [Packet(Type.RESULT, number, b"".join(
        (word & 0xffffffff).to_bytes(4, "little") for word in words))]


@pytest.mark.parametrize("hardware", [ROM, RAM])
def test_identity(hardware):
    bench = Bench(hardware)

    async def session(ctx):
        digest = bytes.fromhex(describe_machine(hardware)["hash"])
        for waiting in range(3):
            number = 126 - waiting
            size = capacity(hardware).to_bytes(2, "little")
            assert await bench.ask(ctx, Packet(Type.IDENTIFY, number)) == [
                Packet(Type.IDENTITY, number, bytes([1, waiting]) + size + digest)]
            assert await bench.ask(ctx, frame(number, 6)) == done(number)
        assert await bench.ask(ctx, Packet(Type.IDENTIFY, 9, b"x")) == error(Code.REQUEST, 9)

    bench.run(session)


def test_frames_and_results():
    """Results come when they are there, each with its frame's number, scores with their sign."""
    bench = Bench(ROM)

    async def session(ctx):
        sent, half = [], 1 << ROM.score_bits - 1
        for number, given in ((255, (2, -1)), (0, (0, half - 1)), (1, (1, -half))):
            sent.append(frame(number, 6))
            assert await bench.ask(ctx, sent[-1]) == done(number)
            bench.results.append(given)
            assert await bench.say(ctx, b"") == result(number, *given)
        for number in (5, 4, 125):  # on their way, in work, waiting
            sent.append(frame(number, 6))
            assert await bench.ask(ctx, sent[-1]) == done(number)
        bench.results += [(k, 0x7e) for k in range(3)]
        assert await bench.say(ctx, b"") == [
            *result(5, 0, 0x7e), *result(4, 1, 0x7e), *result(125, 2, 0x7e)]
        assert bench.pixels == [pixel for packet in sent for pixel in taken(packet)]

    bench.run(session)


def test_a_frame_is_given_whole_or_not_at_all():
    bench = Bench(ROM)

    async def session(ctx):
        good, text = frame(3, 6), frame(3, 6).to_bytes()
        for bit in range(8, 8 * len(text) - 8, 29):
            damaged = bytearray(text)
            damaged[bit // 8] ^= 1 << bit % 8
            for answer in await bench.say(ctx, bytes(damaged)):
                assert (answer.type, answer.payload) == (Type.ERROR, bytes([Code.DAMAGED])), bit
            assert not bench.pixels
        assert await bench.say(ctx, text[:-4], TIMEOUT + 100) == error(Code.SHORT, 3)
        assert not bench.pixels
        assert await bench.ask(ctx, good) == done(3) and bench.pixels == taken(good)

    bench.run(session)


@pytest.mark.slow
def test_the_same_number_again():
    """Nothing is done twice, as long as nothing else was done; a new session forgets."""
    bench = Bench(ROM)

    async def session(ctx):
        for packet in (frame(0, 6), frame(7, 6)):
            for _ in range(3):
                assert await bench.ask(ctx, packet) == done(packet.number)
            assert bench.pixels == taken(packet)
            bench.pixels.clear()
        assert await bench.ask(ctx, Packet(ord("x"), 8)) == error(Code.REQUEST, 8)
        assert await bench.ask(ctx, frame(7, 6)) == done(7) and not bench.pixels
        await bench.ask(ctx, Packet(Type.IDENTIFY, 9))
        assert await bench.ask(ctx, frame(7, 6)) == done(7) and bench.pixels == taken(frame(7, 6))
        bench.pixels.clear()
        bench.wrong = 1  # what was not done is tried again
        assert await bench.ask(ctx, frame(8, 6)) == error(Code.FRAME, 8)
        bench.wrong = 0
        bench.pixels.clear()
        assert await bench.ask(ctx, frame(8, 6)) == done(8) and bench.pixels == taken(frame(8, 6))

    bench.run(session)


def test_a_frame_that_the_engine_drops():
    """Frames of other lengths reach the engine, which says so; no result is waited for."""
    bench = Bench(ROM)

    async def session(ctx):
        for number, (wrong, pixels) in enumerate([(1, 1), (2, 6), (1, 5)]):
            bench.wrong = wrong
            assert await bench.ask(ctx, frame(number, pixels)) == error(Code.FRAME, number)
            assert bench.pixels == taken(frame(number, pixels))
            bench.pixels.clear()
        bench.wrong = 0
        assert await bench.ask(ctx, frame(9, 6)) == done(9)
        bench.results.append((1, 5))
        assert await bench.say(ctx, b"") == result(9, 1, 5)

    bench.run(session)


@pytest.mark.slow
@pytest.mark.parametrize("hardware", [ROM, RAM])
def test_requests_that_are_none(hardware):
    bench, ram = Bench(hardware), hardware.memory == "ram"

    async def session(ctx):
        wrong = [Packet(0, 1), Packet(Type.DONE, 1), Packet(ord("f"), 1), Packet(Type.FRAME, 2),
                 *(Packet(Type.FRAME, 3, bytes(k)) for k in (1, 2, 3, 5, 6, 9, 18)),
                 *(Packet(Type.FRAME, 4, bytes([slot, *range(18)]))
                   for slot in (hardware.programs, 128, 255)),
                 Packet(Type.FRAME, 5, bytes(capacity(hardware) + 1)),
                 *(Packet(Type.LOAD, 6, bytes(k)) for k in (0, 1, 7, 9, 12))]
        wrong += [] if ram else [Packet(Type.LOAD, 7, bytes(8))]
        for packet in wrong:
            assert await bench.ask(ctx, packet) == error(Code.REQUEST, packet.number), packet
            assert not bench.pixels and not bench.words
        slots = range(hardware.programs)
        for slot in slots:
            packet = frame(10 + slot, 6, slot)
            assert await bench.ask(ctx, packet) == done(10 + slot)
            assert bench.pixels == taken(packet)
            bench.pixels.clear()

    bench.run(session)


def test_busy():
    """While the engine takes no pixels, the next packet is refused, and the frame is unharmed."""
    bench = Bench(ROM)

    async def session(ctx):
        bench.takes = False
        assert await bench.ask(ctx, frame(1, 6)) == []
        assert await bench.ask(ctx, frame(2, 6)) == error(Code.BUSY, 2)
        assert await bench.ask(ctx, frame(1, 6)) == error(Code.BUSY, 1)
        assert await bench.say(ctx, frame(2, 6).to_bytes()[:-1], 100) == error(Code.SHORT, 2)
        bench.takes = True
        assert await bench.say(ctx, b"") == done(1)
        assert bench.pixels == taken(frame(1, 6))
        assert await bench.ask(ctx, frame(2, 6)) == done(2)
        assert bench.pixels == taken(frame(1, 6)) + taken(frame(2, 6))

    bench.run(session)


def test_numbers_of_no_more_frames_than_there_is_room_for():
    """A fifth frame waits, since the number of its result would be lost."""
    bench = Bench(ROM)

    async def session(ctx):
        for number in range(4):
            assert await bench.ask(ctx, frame(number, 6)) == done(number)
        assert await bench.ask(ctx, frame(4, 6)) == [] and len(bench.pixels) == 24
        bench.results += [(0, k) for k in range(5)]
        came = await bench.say(ctx, b"", 600)
        assert came[0] == result(0, 0, 0)[0] and came.index(done(4)[0]) < 5
        assert [each for each in came if each.type == Type.RESULT] == [
            each for k in range(5) for each in result(k, 0, k)]

    bench.run(session)


@pytest.mark.slow
def test_loads():
    bench = Bench(RAM)
    rng = random.Random(3)
    outside = 1 << len(bench.ends.load.payload.address)

    def load(number: int, writes: list[tuple[int, int]]) -> Packet:
        return Packet(Type.LOAD, number, b"".join(
            address.to_bytes(4, "little") + word.to_bytes(4, "little")
            for address, word in writes))

    async def session(ctx):
        most = capacity(RAM) // 8
        for number, count in enumerate((1, 2, most)):
            writes = [(rng.randrange(outside), rng.getrandbits(32)) for _ in range(count)]
            for _ in range(2):
                assert await bench.ask(ctx, load(number, writes), 50 * count + 300) == done(number)
            assert bench.words == writes
            bench.words.clear()
        bench.refused = {5}
        for place in range(3):  # also the last word's refusal is not missed
            writes = [(5 if place == k else 8 + k, k) for k in range(3)]
            assert await bench.ask(ctx, load(10 + place, writes)) == error(Code.LOAD, 10 + place)
        bench.words.clear()
        for address in (outside, outside << 3 | 1, 0xffffffff):
            assert await bench.ask(ctx, load(20, [(address, 1)])) == error(Code.LOAD, 20)
        assert not bench.words
        assert await bench.ask(ctx, load(20, [(1, 1)])) == done(20)

    bench.run(session)


def test_an_empty_slot():
    """It is known before any pixel is taken, or as soon as the frame before is out of the way."""
    bench = Bench(RAM)

    async def session(ctx):
        ctx.set(bench.ends.unloaded, 1)
        bench.takes = False
        assert await bench.ask(ctx, frame(1, 6, 2)) == error(Code.UNLOADED, 1)
        ctx.set(bench.ends.unloaded, 0)
        assert await bench.ask(ctx, frame(1, 6, 1)) == []
        ctx.set(bench.ends.unloaded, 1)
        assert await bench.say(ctx, b"") == error(Code.UNLOADED, 1)
        ctx.set(bench.ends.unloaded, 0)
        bench.takes = True
        assert not bench.pixels
        assert await bench.ask(ctx, frame(1, 6, 1)) == done(1)
        assert bench.pixels == taken(frame(1, 6, 1))

    bench.run(session)


@pytest.mark.slow
def test_results_in_words():
    bench = Bench(RAM)

    async def session(ctx):
        bench.slow = 0.7
        for number, words in enumerate([[0x7e7d7e7d], [1, 0xffffffff], [*range(50)]]):
            assert await bench.ask(ctx, frame(number, 6), 600) == done(number)
            bench.results.append(words)
            assert await bench.say(ctx, b"", 150 + 40 * len(words)) == result(number, *words)

    bench.run(session)


def test_all_at_once():
    """An error, an answer and a result at the same time: all are said, none is mixed up."""
    bench = Bench(ROM)

    async def session(ctx):
        assert await bench.ask(ctx, frame(1, 6)) == done(1)
        bench.results.append((2, 3))
        await bench.send(ctx, frame(2, 6).to_bytes() + b"~bad~")
        came = await bench.say(ctx, b"", 500)
        assert sorted(came, key=lambda each: each.type) == [
            *done(2), *error(Code.DAMAGED, ord("a")), *result(1, 2, 3)]

    bench.run(session)


@pytest.mark.parametrize("wrong, match", [
    ({"divider": 3}, "^a bit must take 4 ... 16777215 cycles, not 3$"),
    ({"divider": 2**24}, "not 16777216$"),
    ({"timeout": 3000}, "^timeout must be a power of two, not 3000$"),
    ({"hardware": Hardware.of([Program(design([conv("a", 4, 2, 2)], (2, 2, 1), height=128,
                                              width=171, channels=3))])},
     "^a frame on a serial line must have at most 65534 bytes, not 65664$")])
def test_boards_that_cannot_be(wrong, match):
    with pytest.raises(ConfigError, match=match):
        BoardTop(**({"hardware": ROM, "images": None, "divider": 4, "timeout": 16} | wrong))
