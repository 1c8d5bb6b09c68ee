"""Cycles per second of an engine in Verilator, under cocotb and verilated behind a C++ loop.

    python -m tests.verilated_speed CONFIG [FOLDER]

Ten photographs go through a shipped design both ways, with the same `bench.v` and the same options
of Verilator; what leaves the engine must be equal, byte for byte. Prints the row of
docs/performance.md.
"""

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

from export.cost import Cost
from hw.generate import generate
from hw.tools import verilator_environment
from sim.demo import PHOTOS, load_photos
from sim.options import load_design
from sim.runner import VERILATOR_ARGUMENTS, VERILATOR_OPTIONS
from sim.verilog import HARNESS, harness_of, run_frames

MAIN = r"""
#include "Vbench.h"
#include "verilated.h"
#include <cstdio>
int main(int argc, char** argv) {
    VerilatedContext context;
    context.commandArgs(argc, argv);
    Vbench bench{&context};
    long cycles = 0;
    do {
        bench.rst = cycles < 3;
        bench.clk = 0;
        bench.eval();
        bench.clk = 1;
        bench.eval();
        ++cycles;
    } while (!bench.done);
    bench.final();
    std::printf("%ld\n", cycles);
}
"""


def processor_seconds(call) -> tuple[float, object]:
    """What the processes that a call starts take of the processor, and what it returns."""
    before = getrusage(RUSAGE_CHILDREN)
    found = call()
    after = getrusage(RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime), found


def main(path: str, where: str = "build/verilated"):
    """Prints the table."""
    design, network, _ = load_design(Path(path), None, 1)
    folder, cost = Path(where), Cost.of(design)
    generate(design, network, folder)
    _, images = load_photos(PHOTOS, design)

    def cocotb():
        return run_frames(cost.program, cost.hardware, folder, images)

    cocotb()  # builds it
    under_cocotb, frames = processor_seconds(cocotb)
    events = (folder / "sim/verilator/events.bin").read_bytes()

    place = folder / "verilated"
    shutil.copytree(folder / "sim/verilator", place, dirs_exist_ok=True,
                    ignore=lambda _, names: [name for name in names if not name.endswith(
                        (".mem", "pixels.txt", "loads.txt", "waits.txt"))])
    (place / "main.cpp").write_text(MAIN)
    parameters, defines = harness_of(cost.hardware)
    environment = os.environ | verilator_environment(place / "bin")
    run = partial(subprocess.run, cwd=place, check=True, text=True, stdout=subprocess.PIPE,
                  env=environment)
    run(["verilator", "--cc", "--exe", "--build", "--top-module", "bench", "-Mdir", "model",
         "-Wno-lint", "-Wno-style", "-Wno-INITIALDLY", *VERILATOR_OPTIONS,
         *(f"-G{name}={value}" for name, value in parameters.items()),
         *(f"-D{name}" for name in defines),
         "main.cpp", str((folder / "engine.v").resolve()), str(HARNESS.resolve())])
    in_c, said = processor_seconds(lambda: run(
        ["model/Vbench", *VERILATOR_ARGUMENTS, f"+frames={len(images)}",
         f"+results={len(images)}"]))
    if (place / "events.bin").read_bytes() != events:
        raise SystemExit("the two runs differ")

    print(f"| ten photographs, `{design.name}`, {frames.left[-1]:,} cycles | processor seconds | "
          f"cycles in each of them |\n|---|---|---|")
    for name, seconds in (("cocotb", under_cocotb), ("a C++ loop", in_c)):
        print(f"| {name} | {seconds:.1f} | {int(said.stdout) / seconds:,.0f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
