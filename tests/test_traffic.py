"""The Verilog bench of engines: what it plays, what it writes down, and the faults it finds."""

from types import SimpleNamespace

import numpy as np
import pytest

from export.cost import Cost
from export.hardware import Hardware
from export.program import Program
from sim.runner import missing, run_bench
from sim.traffic import Events, Kind, write_traffic
from sim.verilog import HARNESS, IDLE, Job, patience
from tests.designs import conv, design

# Takes a pixel of 16 bits every other cycle; after four it gives their sum, marked, and after each
# the pixel as codes of operation 1. FAULT names what it does wrong.
ENGINE = """
module engine(input clk, input rst, input pixels__valid, output pixels__ready,
  input [15:0] pixels__payload, output result__valid, input result__ready,
  output [32:0] result__payload, output [13:0] probe, output busy, output layer, input slot,
  input load__valid, output load__ready, input [39:0] load__payload, output load_error,
  output unloaded);
  reg [31:0] sum = 0, since = 0;
  reg [2:0] count = 0;
  reg odd = 0, refused = 0, rests = 0;
  wire take = pixels__valid && pixels__ready;
  assign pixels__ready = odd && count < 4 && !rests;
  assign result__valid = count == 4 && !(FAULT == 1 && since == 3) && FAULT != 4;
  assign result__payload = {1'b1, sum + (FAULT == 2 && since == 3)};
  assign probe = {pixels__payload[11:0], 1'b1, take};
  assign busy = count != 0 || take;
  assign layer = FAULT == 3 && since == 3 ? 1'bx : count > 2;
  assign load__ready = odd, load_error = refused, unloaded = 0;
  always @(posedge clk) if (!rst) begin
    odd <= !odd;
    rests <= result__valid && result__ready;
    refused <= load__valid && load__ready && load__payload[7:0] == 9;
    since <= result__valid ? since + 1 : 0;
    if (take) begin
      sum <= sum + pixels__payload + (slot << 20);
      count <= count + 1;
    end
    if (result__valid && result__ready) begin
      sum <= 0;
      count <= 0;
    end
  end
endmodule
"""


def play(folder, simulator, fault=0, gaps=0, strict=False, jobs=(), loads=()):
    if reason := missing(simulator):
        pytest.skip(reason)
    (folder / "engine.v").write_text(ENGINE.replace("FAULT", str(fault)))
    place = folder / simulator
    place.mkdir(exist_ok=True)
    write_traffic(place, jobs, loads, gaps=gaps, seed=1, address_bits=8)
    run_bench(verilog=folder, top="engine", bench="sim.bench_engine", harness=HARNESS,
              simulator=simulator, build=folder,
              arguments=[f"+frames={len(jobs)}", f"+results={len(jobs)}", *["+strict"] * strict],
              parameters={"PIXELS": 16, "RESULT": 33, "PROBE": 14, "LAYERS": 2, "SLOTS": 2,
                          "LOAD": 40, "WORDS": 1, "PAYLOAD": 64, "LIMIT": 100},
              defines=["RAM", "SEVERAL_SLOTS"])
    return Events(place / "events.bin", 64)


def frames(count):
    rng = np.random.default_rng(1)
    return [SimpleNamespace(image=rng.integers(0, 256, (2, 2, 2), np.uint8), number=n % 2,
                            needs=2 if n else 0, clip=n == 2) for n in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("simulator, gaps", [("verilator", 0), ("icarus", 0), ("icarus", 5)])
def test_what_is_played_and_written_down(tmp_path, simulator, gaps):
    jobs = frames(4)
    loads = [SimpleNamespace(words=[(1, 2**32 - 1), (9, 5)], after=1),
             SimpleNamespace(words=[(9, 0)], after=3)]
    found = play(tmp_path, simulator, gaps=gaps, strict=True, jobs=jobs, loads=loads)
    marks = [line[0] for line in (tmp_path / simulator / "pixels.txt").read_text().splitlines()]
    assert "".join(marks) == "1000" "1000" "2000" "1000"  # of frames, and of a clip
    words = [job.image.reshape(4, 2) @ np.array([1, 256]) for job in jobs]
    results, left = found.results(33, words=True)
    assert results == [[int(each.sum()) + 4 * (n % 2 << 20)] for n, each in enumerate(words)]
    frame, _, codes = found.codes(4)
    assert frame.tolist() == 4 * [0] + 4 * [1] + 4 * [2] + 4 * [3]
    assert (codes @ 8 ** np.arange(4)).tolist() == [int(w) & 0xfff for each in words for w in each]
    assert len(found.cycles(Kind.REFUSED)) == 2
    taken, loaded = found.cycles(Kind.FRAME), found.cycles(Kind.LOADED)
    assert len(taken) == 4 and len(loaded) == 3
    assert taken[0] < loaded[0] < loaded[1] < taken[1] and loaded[2] > left[1]
    cycles = found.frames(2)
    assert cycles.shape == (4, 2) and (cycles > 0).all()
    if not gaps:  # a pixel every other cycle, the sum right behind the fourth
        assert cycles.tolist() == 4 * [[5, 3]] and left[0] - taken[0] == 7


@pytest.mark.slow
@pytest.mark.parametrize("simulator, fault, said", [
    ("icarus", 1, "an offered result vanished in cycle "),
    ("icarus", 2, "an offered result changed in cycle "),
    ("icarus", 3, "an output is unknown in cycle "),  # Verilator has two states
    ("icarus", 4, "the engine hangs in cycle "),
    ("verilator", 2, "an offered result changed in cycle ")])
def test_faults(tmp_path, simulator, fault, said):
    with pytest.raises(RuntimeError, match=f"^{said}"):
        play(tmp_path, simulator, fault, gaps=20, strict=True, jobs=frames(4),
             loads=[SimpleNamespace(words=[(1, 1), (2, 2)], after=0)])


@pytest.mark.parametrize("channels, every, period, gaps", [
    (48, 1, 1, 0), (48, 2, 8, 0), (1, 1, 1, 10_000)])
def test_slow_engines_do_not_hang(channels, every, period, gaps):
    """Time enough for a frame, or for a clip's first result, with pauses between all pixels."""
    config = design([conv(name, channels, 1, 2, every=every) for name in "abc"], (1, 1, 1),
                    height=64, width=64)
    program = Program(config)
    hardware = Hardware.of([program])
    longest = period * (Cost(program, hardware).frame_cycles + gaps * 64 * 64)
    assert longest > IDLE
    assert longest < patience(hardware, [Job(program=program, image=None)], gaps) < 2**31
