"""The host library against generated Verilog: programs loaded, replaced, run, side by side."""

import json

import pytest

from export.file import save_network
from export.hardware import Hardware
from export.image import build_image
from export.machine import describe_machine
from export.pack import empty
from export.program import Program
from hw.engine import Engine
from hw.verilog import write_verilog
from sim.runner import run_bench
from sim.samples import random_network
from tests.designs import conv, design
from tests.test_image import machine_of

GENERATED = {"kernel": 1, "generator": {"outputs": 4, "inputs": 6}}
A = design([conv("a", 4, 3, 2), conv("b", 4, 2, 1), conv("c", 8, 2, 2, **GENERATED)], (2, 4, 2),
           height=4, width=4)
B = design([conv("a", 8, 2, 2, pool=True), conv("b", 8, 1, 2, skip="a", gate="or")], (2, 4, 2),
           height=4, width=6, channels=2, pad=9)
C = design([conv("a", 5, 2, 1), conv("c", 8, 2, 2, **GENERATED)], (2, 4, 2), height=3, width=5)
CODES = design([], (2, 4, 2), height=4, width=4, operations=[
    conv("a", 5, 3, 3), conv("b", 7, 2, 2, pool=True)])
VALUES = design([], (2, 4, 2), height=8, width=4, channels=1, fold=2, operations=[
    conv("a", 5, 3, 3), {"kind": "map", "name": "b", "channels": 6, "weight_bits": 3,
                         "out_bits": 5}])


@pytest.mark.slow
@pytest.mark.parametrize("framed, configs", [(False, (A, B, C)), (True, (A, CODES, VALUES))])
def test_host_and_verilog(tmp_path, framed, configs):
    hardware = Hardware.of([Program(each) for each in configs], memory="ram", hold=2, slots=3)
    write_verilog(Engine(hardware, empty(hardware), framed), tmp_path, "engine")
    values = describe_machine(hardware)
    (tmp_path / "engine.json").write_text(json.dumps({"machine": values}))
    machine, names = machine_of(values), ["first", "second", "third", "again"]
    for seed, (name, config) in enumerate(zip(names, (*configs, configs[0]), strict=True)):
        network = random_network(config.network, seed)
        build_image(machine, config, network).save(tmp_path / f"{name}.hxi")
        save_network(network, tmp_path / f"{name}.npz")
    (tmp_path / "names.json").write_text(json.dumps(names))
    run_bench(verilog=tmp_path, top="engine", bench="tests.bench_load", simulator="verilator",
              build=tmp_path / "sim", environment={"HEXLANE_LOAD": str(tmp_path)})
