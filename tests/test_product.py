"""The Verilog and the memory files of the shipped designs are those that were recorded."""

import json

import pytest

from tests.product import DESIGNS, RECORD, hashes


@pytest.mark.slow
@pytest.mark.parametrize("name", DESIGNS)
def test_nothing_that_is_generated_changes_by_accident(name, tmp_path):
    assert hashes(name, tmp_path) == json.loads(RECORD.read_text())[name]
