"""The table of whom a network of clips understands."""

import re

import pytest

who = pytest.importorskip("model.gestures").who
by_person = pytest.importorskip("tests.by_person")


def test_every_clip_counts_for_its_person(monkeypatch, capsys):
    monkeypatch.setattr(by_person, "CLIPS", 6)
    by_person.main("configs/billnet_small.toml")
    lines = capsys.readouterr().out.splitlines()
    people = {who("validation", index) for index in range(6)}
    rows = [re.match(r"\| (\d+) \| (gloves|bare) \| [\d, ]+ \| (\d+) \| ([\d.]+)% \|", line)
            for line in lines[2:-2]]
    assert {int(row[1]) for row in rows} == people and sum(int(row[3]) for row in rows) == 6
    assert [float(row[4]) for row in rows] == sorted(float(row[4]) for row in rows)
    totals = [re.match(r"(gloves|bare): \d+ people, (\d+) clips", line) for line in lines[-2:]]
    assert sum(int(total[2]) for total in totals) == 6
