"""Clips through the Verilog that was just generated, and moving pictures with the class so far."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from export.artifact import Network
from export.clips import check_clips, clip_scores, remembers
from export.config import Config
from export.cost import Cost
from hw.generate import generate
from sim import golden
from sim.verilog import clip_jobs, run_jobs

CLIPS = 5
FRAME_MS, PANEL = 160, 28  # of the pictures: time of a frame, rows below it


def clip_demo(design: Config, network: Network, folder: Path, console: Console) -> bool:
    """Classifies five test clips, which are drawn or those of HEXLANE_CLIPS, one after the other.

    Writes `folder/clips/NUMBER.gif`: each frame with the class so far and the true one. The table
    has the class of the whole clip: the last one or, without a cell, that of the golden model's
    scores of all ticks together. Returns whether every layer of all frames is equal, and takes the
    cycles that were computed. Raises ConfigError if the network does not read clips, or they do not
    fit.
    """
    from model.clip_train import source_of  # which needs torch
    design = design.alone
    found = source_of(design.network, design.clips, "test")
    check_clips(design.network, design.clips.frames, f"{design.name}: clips")
    clips, labels = found.part(range(CLIPS))
    clips = clips.permute(0, 1, 3, 4, 2).numpy()
    with console.status(escape(f"generate {folder}/engine.v")):
        generate(design, network, folder)
    cost = Cost.of(design)
    frames = run_jobs(cost.hardware, folder, clip_jobs(cost.program, list(clips)), progress=True)
    traces = golden.frame_traces(network, list(clips))
    (folder / "clips").mkdir(exist_ok=True)
    table = Table("clip", "true class", "class", "equal at every layer and frame", "cycles")
    same, count = True, clips.shape[1]
    for n, (clip, label) in enumerate(zip(clips, labels.tolist(), strict=True)):
        at = range(n * count, (n + 1) * count)
        said = next(filter(None, (frames.difference(k, traces[k], 0) for k in at)), None)
        cycles = [sum(frames.cycles[k]) for k in at]
        same &= said is None and cycles == list(map(cost.cycles_at, range(count)))
        results = [frames.results[k] and frames.results[k][0] for k in at]
        path = folder / "clips" / f"{n + 1}.gif"
        moving(clip, results, label, found.classes, path)
        if remembers(design.network):
            whole = [result for result in results if result is not None][-1]
        else:
            ticks = [traces[k].scores for k in at if frames.results[k] is not None]
            whole = clip_scores(design.network, np.concatenate(ticks)).argmax()
        shown = str(path), found.classes[label], found.classes[whole]
        table.add_row(*map(escape, shown), "yes" if said is None else f"NO: {said}",
                      f"{sum(cycles):,}")
    console.print(table)
    console.print(f"{len(clips)} clips of {count} frames; {frames.left[-1]:,} cycles simulated in "
                  f"{frames.seconds:.1f} s; on average {cost.frame_period:,} cycles per frame "
                  f"(computed)")
    if not same:
        console.print("[red]the Verilog differs from the golden model or the cycle model[/red]")
    return same


def moving(clip: np.ndarray, results: list[int | None], label: int, classes: list[str],
           path: Path):
    """Writes a clip uint8 [T, H, W, C] with the class that is known at each frame, as GIF."""
    pictures, now = [], None
    for frame, result in zip(clip, results, strict=True):
        now = now if result is None else result
        height, width, channels = frame.shape
        pixels = Image.fromarray(frame[:, :, 0] if channels == 1 else frame).convert("RGB")
        sheet = Image.new("RGB", (2 * width, 2 * height + PANEL), "white")
        sheet.paste(pixels.resize((2 * width, 2 * height), Image.Resampling.NEAREST))
        draw = ImageDraw.Draw(sheet)
        draw.text((4, 2 * height + 2), f"true: {classes[label]}", fill="black")
        if now is not None:
            draw.text((4, 2 * height + 14), f"Verilog: {classes[now]}",
                      fill="#2a7f2a" if now == label else "#c00000")
        pictures.append(sheet)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=FRAME_MS, loop=0)
