"""Memory that is freed stays with the process."""

import resource
import subprocess
import sys

import pytest

SCRIPT = """
import resource
from model.allocator import keep_freed
if {keep}:
    assert keep_freed()
for k in range(10):
    b"x" * 2**26
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts pages as Linux does")
def test_pages_are_taken_once():
    pages = 2**26 // resource.getpagesize()
    faults = {keep: int(subprocess.check_output([sys.executable, "-c", SCRIPT.format(keep=keep)]))
              for keep in (True, False)}
    assert faults[False] - faults[True] > 8 * pages
