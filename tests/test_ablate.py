"""The comparisons: variants are what their rows say, and tables are made of what was measured."""

import json

import pytest

ablate = pytest.importorskip("model.ablate")


def test_equal_bits():
    """What is compared at equal weight bits has them within 2 %."""
    progressive = ablate.weight_bits(ablate.VARIANTS["321"]())
    for name in ("111", "222", "333", "123"):
        assert ablate.weight_bits(ablate.VARIANTS[name]()) == pytest.approx(progressive, rel=0.02)
    assert ablate.weight_bits(ablate.dense()) == pytest.approx(
        ablate.weight_bits(ablate.wide()), rel=0.01)
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


def test_tables_have_mean_and_number_of_runs(tmp_path):
    for folder, value in (("321-seed1", 0.5), ("321-seed2", 0.7), ("deep-or-seed1", 0.25),
                          ("unknown-seed1", 0.9)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "record.json").write_text(json.dumps({"validation": value}))
    lines = ablate.tables(ablate.results(tmp_path)).splitlines()
    row = next(line for line in lines if line.startswith("| 3, 2, 1 bits by stage"))
    assert row.endswith("| 60.00 ± 14.14 % | 2 |")
    assert next(line for line in lines if line.startswith("| OR ")).endswith("| 25.00 % | 1 |")
    assert not any(line.startswith("| none") or "90.00" in line for line in lines)
    assert not any("Clips" in line for line in lines)  # of which nothing is finished
