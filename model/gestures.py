"""Clips of hand gestures, drawn from a seed: 16 frames of 96x128 pixels, in thirteen classes.

Ten classes are five pairs whose members differ in nothing but the order of time: the clip of
`swipe_right` with some number is the clip of `swipe_left` with the same number, played backwards.
What looks at single frames, or at frames in any order, must fail on them. Left, right and clockwise
are those of the image. Zooming in is a hand or two fingers opening; pushing comes closer.

Each split has its own performers and its own rooms, and no seed makes them meet. A clip depends on
its split, index, seed and difficulty only. The classes follow each other: index modulo 13.
"""

from functools import lru_cache

import numpy as np

from model.hands import Performer, draw_performer, draw_person, draw_room, paint, paint_hand

CLASSES = ("swipe_left", "swipe_right", "swipe_up", "swipe_down", "push", "pull",
           "rotate_clockwise", "rotate_anticlockwise", "zoom_in", "zoom_out",
           "stop", "shaking", "none")
PAIRS = tuple((k, k + 1) for k in range(0, 10, 2))
FRAMES, HEIGHT, WIDTH = 16, 96, 128
MARGIN = 8  # pixels that the camera can move, each way
DIFFICULTY = 0.5
# How many there are of each, numbered within the split.
PERFORMERS = {"train": 1000, "validation": 20, "test": 30}
ROOMS = {"train": 1000, "validation": 80, "test": 120}
SPLITS = tuple(PERFORMERS)

_TIME = np.arange(FRAMES) / (FRAMES - 1)
_HIGH, _WIDE = HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN


@lru_cache(2048)
def performer(split: str, number: int) -> Performer:
    """One of the split's performers."""
    return draw_performer(np.random.default_rng([101, SPLITS.index(split), number]))


@lru_cache(2048)
def room(split: str, number: int) -> np.ndarray:
    """One of the split's backgrounds, uint8 (3, height, width) with the margin, read-only."""
    made = draw_room(np.random.default_rng([102, SPLITS.index(split), number]), _HIGH, _WIDE)
    made.flags.writeable = False
    return made


@lru_cache(1)
def _grain() -> np.ndarray:
    """Noise of a sensor, int16, of which each frame takes a piece."""
    return np.random.default_rng(103).normal(0, 64, (3, 2 * HEIGHT, 2 * WIDTH)).astype(np.int16)


def label(index: int) -> int:
    """The class of a clip."""
    return index % len(CLASSES)


def clip(split: str, index: int, seed: int = 1, difficulty: float = DIFFICULTY
         ) -> tuple[np.ndarray, int]:
    """Frames uint8 (16, 3, 96, 128) and the class of one clip of `train`, `validation` or `test`.

    `difficulty` from 0 to 1 adds shaking of the camera, aimless movement, smaller and shorter
    gestures, things before the hand and behind it, changes of light, and noise.
    """
    if split not in SPLITS or index < 0 or not 0 <= difficulty <= 1:
        raise ValueError(f"wanted one of {SPLITS}, a number and a difficulty from 0 to 1, "
                         f"got {split}, {index}, {difficulty}")
    played, number, rng = _begin(split, index, seed)
    frames = _scene(CLASSES[played], performer(split, number), split, rng, difficulty)
    kind = label(index)
    return (np.ascontiguousarray(frames[::-1]) if played != kind else frames), kind


def who(split: str, index: int, seed: int = 1) -> int:
    """The number of the performer in a clip."""
    return _begin(split, index, seed)[1]


def _begin(split: str, index: int, seed: int) -> tuple[int, int, np.random.Generator]:
    """Of a clip: the class that is drawn, if need be to be played backwards; the number of its
    performer; and what draws the rest."""
    kind = label(index)
    played = kind - any(kind == second for _, second in PAIRS)
    rng = np.random.default_rng([seed, SPLITS.index(split), played, index // len(CLASSES)])
    return played, int(rng.integers(PERFORMERS[split])), rng


def _scene(verb: str, person: Performer, split: str, rng: np.random.Generator, hard: float
           ) -> np.ndarray:
    back = room(split, int(rng.integers(ROOMS[split]))).copy()
    if rng.random() < 0.8:
        draw_person(back, person, rng)
    world = np.repeat(back[None], FRAMES, 0)
    if rng.random() < 0.6 * hard:
        _passer(world, rng)
    light = rng.normal(0, 0.006, 2)
    motion = _motion(verb, person, rng, hard)
    if motion is not None:
        paint_hand(world, person, **motion, light=light)
    if rng.random() < 0.7 * hard:
        _obstacle(world, rng)
    return _camera(world, rng, hard)


def _smooth(rng: np.random.Generator, size: int = 1, cycles: float = 1.2) -> np.ndarray:
    """Aimless movement (16, size) of about -1 to 1: slow waves, which do not know a direction."""
    speed = rng.uniform(0.3, cycles, (2, 1, size))
    phase = rng.uniform(0, 2 * np.pi, (2, 1, size))
    waves = np.sin(2 * np.pi * speed * _TIME[:, None] + phase)
    return 0.65 * (waves[0] + rng.uniform(0.2, 0.8) * waves[1])


def _progress(rng: np.random.Generator, pace: float, hard: float) -> np.ndarray:
    """From 0 to 1 (16,), at rest before and after."""
    least = 0.7 - 0.35 * hard
    long = np.clip(rng.uniform(least, 1) / pace, 0.3, 1)
    start = rng.uniform(0, 1 - long)
    part = np.clip((_TIME - start) / long, 0, 1)
    power = rng.uniform(1.2, 2.2)
    return part ** power / (part ** power + (1 - part) ** power)


def _motion(verb: str, person: Performer, rng: np.random.Generator, hard: float) -> dict | None:
    """Where the hand is, and how, in each frame: arguments of `paint_hand`. None: no hand."""
    side = rng.choice([-1.0, 1.0])
    middle = np.array([_WIDE * rng.uniform(0.3, 0.7), _HIGH * rng.uniform(0.4, 0.62)])
    place = np.repeat(middle[None], FRAMES, 0)
    size = np.full(FRAMES, person.size * rng.uniform(0.85, 1.25))
    angle = np.full(FRAMES, rng.normal(0, 0.2))
    straight = np.full((FRAMES, 5), 1.0) * rng.uniform(0.75, 1, 5)
    fan = np.full((FRAMES, 5), rng.uniform(0.45, 1.2))
    if verb not in ("zoom_in", "stop") and rng.random() < 0.35:
        straight *= rng.choice([0.15, 1.0], 5, p=[0.6, 0.4])  # a fist, or some fingers
    done = _progress(rng, person.pace, hard)[:, None]
    away = done - 0.5
    reach = person.reach * rng.uniform(1 - 0.4 * hard, 1.15)
    calm = 1.0
    match verb:
        case "swipe_left":
            place = place - away * [0.56 * _WIDE * reach, 0]
            place[:, 1] += rng.normal(0, 7) * (1 - 4 * away[:, 0] ** 2)
            angle = angle - rng.uniform(0, 0.9) * away[:, 0]
        case "swipe_up":
            place = place - away * [0, 0.56 * _HIGH * reach]
            place[:, 0] += rng.normal(0, 7) * (1 - 4 * away[:, 0] ** 2)
        case "push":
            size = size * 2.1 ** (away[:, 0] * reach)
        case "rotate_clockwise":
            angle = angle + np.radians(115) * reach * away[:, 0]
        case "zoom_in":
            whole = rng.random() < 0.5
            grown = 0.5 + away * np.clip(reach, 0, 1)
            if whole:  # the hand opens
                straight, fan = 0.05 + 0.95 * grown * straight, 0.3 + 0.9 * grown + 0 * fan
            else:  # thumb and index finger part
                straight = straight * [1, 1, 0.1, 0.1, 0.1]
                fan = 0.1 + grown * [1.4, 1.6, 0, 0, 0]
        case "stop":
            fan = np.full((FRAMES, 5), rng.uniform(0.4, 0.9))
            angle *= 0.5
            if rng.random() < 0.6:  # comes, then stays
                come = np.clip(1 - _TIME / rng.uniform(0.15, 0.35), 0, 1)
                place[:, 1] += come * rng.uniform(25, 55)
                place[:, 0] += come * rng.normal(0, 15)
            calm = 0.4
        case "shaking":
            cycles, phase = rng.uniform(1.6, 3.6), rng.uniform(0, 2 * np.pi)
            wave = np.sin(2 * np.pi * cycles * _TIME + phase)
            turn = rng.choice([0.0, 0.5, 1.0])
            place[:, 0] += (1 - turn) * 10 * reach * wave
            angle = angle + turn * 0.55 * reach * wave
        case "none":
            if rng.random() < 0.3:
                return None
            if rng.random() < 0.5:  # rests
                place += np.array([rng.normal(0, 20), rng.uniform(15, 45)])
                straight *= rng.choice([0.15, 0.6])
                calm = 0.6
            else:  # goes about something else
                place += 11 * _smooth(rng, 2, 0.9)
                angle = angle + 0.35 * _smooth(rng)[:, 0]
                straight = straight * (0.7 + 0.3 * _smooth(rng, 5, 0.8))
    stir = calm * hard
    place = place + stir * 4 * _smooth(rng, 2)
    size = size * np.exp(stir * 0.09 * _smooth(rng)[:, 0])
    angle = angle + stir * 0.18 * _smooth(rng)[:, 0]
    straight = np.clip(straight + stir * 0.15 * _smooth(rng, 5), 0, 1.1)
    elbow = (middle + np.array([side * rng.uniform(-8, 30), rng.uniform(52, 75)])
             + 0.4 * (place - middle))
    arm = place - elbow
    lean = np.arctan2(arm[:, 0], -arm[:, 1])
    return {"place": place, "size": size, "angle": angle + 0.6 * lean, "straight": straight,
            "fan": fan, "side": side, "yaw": rng.uniform(-0.7, 0.7), "elbow": elbow}


def _passer(world: np.ndarray, rng: np.random.Generator):
    """Someone, or a ball, that passes behind the hand in any direction."""
    start = np.array([rng.uniform(0, _WIDE), rng.uniform(0, _HIGH)])
    step = rng.uniform(-0.6, 0.6, 2) * [_WIDE, _HIGH]
    low = (start + (_TIME[:, None] - 0.5) * step)[:, None]
    radius = np.full((FRAMES, 1), rng.uniform(3, 13))
    high = low - [0, rng.uniform(0, 30)]
    color = np.clip(rng.uniform(20, 230) + rng.normal(0, 40, 3), 5, 250)
    paint(world, low, high, radius, 0.7 * radius, color, radius[:, 0])


def _obstacle(world: np.ndarray, rng: np.random.Generator):
    """Something that stands before the hand: a bar across the image, or a ball."""
    x, y = _WIDE * rng.uniform(0.2, 0.8), _HIGH * rng.uniform(0.3, 0.9)
    if rng.random() < 0.5:
        across = rng.normal(0, 12)
        upright = rng.random() < 0.6
        low, high = ((x - across, -12), (x + across, _HIGH + 12)) if upright else \
            ((-12, y - across), (_WIDE + 12, y + across))
        radius = rng.uniform(2, 5)
    else:
        low, high, radius = (x, y), (x + rng.normal(0, 8), y + rng.normal(0, 8)), rng.uniform(5, 11)
    shape = (np.tile(np.array(each, float), (FRAMES, 1, 1)) for each in (low, high))
    color = np.clip(rng.uniform(20, 230) + rng.normal(0, 35, 3), 5, 250)
    thick = np.full((FRAMES, 1), radius)
    paint(world, *shape, thick, thick, color, 0.8 * thick[:, 0])


def _camera(world: np.ndarray, rng: np.random.Generator, hard: float) -> np.ndarray:
    """What it sees: frames uint8 (16, 3, 96, 128) cut from the world, in its light and noise."""
    moved = hard * (4.5 * _smooth(rng, 2) + rng.normal(0, rng.uniform(0, 1.2), (FRAMES, 2)))
    top, left = np.clip(np.round(MARGIN + moved), 0, 2 * MARGIN).astype(int).T
    gain = rng.uniform(0.8, 1.15) * (1 + 0.14 * hard * _smooth(rng)[:, 0])
    # Eight bits of fraction, so that grain of a deviation of 64 is noise of a fourth of a level.
    gain = np.round(256 * gain).astype(np.int32)
    noise = round(rng.uniform(4, 8 + 24 * hard))
    spot = rng.integers(0, [HEIGHT, WIDTH], (FRAMES, 2))
    seen = np.empty((FRAMES, 3, HEIGHT, WIDTH), np.uint8)
    grain = _grain()
    for n in range(FRAMES):
        y, x = spot[n]
        frame = world[n, :, top[n]:top[n] + HEIGHT, left[n]:left[n] + WIDTH] * gain[n]
        frame += grain[:, y:y + HEIGHT, x:x + WIDTH].astype(np.int32) * noise
        frame >>= 8
        np.clip(frame, 0, 255, out=frame)
        seen[n] = frame
    return seen
