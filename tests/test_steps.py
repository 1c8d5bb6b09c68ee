"""Training in batches: how a batch is learned from, what a run writes, and how it ends."""

import json
from types import SimpleNamespace

import pytest

from export.checked import ConfigError

torch = pytest.importorskip("torch")
steps = pytest.importorskip("model.steps")


class Losses(steps.StepRun):
    """Gives the losses that it is fed; what it trains is a line through zero."""

    def __init__(self, folder, **recipe):
        super().__init__(SimpleNamespace(seed=1, **recipe), folder)
        self.encoder = torch.nn.Linear(2, 1, bias=False)
        torch.nn.init.ones_(self.encoder.weight)
        self.optimizers = [torch.optim.SGD(self.encoder.parameters(), 9.0)]

    def train_step(self, data):
        loss = data[self.step] if isinstance(data, list) else data
        return self.learn(self.encoder.weight.sum() * 0 + loss, [0.5])


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number(tmp_path, wrong):
    run = Losses(tmp_path)
    assert run.checked_step(1.5) == 1.5 and run.seconds > 0
    with pytest.raises(ConfigError, match=f"the loss of step 2 is {wrong}, wanted a number"):
        run.checked_step(wrong)


def test_a_step_follows_its_own_gradient_at_its_rate(tmp_path):
    run, weights = Losses(tmp_path), torch.tensor([[3.0, 4.0]])
    for count in (1, 2):
        assert run.learn((run.encoder.weight * weights).sum(), [0.1]) == pytest.approx(
            7 - 2.5 * (count - 1))
        assert run.step == count
        assert torch.allclose(run.encoder.weight, 1 - 0.1 * count * weights)
    run.learn((run.encoder.weight * weights).sum(), [1.0], run.encoder.parameters())
    assert torch.allclose(run.encoder.weight, 1 - 0.2 * weights - weights / 5, atol=1e-5)
    with pytest.raises(ValueError):
        run.learn(run.encoder.weight.sum(), [0.1, 0.1])


def test_what_a_run_writes(tmp_path, capsys):
    """It validates every so many steps, and at the end; a second call has nothing to do."""
    folder = tmp_path / "run"
    run, looks = Losses(folder, steps=5, validate_every=2), []

    def validate():
        looks.append(run.step)
        return steps.Validation({"encoder": run.encoder, "other": torch.nn.Linear(1, 1)},
                                {"right": run.step / 10, "far": 3.0}, {"validation": "said"},
                                "all is well")

    config = SimpleNamespace(name="mine", model_dump=lambda: {"a": 1})
    record = run.train(config, [1.0, 2.0, 3.0, 4.0, 5.0], {"images": 7}, validate)
    assert looks == [2, 4, 5]
    assert record["curve"] == [[2, 1.5, 0.2, 3.0], [4, 3.5, 0.4, 3.0], [5, 5.0, 0.5, 3.0]]
    assert (record["steps"], record["images"], record["validation"]) == (5, 7, "said")
    assert record["command"] == "hexlane train configs/mine.toml" and record["config"] == {"a": 1}
    assert json.loads((folder / "record.json").read_text()) == record
    final = torch.load(folder / "final.pt", weights_only=True)
    assert final.keys() == {"encoder", "other", "record"} and final["record"] == record
    assert final["encoder"]["weight"].equal(run.encoder.weight.data)
    assert capsys.readouterr().out.splitlines()[1].startswith(
        "step 4/5: loss 3.5000, all is well; ")
    again = Losses(folder, steps=5, validate_every=2)
    assert again.train(config, [], {}, validate) == record and again.step == 5
    assert looks == [2, 4, 5] and again.curve == record["curve"]


def test_a_checkpoint_has_everything_by_its_name(tmp_path):
    run = Losses(tmp_path)
    run.checked_step(1.0)
    run.curve = [[1, 2.0]]
    run.save()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state.keys() == {"encoder", "optimizer0", "step", "curve", "seconds", "began"}
    assert state["step"] == 1 and state["curve"] == [[1, 2.0]]
