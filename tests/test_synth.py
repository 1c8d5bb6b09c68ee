import json
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from hw import synth
from hw.verilog import write_verilog

CONFIGS = Path(__file__).parent.parent / "configs"
ENGINE = {"cycles_per_frame": 10, "array_use": 0.5, "weight_bits": 40, "bias_bits": 3,
          "program_bits": 4, "seed_bits": 1, "total_bits": 48,
          "hash": {"weights": "abc"}, "measured": None}


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import toy
    write_verilog(toy.Toy(range(100, 200)), tmp_path, "engine")
    (tmp_path / "engine.json").write_text(json.dumps(ENGINE))
    return tmp_path


def run(folder, config="cifar10"):
    app = Typer()
    app.command()(synth.main)
    return CliRunner().invoke(app, [str(CONFIGS / f"{config}.toml"), "--build", str(folder)])


@pytest.mark.parametrize("config, device", [("cifar10", "LFE5U-85F"), ("tiny", "iCE40UP5K")])
def test_report_has_sizes_and_what_the_engine_says(folder, config, device):
    result = run(folder, config)
    assert result.exit_code == 0
    assert f"{config} fits the {device}" in result.stdout
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
    assert report["accuracy_note"] == "not measured for these weights; `make eval` does"


def test_engine_that_does_not_fit_is_an_error(folder, monkeypatch):
    monkeypatch.setitem(synth.DEVICES["ecp5"].sites, "logic", 10)
    result = run(folder)
    assert result.exit_code == 1
    assert "does not fit the LFE5U-85F" in result.stdout
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


def test_missing_engine_is_one_line(tmp_path):
    result = run(tmp_path)
    assert result.exit_code == 2
    assert result.stderr.endswith("engine.v: is missing; `make verilog` writes it\n")
    assert result.stderr.count("\n") == 1


