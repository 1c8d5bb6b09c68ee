"""Packets on both sides: the host's functions, and the board's blocks in Amaranth's simulator."""

import random
import zlib

import pytest
from amaranth.sim import Simulator

from export.packets import Code, Packet, Parser, Type
from hw.packet import PacketReader, PacketWriter

CAPACITY, TIMEOUT = 40, 32
RNG = random.Random(1)
PAYLOADS = [b"", b"\x7e", b"\x7d", b"\x7d\x5e", bytes(CAPACITY), b"\x7e" * CAPACITY,
            *(RNG.randbytes(RNG.randint(1, CAPACITY)) for _ in range(6))]
PACKETS = [Packet(Type.FRAME, n, payload) for n, payload in enumerate(PAYLOADS)]
PACKETS += [Packet(0x7e, 0x7d, b"abc"), Packet(0x7d, 0x7e)]


# ---- the host's

def test_a_packet_is_what_the_document_says():
    body = b"F\x05" + b"\x01~}"
    crc = zlib.crc32(body).to_bytes(4, "little")
    assert crc == bytes.fromhex("089985b8")
    assert Packet(Type.FRAME, 5, b"\x01~}").to_bytes() == b"~F\x05\x01\x7d\x5e\x7d\x5d" + crc + b"~"


def test_packets_among_noise():
    """Noise without a flag is not seen, wherever the pieces are cut."""
    rng, text = random.Random(2), b""
    for packet in PACKETS:
        text += rng.randbytes(9).replace(b"~", b"") + packet.to_bytes()
        assert packet.to_bytes().count(b"~") == 2
    for size in (1, 7, len(text)):
        parser, found = Parser(), []
        for at in range(0, len(text), size):
            found += parser.feed(text[at:at + size])
        assert found == PACKETS


@pytest.mark.parametrize("packet", PACKETS[:10:3])
def test_no_damage_goes_unseen(packet):
    """One bit of any byte: never another packet, and the next one comes."""
    good = Packet(Type.LOAD, 77, b"next")
    text = packet.to_bytes()
    for bit in range(8 * len(text)):
        damaged = bytearray(text)
        damaged[bit // 8] ^= 1 << bit % 8
        found = Parser().feed(bytes(damaged) + good.to_bytes())
        assert found[-1] == good and not any(found[:-1])


def test_packets_that_end_too_early():
    good = PACKETS[8].to_bytes()
    for cut in range(1, len(good)):
        found = Parser().feed(good[:cut] + good)
        first = [] if cut == 1 else [None] if cut < len(good) - 1 else [PACKETS[8]]
        assert found == [*first, PACKETS[8]]


# ---- the board's

def written(packets: list[Packet], seed: int) -> bytes:
    """What the writer makes of packets, with pauses on both sides."""
    writer, rng, line = PacketWriter(), random.Random(seed), bytearray()

    async def give(ctx):
        for packet in packets:
            body = bytes([packet.type, packet.number]) + packet.payload
            for n, byte in enumerate(body):
                while rng.random() < 0.3:
                    await ctx.tick()
                ctx.set(writer.packet.payload, {"data": byte, "last": n == len(body) - 1})
                ctx.set(writer.packet.valid, 1)
                await ctx.tick().until(writer.packet.ready)
                ctx.set(writer.packet.valid, 0)

    async def take(ctx):
        wanted = sum(len(packet.to_bytes()) for packet in packets)
        while len(line) < wanted:
            ctx.set(writer.bytes.ready, rng.random() < 0.5)
            _, _, valid, ready, byte = await ctx.tick().sample(
                writer.bytes.valid, writer.bytes.ready, writer.bytes.payload)
            if valid and ready:
                line.append(byte)
        ctx.set(writer.bytes.ready, 1)
        assert all(not valid for *_, valid in [await ctx.tick().sample(writer.bytes.valid)
                                               for _ in range(20)])

    simulator = Simulator(writer)
    simulator.add_clock(1e-6)
    simulator.add_testbench(give)
    simulator.add_testbench(take)
    simulator.run()
    return bytes(line)


def test_the_writer():
    assert written(PACKETS, 1) == b"".join(packet.to_bytes() for packet in PACKETS)


def read(content: list, *, every: int = 2, busy: int = 0) -> list:
    """Packets and faults, in order, of bytes; an integer is so many cycles of silence.

    A byte comes every so many cycles, two at least, and -1 is one without stop bit. A packet is
    held for `busy` cycles before its payload is taken.
    """
    reader, found = PacketReader(CAPACITY, TIMEOUT), []

    async def feed(ctx):
        for piece in [*content, 100 + busy]:
            if isinstance(piece, int):
                await ctx.tick().repeat(piece)
                continue
            for byte in piece:
                ctx.set(reader.bytes.payload, {"data": max(byte, 0), "error": byte < 0})
                ctx.set(reader.bytes.valid, 1)
                await ctx.tick()
                ctx.set(reader.bytes.valid, 0)
                await ctx.tick().repeat(every - 1)
        await ctx.tick().repeat(3 * CAPACITY)

    async def take(ctx):
        held, payload = 0, []
        while True:
            _, _, packet, valid, byte = await ctx.tick().sample(
                reader.packet, reader.payload.valid, reader.payload.payload)
            held = held + 1 if packet.valid and not ctx.get(reader.done) else 0
            if valid and ctx.get(reader.payload.ready):
                payload.append(byte.data)
                assert byte.last == (len(payload) == packet.length)
            ctx.set(reader.payload.ready, held > busy)
            ends = held > busy + 4 and len(payload) == packet.length and not ctx.get(reader.done)
            ctx.set(reader.done, ends)
            if ends:
                assert not ctx.get(reader.payload.valid)
                found.append(Packet(packet.type, packet.number, bytes(payload)))
                payload.clear()

    async def watch(ctx):
        async for _, _, fault in ctx.tick().sample(reader.fault):
            if fault.valid:
                found.append((Code(fault.code), fault.number))

    simulator = Simulator(reader)
    simulator.add_clock(1e-6)
    simulator.add_testbench(feed)
    simulator.add_testbench(take, background=True)
    simulator.add_testbench(watch, background=True)
    simulator.run()
    return found


GOOD = Packet(Type.LOAD, 77, b"next~one")


@pytest.mark.parametrize("every", [2, 3])
def test_the_reader(every):
    pieces = [part for packet in PACKETS for part in (packet.to_bytes(), 3 * CAPACITY, b"noise }")]
    assert read(pieces, every=every) == PACKETS


@pytest.mark.slow
def test_the_reader_and_single_flipped_bits():
    """Every bit of a packet, and the good one behind it comes; what is lost is answered."""
    packet = Packet(Type.FRAME, 9, b"\x00~ab\xff")
    text, pieces, wanted = packet.to_bytes(), [], []
    for bit in range(8 * len(text)):
        damaged = bytearray(text)
        damaged[bit // 8] ^= 1 << bit % 8
        pieces += [bytes(damaged), GOOD.to_bytes(), 60]
        came = Parser().feed(bytes(damaged) + GOOD.to_bytes())
        assert came[-1] == GOOD and (bit < 8 or (not any(came[:-1]) and None in came))
        wanted += ["fault" if each is None else each for each in came]
    found = read(pieces)
    assert [each if isinstance(each, Packet) else "fault" for each in found] == wanted
    assert {code for code, _ in (each for each in found if not isinstance(each, Packet))} == {
        Code.DAMAGED}


@pytest.mark.slow
def test_a_stop_bit_that_is_missing():
    text = GOOD.to_bytes()
    for at in range(1, len(text) - 1):
        damaged = [*text[:at], -1, *text[at + 1:]]
        number = 77 if at > 2 else 0 if at == 2 else GOOD.payload[0]
        found = read([damaged, 5, text])
        assert found[1:] == [GOOD] and found[0][0] == Code.DAMAGED, at
        assert found[0][1] == number or at < 3
    assert read([[-1, -1], text]) == [GOOD]  # between packets it is noise


@pytest.mark.slow
def test_half_a_packet():
    """The silence that is too long, to the cycle; what comes after it, up to a flag, is noise."""
    text = GOOD.to_bytes()
    for cut in (2, 3, 5, len(text) - 1):
        number = 77 if cut > 2 else 0
        assert read([text[:cut], TIMEOUT, text[cut:]]) == [(Code.SHORT, number)]
        assert read([text[:cut], TIMEOUT - 1, text[cut:]]) == [GOOD]
        assert read([text[:cut], 100, text]) == [(Code.SHORT, number), GOOD]
        first = (Code.DAMAGED, number) if cut < len(text) - 1 else GOOD
        assert read([text[:cut], text], every=32) == [first, GOOD]  # only its end is missing
    assert read([text[:1], 100, text[1:]]) == [GOOD]  # a flag alone is no packet
    assert read([text[:4] + b"\x7d", 100, text]) == [(Code.SHORT, 77), GOOD]


@pytest.mark.slow
def test_packets_that_are_none():
    for body in (b"x", b"xy", b"\0\0\0\0", b"\x7d", b"F\x01\x7d", b"F\x7d\x7d\x5e1234"):
        found = read([b"~" + body + b"~", 5, GOOD.to_bytes()])
        assert found[0][0] == Code.DAMAGED and found[1:] == [GOOD], body
    escaped = GOOD.to_bytes()[:-1] + b"\x7d~"  # but for the escape it is good
    assert read([escaped, 5, GOOD.to_bytes()]) == [(Code.DAMAGED, 77), GOOD]
    assert Parser().feed(escaped + GOOD.to_bytes()) == [None, GOOD]
    crc = zlib.crc32(b"F").to_bytes(4, "little")  # good, but too short to have a number
    assert read([b"~F" + crc + b"~", GOOD.to_bytes()]) == [(Code.DAMAGED, crc[0]), GOOD]


@pytest.mark.slow
@pytest.mark.parametrize("extra", [1, 2, 3, 4, 5, 30, 1000])
def test_packets_that_are_too_long(extra):
    packet = Packet(Type.FRAME, 3, bytes(CAPACITY + extra))
    damaged = bytearray(packet.to_bytes())
    damaged[5] ^= 1
    assert read([packet.to_bytes(), GOOD.to_bytes(), 70, bytes(damaged), GOOD.to_bytes()]) == [
        (Code.REQUEST, 3), GOOD, (Code.DAMAGED, 3), GOOD]


@pytest.mark.slow
def test_the_packet_before_still_waits():
    """What comes meanwhile, wholly or partly, is refused; what waits is unharmed."""
    first, second = Packet(Type.FRAME, 1, b"first" * 5), Packet(Type.FRAME, 2, b"other" * 5)
    text = second.to_bytes()
    damaged = bytearray(text)
    damaged[9] ^= 4
    assert read([first.to_bytes(), text, bytes(damaged), 200, GOOD.to_bytes()], busy=150) == [
        (Code.BUSY, 2), (Code.DAMAGED, 2), first, GOOD]
    for before in (8, 20):  # the buffer is free before the second one has ended
        found = read([first.to_bytes(), text[:before], 25, text[before:], 200, GOOD.to_bytes()],
                     busy=1, every=4)
        assert found[0] == first and found[1] in (second, (Code.BUSY, 2)) and found[2:] == [GOOD]
    # At the pace of a line, a packet without payload may follow at once.
    assert read([Packet(73, 1).to_bytes(), Packet(73, 2).to_bytes()], every=9) == [
        Packet(73, 1), Packet(73, 2)]
