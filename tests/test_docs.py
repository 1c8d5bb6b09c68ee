"""What the documentation tells a user to type, typed."""

import re
import shlex
from pathlib import Path

import pytest

from export.descriptor import FIELDS
from sim.cli import main

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.slow
def test_a_network_from_elsewhere(tmp_path, monkeypatch, capsys):
    """Every block of `your_network.md`, in order, in an empty folder."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", (DOCS / "your_network.md").read_text(),
                        re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in blocks] == ["toml", "python", "sh", "python"]
    monkeypatch.chdir(tmp_path)
    for kind, text in blocks:
        if kind == "toml":
            Path("mine.toml").write_text(text)
        elif kind == "python":
            exec(compile(text, "your_network.md", "exec"), {})
        else:
            for line in text.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "hexlane"
                with pytest.raises(SystemExit) as stop:
                    main(arguments)
                assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "3 frames equal to the golden model in every layer" in out
    assert "'c': (1, 8, 8, 8)" in out


def test_the_descriptor_s_fields_are_those_of_the_table():
    text = (DOCS / "formats.md").read_text()
    table = text[text.index("| field | what it says |"):].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \| ", table, re.MULTILINE) == [
        field.name for field in FIELDS]
    for field in FIELDS:
        assert f"| `{field.name}` | {field.text} |" in text
