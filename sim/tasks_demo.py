"""One Verilog, two tasks: it says what a photograph shows, then it compresses it.

The machine begins empty. Both programs go through its load bus, the second one while the first
frame is in work; each frame chooses the program that it is for.
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from export.artifact import Network
from export.build import Build, build
from export.checked import ConfigError
from export.codec import patches_of
from export.config import Config
from export.cost import Cost
from export.image import build_image
from export.loader import Loader
from export.machine import Machine
from export.picture import Picture, check_size
from hw.generate import generate_machine
from model.data import PICTURE_FORMATS, class_names, read_picture
from sim import golden
from sim.verilog import Job, Load, run_jobs


def shrunk(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of a picture uint8 [H, W, 3], in these proportions, at this size."""
    scale = min(picture.shape[0] / height, picture.shape[1] / width)
    box = [round(scale * size) for size in (height, width)]
    top, left = ((full - size) // 2 for full, size in zip(picture.shape, box, strict=False))
    middle = Image.fromarray(picture[top:top + box[0], left:left + box[1]])
    return np.asarray(middle.resize((width, height), Image.Resampling.LANCZOS))


def programs(machine: Build, networks: list[Network], folder: Path) -> list[Load]:
    """The words of both programs; the second one follows when the first frame has been sent."""
    description = Machine.load(folder / "engine.json")
    loader, loads = Loader(description), []
    for slot, (program, network) in enumerate(zip(machine.programs, networks, strict=True)):
        image = build_image(description, program.config, network)
        _, loader.programs[slot] = loader.place(image, slot)
        loads.append(Load(words=[*loader.load(slot, loader.programs[slot])], after=slot))
    return loads


def tasks_demo(designs: list[Config], networks: list[Network], photos: Path, folder: Path,
               console: Console) -> bool:
    """Classifies and compresses each picture of a folder, and reports.

    `designs` and `networks` are one that classifies, which has the array, and one that compresses.
    Writes `folder/NAME.hxl`. Returns whether every layer of all frames, and so every file, is that
    of the golden model, and patches follow each other as soon as computed.

    Raises
    ------
    ConfigError
        If a network does something else, they do not fit one array, or there are no pictures.
    """
    label, shape = designs[0], designs[0].network
    if shape.output != "class" or shape.channels != 3:
        raise ConfigError(f"{label.name}: must give a class of colors for the demo of two tasks, "
                          f"not {shape.output} of {shape.channels} channels")
    patches = patches_of(designs[1].network, designs[1].name)
    files = sorted(path for path in photos.glob("*") if path.suffix.lower() in PICTURE_FORMATS)
    if not files:
        raise ConfigError(f"{photos}: must hold images, not none")
    pictures = [read_picture(path) for path in files]
    for picture in pictures:
        check_size(*picture.shape[:2])
    machine = label.machine.model_copy(update={"memory": "ram", "networks": (), "hold": 2})
    label = label.model_copy(update={"machine": machine})
    made = build([label, designs[1]], [None, None])
    with console.status(escape(f"generate {folder}/engine.v")):
        generate_machine(label, made, folder)
    loads = programs(made, networks, folder)
    needs = np.cumsum([len(load.words) for load in loads]).tolist()

    images, jobs = [], []  # of each picture, those of either program
    for picture in pictures:
        images.append((shrunk(picture, shape.height, shape.width)[None],
                       patches.frames(patches.cut(picture))))
        jobs += [Job(program=made.programs[k], image=image, number=k, needs=needs[k])
                 for k in (0, 1) for image in images[-1][k]]
    found = run_jobs(made.hardware, folder, jobs, loads, progress=True)

    said, n = f"{found.refused} words were refused" if found.refused else "", 0
    table = Table("image", "pixels", "class", "file", "bytes")
    for path, picture, both in zip(files, pictures, images, strict=True):
        first = n
        for program, network, each in zip(made.programs, networks, both, strict=True):
            trace, cost = golden.run(network, each), Cost(program, made.hardware)
            for m in range(len(each)):
                late = m > 1 and found.left[n] - found.left[n - 1] != cost.frame_period
                said = said or found.difference(n, trace, m) or (
                    f"frame {n} is not as soon as computed" if late else "")
                n += 1
        maps = np.stack(found.results[first + 1:n])
        count = math.prod(patches.count(*picture.shape[:2]))
        coded = Picture(*picture.shape[:2], patches, networks[1].digest,
                        patches.codes(maps, count))
        coded.save(file := folder / f"{path.stem}.hxl")
        table.add_row(escape(path.name), f"{picture.shape[1]}x{picture.shape[0]}",
                      escape(class_names(shape)[found.results[first][0]]), escape(str(file)),
                      f"{len(coded.to_bytes()):,}")
    console.print(table)
    for program, load in zip(made.programs, loads, strict=True):
        cost = Cost(program, made.hardware)
        console.print(f"{program.config.name}: {len(load.words):,} words loaded, a frame every "
                      f"{cost.frame_period:,} cycles")
    console.print(f"[red]the Verilog differs from the golden model or the cycle model: {said}[/red]"
                  if said else f"all {n} frames equal to the golden model in every layer; "
                  f"{found.left[-1]:,} cycles simulated in {found.seconds:.1f} s")
    return not said
