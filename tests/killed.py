"""A training that is killed and goes on ends as one that is not."""

import threading

import numpy as np
import pytest


def resumes(trainer, design, folder, at: int, monkeypatch) -> list[dict]:
    """Holds `trainer.train`, killed at a step and called again, to a run of one go: both records.
    """
    whole, step = trainer.train(design, folder / "whole", compiled=False), trainer.Run.train_step

    def dies(run, *data):
        if run.step == at:
            raise InterruptedError
        return step(run, *data)

    with monkeypatch.context() as patch:
        patch.setattr("model.steps.SAVE", 0)
        patch.setattr(trainer.Run, "train_step", dies)
        with pytest.raises(InterruptedError):
            trainer.train(design, folder / "killed", compiled=False)
    # A thread that still writes logs would find its folder gone, long after the test.
    assert not any("Writer" in type(thread).__name__ for thread in threading.enumerate())
    resumed = trainer.train(design, folder / "killed", compiled=False)
    # The mean loss of the interval in which it was killed is that of its steps since then.
    curves = [np.delete(record["curve"], 1, 1) for record in (resumed, whole)]
    np.testing.assert_allclose(*curves, rtol=1e-3)
    return [resumed, whole]
