"""Pixels to digits: what is written where, neighbours and pads included, and how fast."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from export.sections import record_values, record_word
from export.words import operands, pack_codes
from hw.pixels import PixelInput
from sim.streams import pixel_words
from tests.designs import conv, design, machine
from tests.words import to_memory_order


def machine_of(channels, words, precisions, fold):
    """Positions of so many channels, 3 x 5 of them."""
    bits = min(max(precisions), 2)
    return machine(design([conv("a", 4, bits, 1)], (4, 2, words, precisions), height=3 * fold,
                          width=5 * fold, channels=channels // fold**2, fold=fold, classes=2,
                          pad=201, classifier_bits=bits))


def expected_memory(program, image):
    """{(bank, address): word bits} from the definition, pixel by pixel."""
    first, rows = program.layers[0], program.array.rows
    precision = program.array.digit_bits
    ops = operands(precision, program.array.words)
    taps, (height, width, channels) = first.taps_per_word, image.shape
    centre = 1 if taps == 3 else 0
    wide = np.full((height, width + 4, channels), program.config.network.pad)
    wide[:, 2:-2] = image
    memory = {}
    for n in range(height * width):
        y, x = divmod(n, width)
        values = np.zeros(first.digit_words * ops, np.int64)
        near = wide[y, x + 2 - centre:x + 2 - centre + taps].reshape(-1)
        values[:near.size] = near
        for digit in range(first.digits):
            shown = values >> precision * (first.digits - 1 - digit) & (1 << precision) - 1
            for k in range(first.digit_words):
                bits = pack_codes(shown[k * ops:(k + 1) * ops], precision, program.array.words)
                word = digit * first.digit_words + k
                memory[n % rows, word * first.slots + n // rows] = to_memory_order(
                    bits, precision).tolist()
    return memory


@pytest.mark.parametrize("granted", ["1", "01", "001", "110100111"])
@pytest.mark.parametrize("channels, words, precisions, taps, fold", [
    (3, 4, [1, 2, 3], 2, 1), (1, 2, [1, 2, 3], 3, 1), (3, 1, [3], 1, 1), (9, 2, [1, 2, 3], 1, 1),
    (2, 2, [1, 2], 3, 1), (2, 2, [2], 3, 1), (3, 1, [1], 1, 1), (12, 2, [1, 2, 3], 1, 2),
    (4, 4, [1, 2, 3], 2, 2)])
def test_digits_and_neighbours(channels, words, precisions, taps, fold, granted):
    """Where pixels are folded, the last word is written while the frame is ready already."""
    program, hardware = machine_of(channels, words, precisions, fold)
    assert program.layers[0].taps_per_word == taps
    dut = PixelInput(hardware)
    images = np.random.default_rng(channels).integers(0, 256, (2, 3, 5, channels), np.uint8)
    memory, frames, cycles = {}, [], []
    expected = [expected_memory(program, image) for image in images]

    record = record_word(hardware, record_values(program, hardware))

    async def produce(ctx):
        ctx.set(dut.record.as_value(), record)
        for frame in pixel_words(images):
            for word in frame:
                ctx.set(dut.pixels.payload, word)
                ctx.set(dut.pixels.valid, 1)
                await ctx.tick().until(dut.pixels.ready)
                ctx.set(dut.pixels.valid, 0)

    async def bank(ctx):
        now, moves = 0, 0
        ctx.set(dut.granted, int(granted[0]))
        async for *_, write, grant, ready, taken in ctx.tick().sample(
                dut.write, dut.granted, dut.ready, dut.pixels.ready):
            now += 1
            moves += grant and not ready
            if write.valid and grant:
                bits = [lane >> k & 1 for lane in write.data for k in range(2 * words)]
                memory[write.bank, write.address] = bits
            ctx.set(dut.granted, int(granted[now % len(granted)]))
            if ready and not ctx.get(dut.read):
                assert not taken
                if len(cycles) == len(frames):
                    cycles.append(moves)
                if fold > 1 and len(memory) < len(expected[len(frames)]):
                    assert write.valid
                    continue
                frames.append(dict(memory))
                memory.clear()
                ctx.set(dut.read, 1)
            elif ready:
                ctx.set(dut.read, 0)
                moves = 0
                if len(frames) == len(images):
                    return

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(produce, background=True)
    simulator.add_testbench(bank)
    simulator.run()
    assert frames == expected
    # A pixel takes its words and one more granted cycle; a row with neighbours one pad.
    first = program.layers[0]
    per_row = 5 * (first.digits * first.digit_words + 1) + (taps > 1)
    assert cycles == [3 * per_row] * 2
