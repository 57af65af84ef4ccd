"""Things that fill a picture without being a person: food on tables, animals, machines, abstract clutter.

A network that has seen rooms and people alone takes every smooth, lit thing in front of a background for a person.
These are the things that teach it otherwise: all are labelled background, and one scene in six also has a person.
"""

import cv2
import numpy as np

from .animals import animal, draw_species
from .assets import linear
from .cloth import cloth_colour, hue_colour, pattern, smooth_noise
from .lofts import bumpy, grain
from .pose import about, turn
from .scene import Scene
from .things import BALL, BOX, RING, TUBE, circle, clutter, grid, item, join, solid, surface

PEBBLE = grid(lambda u, v: np.stack([circle(u)[0] * np.sin(np.pi * v), np.cos(np.pi * v),
                                     circle(u)[1] * np.sin(np.pi * v)], 1), 9, 6)


def turned_on_lathe(profile, columns=24):
    """A bowl, cup, bottle or vase: the profile (K, 2) of radius and height turned about y."""
    profile = np.asarray(profile, float)
    steps = np.linspace(0, 1, len(profile))

    def outline(u, v):
        r, y = np.interp(v, steps, profile[:, 0]), np.interp(v, steps, profile[:, 1])
        return np.stack([circle(u)[0] * r, y, circle(u)[1] * r], 1)

    return grid(outline, columns, 2 * len(profile) + 2)


# ------------------------------------------------------------ colours

WARM = (0.02, 0.16)  # hues of bread, meat, fruit, fur, wood: the neighbours of skin


def warm_colour(rng):
    """sRGB near skin and food: from cream over orange and red to dark brown."""
    return np.clip(hue_colour(rng.uniform(*WARM), rng.beta(2, 1.6), rng.uniform(0.12, 0.98)) + 0.02, 0, 1)


def any_colour(rng):
    return warm_colour(rng) if rng.random() < 0.5 else cloth_colour(rng)


def mottled(rng, colour):
    """A colour with variation of all sizes and, at times, spots or stripes of another."""
    picture = colour * np.exp(rng.gamma(2.0, 0.14) * grain(rng))
    if rng.random() < 0.45:
        field = smooth_noise(rng, int(rng.integers(3, 20)), stretch=int(rng.choice([1, 1, 4, 8])))
        share = np.clip((field - rng.uniform(-0.5, 1)) * 4, 0, 1)[..., None]
        picture = picture * (1 - share) + any_colour(rng) * share
    return solid(np.clip(picture, 0, 1))


def finish(assets, rng):
    """The surface of a made thing: plain, printed, or a swatch of any material."""
    kind = rng.random()
    if kind < 0.25:
        return solid(np.ones((8, 8, 3)) * (rng.uniform(0.6, 0.98) if rng.random() < 0.4 else any_colour(rng)))
    if kind < 0.45:
        return mottled(rng, any_colour(rng))
    if kind < 0.65:
        return solid(pattern(assets, rng))
    picture = surface(assets, rng, list(assets.swatches))
    return solid(picture * np.exp(rng.gamma(1.0, 0.1) * grain(rng)) if rng.random() < 0.4 else picture)


# ------------------------------------------------------------ food and tableware

def heap(rng, place, radius, height):
    """Rice, salad, pasta, meat: many pieces of one kind on each other."""
    size = radius * np.exp(rng.uniform(np.log(0.06), np.log(0.45)))
    count = int(np.clip(1.6 * (radius / size) ** 2, 3, 110))
    slender = np.exp(rng.normal(0, 0.45, 3))
    pieces = []
    for _ in range(count):
        r, a = radius * np.sqrt(rng.random()), rng.uniform(0, 6.3)
        at = [r * np.cos(a), height * (1 - (r / radius) ** 2) * rng.random() + 0.5 * size, r * np.sin(a)]
        vertices, triangles, uvs = bumpy(rng, PEBBLE, rng.uniform(0, 0.25), 2)
        spin = turn(rng.normal(size=3), rng.uniform(0, 180))
        pieces.append(((vertices * size * slender * np.exp(rng.normal(0, 0.15))) @ spin.T + at, triangles,
                       uvs * 0.2 + rng.random(2)))
    return item(join(pieces), 1.0, place, mottled(rng, any_colour(rng)))


def dish(rng):
    """Profile of a plate, bowl, cup or pan in units of its radius, inside down to the middle again."""
    depth, foot, lip = rng.choice([0.08, 0.2, 0.6, 1.3]), rng.uniform(0.4, 0.95), rng.uniform(0.02, 0.08)
    return np.array([[0, 0], [foot, 0], [0.8 + 0.2 * foot, 0.5 * depth], [1, depth], [1 - lip, depth],
                     [0.75 + 0.2 * foot, 0.55 * depth], [foot * 0.85, 0.15 * depth], [0, 0.12 * depth]]), depth


def bottle(rng):
    """Profile of a bottle, jar, glass or vase in units of its height."""
    points = int(rng.integers(3, 7))
    radii = rng.uniform(0.06, 0.3) * np.exp(rng.normal(0, 0.35, points))
    heights = np.sort(np.append([0, 1], rng.uniform(0.1, 0.95, points - 2)))
    return np.concatenate([[[0, 0]], np.stack([radii, heights], 1), [[0, 1]]])


def served(assets, rng, place, size):
    """A dish with what is in it."""
    profile, depth = dish(rng)
    found = [item(turned_on_lathe(profile), size, place, finish(assets, rng))]
    for _ in range(rng.integers(0, 4)):
        spread = size * rng.uniform(0.25, 0.75)
        off = (size - spread) * rng.uniform(0, 0.9) * np.array([np.cos(a := rng.uniform(0, 6.3)), 0, np.sin(a)])
        found.append(heap(rng, place + off + [0, depth * size * 0.3, 0], spread, size * rng.uniform(0.05, 0.6)))
    return found


def cake(assets, rng, place, size):
    """Layers on each other: cake, sandwich, books, folded clothes."""
    found, level, box = [], 0.0, rng.random() < 0.5
    spin, textures = about("Y", rng.uniform(0, 360)), [finish(assets, rng) for _ in range(2)]
    for k in range(rng.integers(1, 7)):
        thick = size * rng.uniform(0.05, 0.35)
        mesh = bumpy(rng, BOX if box else TUBE, rng.uniform(0, 0.06), 2)
        found.append(item(mesh, (size, thick, size * 0.8), place + [0, level + thick, 0], textures[k % 2], spin))
        level += 2 * thick
    return found


def fruit(assets, rng, place, size):
    """One to seven round or long things of one colour: fruit, eggs, balls, bread, stones."""
    texture, shape = mottled(rng, any_colour(rng)), np.exp(rng.normal(0, 0.35, 3))
    found = []
    for _ in range(rng.choice([1, 2, 3, 5, 7])):
        mesh, spin = bumpy(rng, BALL, rng.uniform(0, 0.12), 1.5), turn(rng.normal(size=3), rng.uniform(0, 180))
        off = rng.normal(0, size, 3) * [1, 0, 1]
        found.append(item(mesh, size * 0.6 * shape, place + off + [0, 0.5 * size, 0], texture, spin))
    return found


def vessel(assets, rng, place, size):
    mesh, tip = turned_on_lathe(bottle(rng)), about("X", 90) if rng.random() < 0.15 else None
    return [item(mesh, size * np.array([1, 1.6, 1]), place, finish(assets, rng), tip)]


TABLE_THINGS = (served, served, served, cake, fruit, fruit, vessel, vessel)


# ------------------------------------------------------------ made things

def assembly(assets, rng, place, size):
    """Furniture, machines, toys: solids of few materials, most of them in mirrored pairs or rows."""
    materials = [finish(assets, rng) for _ in range(rng.integers(1, 4))]
    yaw, found = about("Y", rng.uniform(0, 360)), []

    def put(mesh, scale, at, spin=None):
        texture = materials[rng.integers(len(materials))]
        found.append(item(mesh, np.asarray(scale) * size, place + yaw @ (np.asarray(at) * size), texture,
                          yaw if spin is None else yaw @ spin, rng.uniform(0.5, 2)))

    def shape():
        kind = rng.random()
        if kind < 0.45:
            return bumpy(rng, BOX, rng.uniform(0, 0.08), 1.5)
        return (TUBE, BALL, RING, turned_on_lathe(bottle(rng)))[int((kind - 0.45) / 0.1375) % 4]

    body = np.exp(rng.normal(-0.9, 0.5, 3))
    put(shape(), body, [0, body[1], 0])
    for _ in range(rng.integers(1, 6)):
        mesh, scale = shape(), body.mean() * np.exp(rng.normal(-0.9, 0.6, 3))
        spin = about("XYZ"[rng.integers(3)], rng.choice([0, 90, rng.uniform(0, 90)]))
        at = body * rng.uniform(-1.2, 1.2, 3) + [0, body[1], 0]
        layout = rng.random()
        if layout < 0.45:
            for side in (-1, 1):
                put(mesh, scale, at * [side, 1, 1], spin)
        elif layout < 0.65:
            for sx in (-1, 1):
                for sz in (-1, 1):
                    put(mesh, scale, at * [sx, 1, sz], spin)
        elif layout < 0.8:
            step = body * rng.normal(0, 0.7, 3)
            for k in range(int(rng.integers(3, 8))):
                put(mesh, scale * 0.5, at + step * k, spin)
        else:
            put(mesh, scale, at, spin)
    return found


def drape(assets, rng, place, size):
    """Cloth without anybody in it: towels, blankets, curtains, coats on a hook, umbrellas."""
    waves, fall = rng.integers(2, 7), rng.uniform(0.3, 1.6)
    swing = rng.uniform(0, 6.3, 3)
    flare = rng.uniform(0, 1.4)

    def outline(u, v):
        fold = 0.12 * np.sin(6.28 * waves * u + swing[0]) * v + 0.06 * np.sin(9 * v + 5 * u + swing[1])
        x = (u - 0.5) * (0.5 + flare * v)
        return np.stack([x, fall * (1 - v) + 0.1 * np.cos(6.28 * u + swing[2]) * (1 - v), fold], 1)

    return [item(grid(outline, 40, 16), size, place, solid(pattern(assets, rng)), about("Y", rng.uniform(-60, 60)),
                 rng.uniform(0.5, 3))]


# ------------------------------------------------------------ abstract backgrounds

def leaves(assets, rng, height, width):
    """Shapes upon shapes ("dead leaves", Lee, Mumford, Huang 2001), each with a surface and a shading; linear RGB."""
    canvas = np.ones((height, width, 3), np.float32) * linear(any_colour(rng)).astype(np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(int(rng.integers(12, 90))):
        r = min(height, width) * np.clip(0.03 / rng.random() ** 0.7, 0.03, 0.6)
        cx, cy, mask = rng.uniform(0, width), rng.uniform(0, height), np.zeros((height, width), np.uint8)
        corners, kind = int(rng.integers(3, 9)), rng.random()
        if kind < 0.4:
            cv2.ellipse(mask, (int(cx), int(cy)), (max(1, int(r)), max(1, int(r * rng.uniform(0.2, 1)))), rng.uniform(0, 180), 0, 360, 1, -1)
        else:
            angle = np.sort(rng.uniform(0, 6.3, corners if kind < 0.7 else 40))
            reach = r * rng.uniform(0.5, 1.2, corners) if kind < 0.7 else r * (1 + 0.3 * np.sin(angle * corners + 1) * rng.random())
            outline = np.stack([cx + reach * np.cos(angle), cy + reach * np.sin(angle)], 1)
            cv2.fillPoly(mask, [outline.astype(np.int32)], 1)
        where = mask > 0
        if not where.any():
            continue
        texture = finish(assets, rng)[0, ..., :3]
        zoom, side = rng.uniform(0.5, 3), texture.shape[0]
        u, v = ((y[where] - cy) / zoom).astype(int) % side, ((x[where] - cx) / zoom).astype(int) % side
        # Shaded as a bulge, a slope or flat, lit from one side.
        bulge = np.clip(1 - ((x[where] - cx) ** 2 + (y[where] - cy) ** 2) / (2 * r * r), 0.2, 1) ** rng.choice([0, 0.5, 1])
        slope = 1 + rng.normal(0, 0.3) * np.clip((x[where] - cx) / r, -1, 1) + rng.normal(0, 0.3) * np.clip((y[where] - cy) / r, -1, 1)
        canvas[where] = texture[u, v] * (bulge * np.clip(slope, 0.15, 2))[:, None]
    return canvas


# ------------------------------------------------------------ scenes

KINDS, SHARES = ("table", "animals", "made", "abstract"), (0.32, 0.26, 0.28, 0.14)


class ThingScene(Scene):
    """A scene of things that fill the picture; `people` is 0, or 1 in one scene of six."""

    def __init__(self, assets, rng, height, width, tone=None):
        self.kind = KINDS[rng.choice(len(KINDS), p=SHARES)]
        people = int(rng.random() < 0.25 and self.kind != "table")
        super().__init__(assets, rng, height, width, people=people, tone=tone)
        self.inside = self.inside and self.kind in ("animals", "made")
        if self.kind == "table":
            self.look_down()

    def look_down(self):
        """The camera above a table top, 0.2 to 0.8 m high and tilted towards it."""
        rng = self.rng
        self.down = rng.uniform(12, 80)
        yaw = about("Y", rng.uniform(0, 360))
        self.camera.to_world = yaw @ about("X", -self.down) @ about("Z", rng.normal(0, 4))
        self.ground = -rng.uniform(0.2, 0.8)

    def reach(self, metres):
        """A place in view at that distance, and the height of the picture there."""
        rng, camera = self.rng, self.camera
        ray = np.array([rng.uniform(-0.4, 0.4) * camera.width, rng.uniform(-0.4, 0.3) * camera.height, 0]) / camera.focal
        return camera.to_world @ (ray + [0, 0, -1]) * metres, metres * camera.height / camera.focal

    def place_things(self):
        {"table": self.set_table, "animals": self.put_animals, "made": self.put_made, "abstract": self.put_abstract}[self.kind]()

    def set_table(self):
        rng, camera, height = self.rng, self.camera, -self.ground
        distance = height / np.sin(np.deg2rad(self.down))
        middle = camera.to_world @ np.array([0, 0, -distance])
        self.centre, span = middle, distance * camera.height / camera.focal
        top = surface(self.assets, rng, list(self.assets.swatches)) if rng.random() < 0.7 else pattern(self.assets, rng)
        half = span * rng.uniform(0.6, 3)
        mesh = grid(lambda u, v: np.stack([(u * 2 - 1) * half, 0 * u, (1 - v * 2) * half], 1), 40, 40)
        table = item((mesh[0], mesh[1], mesh[2] * rng.uniform(1, 4)), 1.0, middle, solid(top), about("Y", rng.uniform(0, 360)),
                     throws_shadow=False)
        self.add_things([table])
        for _ in range(rng.integers(1, 9)):
            place = middle + rng.normal(0, 0.25 * span, 3) * [1, 0, 1]
            maker = TABLE_THINGS[rng.integers(len(TABLE_THINGS))]
            self.add_things(maker(self.assets, rng, place, span * np.exp(rng.uniform(np.log(0.08), np.log(0.55)))))

    def standing(self, place, span):
        """The place let down onto the floor where the floor is in view, as often as things stand on it."""
        if self.ground < 0 and self.rng.random() < 0.6:
            place = place * np.clip(self.ground / place[1], 0.5, 3) if place[1] < -0.1 else place
        return place - [0, 0.35 * span * (self.ground > 0), 0]

    def distances(self):
        """Whole things in view most often; before, beside or behind a person where there is one."""
        rng = self.rng
        if self.people:
            return self.distance * np.exp(rng.normal(0.25, 0.3))
        return np.exp(rng.uniform(np.log(0.9), np.log(5)))

    def put_animals(self):
        """One animal, or a few; those of a herd are of one kind. Some look at the camera, some from close by."""
        rng, toward = self.rng, self.camera.heading()
        species, herd = draw_species(rng), rng.random() < 0.7
        for _ in range(rng.choice([1, 1, 1, 2, 3, 5])):
            one = species if herd else draw_species(rng)
            place, span = self.reach(self.distances())
            portrait = not self.people and rng.random() < 0.2
            size = span * np.exp(rng.uniform(np.log(0.25), np.log(1.2))) * (0.6 if self.people else 1) * (1.7 if portrait else 1)
            self.centre = place if self.centre is None else self.centre
            if not portrait:
                place = self.standing(place - [0, size * (one.leg + 0.6 * one.fat), 0], 0)
            self.add_things(animal(rng, one, place, size, toward if rng.random() < 0.5 else None, portrait))

    def put_made(self):
        rng = self.rng
        makers = (assembly, assembly, assembly, drape, vessel, served, cake, fruit)
        for _ in range(rng.choice([1, 2, 3, 4, 6])):
            place, span = self.reach(self.distances())
            size = span * np.exp(rng.uniform(np.log(0.12), np.log(0.9))) * (0.6 if self.people else 1)
            self.centre = place if self.centre is None else self.centre
            self.add_things(makers[rng.integers(len(makers))](self.assets, rng, self.standing(place, size), size))

    def put_abstract(self):
        rng = self.rng
        for _ in range(rng.integers(0, 5)):
            place, span = self.reach(self.distances())
            self.add_things(clutter(self.assets, rng, place, span * rng.uniform(0.03, 0.2)))

    def background(self):
        """Leaves for abstract scenes; else the panorama, mostly out of focus when things are near."""
        camera, rng = self.camera, self.rng
        if self.kind == "abstract":
            return np.ascontiguousarray(leaves(self.assets, rng, camera.height, camera.width), np.float64)
        radiance = super().background()
        if rng.random() < 0.5:
            radiance = cv2.GaussianBlur(radiance, (0, 0), np.exp(rng.uniform(np.log(0.01), np.log(0.05))) * camera.height)
        return radiance

    def record(self, who):
        return super().record(who) | {"place": self.kind}
