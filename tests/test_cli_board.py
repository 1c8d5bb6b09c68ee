"""`hexlane board` without a board: what is refused, in one line, and with which exit code."""

import json
import os
import pty
import tty
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from export.config import parse_config
from export.hardware import Hardware
from export.machine import describe_machine
from export.program import Program
from hw.generate import generate
from sim.samples import random_network
from tests.designs import conv, design
from tests.test_cli import refused, run

CLASSES = design([conv("a", 4, 2, 2)], (2, 2, 1), height=4, width=5)
CODES = parse_config(design([], (2, 2, 1), height=4, width=5, operations=[
    conv("a", 4, 2, 2)]).model_dump() | {"name": "codes"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`classes` and `codes` with programs in ROM, `ram.json`, and pictures."""
    folder = tmp_path_factory.mktemp("board")
    for name, config in (("classes", CLASSES), ("codes", CODES)):
        generate(config, random_network(config.network, 1), folder / name)
    values = describe_machine(Hardware.of([Program(CLASSES)], memory="ram"))
    (folder / "ram.json").write_text(json.dumps({"machine": values}))
    rng = np.random.default_rng(1)
    for name, size in (("good", (4, 5, 3)), ("large", (5, 5, 3))):
        Picture.fromarray(rng.integers(0, 256, size).astype(np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def classify(*arguments, machine="classes/engine.json", image="good.png", port="nowhere") -> int:
    return run("board", "classify", image, "--port", port, "-m", machine, *arguments)


@pytest.mark.slow
def test_engine_json_says_what_a_host_has_to_know(folder):
    for name, gives in (("classes", {"kind": "class", "channels": 3, "height": 1, "width": 1}),
                        ("codes", {"kind": "codes", "channels": 4, "height": 4, "width": 5,
                                   "bits": 2})):
        facts = json.loads((folder / name / "engine.json").read_text())
        assert len(facts["programs"]) == 1
        for found in (facts, facts["programs"][0]):
            assert found["frame"] == {"channels": 3, "height": 4, "width": 5}
            assert found["gives"].items() >= gives.items()


@pytest.mark.parametrize("more, match", [
    ({"port": "nowhere"}, "could not open port nowhere"),
    ({"image": "large.png"}, "large.png: wanted 5x4 pixels, got 5x5"),
    ({"machine": "ram.json"}, "ram.json: this machine has programs in RAM: name one with"),
    ({"machine": "codes/engine.json"}, "codes: gives codes: name a file for them with --output"),
    ({"machine": "good.png"}, "good.png: must be JSON"),
])
def test_bad_calls(here, capsys, more, match):
    assert classify(**more) == 2
    assert match in refused(capsys)


def test_slots_and_programs_that_are_not_there(here, capsys):
    assert classify("--slot", 1) == 2
    assert refused(capsys) == "classes/engine.json: slot must be one of [0], not 1"
    assert classify("--program", "good.png") == 2
    assert refused(capsys).startswith("good.png: not a program image")


def test_an_engine_json_of_an_older_version(here, capsys):
    facts = json.loads(Path("classes/engine.json").read_text())
    first = facts["programs"][0]
    for programs in ([], None, [{"slot": 0, "name": "x", "frame": 3}], [{"slot": 0}], [3],
                     [first | {"slot": "a"}, first | {"slot": 1}], [first | {"gives": None}]):
        Path("old.json").write_text(json.dumps(facts | {"programs": programs}))
        assert classify("--slot", 2, machine="old.json") == 2
        assert refused(capsys).startswith("old.json: cannot be read: programs")


def test_a_board_that_does_not_answer(here, capsys):
    master, slave = pty.openpty()
    tty.setraw(slave)
    try:
        assert classify("--seconds", 0.05, port=os.ttyname(slave)) == 1
    finally:
        os.close(master)
        os.close(slave)
    assert refused(capsys) == ("the board does not answer a packet of type IDENTIFY, tried 3 times "
                               "for 0.05 s")


def test_without_pyserial(here, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "serial", None)
    assert classify() == 2
    assert refused(capsys) == "hexlane board needs serial: pip install 'hexlane[board]'"
