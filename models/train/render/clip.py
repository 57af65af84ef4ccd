"""The demo clip: two people training in a room, as a camera in a mirror's top edge sees them, with labels."""

import cv2
import numpy as np

from . import pose as poses
from .files import encoded, write_whole
from .light import lights
from .person import Person
from .pose import Directions, about, from_directions
from .scene import THING, Camera, Layers, Scene
from .sensor import eight_bits, tone
from .things import Room

SECONDS, RATE = 8.0, 10
HEIGHT, WIDTH = 320, 240
LABEL_HEIGHT, LABEL_WIDTH = 128, 96
FADE = 0.5  # seconds in which one exercise becomes the next

# (exercise, seconds, repetitions)
FIRST = ((poses.squat, 3.2, 2), (poses.jumping_jack, 2.4, 2), (poses.press, 2.4, 1))
SECOND = ((poses.arms_side, 3.0, 1), (poses.curl, 3.0, 2), (poses.side_bend, 2.0, 1))


def blend(a, b, share):
    """Between two poses: directions are mixed, the trunk's rotation is mixed and made orthonormal again."""
    mix = lambda x, y: tuple(poses.unit((1 - share) * poses.unit(p) + share * poses.unit(q)) for p, q in zip(x, y))
    u, _, v = np.linalg.svd((1 - share) * a.trunk + share * b.trunk)
    return Directions(u @ v, mix(a.left, b.left), mix(a.right, b.right))


def pose_at(timeline, time):
    """Directions at a time of the looping clip; every exercise begins and ends in its resting position."""
    starts = np.cumsum([0.0] + [seconds for _, seconds, _ in timeline])
    time = time % starts[-1]
    k = int(np.searchsorted(starts, time, side="right")) - 1
    here = phase(timeline[k], time - starts[k])
    left = starts[k + 1] - time
    if left < FADE:
        return blend(here, phase(timeline[(k + 1) % len(timeline)], 0.0), 0.5 - 0.5 * np.cos(np.pi * (1 - left / FADE)))
    return here


def phase(entry, time):
    make, seconds, repetitions = entry
    depth = 0.5 - 0.5 * np.cos(2 * np.pi * repetitions * time / seconds)
    return make(np.random.default_rng(5), depth)


class ClipScene(Scene):
    """One frame. Everything but the poses is drawn from fixed seeds, so nothing flickers."""

    def __init__(self, assets, seed, time, height, width):
        self.assets, self.seed, self.time = assets, seed, time
        self.rng = np.random.default_rng(seed)
        self.light_index = next(i for i, (name, _, _) in enumerate(assets.environments) if name == "lebombo")
        self.light = lights(assets)[self.light_index]
        self.dark, self.inside, self.view = False, True, "mirror"
        focal = height / 2 / np.tan(np.deg2rad(62) / 2)
        self.camera = Camera(height, width, focal, about("Y", 40) @ about("X", -13))
        self.layers = Layers(height, width)
        self.placed, self.people, self.feet = [], [], []
        self.ground, self.centre, self.distance = -1.65, None, 2.7

    def place_people(self):
        for number, (timeline, ahead, side, yaw) in enumerate(((FIRST, 2.6, -0.35, 8), (SECOND, 3.6, 0.75, -14)), 1):
            rng = np.random.default_rng([self.seed, number])
            fixed = lambda: np.random.default_rng(9)
            directions = pose_at(timeline, self.time)
            person = Person(self.assets, rng, lambda joints: (from_directions(self.assets, fixed(), joints, directions, 0.02), {}))
            heading = self.camera.heading()
            turned = heading @ about("Y", yaw)
            body = person.skin_vertices @ turned.T
            offset = heading @ np.array([side, 0, -ahead])
            offset[1] = self.ground + person.below - body[:, 1].min()
            for entry in person.items:
                self.add(entry, entry.vertices @ turned.T + offset, number)
            self.note(person, body + offset, number)
        self.ground = -1.65

    def place_room(self):
        room = Room(self.assets, np.random.default_rng([self.seed, 3]), self.ground, 5.2, 5.4)
        heading = self.camera.heading()
        for entry in room.items:
            self.add(entry, entry.vertices @ heading.T, THING)

    def place_things(self):
        return

    def occluders(self, radiance):
        return

    def frame(self):
        """Picture (H, W, 3) uint8 sRGB and parts (H, W)."""
        radiance, parts, _ = self.render()
        picture = tone(radiance)
        grain = np.random.default_rng([self.seed, int(self.time * 1000)]).normal(0, 0.006, picture.shape)
        picture = picture ** (1 / 2.2) + grain
        return eight_bits(picture), parts


def clip(assets, seed, out, labels):
    """Writes concatenated JPEGs and one label PNG a frame, when all are made; labels of an older and longer clip go."""
    labels.mkdir(parents=True, exist_ok=True)
    frames, names = [], {}
    for k in range(int(SECONDS * RATE)):
        scene = ClipScene(assets, seed, k / RATE, 2 * HEIGHT, 2 * WIDTH)
        picture, parts = scene.frame()
        picture = cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        frames.append(encoded(".jpg", picture, 82))
        parts = cv2.resize(parts, (LABEL_WIDTH, LABEL_HEIGHT), interpolation=cv2.INTER_NEAREST_EXACT)
        names[f"{k:04d}.png"] = encoded(".png", parts)
    write_whole(out, b"".join(frames))
    for name, data in names.items():
        write_whole(labels / name, data)
    for path in labels.glob("[0-9][0-9][0-9][0-9].png"):
        if path.name not in names:
            path.unlink()
