"""A machine at work, seen from the host: programs loaded, frames sent, results read.

How words reach the machine is the transport's business. Every wait ends, and whatever the machine
refuses becomes one line.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import numpy as np

from export.checked import MESSAGE, ConfigError
from export.image import Frame, Image, Output
from export.loader import Loader, Write
from export.machine import Machine

FLAGS = {  # what a machine can complain about
    "load_error": "a write was refused",
    "frame_error": "a frame of the wrong length was dropped",
    "unloaded": "no program is in the selected slot",
}


class HostError(RuntimeError):
    """The machine does not do what it should; the message is one short line."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split())[:MESSAGE])


class Transport(Protocol):
    """What a testbench, a simulation or a board has to offer."""

    def write(self, address: int, word: int):
        """Writes a word of 32 bits at a word address of the load window."""

    def select(self, slot: int):
        """Chooses the program of the frames that are sent from now on."""

    def begin_clip(self):
        """The next frame begins a clip; of machines that read clips only."""

    def send(self, pixels: np.ndarray) -> bool:
        """Sends one frame, uint8 [H * W, channels], the last pixel marked as such.

        False if it was not taken within the transport's own limit of time.
        """

    def receive(self, seconds: float) -> np.ndarray | None:
        """The words of one frame's result, uint32 [n]; None if there is none within that time."""

    def flags(self) -> set[str]:
        """Which of :data:`FLAGS` are set or were since the last call."""


@dataclass(frozen=True)
class Class:
    """A frame's class and its score."""

    index: int
    score: int


@dataclass(frozen=True, eq=False)
class Codes:
    """A frame's codes, uint8 [C, H, W]."""

    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Map:
    """A frame's signed values, int8 [C, H, W]."""

    values: np.ndarray


Result = Class | Codes | Map


class Host:
    """Loads programs into a machine and runs frames, one at a time.

    `seconds` is how long a result may take, or a frame to end whose program is replaced. All slots
    are made invalid at first: what another host left in the machine is not known here.
    """

    def __init__(self, machine: Machine, transport: Transport, *, seconds: float = 10):
        self.loader, self.transport, self.seconds = Loader(machine), transport, seconds
        self.transport.flags()  # what was before does not count
        for slot in range(machine.programs):
            self._clear(slot)

    @property
    def programs(self) -> dict[int, Image]:
        """What is loaded, by slot."""
        return {slot: placed.image for slot, placed in sorted(self.loader.programs.items())}

    def load(self, image: Image, slot: int | None = None, *, replace: bool = False) -> int:
        """Loads a program beside the others, and returns its slot.

        Raises
        ------
        ConfigError
            As :meth:`export.loader.Loader.place`; nothing was written then.
        HostError
            If the machine refuses a write. No program is in the slot then, but one in work, which
            still is.
        """
        slot, placed = self.loader.place(image, slot, replace=replace)
        self._clear(slot)
        what = f"slot {slot}: {image.header.name}"
        self._write(what, self.loader.rows(placed))  # all of them, before the record says so
        self._write(what, self.loader.record(slot, placed))
        self.loader.programs[slot] = placed
        return slot

    def unload(self, slot: int):
        """Frees a slot; HostError if the machine refuses, ConfigError if nothing is there."""
        self._loaded(slot)
        self._clear(slot)

    def run(self, slot: int, images: np.ndarray) -> list[Result]:
        """Results of images uint8 [N, H, W, C] with the program of a slot.

        Of a program that reads clips they are the frames of one, and results those that it gives.

        Raises
        ------
        ConfigError
            If the images are not those of the program, or none is there.
        HostError
            If a result does not come in time, or is none.
        """
        header = self._loaded(slot).header
        if header.period:
            self.transport.begin_clip()
        return run_frames(self.transport, slot, header.name, header.frame, header.output, images,
                          self.seconds, header.period or 1)

    def _loaded(self, slot: int) -> Image:
        if slot not in self.loader.programs:
            raise ConfigError(f"slot must be one of {sorted(self.loader.programs)}, which are "
                              f"loaded, not {slot}")
        return self.loader.programs[slot].image

    def _clear(self, slot: int):
        """Makes a slot's record invalid, which is refused while its program is in work."""
        self.loader.programs.pop(slot, None)
        end = monotonic() + self.seconds
        while True:
            late = monotonic() > end
            try:
                return self._write(f"slot {slot}", self.loader.clear(slot))
            except HostError:
                if late:
                    raise

    def _write(self, what: str, writes: Iterable[Write]):
        for address, word in writes:
            self.transport.write(address, word)
        if "load_error" in (said := self.transport.flags()):
            raise HostError(f"{what}: not loaded{_texts(said)}")


def run_frames(transport: Transport, slot: int, name: str, frame: Frame, output: Output,
               images: np.ndarray, seconds: float, period: int = 1) -> list[Result]:
    """Results of images uint8 [N, H, W, C] with the program in a slot, one after the other.

    Every so many frames, `period`, give one.

    Raises
    ------
    ConfigError
        If the images are not as `frame` says.
    HostError
        If a result does not come within `seconds`, or is none.
    """
    transport.select(slot)
    results = []
    for n, pixels in enumerate(frames(frame, images)):
        where = f"slot {slot}: {name}: frame {n}"
        if not transport.send(pixels):
            raise HostError(f"{where}: its pixels were not taken{_texts(transport.flags())}")
        if (n + 1) % period:
            if said := _texts(transport.flags()):
                raise HostError(f"{where}{said}")
            continue
        words = transport.receive(seconds)
        said = _texts(transport.flags())
        if words is None:
            raise HostError(f"{where}: no result within {seconds:g} s{said}")
        try:
            results.append(parse_result(output, words))
        except HostError as error:
            raise HostError(f"{where}: {error}{said}") from error
        if said:
            raise HostError(f"{where}{said}")
    return results


def _texts(flags: set[str]) -> str:
    return "".join(f"; {FLAGS.get(flag, flag)}" for flag in sorted(flags))


# ---- frames and results

def frames(frame: Frame, images: np.ndarray) -> Iterator[np.ndarray]:
    """Each image uint8 [H, W, C] of [N, H, W, C] as its pixels, uint8 [H * W, C], raster order."""
    wanted = (frame.height, frame.width, frame.channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
        raise ConfigError(f"images must be uint8 [N, {', '.join(map(str, wanted))}], "
                          f"not {images.dtype} {list(images.shape)}")
    return iter(images.reshape(len(images), frame.height * frame.width, frame.channels))


def result_length(output: Output) -> int:
    """Words of a frame's result."""
    if output.kind == "class":
        return 2
    bits = output.bits if output.kind == "codes" else 8
    return -(-output.channels * output.height * output.width * bits // 32)


def parse_result(output: Output, words: np.ndarray) -> Result:
    """A frame's result from its words, uint32 [n]; HostError if it is none."""
    if len(words) != (wanted := result_length(output)):
        raise HostError(f"a result must have {wanted} words, not {len(words)}")
    words = np.asarray(words, "<u4")
    if output.kind == "class":
        index, score = int(words[0]), int(words[1:].view("<i4")[0])
        if index >= output.channels:
            raise HostError(f"a class must be below {output.channels}, not {index}")
        return Class(index, score)
    shape = (output.height, output.width, output.channels)
    count = output.height * output.width * output.channels
    if output.kind == "map":
        values, rest = np.split(words.view(np.int8), [count])
    else:
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        bits, rest = np.split(bits, [count * output.bits])
        values = bits.reshape(count, output.bits) @ (1 << np.arange(output.bits, dtype=np.uint8))
    if rest.any():
        raise HostError("bits behind a result must be 0")
    values = np.ascontiguousarray(values.reshape(shape).transpose(2, 0, 1))
    return Map(values) if output.kind == "map" else Codes(values)
