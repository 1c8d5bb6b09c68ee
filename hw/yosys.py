"""Runs Yosys, which turns RTLIL into the Verilog product and synthesises it."""

import re
import subprocess
import sys
from pathlib import Path

# The `pyosys` wheel is native: unlike the WebAssembly build of Yosys it has no first-call compile
# of a minute, sees every path, and synthesises a third faster. It runs in a process of its own
# because it ends the process on any error and writes its log straight to the file descriptor.
_YOSYS = """
import sys
from pyosys import libyosys
design = libyosys.Design()
for command in sys.stdin.read().splitlines():
    design.run_pass(command)
"""


class YosysError(RuntimeError):
    """A command failed: `log` is what Yosys wrote until then, `reason` its line that says why."""

    def __init__(self, log: str):
        super().__init__(f"Yosys failed:\n{tail(log)}")
        self.log = log
        lines = [line for line in log.splitlines() if line.strip()] or ["no reason given"]
        reasons = [line for line in lines if re.match(r"ERROR|Assert|terminate", line)]
        self.reason = (reasons or lines[-1:])[0].removeprefix("ERROR: ")[:160]


def run_yosys(script: str, cwd: Path) -> str:
    """Runs a script of one Yosys command a line in folder `cwd` and returns the log.

    Raises
    ------
    YosysError
        If any command fails; the message ends in the last lines of the log.
    """
    commands = "\n".join(line.strip() for line in script.splitlines() if line.strip())
    done = subprocess.run([sys.executable, "-c", _YOSYS], input=commands, cwd=cwd, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise YosysError(done.stdout)
    return done.stdout


def tail(log: str, lines: int = 20) -> str:
    return "\n".join(log.rstrip().splitlines()[-lines:])
