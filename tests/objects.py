"""Compiles what every Verilator build has in common once per test session, not for each design.

Verilator's Makefiles call this as `OBJCACHE`: with a compiler's command line, in the folder of a
build. Sources of Verilator's own are the same for all designs and take most of a small build; their
objects are kept in `HEXLANE_OBJECTS`, a name for each command line. All else is compiled as usual.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path


def compile_once(command: list[str], kept: Path):
    """Runs `command`, ... -o OBJECT SOURCE, or takes its object from the folder `kept`.

    Workers may do so at once: the first compiles, the others wait for it.
    """
    made = Path(command[command.index("-o") + 1])
    known = kept / hashlib.sha256("\0".join(command).encode()).hexdigest()
    with open(f"{known}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not known.exists():
            subprocess.run(command, check=True)
            part = Path(f"{known}.part")
            shutil.copyfile(made, part)
            part.rename(known)
    shutil.copyfile(known, made)


if __name__ == "__main__":
    # Frames are few and small here: optimisation takes longer than it saves.
    sys.argv = [word.replace("-O1", "-O0") for word in sys.argv]
    if Path(sys.argv[-1]).parent == Path(os.environ["VERILATOR_ROOT"]) / "include":
        try:
            compile_once(sys.argv[1:], Path(os.environ["HEXLANE_OBJECTS"]))
        except subprocess.CalledProcessError as error:
            sys.exit(error.returncode)
    else:
        os.execvp(sys.argv[1], sys.argv[1:])
