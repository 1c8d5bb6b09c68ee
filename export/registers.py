"""The registers of the AXI4-Lite port: one table, from which hardware and files are made.

`hw/registers.py` builds what the table says; :func:`markdown`, :func:`c_header` and :func:`as_json`
write it down. All registers are 32 bits wide and lie at multiples of four bytes.

| access | a read gives | a write |
|---|---|---|
| `ro` | the value | is refused |
| `rw` | the value | sets it; bits outside of the fields are ignored |
| `w1c` | the value | clears the bits that are written as one; what happens at once is not lost |
| `wo` | zero | acts once |
"""

import json
from dataclasses import asdict, dataclass

MAGIC = int.from_bytes(b"HXLM", "little")
VERSION = 1  # of the register map
OUTPUTS = "class", "codes", "map"  # by their bit in OUTPUTS
SPACE = 0x100  # bytes that registers take up, gaps included
ACCESSES = {"ro": "read only", "rw": "read and write", "w1c": "read, write 1 to clear",
            "wo": "write only, reads as 0"}


@dataclass(frozen=True)
class Field:
    """`bits` of a register from bit `lowest` on; `access` if it is not that of the register."""

    name: str
    lowest: int
    bits: int
    text: str
    access: str | None = None

    @property
    def mask(self) -> int:
        return (1 << self.bits) - 1 << self.lowest


@dataclass(frozen=True)
class Register:
    """One register: `offset` in bytes; writes of `limit` and above are refused.

    `fixed`: it always reads as `reset`.
    """

    name: str
    offset: int
    access: str
    text: str
    fields: tuple[Field, ...]
    reset: int = 0
    fixed: bool = False
    limit: int | None = None


@dataclass(frozen=True)
class RegisterMap:
    """All registers by ascending offset, and the load window behind them, if there is one."""

    registers: tuple[Register, ...]
    window_base: int
    window_size: int  # bytes, a power of two of which the base is a multiple; 0: no window

    @property
    def address_bits(self) -> int:
        """Bits of a byte address."""
        return (max(SPACE, self.window_base + self.window_size) - 1).bit_length()

    def __getitem__(self, name: str) -> Register:
        return next(each for each in self.registers if each.name == name)


def _bits(*names_and_texts: tuple[str, str]) -> tuple[Field, ...]:
    """Single bits from bit 0 on."""
    return tuple(Field(name, k, 1, text) for k, (name, text) in enumerate(names_and_texts))


def _whole(text: str) -> tuple[Field, ...]:
    return (Field("VALUE", 0, 32, text),)


def register_map(machine: dict) -> RegisterMap:
    """The map for a machine, as `engine.json` describes it under "machine".

    The load window is there if the machine's memories are RAM.
    """
    size = 4 << machine["load_address_bits"] if machine["memory"] == "ram" else 0
    base = max(SPACE, size) if size else 0
    programs = machine["programs"]
    digest = bytes.fromhex(machine["hash"])

    def fixed(name, offset, value, text, fields=None):
        return Register(name, offset, "ro", text, fields or _whole(text), value, fixed=True)

    registers = (
        fixed("MAGIC", 0x00, MAGIC, 'the bytes "HXLM"'),
        fixed("VERSION", 0x04, VERSION, "version of this register map"),
        fixed("PROGRAMS", 0x08, programs, "programs that can be selected"),
        fixed("SECTIONS", 0x0C, len(machine["sections"]) if size else 0,
              "sections of the load window"),
        fixed("WINDOW_BASE", 0x10, base, "offset of the load window in bytes; 0: there is none"),
        fixed("WINDOW_SIZE", 0x14, size, "its size in bytes"),
        fixed("CLASSES", 0x18, machine["capacities"]["classes"], "classes at most"),
        fixed("FORMATS", 0x1C, machine["pixels"]["channels"]
              | sum(1 << 8 + k for k, kind in enumerate(OUTPUTS) if kind in machine["outputs"]),
              "what comes in and goes out",
              (Field("CHANNELS", 0, 8, "channels of a pixel, one byte each"),
               *(Field(kind.upper(), 8 + k, 1, f"results can be: {kind}")
                 for k, kind in enumerate(OUTPUTS)))),
        *(fixed(f"HASH{k}", 0x20 + 4 * k, int.from_bytes(digest[4 * k:4 * k + 4], "little"),
                f"bytes {4 * k} to {4 * k + 3} of the machine's hash, the first one lowest")
          for k in range(8)),
        Register("CONTROL", 0x40, "rw", "what the machine may do", (
            Field("RUN", 0, 1, "frames are accepted; if cleared within one, from the next on not"),
            Field("RESET", 1, 1, "write 1: frames in work are dropped, the rest of one that is "
                  "coming in too; what was loaded and the other registers stay", "wo"))),
        Register("PROGRAM", 0x44, "rw", "program of the next frame; a number that there is not is "
                 "refused", (Field("NUMBER", 0, max(1, (programs - 1).bit_length()),
                                   "its number, read with a frame's first pixel"),),
                 limit=programs),
        Register("STATUS", 0x48, "ro", "what the machine does", _bits(
            ("BUSY", "a frame is in work"),
            ("RESULT", "a word of a result waits to be taken"),
            ("RECEIVING", "a frame has begun to come in"),
            ("LOADED", "0: the selected program is not loaded, and no frame is in before"))),
        Register("ERRORS", 0x4C, "w1c", "what went wrong", _bits(
            ("SHORT", "a frame ended too early and was dropped"),
            ("LONG", "a frame did not end where it had to and was dropped, to its end"),
            ("LOAD", "the machine refused a word of the load window, with SLVERR too"),
            ("UNLOADED", "a frame is offered, but the selected program is not loaded"))),
        Register("IRQ_ENABLE", 0x50, "rw", "which causes raise `irq`", _bits(
            ("DONE", "see IRQ_STATUS"), ("ERROR", "see IRQ_STATUS"))),
        Register("IRQ_STATUS", 0x54, "w1c", "causes of an interrupt; `irq` is high while an "
                 "enabled one is set", _bits(
                     ("DONE", "the last word of a result was taken"),
                     ("ERROR", "a bit of ERRORS was set, or would have been had it been clear"))),
        Register("FRAMES", 0x58, "ro", "results whose last word was taken, modulo 2^32",
                 _whole("their number")),
        Register("CYCLES", 0x5C, "ro", "clock cycles in which the latest frame was in work; "
                 "its result is there in the next one", _whole("their number")),
    )
    return RegisterMap(registers, base, size)


def markdown(registers: RegisterMap, name: str) -> str:
    """The map as a page."""
    lines = [f"# Registers of `{name}`", "",
             f"32 bits each, byte addresses of {registers.address_bits} bits. Everything else, "
             "unaligned addresses and writes to what is read only are answered with SLVERR and "
             "change nothing. Byte strobes are honoured, but in the load window, which takes whole "
             "words.", "",
             "| offset | register | access | after reset | |", "|---|---|---|---|---|"]
    lines += [f"| 0x{each.offset:02X} | `{each.name}` | {each.access} | 0x{each.reset:08X} | "
              f"{each.text} |" for each in registers.registers]
    if registers.window_size:
        lines += [f"| 0x{registers.window_base:X} ... "
                  f"0x{registers.window_base + registers.window_size - 1:X} | load window | wo | | "
                  f"words of the sections that `{name}.json` lists; reads are refused |"]
    lines += ["", *(f"* {access}: {text}" for access, text in ACCESSES.items())]
    for each in registers.registers:
        if each.fields[0].bits < 32:
            lines += ["", f"## {each.name}", "", "| bits | field | access | |", "|---|---|---|---|"]
            lines += [f"| {_span(field)} | `{field.name}` | {field.access or each.access} | "
                      f"{field.text} |" for field in each.fields]
    return "\n".join(lines) + "\n"


def _span(field: Field) -> str:
    top = field.lowest + field.bits - 1
    return f"{field.lowest}" if top == field.lowest else f"{field.lowest} ... {top}"


def c_header(registers: RegisterMap, name: str) -> str:
    """The map as a C header; all names begin with `name` in capitals."""
    prefix = name.upper()
    lines = [f"/* Registers of {name}; do not edit. Offsets are in bytes. */",
             f"#ifndef {prefix}_REGISTERS_H", f"#define {prefix}_REGISTERS_H"]
    for each in registers.registers:
        register = f"{prefix}_{each.name}"
        lines += ["", f"/* {each.access}: {each.text} */",
                  f"#define {register}_OFFSET 0x{each.offset:X}u",
                  f"#define {register}_RESET 0x{each.reset:08X}u"]
        if each.fields[0].bits < 32:
            for field in each.fields:
                lines += [f"#define {register}_{field.name}_SHIFT {field.lowest}",
                          f"#define {register}_{field.name}_MASK 0x{field.mask:08X}u"]
    if registers.window_size:
        lines += ["", "/* wo: words of the sections of the machine */",
                  f"#define {prefix}_LOAD_OFFSET 0x{registers.window_base:X}u",
                  f"#define {prefix}_LOAD_SIZE 0x{registers.window_size:X}u"]
    return "\n".join([*lines, "", "#endif"]) + "\n"


def as_json(registers: RegisterMap, name: str) -> str:
    """The map as JSON."""
    return json.dumps({
        "name": name, "version": VERSION, "address_bits": registers.address_bits,
        "window": {"offset": registers.window_base, "size": registers.window_size},
        "registers": [asdict(each) | {"fields": [
            asdict(field) | {"access": field.access or each.access} for field in each.fields]}
            for each in registers.registers],
    }, indent=1) + "\n"


FILES = {"_registers.md": markdown, "_registers.h": c_header, "_registers.json": as_json}
