"""Writes the Verilog product: Amaranth writes RTLIL, Yosys turns that into Verilog.

What either writes in a way that a reader or another tool would stumble over is mended here.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import chain, count, takewhile
from pathlib import Path

from amaranth import ClockSignal, Instance, ResetSignal, Value
from amaranth.back import rtlil
from amaranth.lib import wiring

from export.config import ConfigError
from hw.yosys import run_yosys

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*")
_MODULE = re.compile(r"^module \\(\S+)\n(.*?)^end\n", re.MULTILINE | re.DOTALL)
_PORT = re.compile(r"^  wire width \d+ (?:input|output) \d+ +(?:signed )?\\(\S+)", re.MULTILINE)
_INSTANCE = re.compile(r"^  cell \\(\S+)", re.MULTILINE)
_MEMORY_CELL = re.compile(r"^  cell \$mem(init|wr)_v2 .*?^  end\n", re.MULTILINE | re.DOTALL)
_ELEMENT = re.compile(  # of an array: the wire with its attributes, and what drives it
    r"^(?:  attribute .*\n)*  wire width \d+ +(?:signed )?\\\S*\[\S*\n|^connect \\\S*\[\S* .*\n",
    re.MULTILINE)
_READMEM = re.compile(r' \[(\d+):0\];\n  initial \$readmemb\((?:{MEMORY_FOLDER, "/|")([^"]*)"}?, '
                      r'(\\?[^ ),]+ ?)(?:, 0, \d+)?\)')

TIME_ZERO = "time_zero"
KEEP_ZEROS = "keep_zeros"
FOLDER = "MEMORY_FOLDER"


def write_verilog(component: wiring.Component, folder: Path, name: str,
                  header: Sequence[str] = (), *, memory_prefix: str = "",
                  beside: Callable[[Sequence[str]], Mapping[str, str]] | None = None) -> Path:
    """Writes `component` as `folder/name.v` with top module `name`, and returns that path.

    The lines of `header` become comments on top. Each initialised memory becomes a `$readmemb` file
    beside the Verilog, called after the memory, with `memory_prefix` in front: as inline `initial`
    assignments, one megabit of weights takes Yosys minutes to read. The top module's parameter
    `MEMORY_FOLDER` says where a tool finds them, seen from where it runs. Identical modules, of
    which Amaranth writes one for each instance, are merged; the names of all begin with `name`.
    `beside` gives the text of the files that belong to the Verilog, by name, from the names of its
    memory files. The same component gives the same bytes on every run; nothing half-written is ever
    left in `folder`, and what was there stays if this fails.

    Raises
    ------
    ConfigError
        If `name` cannot be that of a module and of a file.
    """
    component._MustUse__used = True  # even if it is refused; else Amaranth warns
    if not _NAME.fullmatch(name) or len(name) > 64:
        raise ConfigError(f"top module: wanted letters and digits, single underscores between "
                          f"them, at most 64, got {name[:80]!r}")
    folder.mkdir(parents=True, exist_ok=True)
    export = _Export(name)
    # Source locations would put the paths of this machine into the product.
    text = rtlil.convert(component, name=name, platform=export, emit_src=False)
    # Amaranth declares an element of an array beside the array, for the eye. Its name is that of a
    # bit select, and some commands of Yosys name bits so: they end in a failed assertion.
    text = _ELEMENT.sub("", text + "".join(export.texts))
    modules = {match[1]: _drop_zero_init(match[2]) for match in _MODULE.finditer(text)}
    modules = _merge_identical(modules)
    with _part_of(folder) as part:
        (part / "design.il").write_text(
            "".join(f"module \\{module}\n{body}end\n" for module, body in modules.items()))
        # What amaranth.back.verilog runs, and -extmem, which needs a file to write to.
        run_yosys("""
            read_rtlil design.il
            proc -nomux -norom
            memory_collect
            attrmap -remove amaranth.hierarchy -remove amaranth.decoding -remove keep_zeros
            write_verilog -norename -extmem design.v
            """, part)
        body = (part / "design.v").read_text()
        if f"module {name}(" not in body:  # escaped
            raise ConfigError(f"top module: {name!r} is a word of Verilog")
        memories = {written: memory_prefix + file for written, file in _memory_names(body).items()}
        for written, file in memories.items():
            os.replace(part / written, part / file)
        # Without the addresses, simulators warn that older ones filled an array from its other end.
        body = _READMEM.sub(lambda match: f' [{match[1]}:0];\n  initial $readmemb({{{FOLDER}, '
                            f'"/{memories[match[2]]}"}}, {match[3]}, 0, {match[1]})', body)
        lines = [*header, f"Written by Amaranth {version('amaranth')} "
                          f"and Yosys {version('pyosys')}; do not edit."]
        comment = "".join(f"// {_plain(line)}".rstrip() + "\n" for line in lines)
        product = folder / f"{name}.v"
        texts = {product.name: f"{comment}\n{_pass_folder(_tidy(body))}"}
        if beside:
            texts |= beside([*memories.values()])
        for file, text in texts.items():
            (part / file).write_text(text)

        # The Verilog goes first and comes last: wherever it is, its memory files are complete. What
        # is beside it comes after it.
        old = [product.name, *texts]
        if product.is_file():
            old += [file for _, file in _memories(product) if re.fullmatch(r"\w+\.mem", file)]
        _replace(folder, part, [*old, *memories.values()], [*memories.values(), *texts])
    return product


@contextmanager
def _part_of(folder: Path):
    """A folder in `folder` that is removed afterwards, or by the next call if this one is killed.

    The name ends in the process that it belongs to.
    """
    for part in folder.glob(".part-*"):
        if not _runs(part.name.rpartition("-")[2]):
            shutil.rmtree(part, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-", suffix=f"-{os.getpid()}") as part:
        yield Path(part)


def _runs(process: str) -> bool:
    try:
        if (number := int(process)) == 0:  # a signal to it would go to our own group
            return False
        os.kill(number, 0)
    except PermissionError:  # of another user
        return True
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    return True


def _replace(folder: Path, part: Path, old: Iterable[str], new: Iterable[str]):
    """Moves the files `old` out of `folder` and `new` from `part` into it, or nothing."""
    away = part / "old"
    away.mkdir()
    moved = []
    try:
        for file in dict.fromkeys(old):
            if (folder / file).is_dir():
                raise ConfigError(f"{folder / file}: wanted a file to write, got a folder")
            if os.path.lexists(folder / file):
                os.replace(folder / file, away / file)
                moved.append((away / file, folder / file))
        for file in new:
            os.replace(part / file, folder / file)
            moved.append((folder / file, part / file))
    except BaseException:
        for here, there in reversed(moved):
            os.replace(here, there)
        raise


def _plain(line: str) -> str:
    """`line` as printable ASCII that cannot end a comment, nor continue it on the next line."""
    return re.sub(r"[^ -~]|\\$", lambda found: ascii(found[0])[1:-1], line)


def shared(component: wiring.Component, platform, name: str):
    """`component` as a submodule that :func:`write_verilog` writes but once.

    All components that are shared under the same name are one Verilog module. Amaranth alone would
    elaborate, check and write every instance of a processing element, which for a hundred of them
    takes most of a minute. Simulation in Amaranth is not concerned.
    """
    return platform.instance(component, name) if isinstance(platform, _Export) else component


class _Export:
    """The platform for which :func:`write_verilog` elaborates: it keeps shared modules."""

    def __init__(self, top: str):
        self.top = top
        self.texts = []  # RTLIL of the shared modules
        self.first = {}  # the component of each, and the ports that Amaranth gave it

    def instance(self, component: wiring.Component, name: str) -> Instance:
        module = f"{self.top}.{name}"
        component._MustUse__used = True  # else Amaranth warns that it is not
        if name not in self.first:
            text = rtlil.convert(component, name=module, platform=self, emit_src=False)
            self.texts.append(text)
            top = next(match[2] for match in _MODULE.finditer(text) if match[1] == module)
            self.first[name] = component, set(_PORT.findall(top))
        first, ports = self.first[name]
        if _parameters(first) != _parameters(component):
            raise ValueError(f"all components shared as {name!r} must have the same parameters, "
                             f"not {_parameters(first)} and {_parameters(component)}")
        wires = {f"i_{port}": wire for port, wire in
                 (("clk", ClockSignal()), ("rst", ResetSignal())) if port in ports}
        for path, member, value in component.signature.flatten(component):
            if len(Value.cast(value)):
                prefix = "i_" if member.flow == wiring.In else "o_"
                wires[prefix + "__".join(map(str, path))] = Value.cast(value)
        return Instance(module, **wires)


def _parameters(component: wiring.Component) -> dict:
    return {"class": type(component)} | {
        name: value for name, value in vars(component).items()
        if name not in component.signature.members and not name.startswith("_")
        and name != "src_loc"}


def _tidy(body: str) -> str:
    """Repairs and polishes the Verilog that Yosys writes."""
    body = re.sub(r"\A/\* Generated by Yosys.*?\*/\n+", "", body)
    # A process waits for a change of what it reads, so it has to be woken up at time zero. Yosys
    # lets each read a register that is declared with a value, but in SystemVerilog that is not a
    # change. A nonblocking assignment is one, when all processes wait.
    name = r"\\\$auto\$verilog_backend\.cc:\d+:dump_module\$\d+ "
    body = re.sub(rf"^  reg {name} = 0;\n", "", body, flags=re.MULTILINE)
    body = re.sub(name, TIME_ZERO, body)
    # Processes that drive a part of a signal are left out by Yosys; one that drives a constant
    # would not run at all.
    body = re.sub(r"^  always @\*\n    (.*;)\n",
                  rf"  always @* begin\n    if ({TIME_ZERO}) begin end\n    \1\n  end\n",
                  body, flags=re.MULTILINE)
    body = re.sub(r"^module (?s:.*?)^endmodule\n", _declare_time_zero, body, flags=re.MULTILINE)
    # A signal without bits would be declared with two, of which none is used.
    body = re.sub(r"^  (wire|reg) (signed )?\[-1:0\] \S+ ?;\n", "", body, flags=re.MULTILINE)
    # The aliases of a register carry its initial value too, as an attribute.
    return re.sub(r"^  \(\* init = .* \*\)\n", "", body, flags=re.MULTILINE)


def _declare_time_zero(module: re.Match) -> str:
    if f"if ({TIME_ZERO})" not in module[0]:
        return module[0]
    return module[0].replace(  # behind the ports, which may take several lines
        ");\n", f");\n  reg {TIME_ZERO};\n  initial {TIME_ZERO} <= 1'h0;\n", 1)


def _pass_folder(body: str) -> str:
    """Hands the parameter `MEMORY_FOLDER` from the top module down to all that read memory files.

    "." is where the tool runs. The empty string would not do: to Verilog it is a zero character,
    and Icarus takes no file name that begins with one.
    """
    modules = {match[1]: match[0] for match in re.finditer(
        r"^module (\w+)\((?s:.*?)^endmodule\n", body, re.MULTILINE)}
    found = {name for name, text in modules.items() if FOLDER in text}
    readers = set()
    while found - readers:
        readers |= found
        instance = re.compile(rf"^  ({'|'.join(sorted(readers))}) (?=\S)", re.MULTILINE)
        found = {name for name, text in modules.items() if instance.search(text)}
    for name in readers:
        text = modules[name].replace(");\n", f');\n  parameter {FOLDER} = ".";\n', 1)
        text = instance.sub(rf"  \1 #(.{FOLDER}({FOLDER})) ", text)
        body = body.replace(modules[name], text)
    return body


def _memories(verilog: Path) -> list[tuple[int, str]]:
    """Words and file of each memory that a written Verilog file initialises."""
    text = verilog.read_text(errors="replace")
    return [(int(match[1]) + 1, match[2]) for match in _READMEM.finditer(text)]


def memory_files(verilog: Path) -> dict[str, int]:
    """The memory files that a written Verilog file loads from beside it, and the words of each.

    Raises
    ------
    ConfigError
        If the name of one is not a plain name, so that the file is not beside the Verilog.
    """
    files = {file: words for words, file in _memories(verilog)}
    for file in files:
        if not re.fullmatch(r"\w+\.mem", file):
            raise ConfigError(f"{verilog}: wanted memory files beside it, got {file[:80]!r}")
    return files


def _drop_zero_init(body: str) -> str:
    """Drops the initial zeros of memories that can be written.

    Amaranth zeroes every memory. For a buffer that is a useless file, and four-state simulation
    would no longer show a word that is read before it is written. A ROM of zeros stays, and so
    does a memory with the attribute `KEEP_ZEROS`.
    """
    written = {_memory_of(cell[0]) for cell in _MEMORY_CELL.finditer(body) if cell[1] == "wr"}
    written -= {f'"\\{name}"' for name in re.findall(
        rf"^  attribute \\{KEEP_ZEROS} 1\n(?:  attribute .*\n)*  memory .* (\\\S+)\n", body,
        re.MULTILINE)}

    def keep(cell: re.Match) -> str:
        zero = re.search(r"connect \\DATA \d+'0+\n", cell[0])
        return "" if cell[1] == "init" and zero and _memory_of(cell[0]) in written else cell[0]

    return _MEMORY_CELL.sub(keep, body)


def _memory_of(cell: str) -> str:
    return re.search(r"parameter \\MEMID (.*)", cell)[1]


def _merge_identical(modules: dict[str, str]) -> dict[str, str]:
    """Keeps one of each set of identical modules, under a plain identifier.

    `top.pe_0_0` to `top.pe_7_7`, if identical, become `top__pe`; `top.control` is `top__control`.
    """
    merged = {name: [name] for name in modules}
    while True:  # parents may become identical when their children have
        alike = {}
        for name, body in modules.items():
            alike.setdefault(body, []).append(name)
        keeper = {name: names[0] for names in alike.values() for name in names}
        if len(alike) == len(modules):
            break
        for name, kept in keeper.items():
            if name != kept:
                merged[kept] += merged.pop(name)
        modules = {names[0]: _rename_instances(body, keeper) for body, names in alike.items()}
    plain = {}
    for kept, names in merged.items():
        common = _common_name(names)
        plain[kept] = kept.replace(".", "__") if common in plain.values() else common
    return {plain[name]: _rename_instances(body, plain) for name, body in modules.items()}


def _rename_instances(body: str, names: dict[str, str]) -> str:
    return _INSTANCE.sub(lambda cell: f"  cell \\{names.get(cell[1], cell[1])}", body)


def _common_name(names: list[str]) -> str:
    paths = [name.split(".") for name in names]
    if len({len(path) for path in paths}) > 1:
        return names[0].replace(".", "__")
    parts = []
    for level in zip(*paths, strict=True):
        same = takewhile(lambda pair: pair[0] == pair[1], zip(min(level), max(level), strict=False))
        common = "".join(a for a, _ in same)
        parts.append(common if len(set(level)) == 1 else common.rstrip("0123456789_") or level[0])
    return "__".join(parts)


def _memory_names(body: str) -> dict[str, str]:
    """The file name that Yosys gave to each memory, and a better one: that of the memory."""
    names = {}
    for match in _READMEM.finditer(body):
        stem = re.sub(r"\W+", "_", match[3]).strip("_") or "memory"
        candidates = chain([stem], (f"{stem}_{n}" for n in count(2)))
        names[match[2]] = next(
            f"{name}.mem" for name in candidates if f"{name}.mem" not in names.values())
    return names
