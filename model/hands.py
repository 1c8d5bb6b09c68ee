"""Draws people's hands, heads and arms, and rooms behind them, for :mod:`model.gestures`.

Everything is made of capsules: a line from one point to another, thick at each by its radius. A
hand is three of them for the palm and one for each finger. Points are pixels right and down.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

# From fair to dark; a performer's skin lies between two of them.
SKIN = np.array([[246, 208, 184], [226, 172, 136], [190, 130, 92], [140, 88, 58], [84, 54, 40]])
KNUCKLES = np.array([-0.62, -0.36, -0.11, 0.14, 0.37])  # thumb to little finger, of a palm's width
FAN = np.array([-0.85, -0.16, -0.03, 0.1, 0.26])  # radians from straight up


@dataclass(frozen=True, eq=False)
class Performer:
    """What stays of a person from clip to clip. Colors are RGB from 0 to 255."""

    skin: np.ndarray  # of the hand, or its glove
    face: np.ndarray
    sleeve: np.ndarray
    hair: np.ndarray
    fingers: np.ndarray  # (5,) lengths, in palm widths
    thickness: float  # radius of a finger, in palm widths
    slim: float  # a palm's width over its length
    bare: float  # share of the forearm without a sleeve
    size: float  # a palm's width in pixels, at middle distance
    pace: float  # how fast it moves
    reach: float  # how far it moves
    head: float  # its height over its width


def draw_performer(rng: np.random.Generator) -> Performer:
    tone = rng.uniform(0, len(SKIN) - 1.001)
    face = SKIN[int(tone)] + (tone % 1) * (SKIN[int(tone) + 1] - SKIN[int(tone)])
    face = np.clip(face + rng.normal(0, 6, 3), 20, 255)
    gloves = rng.random() < 0.12
    return Performer(
        skin=rng.uniform(20, 240, 3) if gloves else face, face=face,
        sleeve=rng.uniform(15, 235) + rng.normal(0, 40, 3), hair=rng.uniform(10, 90, 3),
        fingers=np.array([0.62, 0.86, 0.98, 0.9, 0.7]) * rng.uniform(0.85, 1.2)
        * rng.uniform(0.93, 1.07, 5), thickness=rng.uniform(0.1, 0.145),
        slim=rng.uniform(0.85, 1.15), bare=rng.choice([rng.uniform(0, 0.25), 1.0]),
        size=rng.uniform(13, 20), pace=rng.uniform(0.85, 1.2), reach=rng.uniform(0.85, 1.1),
        head=rng.uniform(1.15, 1.45))


@cache
def _stretch(least: int, most: int) -> np.ndarray:
    """The matrix (most, least) that draws a line of `most` pixels through `least` values."""
    places = np.linspace(0, least - 1, most)
    return np.maximum(1 - np.abs(places[:, None] - np.arange(least)), 0).astype(np.float32)


def clouds(rng: np.random.Generator, height: int, width: int, steps=(3, 6, 12, 24, 48)
           ) -> np.ndarray:
    """Noise (3, height, width) of about -1 to 1, with details of every size, as photographs have.

    The three colors agree for the most part.
    """
    total = np.zeros((3, height, width), np.float32)
    for k, step in enumerate(steps):
        grid = (rng.normal(0, 1, (1, step, step)) + 0.4 * rng.normal(0, 1, (3, step, step)))
        grid = grid.astype(np.float32)
        total += 0.62 ** k * (_stretch(step, height) @ grid @ _stretch(step, width).T)
    return total / 2.2


def draw_room(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A background (3, height, width): a wall in some light, things before it, textures."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    wall = rng.uniform(60, 220) + rng.normal(0, 18, 3)
    slope = rng.normal(0, 25, 2)
    room = wall[:, None, None] + slope[0] * (y / height - 0.5) + slope[1] * (x / width - 0.5)
    room = room + rng.uniform(8, 45) * clouds(rng, height, width)
    for _ in range(rng.integers(1, 8)):
        h, w = rng.integers(10, 70), rng.integers(8, 60)
        top, left = rng.integers(-20, height - 5), rng.integers(-20, width - 5)
        spot = slice(max(top, 0), top + h), slice(max(left, 0), left + w)
        color = (rng.uniform(15, 240) + rng.normal(0, 35, 3))[:, None, None]
        thing = np.broadcast_to(color, (3, height, width))[:, *spot]
        kind, period, angle = rng.integers(4), rng.uniform(3, 14), rng.uniform(0, np.pi)
        along = np.cos(angle) * x + np.sin(angle) * y
        across = np.cos(angle) * y - np.sin(angle) * x
        if kind == 1:  # books, blinds, planks
            thing = thing + rng.uniform(10, 50) * np.sin(2 * np.pi * along / period)[spot]
        elif kind == 2:  # tiles, bricks
            thing = thing + rng.uniform(10, 40) * (np.sign(np.sin(2 * np.pi * along / period))
                                                   * np.sign(np.sin(2 * np.pi * across / period))
                                                   )[spot]
        elif kind == 3:  # leaves, cloth
            thing = thing + rng.uniform(15, 60) * clouds(rng, height, width, (20, 40))[:, *spot]
        room[:, *spot] = thing
    return np.clip(room, 0, 255).astype(np.uint8)


def draw_person(room: np.ndarray, person: Performer, rng: np.random.Generator):
    """Head and shoulders in the middle distance, into a background uint8 (3, height, width)."""
    height, width = room.shape[1:]
    middle, chin = width * rng.uniform(0.3, 0.7), height * rng.uniform(0.42, 0.66)
    radius = rng.uniform(11, 17)
    neck = middle, chin + 0.3 * radius
    head = middle, chin - person.head * radius
    y, x = np.mgrid[:height, :width].astype(np.float32)
    shirt = np.clip(person.sleeve + rng.normal(0, 5), 0, 255)
    shoulders = np.clip(1.4 * radius, 14, 24)
    skin = 0.92 * person.face
    for (a, b, ra, rb), color in (
            (((middle - 1.4 * radius, chin + 2.4 * radius),
              (middle + 1.4 * radius, chin + 2.4 * radius), shoulders, shoulders), shirt),
            (((middle - radius, height + 9), (middle + radius, height + 9),
              2 * shoulders, 2 * shoulders), shirt),
            ((neck, (middle, chin - radius), 0.5 * radius, 0.5 * radius), 0.85 * skin),
            (((head[0], head[1] - 3), head, 1.1 * radius, 1.1 * radius), person.hair),
            (((head[0], head[1] + 0.35 * radius), (middle, chin - 0.9 * radius),
              0.92 * radius, 0.8 * radius), skin)):
        depth = -_capsule(x[None], y[None], np.array([a]), np.array([b]),
                          np.array([ra]), np.array([rb]))[0]
        _blend(room, depth, color, 0.8 + 0.2 * np.clip(depth / (0.5 * ra), 0, 1))
    for side in (-1, 1):
        eye = np.hypot(x - head[0] - side * 0.38 * radius, y - head[1] - 0.35 * radius)
        _blend(room, 1.4 - eye, np.array([30, 25, 25]), 1)
    mouth = np.maximum(np.abs(x - middle) - 0.35 * radius, np.abs(y - chin + 0.55 * radius) - 0.5)
    _blend(room, 0.5 - mouth, 0.6 * skin, 1)


def _blend(image: np.ndarray, depth: np.ndarray, color: np.ndarray, shade):
    """Paints where `depth` (h, w) in pixels is above zero, with soft edges."""
    share = np.clip(depth + 0.5, 0, 1)
    for plane, value in zip(image, color, strict=True):
        plane[...] = np.clip(plane + share * (value * shade - plane), 0, 255)


def _capsule(x, y, start, end, first, last) -> np.ndarray:
    """Distances (n, h, w) to the outline of a capsule in each of n frames, below zero inside.

    `x` (n, 1, w) and `y` (n, h, 1) are pixels; `start`, `end` (n, 2); radii `first`, `last` (n,).
    """
    def each(values):
        return np.asarray(values, np.float32)[:, None, None]

    ax, ay, bx, by = each(start[:, 0]), each(start[:, 1]), each(end[:, 0]), each(end[:, 1])
    bx, by = bx - ax, by - ay
    x, y = x - ax, y - ay
    square = bx * bx + by * by + np.float32(1e-6)
    along = (x * bx) / square + (y * by) / square
    np.clip(along, 0, 1, out=along)
    dx, dy = x - bx * along, y - by * along
    dx *= dx
    dy *= dy
    dx += dy
    np.sqrt(dx, out=dx)
    along *= each(last - first)
    dx -= along
    dx -= each(first)
    return dx


def _window(points: np.ndarray, margin: float, height: int, width: int):
    """Corners (n,) of a window of one size that holds `points` (n, k, 2) of each frame.

    Returns tops, lefts and the window's height and width. What is outside the image is left out.
    """
    low = np.floor(points.min(1) - margin).astype(int)
    high = np.ceil(points.max(1) + margin).astype(int) + 1
    low = np.clip(low, 0, [width - 1, height - 1])
    high = np.clip(high, low + 1, [width, height])
    w, h = (high - low).max(0)
    return np.minimum(low[:, 1], height - h), np.minimum(low[:, 0], width - w), h, w


def paint(frames: np.ndarray, starts: np.ndarray, ends: np.ndarray, first: np.ndarray,
          last: np.ndarray, color: np.ndarray, round_off: np.ndarray, light=(0.0, 0.0)):
    """Paints one thing of a `color` (3,) into frames uint8 (n, 3, height, width), in place.

    It is the union of capsules `starts` to `ends` (n, k, 2), with radii `first` and `last` (n, k).
    Its brightness falls off within `round_off` (n,) pixels of its outline, and along `light`, right
    and down, per pixel.
    """
    count, _, height, width = frames.shape
    both = np.concatenate([starts, ends], 1)
    top, left, h, w = _window(both, max(first.max(), last.max()) + 1, height, width)
    x = (left[:, None] + np.arange(w)).astype(np.float32)[:, None, :]
    y = (top[:, None] + np.arange(h)).astype(np.float32)[:, :, None]
    nearest = _capsule(x, y, starts[:, 0], ends[:, 0], first[:, 0], last[:, 0])
    for k in range(1, starts.shape[1]):
        np.minimum(nearest, _capsule(x, y, starts[:, k], ends[:, k], first[:, k], last[:, k]),
                   out=nearest)
    share = np.clip(np.float32(0.5) - nearest, 0, 1)
    soft = np.asarray(round_off, np.float32)[:, None, None]
    shade = np.clip(nearest / -soft, 0, 1)
    shade *= np.float32(0.34)
    shade += np.float32(0.72)
    middle = both.mean(1).astype(np.float32)
    if any(light):
        shade += (np.float32(light[0]) * (x - middle[:, :1, None])
                  + np.float32(light[1]) * (y - middle[:, 1:, None]))
    for channel, value in enumerate(np.asarray(color, np.float32)):
        value = np.clip(shade * value, 0, 255)
        for n in range(count):
            spot = frames[n, channel, top[n]:top[n] + h, left[n]:left[n] + w]
            spot[...] = spot + share[n] * (value[n] - spot)


def paint_hand(frames: np.ndarray, person: Performer, place: np.ndarray, size: np.ndarray,
               angle: np.ndarray, straight: np.ndarray, fan: np.ndarray, side: float, yaw: float,
               elbow: np.ndarray, light=(0.0, 0.0)):
    """A hand and its forearm into frames uint8 (n, 3, height, width).

    `place` (n, 2) is the middle of the palm, `size` (n,) its width in pixels, `angle` (n,) the
    hand's, clockwise from fingers up; `straight` (n, 5) the length that is seen of each finger,
    0 to 1; `fan` (n, 5) how far each is spread; `side` 1: the thumb is on the left, -1: right;
    `yaw` radians turned sideways; `elbow` (n, 2).
    """
    wide = side * np.cos(yaw)
    up = np.stack([np.sin(angle), -np.cos(angle)], 1)[:, None]
    right = np.stack([np.cos(angle), np.sin(angle)], 1)[:, None] * wide
    scale = size[:, None, None]

    def points(x, y):
        return place[:, None] + scale * (np.asarray(x)[..., None] * right
                                         + np.asarray(y)[..., None] * up)

    long = 1 / person.slim
    count = len(frames)
    knuckle = np.array([-0.2, 0.5, 0.55, 0.5, 0.38]) * long
    turned = FAN * fan
    length = person.fingers * (0.18 + 0.82 * straight)
    roots = points(np.broadcast_to(KNUCKLES * np.array([0.62, 1, 1, 1, 1]), (count, 5)),
                   np.broadcast_to(knuckle, (count, 5)))
    tips = points(KNUCKLES * np.array([0.62, 1, 1, 1, 1]) + length * np.sin(turned),
                  knuckle + length * np.cos(turned))
    low = points(np.broadcast_to([-0.16, 0.0, 0.16], (count, 3)),
                 np.broadcast_to(np.array([-0.38, -0.4, -0.38]) * long, (count, 3)))
    high = points(np.broadcast_to([-0.24, 0.0, 0.24], (count, 3)),
                  np.broadcast_to(np.array([0.32, 0.32, 0.26]) * long, (count, 3)))
    thick = person.thickness * size[:, None]
    narrow = 0.5 + 0.5 * abs(wide)  # a hand that is turned sideways is not so wide
    palm = np.array([0.24, 0.27, 0.24]) * narrow * size[:, None]
    # The forearm first: the hand lies over it.
    wrist = points(np.zeros((count, 1)), np.full((count, 1), -0.5 * long))
    cuff = wrist + person.bare * (elbow[:, None] - wrist)
    thin = (0.27 * size)[:, None]
    broad = (0.42 * size)[:, None]
    if person.bare > 0.05:
        paint(frames, wrist, elbow[:, None], thin, broad, person.skin, 0.3 * size,
              light)
    if person.bare < 1:
        paint(frames, cuff, elbow[:, None], 1.25 * thin, 1.2 * broad,
              np.clip(person.sleeve, 5, 250), 0.3 * size, light)
    fat = np.array([1.15, 1.05, 1.05, 1.0, 0.88]) * thick
    paint(frames, np.concatenate([low, roots], 1), np.concatenate([high, tips], 1),
          np.concatenate([palm, fat], 1), np.concatenate([palm, 0.85 * fat], 1),
          person.skin, 0.16 * size, light)
