"""Place and route: what is read from nextpnr, what is said of it, and what is refused.

`nextpnr.json` has its reports of `toy.Toy(range(100, 200))` on two devices, seed 1, without places.
"""

import json
from pathlib import Path

import pytest

from export.config import ConfigError, load_config, parse_config
from hw import devices, pnr, synth
from hw.devices import DEVICES
from hw.path import Names
from hw.verilog import write_verilog
from sim.cli import main
from sim.report import clocks, table
from tests.test_synth import ENGINE

REPORTS = json.loads(Path(__file__).with_name("nextpnr.json").read_text())
NOTHING = {"cells": {}, "netnames": {}, "attributes": {}}
SMALL = """
    [network]
    height = 4
    width = 4
    channels = 1
    pad = 128
    classes = 2
    classifier_bits = 1

    [[network.layers]]
    name = "conv1"
    channels = 2
    weight_bits = 1
    code_bits = 1

    [array]
    rows = 1
    columns = 2
    words = 1
    precisions = [1]

    [target]
    """
TARGETS = {"ecp5": 'device = "LFE5U-25F"', "ice40": 'family = "ice40"', "gowin": 'family = "gowin"'}
PACKAGES = {"ecp5": "ecp5", "ice40": "ice40", "gowin": "himbaechel-gowin"}


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A design whose engine is the toy: `tmp_path/ecp5.toml`, and one of each other family."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import toy
    write_verilog(toy.Toy(range(100, 200)), tmp_path, "engine")
    for family, target in TARGETS.items():
        (tmp_path / f"{family}.toml").write_text(SMALL + target)
    facts = ENGINE | {
        "frame_period": 1000, "cycles_per_frame": 999,
        "hash": {"weights": "abc", "config": load_config(tmp_path / "ecp5.toml").digest}}
    (tmp_path / "engine.json").write_text(json.dumps(facts))
    return tmp_path


def hexlane(*arguments) -> int:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    return stop.value.code


def read(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


# --- What nextpnr says ---------------------------------------------------------------------------


def test_report_of_ecp5():
    found = pnr.read_report(REPORTS["LFE5U-25F"], Names(NOTHING))
    assert found["fmax_mhz"] == 270.34
    assert found["utilization"]["TRELLIS_COMB"] == {"available": 24288, "used": 70}
    assert "DP16KD" not in found["utilization"]  # none in use
    assert found["path"] == {
        "from": {"kind": "register", "module": "", "name": "$signature__addr"},
        "to": {"kind": "register", "module": "", "name": "$signature__addr", "pin": "data"},
        "luts": 3, "carries": 0, "ns": 3.7, "logic_ns": 1.23, "routing_ns": 2.47,
        "longest_route_ns": 0.96, "words":
            "register $signature__addr of the top -> 3 LUTs -> register $signature__addr of the "
            "top: 3.7 ns, 33% logic, 67% routing, the longest route 1.0"}
    assert found["path"]["ns"] == pytest.approx(1000 / found["fmax_mhz"], abs=0.01)


def test_report_of_ice40():
    found = pnr.read_report(REPORTS["iCE40UP5K"], Names(NOTHING))
    assert found["fmax_mhz"] == 95.79
    assert found["utilization"] == {"ICESTORM_LC": {"available": 5280, "used": 122},
                                    "SB_GB": {"available": 8, "used": 1},
                                    "SB_IO": {"available": 39, "used": 2}}
    assert found["path"]["words"] == (
        "register count of the top -> 2 LUTs -> clock enable of register count of the top: "
        "10.4 ns, 38% logic, 62% routing, the longest route 3.0")


def test_one_clock_is_timed():
    report = REPORTS["iCE40UP5K"]
    clocks = {"a": {"achieved": 1.0}, "b": {"achieved": 2.0}}
    with pytest.raises(RuntimeError, match="must time one clock, not 2"):
        pnr.read_report(report | {"fmax": clocks}, Names(NOTHING))


def test_median_of_seeds_is_a_seed():
    runs = [{"seed": seed, "fmax_mhz": fmax, "utilization": {"LC": seed},
             "path": {"words": f"path {seed}"}}
            for seed, fmax in ((1, 82.0), (2, 79.3), (3, 94.0), (4, 80.5))]
    middle = pnr.middle(runs[:3])
    assert (middle["fmax_mhz"], middle["critical_path"]) == (82.0, "path 1")
    assert middle["utilization"] == {"LC": 1}
    assert [run["seed"] for run in middle["runs"]] == [1, 2, 3]
    assert pnr.middle(runs)["fmax_mhz"] == 80.5  # the lower of two
    assert pnr.middle(runs[2:3])["fmax_mhz"] == 94.0


def test_reason_of_a_failure():
    log = "Info: a\nERROR: Unable to place cell 'x', no BELs remaining\nERROR: b\n1 warning\n"
    assert pnr.reason(log) == "Unable to place cell 'x', no BELs remaining"
    assert pnr.reason("Info: a\nwasm trap\n\n") == "wasm trap"
    assert pnr.reason("") == "no reason given"


def test_only_clock_and_reset_are_pins():
    module = {"ports": {name: {"bits": [bit]} for bit, name in enumerate(
                  ("clk", "rst", "busy", "pixels__valid"), 2)}, "attributes": {},
              "cells": {"a": {"type": "LUT4"}, "feeder": {"type": "$scopeinfo"}}}
    found = pnr.without_ports(module)
    assert [*found["ports"]] == ["clk", "rst"]
    assert [*found["cells"]] == ["a"]
    assert len(module["ports"]) == 4


def test_buffers_of_other_ports_go():
    ports = {name: {"bits": [bit]} for name, bit in (("clk", 2), ("rst", 3), ("busy", 4), ("d", 5))}
    cells = {name: {"type": kind, "connections": {"I": [inner], "O": [outer]}}
             for name, kind, inner, outer in (("a", "IBUF", 2, 12), ("b", "IBUF", 3, 13),
                                              ("c", "OBUF", 14, 4), ("d", "IBUF", 5, 15),
                                              ("e", "LUT4", 12, 14))}
    found = pnr.without_ports({"ports": ports, "cells": cells, "attributes": {}})
    assert [*found["cells"]] == ["a", "b", "e"]


# --- Frames per second follow from the clock -----------------------------------------------------


def test_frames_per_second_are_those_of_a_clock_that_was_measured():
    unknown = synth.speed(1200, None)
    assert unknown.pop("clock_note").endswith("`hexlane pnr` measures the clock")
    assert {*unknown.values()} == {None}
    timing = {"fmax_mhz": 34.56, "utilization": {"LC": 5}, "critical_path": "words",
              "runs": [{"seed": 1}, {"seed": 7}]}
    measured = synth.speed(1200, timing)
    assert measured == {
        "frames_per_second": 28800, "fmax_mhz": 34.56,
        "clock_note": "28,800.0 frames per second at 34.56 MHz, placed and routed "
                      "(median of seeds 1, 7)",
        "utilization": {"LC": 5}, "critical_path": "words", "timing": timing}


@pytest.mark.parametrize("target, message", [
    ({"device": "iCE40UP5K"}, "device must be LFE5U-85F or LFE5U-45F or LFE5U-25F for ecp5, "
                              "not 'iCE40UP5K'"),
    ({"family": "ice40", "device": "LFE5U-85F"}, "device must be iCE40UP5K or iCE40HX8K for "
                                                 "ice40, not 'LFE5U-85F'"),
    ({"family": "ice40", "speed": 6}, "speed is a grade of ecp5, there is none for ice40, not 6"),
    ({"speed": 5}, "speed: must be 6, 7 or 8, not 5"),
])
def test_device_of_another_family_is_refused(target, message):
    values = load_config("configs/tiny.toml").model_dump() | {"target": target}
    with pytest.raises(ConfigError, match=f"target(:|.) ?{message}$"):
        parse_config(values)


def test_devices():
    values = load_config("configs/tiny.toml").model_dump()
    usual = parse_config(values | {"target": {}}).target
    assert (usual.part, usual.grade) == ("LFE5U-85F", 6)
    chosen = parse_config(values | {"target": {"device": "LFE5U-45F", "speed": 8}}).target
    assert pnr.options(DEVICES[chosen.part], chosen.grade) == [
        "--45k", "--package", "CABGA381", "--lpf-allow-unconstrained", "--placer", "static",
        "--speed", "8", "--freq", "120", "--timing-allow-fail"]
    small = parse_config(values | {"target": {"family": "ice40"}}).target
    assert (small.part, small.grade) == ("iCE40UP5K", None)
    assert "--speed" not in pnr.options(DEVICES[small.part], small.grade)


# --- The netlist is mapped once ------------------------------------------------------------------


@pytest.mark.slow
def test_a_netlist_is_mapped_once(folder, monkeypatch):
    device, runs = DEVICES["iCE40UP5K"], []
    run = synth.run_yosys
    monkeypatch.setattr(synth, "run_yosys", lambda *a: (runs.append(a), run(*a))[1])
    first = synth.map_netlist(folder, device)
    assert synth.map_netlist(folder, device) == first and len(runs) == 1
    assert synth.sizes(first, device)["logic"] == 122  # as nextpnr.json has it
    for file, text in (("table.mem", "00000001\n" * 100), ("netlist.json", "{"),
                       ("netlist.json", "[]")):
        (folder / file).write_text(text)
        before = len(runs)
        synth.map_netlist(folder, device)
        synth.map_netlist(folder, device)
        assert len(runs) == before + 1, file
    assert synth.map_netlist(folder, DEVICES["LFE5U-25F"]) != first
    assert synth.map_netlist(folder, DEVICES["LFE5U-45F"]) and len(runs) == 5  # the same mapping


def test_timing_of_another_netlist_or_device_is_dropped(folder):
    assert synth.kept_timing(folder, "a") is None
    for text in ("", "[]", '{"timing": null}', "[" * 10**5, '{"timing": {"of": "a"}}',
                 '{"timing": [1]}'):
        (folder / "report.json").write_text(text)
        assert synth.kept_timing(folder, "a") is None
    timing = {"of": "a", "fmax_mhz": 9.5, "runs": [], "utilization": {}, "critical_path": ""}
    (folder / "report.json").write_text(json.dumps({"timing": timing}))
    assert synth.kept_timing(folder, "a") == timing
    assert synth.kept_timing(folder, "b") is None
    base = load_config("configs/tiny.toml").model_dump()
    module = {"attributes": {synth.DIGEST: "abc"}}
    timed = {synth.timed_netlist(module, parse_config(base | {"target": target}))
             for target in ({}, {"speed": 7}, {"device": "LFE5U-45F"})}
    assert len(timed) == 3


# --- The command ---------------------------------------------------------------------------------


def refused(capsys) -> str:
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and len(err) <= 310
    return err


@pytest.mark.parametrize("family", TARGETS)
def test_missing_nextpnr_is_one_line(folder, capsys, monkeypatch, family):
    monkeypatch.setattr(pnr, "find_spec", lambda name: None)
    assert hexlane("pnr", folder / f"{family}.toml", "-o", folder) == 2
    assert refused(capsys) == (f"error: hexlane pnr needs yowasp-nextpnr-"
                               f"{PACKAGES[family]}: pip install "
                               f"'hexlane[pnr]'\n")
    assert not (folder / "netlist.json").exists()  # said before anything is mapped


@pytest.mark.parametrize("seeds", ["", "a", "0", "-1", "1.5", "2147483648", "1 99999999999",
                                   "10000000000", "\u00b2"])
def test_bad_seeds_are_refused(folder, capsys, seeds):
    assert hexlane("pnr", folder / "ecp5.toml", "-o", folder, "--seeds", seeds) == 2
    assert "--seeds must be numbers from 1 to 2147483647, not " in refused(capsys)


def test_missing_engine_is_one_line(folder, capsys):
    (folder / "engine.json").write_text('{"hash": {}}')  # of an earlier version
    assert hexlane("pnr", folder / "ecp5.toml", "-o", folder) == 2
    assert "engine.json: cannot be read: name: is missing" in refused(capsys)


@pytest.mark.slow
def test_engine_that_does_not_fit_is_not_placed(folder, capsys, monkeypatch):
    monkeypatch.setitem(DEVICES["iCE40UP5K"].sites, "logic", 121)
    monkeypatch.setattr(pnr, "run_nextpnr", None)
    assert hexlane("pnr", folder / "ice40.toml", "-o", folder) == 1
    assert "does not fit the iCE40UP5K" in capsys.readouterr().out
    found = read(folder)
    assert (found["fits"], found["fmax_mhz"], found["frames_per_second"]) == (False, None, None)


@pytest.mark.slow
def test_what_takes_too_long_is_left_out(folder, capsys, monkeypatch):
    def run(folder, device, options, seed, limit):
        assert limit == 2.5
        return REPORTS["iCE40UP5K"] if seed == 5 else None
    monkeypatch.setattr(pnr, "run_nextpnr", run)
    command = "pnr", folder / "ice40.toml", "-o", folder, "--limit", 2.5, "--seeds"
    assert hexlane(*command, "4 5") == 0
    assert "seed 4: not done in 2.5 minutes, left out" in capsys.readouterr().out
    assert "at 95.79 MHz, placed and routed (median of seeds 5)" in read(folder)["clock_note"]
    assert read(folder)["timing"]["seeds_left_out"] == [4]
    assert not (folder / "pnr.json").exists()
    assert hexlane(*command, "6 7") == 1
    assert "nextpnr ended with no seed within 2.5 minutes" in refused(capsys)
    assert read(folder)["fmax_mhz"] is None


@pytest.mark.slow
def test_a_seed_is_run_once_and_kept(folder, capsys, monkeypatch):
    ran = []

    def run(folder, device, options, seed, limit):
        if seed == 4:
            raise RuntimeError("stopped")
        ran.append(seed)
        return REPORTS["LFE5U-25F"]
    monkeypatch.setattr(pnr, "run_nextpnr", run)
    command = "pnr", folder / "ecp5.toml", "-o", folder, "--seeds"
    assert hexlane(*command, "1 2 4") == 1
    assert [run["seed"] for run in read(folder)["timing"]["runs"]] == [1, 2]  # what had ended
    assert hexlane(*command, "2 3") == 0
    assert ran == [1, 2, 3]
    assert [run["seed"] for run in read(folder)["timing"]["runs"]] == [2, 3]
    assert read(folder)["frames_per_second"] == 270340
    monkeypatch.setattr(pnr, "version", lambda name: "another")
    assert hexlane(*command, "3") == 0
    assert ran == [1, 2, 3, 3]


@pytest.mark.slow
def test_a_run_is_bounded(folder):
    module = synth.map_netlist(folder, DEVICES["LFE5U-25F"])
    (folder / "pnr.json").write_text(json.dumps(
        {"modules": {"engine": pnr.without_ports(module)}}))
    device = DEVICES["LFE5U-25F"]
    assert pnr.run_nextpnr(folder, device, pnr.options(device, 6), 1, 0.001) is None


@pytest.mark.slow
def test_nextpnr_that_fails_is_told_in_one_line(folder, capsys, monkeypatch):
    (folder / "engine.v").write_text("""
        module engine(input clk, input d, output q); reg [6000:0] s; assign q = s[6000];
        always @(posedge clk) s <= {s, d}; endmodule""")
    monkeypatch.setitem(DEVICES["iCE40UP5K"].sites, "logic", 10000)
    assert hexlane("pnr", folder / "ice40.toml", "-o", folder, "--seeds", "3") == 1
    line = refused(capsys)
    assert "nextpnr_ice40 failed: " in line and f"all of it is in {folder / 'pnr-3.log'}" in line
    assert "BEL" in line or "place" in line
    assert not (folder / "pnr.json").exists()


def check_timing(folder: Path, family: str, seeds: str, out: str) -> dict:
    """The report of `folder`, after `hexlane pnr` with these seeds said `out`."""
    found = read(folder)
    fmax = sorted(run["fmax_mhz"] for run in found["timing"]["runs"])
    count = len(seeds.split())
    middle = fmax[(count - 1) // 2]
    assert len(fmax) == count and found["fmax_mhz"] == middle and len({*fmax}) > 1
    assert found["frames_per_second"] == round(middle * 1e6 / found["frame_period"], 1)
    assert (f"at {middle:g} MHz, placed and routed "
            f"(median of seeds {seeds.replace(' ', ', ')})") in out
    assert found["critical_path"] in out
    if family == "ice40":  # which is counted as nextpnr packs
        assert found["utilization"]["ICESTORM_LC"]["used"] == pytest.approx(found["logic"],
                                                                            rel=0.01)
    else:
        registers, pads = {"ecp5": ("TRELLIS_FF", "TRELLIS_IO"), "gowin": ("DFF", "IOB")}[family]
        assert found["utilization"][registers]["used"] == found["ff"]
        assert found["utilization"][pads]["used"] == 2
    if family == "ecp5":  # one for each constant comes on top
        assert 0 <= found["utilization"]["TRELLIS_COMB"]["used"] - found["logic"] <= 2
    for run in found["timing"]["runs"]:
        assert run["path"]["ns"] == pytest.approx(1000 / run["fmax_mhz"], rel=0.01)
        assert run["path"]["luts"] + run["path"]["carries"] > 0
    assert not [*folder.glob("pnr*.json"), *folder.glob("*.cst")]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("family", TARGETS)
def test_a_component_is_placed_and_routed(folder, capsys, family):
    assert hexlane("pnr", folder / f"{family}.toml", "-o", folder, "--seeds", "1 2 3") == 0
    found = check_timing(folder, family, "1 2 3", capsys.readouterr().out)
    names = {run["path"]["from"]["name"] for run in found["timing"]["runs"]}
    assert names <= {"count", "history.$signature__addr", "$signature__addr"}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ice40", *(
    pytest.param(each, marks=pytest.mark.long) for each in ("ecp5", "gowin"))])
def test_an_engine_is_placed_and_routed(tmp_path, capsys, monkeypatch, family):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(SMALL + TARGETS[family])
    assert hexlane("generate", "mine.toml", "--weights", "random") == 0
    assert hexlane("synth", "mine.toml") == 0
    assert "frames per second: not known" in capsys.readouterr().out
    folder = Path("build/mine")
    assert " MHz" not in table([folder])
    with pytest.raises(ConfigError, match=r"no report; `hexlane pnr` writes it: nothing was"):
        clocks([folder])
    mapped = (folder / "netlist.json").stat().st_mtime_ns
    assert hexlane("pnr", "mine.toml", "--seeds", "1 2 3") == 0
    found = check_timing(folder, family, "1 2 3", capsys.readouterr().out)
    # What was measured stays until it is of another netlist.
    assert hexlane("synth", "mine.toml") == 0
    assert read(folder) == found and f"| **{found['fmax_mhz']:.1f}** |" in clocks([folder])
    assert (folder / "netlist.json").stat().st_mtime_ns == mapped
    assert hexlane("generate", "mine.toml", "--weights", "random", "--seed", "2") == 0
    assert hexlane("synth", "mine.toml") == 0
    assert read(folder)["fmax_mhz"] is None


def test_devices_are_those_of_configurations():
    from export.config import DEVICES as names
    for family, members in names.items():
        assert all(devices.DEVICES[name].family == family for name in members)
