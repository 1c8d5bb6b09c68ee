"""Training end to end on made-up images: it learns, resumes where it was, and exports exactly."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from export.config import ConfigError, parse_config
from sim import golden

torch = pytest.importorskip("torch")
convert = pytest.importorskip("model.convert")
train = pytest.importorskip("model.train")
views = pytest.importorskip("model.views")
plots = pytest.importorskip("model.plots")
Encoder = pytest.importorskip("model.network").Encoder


def design(epochs: int, channels: int = 8):
    return parse_config({
        "name": "test",
        "network": {"height": 32, "width": 32, "channels": 3, "classes": 10, "pad": 128, "layers": [
            {"name": "a", "channels": channels, "weight_bits": 3, "code_bits": 2, "pool": True},
            {"name": "b", "channels": 8, "weight_bits": 2, "code_bits": 1, "pool": True}]},
        "array": {"rows": 4, "columns": 4, "words": 2},
        "train": {"epochs": epochs, "batch": 50, "learning_rate": 0.05,
                  "teacher_learning_rate": 0.05}})


@pytest.fixture
def images(monkeypatch):
    """Ten classes of noisy stripes in place of CIFAR-10; 500 images, of which 100 are held out."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 10, 500).astype(np.uint8)
    wave = 128 + 100 * np.sin(np.arange(32) * (labels[:, None] + 1) * np.pi / 16)
    stripes = wave[:, None, :, None] + rng.normal(0, 10, (500, 32, 32, 3))
    pixels = stripes.clip(0, 255).astype(np.uint8)
    parts = {"train": slice(-100), "validation": slice(-100, None)}
    monkeypatch.setattr(train, "load_images", lambda network, split: (
        pixels[parts[split]], labels[parts[split]].astype(np.int64)))
    return pixels, labels


@pytest.mark.slow
def test_it_learns_and_exports_exactly(images, tmp_path):
    config = design(epochs=12)
    record = train.train(config, tmp_path, compiled=False)
    assert record["curve"][-1][0] < record["curve"][0][0]
    assert record["validation"] > 0.3  # chance is 0.1
    assert json.loads((tmp_path / "record.json").read_text())["validation"] == record["validation"]
    encoder, _ = convert.load_checkpoint(tmp_path / "final.pt", config)
    trace = golden.run(convert.convert(encoder), images[0][-100:])
    assert np.mean(trace.classes == images[1][-100:]) == pytest.approx(record["validation"])


@pytest.mark.slow
def test_a_killed_run_resumes_where_it_was(images, tmp_path, monkeypatch):
    config = design(epochs=3)
    whole = train.train(config, tmp_path / "whole", compiled=False)

    class Killed(Exception):
        pass

    one_epoch = train.Run.train_epoch

    def dies_in_the_second_epoch(run, *data):
        if run.epoch == 1:
            raise Killed
        return one_epoch(run, *data)

    monkeypatch.setattr(train.Run, "train_epoch", dies_in_the_second_epoch)
    with pytest.raises(Killed):
        train.train(config, tmp_path / "killed", compiled=False)
    assert not Path(tmp_path / "killed" / "final.pt").exists()
    monkeypatch.setattr(train.Run, "train_epoch", one_epoch)
    resumed = train.train(config, tmp_path / "killed", compiled=False)
    np.testing.assert_allclose(resumed["curve"], whole["curve"], rtol=0.02)


@pytest.mark.slow
def test_a_float_teacher_comes_first_and_the_rest_starts_from_it(images, tmp_path, monkeypatch):
    config = design(epochs=3)
    recipe = config.train.model_copy(update={"teacher_epochs": 4, "code_epochs": 1,
                                             "distillation": 0.5})
    config = config.model_copy(update={"train": recipe})
    seen, one_epoch = [], train.Run.train_epoch

    def watched(run, *data):
        before = run.encoder.head.weight.detach().clone()
        loss = one_epoch(run, *data)
        taught = run.teacher is not None and run.teacher.head.weight.equal(before)
        seen.append((run.encoder.convs[0].round_codes, run.encoder.head.round_weights, taught))
        return loss

    monkeypatch.setattr(train.Run, "train_epoch", watched)
    record = train.train(config, tmp_path, compiled=False)
    assert seen == [(False, False, False)] * 4 + [(True, False, True)] + [(True, True, False)] * 2
    assert record["curve"][4][1] > 0.3  # it starts from what was learnt; chance is 0.1
    encoder, _ = convert.load_checkpoint(tmp_path / "final.pt", config)
    trace = golden.run(convert.convert(encoder), images[0][-100:])
    assert np.mean(trace.classes == images[1][-100:]) == pytest.approx(record["validation"])


@pytest.mark.slow
def test_a_learned_step_begins_where_weights_are_rounded(images, tmp_path, monkeypatch):
    """From equal parts, in the epoch from which on they are; real weights leave it alone."""
    recipe = {"teacher_epochs": 1, "code_epochs": 1, "steps": "learned"}
    config = design(epochs=3)
    config = config.model_copy(update={"train": config.train.model_copy(update=recipe)})
    seen, equal, loss = [], [], train.Run.loss

    def watched(run, *data):
        steps = [conv.log_step.detach().clone() for conv in run.encoder.convs]
        for conv in run.encoder.convs:
            conv.equalize()
        equal.append([conv.log_step.detach().clone() for conv in run.encoder.convs])
        for conv, step in zip(run.encoder.convs, steps, strict=True):
            conv.log_step.data.copy_(step)
        seen.append(steps)
        return loss(run, *data)

    monkeypatch.setattr(train.Run, "loss", watched)
    train.train(config, tmp_path, compiled=False)
    first = 2 * 8  # batches before weights are rounded
    assert all(step == seen[0] for step in seen[:first])
    assert seen[first] == equal[first] != equal[0]
    assert seen[first + 1] != equal[first + 1]


def taught_by_a_table(config, **recipe):
    recipe = {"teacher": "table", "distillation": 1.0, "teacher_epochs": 1, **recipe}
    return config.model_copy(update={"train": config.train.model_copy(update=recipe)})


@pytest.fixture
def table(images, tmp_path):
    """A teacher's logits that are right, and of each shift others."""
    logits = np.random.default_rng(1).normal(0, 1, (len(views.SHIFTS), 400, 10))
    logits[:, np.arange(400), images[1][:400]] += 5
    views.save_table(views.Table(logits.astype(np.float32), ""), tmp_path / "views.npz")
    return tmp_path / "views.npz"


@pytest.mark.slow
def test_each_image_comes_in_a_view_with_its_logits(images, table, tmp_path):
    pixels = torch.from_numpy(images[0][:400].transpose(0, 3, 1, 2).copy())
    logits = torch.randn(len(views.VIEWS), 400, 10, generator=torch.Generator().manual_seed(3))
    run = train.Run(taught_by_a_table(design(2)), tmp_path, "cpu", logits)
    pick = torch.randperm(400, generator=torch.Generator().manual_seed(1))[:200]
    x, taught = run.inputs(pixels, pick, 0, torch.Generator().manual_seed(2))
    seen = set()
    for k, image in enumerate(pick.tolist()):
        (view,) = (logits[:, image].float() == taught[k]).all(1).nonzero()[0].tolist()
        assert x[k].equal(views.show(pixels[image][None], torch.tensor([view]))[0])
        seen.add(view)
    assert len(seen) == 18
    places = set()
    for seed in range(50):
        crop, same = run.inputs(pixels, pick, 24, torch.Generator().manual_seed(seed))
        whole, taught = run.inputs(pixels, pick, 0, torch.Generator().manual_seed(seed))
        found = [(top, left) for top in range(9) for left in range(9)
                 if whole[:, :, top:top + 24, left:left + 24].equal(crop)]
        assert len(found) == 1 and same.equal(taught)
        places |= set(found)
    assert {top for top, _ in places} == {left for _, left in places} == set(range(9))
    assert len(places) > 30


def test_the_loss_is_of_the_table(table, tmp_path):
    """With whole share it is the divergence of the table's classes from the student's, times t^2,
    in the float phase and in those behind it."""
    logits = torch.from_numpy(views.load_table(table).logits)
    x = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 255
    taught, labels = logits[0, :20].float(), torch.zeros(20, dtype=torch.long)
    for share in (1.0, 0.3):
        config = taught_by_a_table(design(2), temperature=3.0, distillation=share,
                                   label_smoothing=0.0)
        run = train.Run(config, tmp_path, "cpu", logits)
        said = []
        run.encoder.head.log_gain.data.fill_(0.5)
        run.forward = lambda x, run=run, said=said: said.append(run.encoder(x)) or said[-1]
        for teacher in (None, run._frozen_copy(run.encoder.state_dict())):
            run.teacher = teacher
            loss = run.loss(x, labels, taught)
            p, q = ((z.double() / 3).softmax(1) for z in (taught, said[-1]))
            soft = 9 * (p * (p / q).log()).sum(1).mean()
            hard = -said[-1].double().log_softmax(1)[:, 0].mean()
            assert loss.item() == pytest.approx((share * soft + (1 - share) * hard).item(),
                                                rel=1e-3)


@pytest.mark.slow
def test_a_table_teaches_every_phase_and_a_resumed_run_goes_on(images, table, tmp_path,
                                                               monkeypatch):
    config = taught_by_a_table(design(2), teacher_epochs=3, code_epochs=1, crop=24, full_epochs=1)
    whole = train.train(config, tmp_path / "whole", compiled=False, table=table)
    assert whole["validation"] > 0.2  # from the table alone; chance is 0.1
    one_epoch, seen = train.Run.train_epoch, []
    loss = train.Run.loss

    def dies(run, *data):
        if run.epoch == stops[0]:
            raise InterruptedError
        return one_epoch(run, *data)

    def watched(run, x, labels, taught):
        seen.append((run.epoch, x.shape[2], taught is not None))
        return loss(run, x, labels, taught)

    monkeypatch.setattr(train.Run, "train_epoch", dies)
    monkeypatch.setattr(train.Run, "loss", watched)
    stops = [1, 3, 4, None]
    while stops[0]:
        with pytest.raises(InterruptedError):
            train.train(config, tmp_path / "killed", compiled=False, table=table)
        del stops[0]
    resumed = train.train(config, tmp_path / "killed", compiled=False, table=table)
    np.testing.assert_allclose(resumed["curve"], whole["curve"], rtol=0.02)
    assert seen == [(epoch, 32 if epoch == 4 else 24, True) for epoch in range(5)
                    for _ in range(8)]


def test_a_table_that_does_not_fit_is_refused_before_training(images, table, tmp_path):
    config = taught_by_a_table(design(2))
    part = views.load_table(table).logits[:, :399]
    views.save_table(views.Table(part, ""), tmp_path / "part.npz")
    with pytest.raises(ConfigError, match="must be of 400 images with 10 classes, not of 399"):
        train.train(config, tmp_path / "run", compiled=False, table=tmp_path / "part.npz")
    with pytest.raises(ConfigError, match=r"none\.npz: no such file; hexlane train-teacher"):
        train.train(config, tmp_path / "run", compiled=False, table=tmp_path / "none.npz")
    assert not (tmp_path / "run").exists()
    record = train.train(config, tmp_path / "run", compiled=False, table=table, limit=100)
    assert record["train_images"] == 100


@pytest.mark.slow
@pytest.mark.parametrize("rule", [{"steps": "mean"}, {"steps": "learned"},
                                  {"normalization": "batch"}, {"residuals": "add"}])
def test_rules_for_comparison_learn_too(images, tmp_path, rule):
    config = design(epochs=12)
    config = config.model_copy(update={"train": config.train.model_copy(update=rule)})
    record = train.train(config, tmp_path, compiled=False)
    assert record["curve"][-1][0] < record["curve"][0][0]
    assert record["validation"] > 0.2  # chance is 0.1
    if "normalization" in rule:
        with pytest.raises(ConfigError, match=r"^test: batch normalization has no integers to exp"):
            convert.load_checkpoint(tmp_path / "final.pt", config)
        return
    if "residuals" in rule:
        with pytest.raises(ConfigError, match=r"^test: added real numbers have no integers to exp"):
            convert.load_checkpoint(tmp_path / "final.pt", config)
        return
    encoder, _ = convert.load_checkpoint(tmp_path / "final.pt", config)
    trace = golden.run(convert.convert(encoder), images[0][-100:])
    assert np.mean(trace.classes == images[1][-100:]) == pytest.approx(record["validation"])


def test_a_loss_that_is_no_number_ends_the_training(images, tmp_path, monkeypatch):
    config = design(epochs=3)
    train_epoch = train.Run.train_epoch
    monkeypatch.setattr(train.Run, "train_epoch", lambda run, *data: (
        float("nan") if run.epoch == 1 else train_epoch(run, *data)))
    with pytest.raises(ConfigError, match=r"the loss of epoch 2 is nan, wanted a number to"):
        train.train(config, tmp_path, compiled=False)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["epoch"] == 1


@pytest.mark.slow
def test_gates_and_generated_weights_learn(images, tmp_path):
    values = design(epochs=6).model_dump()
    values["network"] = {"height": 32, "width": 32, "channels": 3, "classes": 10, "layers": [
        {"name": "a", "channels": 8, "weight_bits": 3, "code_bits": 2, "pool": True},
        {"name": "b", "channels": 8, "weight_bits": 2, "code_bits": 2, "kernel": 1,
         "generator": {"outputs": 4, "inputs": 4}},
        {"name": "c", "channels": 8, "weight_bits": 2, "code_bits": 2, "skip": "a", "gate": "mux"},
        {"name": "d", "channels": 8, "weight_bits": 2, "code_bits": 2, "skip": "c", "gate": "or",
         "pool": True}]}
    config = parse_config(values)
    record = train.train(config, tmp_path, compiled=False)
    assert record["curve"][-1][0] < record["curve"][0][0]
    encoder, _ = convert.load_checkpoint(tmp_path / "final.pt", config)
    trace = golden.run(convert.convert(encoder), images[0][-100:])
    assert np.mean(trace.classes == images[1][-100:]) == pytest.approx(record["validation"])


def test_a_checkpoint_of_another_network_is_refused(images, tmp_path):
    train.train(design(epochs=1), tmp_path, compiled=False)
    with pytest.raises(ConfigError, match=r"checkpoint.pt: cannot be resumed with this config"):
        train.train(design(epochs=2, channels=12), tmp_path, compiled=False)


@pytest.mark.parametrize("change", [
    lambda state: [], lambda state: {}, lambda state: state | {"encoder": 3},
    lambda state: state | {"teacher": [1]}, lambda state: state | {"optimizers": 3},
    lambda state: state | {"optimizers": [None, None]}, lambda state: state | {"epoch": None},
    lambda state: state | {"curve": [1]}, lambda state: state | {"epoch": -3},
    lambda state: state | {"epoch": float("inf")}, lambda state: state | {"epoch": 10**6},
    lambda state: state | {"epoch": 1, "curve": [[torch.zeros(3), None]]},
    b"", b"PK", b"\x80\x02."])
def test_a_damaged_checkpoint_is_refused(images, tmp_path, change):
    config = design(epochs=1)
    run = train.Run(config, tmp_path, "cpu")
    run.save()
    path = tmp_path / "checkpoint.pt"
    if isinstance(change, bytes):
        path.write_bytes(change)
    else:
        torch.save(change(torch.load(path, weights_only=True)), path)
    with pytest.raises(ConfigError, match=r"checkpoint\.pt: cannot be (resumed|read as a check)"):
        train.train(config, tmp_path, compiled=False)


@pytest.mark.slow
def test_last_epochs_see_whole_images_and_some_are_validated(images, tmp_path, monkeypatch):
    recipe = {"crop": 24, "full_epochs": 1, "cutout": 5, "validate_every": 2, "teacher_epochs": 1}
    config = design(epochs=3)
    config = config.model_copy(update={"train": config.train.model_copy(update=recipe)})
    seen, augment = [], train.augment

    def watched(images, generator, *how):
        seen.append(how)
        return augment(images, generator, *how)

    monkeypatch.setattr(train, "augment", watched)
    record = train.train(config, tmp_path, compiled=False)
    assert seen == [(128, 24, 5)] * 8 * 3 + [(128, 0, 5)] * 8
    assert [right is None for _, right in record["curve"]] == [True, False, True, False]
    line = plots.curve({"training": record}).axes[0].lines[0]
    assert line.get_xdata().tolist() == [2, 4]
    assert line.get_ydata().tolist() == [100 * record["curve"][1][1], 100 * record["validation"]]
    recipe = record["config"]["train"]
    for change in ({"validation": float("inf")}, {"validation": None}, {"curve": []},
                   {"curve": [[float("nan"), None]]},
                   {"config": {"train": recipe | {"teacher_epochs": "x"}}}):
        with pytest.raises(ConfigError, match="the artifact's record is of no training"):
            plots.curve({"training": record | change})


def test_logits_do_not_shrink_with_the_crop():
    layers = [{"name": "a", "channels": 6, "weight_bits": 3, "code_bits": 3, "kernel": 1}]
    network = parse_config({**design(1).model_dump(), "network": {
        "height": 32, "width": 32, "channels": 3, "classes": 10, "layers": layers}}).network
    encoder = Encoder(network)
    generator = torch.Generator().manual_seed(1)
    values = torch.randint(0, 256, (8, 3, 1, 1), generator=generator).float()
    for _ in range(100):  # until the shift has settled
        encoder(values.expand(8, 3, 32, 32))
    for train_mode in (True, False):
        encoder.train(train_mode)
        whole, part = (encoder(values.expand(8, 3, n, n)) for n in (32, 24))
        assert whole.std() > 0
        torch.testing.assert_close(part, whole)


def test_scores_are_logits_times_a_learned_gain():
    """One that moves with the loss and that evaluation mode, hence the export, knows nothing of."""
    encoder = Encoder(design(1).network)
    head = encoder.head
    generator = torch.Generator().manual_seed(1)
    head.bias.data.normal_(generator=generator)
    x = torch.randint(0, 2, (20, 8, 8, 8), generator=generator).float()
    said = {}
    for gain in (0.0, 1.5):
        head.log_gain.data.fill_(gain)
        logits, scores = head.train()(x), head.eval()(x)
        torch.testing.assert_close(head.logits(scores), logits, rtol=1e-4,
                                   atol=np.exp(gain) / head.scale)  # the bias is rounded
        said[gain] = logits, scores
    assert said[0.0][1].equal(said[1.5][1]) and said[0.0][1].std() > 0
    torch.testing.assert_close(said[1.5][0], np.exp(1.5) * said[0.0][0])
    logits.square().mean().backward()
    assert head.log_gain.grad > 0


def test_learning_rate_warms_up_and_ends_at_zero():
    rates = [train.learning_rate(step / 100, 1.0) for step in range(100)]
    assert max(rates) == rates[10] == 1.0
    assert rates[1] == pytest.approx(0.1)
    assert rates[-1] < 0.001


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """Starts a training in a folder of its own, as a user would, on made-up images."""
    data = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(1)
    for split, count in (("train", 2300), ("test", 100)):
        labels = rng.integers(0, 10, count).astype(np.uint8)
        bars = (labels[:, None] + 1) * np.arange(32) * 8
        images = np.broadcast_to(bars[:, None, :, None].astype(np.uint8), (count, 32, 32, 3))
        np.save(data / f"{split}_images.npy", images)
        np.save(data / f"{split}_labels.npy", labels)
    environment = {**os.environ, "HEXLANE_DATA": str(data), "OMP_NUM_THREADS": "1",
                   "PYTHONPATH": os.getcwd()}

    def start(name, *launcher):
        folder = tmp_path_factory.mktemp(name)
        (folder / "test.toml").write_text("""
            network = {height = 32, width = 32, channels = 3, classes = 10, layers = [
                {name = "a", channels = 8, weight_bits = 3, code_bits = 2, pool = true},
                {name = "b", channels = 8, weight_bits = 2, code_bits = 1, pool = true}]}
            array = {rows = 4, columns = 4, words = 2}
            train.teacher_epochs = 1
            train.epochs = 3
            train.distillation = 0.5
            train.batch = 50
            train.learning_rate = 0.03
            """)
        return folder, lambda: subprocess.Popen(
            [sys.executable, "-m", *launcher, "sim.cli", "train", "test.toml", "--limit", "2000",
             "--no-compiled"], cwd=folder, env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    return start


def record_of(folder):
    return json.loads((folder / "build/test/train/record.json").read_text())


@pytest.mark.slow
def test_kill_9_in_the_middle_of_an_epoch(process):
    folder, run = process("whole")
    whole = run()
    killed_folder, again = process("killed")
    victim = again()
    checkpoint = killed_folder / "build/test/train/checkpoint.pt"
    while not checkpoint.exists():
        assert victim.poll() is None, victim.stderr.read()
        time.sleep(0.02)
    time.sleep(0.3)  # into the next epoch, which takes longer
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert not (killed_folder / "build/test/train/final.pt").exists()
    resumed = again()
    assert resumed.wait() == whole.wait() == 0, resumed.stderr.read() + whole.stderr.read()
    resumed.stderr.close(), whole.stderr.close()
    wanted, got = record_of(folder)["curve"], record_of(killed_folder)["curve"]
    assert len(wanted) == 4
    np.testing.assert_allclose(got, wanted, rtol=0.02)  # equal but for the sums' order


@pytest.mark.slow
def test_two_processes_share_the_batches(process):
    folder, run = process("two", "torch.distributed.run", "--nproc-per-node=2", "-m")
    both = run()
    assert both.wait() == 0, both.stderr.read()
    both.stderr.close()
    record = record_of(folder)
    assert record["processes"] == 2 and len(record["curve"]) == 4
    assert record["validation"] > 0.3  # chance is 0.1
