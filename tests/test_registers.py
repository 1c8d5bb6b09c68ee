"""The table of registers, and what is written from it."""

import json
import re
import subprocess
from itertools import pairwise

import pytest

from export.registers import ACCESSES, MAGIC, SPACE, as_json, c_header, markdown, register_map

MACHINE = {
    "hash": bytes(range(32)).hex(), "memory": "ram", "programs": 3, "load_address_bits": 10,
    "sections": [{"name": "programs"}, {"name": "layers"}], "outputs": ["class", "map"],
    "pixels": {"channels": 3, "bits": 24}, "capacities": {"classes": 10},
}


def test_values_that_identify():
    registers = register_map(MACHINE)
    values = {each.name: each.reset for each in registers.registers if each.fixed}
    assert values.pop("MAGIC") == MAGIC == 0x4D4C5848
    assert [values.pop(f"HASH{k}") for k in range(8)] == [
        0x03020100 + 0x04040404 * k for k in range(8)]
    assert values == {"VERSION": 1, "PROGRAMS": 3, "SECTIONS": 2, "WINDOW_BASE": 4096,
                      "WINDOW_SIZE": 4096, "CLASSES": 10, "FORMATS": 3 | 1 << 8 | 1 << 10}
    assert registers.address_bits == 13


def test_without_ram_there_is_no_window():
    registers = register_map(MACHINE | {"memory": "rom", "load_address_bits": 0})
    assert registers.address_bits == 8
    for name in ("WINDOW_BASE", "WINDOW_SIZE", "SECTIONS"):
        assert registers[name].reset == 0


@pytest.mark.parametrize("bits, base, total", [(1, 256, 9), (6, 256, 9), (7, 512, 10)])
def test_the_window_is_behind_the_registers_and_aligned(bits, base, total):
    registers = register_map(MACHINE | {"load_address_bits": bits})
    assert (registers.window_base, registers.window_size) == (base, 4 << bits)
    assert registers.window_base % registers.window_size == 0
    assert registers.address_bits == total


def test_table_is_sound():
    registers = register_map(MACHINE).registers
    assert all(a.offset < b.offset for a, b in pairwise(registers))
    assert len({each.name for each in registers}) == len(registers)
    for each in registers:
        assert each.offset % 4 == 0 and each.offset < SPACE and each.access in ACCESSES
        assert all(a.lowest + a.bits <= b.lowest for a, b in pairwise(each.fields))
        assert each.fields[-1].lowest + each.fields[-1].bits <= 32
        if not each.fixed:
            assert each.reset & ~sum(field.mask for field in each.fields) == 0


@pytest.mark.parametrize("programs, bits", [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_field_of_the_program(programs, bits):
    program = register_map(MACHINE | {"programs": programs})["PROGRAM"]
    assert program.fields[0].bits == bits and program.limit == programs


def test_markdown_and_json_say_what_the_table_says():
    registers = register_map(MACHINE)
    page, facts = markdown(registers, "engine"), json.loads(as_json(registers, "engine"))
    assert facts["window"] == {"offset": 4096, "size": 4096} and facts["address_bits"] == 13
    assert len(facts["registers"]) == len(registers.registers)
    for each, said in zip(registers.registers, facts["registers"], strict=True):
        assert (said["name"], said["offset"], said["reset"]) == (
            each.name, each.offset, each.reset)
        assert (f"| 0x{each.offset:02X} | `{each.name}` | {each.access} | 0x{each.reset:08X} | "
                f"{each.text} |\n") in page
    control = next(each for each in facts["registers"] if each["name"] == "CONTROL")
    assert [(field["name"], field["lowest"], field["bits"], field["access"])
            for field in control["fields"]] == [("RUN", 0, 1, "rw"), ("RESET", 1, 1, "wo")]
    assert "| 8 | `CLASS` | ro | results can be: class |" in page
    assert "| 0 ... 7 | `CHANNELS` | ro |" in page
    assert "| 1 | `RESET` | wo | write 1: " in page
    assert "| 0x1000 ... 0x1FFF | load window | wo |" in page
    assert "... " not in markdown(
        register_map(MACHINE | {"memory": "rom"}), "engine").partition("## FORMATS")[0]


def test_the_header_compiles_and_says_the_same(tmp_path):
    registers = register_map(MACHINE)
    header = c_header(registers, "net_a")
    (tmp_path / "net_a_registers.h").write_text(header)
    names = re.findall(r"^#define (\w+) ", header, re.MULTILINE)
    assert len(names) == len(set(names))
    (tmp_path / "print.c").write_text(
        '#include <stdio.h>\n#include "net_a_registers.h"\n#include "net_a_registers.h"\n'
        "int main(void) {\n"
        + "".join(f'printf("{name} %lu\\n", (unsigned long) {name});\n' for name in names)
        + "return 0; }\n")
    subprocess.run(["c++", "-x", "c", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic",
                    "print.c", "-o", "print"], cwd=tmp_path, check=True)
    lines = subprocess.run([tmp_path / "print"], capture_output=True, text=True, check=True).stdout
    wanted = {"NET_A_LOAD_OFFSET": 4096, "NET_A_LOAD_SIZE": 4096}
    for each in json.loads(as_json(registers, "net_a"))["registers"]:
        name = f"NET_A_{each['name']}"
        wanted |= {f"{name}_OFFSET": each["offset"], f"{name}_RESET": each["reset"]}
        for field in each["fields"]:
            if field["bits"] < 32:
                wanted |= {f"{name}_{field['name']}_SHIFT": field["lowest"],
                           f"{name}_{field['name']}_MASK":
                               ((1 << field["bits"]) - 1) << field["lowest"]}
    assert {name: int(value) for name, value in map(str.split, lines.splitlines())} == wanted
