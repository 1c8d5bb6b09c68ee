"""Simulates the peers' circuits, as Yosys reads them, and holds their sums to numpy's.

    python -m tests.peers_right FINN [FOLDER]

`FINN` is a checkout of FINN_MatrixVector_RTL; alkaid must be installed, and Icarus Verilog. Prints
a line per circuit: pixels, sums that differ, cycles for a pixel.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

from hw.peers import FOLDED, INPUTS, OUTPUTS, SUM_BITS, Unit, alkaid, finn, weights
from hw.yosys import run_yosys

PIXELS = 50
# Words go in as they are taken; all that comes out is written down, with its cycle.
BENCH = """
module bench;
  reg clk = 0, rst = 1;
  reg [{ins}-1:0] words [0:{count}-1];
  integer at = 0, cycle = 0, file;
  wire [{outs}-1:0] out;
  wire taken, valid;
  wire [{ins}-1:0] word = words[at < {count} ? at : {count} - 1];
  wire there = !rst && at < {count};
  {instance}
  always #1 clk = !clk;
  initial begin
    $readmemh("words.txt", words);
    file = $fopen("sums.txt", "w");
    repeat (4) @(posedge clk);
    #0.5 rst = 0;
  end
  always @(posedge clk) if (!rst) begin
    if (valid) $fdisplay(file, "%0d %h", cycle, out);
    cycle <= cycle + 1;
    if (there && taken) at <= at + 1;
    if (cycle == 2 * {count} + 100) $finish;
  end
endmodule
"""
FINN = ("mvau dut(.aclk(clk), .aresetn(!rst), .rready(1'b1), .wready(taken), .in(word), "
        ".in_v(there), .out_v(valid), .out(out));")
ALKAID = ("vmodel dut(.clk(clk), .model_inp(word), .model_out(out)); "
          "assign taken = 1, valid = 1;")


def simulate(unit: Unit, instance: str, words: list[int], ins: int, outs: int) -> np.ndarray:
    """What comes out: rows of a cycle and the word's bits, lowest first."""
    folder = unit.folder
    (folder / "words.txt").write_text("".join(f"{word:x}\n" for word in words))
    (folder / "bench.v").write_text(BENCH.format(ins=ins, outs=outs, count=len(words),
                                                 instance=instance))
    run_yosys(f"read_rtlil {unit.sources[0]}\nproc\nflatten\nopt_clean\n"
              f"write_verilog -noattr flat.v", folder)
    subprocess.run(["iverilog", "-g2012", "-o", "bench.vvp", "-s", "bench", "bench.v", "flat.v"],
                   cwd=folder, check=True)
    subprocess.run(["vvp", "-n", "bench.vvp"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    rows = [line.split() for line in (folder / "sums.txt").read_text().splitlines()]
    return np.array([[int(cycle), *(int(word, 16) >> n & 1 for n in range(outs))]
                     for cycle, word in rows if "x" not in word])


def packed(values: np.ndarray, bits: int) -> int:
    """Unsigned values in one word, the first one lowest."""
    return sum(int(value) << bits * n for n, value in enumerate(values))


def numbers(bits: np.ndarray, widths: list[int], signed: list[bool]) -> np.ndarray:
    """Fields of words, bits [N, B]: their values, int [N, fields]."""
    found, at = [], 0
    for width, sign in zip(widths, signed, strict=True):
        places = 1 << np.arange(width)
        if sign:
            places[-1] *= -1
        found.append(bits[:, at:at + width] @ places)
        at += width
    return np.stack(found, 1)


def check_finn(checkout: Path, folder: Path, bits: int):
    unit = finn(checkout, folder, bits)
    pixels = np.random.default_rng(2).integers(0, 2**bits, (PIXELS, INPUTS))
    words = [packed(part[::-1], bits) for pixel in pixels
             for part in pixel.reshape(-1, FOLDED)]  # a word's first operand is highest
    found = simulate(unit, FINN, words, FOLDED * bits, OUTPUTS * SUM_BITS[bits])
    sums = numbers(found[:, 1:], [SUM_BITS[bits]] * OUTPUTS, [bits > 1] * OUTPUTS)
    if bits == 1:  # equal bits are counted: both operands are -1 and 1
        pixels, sums = 2 * pixels - 1, 2 * sums - INPUTS
    tell(unit, pixels @ weights(bits), sums, np.diff(found[:, 0]))


def check_alkaid(folder: Path, bits: int):
    from alkaid.trace import FVArrayInput
    from alkaid.trace.ops import quantize
    unit = alkaid(folder, bits)
    signs, whole, _ = (quantize(FVArrayInput((INPUTS,)), 0, bits, 0)
                       @ weights(bits).astype(float)).kif
    widths = [int(each) for each in signs + whole]
    pixels = np.random.default_rng(2).integers(0, 2**bits, (PIXELS, INPUTS))
    found = simulate(unit, ALKAID, [packed(pixel, bits) for pixel in pixels], INPUTS * bits,
                     sum(widths))
    sums = numbers(found[:, 1:], widths, [bool(each) for each in signs])
    wanted = pixels @ weights(bits)
    # The first pixel is there from the start, so its sums come out several times.
    begin = max((n for n in range(20) if (sums[n] == wanted[0]).all()), default=0)
    tell(unit, wanted, sums[begin:begin + PIXELS], np.ones(1, int))


def tell(unit: Unit, wanted: np.ndarray, came: np.ndarray, gaps: np.ndarray):
    if came.shape != wanted.shape:
        raise SystemExit(f"{unit.name}, {unit.bits} bit: {len(came)} pixels for {len(wanted)}")
    print(f"{unit.name}, {unit.bits} bit: {len(wanted)} pixels, {(came != wanted).sum()} of "
          f"{wanted.size} sums differ, {np.median(gaps):.0f} cycles for a pixel")
    if (came != wanted).any():
        raise SystemExit(1)


def main(checkout: str, folder: str = "build/peers_right"):
    for bits in (1, 2, 3):
        check_finn(Path(checkout), Path(folder) / f"finn{bits}b", bits)
        check_alkaid(Path(folder) / f"alkaid{bits}b", bits)


if __name__ == "__main__":
    main(*sys.argv[1:])
