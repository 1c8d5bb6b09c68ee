"""The host library against a model of a machine's memories: placement, loading, frames, results."""

import random
from dataclasses import replace

import numpy as np
import pytest

from export.checked import MESSAGE, ConfigError
from export.hardware import Hardware
from export.host import (
    Class,
    Codes,
    Host,
    HostError,
    Map,
    frames,
    parse_result,
    result_length,
)
from export.image import Frame, Header, Image, Output, build_image
from export.loader import Loader, Placed, load_list
from export.machine import Machine, describe_machine
from export.pack import pack
from export.program import Program
from export.sections import RECORDS, memories
from hw.link import capacity
from sim import golden
from sim.memory_model import MemoryModel
from sim.samples import random_images, random_network
from tests.designs import conv, design, total
from tests.test_image import describe, machine_of

A = design([conv("a", 4, 3, 1), conv("b", 4, 2, 1)], (2, 4, 1))
B = design([conv("a", 8, 2, 2, pool=True), conv("b", 3, 2, 1)], (2, 4, 1), height=4, width=8)
C = design([], (2, 4, 1), operations=[conv("a", 5, 3, 3), conv("b", 7, 2, 2, pool=True)])
D = design([], (2, 4, 1), channels=1, operations=[
    conv("a", 5, 3, 3), {"kind": "map", "name": "b", "channels": 6, "weight_bits": 3,
                         "out_bits": 5}])
CONFIGS = A, B, C, D


@pytest.fixture(scope="module")
def machine() -> Machine:
    """Four slots; any three of four programs fit."""
    return machine_of(describe(*CONFIGS, hold=3, slots=4))


@pytest.fixture(scope="module")
def networks():
    return [random_network(config.network, k) for k, config in enumerate(CONFIGS)]


@pytest.fixture(scope="module")
def images(machine, networks):
    return [build_image(machine, *each) for each in zip(CONFIGS, networks, strict=True)]


def said(error, match: str):
    assert "\n" not in str(error.value) and len(str(error.value)) <= MESSAGE
    assert error.match(match)


# ---- loading

def assert_holds(model: MemoryModel, slot: int, base_of: dict[str, int], config, network):
    """The model's rows are the packer's, from these bases on."""
    hardware = model.machine.hardware
    packed = pack(hardware.place(config), hardware, network)
    record = model.record(slot)
    assert record["valid"] == 1
    for name in memories(hardware):
        base, rows = base_of["tiles" if name == "biases" else name], packed.rows(name)
        assert [model.rows[name][base + k] for k in range(len(rows))] == rows, name
        if name != "biases":
            assert (record.pop(f"{name}_base"), record.pop(f"{name}_end")) == (
                base, base + len(rows))
    assert record == {name: packed.records[0][name] for name in record}


def test_programs_beside_each_other(machine, images, networks):
    model = MemoryModel(machine)
    host = Host(machine, model)
    slots = [host.load(images[k]) for k in (2, 0, 1)]
    assert slots == [0, 1, 2] and list(host.programs.values()) == [images[k] for k in (2, 0, 1)]
    for slot, k in zip(slots, (2, 0, 1), strict=True):
        # At the beginning, at the end, and behind the first one.
        bases = {name: [0, machine.by_name[name].rows - images[k].header.sections[name],
                        images[2].header.sections[name]][slot] for name in machine.placed}
        for name in machine.placed:
            if not images[k].header.sections[name]:
                bases[name] = 0
        assert_holds(model, slot, bases, CONFIGS[k], networks[k])
    assert [len(rows) for name, rows in model.rows.items() if name != RECORDS] == [
        sum(images[k].header.sections[section.name] for k in (2, 0, 1))
        for section in machine.contents]


def test_a_record_is_valid_last_and_invalid_first(machine, images):
    """Whatever came before: while rows are written, the slot holds no program."""
    loader = Loader(machine)
    slot, loader.programs[3] = loader.place(images[0], 3)
    model = MemoryModel(machine)
    for write in loader.load(slot, loader.programs[3]):
        model.write(*write)
    assert model.record(3)["valid"]
    _, other = loader.place(images[1], 3, replace=True)
    writes = list(loader.load(3, other))
    parts = machine.by_name[RECORDS].parts
    for number, write in enumerate(writes, 1):
        model.write(*write)
        valid = model.record(3)["valid"]
        assert valid == (number < parts or number == len(writes)), number
    assert not model.flags()
    # Nothing else is written to the records.
    records = machine.by_name[RECORDS]
    start = records.base + 3 * records.stride
    assert [at for at, _ in writes if records.base <= at < records.base + records.span] == [
        *range(start, start + parts)] * 2


def test_slots_of_another_host_are_cleared(machine, images):
    model = MemoryModel(machine)
    Host(machine, model).load(images[0], 2)
    assert [model.record(slot)["valid"] for slot in range(4)] == [0, 0, 1, 0]
    model.write(*nobody(machine))  # a fault of before is no fault of the next host
    assert Host(machine, model).programs == {}
    assert [model.record(slot)["valid"] for slot in range(4)] == [0] * 4


def test_replacing(machine, images, networks):
    model = MemoryModel(machine)
    host = Host(machine, model)
    host.load(images[0], 1)
    before = model.writes
    with pytest.raises(ConfigError) as error:
        host.load(images[1], 1)
    said(error, "^test: slot 1 must be free, but holds test$")
    assert model.writes == before
    assert host.load(images[1], 1, replace=True) == 1
    assert_holds(model, 1, dict.fromkeys(machine.placed, 0), B, networks[1])
    again = build_image(machine, B, random_network(B.network, 9))  # trained anew
    assert host.load(again, 1, replace=True) == 1
    assert_holds(model, 1, dict.fromkeys(machine.placed, 0), B, random_network(B.network, 9))
    assert list(host.programs) == [1]


def test_unloading(machine, images):
    model = MemoryModel(machine)
    host = Host(machine, model)
    host.load(images[0])
    host.unload(0)
    assert host.programs == {} and not model.record(0)["valid"]
    for call in (host.unload, lambda slot: host.run(slot, np.zeros((1, 6, 5, 3), np.uint8))):
        with pytest.raises(ConfigError) as error:
            call(0)
        said(error, r"^slot must be one of \[\], which are loaded, not 0$")


def test_what_cannot_be_placed(machine, images, networks):
    host = Host(machine, MemoryModel(machine))
    for slot in (-1, 4):
        with pytest.raises(ConfigError, match=f"^slot must be 0 to 3, not {slot}$"):
            host.load(images[0], slot)
    other = machine_of(describe(*CONFIGS, hold=2, slots=4))
    model = MemoryModel(other)
    host, before = Host(other, model), model.writes
    with pytest.raises(ConfigError, match="must be an image of this machine"):
        host.load(images[0])
    assert model.writes == before
    small = machine_of(describe(A, hold=1, slots=1))
    image = build_image(small, A, random_network(A.network, 1))
    host = Host(small, MemoryModel(small))
    host.load(image)
    with pytest.raises(ConfigError, match=r"^test: no slot of 1 is free$"):
        host.load(image)
    rom = machine_of(describe_machine(Hardware.of([Program(A)])))
    for call in (lambda: Host(rom, MemoryModel(rom)), lambda: build_image(rom, A, networks[0])):
        with pytest.raises(ConfigError, match="must have memory 'ram' to be loaded, not 'rom'"):
            call()


def sized(machine: Machine, rows: dict[str, int]) -> Image:
    """An image with so many rows, all zero."""
    sections = {section.name: rows[section.name] for section in machine.contents}
    record = dict.fromkeys(machine.record, 0) | {"valid": 1} | {
        f"{name}_end": sections[name] for name in machine.placed}
    header = Header(name="x", sections=sections, record=record, classes=3, cycles=1,
                    frame=Frame(channels=1, height=1, width=1),
                    output=Output(kind="class", channels=3, height=1, width=1, bits=9))
    count = sum(sections[section.name] * section.parts for section in machine.contents)
    return Image(machine.hash, "0" * 64, header, np.zeros(count, np.uint32))


@pytest.mark.parametrize("seed", range(12))
def test_random_loads_and_unloads(seed):
    """No two programs overlap; refused only if a section has no hole, and then nothing changes."""
    values = describe(*CONFIGS, hold=4, slots=6)
    machine, rng = machine_of(values), random.Random(seed)
    loader, refused, placed_again = Loader(machine), 0, 0
    share = rng.choice([1, 2, 3])
    for _ in range(150):
        if loader.programs and rng.random() < 0.4:
            del loader.programs[rng.choice(list(loader.programs))]
            continue
        rows = {section.name: rng.randint(0, section.rows // share) for section in machine.contents}
        rows["biases"] = rows["tiles"]
        slot = rng.randrange(6)
        replacing = slot in loader.programs
        others = {k: each for k, each in loader.programs.items() if k != slot}
        taken = {name: {row for each in others.values() for row in each.rows(name)}
                 for name in machine.placed}
        fits = {name: [base for base in range(machine.by_name[name].rows - rows[name] + 1)
                       if not taken[name] & set(range(base, base + rows[name]))]
                for name in machine.placed}
        before = dict(loader.programs)
        try:
            _, placed = loader.place(sized(machine, rows), slot, replace=True)
        except ConfigError as error:
            name = str(error).split(": ")[1]
            assert not fits[name], name
            free = machine.by_name[name].rows - len(taken[name])
            assert f"needs {rows[name]} rows, has {free} free, at most " in str(error)
            refused += 1
            assert loader.programs == before
            continue
        for name, base in placed.bases.items():
            lowest, depth = fits[name][0], machine.by_name[name].rows
            at_end = lowest and rows[name] and not {*range(lowest, depth)} & taken[name]
            assert base == (depth - rows[name] if at_end else lowest if rows[name] else 0), name
        placed_again += replacing
        loader.programs[slot] = placed
        for name in machine.by_name:
            if name != RECORDS:
                found = [row for each in loader.programs.values() for row in each.rows(name)]
                assert len(found) == len(set(found))
                assert not found or max(found) < machine.by_name[name].rows
    assert refused and placed_again


def test_rows_together(machine):
    """Enough rows are free, but in two holes."""
    depth = machine.by_name["layers"].rows
    loader = Loader(machine)
    none = dict.fromkeys([section.name for section in machine.contents], 0)
    for slot in range(3):
        _, loader.programs[slot] = loader.place(sized(machine, none | {"layers": 2}), slot)
    assert [placed.bases["layers"] for placed in loader.programs.values()] == [0, depth - 2, 2]
    del loader.programs[0], loader.programs[1]
    with pytest.raises(ConfigError, match=rf"^x: layers: needs {depth - 2} rows, has {depth - 2} "
                                          rf"free, at most {depth - 4} of them together$"):
        loader.place(sized(machine, none | {"layers": depth - 2}))


def test_either_of_two_programs_is_replaced_by_a_longer_one():
    """Each lies at an end, so that what is free lies between them."""
    machine = machine_of(describe(*CONFIGS, hold=2, slots=2))
    none = dict.fromkeys([section.name for section in machine.contents], 0)
    for slot in (0, 1):
        loader = Loader(machine)
        for k in (0, 1):
            _, loader.programs[k] = loader.place(sized(machine, none | {"layers": 2}), k)
        longer = sized(machine, none | {"layers": machine.by_name["layers"].rows - 2})
        loader.place(longer, slot, replace=True)


def test_a_running_program_stays(machine, images, networks):
    """A load beside it works, one over it is refused by the machine."""
    model = MemoryModel(machine)
    host = Host(machine, model, seconds=0.1)
    host.load(images[0], 0)
    model.running = 0
    host.load(images[1], 1)
    before = {name: dict(rows) for name, rows in model.rows.items()}
    with pytest.raises(HostError) as error:
        host.load(images[2], 0, replace=True)
    said(error, "^slot 0: not loaded; a write was refused$")
    assert list(host.programs) == [1]
    assert_holds(model, 0, dict.fromkeys(machine.placed, 0), A, networks[0])
    assert model.rows[RECORDS] == before[RECORDS]
    with pytest.raises(HostError, match=r"^slot 0: not loaded; a write was refused$"):
        Host(machine, model, seconds=0.1)


class Ending(MemoryModel):
    """The frame in work ends behind so many writes."""

    left = 0

    def write(self, address, word):
        super().write(address, word)
        self.left -= 1
        if self.left == 0:
            self.running = None


def test_a_program_is_replaced_once_its_frame_has_ended(machine, images, networks):
    """However many writes that takes: what is valid then is the new one, whole."""
    for left in range(1, 400, 7):
        model = Ending(machine)
        host = Host(machine, model)
        host.load(images[0], 0)
        model.running, model.left = 0, left
        host.load(images[2], 0, replace=True)
        assert_holds(model, 0, dict.fromkeys(machine.placed, 0), C, networks[2])
        assert model.running is None and list(host.programs) == [0]


@pytest.mark.parametrize("late", [1, 40, -2])
def test_a_write_that_is_refused_leaves_no_program(machine, images, late):
    """One of the rows, or the record itself."""
    class Deaf(MemoryModel):
        def write(self, address, word):
            super().write(address, word)
            if self.writes == self.deaf:
                self._flags.add("load_error")

    model = Deaf(machine)
    model.deaf = None
    host = Host(machine, model, seconds=0.1)
    before = model.writes
    host.load(images[0], 0)
    count = model.writes - before
    model.deaf = model.writes + machine.by_name[RECORDS].parts + late % count
    with pytest.raises(HostError, match=r"^slot 0: test: not loaded; a write was refused$"):
        host.load(images[2], 0, replace=True)
    assert not host.programs and not model.record(0)["valid"]


def nobody(machine: Machine) -> tuple[int, int]:
    """A write to an address that belongs to no section."""
    used = {each.base + row * each.stride + part for each in machine.by_name.values()
            for row in range(each.rows) for part in range(each.parts)}
    return next(at for at in range(2**machine.load_address_bits) if at not in used), 0


@pytest.mark.parametrize("writes", [
    [(1, 0)], [(0, 0), (0, 0), (2, 0)], [(0, 0), ("nobody", 0), (1, 0)],
    [("nobody", 0)]])
def test_the_model_refuses_parts_out_of_order(machine, writes):
    section = next(each for each in machine.contents if each.parts > 2)
    model = MemoryModel(machine)
    for at, word in writes:
        model.write(*(nobody(machine) if at == "nobody" else (section.base + at, word)))
    assert model.flags() == {"load_error"} and not any(model.rows.values())


# ---- frames and results

def words_of(output: Output, values) -> np.ndarray:
    """A result as the engine sends it, bit by bit: docs/formats.md."""
    if output.kind == "class":
        return np.array([values[0], values[1] & 0xffffffff], np.uint32)
    bits = output.bits if output.kind == "codes" else 8
    number = position = 0
    for y in range(output.height):
        for x in range(output.width):
            for c in range(output.channels):
                number |= (int(values[c, y, x]) & (1 << bits) - 1) << position
                position += bits
    return np.array([number >> 32 * k & 0xffffffff for k in range(-(-position // 32))], np.uint32)


def test_frames_and_results(machine, images, networks):
    """Every kind of output, against the golden model."""
    def answer(slot, pixels):
        config, network = configs[slot].network, nets[slot]
        assert pixels.shape == (config.height * config.width, config.channels)
        trace = golden.run(network, pixels.reshape(1, config.height, config.width, -1))
        output = host.programs[slot].header.output
        if output.kind == "class":
            return words_of(output, (int(trace.classes[0]), int(trace.scores[0].max())))
        return words_of(output, (trace.values if output.kind == "map"
                                 else trace.codes[config.operations[-1].name])[0])

    for chosen in ([0, 2, 3], [1, 3]):
        host = Host(machine, MemoryModel(machine, answer))
        configs, nets = [CONFIGS[k] for k in chosen], [networks[k] for k in chosen]
        for k in chosen:
            host.load(images[k])
        for slot, (config, network) in enumerate(zip(configs, nets, strict=True)):
            pixels = random_images(config.network, 5, 1)
            results, trace = host.run(slot, pixels), golden.run(network, pixels)
            assert len(results) == 5
            for n, result in enumerate(results):
                if config.network.output == "class":
                    assert result == Class(trace.classes[n], trace.scores[n].max())
                    continue
                kind, wanted, dtype = {
                    "codes": lambda n=n, t=trace: (Codes, t.codes["b"][n], np.uint8),
                    "map": lambda n=n, t=trace: (Map, t.values[n], np.int8)}[
                        config.network.output]()
                assert type(result) is kind and result.values.dtype == dtype
                np.testing.assert_array_equal(result.values, wanted)
    assert host.run(0, np.zeros((0, 4, 8, 3), np.uint8)) == []


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (32, 1, 1), (7, 3, 4), (64, 8, 8)])
def test_results_of_all_shapes(bits, shape):
    rng = np.random.default_rng(bits)
    channels, height, width = shape
    kind = "map" if bits == 8 else "codes"
    output = Output(kind=kind, channels=channels, height=height, width=width, bits=bits)
    low, high, dtype = (-128, 128, np.int8) if bits == 8 else (0, 2**bits, np.uint8)
    values = rng.integers(low, high, shape).astype(dtype)
    words = words_of(output, values)
    assert result_length(output) == len(words)
    result = parse_result(output, words)
    assert result.values.shape == shape and result.values.dtype == dtype
    np.testing.assert_array_equal(result.values, values)
    for other in (words[:-1], [*words, 0]):
        with pytest.raises(HostError, match=f"must have {len(words)} words, not {len(other)}$"):
            parse_result(output, other)
    if values.size * bits % 32:
        words[-1] |= 1 << 31
        with pytest.raises(HostError, match=r"^bits behind a result must be 0$"):
            parse_result(output, words)


@pytest.mark.parametrize("score", [0, 1, -1, 2**31 - 1, -2**31])
def test_scores_are_signed(score):
    output = Output(kind="class", channels=3, height=1, width=1, bits=32)
    assert parse_result(output, words_of(output, (2, score))) == Class(2, score)
    with pytest.raises(HostError, match=r"^a class must be below 3, not 3$"):
        parse_result(output, words_of(output, (3, score)))


def test_pixels_come_in_raster_order():
    image = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    came = list(frames(Frame(channels=5, height=3, width=4), image))
    assert [each.shape for each in came] == [(12, 5)] * 2
    np.testing.assert_array_equal(np.concatenate(came).ravel(), np.arange(120))


@pytest.mark.parametrize("wrong, match", [
    (np.zeros((1, 6, 5, 3), np.int8), "not int8"), (np.zeros((6, 5, 3), np.uint8), "not uint8 .6,"),
    (np.zeros((1, 5, 6, 3), np.uint8), r"\[N, 6, 5, 3\], not uint8 \[1, 5, 6, 3\]$")])
def test_images_of_another_shape(machine, images, wrong, match):
    model = MemoryModel(machine, lambda *each: pytest.fail("was sent"))
    host = Host(machine, model)
    host.load(images[0])
    with pytest.raises(ConfigError, match=match):
        host.run(0, wrong)


# ---- what goes wrong

class Faulty(MemoryModel):
    """Sets flags at the second frame, or takes no pixels."""

    def __init__(self, machine, words, flags, takes=True):
        super().__init__(machine, lambda slot, pixels: words)
        self.sets, self.takes, self.waited = flags, takes, []

    def send(self, pixels):
        self._flags |= self.sets
        return self.takes and super().send(pixels)

    def receive(self, seconds):
        self.waited.append(seconds)
        return super().receive(seconds)


GOOD = np.array([1, 5], np.uint32)


@pytest.mark.parametrize("words, flags, takes, match", [
    (None, set(), True, r"^slot 0: test: frame 0: no result within 0\.5 s$"),
    (None, {"frame_error"}, True, r"no result within 0\.5 s; a frame of the wrong length was d"),
    (GOOD, {"frame_error"}, True, "^slot 0: test: frame 0; a frame of the wrong length was d"),
    (GOOD, {"unloaded"}, False, "its pixels were not taken; no program is in the selected slot$"),
    (GOOD, {"fire", "load_error"}, True, "frame 0; fire; a write was refused$"),
    (GOOD[:1], set(), True, "^slot 0: test: frame 0: a result must have 2 words, not 1$"),
])
def test_faults_in_one_line(machine, images, words, flags, takes, match):
    model = Faulty(machine, words, flags, takes)
    host = Host(machine, model, seconds=0.5)
    host.load(images[0])
    with pytest.raises(HostError) as error:
        host.run(0, np.zeros((3, 6, 5, 3), np.uint8))
    said(error, match)
    assert model.waited in ([], [0.5])
    model.sets, model.takes, model.answer = set(), True, lambda slot, pixels: GOOD
    assert host.run(0, np.zeros((1, 6, 5, 3), np.uint8)) == [Class(1, 5)]


def test_clips():
    """A clip is begun by name, and every second frame of it gives a result."""
    config = design([], (2, 2, 1), height=2, width=3, channels=1, operations=[
        conv("a", 2, 2, 2, frames=3, every=2), total("end", 2, 3, inputs=["a"])])
    machine = Machine(**describe_machine(Hardware.of([Program(config)], memory="ram")))
    image = build_image(machine, config, random_network(config.network, 1))
    assert Image.from_bytes(image.to_bytes()).header.period == image.header.period == 2
    said, sent, flags = [], [], set()

    class Clips(MemoryModel):
        def begin_clip(self):
            said.append("clip")

        def send(self, pixels):
            sent.append(pixels)
            self._flags |= flags
            return len(sent) % 2 == 1 or super().send(pixels)  # it gives nothing at odd ones

    host = Host(machine, Clips(machine, lambda slot, pixels: GOOD))
    host.load(image)
    for _ in range(2):
        assert host.run(0, np.zeros((5, 2, 3, 1), np.uint8)) == [Class(1, 5)] * 2
        sent.append(None)
    assert (said, len(sent)) == (["clip"] * 2, 12)
    flags.add("frame_error")  # of a frame that gives nothing, too
    with pytest.raises(HostError, match=r"^slot 0: test: frame 0; a frame of the wrong leng"):
        host.run(0, np.zeros((1, 2, 3, 1), np.uint8))
    with pytest.raises(ConfigError, match=r"serial line must read single frames, not clips$"):
        capacity(machine.hardware)


def test_a_record_that_is_lost(machine, images):
    model = MemoryModel(machine, lambda slot, pixels: GOOD)
    host = Host(machine, model)
    host.load(images[0])
    model.rows[RECORDS][0] = 0
    with pytest.raises(HostError, match=r"not taken; no program is in the selected slot$"):
        host.run(0, np.zeros((1, 6, 5, 3), np.uint8))


def test_a_list_of_writes(machine, images, networks):
    """What `hexlane load -o` writes fills a machine of unknown contents."""
    model = MemoryModel(machine)
    for slot in range(4):
        model.rows[RECORDS][slot] = 1
    loader, writes = load_list(machine, [images[3], images[1]], 1)
    for write in writes:
        model.write(*write)
    assert not model.flags()
    assert [model.record(slot)["valid"] for slot in range(4)] == [0, 1, 1, 0]
    for slot, k in ((1, 3), (2, 1)):
        assert_holds(model, slot, loader.programs[slot].bases, CONFIGS[k], networks[k])


def test_placed_rows(machine, images):
    placed = Placed(images[0], dict.fromkeys(machine.placed, 5) | {"tiles": 7})
    assert placed.rows("biases") == placed.rows("tiles") == range(7, 7 + 3)
    assert placed.rows("layers") == range(5, 8)


def test_equal_hardware_gives_equal_descriptions():
    one = Hardware.of([Program(A), Program(D)], memory="ram", hold=1, slots=2)
    other = Hardware.of([Program(D), Program(A)], memory="ram", hold=1, slots=2)
    assert describe(A, D, hold=1, slots=2) == describe(D, A, hold=1, slots=2)
    assert one == other and replace(one, tiles=99) != other
