"""Runs frames through exported Verilog and holds them to the golden model, layer by layer."""

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from export.hardware import Hardware
from export.program import Program
from sim import golden
from sim.runner import run_bench
from sim.streams import TraceCollector


@dataclass(frozen=True, kw_only=True)
class Frames:
    """What left the Verilog: per frame the class, its score, codes per layer, cycles per layer."""

    classes: list[int]
    scores: list[int]
    codes: list[dict[str, np.ndarray]]  # [frame][name] uint8 [channels, height, width]
    cycles: np.ndarray  # int64 [frames, layers]

    def equal(self, trace: golden.Trace) -> list[bool]:
        """Per frame: are all codes, the class and its score the golden model's?"""
        return [self._difference(trace, n) is None for n in range(len(self.classes))]

    def first_difference(self, trace: golden.Trace) -> str | None:
        """Where the Verilog first departs from the golden model, in the order of the operations."""
        return next(filter(None, (self._difference(trace, n) for n in range(len(self.classes)))),
                    None)

    def _difference(self, trace: golden.Trace, n: int) -> str | None:
        for name, wanted in trace.codes.items():
            came = self.codes[n][name]
            if (places := np.argwhere(came != wanted[n])).size:
                channel, y, x = places[0].tolist()
                return (f"frame {n}, {name}, channel {channel}, y {y}, x {x}: golden "
                        f"{wanted[n, channel, y, x]}, Verilog {came[channel, y, x]} "
                        f"({len(places)} of {came.size} codes differ)")
        wanted = int(trace.classes[n]), int(trace.scores[n].max())
        if (self.classes[n], self.scores[n]) != wanted:
            return (f"frame {n}, {list(trace.sums)[-1]}: golden class {wanted[0]}, score "
                    f"{wanted[1]}, Verilog class {self.classes[n]}, score {self.scores[n]}")
        return None


def run_frames(program: Program, hardware: Hardware, folder: Path, images: np.ndarray, *,
               simulator: str = "verilator", gaps: int = 0, seed: int = 1, strict: bool = False,
               build: Path | None = None, progress: bool = False, waves: bool = False) -> Frames:
    """Runs images uint8 [N, H, W, C] through `folder/engine.v`, a `hardware` with `program`.

    `gaps` is the longest random pause between two pixels and before a result is taken; with
    `strict` every output must be known in every cycle after reset, which only a four-state
    simulator (icarus) can show. With `waves`, waveforms stay in `build` (:mod:`sim.waves`). Raises
    RuntimeError if simulator or bench fail.
    """
    build = (build or folder / "sim").resolve()
    build.mkdir(parents=True, exist_ok=True)
    job, results, dots = (build / name for name in ("job.npz", "results.npz", "progress"))
    results.unlink(missing_ok=True)
    dots.write_bytes(b"")
    np.savez(job, images=images, gaps=gaps, seed=seed, strict=strict,
             layers=hardware.operations, unit=program.array.unit)
    done = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(dots, len(images) * len(program.layers), done, not progress))
    watcher.start()
    try:
        run_bench(verilog=folder, top="engine", bench="sim.bench_engine", simulator=simulator,
                  build=build, waves=waves, environment={
                      "HEXLANE_JOB": str(job), "HEXLANE_RESULTS": str(results),
                      "HEXLANE_PROGRESS": str(dots)})
    finally:
        done.set()
        watcher.join()
    with np.load(results, allow_pickle=False) as values:
        words, trace, cycles = values["results"], values["trace"], values["cycles"]
    collector = TraceCollector(program)
    for _ in images[1:]:
        collector.new_frame()
    for frame, layer, *codes in trace.tolist():
        collector.units[frame][layer].append(codes)
    class_bits, score_bits = (hardware.classes - 1).bit_length(), hardware.score_bits
    classes = words & (1 << class_bits) - 1
    scores = words >> class_bits
    scores = np.where(scores >> score_bits - 1, scores - (1 << score_bits), scores)
    return Frames(
        classes=classes.tolist(), scores=scores.tolist(),
        cycles=cycles[:, :len(program.layers)],
        codes=[collector.codes(n) for n in range(len(images))])


def _watch(dots: Path, total: int, done: threading.Event, quiet: bool):
    """A progress bar of simulated layers, fed by the bench through a file."""
    with tqdm(total=total, desc="simulate", unit="layer", disable=quiet) as bar:
        over = False
        while not over:
            over = done.wait(0.5)
            if grown := min(total, dots.stat().st_size) - bar.n:
                bar.update(grown)
