"""The commands of :mod:`sim.cli` for an engine on a board: docs/board.md."""

import json
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import typer

from sim.cli_load import MachineFile
from sim.options import Design, Folder, Seed, Weights, load_machine

app = typer.Typer(help="Builds an engine for a board, and talks to it.", no_args_is_help=True)


class SerialPort:
    """A :class:`export.serial_link.Port` of this computer.

    OSError if it cannot be opened, or takes `seconds` longer for bytes than their bits do.
    """

    def __init__(self, name: str, baud: int, seconds: float):
        from serial import Serial
        self.line, self.seconds = Serial(name, baud), seconds
        self.line.reset_input_buffer()

    def write(self, content: bytes):
        self.line.write_timeout = self.seconds + 10 * len(content) / self.line.baudrate
        self.line.write(content)

    def read(self, seconds: float) -> bytes:
        self.line.timeout = seconds
        return self.line.read(1) + self.line.read(self.line.in_waiting)

    def time(self) -> float:
        return time.monotonic()


@app.command()
def build(config: Design,
          board: Annotated[str, typer.Argument(
              help="ulx3s-85f, icepi-zero, icebreaker or tang-nano-9k")],
          output: Folder = None, weights: Weights = None, seed: Seed = 1,
          mhz: Annotated[float | None, typer.Option(
              min=1, max=400, help="the clock at most; default: what `pnr` measured on this "
                                   "device, else that of [target]")] = None,
          baud: Annotated[int, typer.Option(
              min=1, max=12_000_000, help="bits per second of the line")]
          = 1_000_000,
          placement: Annotated[int, typer.Option(
              min=1, max=2**31 - 1, help="seed of the placement")] = 1):
    """Makes the bitstream of a board: the engine, a serial line, a PLL for its clock."""
    from export.file import write_whole
    from hw.bitstream import build as make
    from hw.boards import board_of
    design, machine = load_machine(config, weights, seed, [], {})
    engine = Path("build") / design.name
    folder, device = output or engine / board, board_of(board).device
    result = make(board, machine.hardware, machine.images, folder, baud=baud, seed=placement,
                  mhz=mhz or _measured(engine / "report.json", device) or design.target.clock_mhz)
    write_whole(folder / "bitstream.json", (json.dumps(result, indent=1) + "\n").encode())
    typer.echo(f"{folder / result['file']}: {result['bytes']:,} bytes, {result['clock_mhz']:g} MHz "
               f"({result['fmax_mhz']:g} reached), {result['seconds']} s")


def _measured(report: Path, device: str) -> float | None:
    """The clock that `hexlane pnr` measured on a device, if it did."""
    try:
        found = json.loads(report.read_text())
        return float(found["fmax_mhz"]) if found["device"] == device else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


@app.command()
def classify(images: Annotated[list[Path], typer.Argument(help="PNG images", show_default=False)],
             machine: MachineFile,
             port: Annotated[str, typer.Option(help="serial port, such as /dev/ttyUSB0")],
             baud: Annotated[int, typer.Option(min=1, max=12_000_000, help="bits per second")]
             = 1_000_000,
             program: Annotated[Path | None, typer.Option(
                 help="program image, NAME.hxi, to load first; only with memory 'ram'")] = None,
             slot: Annotated[int, typer.Option(min=0, help="of the program")] = 0,
             seconds: Annotated[float, typer.Option(
                 min=0.01, max=86400, help="longest wait for an answer")] = 5,
             output: Annotated[Path | None, typer.Option(
                 "-o", "--output", help="file for codes or maps, NAME.npy [N, C, H, W]")] = None):
    """Sends images to a board and shows the classes, or keeps the codes or maps."""
    import numpy as np

    from export.checked import ConfigError
    from export.file import write_whole
    from export.host import Class, Host, run_frames
    from export.image import Image
    from export.machine import Machine
    from export.serial_link import SerialLink
    from model.data import class_names, read_image
    target = Machine.load(machine)
    if program:
        image = Image.load(program)
        name, frame, gives = image.header.name, image.header.frame, image.header.output
        if image.header.period:
            raise ConfigError(f"{program}: reads clips, which no serial line carries")
    elif target.memory == "rom":
        name, frame, gives = _held(machine, slot)
    else:
        raise ConfigError(f"{machine}: this machine has programs in RAM: name one with --program")
    if gives.kind != "class" and output is None:
        raise ConfigError(f"{name}: gives {gives.kind}: name a file for them with --output")
    size = frame.height, frame.width, frame.channels
    pixels = np.stack([read_image(path, size) for path in images])

    link = SerialLink(SerialPort(port, baud, seconds), target, seconds=seconds)
    if program:
        host = Host(target, link, seconds=seconds)
        results = host.run(host.load(image, slot), pixels)
    else:
        results = run_frames(link, slot, name, frame, gives, pixels, seconds)
    if gives.kind == "class":
        names = class_names(SimpleNamespace(**frame.model_dump(), classes=gives.channels))
        for path, result in zip(images, results, strict=True):
            assert isinstance(result, Class)
            typer.echo(f"{path}: {names[result.index]}, score {result.score}")
        return
    values = np.stack([result.values for result in results])
    content = BytesIO()
    np.save(content, values)
    write_whole(output, content.getvalue())
    typer.echo(f"{output}: {gives.kind} {list(values.shape)}")


def _held(path: Path, slot: int):
    """Name, frame and output of a program in ROM, as `engine.json` has them."""
    from export.checked import ConfigError
    from export.facts import read_facts
    from export.image import Frame, Output
    programs = {each["slot"]: each for each in read_facts(path)["programs"]
                if each.get("slot") is not None}
    if slot not in programs:
        raise ConfigError(f"{path}: slot must be one of {sorted(programs)}, not {slot}")
    found = programs[slot]
    return found["name"], Frame(**found["frame"]), Output(**found["gives"])
