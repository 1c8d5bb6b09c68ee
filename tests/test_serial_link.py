"""The host's side of the serial line, against a board in Python and a line that loses things."""

import random
from itertools import pairwise

import numpy as np
import pytest

from export.host import Class, Host, HostError
from export.image import build_image
from export.packets import VERSION, Code, Packet, Parser, Type
from export.serial_link import SerialLink
from sim.memory_model import MemoryModel
from sim.samples import random_network
from tests.designs import conv, design
from tests.test_image import describe, machine_of

CAPACITY = 256
A = design([conv("a", 4, 3, 1), conv("b", 4, 2, 1)], (2, 4, 1))


class Board:
    """A port with a board behind it, as docs/board.md says; `down` and `up` change what is sent.

    Both take a packet's bytes and return what arrives of them.
    """

    def __init__(self, machine, model, *, down=lambda text: text, up=lambda text: text):
        self.machine, self.model, self.down, self.up = machine, model, down, up
        self.now, self.parser, self.came = 0.0, Parser(), bytearray()
        self.known, self.done, self.requests = None, [], []
        self.waiting = []  # results, each said when time goes by
        self.hash, self.version, self.faults = machine.hash, VERSION, {}

    def time(self):
        return self.now

    def write(self, content):
        self.now += len(content) * 1e-5
        came = self.parser.feed(self.down(content))
        for packet in came:
            if packet is None:
                self.say(Type.ERROR, 0, bytes([Code.DAMAGED]))
            else:
                self.requests.append(packet)
                self.do(packet)
        if content and not came:
            self.say(Type.ERROR, 0, bytes([Code.SHORT]))

    def read(self, seconds):
        if not self.came and self.waiting:
            self.say(Type.RESULT, *self.waiting.pop(0))
        if not self.came:
            self.now += seconds
        content, self.came = bytes(self.came), bytearray()
        return content

    def say(self, kind, number, payload=b""):
        self.came += self.up(Packet(kind, number, payload).to_bytes())

    def do(self, packet):
        if code := self.faults.pop(len(self.requests), None):
            self.say(Type.ERROR, packet.number, bytes([code]))
        elif packet.type == Type.IDENTIFY:
            self.known = None
            self.say(Type.IDENTITY, packet.number, bytes([self.version, len(self.waiting)])
                     + CAPACITY.to_bytes(2, "little") + bytes.fromhex(self.hash))
        elif packet.number == self.known:
            self.say(Type.DONE, packet.number)
        else:
            self.act(packet)

    def act(self, packet):
        assert len(packet.payload) <= CAPACITY
        text = packet.payload
        if packet.type == Type.LOAD:
            for k in range(0, len(text), 8):
                self.model.write(*(int.from_bytes(text[k + j:k + j + 4], "little")
                                   for j in (0, 4)))
        else:
            self.model.select(text[0])
            channels = self.machine.pixels.channels
            self.model.send(np.frombuffer(text[1:], np.uint8).reshape(-1, channels))
        flags = {"load_error": Code.LOAD, "frame_error": Code.FRAME, "unloaded": Code.UNLOADED}
        if said := self.model.flags():
            self.say(Type.ERROR, packet.number, bytes([flags[said.pop()]]))
            return
        self.known = packet.number
        self.done.append(packet)
        self.say(Type.DONE, packet.number)
        if packet.type == Type.FRAME and (words := self.model.receive(0)) is not None:
            self.waiting.append((packet.number, words.astype("<u4").tobytes()))


class Losses:
    """Changes one packet of so many, in one of several ways; never one of the first `good`."""

    def __init__(self, seed: int, rate: float, good: int = 0):
        self.rng, self.rate, self.left, self.count = random.Random(seed), rate, good, 0

    def __call__(self, text: bytes) -> bytes:
        self.left -= 1
        if self.left >= 0 or self.rng.random() >= self.rate:
            return text
        self.count += 1
        at = self.rng.randrange(len(text))
        return self.rng.choice([
            b"", text[:at], text[at:], text[:at] + text[at + 1:],
            text[:at] + bytes([text[at] ^ 1 << self.rng.randrange(8)]) + text[at + 1:]])


@pytest.fixture(scope="module")
def machine():
    return machine_of(describe(A, slots=2))


def model_of(machine) -> MemoryModel:
    """Slot 0 is loaded; a frame's result is its pixels' sum."""
    model = MemoryModel(machine, lambda slot, pixels: np.array([slot, pixels.sum()], np.uint32))
    model.record = lambda slot: {"valid": int(slot == 0)}
    return model


def frames_of(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (30, 3)).astype(np.uint8) for _ in range(count)]


def test_frames(machine):
    board = Board(machine, model_of(machine))
    link = SerialLink(board, machine)
    assert link.receive(1) is None
    for pixels in frames_of(300):  # numbers come round
        assert link.send(pixels)
        assert link.receive(1).tolist() == [0, pixels.sum()]
    assert len(board.requests) == 301 and link.flags() == set()
    two = frames_of(2)
    assert all([*map(link.send, two)])
    assert [link.receive(1).tolist()[1] for _ in two] == [each.sum() for each in two]
    assert link.send(two[0][:, :1])  # fewer channels than the port has
    assert link.receive(1).tolist() == [0, two[0][:, 0].sum()]
    assert board.done[-1].payload[1:4] == bytes([two[0][0, 0], 0, 0])


@pytest.mark.parametrize("seed", range(8))
def test_what_gets_lost_is_sent_again(machine, seed):
    """One packet of six is changed, on both ways: every frame is done, its result the right one."""
    down, up = Losses(seed, 0.15), Losses(seed + 100, 0.15)
    board = Board(machine, model_of(machine), down=down, up=up)
    link = SerialLink(board, machine, tries=12)
    for pixels in frames_of(60):
        assert link.send(pixels)
        assert link.receive(12).tolist() == [0, pixels.sum()]
    assert down.count > 5 and up.count > 5
    numbers = [packet.number for packet in board.done]
    assert all(a != b for a, b in pairwise(numbers))


class Once:
    """Damages the first packet of a type."""

    def __init__(self, kind: Type):
        self.kind, self.left = kind, True

    def __call__(self, text: bytes) -> bytes:
        if text[1] != self.kind or not self.left:
            return text
        self.left = False
        return text[:4] + bytes([text[4] ^ 2]) + text[5:]


@pytest.mark.parametrize("where, kind, requests", [
    ("up", Type.RESULT, 4), ("up", Type.DONE, 5), ("down", Type.FRAME, 3)])
def test_damage_is_not_waited_for(machine, where, kind, requests):
    """What comes damaged is sent again at once, not when the time is over."""
    board = Board(machine, model_of(machine), **{where: Once(kind)})
    link = SerialLink(board, machine)
    before, (one, two) = board.now, frames_of(2)
    assert link.send(one) and link.send(two)
    assert [link.receive(3).tolist()[1] for _ in range(2)] == [one.sum(), two.sum()]
    # A damaged answer may as well have been a result, so that frame is sent once more.
    assert board.now - before < 0.1 and len(board.requests) == requests


def test_answers_that_come_late(machine):
    """An answer to an earlier request is not taken for one to this."""
    board = Board(machine, model_of(machine), up=lambda text: 2 * text)
    link, pixels = SerialLink(board, machine), frames_of(1)[0]
    for slot in (0, 1, 0, 1):
        link.select(slot)
        assert link.send(pixels) == (slot == 0)
        assert link.flags() == ({"unloaded"} if slot else set())


def test_loads_in_full_packets(machine):
    model = model_of(machine)
    board = Board(machine, model)
    link = SerialLink(board, machine)
    base = next(each for each in machine.contents if each.parts == 1).base
    for _ in range(CAPACITY // 8):
        assert len(board.requests) == 1
        link.write(base, 0)
    assert len(board.requests) == 2 and model.writes == CAPACITY // 8
    link.write(base, 0)
    assert link.flags() == set() and model.writes == CAPACITY // 8 + 1
    link.write(base, 0)
    assert link.send(frames_of(1)[0]) and model.writes == CAPACITY // 8 + 2  # in their order
    link.write(2**machine.load_address_bits - 1, 7)
    assert link.flags() == {"load_error"} and link.flags() == set()


def test_flags(machine):
    board = Board(machine, model_of(machine))
    link, pixels = SerialLink(board, machine), frames_of(1)[0]
    link.select(1)
    assert not link.send(pixels) and link.flags() == {"unloaded"}
    link.select(0)
    board.faults = {3: Code.FRAME}
    assert not link.send(pixels) and link.flags() == {"frame_error"}
    board.faults = {4: Code.BUSY}  # waited for, then sent again
    before = board.now
    assert link.send(pixels) and link.receive(1) is not None and board.now - before > 1.9
    board.faults = {6: Code.REQUEST}
    with pytest.raises(HostError, match=r"^the board refused a packet of type FRAME with 91 "
                                        r"bytes: code 4$"):
        link.send(pixels)


def test_nothing_answers(machine):
    board = Board(machine, model_of(machine), up=lambda text: b"")
    with pytest.raises(HostError, match=r"^the board does not answer a packet of type "
                                        r"IDENTIFY, tried 3 times for 0\.5 s$"):
        SerialLink(board, machine, seconds=0.5)
    assert 1.5 <= board.now < 1.6
    board.up = lambda text: b"noise"
    with pytest.raises(HostError, match="tried 2 times"):
        SerialLink(board, machine, seconds=0.5, tries=2)
    board.up = lambda text: text
    link = SerialLink(board, machine)
    board.model.answer = lambda slot, pixels: None
    assert link.send(frames_of(1)[0])
    before = board.now
    assert link.receive(3) is None and 3 <= board.now - before < 3.01
    assert link.receive(3) is None and board.now - before < 3.01
    assert [packet.type for packet in board.done] == [Type.FRAME] * 3


def test_boards_of_another_kind(machine):
    board = Board(machine, model_of(machine))
    board.hash = "ab" * 32
    with pytest.raises(HostError, match=rf"^the board must have the machine "
                                        rf"{machine.hash[:16]}\.\.\., not abababababababab"):
        SerialLink(board, machine)
    board.version = 2
    with pytest.raises(HostError, match=r"^the board must speak version 1, not 02000001$"):
        SerialLink(board, machine)


def test_results_of_an_earlier_session_are_not_taken(machine):
    board = Board(machine, model_of(machine))
    one, two = frames_of(2)
    first = SerialLink(board, machine)
    assert first.send(one) and first.send(one)
    link = SerialLink(board, machine)
    assert not board.waiting
    assert link.send(two) and link.receive(1).tolist()[1] == two.sum()


def test_the_host_over_it():
    machine = machine_of(describe(A, slots=2))
    image = build_image(machine, A, random_network(A.network, 1))
    model = MemoryModel(machine, lambda slot, pixels: np.array([1, pixels.sum()], np.uint32))
    host = Host(machine, SerialLink(Board(machine, model, down=Losses(1, 0.1, 1)), machine,
                                    tries=9), seconds=1)
    images = np.random.default_rng(2).integers(0, 256, (4, 6, 5, 3)).astype(np.uint8)
    assert host.run(host.load(image), images) == [Class(1, each.sum()) for each in images]
