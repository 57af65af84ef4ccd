"""Households: rooms, cameras and people that stay the same over many pictures, for on-device learning and fleets.

What differs between households is drawn once from the household's own seed; what differs between its pictures is drawn
from the picture's. `models/households/README.md` is the format of what is written.
"""

import hashlib
import json

import cv2
import numpy as np

from . import sensor
from .files import encoded, write_whole
from .light import lights
from .person import Person
from .pose import about, random_pose
from .scene import THING, Camera, Layers, Scene, shrink_labels
from .things import Room

HEIGHT, WIDTH = 256, 192
OUTFITS = 3
EMPTY = 0.06  # share of pictures in which nobody is at home
QUALITY = 75
# Exposure in powers of e, by how bright the room is.
BRIGHTNESS = {"bright": (-0.2, 0.35), "dim": (-1.0, -0.4), "dark": (-1.7, -1.0)}
# Seed of what a household is, beside its pictures' numbers, which start at 0.
HOME, SURROUNDINGS = 1_000_000, 1_000_001


class Resident(Person):
    """A person whose body and head come from one seed and whose clothes come from another."""

    def __init__(self, assets, seed, outfit, pose):
        self.outfit = np.random.default_rng([*seed, 1 + outfit])
        super().__init__(assets, np.random.default_rng([*seed, 0]), pose)

    def dress(self):
        own, self.rng = self.rng, self.outfit
        super().dress()
        self.rng = own


class Household:
    """What stays the same: camera, light, room size, people. Metres and degrees."""

    def __init__(self, assets, seed):
        self.assets, self.seed = assets, [int(s) for s in seed]
        rng = np.random.default_rng([*self.seed, HOME])
        self.residents = int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.20]))
        self.camera_height, self.usual_distance = rng.uniform(0.9, 2.1), rng.uniform(1.3, 3.4)
        self.field_of_view, self.roll = rng.uniform(42, 80), rng.normal(0, 4)
        self.yaw, self.turned = rng.uniform(0, 360), rng.normal(0, 14)
        level = np.rad2deg(np.arctan2(0.85 - self.camera_height, self.usual_distance))
        self.pitch = level + rng.normal(0, 6)
        self.light_index = int(rng.integers(len(assets.environments)))
        self.light_name = ("bright", "dim", "dark")[rng.choice(3, p=[0.5, 0.25, 0.25])]
        self.exposure = rng.uniform(*BRIGHTNESS[self.light_name])
        self.cast = np.exp(rng.normal(0, 0.13, 3))
        self.gamma = np.exp(rng.normal(0, 0.12))
        self.grain = rng.gamma(1.1, 0.007) + (0.0 if self.light_name == "bright" else rng.uniform(0.005, 0.03))
        self.softness = rng.uniform(0.4, 1.2) if rng.random() < 0.5 else 0.0
        self.depth, self.width = self.usual_distance + rng.uniform(0.5, 2.5), rng.uniform(2.4, 5.5)

    def picture(self, number, supersample=1.3):
        """Image (H, W, 3), parts (H, W), both uint8, and how many people are seen."""
        rng = np.random.default_rng([*self.seed, number])
        scene = HouseholdScene(self, rng, round(HEIGHT * supersample), round(WIDTH * supersample))
        radiance, parts, who = scene.render()
        radiance = cv2.resize(radiance, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        parts, who = (shrink_labels(a, WIDTH, HEIGHT) for a in (parts, who))
        return self.develop(rng, radiance), parts, len(np.unique(who[who > 0]))

    def develop(self, rng, radiance):
        """The household's own camera: its cast, curve, softness and grain are always the same."""
        picture = radiance * self.cast * np.exp(self.exposure + rng.normal(0, 0.15))
        picture = (sensor.tone(picture) ** (self.gamma / 2.2)).astype(np.float32)
        if self.softness:
            picture = cv2.GaussianBlur(picture, (0, 0), self.softness)
        picture += sensor.noise(rng, picture.shape, self.grain)
        return sensor.eight_bits(picture)

    def people(self):
        """One record for each resident, as the index has it."""
        upright = lambda joints: ({}, {})
        return [Resident(self.assets, [*self.seed, HOME + 2 + k], 0, upright).record for k in range(self.residents)]

    def record(self, name, corrections, pictures):
        """The household's entry in the index."""
        return {"name": name, "corrections": corrections, "people": self.people(), "light": self.light_name,
                "camera_height": round(self.camera_height, 2), "field_of_view": round(self.field_of_view, 1),
                "pictures": pictures}


class HouseholdScene(Scene):
    """One picture of a household."""

    def __init__(self, home, rng, height, width):
        self.home, self.assets, self.rng = home, home.assets, rng
        self.light_index, self.light = home.light_index, lights(home.assets)[home.light_index]
        self.dark, self.inside, self.view = False, True, "mirror"
        focal = height / 2 / np.tan(np.deg2rad(home.field_of_view) / 2)
        to_world = about("Y", home.yaw) @ about("X", home.pitch) @ about("Z", home.roll)
        self.camera, self.layers = Camera(height, width, focal, to_world), Layers(height, width)
        self.placed, self.people, self.feet = [], [], []
        self.ground, self.centre, self.distance = -home.camera_height, None, home.usual_distance

    def surroundings(self):
        """A generator that gives the same room and lamps for every picture."""
        return np.random.default_rng([*self.home.seed, SURROUNDINGS])

    def place_people(self):
        rng, home = self.rng, self.home
        count = 0 if rng.random() < EMPTY else int(rng.integers(1, home.residents + 1))
        present, free = rng.permutation(home.residents)[:count], []
        for order, number in enumerate(present):
            pose = lambda joints: random_pose(self.assets, rng, joints)
            person = Resident(self.assets, [*home.seed, HOME + 2 + int(number)], int(rng.integers(OUTFITS)), pose)
            self.stand(person, int(number) + 1, self.spot(order, free))
        self.ground = -home.camera_height

    def spot(self, order, taken):
        """(sideways, ahead) on the floor; the first person is near the usual place, nobody stands in another."""
        rng, distance = self.rng, self.home.usual_distance
        for _ in range(20):
            ahead = distance * np.exp(rng.normal(0, 0.16)) + order * rng.uniform(-0.2, 0.9)
            side = rng.normal(0, 0.10 + 0.16 * order) * distance
            if all(np.hypot(side - s, ahead - a) > 0.6 for s, a in taken):
                break
        taken.append((side, ahead))
        return side, max(0.9, ahead)

    def stand(self, person, number, spot):
        heading = self.camera.heading()
        support, turned = self.support(person), heading @ about("Y", self.facing())
        body = person.skin_vertices @ turned.T
        offset = heading @ np.array([spot[0], 0, -spot[1]])
        offset[1] = person.below - self.home.camera_height - body[:, 1].min()
        for entry in person.items:
            self.add(entry, entry.vertices @ turned.T + offset, number)
        for entry in support:
            self.add(entry, entry.vertices @ turned.T + offset, THING)
        self.note(person, body + offset, number)

    def place_room(self):
        home = self.home
        room = Room(self.assets, self.surroundings(), self.ground, home.depth, home.width)
        heading = self.camera.heading() @ about("Y", home.turned)
        for entry in room.items:
            self.add(entry, entry.vertices @ heading.T, THING)

    def place_things(self):
        """A household's things are its room's."""

    def occluders(self, radiance):
        """Nothing stands between a mirror and its people for long."""

    def polish(self, radiance, lit):
        own, self.rng = self.rng, self.surroundings()
        super().polish(radiance, lit)
        self.rng = own

    def pools_of_light(self, radiance):
        own, self.rng = self.rng, self.surroundings()
        super().pools_of_light(radiance)
        self.rng = own


def write_households(assets, out, seeds, names, count, corrections):
    """Renders households of `count` pictures into one folder; each file is written whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    pack, records = bytearray(), []
    for seed, name in zip(seeds, names, strict=True):
        home, pictures = Household(assets, seed), []
        for number in range(count):
            image, parts, people = home.picture(number)
            entry = {}
            for key, data in (("image", encoded(".jpg", image, QUALITY)), ("labels", encoded(".png", parts))):
                entry[key] = [len(pack), len(data)]
                pack += data
            pictures.append({**entry, "people": people})
        records.append(home.record(name, corrections, pictures))
        print(f"{name}: {count} pictures, {len(pack) / 1e6:.2f} MB so far", flush=True)
    index = {"format_version": 1, "height": HEIGHT, "width": WIDTH, "pack_bytes": len(pack),
             "pack_sha256": hashlib.sha256(pack).hexdigest(), "households": records}
    write_whole(out / "pictures.pack", bytes(pack))
    write_whole(out / "index.json", json.dumps(index, indent=1).encode() + b"\n")


def read_households(folder):
    """The index of a folder with every picture decoded in its place; `ValueError` if the pack is not the index's."""
    index = json.loads((folder / "index.json").read_text())
    pack = (folder / "pictures.pack").read_bytes()
    if len(pack) != index["pack_bytes"] or hashlib.sha256(pack).hexdigest() != index["pack_sha256"]:
        raise ValueError(f"{folder}/pictures.pack is not the one that index.json describes; render the households again")
    part = lambda place: np.frombuffer(pack, np.uint8, place[1], place[0])
    for home in index["households"]:
        for entry in home["pictures"]:
            entry["image"] = cv2.imdecode(part(entry["image"]), cv2.IMREAD_COLOR)[..., ::-1]
            entry["labels"] = cv2.imdecode(part(entry["labels"]), cv2.IMREAD_GRAYSCALE)
    return index
