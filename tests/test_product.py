"""The Verilog and the memory files of the shipped designs are those that were recorded.

Those that :mod:`tests.test_verilog` simulates are compared there: generating them takes seconds.
"""

import json

import pytest

from tests.product import DESIGNS, RECORD, hashes
from tests.test_verilog import SHIPPED, SHIPPED_CLIPS


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*DESIGNS} - {*SHIPPED, SHIPPED_CLIPS}))
def test_nothing_that_is_generated_changes_by_accident(name, tmp_path):
    assert hashes(name, tmp_path) == json.loads(RECORD.read_text())[name]
