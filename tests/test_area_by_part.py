"""The table of what each part of a netlist takes."""

import json

from tests.area_by_part import main, parts

CELLS = {"array.sum_TRELLIS_FF_Q": "TRELLIS_FF", "array.sum_LUT4_Z": "LUT4",
         "array.row$3.x_LUT4_Z": "LUT4", "epilogue.pool.best_CCU2C_S0": "CCU2C",
         "epilogue.gate.x_LUT4_Z": "LUT4", "ready_LUT4_Z": "LUT4", "array.clock": "DCCA"}


def test_cells_count_for_the_part_whose_signal_they_drive(tmp_path, capsys):
    module = {"cells": {name: {"type": kind} for name, kind in CELLS.items()}}
    assert parts(module) == {"array": {"TRELLIS_FF": 1, "LUT4": 2},
                             "epilogue.pool": {"CCU2C": 1}, "epilogue.gate": {"LUT4": 1},
                             "engine": {"LUT4": 1}}
    (tmp_path / "netlist.json").write_text(json.dumps({"modules": {"engine": module}}))
    main(str(tmp_path))
    assert "| array | 2 | 0 | 1 | 0 | 0 |" in capsys.readouterr().out
