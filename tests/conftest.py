"""One thread for each worker, one folder of objects for all, quick tests before slow ones."""

import os
import sys
import tempfile
from pathlib import Path

# Before numpy and torch are imported: their threads would spin against each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config):
    """Makes the folder of :mod:`tests.objects`; workers of xdist find it in their environment."""
    if "OBJCACHE" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="hexlane-objects-")
        config.add_cleanup(folder.cleanup)
        script = Path(__file__).with_name("objects.py")
        os.environ |= {"HEXLANE_OBJECTS": folder.name, "OBJCACHE": f"{sys.executable} -SE {script}"}
    from sim.runner import VERILATOR_OPTIONS
    # One file of C++ for each model: half the work of twenty, as the workers take all cores anyway.
    VERILATOR_OPTIONS += ["--output-split", "0"]


def pytest_collection_modifyitems(items):
    """No quick test waits behind one that builds Verilog, in any worker."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
