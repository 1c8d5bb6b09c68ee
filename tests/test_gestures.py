"""Gesture clips: drawn from a seed, pairs told apart by time alone, folders in Jester's format."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.checked import ConfigError
from model import clips, gestures
from model.hands import Performer, paint_hand

SPLITS = "train", "validation", "test"


def test_a_clip_depends_on_split_index_seed_and_difficulty_only():
    first, kind = gestures.clip("train", 17)
    assert first.shape == (16, 3, 96, 128) and first.dtype == np.uint8 and kind == 4
    gestures.clip("test", 3)
    gestures.room.cache_clear()
    gestures.performer.cache_clear()
    np.testing.assert_array_equal(gestures.clip("train", 17)[0], first)
    for other in (("test", 17), ("train", 30), ("train", 17, 2), ("train", 17, 1, 0.9)):
        assert (gestures.clip(*other)[0] != first).mean() > 0.2, other


def test_classes_follow_each_other():
    assert [gestures.clip("validation", 12 + k, 5)[1] for k in range(3)] == [12, 0, 1]


@pytest.mark.parametrize("split", SPLITS)
def test_pairs_differ_only_in_the_order_of_time(split):
    assert len(gestures.PAIRS) == 5 and len(gestures.CLASSES) == 13
    assert [tuple(gestures.CLASSES[k] for k in pair) for pair in gestures.PAIRS] == [
        ("swipe_left", "swipe_right"), ("swipe_up", "swipe_down"), ("push", "pull"),
        ("rotate_clockwise", "rotate_anticlockwise"), ("zoom_in", "zoom_out")]
    for one, two in gestures.PAIRS:
        forth, back = (gestures.clip(split, 26 + kind)[0] for kind in (one, two))
        np.testing.assert_array_equal(forth, back[::-1])
        assert (forth != back).any()


@pytest.fixture
def motions(monkeypatch):
    """How the hand moved in each clip that is drawn: the arguments of `paint_hand`."""
    kept = []
    monkeypatch.setattr(gestures, "paint_hand", lambda world, person, **motion: kept.append(
        motion | {"person": person}))
    return kept


@pytest.mark.parametrize("difficulty", [0, 0.5, 1])
def test_hands_do_what_the_class_says(motions, difficulty):
    """From first to last frame, in the image: right, down, closer, clockwise, open."""
    changes = {name: [] for name in gestures.CLASSES}
    for index in range(13 * 8):
        motions.clear()
        _, kind = gestures.clip("train", index, 3, difficulty)
        name = gestures.CLASSES[kind]
        if not motions:
            assert name == "none"
            continue
        motion, = motions
        open_ = motion["straight"][:, 0] + motion["fan"][:, 0]
        values = np.stack([*motion["place"].T, motion["size"], motion["angle"], open_])
        # The second of a pair is drawn as the first, then turned round.
        first, last = (-1, 0) if kind in {b for _, b in gestures.PAIRS} else (0, -1)
        changes[name].append(values[:, last] - values[:, first])
    for name, which, sign in (
            ("swipe_left", 0, -1), ("swipe_right", 0, 1), ("swipe_up", 1, -1), ("swipe_down", 1, 1),
            ("push", 2, 1), ("pull", 2, -1), ("rotate_clockwise", 3, 1),
            ("rotate_anticlockwise", 3, -1), ("zoom_in", 4, 1), ("zoom_out", 4, -1)):
        moved = np.array(changes[name])[:, which] * sign
        assert (moved > [20, 20, 3, 0.5, 0.3][which]).all(), (name, moved.min())
    assert len(changes["none"]) < 8  # sometimes there is no hand
    assert (np.abs(np.array(changes["stop"])[:, 0]) < 45).all()


def test_the_hand_is_painted_where_it_is():
    """A swipe to the left ends left of where it starts: what changed says so."""
    for index in range(0, 13 * 8, 13):
        clip = gestures.clip("test", index, difficulty=0)[0].astype(int)
        change = np.abs(clip[0] - clip[-1]).sum(0) > 90
        background = np.median(clip, 0)
        there = [(np.abs(clip[n] - background).sum(0) > 90) & change for n in (0, -1)]
        start, end = (np.nonzero(each)[1].mean() for each in there)
        assert start - end > 20, index


def test_palm_and_fingers_lie_where_they_should():
    """On black: skin at the palm, something a palm above it, nothing beside it."""
    person, count = gestures.performer("train", 3), 3
    frames = np.zeros((count, 3, 96, 128), np.uint8)
    place = np.array([[30.0, 50], [64, 40], [90, 60]])
    paint_hand(frames, person, place, np.full(count, 18.0), np.zeros(count), np.ones((count, 5)),
               np.ones((count, 5)), 1.0, 0.0, place + np.array([0, 30]))
    for frame, (x, y) in zip(frames, place.astype(int), strict=True):
        assert (np.abs(frame[:, y, x] / person.skin - 1) < 0.35).all()
        assert frame[:, y - 18, x - 4:x + 5].any() and not frame[:, y, x + 22:].any()
        assert not frame[:, :max(y - 50, 0)].any()


def test_the_camera_shakes():
    """A still world stays where it is at difficulty 0, and moves at 1."""
    room = gestures.room("test", 2)
    world, plain = (np.repeat(each[None], 16, 0) for each in (room, np.full_like(room, 128)))

    def unrest(of, difficulty):
        seen = gestures._camera(of, np.random.default_rng(5), difficulty).astype(int)
        return np.abs(np.diff(seen, axis=0)).mean()

    assert unrest(world, 0) < 1.2 * unrest(plain, 0)
    assert unrest(world, 1) > 1.5 * unrest(plain, 1)


@pytest.mark.slow
def test_splits_share_no_performer_and_no_room(motions):
    """All of them are compared, and clips of a split use its own, whatever the seed."""
    people = {split: [gestures.performer(split, k) for k in range(gestures.PERFORMERS[split])]
              for split in SPLITS}
    rooms = {split: [gestures.room(split, k).tobytes() for k in range(gestures.ROOMS[split])]
             for split in SPLITS}
    every = [person.fingers.tobytes() for split in SPLITS for person in people[split]]
    assert isinstance(people["test"][0], Performer) and len(set(every)) == len(every) == 1050
    every = [each for split in SPLITS for each in rooms[split]]
    assert len(set(every)) == len(every) == 1200
    for split in SPLITS:
        motions.clear()
        for seed in (1, 2):
            for index in range(26):
                gestures.clip(split, index, seed)
        used = {id(motion["person"]) for motion in motions}
        assert used <= {id(person) for person in people[split]} and len(used) > 10


def test_rooms_are_not_painted_over():
    before = gestures.room("train", 1).copy()
    for index in range(26):
        gestures.clip("train", index)
    np.testing.assert_array_equal(gestures.room("train", 1), before)
    with pytest.raises(ValueError):
        gestures.room("train", 1)[0, 0, 0] = 1


def test_things_pass_behind_the_hand_and_stand_before_it(monkeypatch):
    drawn = []

    def watched(name):
        function = getattr(gestures, name)

        def draw(world, *values, **more):
            before = world.copy()
            function(world, *values, **more)
            drawn.append((name, (world != before).any(1)))
        monkeypatch.setattr(gestures, name, draw)

    for name in ("_passer", "paint_hand", "_obstacle"):
        watched(name)
    hidden = []
    for index in range(39):
        drawn.clear()
        gestures.clip("train", index, difficulty=1)
        names = [name for name, _ in drawn]
        assert names == sorted(names, key=["_passer", "paint_hand", "_obstacle"].index)
        found = dict(drawn)
        if {"paint_hand", "_obstacle"} <= found.keys():
            hand = found["paint_hand"]
            hidden.append((hand & found["_obstacle"]).sum() / hand.sum())
    assert len(hidden) > 15 and sum(share > 0.02 for share in hidden) > 10
    drawn.clear()
    for index in range(39):
        gestures.clip("train", index, difficulty=0)
    assert {name for name, _ in drawn} == {"paint_hand"}


def test_difficulty_adds_movement_and_noise():
    """Of clips of no gesture: the camera shakes and the light changes more."""
    def unrest(difficulty):
        clip = np.stack([gestures.clip("train", 12 + 13 * k, 1, difficulty)[0] for k in range(10)])
        return np.abs(np.diff(clip.astype(int), axis=1)).mean()

    calm, middle, wild = unrest(0), unrest(0.5), unrest(1)
    assert 1.5 * calm < middle and 1.2 * middle < wild


@pytest.mark.parametrize("wrong", [("tain", 0), ("train", -1), ("train", 0, 1, 1.5),
                                   ("train", 0, 1, -0.1)])
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match="wanted one of"):
        gestures.clip(*wrong)


# Folders in Jester's format.

def frame(value: int, size=(100, 176)) -> Image.Image:
    return Image.fromarray(np.full((*size, 3), value, np.uint8))


@pytest.fixture
def jester(tmp_path, monkeypatch):
    """Twelve training clips, of 5 frames each but the first, of 37; two to test on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEXLANE_CLIPS", "set")
    Path("set").mkdir()
    Path("set/jester-v1-labels.csv").write_text("Swiping Left\nStop Sign\n")
    for name, ids in (("train", range(1, 13)), ("validation", (900, 901))):
        Path(f"set/jester-v1-{name}.csv").write_text("".join(
            f"{k};{('Swiping Left', 'Stop Sign')[k % 2]}\n" for k in ids))
        for k in ids:
            folder = Path(f"set/20bn-jester-v1/{k}")
            folder.mkdir(parents=True)
            for n in range(37 if k == 1 else 5):
                frame(5 * n + 20).save(folder / f"{n + 1:05}.jpg", quality=95)
    Path("set/jester-v1-test.csv").write_text("77\n78\n")
    return Path("set")


def refused(said: str, where: str, use=lambda: clips.load_clips("train")):
    with pytest.raises(ConfigError, match=said) as error:
        use()
    line = str(error.value)
    assert line.startswith(where) and "\n" not in line and len(line) <= 300


def test_jester_is_read(jester):
    train, validation, test = (clips.load_clips(split) for split in SPLITS)
    assert train.classes == ["Swiping Left", "Stop Sign"]
    assert [path.name for path in train.folders] == [str(k) for k in range(1, 11)]
    assert [path.name for path in validation.folders] == ["11", "12"]
    assert [path.name for path in test.folders] == ["900", "901"] and len(test) == 2
    assert train.labels.tolist() == [1, 0] * 5 and test.labels.tolist() == [0, 1]
    made, kind = train[0]
    assert made.shape == (16, 3, 96, 128) and made.dtype == np.uint8 and kind == 1
    picks = [1, 3, 5, 8, 10, 12, 15, 17, 19, 21, 24, 26, 28, 31, 33, 35]
    assert np.abs(made.mean((1, 2, 3)) - (5 * np.array(picks) + 20)).max() < 2
    made, kind = train[1]  # of five frames: some come more than once
    assert kind == 0 and np.abs(made.mean((1, 2, 3)) - 5 * np.repeat(
        np.arange(5), (3, 3, 4, 3, 3)) - 20).max() < 2
    few, _ = clips.load_clips("test", 2, (20, 30))[1]
    assert few.shape == (2, 3, 20, 30) and abs(few[1].mean() - 35) < 2


def test_frames_are_stretched_whole(jester):
    pixels = np.zeros((100, 176, 3), np.uint8)
    pixels[:50, :, 0], pixels[:, 88:, 2] = 255, 255
    for path in (jester / "20bn-jester-v1/2").iterdir():
        Image.fromarray(pixels).save(path, quality=95)
    made, _ = clips.load_clips("train")[1]
    assert made[3, 0, :44].min() > 225 and made[3, 0, 52:].max() < 20
    assert made[3, 2, :, 70:].min() > 225 and made[3, 2, :, :58].max() < 20


def test_lists_without_a_prefix_and_frames_beside_them(jester):
    for path in list(jester.glob("*.csv")):
        path.rename(jester / path.name.removeprefix("jester-v1-"))
    for path in list((jester / "20bn-jester-v1").iterdir()):
        path.rename(jester / path.name)
    assert len(clips.load_clips("train")) == 10
    (jester / "a-train.csv").write_text("1;Stop Sign\n")
    refused("one file train.csv or PREFIX-train.csv, not 2", "set: ")


@pytest.mark.parametrize(("content", "said"), [
    ("1\n", "entry 1 must be ID;class, not '1'"),
    ("1;Stop Sign\n\n../2;Stop Sign\n", r"entry 2 must be ID;class, not '../2"),
    ("1;Stop Sign\n2;Drumming\n", "entry 2: the class must be one of labels.csv, not 'Drumming'"),
    ("1;Stop Sign;\n", "not 'Stop Sign;'"),
    ("1;Stop Sign\n1;Stop Sign\n", "each clip once"),
    ("", "must list clips for train, not none"),
    ("1;Stop Sign\n999;Stop Sign\n2;Stop Sign\n", "there is no folder set/20bn-jester-v1/999"),
    ("x" * 5000, "must be ID;class"),
])
def test_wrong_list(jester, content, said):
    (jester / "jester-v1-train.csv").write_text(content)
    refused(said, "set/jester-v1-train.csv: ")


@pytest.mark.parametrize("content", ["", "Stop Sign\n", "Stop Sign\nStop Sign\n"])
def test_wrong_labels(jester, content):
    (jester / "jester-v1-labels.csv").write_text(content)
    refused("2 to 1000 different classes", "set/jester-v1-labels.csv: ")


def test_lists_that_are_missing_or_too_long(jester, monkeypatch):
    monkeypatch.setattr(clips, "LIST_LIMIT", 60)
    refused("at most 60 bytes", "set/jester-v1-train.csv: ")
    (jester / "jester-v1-train.csv").unlink()
    refused("one file train.csv or PREFIX-train.csv, not 0", "set: ")
    (jester / "jester-v1-train.csv").mkdir()
    refused("must be a plain file", "set/jester-v1-train.csv: ")
    monkeypatch.setenv("HEXLANE_CLIPS", "nowhere")
    refused("must be a folder", "nowhere: ")
    monkeypatch.delenv("HEXLANE_CLIPS")
    refused("must name a folder", "HEXLANE_CLIPS ")


def test_wrong_frames(jester, monkeypatch):
    def first():
        return clips.load_clips("train", 4)[1]

    folder = jester / "20bn-jester-v1/2"
    (folder / "notes.txt").write_text("not a frame")
    first()
    last = folder / "00005.jpg"
    last.write_bytes(last.read_bytes()[:300])
    refused("cannot be read as an image", f"{last}: ", first)
    frame(9).save(last, format="PNG")  # another format by the name of a JPEG
    refused("cannot be read as an image", f"{last}: ", first)
    monkeypatch.setattr("model.data.PIXEL_LIMIT", 17_000)
    refused("wanted at most 17000 pixels", str(folder), first)
    (folder / "00003.jpg").unlink()
    refused("one is missing before 00004.jpg", f"{folder}: ", first)
    for path in folder.glob("*.jpg"):
        path.unlink()
    refused("1 to 1000 frames 00001.jpg and so on, not 0", f"{folder}: ", first)


def test_baselines():
    """What ignores the order of frames tells no pair apart; what sees it learns from few clips."""
    torch = pytest.importorskip("torch")
    from model import clip_baselines as baselines

    assert [baselines.VIEWS[name][0] for name in baselines.VIEWS] == [False, False, True, True]
    torch.manual_seed(1)
    data, labels = baselines.reduced_clips("train", 26, 0.5)
    assert data.shape == (26, 3, 16, 48, 64) and data.dtype == torch.uint8
    assert data[:, :, 0].unique(dim=0).shape[0] == 26
    net = baselines.ClipNet(13, temporal=False, channels=(4, 8))
    looks = baselines.scores(net, data, None)
    assert baselines.told_apart(looks, labels) == pytest.approx(0.5, abs=1e-6)
    looks = baselines.scores(net, data, baselines.one_frame)
    assert looks.shape == (26, 16, 13)
    assert baselines.told_apart(looks, labels) == pytest.approx(0.5, abs=0.01)
    ordered = baselines.ClipNet(13, temporal=True, channels=(4, 8))
    turned = ordered(data.flip(2))
    assert not torch.allclose(turned, ordered(data), atol=1e-3)
    count = torch.arange(16, dtype=torch.uint8).view(1, 1, 16, 1, 1).expand(5, 3, 16, 2, 2)
    mixed = baselines.shuffled(count)
    assert mixed[:, 0, :, 0, 0].sort(1).values.equal(count[:, 0, :, 0, 0])
    assert mixed[:, 0, :, 0, 0].unique(dim=0).shape[0] == 5
    assert baselines.one_frame(count).shape == (5, 3, 1, 2, 2)


def test_scores_of_pairs():
    torch = pytest.importorskip("torch")
    from model import clip_baselines as baselines

    looks = torch.tensor([[[2.0, 1, 5]], [[2.0, 1, 5]], [[1.0, 1, 5]], [[0.0, 0, 1]]])
    labels = torch.tensor([0, 0, 1, 2])
    assert baselines.told_apart(looks, labels, ((0, 1),)) == pytest.approx((1 + 1 + 0.5) / 3)
    assert baselines.accuracy(looks, labels) == 0.25
