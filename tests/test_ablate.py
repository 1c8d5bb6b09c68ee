"""The comparisons: variants are what their rows say, and tables are made of what was measured."""

import json

import pytest

from export.checked import ConfigError

ablate = pytest.importorskip("model.ablate")
variants = pytest.importorskip("model.variants")


def test_equal_bits():
    """What is compared at equal weight bits has them within 2 %."""
    progressive = ablate.weight_bits(ablate.VARIANTS["321"]())
    for name in ("111", "222", "333", "123"):
        assert ablate.weight_bits(ablate.VARIANTS[name]()) == pytest.approx(progressive, rel=0.02)
    assert ablate.weight_bits(variants.dense()) == pytest.approx(
        ablate.weight_bits(variants.wide()), rel=0.01)
    sizes = {ablate.weight_bits(ablate.VARIANTS[name]()) for name in ("deep", "deep-or",
                                                                     "deep-add")}
    assert len(sizes) == 1
    found = ablate.weight_bits(ablate.VARIANTS["boxes-321"]())
    for name in ("boxes-222-bits", "boxes-333-bits", "boxes-123-bits"):
        assert ablate.weight_bits(ablate.VARIANTS[name]()) == pytest.approx(found, rel=0.01)


def test_bits_of_boxes_by_layer():
    """What rows of boxes say; those of equal widths differ in nothing else."""
    usual = ablate.VARIANTS["boxes-321"]().network.convs
    for name, bits in (("321", "33322211"), ("222", "2" * 8), ("333", "3" * 8),
                       ("123", "11122233"), ("123-bits", "11122233")):
        convs = ablate.VARIANTS[f"boxes-{name}"](seed=2).network.convs
        assert "".join(str(layer.weight_bits) for layer in convs[:8]) == bits
        assert ([layer.channels for layer in convs] == [layer.channels for layer in usual]) == (
            not name.endswith("bits"))


def test_generated_weights_count_as_their_seeds():
    layers = ablate.VARIANTS["mognet-half30"]().network.convs
    stored = ablate.VARIANTS["mognet-stored"]()
    made = [k for k, layer in enumerate(layers) if layer.generator]
    assert len(made) == 5 and not any(layer.generator for layer in stored.network.convs)
    saved = sum(2 * layers[k].channels * layers[k - 1].channels - 2 * 8 * 8 for k in made)
    assert (ablate.weight_bits(stored)
            - ablate.weight_bits(ablate.VARIANTS["mognet-half30"]())) == saved


def test_every_variant_is_in_a_table_and_takes_a_seed():
    shown = {name for rows in ablate.TABLES.values() for name in rows}
    assert shown == set(ablate.VARIANTS)
    for make in ablate.VARIANTS.values():
        config = make(seed=5)
        assert (config.detect or config.clips or config.train).seed == 5
        if recipe := config.detect or config.clips:  # so a record is that of a finished run
            assert recipe.validate_every >= recipe.steps


def test_real_numbers_are_never_rounded():
    recipe = ablate.VARIANTS["billnet-real"]().clips
    assert recipe.float_steps == recipe.whole_steps == recipe.steps


def finish(folder, name: str, seed: int, validation) -> None:
    """As a training of this variant ends."""
    place = folder / f"{name}-seed{seed}"
    place.mkdir()
    config = ablate.VARIANTS[name](seed=seed) if name in ablate.VARIANTS else None
    (place / "record.json").write_text(json.dumps({
        "validation": validation, "seconds": 1, "torch": "2", "curve": [[0.5, validation]],
        "config": config and config.model_dump(mode="json")}))


def test_tables_have_mean_and_number_of_runs(tmp_path, monkeypatch):
    (tmp_path / "kept.json").write_text("[]")
    monkeypatch.setattr(ablate, "KEPT", tmp_path / "kept.json")
    for name, seed, value in (("321", 1, 0.5), ("321", 2, 0.7), ("deep-or", 1, 0.25),
                              ("boxes-321", 1, {"map50": 0.125}), ("unknown", 1, 0.9)):
        finish(tmp_path, name, seed, value)
    lines = ablate.tables(ablate.finished(tmp_path)).splitlines()
    row = next(line for line in lines if line.startswith("| 3, 2, 1 bits by stage"))
    assert row.endswith("| 60.00 ± 14.14 % | 2 |")
    assert next(line for line in lines if line.startswith("| OR ")).endswith("| 25.00 % | 1 |")
    row = next(line for line in lines if line.startswith("| 3, 2, 1 | "))
    assert row.endswith("| 12.50 % | 1 |")
    assert not any(line.startswith("| none") or "90.00" in line for line in lines)
    assert not any("Clips" in line for line in lines)  # of which nothing is finished


def test_kept_runs_count_and_are_not_repeated(tmp_path, monkeypatch):
    (tmp_path / "kept.json").write_text("[]")
    monkeypatch.setattr(ablate, "KEPT", tmp_path / "kept.json")
    runs, other = tmp_path / "runs", tmp_path / "other"
    runs.mkdir()
    other.mkdir()
    finish(runs, "321", 1, 0.5)
    ablate.keep(runs)
    finish(other, "321", 2, 0.75)
    ablate.keep(other)
    assert {key: each["validation"] for key, each in ablate.finished(tmp_path / "no").items()} == {
        ("321", 1): 0.5, ("321", 2): 0.75}
    trained = []
    monkeypatch.setattr(ablate, "train_alone_or_together",
                        lambda config, place, **_: trained.append((place.name, config)))
    ablate.run(["321", "222"], 2, tmp_path / "new", "cpu")
    assert [name for name, _ in trained] == ["222-seed1", "222-seed2"]
    assert trained[1][1] == ablate.VARIANTS["222"](seed=2)


def test_what_is_kept_is_of_these_variants():
    """Or no table could be printed."""
    assert ("321", 1) in ablate.finished(ablate.CONFIGS / "no folder")


@pytest.mark.parametrize("name", list(ablate.VARIANTS))
def test_a_run_of_another_recipe_is_refused(tmp_path, monkeypatch, name):
    (tmp_path / "kept.json").write_text("[]")
    monkeypatch.setattr(ablate, "KEPT", tmp_path / "kept.json")
    finish(tmp_path, name, 2, 0.5)
    assert list(ablate.finished(tmp_path)) == [(name, 2)]
    path = tmp_path / f"{name}-seed2" / "record.json"
    record = json.loads(path.read_text())
    config = record["config"]
    recipe = config["detect"] or config["clips"] or config["train"]
    del recipe["weight_decay"]  # of a record that is older than this
    path.write_text(json.dumps(record))
    assert list(ablate.finished(tmp_path)) == [(name, 2)]
    for part, field in (recipe, "batch"), (config["network"]["operations"][0], "channels"):
        part[field] += 1
        path.write_text(json.dumps(record))
        with pytest.raises(ConfigError, match=f"{name}, seed 2, is of another recipe or network"):
            ablate.finished(tmp_path)
        part[field] -= 1


def test_no_record_is_refused(tmp_path):
    (tmp_path / "321-seed1").mkdir()
    (tmp_path / "321-seed1" / "record.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"321-seed1/record\.json: is no record of"):
        ablate.finished(tmp_path)
