"""What the documentation tells a user to type, typed."""

import re
import shlex
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from export.clips import ClipsConfig
from export.codec import CodecConfig
from export.config import TrainConfig
from export.descriptor import FIELDS
from export.detect import DetectConfig
from export.registers import register_map
from sim.cli import main
from tests.test_registers import MACHINE

DOCS = Path(__file__).parent.parent / "docs"


def do(page: str) -> list[str]:
    """Every block of a page, in order, in this folder; returns the blocks' kinds."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", (DOCS / page).read_text(),
                        re.MULTILINE | re.DOTALL)
    for kind, text in blocks:
        if kind == "toml":
            name = re.match(r'name = "(\w+)"', text)
            Path(f"{name[1] if name else 'mine'}.toml").write_text(text)
        elif kind == "python":
            exec(compile(text, page, "exec"), {})
        else:
            for line in text.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "hexlane"
                with pytest.raises(SystemExit) as stop:
                    main(arguments)
                assert stop.value.code == 0, line
    return [kind for kind, _ in blocks]


@pytest.mark.parametrize("page, recipe", [
    ("training.md", TrainConfig), ("compression.md", CodecConfig), ("detection.md", DetectConfig),
    ("video.md", ClipsConfig)])
def test_recipes_have_these_defaults(page, recipe):
    """Each field of a recipe is in its page's table, with its default; sub-tables by name only."""
    rows = re.findall(r"^\| (`[^|]*`) \| ([^|]*) \|", (DOCS / page).read_text(), re.MULTILINE)
    listed = {}
    for names, values in rows:
        names = re.findall(r"`(\w+)`", names)
        each = re.split(r", (?![^{]*})", values.replace("`", "").strip())
        each = each if len(each) == len(names) else [""] * len(names)
        listed = dict(zip(names, each, strict=True)) | listed  # the first table counts
    for name, field in recipe.model_fields.items():
        assert name in listed, f"{page}: {name}"
        if field.default is not PydanticUndefined and isinstance(field.default, bool | int | float
                                                                 | str):
            wanted = field.default
            found = listed[name].strip('"')
            same = (float(found) == wanted if type(wanted) in (int, float)
                    else found == str(wanted).lower())
            assert same, f"{page}: {name} is {wanted}, not {listed[name]}"


@pytest.mark.slow
def test_a_network_from_elsewhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert do("your_network.md") == ["toml", "python", "sh", "python"]
    out = capsys.readouterr().out
    assert "3 frames equal to the golden model in every layer" in out
    assert "'c': (1, 8, 8, 8)" in out


@pytest.mark.slow
def test_networks_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert do("loading.md") == ["toml", "toml", "sh", "sh", "python"]
    out = capsys.readouterr().out
    assert "slot 1: one, network " in out and "3 x 8 x 8 pixels give one of 4 classes" in out
    assert "slot 2: two, network " in out and "give 8 x 3 x 4 codes of 3 bits" in out
    said = re.findall(r"print\((.*)\) +# (.*)", (DOCS / "loading.md").read_text())
    assert [answer for _, answer in said] == ["[Class(index=2, score=100)]"]
    assert said[0][1] in out
    lines = (tmp_path / "writes.txt").read_text().splitlines()
    assert len(lines) > 100 and all(re.fullmatch(r"[0-9a-f]{8} [0-9a-f]{8}", each)
                                    for each in lines)


@pytest.mark.slow
def test_three_tasks_on_one_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert do("machine.md") == ["toml", "toml", "toml", "sh", "python", "sh", "python"]
    out = capsys.readouterr().out
    for name in ("label", "patch", "boxes"):
        assert f"build/label: {name}: 3 frames equal to the golden model in every layer" in out
    assert "slot 1: boxes, network " in out
    said = re.findall(r"print\(.*\) +# (.*)", (DOCS / "machine.md").read_text())
    assert len(said) == 2 and all(f"{answer}\n" in out for answer in said)


def test_the_descriptor_s_fields_are_those_of_the_table():
    text = (DOCS / "formats.md").read_text()
    table = text[text.index("| field | what it says |"):].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \| ", table, re.MULTILINE) == [
        field.name for field in FIELDS]
    for field in FIELDS:
        assert f"| `{field.name}` | {field.text} |" in text


def test_the_registers_are_those_of_the_table():
    text = (DOCS / "axi.md").read_text()
    table = text[text.index("| offset | register |"):].split("\n\n")[0]
    registers = register_map(MACHINE).registers
    said = re.findall(r"^\| (0x\w+) \| `(\w+)` \| (\w+) \| (.*) \|$", table, re.MULTILINE)
    assert said == [(f"0x{each.offset:02X}", each.name, each.access, each.text)
                    for each in registers if not each.name.startswith("HASH")]
    fields = re.findall(r"^\| \| `(\w+)`, bit (\d+)( \.\.\.)? \|(?: (\w+))? \| (.*) \|$", table,
                        re.MULTILINE)
    assert fields == [(field.name, str(field.lowest), " ..." if field.name in ("CHANNELS", "NUMBER")
                       else "", field.access or "", field.text)
                      for each in registers for field in each.fields if field.bits < 32]
