"""The serial line, bit by bit, in Amaranth's simulator."""

import random

import pytest
from amaranth.sim import Simulator

from export.checked import ConfigError
from hw.uart import Receiver, Transmitter


def received(divider: int, levels: list[tuple[int, float]]) -> list[tuple[int, int]]:
    """Bytes and errors of a line with these levels, each for so many cycles."""
    receiver, found = Receiver(divider), []

    async def drive(ctx):
        end, now = 0.0, 0
        for level, cycles in [(1, 3), *levels, (1, 12 * divider)]:
            ctx.set(receiver.rx, level)
            end += cycles
            while now < round(end):
                _, _, valid, byte = await ctx.tick().sample(
                    receiver.bytes.valid, receiver.bytes.payload)
                now += 1
                if valid:
                    found.append((byte.data, byte.error))

    simulator = Simulator(receiver)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    return found


def levels(content: list[int], bit: float) -> list[tuple[int, float]]:
    return [((byte << 1 | 0x200) >> k & 1, bit) for byte in content for k in range(10)]


BYTES = [0, 255, 0x55, 0xaa, 0x7e, 1, 128, *random.Random(1).randbytes(20)]


@pytest.mark.parametrize("divider, rate", [
    (4, 1), (5, 1), (7, 1), (16, 1), (16, 0.97), (16, 1.03), (100, 0.96), (100, 1.04)])
def test_bytes_at_a_rate_that_is_about_right(divider, rate):
    content = BYTES if divider < 100 else BYTES[:4]
    assert received(divider, levels(content, rate * divider)) == [(byte, 0) for byte in content]


@pytest.mark.slow
@pytest.mark.parametrize("divider", [4, 16])
def test_a_start_bit_is_looked_at_in_its_middle(divider):
    for cycles in range(1, divider + 1):
        found = received(divider, [(0, cycles), (1, 12 * divider), *levels([7], divider)])
        # A start bit that is low in its middle is one, of a byte of ones.
        assert found == [(255, 0)] * (cycles > divider // 2) + [(7, 0)], cycles


def test_a_byte_without_stop_bit():
    """It has an error; a line that stays low gives one error, however long."""
    for bits in (10, 11, 57):
        found = received(8, [*levels([3], 8), (0, 8 * bits), (1, 8), *levels([5, 6], 8)])
        assert found == [(3, 0), (0, 1), (5, 0), (6, 0)]
    assert received(8, [*levels([0xff], 8)[:-1], (0, 8), (1, 16)]) == [(0xff, 1)]


def test_bits_are_sampled_in_their_middle():
    """A bit may change a third of a bit early or late."""
    for early in (-5, 5):
        line = levels([0x55], 16)
        line[0] = 0, 16 + early
        line[8] = line[8][0], 16 - early
        assert received(16, line) == [(0x55, 0)]


@pytest.mark.parametrize("divider", [4, 5, 16])
def test_bytes_are_sent_without_pause(divider):
    transmitter, rng, line, content = Transmitter(divider), random.Random(2), [], BYTES[:12]
    pauses = [0] * 6 + [rng.randrange(1, 3 * divider) for _ in range(6)]

    async def send(ctx):
        for byte, pause in zip(content, pauses, strict=True):
            ctx.set(transmitter.bytes.payload, byte)
            ctx.set(transmitter.bytes.valid, 1)
            await ctx.tick().until(transmitter.bytes.ready)
            ctx.set(transmitter.bytes.valid, 0)
            if pause:
                await ctx.tick().until(transmitter.bytes.ready)
                await ctx.tick().repeat(pause)

    async def watch(ctx):
        async for _, _, tx in ctx.tick().sample(transmitter.tx):
            line.append(tx)

    simulator = Simulator(transmitter)
    simulator.add_clock(1e-6)
    simulator.add_testbench(send)
    simulator.add_testbench(watch, background=True)
    simulator.run()
    at, gaps = 0, []
    for byte in content:
        start = line.index(0, at)
        gaps.append(start - at)
        frame = [(byte << 1 | 0x200) >> k & 1 for k in range(10) for _ in range(divider)]
        assert line[start:start + 10 * divider] == frame
        at = start + 10 * divider
    assert gaps[1:7] == [0] * 6 and all(gaps[7:])


@pytest.mark.parametrize("kind", [Receiver, Transmitter])
def test_bits_that_are_too_short(kind):
    with pytest.raises(ConfigError, match=r"a bit must take 4 \.\.\. 16777215 cycles, not 3"):
        kind(3)
