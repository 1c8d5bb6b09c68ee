"""`hexlane peers` without any peer: what is given to them, what is read, compared and refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from export.checked import ConfigError
from export.config import load_config
from hw import peers, pnr
from hw.synth import DIGEST
from sim import peers as comparison
from sim.cli import main

CONFIGS = Path(__file__).parent.parent / "configs"
MVAU = """
module mvau #(parameter int {parameters}) (input logic aclk, input logic aresetn,
                                           output logic [TW*SIMD-1:0] out [0:PE-1]);
   mvau_weight_mem_merged #(.WIDTH(TW*SIMD)) memories(.*);
endmodule
"""
NAMES = ("KDim", "IFMCh", "OFMCh", "IFMDim", "MatrixW", "MatrixH", "SIMD", "PE", "WMEM_DEPTH",
         "TSrcI", "TSrcI_BIN", "TI", "TW", "TW_BIN", "TDstI", "TO", "TA", "OP_SGN")
EACH = '''
def gen_mvau_weight_mem(n):
    with open(f"mvau_weight_mem{n}.sv", "w") as file:
        file.write(f"module mvau_weight_mem{n} #(parameter int WIDTH=1) (input logic aclk, "
                   f"output logic [WIDTH-1:0] out);\\n"
                   f"logic [WIDTH-1:0] rows [0:8]; logic [3:0] at;\\n"
                   f"initial $readmemh(\\"weight_mem{n}.mem\\", rows);\\n"
                   f"always_ff @(posedge aclk) begin at <= at + 1; out <= rows[at]; end\\n"
                   f"endmodule\\n")
'''
MERGED = '''
def gen_mvau_weight_mem_merged(count):
    with open("mvau_weight_mem_merged.sv", "w") as file:
        file.write("module mvau_weight_mem_merged #(parameter int WIDTH=1) (input logic aclk, "
                   f"output logic [WIDTH-1:0] out [0:{count - 1}]);\\n")
        for n in range(count):
            file.write(f"mvau_weight_mem{n} #(.WIDTH(WIDTH)) m{n}(.aclk, .out(out[{n}]));\\n")
        file.write("endmodule\\n")
'''
BUSY = {"TRELLIS_COMB": {"available": 9, "used": 2000}, "TRELLIS_FF": {"available": 9, "used": 70},
        "DP16KD": {"available": 9, "used": 3}}


@pytest.fixture
def checkout(tmp_path):
    """A stand-in for FINN_MatrixVector_RTL: memories of weights and nothing else."""
    source = tmp_path / "finn/proj/src/mvau_top"
    (source / "mvau_stream").mkdir(parents=True)
    (source / "mvau.sv").write_text(
        MVAU.replace("{parameters}", ", ".join(f"{name}=0" for name in NAMES)))
    (source / "mvau_control_block.sv").write_text("")
    (source / "gen_mvau_weight_mem.py").write_text(EACH)
    (source / "gen_mvau_weight_mem_merged.py").write_text(MERGED)
    return tmp_path / "finn"


def timing(of: str, fmax: float, placer: str) -> dict:
    run = {"seed": 1, "fmax_mhz": fmax, "utilization": BUSY, "path": {"words": "a path"}}
    return {"of": of, "nextpnr": pnr.require(peers.DEVICE),
            "options": " ".join(peers.PLACERS[placer]), **pnr.middle([run])}


def made(unit: str, bits: int, macs: int, comb: int, fmax: float) -> dict:
    return {"unit": unit, "bits": bits, "macs": macs, "comb": comb, "ff": 12345, "block_ram": 7,
            "fmax_mhz": fmax, "clocks": {"static": [fmax, fmax + 1]}}


def hexlane(*arguments) -> int:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    return stop.value.code


def refused(capsys) -> str:
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    return err


# --- What is compared ----------------------------------------------------------------------------


@pytest.mark.parametrize("bits, wanted", [(1, 3072), (2, 1536), (3, 1024)])
def test_macs_of_an_engine(bits, wanted):
    config = comparison.small("one", [bits])
    assert comparison.macs(config, bits) == wanted
    assert config.array.precisions == (bits,)
    assert {layer.code_bits for layer in config.network.convs} == {bits}
    assert comparison.macs(load_config(CONFIGS / "cifar10.toml"), bits) == wanted


@pytest.mark.parametrize("bits, levels", [(1, {-1, 1}), (2, {-1, 0, 1}), (3, {-2, -1, 0, 1, 2})])
def test_weights_have_every_level(bits, levels):
    found = peers.weights(bits)
    assert found.shape == (144, 16) and {*found.flat} == levels
    assert (found == peers.weights(bits)).all()


@pytest.mark.slow
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_memories_of_finn_hold_the_weights(checkout, tmp_path, monkeypatch, bits):
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    unit = peers.finn(checkout, tmp_path / "unit", bits)
    assert (unit.macs, unit.bits, unit.placers) == (256, bits, ("static", "heap"))
    for element, wanted in enumerate(peers.weights(bits).T):
        rows = (unit.folder / f"weight_mem{element}.mem").read_text().split()
        text = "".join(f"{int(row, 16):0{16 * bits}b}" for row in rows)
        codes = np.array([int(text[n:n + bits], 2) for n in range(0, len(text), bits)])
        if bits == 1:
            codes = 2 * codes - 1
        else:
            codes = np.where(codes >> bits - 1, codes - 2**bits, codes)
        assert (codes == wanted).all()
    assert f"wire width {16 * bits} " in (unit.folder / "mvau.il").read_text()
    before = (unit.folder / "mvau.il").read_bytes()
    peers.finn(checkout, tmp_path / "unit", bits)  # so a netlist is known again
    assert (unit.folder / "mvau.il").read_bytes() == before
    assert not list(checkout.rglob("__pycache__"))


@pytest.mark.slow
def test_sources_that_cannot_be_read_are_one_line(checkout, tmp_path):
    (checkout / peers.SOURCES / "mvau.sv").write_text("module mvau; oh; endmodule")
    with pytest.raises(RuntimeError, match=r"^Yosys failed: .*; all of it is in .*read.log$"):
        peers.finn(checkout, tmp_path / "unit", 2)
    (checkout / peers.SOURCES / "gen_mvau_weight_mem.py").write_text("raise ValueError('so')")
    with pytest.raises(RuntimeError, match=r"its generator failed: ValueError: so$"):
        peers.finn(checkout, tmp_path / "unit", 2)


# --- What is measured ----------------------------------------------------------------------------


def test_placers_differ_in_nothing_else():
    assert "--placer static" in " ".join(peers.PLACERS["static"])
    assert peers.PLACERS["static"] == pnr.options(peers.DEVICE, 6)
    assert sorted([*peers.PLACERS["heap"], "--placer", "static"]) == sorted(
        peers.PLACERS["static"])


@pytest.mark.parametrize("clocks, placer", [((90.0, 80.0), "static"), ((80.0, 90.0), "heap")])
def test_a_peer_has_its_better_placer_and_nothing_is_run_twice(tmp_path, monkeypatch, clocks,
                                                               placer):
    module = {"attributes": {DIGEST: "abc"}, "cells": {}, "netnames": {},
              "ports": {name: {"bits": [bit]} for bit, name in enumerate(
                  ("aclk", "aresetn", "in"))}}
    monkeypatch.setattr(peers, "map_netlist", lambda *arguments: module)
    ran = []
    for name, clock in zip(peers.PLACERS, clocks, strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(
            json.dumps({"timing": timing("abc LFE5U-85F 6", clock, name)}))
    monkeypatch.setattr(pnr, "run_nextpnr", lambda folder, *arguments: ran.append(
        json.loads((folder / "pnr.json").read_text())["modules"]["engine"]["ports"]))
    unit = peers.Unit("a", 2, 256, tmp_path, "top", ("top.il",), ("aclk", "aresetn"),
                      tuple(peers.PLACERS))
    said = []
    found = peers.measure(unit, [1], 1, said.append)
    assert found == {"unit": "a", "bits": 2, "macs": 256, "comb": 2000, "ff": 70, "block_ram": 3,
                     "fmax_mhz": 90, "critical_path": "a path", "placer": placer,
                     "clocks": {"static": [clocks[0]], "heap": [clocks[1]]}}
    assert not ran and said[0] == f"a, 2 bit, static: seed 1: {clocks[0]:.1f} MHz, a path"
    module["attributes"][DIGEST] = "another"
    with pytest.raises(RuntimeError, match="nextpnr ended with no seed"):
        peers.measure(unit, [1], 1, said.append)
    assert [[*ports] for ports in ran] == [["aclk", "aresetn"]]


def test_what_is_not_in_use_counts_as_none():
    used = {"TRELLIS_COMB": {"used": 5}}
    found = peers.row("a", 1, 4, {"utilization": used, "fmax_mhz": 1.5, "critical_path": ""})
    assert (found["comb"], found["ff"], found["block_ram"]) == (5, 0, 0)


def test_clock_of_an_engine_that_was_timed_before(tmp_path):
    config = load_config(CONFIGS / "cifar10.toml")
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"timing": timing("abc LFE5U-85F 6", 110.0, "static")}))
    rows = comparison.shipped(config, tmp_path)
    assert [(each["bits"], each["macs"]) for each in rows] == [(1, 3072), (2, 1536), (3, 1024)]
    assert {(each["unit"], each["comb"], each["fmax_mhz"]) for each in rows} == {
        ("`cifar10`", 2000, 110)}
    for bad in (json.dumps({"timing": timing("abc LFE5U-25F 6", 110.0, "static")}),
                '{"timing": null}', "[]", "", "{}"):
        report.write_text(bad)
        with pytest.raises(ConfigError, match="is no report that `hexlane pnr` wrote"):
            comparison.shipped(config, tmp_path)
    report.unlink()
    with pytest.raises(ConfigError, match="is no report that `hexlane pnr` wrote"):
        comparison.shipped(config, tmp_path)


# --- What is printed -----------------------------------------------------------------------------


def test_ratios_are_to_finn_of_the_same_precision():
    rows = [made(peers.FINN, 2, 256, 4000, 60.0), made("`a`", 1, 3000, 20000, 100.0),
            made("`a`", 2, 1500, 20000, 80.0), made(peers.FINN, 1, 256, 1000, 100.0)]
    head, _, *lines = comparison.table(rows).splitlines()
    assert head.count("|") == 10 and all(line.count("|") == 10 for line in lines)
    assert lines == [
        "| `a` | 1 | 3,000 | 20,000 | 12,345 | 7 | 100.0 (static 100.0, 101.0) | 15.00 | 0.59x |",
        "| FINN's RTL unit | 1 | 256 | 1,000 | 12,345 | 7 | 100.0 (static 100.0, 101.0) | 25.60 "
        "| 1.00x |",
        "| FINN's RTL unit | 2 | 256 | 4,000 | 12,345 | 7 | 60.0 (static 60.0, 61.0) | 3.84 "
        "| 1.00x |",
        "| `a` | 2 | 1,500 | 20,000 | 12,345 | 7 | 80.0 (static 80.0, 81.0) | 6.00 | 1.56x |"]
    assert comparison.table(rows[1:3]).count("|  |") == 2  # nothing to compare with


@pytest.mark.parametrize("there", [False, True])
def test_all_that_is_there_is_compared(tmp_path, monkeypatch, capsys, checkout, there):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEXLANE_FINN", str(checkout))
    (tmp_path / "build/megabit").mkdir(parents=True)
    (tmp_path / "build/megabit/report.json").write_text(
        json.dumps({"timing": timing("abc LFE5U-85F 6", 110.0, "static")}))
    seen = []

    def measure(unit, seeds, limit, say):
        seen.append((*unit, seeds))
        return made(unit[0], unit[1], 256, 1000, 100.0)
    monkeypatch.setattr(peers, "measure", measure)
    monkeypatch.setattr(peers, "has_alkaid", lambda: there)
    monkeypatch.setattr(peers, "finn", lambda path, folder, bits: (peers.FINN, bits))
    monkeypatch.setattr(peers, "alkaid", lambda folder, bits: (peers.ALKAID, bits))
    monkeypatch.setattr(comparison, "engine", lambda folder, bits: ("engine", bits))
    assert hexlane("peers", CONFIGS / "megabit.toml", "--seeds", "4 5") == 0
    out = capsys.readouterr().out
    assert ("alkaid is not installed and left out" in out) is not there
    assert [(name, seeds) for name, bits, seeds in seen if bits == 1] == [
        (peers.FINN, [4, 5]), *([(peers.ALKAID, [4, 5])] if there else []), ("engine", [1])]
    assert len(seen) == (9 if there else 6)
    assert "| `megabit` | 3 | 1,024 | 2,000 |" in out and out.count("\n* ") == 5


def test_what_is_missing_is_one_line(tmp_path, monkeypatch, capsys, checkout):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEXLANE_FINN", raising=False)
    assert hexlane("peers") == 2
    assert "wanted --finn or HEXLANE_FINN" in refused(capsys)
    assert hexlane("peers", "--finn", tmp_path / "nowhere") == 2
    assert "mvau.sv: is missing; --finn names a checkout" in refused(capsys)
    (checkout / peers.SOURCES / "gen_mvau_weight_mem_merged.py").unlink()
    assert hexlane("peers", "--finn", checkout) == 2
    assert "gen_mvau_weight_mem_merged.py: is missing" in refused(capsys)
    assert hexlane("peers", CONFIGS / "megabit.toml", "--finn", checkout) == 2
    assert "build/megabit/report.json: is no report" in refused(capsys)
    for option in ("--seeds", "--engine-seeds"):
        assert hexlane("peers", "--finn", checkout, option, "0") == 2
        assert f"{option} must be numbers from 1 to 2147483647, not '0'" in refused(capsys)
