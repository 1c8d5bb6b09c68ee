"""Runs frames through exported Verilog and holds them to the golden model, layer by layer."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from amaranth import Shape
from tqdm import tqdm

from export.cost import Cost
from export.hardware import Hardware
from export.program import Program
from export.sections import load_address_bits
from hw.epilogue import probe_layout
from hw.frame import pixel_shape
from hw.loader import word_layout
from hw.output import result_layout
from sim import golden
from sim.results import difference, unpack
from sim.runner import run_bench, seconds_of
from sim.streams import TraceCollector
from sim.traffic import Events, Kind, write_traffic

HARNESS = Path(__file__).with_name("bench.v")
IDLE = 2_000_000  # cycles beside those of frames: words are loaded, slots waited for


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A frame to run: an image uint8 [H, W, C], its program, and the program's number there.

    Its pixels are not sent before `needs` words are loaded in all. With `clip` it begins a clip; a
    frame without `result` gives none.
    """

    program: Program
    image: np.ndarray
    number: int = 0
    needs: int = 0
    clip: bool = False
    result: bool = True


@dataclass(frozen=True, kw_only=True)
class Load:
    """Words (address, word) of the load window, written once `after` frames have been sent."""

    words: list[tuple[int, int]]
    after: int = 0


@dataclass(frozen=True, kw_only=True)
class Frames:
    """What left the Verilog: per frame its program, result, codes, and cycles per operation.

    `refused` counts the words that the machine did not load, `loaded` are first and last cycle of
    each load, `taken` and `left` those of each frame's first pixel and last transfer. `seconds` is
    how long it took to simulate, without the simulator's build.
    """

    programs: list[Program]
    results: list  # as :func:`sim.results.unpack` gives them; None where there is none
    codes: list[dict[str, np.ndarray]]  # [frame][name] uint8 [channels, height, width]
    cycles: list[list[int]]  # [frame][operation]
    refused: int = 0
    loaded: list[tuple[int, int]] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    seconds: float = 0

    @property
    def classes(self) -> list[int]:
        """Of networks that classify."""
        return [number for number, _ in self.results]

    def equal(self, trace: golden.Trace) -> list[bool]:
        """Per frame: are all codes and the result the golden model's?"""
        return [self.difference(n, trace, n) is None for n in range(len(self.results))]

    def first_difference(self, trace: golden.Trace) -> str | None:
        """Where the Verilog first departs from the golden model, in the order of the operations."""
        return next(filter(None, (self.difference(n, trace, n)
                                  for n in range(len(self.results)))), None)

    def difference(self, n: int, trace: golden.Trace, m: int) -> str | None:
        """Where frame `n` departs from image `m` of the trace of its program's network."""
        if strange := trace.codes.keys() ^ self.codes[n].keys():
            return f"frame {n}, {min(strange)}: golden and Verilog do not both compute it"
        for name, wanted in trace.codes.items():
            came = self.codes[n][name]
            if (places := np.argwhere(came != wanted[m])).size:
                channel, y, x = places[0].tolist()
                return (f"frame {n}, {name}, channel {channel}, y {y}, x {x}: golden "
                        f"{wanted[m, channel, y, x]}, Verilog {came[channel, y, x]} "
                        f"({len(places)} of {came.size} codes differ)")
        if self.results[n] is None:
            return None
        said = difference(self.programs[n].config.network, self.results[n], trace, m)
        return said and f"frame {n}, {said}"


def harness_of(hardware: Hardware) -> tuple[dict[str, int], list[str]]:
    """Parameters and defines of `bench.v` for a machine."""
    result, codes = result_layout(hardware).size, 3 * hardware.array.unit
    ram = hardware.memory == "ram"
    return {
        "PIXELS": Shape.cast(pixel_shape(hardware, False)).width, "RESULT": result,
        "PROBE": probe_layout(hardware).size, "LAYERS": hardware.layers,
        "SLOTS": hardware.programs, "WORDS": int(hardware.result_words),
        "PAYLOAD": -(-max(result, codes) // 32) * 32,
        "LOAD": word_layout(hardware).size if ram else 1,
    }, [name for name, there in {
        "RAM": ram, "SEVERAL_SLOTS": hardware.programs > 1, "CLIPS": hardware.clocks > 0,
        }.items() if there]


def patience(hardware: Hardware, jobs: Sequence[Job], gaps: int) -> int:
    """Cycles without a result, after which an engine hangs: more than any needs for one."""
    longest = 0
    for program in {id(job.program): job.program for job in jobs}.values():
        network, cost = program.config.network, Cost(program, hardware)
        frame = (cost.frame_cycles + cost.input_cycles + cost.output_cycles
                 + gaps * network.height * network.width)
        longest = max(longest, (network.period + 1) * frame)
    return min(IDLE + 2 * longest, 2**31 - 1)


def run_frames(program: Program, hardware: Hardware, folder: Path, images: np.ndarray,
               **how) -> Frames:
    """Runs images uint8 [N, H, W, C] of one program, see :func:`run_jobs`."""
    return run_jobs(hardware, folder, [Job(program=program, image=image) for image in images],
                    **how)


def clip_jobs(program: Program, clips: Sequence[np.ndarray], number: int = 0) -> list[Job]:
    """The frames of clips uint8 [T, H, W, C], one behind the other."""
    period = program.config.network.period
    return [Job(program=program, image=frame, number=number, clip=t == 0,
                result=(t + 1) % period == 0) for clip in clips for t, frame in enumerate(clip)]


def run_jobs(hardware: Hardware, folder: Path, jobs: Sequence[Job], loads: Sequence[Load] = (), *,
             simulator: str = "verilator", gaps: int = 0, seed: int = 1, strict: bool = False,
             build: Path | None = None, progress: bool = False, waves: bool = False) -> Frames:
    """Runs frames of any programs through `folder/engine.v`, a `hardware`, and loads others.

    `gaps` is the longest random pause between two pixels and before a transfer is taken; with
    `strict` every output must be known in every cycle after reset, which only a four-state
    simulator (icarus) can show. With `waves`, waveforms stay in `build` (:mod:`sim.waves`). Raises
    RuntimeError if simulator or bench fail.
    """
    build = (build or folder / "sim").resolve()
    place = build / simulator
    place.mkdir(parents=True, exist_ok=True)
    file, dots = place / "events.bin", place / "progress"
    file.unlink(missing_ok=True)
    dots.write_bytes(b"")
    ram = hardware.memory == "ram"
    parameters, defines = harness_of(hardware)
    parameters["LIMIT"] = patience(hardware, jobs, gaps)
    result, payload = parameters["RESULT"], parameters["PAYLOAD"]
    write_traffic(place, jobs, loads, gaps=gaps, seed=seed,
                  address_bits=load_address_bits(hardware) if ram else 0)
    done = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(dots, sum(len(job.program.layers) for job in jobs), done,
                             not progress))
    watcher.start()
    try:
        run_bench(verilog=folder, top="engine", bench="sim.bench_engine", harness=HARNESS,
                  simulator=simulator, build=build, waves=waves, parameters=parameters,
                  defines=defines,
                  arguments=[f"+frames={len(jobs)}",
                             f"+results={sum(job.result for job in jobs)}", *["+strict"] * strict])
    finally:
        done.set()
        watcher.join()
    events = Events(file, payload)
    programs = [job.program for job in jobs]
    collectors = [TraceCollector(program) for program in programs]
    for frame, layer, codes in zip(*events.codes(hardware.array.unit), strict=True):
        collectors[frame].take(layer, codes)
    transfers, left = events.results(result, hardware.result_words)
    each_result = iter(transfers)
    words = np.split(events.cycles(Kind.LOADED), np.cumsum([len(load.words) for load in loads]))
    return Frames(
        programs=programs,
        results=[unpack(job.program.config.network, hardware, next(each_result))
                 if job.result else None for job in jobs],
        codes=[collector.codes(0) for collector in collectors],
        cycles=[cycles[:len(program.layers)] for program, cycles in zip(
            programs, events.frames(hardware.layers).tolist(), strict=True)],
        refused=len(events.cycles(Kind.REFUSED)),
        loaded=[(int(each[0]), int(each[-1])) for each in words if len(each)],
        taken=events.cycles(Kind.FRAME).tolist(), left=left,
        seconds=seconds_of(place / "results.xml"))


def _watch(dots: Path, total: int, done: threading.Event, quiet: bool):
    """A progress bar of simulated layers, fed by the bench through a file."""
    with tqdm(total=total, desc="simulate", unit="layer", disable=quiet) as bar:
        over = False
        while not over:
            over = done.wait(0.5)
            if grown := min(total, dots.stat().st_size) - bar.n:
                bar.update(grown)
