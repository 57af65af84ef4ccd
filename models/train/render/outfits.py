"""People with what the plain ones lack: suits and ties, glasses, beards, brims, scarves, gloves, straps, tables before them."""

import numpy as np

from . import kernels
from .cloth import cloth_colour, garment_texture, hair_colour, stubble
from .objects import TABLE_THINGS, assembly, bottle, finish, turned_on_lathe
from .person import DECIMETRES, FACE, HAIR, TORSO, Item, Person, only
from .pose import about, turn
from .scene import Scene
from .things import BALL, BOX, RING, TUBE, held_thing, item, solid


class DressedPerson(Person):
    """A person in a richer wardrobe; `things` are what they carry, in the person's own axes (metres)."""

    def __init__(self, assets, rng, pose=None, tone=None):
        self.things = []
        # One cloth for the whole outfit, or for most of it, as in suits, overalls, tracksuits, black on black.
        self.shared, self.share = None, rng.choice([0.0, 0.5, 0.95], p=[0.6, 0.2, 0.2])
        self.dark = rng.random() < 0.2
        super().__init__(assets, rng, pose, tone)

    def cloth(self, painted=None):
        """A garment's texture: often the same as the piece before, at times nearly black."""
        if self.shared is not None and self.rng.random() < self.share:
            return self.shared
        texture = garment_texture(self.assets, self.rng, painted)
        if self.dark:
            texture = texture.copy()
            texture[..., :3] = np.clip(texture[..., :3], 0, 0.5) * self.rng.uniform(0.02, 0.25)
        self.shared = texture
        return texture

    # ------------------------------------------------------------ clothes

    def wear_shells(self):
        rng = self.rng
        kind = rng.random()
        if kind < 0.2:
            self.wear_formal()
        elif kind < 0.3 and self.shape.sex == "female":
            self.wear_dress()
        else:
            super().wear_shells()
        f = self.fields
        if rng.random() < 0.12:
            self.wear_band(rng.uniform(0.12, 0.4) - np.abs(f.slant(rng.uniform(-0.9, 0.9)) - rng.uniform(-0.3, 0.3)))
        if rng.random() < 0.12:
            self.wear_pack()
        if rng.random() < 0.08:
            self.wear_gloves()

    def wear_formal(self):
        """Shirt, tie, jacket and trousers of one cloth."""
        rng, f = self.rng, self.fields
        waist = f.hips + rng.uniform(0.2, 0.8)
        suit = garment_texture(self.assets, rng) * (rng.uniform(0.05, 0.6) if rng.random() < 0.6 else 1.0)
        suit[..., 3] = 1
        self.put_on(f.trousers(waist, rng.uniform(0.95, 1.1)), rng.uniform(0.1, 0.4), suit)
        self.put_on(f.top(waist - 0.2, f.neck + rng.uniform(-0.1, 0.3), 0.97), 0.05, garment_texture(self.assets, rng))
        if rng.random() < 0.6:
            width, y = rng.uniform(0.12, 0.35), self.shape.vertices[:, 1]
            strip = np.minimum(np.minimum(width * (1.1 - 0.3 * (y - f.hips) / 5) - np.abs(self.shape.vertices[:, 0]), f.neck - y),
                               y - f.hips - rng.uniform(0, 2))
            self.put_on(np.where((self.shape.vertices[:, 2] > 0) & (f.arm < 0.5) & (f.head < 0.5), strip, -1), 0.14, garment_texture(self.assets, rng))
        if rng.random() < 0.8:
            self.put_on(f.top(f.hips - rng.uniform(-0.5, 2.5), f.neck + 0.3, 0.97, rng.uniform(0.2, 1.1)), rng.uniform(0.25, 0.5), suit)

    def wear_dress(self):
        """Top and skirt of one cloth."""
        rng, f = self.rng, self.fields
        texture = garment_texture(self.assets, rng)
        self.wear_skirt(f.hips + 0.9, texture)
        self.put_on(f.top(f.hips + rng.uniform(0, 0.8), f.neck + rng.uniform(-1.2, 0.2), rng.choice([-0.08, 0.2, 0.6, 0.97])), 0.08, texture)

    def wear_band(self, band):
        """A strap of a bag where the field is positive, with the bag at the hip half of the time."""
        f, rng = self.fields, self.rng
        cut = np.where((f.arm < 0.3) & (f.head < 0.3) & (f.leg < 0.3), np.minimum(band, f.neck - 0.1 - self.shape.vertices[:, 1]), -1)
        self.add_shell(f.inflated(rng.uniform(0.3, 0.6), 0.0, rng), self.assets.tights, cut, garment_texture(self.assets, rng))
        if rng.random() < 0.5:
            self.hang("spine05", [rng.choice([-1, 1]) * rng.uniform(1.8, 2.6), -1.0, rng.uniform(-1, 1)], rng.uniform(0.6, 2.0, 3) * [1, 1, 0.5])

    def wear_pack(self):
        """Two straps, and the pack that they hold."""
        f, rng = self.fields, self.rng
        v = self.shape.vertices
        straps = rng.uniform(0.15, 0.3) - np.abs(np.abs(v[:, 0]) - rng.uniform(0.7, 1.1))
        cut = np.where((f.arm < 0.4) & (f.head < 0.3) & (v[:, 1] > f.neck - 3.5), np.minimum(straps, f.neck + 0.2 - v[:, 1]), -1)
        self.add_shell(f.inflated(rng.uniform(0.3, 0.6), 0.0, rng), self.assets.tights, cut, garment_texture(self.assets, rng))
        self.hang("spine02", [0, 0.0, -2.0], [rng.uniform(1.1, 1.9), rng.uniform(1.5, 2.6), rng.uniform(0.6, 1.2)])

    def hang(self, bone, offset, half):
        """A box or bag that moves with a bone; offset and half sizes in decimetres."""
        at = self.shape.joints[self.assets.rig.index[bone]] + offset
        mesh = (BOX, BALL)[self.rng.integers(2)]
        moved = self.rigid(mesh[0] * half + at, bone), mesh[1], mesh[2]
        self.things.append(item(moved, 1.0, 0.0, finish(self.assets, self.rng)))

    def wear_gloves(self):
        f = self.fields
        normal = kernels.normals(self.shape.vertices, self.assets.body[0])
        cut = np.where(f.arm > 0.5, (f.along_arm - self.rng.uniform(0.8, 0.97)) * 3, -1)
        self.add_shell(self.shape.vertices + normal * self.rng.uniform(0.03, 0.12), self.assets.body, cut, garment_texture(self.assets, self.rng))

    # ------------------------------------------------------------ head

    def rigid(self, rest, bone):
        """Rest positions (decimetres) moved with one bone, in metres."""
        matrix = self.matrices[self.assets.rig.index[bone]]
        return (rest @ matrix[:, :3].T + matrix[:, 3]) * DECIMETRES

    def on_head(self, mesh, scale, at, texture, part, rotation=None):
        vertices = mesh[0] * np.asarray(scale)
        if rotation is not None:
            vertices = vertices @ rotation.T
        self.items.append(Item(self.rigid(vertices + at, "head"), mesh[1], mesh[2], mesh[1], only(part, len(vertices)), texture))

    def head_things(self):
        super().head_things()
        rng = self.rng
        if rng.random() < 0.25:
            self.wear_glasses()
        if self.shape.sex == "male" and self.shape.age != "child" and rng.random() < 0.4:
            self.grow_beard()
        kind = rng.random()
        if kind < 0.16:
            self.wear_hat()
        if rng.random() < 0.12:
            self.wear_scarf()

    def wear_glasses(self):
        rng, index, joints = self.rng, self.assets.rig.index, self.shape.joints
        colour = solid(np.ones((4, 4, 3)) * (0.05 if rng.random() < 0.6 else cloth_colour(rng)))
        glass = solid(np.ones((4, 4, 3)) * rng.uniform(0.02, 0.2)) if rng.random() < 0.4 else None
        size = rng.uniform(0.2, 0.34)
        for side in ("L", "R"):
            eye = joints[index[f"eye.{side}"]] + [0, 0, 0.3]
            self.on_head(RING, [size, size * rng.uniform(0.05, 0.3), size * rng.uniform(0.6, 1)], eye, colour, FACE, about("X", 90))
            if glass is not None:
                self.on_head(BALL, [size, size * 0.8, 0.05], eye, glass, FACE)
            out = np.array([np.sign(eye[0]) * (size + 0.1), 0.0, -0.5])
            self.on_head(BOX, [0.03, 0.04, 0.6], eye + out, colour, FACE)
        middle = (joints[index["eye.L"]] + joints[index["eye.R"]]) / 2
        self.on_head(BOX, [0.12, 0.03, 0.03], middle + [0, 0, 0.35], colour, FACE)

    def grow_beard(self):
        rng, f, v = self.rng, self.fields, self.shape.vertices
        d = v - f.eyes
        top, depth = rng.uniform(-0.75, -0.3), rng.uniform(0.0, 0.5)
        cut = np.minimum(np.minimum(top - d[:, 1], d[:, 1] + 1.7), d[:, 2] + 0.9)
        cut = np.where(f.head > 0.5, cut, -1)
        texture = stubble(rng, hair_colour(rng), 0.2, 50)
        normal = kernels.normals(v, self.assets.body[0]) + [0, -0.6, 0]
        self.add_shell(v + normal * (0.03 + 0.3 * depth * np.clip(top - d[:, 1], 0, 1))[:, None], self.assets.body, cut, texture,
                       only(FACE, len(v)), repeats=2.0)

    def wear_hat(self):
        """A dome with a brim round it, or with a visor before it."""
        rng, f, v = self.rng, self.fields, self.shape.vertices
        skull = v[(f.head > 0.5) & (v[:, 1] > f.eyes[1] + 0.3)]
        low, high = skull.min(0), skull.max(0)
        centre, half = (low + high) / 2, (high - low) / 2 * rng.uniform(1.05, 1.25)
        seat = np.array([centre[0], f.eyes[1] + rng.uniform(0.35, 0.8), centre[2]])
        texture = garment_texture(self.assets, rng)[None]
        tilt = turn([1, 0.2 * rng.normal(), 0.2 * rng.normal()], rng.normal(-3, 8))
        rise = (high[1] - seat[1]) * rng.uniform(1.05, 1.6)
        self.on_head(BALL if rng.random() < 0.6 else TUBE, [half[0], rise, half[2]], seat, texture, HAIR, tilt)
        if rng.random() < 0.5:
            reach = rng.uniform(0.3, 1.6)
            self.on_head(BALL, [half[0] + reach, 0.08, half[2] + reach], seat, texture, HAIR, tilt)
        else:
            self.on_head(BALL, [half[0] * 0.9, 0.08, rng.uniform(0.5, 0.9)], seat + [0, 0, half[2]], texture, HAIR, tilt)

    def wear_scarf(self):
        rng, f, v = self.rng, self.fields, self.shape.vertices
        cut = np.minimum(rng.uniform(0.3, 0.7) - np.abs(v[:, 1] - f.neck), 1.5 - np.abs(v[:, 0]))
        normal = kernels.normals(v, self.assets.body[0])
        rest = v + normal * rng.uniform(0.15, 0.5)
        self.add_shell(rest, self.assets.body, np.where(f.arm < 0.3, cut, -1), garment_texture(self.assets, rng), only(TORSO, len(v)))


class OutfitScene(Scene):
    """A scene of dressed people: more of them carry things, and some stand or sit behind a table."""

    person_kind = DressedPerson
    tables = 0.2  # share of the scenes with a table before the first person

    def __init__(self, assets, rng, height, width, tone=None):
        people = int(rng.choice([1, 2, 3, 4], p=[0.52, 0.26, 0.15, 0.07]))
        super().__init__(assets, rng, height, width, people=people, tone=tone)

    def carried(self, person):
        rng = self.rng
        things = list(person.things)
        if rng.random() < 0.35:
            things += held_thing(self.assets, rng, person)
        if rng.random() < 0.2:  # something long in a hand: a racket, a stick, a bottle, an umbrella
            mesh = turned_on_lathe(bottle(rng))
            length = rng.uniform(0.15, 0.9)
            things.append(item(mesh, [length * rng.uniform(0.3, 1), length, length * rng.uniform(0.1, 1)], person.bones[3 + rng.integers(2)],
                               finish(self.assets, rng), turn(rng.normal(size=3), rng.uniform(0, 180))))
        return things

    def place_things(self):
        super().place_things()
        if self.people and self.rng.random() < self.tables:
            self.set_table()

    def set_table(self):
        """A table top between the camera and the first person, with things on it."""
        rng, camera = self.rng, self.camera
        middle = self.centre * rng.uniform(0.6, 0.85)
        middle[1] += rng.uniform(-0.45, 0.1)
        turned = camera.heading() @ about("Y", rng.normal(0, 15))
        wide, deep = rng.uniform(0.4, 1.2), rng.uniform(0.15, 0.35) * self.distance
        self.add_things([item(BOX, [wide, rng.uniform(0.02, 0.08), deep], middle, finish(self.assets, rng), turned, 2.0)])
        for _ in range(rng.integers(0, 5)):
            place = middle + turned @ np.array([rng.uniform(-wide, wide), 0.05, rng.uniform(-deep, deep)])
            maker = (*TABLE_THINGS, assembly)[rng.integers(len(TABLE_THINGS) + 1)]
            self.add_things(maker(self.assets, rng, place, rng.uniform(0.05, 0.22)))

    def casts_shadow(self, entry):
        """Boxes, table tops among them, throw none here."""
        return super().casts_shadow(entry) and len(entry.vertices) != len(BOX[0])
