"""Sizes of a mapped netlist, the report, and what is refused."""

import json
from pathlib import Path

import pytest

from export.area import estimate
from export.build import size, with_networks
from export.config import ConfigError, load_config
from export.cost import Cost
from hw import synth
from hw.devices import DEVICES
from hw.verilog import write_verilog
from sim.cli import main
from sim.report import clocks, table

CONFIGS = Path(__file__).parent.parent / "configs"
PROGRAM = {"name": "toy", "frame_period": 20_000_000, "cycles_per_frame": 10,
           "array_use": 0.5, "weight_bits": 40, "bias_bits": 3,
           "program_bits": 4, "seed_bits": 1, "total_bits": 48,
           "frame": {"channels": 1, "height": 4, "width": 4},
           "gives": {"kind": "class", "channels": 2, "height": 1, "width": 1, "bits": 9},
           "layers": [{"name": "a", "word_bits": 3, "weight_bits": 40, "cycles": 10,
                       "array_use": 0.5}]}
ENGINE = PROGRAM | {"hash": {"weights": "abc", "config": "def"}, "measured": None,
                    "programs": [PROGRAM]}


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import toy
    write_verilog(toy.Toy(range(100, 200)), tmp_path, "engine")
    return tmp_path


def run(folder, config="cifar10"):
    """Exit code, for an engine that says it is of this configuration."""
    path = CONFIGS / f"{config}.toml"
    facts = ENGINE | {"hash": {"weights": "abc", "config": load_config(path).digest}}
    (folder / "engine.json").write_text(json.dumps(facts))
    return synthesise(folder, config)


def synthesise(folder, config="cifar10"):
    with pytest.raises(SystemExit) as stop:
        main(["synth", str(CONFIGS / f"{config}.toml"), "-o", str(folder)])
    return stop.value.code


@pytest.mark.slow
@pytest.mark.parametrize("config, device", [("cifar10", "LFE5U-85F"), ("tiny", "iCE40UP5K")])
def test_report_has_sizes_and_what_the_engine_says(folder, capsys, config, device):
    assert run(folder, config) == 0
    assert f"{config} fits the {device}" in capsys.readouterr().out
    report = json.loads((folder / "report.json").read_text())
    assert report["device"] == device
    assert report["ff"] >= 7 + 2 + 3  # addresses of table and history, and the count
    assert 20 < report["lut4"] < 200
    assert report["dsp"] == 0
    assert report["fits"]
    assert all(report[key] == ENGINE[key]
               for key in ENGINE if key.endswith("_bits") or key in ("cycles_per_frame",
                                                                     "array_use"))
    assert report["accuracy"] is None
    assert report["accuracy_note"] == "not measured for these weights; `hexlane evaluate` does"


@pytest.mark.slow
def test_engine_that_does_not_fit_is_an_error(folder, capsys, monkeypatch):
    monkeypatch.setitem(DEVICES["LFE5U-85F"].sites, "logic", 10)
    assert run(folder) == 1
    assert "does not fit the LFE5U-85F" in capsys.readouterr().out
    assert not json.loads((folder / "report.json").read_text())["fits"]


def test_accuracy_is_of_the_same_network(tmp_path):
    path = tmp_path / "accuracy.json"
    path.write_text(json.dumps(
        {"accuracy": 0.9, "images": 100, "split": "test", "digest": "abc"}))
    shipped = {"measured": {"accuracy": 0.8, "images": 50, "split": "validation"}}
    assert synth.accuracy_fields(path, ENGINE) == {
        "accuracy": 0.9, "accuracy_images": 100, "accuracy_split": "test", "accuracy_note": None}
    other = ENGINE | {"hash": {"weights": "def"}}
    assert synth.accuracy_fields(path, other)["accuracy"] is None
    assert synth.accuracy_fields(path, other | shipped)["accuracy"] == 0.8


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 10**5])
def test_damaged_accuracy_is_one_line(folder, capsys, text):
    (folder / "accuracy.json").write_text(text)
    assert run(folder) == 2
    assert "accuracy.json: is no accuracy; " in refused(capsys)


def refused(capsys) -> str:
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and len(err) <= 310
    return err


def test_missing_engine_is_one_line(tmp_path, capsys):
    assert synthesise(tmp_path) == 2
    assert refused(capsys).endswith("engine.v: is missing; `hexlane generate` writes it\n")


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", "[" * 10**5, "\ufffd"])
def test_damaged_description_is_one_line(folder, capsys, text):
    (folder / "engine.json").write_text(text)
    assert synthesise(folder) == 2
    assert "engine.json: cannot be read: " in refused(capsys)


@pytest.mark.parametrize("change, message", [
    ({"hash": []}, "hash: must be a table, not []"),
    ({"hash": None}, "hash: must be a table, not None"),
    ({"hash": "abc"}, "hash: must be a table, not 'abc'"),
    ({"hash": {"weights": "abc"}}, "hash.config: is missing"),
    ({"hash": {"config": 1, "weights": "abc"}}, "hash.config: must be a string, not 1"),
    ({"measured": 3}, "measured: must be a table, not 3"),
    ({"total_bits": "48"}, "total_bits: must be an integer, not '48'"),
    ({"frame_period": 0}, "frame_period: must be greater than or equal to 1, not 0"),
    ({"array_use": float("nan")}, "array_use: must be finite, not nan"),
    ({"programs": 3}, "programs: must be a list, not 3"),
    ({"programs": []}, "programs: must have at least 1 items, not []"),
    ({"programs": [{}]}, "programs.0.name: is missing"),
    ({"programs": [PROGRAM | {"layers": [{}]}]}, "programs.0.layers.0.name: is missing"),
    ({"programs": [PROGRAM | {"slot": "a"}]}, "programs.0.slot: must be an integer, not 'a'"),
    *(({key: ...}, f"{key}: is missing") for key in ENGINE)])
def test_a_damaged_part_of_a_description_is_one_line(folder, capsys, change, message):
    facts = ENGINE | {"hash": {"weights": "abc",
                               "config": load_config(CONFIGS / "cifar10.toml").digest}} | change
    facts = {key: value for key, value in facts.items() if value is not ...}
    (folder / "engine.json").write_text(json.dumps(facts))
    assert synthesise(folder) == 2
    assert refused(capsys) == f"error: {folder / 'engine.json'}: cannot be read: {message}\n"


def test_engine_of_another_design_is_refused(folder, capsys):
    (folder / "engine.json").write_text(json.dumps(
        ENGINE | {"name": "other", "hash": {"config": "0", "weights": "abc"}}))
    assert synthesise(folder) == 2
    assert "holds the engine of 'other', or of another configuration" in refused(capsys)
    assert not (folder / "report.json").exists()


@pytest.mark.slow
def test_an_engine_of_several_networks(tmp_path, monkeypatch):
    """Its area is that of the whole machine; all of its networks count."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synth, "map_netlist", lambda *_: {
        "cells": {}, "ports": {}, "attributes": {synth.DIGEST: "none"}})
    text = """
array = {rows = 2, columns = 2, words = 1}
[network]
height = 4
width = %d
channels = 1
layers = [{name = "a", channels = 2, weight_bits = 3, code_bits = 3}]
"""
    Path("one.toml").write_text(text % 4 + """[machine]
memory = "ram"
networks = ["two.toml"]
""")
    Path("two.toml").write_text(text % 2000)
    with pytest.raises(SystemExit):
        main(["generate", "one.toml", "--weights", "none"])
    folder = Path("build/one")
    found = synth.report(load_config("one.toml"), folder)
    hardware, _ = size(with_networks(load_config("one.toml")))
    assert found["estimated"] == estimate(hardware, "ecp5").cells
    assert found["estimated"] != estimate(Cost.of(load_config("one.toml")).hardware, "ecp5").cells
    Path("two.toml").write_text(text % 1000)
    with pytest.raises(ConfigError, match="holds the engine of 'one', or of another configuration"):
        synth.report(load_config("one.toml"), folder)


def test_a_yosys_that_fails_is_told_in_one_line(folder, capsys):
    (folder / "engine.v").write_text("module engine(input a; endmodule\n")
    assert run(folder) == 1
    line = refused(capsys)
    assert "Yosys failed: " in line and f"all of it is in {folder / 'synth.log'}" in line
    assert "syntax error" in (folder / "synth.log").read_text()


@pytest.mark.slow
def test_a_table_of_reports(folder, capsys):
    assert run(folder) == 0
    found = json.loads((folder / "report.json").read_text())
    head, _, row = table([folder]).splitlines()
    assert row.startswith("| `cifar10` (LFE5U-85F) |  | 48 | 10 |  | ")
    assert f"| {found['logic']:,} (0%) | {found['block_ram']} (0%) |" in row
    assert head.count("|") == row.count("|")
    for damaged in ({"utilization": [1]}, {"available": 0}):
        (folder / "report.json").write_text(json.dumps(found | damaged))
        with pytest.raises(ConfigError, match=r"report\.json: is no report; `hexlane pnr` writes"):
            clocks([folder])
    (folder / "report.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"report\.json: is no report; `hexlane synth` writes it"):
        table([folder])
