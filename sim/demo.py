"""Photographs through the Verilog that was just generated, held to the golden model.

Builds the design in Verilator and runs images; meanwhile Yosys maps it to the configured FPGA.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from export.artifact import Network
from export.checked import ConfigError
from export.config import Config
from export.cost import Cost
from hw import synth
from hw.generate import generate
from model.data import class_names, read_image
from sim import golden
from sim.verilog import Frames, run_frames

PHOTOS = Path(__file__).with_name("photos")  # ten CIFAR-10 test images, one per class


def load_photos(folder: Path, config: Config) -> tuple[list[Path], np.ndarray]:
    """PNG files and their pixels, uint8 [N, H, W, C]; ConfigError if one is not of that size."""
    network, files = config.network, sorted(folder.glob("*.png"))
    if not files:
        raise ConfigError(f"{folder}: wanted PNG images, found none")
    size = network.height, network.width, network.channels
    return files, np.stack([read_image(file, size) for file in files])


def demo(design: Config, network: Network, photos: Path, folder: Path, console: Console) -> bool:
    """Runs and reports; whether everything is equal and takes the cycles that were computed."""
    if design.network.output != "class":
        raise ConfigError(f"{design.name}: demo wants a network that classifies, got one whose "
                          f"output is {design.network.output}")
    design = design.alone
    files, images = load_photos(photos, design)
    with console.status(escape(f"generate {folder}/engine.v")):
        facts = generate(design, network, folder)
    console.print(escape(f"{folder}/engine.v: {facts['total_bits']:,} bits of ROM; Verilator "
                         f"builds it first, Yosys maps it meanwhile, a few minutes in all"))
    with ThreadPoolExecutor() as pool:
        mapped = pool.submit(synth.report, design, folder)
        cost = Cost.of(design)
        frames = run_frames(cost.program, cost.hardware, folder, images, progress=True)
        with console.status("Yosys maps the engine"):
            area = mapped.result()
    trace = golden.run(network, images)
    equal = frames.equal(trace)

    names = class_names(design.network)
    table = Table("image", "true class", "Verilog", "golden", "equal at every layer", "cycles")
    for column in table.columns[:4]:
        column.no_wrap = True
    for n, file in enumerate(files):
        shown = file.name, file.stem, names[frames.classes[n]], names[trace.classes[n]]
        table.add_row(*map(escape, shown), "yes" if equal[n] else "NO",
                      f"{sum(frames.cycles[n]):,}")
    console.print(table)
    right = sum(names[c] == file.stem for c, file in zip(frames.classes, files, strict=True))
    console.print(
        f"{right} of {len(files)} classes right; {sum(equal)} of {len(files)} frames equal to the "
        f"golden model in every layer, class and score\n"
        f"{frames.left[-1]:,} cycles simulated in {frames.seconds:.1f} s\n"
        f"{facts['cycles_per_frame']:,} cycles per frame (computed), array use "
        f"{facts['array_use']:.1%} of cycles behind the first layer\n{area['clock_note']}")
    console.print(f"{area['device']}: {area['lut4']:,} LUT4, {area['carry']:,} carry cells, "
                  f"{area['ff']:,} registers, {area['block_ram']} block RAMs, {area['dsp']} DSPs")
    return faithful(frames, trace, facts["cycles_per_frame"], console)


def faithful(frames: Frames, trace: golden.Trace, cycles: int, console: Console) -> bool:
    """Whether all frames are equal and take so many cycles; says so if not."""
    said = frames.first_difference(trace)
    same = said is None and {sum(each) for each in frames.cycles} == {cycles}
    if not same:
        console.print(f"[red]the Verilog differs from the golden model or the cycle model: "
                      f"{said}[/red]")
    return same
