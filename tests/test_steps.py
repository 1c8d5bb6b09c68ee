"""Training in batches: a loss that is no number ends it in one line."""

from types import SimpleNamespace

import pytest

from export.checked import ConfigError

steps = pytest.importorskip("model.steps")


class Losses(steps.StepRun):
    """Gives the losses that it is fed."""

    def train_step(self, data):
        self.step += 1
        return data


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number(tmp_path, wrong):
    run = Losses(SimpleNamespace(seed=1), tmp_path)
    assert run.checked_step(1.5) == 1.5 and run.seconds > 0
    with pytest.raises(ConfigError, match=f"the loss of step 2 is {wrong}, wanted a number"):
        run.checked_step(wrong)
