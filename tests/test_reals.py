"""The format that a training computes in follows the machine."""

from importlib import import_module

import pytest

torch = pytest.importorskip("torch")
reals = import_module("model.reals")


@pytest.mark.parametrize("capability, expected", [
    ("AVX512", torch.bfloat16), ("AVX2", torch.float32), ("DEFAULT", torch.float32)])
def test_format_of_a_processor(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert reals.reals() is expected
    with reals.autocast():
        x = torch.ones(1, 2, 4, 4, dtype=reals.reals())
        assert torch.conv2d(x, torch.ones(3, 2, 3, 3)).dtype is expected


def test_a_gpu_computes_in_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert reals.reals("cuda") is torch.bfloat16
