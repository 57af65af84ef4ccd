"""Rooms, furniture, clutter: everything that is not a person, all labelled background."""

import numpy as np

from .assets import linear
from .cloth import cloth_colour, pattern, smooth_noise, swatch, tiled
from .person import Item
from .pose import about, turn

CELL = 0.6  # metres; walls are cut this fine because triangles that cross the near plane are dropped


def grid(function, columns, rows):
    """Vertices, triangles and texture coordinates of a parametric surface over the unit square."""
    u, v = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    vertices = function(u.ravel(), v.ravel())
    q = np.arange(columns * rows).reshape(rows, columns)
    triangles = np.concatenate([np.stack([q[:-1, :-1], q[:-1, 1:], q[1:, 1:]], -1).reshape(-1, 3),
                                np.stack([q[:-1, :-1], q[1:, 1:], q[1:, :-1]], -1).reshape(-1, 3)])
    return vertices, triangles.astype(np.int64), np.stack([u.ravel(), v.ravel()], 1)


def circle(a):
    return np.cos(2 * np.pi * a), np.sin(2 * np.pi * a)


def join(parts):
    offsets = np.cumsum([0] + [len(p[0]) for p in parts[:-1]])
    return (np.concatenate([p[0] for p in parts]), np.concatenate([p[1] + o for p, o in zip(parts, offsets)]),
            np.concatenate([p[2] for p in parts]))


def unit_box():
    sides = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            vertices, triangles, uvs = grid(lambda u, v: np.stack([u * 2 - 1, v * 2 - 1, 0 * u + sign], 1), 3, 3)
            sides.append((np.roll(vertices, axis, 1), triangles, uvs))
    return join(sides)


BALL = grid(lambda u, v: np.stack([circle(u)[0] * np.sin(np.pi * v), np.cos(np.pi * v),
                                   circle(u)[1] * np.sin(np.pi * v)], 1), 18, 10)
TUBE = grid(lambda u, v: np.stack([circle(u)[0] * np.clip(5 * np.minimum(v, 1 - v), 0, 1) ** 0.1,
                                   np.clip(1.2 - 2.4 * v, -1, 1),
                                   circle(u)[1] * np.clip(5 * np.minimum(v, 1 - v), 0, 1) ** 0.1], 1), 16, 10)
RING = grid(lambda u, v: np.stack([circle(u)[0] * (1 + 0.35 * circle(v)[0]), 0.35 * circle(v)[1],
                                   circle(u)[1] * (1 + 0.35 * circle(v)[0])], 1), 18, 9)
BOX = unit_box()


def solid(colours):
    """Linear RGBA texture stack from an sRGB picture."""
    return np.concatenate([linear(np.clip(colours, 0, 1)), np.ones(colours.shape[:2] + (1,))], -1)[None].astype(np.float32)


def item(mesh, scale, place, texture, rotation=None, repeats=1.0, throws_shadow=True):
    vertices, triangles, uvs = mesh
    vertices = vertices * np.asarray(scale)
    if rotation is not None:
        vertices = vertices @ rotation.T
    parts = np.zeros((len(vertices), 16), np.float32)
    return Item(vertices + place, triangles, uvs * repeats, triangles, parts, texture, throws_shadow=throws_shadow)


def surface(assets, rng, kinds):
    """A swatch picture of one of the named kinds (whatever this split has), perhaps tinted, (T, T, 3) sRGB."""
    pools = [assets.swatches[k] for k in kinds if k in assets.swatches]
    pool = pools[rng.integers(len(pools))] if pools else assets.all_swatches
    picture = tiled(pool[rng.integers(len(pool))].astype(np.float32) / 255, 1)
    if rng.random() < 0.25:
        tint = 0.6 * cloth_colour(rng) + 0.4 * picture.mean((0, 1))
        picture = picture.mean(2, keepdims=True) / max(0.1, float(picture.mean())) * tint
    return np.clip(picture, 0, 1)


FLOORS = ("WoodFloor", "Tiles", "Carpet", "Concrete", "Terrazzo", "Marble", "Tatami", "Planks", "PavingStones")
WALLS = ("Plaster", "Wallpaper", "Paint", "Bricks", "Planks", "Concrete", "Tiles", "WoodSiding", "Fabric")
CEILINGS = ("OfficeCeiling", "Plaster", "Paint", "Planks")
WOODS = ("Wood", "WoodFloor", "Planks", "Chipboard", "Paint", "Plastic", "Metal")


def plane(origin, along, up, texture, metres):
    """A rectangle from `origin` along two edges, its picture repeated every `metres`. It throws no shadow: rooms are lit by the
    panorama around them, and the sun comes in as through a window, wherever it stands."""
    width, height = np.linalg.norm(along), np.linalg.norm(up)
    mesh = grid(lambda u, v: origin + u[:, None] * along + v[:, None] * up,
                int(width / CELL) + 2, int(height / CELL) + 2)
    return item((mesh[0], mesh[1], mesh[2] * np.array([width, height]) / metres), 1.0, 0.0, texture, throws_shadow=False)


class Room:
    """A box around the camera with furniture along its walls. The camera is the origin;
    x is right and z backwards in the room's own axes, so people stand at negative z."""

    def __init__(self, assets, rng, floor, depth, width):
        self.assets, self.rng = assets, rng
        self.floor, self.back = floor, -depth
        self.left, self.right = -width * rng.uniform(0.35, 0.65), width * rng.uniform(0.35, 0.65)
        self.top = floor + rng.uniform(2.3, 3.4)
        self.items = []
        self.shell()
        self.furnish()

    def shell(self):
        a, rng = self.assets, self.rng
        wall, front = surface(a, rng, WALLS), 0.5
        other = wall if rng.random() < 0.6 else surface(a, rng, WALLS)
        if rng.random() < 0.45:  # a plainly painted wall
            wall = np.ones_like(wall) * (1 - 0.5 * rng.random() * np.clip(cloth_colour(rng), 0, 0.9))
        metres = rng.uniform(0.8, 3)
        corner = lambda x, y, z: np.array([x, y, z], float)
        width, height, length = self.right - self.left, self.top - self.floor, front - self.back
        x, y, z = corner(width, 0, 0), corner(0, height, 0), corner(0, 0, length)
        low = corner(self.left, self.floor, self.back)
        self.items += [
            plane(low, z, x, solid(surface(a, rng, FLOORS)), rng.uniform(0.8, 2.5)),
            plane(low + y, x, z, solid(surface(a, rng, CEILINGS)), rng.uniform(1, 3)),
            plane(low + y, x, -y, solid(wall), metres),
            plane(low, y, z, solid(other), metres),
            plane(low + x, z, y, solid(other), metres),
        ]

    def furnish(self):
        rng = self.rng
        makers = (self.shelf, self.table, self.sofa, self.picture, self.picture, self.window, self.door, self.curtain,
                  self.plant, self.lamp, self.screen, self.chair, self.rack)
        for _ in range(rng.integers(2, 9)):
            makers[rng.integers(len(makers))]()

    def spot(self, margin=0.4):
        """A place on the floor near the back or a side wall."""
        rng = self.rng
        if rng.random() < 0.6:
            return np.array([rng.uniform(self.left + margin, self.right - margin), self.floor, self.back + margin])
        x = (self.left + margin, self.right - margin)[rng.integers(2)]
        return np.array([x, self.floor, rng.uniform(self.back + margin, self.back * 0.35)])

    def box(self, centre, half, texture, repeats=1.0, throws_shadow=True):
        self.items.append(item(BOX, half, centre, texture, repeats=repeats, throws_shadow=throws_shadow))

    def wood(self):
        return solid(surface(self.assets, self.rng, WOODS))

    def cloth(self):
        return solid(pattern(self.assets, self.rng))

    def shelf(self):
        rng, place, skin = self.rng, self.spot(0.25), self.wood()
        w, h, d = rng.uniform(0.3, 0.9), rng.uniform(0.4, 1.1), 0.2
        self.box(place + [0, h, -0.02], (w, h, 0.02), skin)
        count = int(rng.integers(2, 6))
        for k in range(count + 1):
            level = place + [0, 2 * h * k / count, d / 2]
            self.box(level, (w, 0.015, d), skin)
            x = -w + 0.05
            while k < count and x < w - 0.1 and rng.random() < 0.93:
                t, b = rng.uniform(0.015, 0.06), rng.uniform(0.06, 0.14)
                b = min(b, 0.9 * h / count)
                self.box(level + [x, b, 0], (t, b, 0.1), solid(np.ones((4, 4, 3)) * cloth_colour(rng)))
                x += 2 * t + rng.exponential(0.05)

    def table(self):
        rng, place, skin = self.rng, self.spot(0.8), self.wood()
        w, h, d = rng.uniform(0.3, 0.9), rng.uniform(0.4, 0.95), rng.uniform(0.3, 0.6)
        self.box(place + [0, h, 0], (w, 0.025, d), skin)
        for sx in (-1, 1):
            for sz in (-1, 1):
                self.box(place + [sx * w * 0.9, h / 2, sz * d * 0.9], (0.03, h / 2, 0.03), skin)
        for _ in range(rng.integers(0, 4)):
            self.items += clutter(self.assets, rng, place + [rng.uniform(-w, w) * 0.7, h + 0.1, 0], 0.1)

    def sofa(self):
        rng, place, skin = self.rng, self.spot(0.6), self.cloth()
        w, repeats = rng.uniform(0.4, 1.1), rng.uniform(0.5, 2)
        self.box(place + [0, 0.22, 0], (w, 0.2, 0.4), skin, repeats)
        self.box(place + [0, 0.55, -0.35], (w, 0.35, 0.12), skin, repeats)
        for s in (-1, 1):
            self.box(place + [s * w, 0.35, 0], (0.1, 0.3, 0.42), skin, repeats)
        for _ in range(rng.integers(0, 4)):
            spin = turn(rng.normal(size=3), rng.normal(0, 30))
            self.items.append(item(BALL, (0.24, 0.2, 0.1), place + [rng.uniform(-w, w) * 0.8, 0.58, -0.12], self.cloth(), spin))

    def on_wall(self, w, h, low, high):
        rng = self.rng
        y = self.floor + rng.uniform(low, high)
        if rng.random() < 0.65:
            # In a narrow or shallow room things are as wide as the wall at most.
            w = min(w, (self.right - self.left) / 2)
            place = rng.uniform(*sorted((self.left + w, self.right - w)))  # sorted: they may cross by a rounding error
            return np.array([place, y, self.back + 0.03]), np.array([w, h, 0.02])
        x = (self.left + 0.03, self.right - 0.03)[rng.integers(2)]
        w = min(w, -0.7 * self.back)
        return np.array([x, y, rng.uniform(*sorted((self.back + w, self.back * 0.3)))]), np.array([0.02, h, w])

    def picture(self):
        rng = self.rng
        centre, half = self.on_wall(rng.uniform(0.1, 0.7), rng.uniform(0.1, 0.6), 1.0, 2.0)
        self.box(centre, half + 0.03, self.wood())
        art = pattern(self.assets, rng) if rng.random() < 0.6 else np.dstack(
            [smooth_noise(rng, int(rng.integers(3, 12))) * 0.25 + 0.5 for _ in range(3)])
        self.box(centre + [0, 0, 0.02], half, solid(np.clip(art, 0, 1)))

    def window(self):
        rng = self.rng
        centre, half = self.on_wall(rng.uniform(0.4, 1.2), rng.uniform(0.4, 0.9), 1.2, 1.7)
        self.box(centre, half + 0.06, self.wood(), throws_shadow=False)
        glow = np.ones((16, 16, 3)) * rng.uniform(0.6, 1.0) * np.array([0.95, 0.98, 1])
        pane = solid(glow)
        pane[..., :3] *= rng.uniform(1, 4)
        self.box(centre + [0, 0, 0.02], half, pane, throws_shadow=False)
        self.box(centre + [0, 0, 0.04], half * [0.04, 1, 1] + 0.01, self.wood())

    def door(self):
        centre, half = self.on_wall(0.42, 1.0, 1.0, 1.01)
        skin = self.wood()
        self.box(centre, half + 0.05, self.wood())
        self.box(centre + [0, 0, 0.02], half, skin)

    def curtain(self):
        rng = self.rng
        x, half = rng.uniform(self.left, self.right), rng.uniform(0.2, 0.6)
        waves = rng.integers(3, 9)
        mesh = grid(lambda u, v: np.stack([x + (u - 0.5) * 2 * half, self.floor + 0.1 + v * 2.2,
                                           self.back + 0.12 + 0.06 * np.sin(u * 6.28 * waves)], 1), 40, 4)
        self.items.append(item(mesh, 1.0, 0.0, self.cloth()))

    def plant(self):
        rng, place = self.rng, self.spot(0.4)
        self.items.append(item(TUBE, (0.16, 0.16, 0.16), place + [0, 0.16, 0], self.wood()))
        green = solid(np.ones((8, 8, 3)) * np.array([0.2, 0.4, 0.15]) * rng.uniform(0.6, 1.5))
        for _ in range(rng.integers(5, 16)):
            spin = turn(rng.normal(size=3), rng.uniform(0, 180))
            offset = rng.normal(0, 0.15, 3) + [0, rng.uniform(0.4, 1.2), 0]
            self.items.append(item(BALL, (0.2, 0.05, 0.02 + 0.05 * rng.random()), place + offset, green, spin))

    def lamp(self):
        place, rng = self.spot(0.35), self.rng
        self.items.append(item(TUBE, (0.02, 0.8, 0.02), place + [0, 0.8, 0], self.wood()))
        shade = solid(np.clip(np.ones((4, 4, 3)) * rng.uniform(0.6, 1.0, 3), 0, 1))
        shade[..., :3] *= rng.uniform(1, 3)
        self.items.append(item(TUBE, (0.18, 0.15, 0.18), place + [0, 1.65, 0], shade))

    def screen(self):
        centre, half = self.on_wall(self.rng.uniform(0.3, 0.8), 0.35, 1.0, 1.6)
        self.box(centre, half, solid(np.ones((4, 4, 3)) * self.rng.uniform(0.02, 0.1)))

    def chair(self):
        rng, place, skin = self.rng, self.spot(0.9), self.wood()
        self.box(place + [0, 0.45, 0], (0.22, 0.025, 0.22), skin)
        self.box(place + [0, 0.75, -0.2], (0.2, rng.uniform(0.08, 0.28), 0.02), self.cloth())
        for sx in (-1, 1):
            for sz in (-1, 1):
                self.box(place + [sx * 0.2, 0.22, sz * 0.2], (0.02, 0.22, 0.02), skin)

    def rack(self):
        """Dumbbells, mats and balls: what lies about where people train."""
        rng, place = self.rng, self.spot(0.6)
        for _ in range(rng.integers(1, 5)):
            at = place + np.array([rng.uniform(-0.5, 0.5), 0.06, rng.uniform(-0.2, 0.4)])
            tone = solid(np.ones((4, 4, 3)) * (cloth_colour(rng) if rng.random() < 0.5 else 0.08))
            if rng.random() < 0.3:
                r = rng.uniform(0.1, 0.34)
                self.items.append(item(BALL, r, at + [0, r, 0], tone))
            elif rng.random() < 0.4:
                self.items.append(item(TUBE, (0.07, 0.32, 0.07), at, tone, about("Z", 90)))
            else:
                for s in (-1, 1):
                    self.items.append(item(TUBE, (0.06, 0.04, 0.06), at + [0.09 * s, 0, 0], tone, about("Z", 90)))
                self.items.append(item(TUBE, (0.015, 0.1, 0.015), at, tone, about("Z", 90)))


def clutter(assets, rng, place, size):
    """One thing of one to six solids round a place; skin-like and cloth-like colours included on purpose."""
    shapes, found, texture = (BALL, TUBE, RING, BOX), [], None
    same = rng.random() < 0.5
    for _ in range(rng.choice([1, 1, 2, 4, 6])):
        if texture is None or not same:
            kind = rng.random()
            if kind < 0.5:
                colours = pattern(assets, rng)
            elif kind < 0.75:
                colours = tiled(swatch(assets, rng, 0.2), 1)
            else:
                colours = np.ones((8, 8, 3)) * np.array([0.85, 0.65, 0.52]) * np.exp(rng.normal(-0.3, 0.4)) * rng.uniform(0.9, 1.1, 3)
            texture = solid(colours)
        vertices, triangles, uvs = shapes[rng.integers(4)]
        v = vertices * size * np.exp(rng.normal(0, 0.6, 3))
        if rng.random() < 0.4:
            v = v + np.sin(v @ rng.normal(0, 3 / size, (3, 3)) + rng.uniform(0, 6, 3)) * size * 0.15
        spin = turn(rng.normal(size=3), rng.normal(0, 60)) if rng.random() < 0.6 else None
        offset = rng.normal(0, size * 0.7, 3)
        found.append(item((v, triangles, uvs), 1.0, place + offset, texture, spin, rng.uniform(0.5, 2)))
    return found


def held_thing(assets, rng, person):
    """A bag, ball or dumbbell at a hand, shoulder or hip, in the person's own axes (metres)."""
    bones = person.bones
    at = (bones[3], bones[4], bones[2], bones[1])[rng.integers(4)] + rng.normal(0, 0.05, 3)
    if rng.random() < 0.5:
        half = np.array([rng.uniform(0.08, 0.22), rng.uniform(0.08, 0.25), rng.uniform(0.04, 0.12)])
        return [item((BOX, BALL)[rng.integers(2)], half, at - [0, half[1], 0], solid(pattern(assets, rng)),
                     turn(rng.normal(size=3), rng.normal(0, 20)))]
    return clutter(assets, rng, at, rng.uniform(0.03, 0.1))
