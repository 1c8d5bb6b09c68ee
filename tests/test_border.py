"""Border flags of a tile's taps, for images of any size and tiles of any number of rows."""

import pytest
from amaranth.sim import Simulator

from hw.sequencer import Border
from tests.designs import conv, design, machine


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("height, width", [(1, 1), (1, 5), (5, 1), (3, 4), (4, 3)])
def test_taps_inside_the_image(rows, height, width):
    program, hardware = machine(design([conv("a", 1, 3, 3)], (rows, 1, 1), height=height,
                                       width=width, channels=1, classes=2))
    dut = Border(hardware)
    tiles = program.layers[0].pixel_tiles

    async def bench(ctx):
        ctx.set(dut.layer.last_x, width - 1)
        ctx.set(dut.layer.last_y, height - 1)
        ctx.set(dut.layer.last_pixel_tile, tiles - 1)
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        await ctx.tick().repeat(rows)
        for tile in [*range(tiles), *range(tiles)]:  # two channel tiles
            ctx.set(dut.advance, 1)
            await ctx.tick()
            ctx.set(dut.advance, 0)
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    ctx.set(dut.dy, dy)
                    ctx.set(dut.dx, dx)
                    inside = ctx.get(dut.inside)
                    for r in range(rows):
                        y, x = divmod(tile * rows + r, width)
                        if y < height:  # else the pixel is dropped
                            wanted = 0 <= y + dy < height and 0 <= x + dx < width
                            assert inside >> rows - 1 - r & 1 == wanted, (tile, r, dy, dx)
            if rows > 1:
                await ctx.tick().repeat(rows - 1)  # the shortest tile

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
