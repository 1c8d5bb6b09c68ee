"""Muon in float32, against torch's and against singular values."""

import pytest

torch = pytest.importorskip("torch")
muon = pytest.importorskip("model.muon")


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (1, 5)])
def test_steps_are_torch_s_within_its_bfloat16(shape, monkeypatch):
    monkeypatch.setattr(muon, "reals", lambda device: torch.float32)
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs, none = (torch.nn.Parameter(start.clone()) for _ in range(3))
    pair = [(ours, muon.Muon([ours, none], 0.1)),
            (theirs, torch.optim.Muon([theirs], weight_decay=0.1, adjust_lr_fn="match_rms_adamw"))]
    for _ in range(5):
        gradient = torch.randn(shape)
        for matrix, optimizer in pair:
            matrix.grad = gradient.clone()
            optimizer.param_groups[0]["lr"] = 0.01
            optimizer.step()
    moved = (theirs - start).abs().max()
    assert (ours - theirs).abs().max() < 0.02 * moved
    assert torch.equal(none, start)  # without a gradient


def test_it_goes_on_from_torch_s_state(monkeypatch):
    monkeypatch.setattr(muon, "reals", lambda device: torch.float32)
    matrix = torch.nn.Parameter(torch.eye(4))
    matrix.grad = torch.ones(4, 4)
    theirs, ours = torch.optim.Muon([matrix]), muon.Muon([matrix], 0.1)
    theirs.step()
    ours.load_state_dict(theirs.state_dict())
    average = ours.state[matrix]["momentum_buffer"].clone()
    ours.step()
    torch.testing.assert_close(ours.state[matrix]["momentum_buffer"], average * 0.95 + 0.05)


def test_on_bfloat16_it_is_torch_s(monkeypatch):
    monkeypatch.setattr(muon, "reals", lambda device: torch.bfloat16)
    ours, theirs = (torch.nn.Parameter(torch.arange(12.0).view(3, 4)) for _ in range(2))
    for matrix, optimizer in ((ours, muon.Muon([ours], 0.1)), (theirs, torch.optim.Muon(
            [theirs], weight_decay=0.1, adjust_lr_fn="match_rms_adamw"))):
        matrix.grad = torch.arange(12.0).view(3, 4).cos()
        optimizer.step()
    assert torch.equal(ours, theirs)
