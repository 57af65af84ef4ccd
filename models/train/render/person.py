"""One dressed and posed person as a list of drawable items."""

import numpy as np

from . import kernels
from .assets import TEXTURE, linear
from .body import Shape
from .charts import TRUNK as TRUNK_CHART
from .charts import Charts
from .classes import INDEX
from .cloth import garment_texture, hair_colour, stubble
from .pose import random_pose, skinning

DECIMETRES = 0.1
HAIR, FACE, TORSO = INDEX["hair"], INDEX["face"], INDEX["torso"]
ARMS = slice(INDEX["upper_arm_left"], INDEX["hand_right"] + 1)
LEGS = slice(INDEX["upper_leg_left"], INDEX["foot_right"] + 1)


class Item:
    """A textured mesh with part weights. Vertices in metres; `cut` is a signed field, holes where negative. What throws
    no shadow still gets those of others."""

    def __init__(self, vertices, triangles, uvs, uv_triangles, parts, textures, layer=None, cut=None, holes=False, throws_shadow=True):
        self.vertices, self.triangles = vertices, triangles
        self.uvs, self.uv_triangles, self.parts = uvs, uv_triangles, parts
        self.textures, self.holes, self.throws_shadow = textures, holes, throws_shadow
        self.layer = np.zeros(len(vertices), np.int64) if layer is None else layer
        self.cut = np.ones(len(vertices)) if cut is None else cut


def only(part, count):
    parts = np.zeros((count, 16), np.float32)
    parts[:, part] = 1
    return parts


class Person:
    """Items of one person standing at the origin, facing +z, with the record for the test set's groups.

    `pose` gives the bone rotations for given joints; without it the pose is drawn from `rng`. `tone` is that of
    `Shape`.
    """

    def __init__(self, assets, rng, pose=None, tone=None):
        self.assets, self.rng = assets, rng
        self.shape = Shape(assets, rng, tone)
        joints = self.shape.joints
        world, relative = pose(joints) if pose else random_pose(assets, rng, joints)
        self.matrices = skinning(assets, self.shape.joints, world, relative)
        self.items, self.footwear = [], []  # footwear: vertices of what is on the feet, metres
        self.hidden = np.zeros(len(assets.base.vertices), bool)
        self.fields = Fields(assets, self.shape)
        self.dress()
        self.head_things()
        self.add_body()
        skinned = self.posed(self.shape.vertices)
        self.skin_vertices = skinned[:13380]
        joint = lambda name: skinned[assets.rig.heads[assets.rig.index[name]]].mean(0)
        self.head, self.root = joint("head"), joint("root")
        self.bones = np.stack([joint(n) for n in ("head", "spine02", "upperleg01.L", "wrist.L", "wrist.R", "foot.L")])
        # The floor is so many metres below the skin's lowest point: by soles, and by what the person lies on.
        self.below = max([0.0] + [skinned[:13380, 1].min() - worn[:, 1].min() for worn in self.footwear if len(worn)])
        self.record = {"tone": self.shape.tone_group, "build": self.shape.build, "age": self.shape.age, "sex": self.shape.sex}

    @property
    def lowest(self):
        """Height of the floor in the person's own axes, metres."""
        return self.skin_vertices[:, 1].min() - self.below

    def joint(self, name):
        """Where the bone of that name begins, metres."""
        k = self.assets.rig.index[name]
        return (self.matrices[k, :, :3] @ self.shape.joints[k] + self.matrices[k, :, 3]) * DECIMETRES

    def posed(self, vertices):
        return kernels.skin(vertices, *self.assets.rig.weights, self.matrices) * DECIMETRES

    def add_garment(self, garment, textures, parts=None, layer=None, holes=True):
        vertices = kernels.skin(garment.fit(self.shape.vertices), *garment.weights, self.matrices) * DECIMETRES
        self.items.append(Item(vertices, garment.triangles, garment.uvs, garment.uv_triangles,
                               garment.parts if parts is None else parts, textures, layer, holes=holes))

    def add_shell(self, rest, faces, cut, texture, parts=None, repeats=1.0):
        triangles, uv_triangles = faces
        if faces is self.assets.body:
            uvs = self.assets.base.uvs * repeats
        else:
            uvs, uv_triangles = self.fields.charts.lay(triangles, repeats, TRUNK_CHART if faces is self.assets.skirt else None)
        self.items.append(Item(self.posed(rest), triangles, uvs, uv_triangles,
                               self.assets.rig.parts if parts is None else parts, texture[None], cut=cut))

    # ------------------------------------------------------------ clothes

    def dress(self):
        kind = self.rng.random()
        if kind < 0.34:
            self.wear_suit()
        elif kind < 0.97 or self.shape.age == "child":
            self.wear_shells()
        else:
            self.wear_swimwear()
        self.wear_shoes(0.8)

    def wear_shoes(self, share):
        """Shoes for a share of the people; socks beneath some of them and for half of the others, slippers for a few."""
        shod = self.rng.random() < share
        if shod:
            shoes = self.assets.shoes[self.rng.integers(len(self.assets.shoes))]
            self.add_garment(shoes, self.cloth(shoes.texture)[None])
            self.hidden[shoes.hidden] = True
            self.footwear.append(self.items[-1].vertices)
        rng = self.rng.spawn(1)[0]  # of its own: everything else is drawn as for the barefoot
        if rng.random() < (0.35 if shod else 0.5):
            self.wear_socks(rng, rng.uniform(0.03, 0.08), rng.uniform(0.7, 0.95))
        if not shod and rng.random() < 0.2:
            self.wear_socks(rng, rng.uniform(0.12, 0.3), rng.uniform(0.97, 1.01))

    def wear_socks(self, rng, thickness, start):
        """The feet's skin, `thickness` decimetres thicker from `start` down, in limb lengths; not within shoes and trousers."""
        f, (triangles, _) = self.fields, self.assets.body
        normal = kernels.normals(self.shape.vertices, triangles)
        within = self.hidden.copy()
        within[triangles[~self.hidden[triangles].all(1)]] = False  # what is dropped of the skin is dropped of the sock
        cut = np.where((f.leg > 0.5) & ~within, 8 * (f.along_leg - start), -1)
        self.add_shell(self.shape.vertices + normal * thickness, self.assets.body, cut, garment_texture(self.assets, rng), repeats=rng.uniform(3, 8))
        self.footwear.append(self.items[-1].vertices[:13380][cut[:13380] > 0])

    def cloth(self, painted=None):
        """Texture of the next garment; `painted` is the one that came with its mesh."""
        return garment_texture(self.assets, self.rng, painted)

    def wear_suit(self):
        sex = self.shape.sex if self.rng.random() < 0.9 else ("male", "female")[self.rng.integers(2)]
        suit = self.assets.suits[sex][self.rng.integers(len(self.assets.suits[sex]))]
        textures = np.stack([self.cloth(suit.texture) for _ in range(2)])
        self.add_garment(suit, textures, layer=suit.pieces)
        self.hidden[suit.hidden] = True

    def wear_shells(self):
        """Trousers or skirt, top, perhaps a coat, cut from the body's own clothes shells with random hems."""
        rng, f = self.rng, self.fields
        waist = f.hips + rng.uniform(0.0, 0.9)
        if self.shape.sex == "female" and rng.random() < 0.25:
            self.wear_skirt(waist)
        else:
            hem = rng.choice([0.15, 0.3, 0.45, 0.6, 0.8, 0.96, 1.1], p=[0.08, 0.12, 0.12, 0.06, 0.1, 0.27, 0.25])
            hem += rng.normal(0, 0.03)
            self.wear_shell(lambda: f.trousers(waist, hem), rng.gamma(1.2, 0.08), 0.45)
        if self.shape.sex == "female" or self.shape.age == "child" or rng.random() < 0.93:
            sleeve = rng.choice([-0.08, 0.12, 0.3, 0.45, 0.7, 0.97], p=[0.15, 0.1, 0.3, 0.12, 0.08, 0.25])
            neck = f.neck + rng.uniform(-0.8, 0.3)
            low = waist - 0.15 - (rng.uniform(0, 1.6) if rng.random() < 0.4 else 0.0)
            self.wear_shell(lambda: f.top(low, neck, sleeve + rng.normal(0, 0.03)), 0.02 + rng.gamma(1.2, 0.07), 0.4)
        if rng.random() < 0.22:
            low = f.hips - rng.uniform(-0.6, 5.5)
            opening = rng.uniform(0.25, 0.9) if rng.random() < 0.5 else 0.0
            self.wear_shell(lambda: f.top(low, f.neck + 0.35, 0.97, opening), 0.25 + rng.gamma(2.0, 0.1), 0.9)

    def wear_shell(self, field, thickness, most):
        self.put_on(field(), min(thickness, most))

    def put_on(self, cut, thickness, texture=None, loose=0.0):
        """A garment over the body where the field is positive, `thickness` decimetres off it and `loose` more at each vertex, of the
        next cloth if of none."""
        rng = self.rng
        rest = self.fields.inflated(thickness, rng.gamma(1.5, 0.05), rng) + self.fields.normal * np.reshape(loose, (-1, 1))
        texture = self.cloth() if texture is None else texture
        self.add_shell(rest, self.assets.tights, cut, texture, repeats=rng.uniform(1, 3))
        # Skin well inside the cloth is dropped, or it would poke through; the shells end at wrists and ankles.
        self.hidden |= (cut > 0.12) & self.fields.under_shells

    def wear_swimwear(self):
        f = self.fields
        self.wear_shell(lambda: f.trousers(f.hips + 0.5, 0.12), 0.02, 0.1)
        if self.shape.sex == "female":
            self.wear_shell(lambda: f.top(f.neck - 2.6, f.neck - 0.9, -0.08), 0.02, 0.1)

    def wear_skirt(self, waist, texture=None):
        height = self.shape.vertices[:, 1]
        skirt = height[np.unique(self.assets.skirt[0])]
        hem = np.quantile(skirt, self.rng.uniform(0, 0.6))
        cut = np.minimum(height - hem, waist + 0.3 - height)
        self.add_shell(self.shape.vertices, self.assets.skirt, cut, self.cloth() if texture is None else texture)

    # ------------------------------------------------------------ head

    def head_things(self):
        rng, assets = self.rng, self.assets
        colour = hair_colour(rng)
        style = rng.random()
        if style < 0.72:
            fitting = [h for h in assets.hair if ("short" in h.name) == (self.shape.sex == "male")]
            pool = assets.hair if rng.random() < 0.35 or not fitting else fitting
            hair = pool[rng.integers(len(pool))]
            self.add_garment(hair, self.hair_texture(hair.texture, colour), only(HAIR, len(hair.parts)))
        elif style < 0.93:
            self.add_cap(colour)
        if rng.random() < 0.10:
            self.add_cap(None)
        elif rng.random() < 0.04:
            hat = assets.hats[rng.integers(len(assets.hats))]
            self.add_garment(hat, garment_texture(assets, rng, hat.texture)[None], only(HAIR, len(hat.parts)))
        eye = np.concatenate([linear(assets.eye_texture[..., :3]), np.ones((64, 64, 1))], -1)[None].astype(np.float32)
        self.add_garment(assets.eyes, eye, only(FACE, len(assets.eyes.parts)), holes=False)
        if assets.brows and rng.random() < 0.8:
            brows = assets.brows[rng.integers(len(assets.brows))]
            self.add_garment(brows, self.hair_texture(brows.texture, colour * 0.8), only(FACE, len(brows.parts)))

    def hair_texture(self, painted, colour):
        if painted is None:
            painted = np.ones((TEXTURE, TEXTURE, 4), np.float32)
        grey = painted[..., :3].mean(2, keepdims=True)
        solid = painted[..., 3:] > 0.45
        grey = grey / max(0.05, float(grey[solid].mean()) if solid.any() else 1.0)
        tinted = linear(np.clip(grey * np.clip(colour, 0.02, 0.95), 0, 1))
        return np.concatenate([tinted, painted[..., 3:]], -1)[None].astype(np.float32)

    def add_cap(self, colour):
        """Cropped hair (colour given), or a cap, hood or head scarf (cloth): a shell over the skull."""
        rng, f = self.rng, self.fields
        if colour is None:
            texture, thickness = garment_texture(self.assets, rng), rng.uniform(0.08, 0.35)
            neck = rng.random() < 0.3
        else:
            texture = stubble(rng, colour, 0.15, 60)
            thickness, neck = rng.choice([0.03, 0.06, 0.12, 0.4], p=[0.35, 0.35, 0.2, 0.1]), False
        cut = f.skull(rng.uniform(-0.1, 0.25), neck)
        normal = kernels.normals(self.shape.vertices, self.assets.body[0])
        self.add_shell(self.shape.vertices + normal * thickness, self.assets.body, cut, texture,
                       only(HAIR, len(self.shape.vertices)), repeats=2.0)

    def add_body(self):
        triangles, uv_triangles = self.assets.body
        seen = ~self.hidden[triangles].all(1)
        parts = self.assets.rig.parts
        self.items.append(Item(self.posed(self.shape.vertices), triangles[seen], self.assets.base.uvs,
                               uv_triangles[seen], parts, self.shape.skin))


class Fields:
    """Signed fields over the base mesh, in decimetres or limb lengths, from which clothes are cut."""

    def __init__(self, assets, shape):
        parts, v, index = assets.rig.parts, shape.vertices, assets.rig.index
        self.assets, self.v = assets, v
        self.arm, self.leg = parts[:, ARMS].sum(1), parts[:, LEGS].sum(1)
        self.head = parts[:, FACE]
        joint = lambda name: shape.joints[index[name]]

        def along(start, end):
            left = [(v - joint(start + s)) @ (joint(end + s) - joint(start + s))
                    / np.sum((joint(end + s) - joint(start + s)) ** 2) for s in (".L", ".R")]
            return np.where(v[:, 0] > 0, *left)

        self.along_arm, self.along_leg = along("upperarm01", "wrist"), along("upperleg01", "foot")
        self.under_shells = (self.head < 0.3) & (self.along_arm < 0.95) & ((self.leg < 0.5) | (self.along_leg < 0.93))
        self.hips, self.neck = joint("upperleg01.L")[1], joint("neck01")[1]
        self.eyes, self.skull_base = joint("eye.L"), joint("head")
        self.normal = kernels.normals(v, assets.tights[0])
        self.charts = Charts(v, joint, self.arm, self.leg)

    def inflated(self, thickness, wave, rng):
        """The mesh pushed outwards, with soft waves."""
        phase, rate = rng.uniform(0, 6.28, 3), rng.normal(0, 3, (3, 3))
        waves = sum(np.sin(self.v @ rate[k] + phase[k]) for k in range(3)) / 3
        return self.v + self.normal * (thickness * (1 + 0.4 * self.arm) + wave * waves)[:, None]

    def top(self, low, neck, sleeve, opening=0.0):
        y = self.v[:, 1]
        trunk = np.minimum(y - low, neck - y)
        if opening:
            front = self.v[:, 2] > 0.0
            trunk = np.where(front, np.minimum(trunk, np.abs(self.v[:, 0]) - opening), trunk)
        return np.where(self.arm > 0.5, 6 * (sleeve - self.along_arm), np.where(self.head > 0.5, -1, trunk))

    def slant(self, steepness):
        """Distance across the chest from a line over one shoulder; `steepness` is its slope."""
        v = self.v
        return (v[:, 0] + steepness * (v[:, 1] - (self.hips + self.neck) / 2)) / np.hypot(1, steepness)

    def trousers(self, waist, hem):
        y = self.v[:, 1]
        legs = np.where(self.leg > 0.5, 8 * (hem - self.along_leg), 1.0)
        return np.where(self.arm > 0.5, -1, np.minimum(waist + 0.12 - y, legs))

    def skull(self, line, neck):
        """Positive on the scalp: above and behind a slanted line from the forehead to the nape."""
        d = self.v - self.eyes
        scalp = d[:, 1] - 0.45 - line + np.clip(0.2 - d[:, 2], 0, None) * 0.9
        scalp = np.minimum(scalp, 0.0 - d[:, 2] + 1.6 * np.clip(d[:, 1] - 0.3 - line, 0, None))
        if neck:
            scalp = np.maximum(scalp, np.minimum(-0.35 - d[:, 2], d[:, 1] + 3.0))
        return np.where((self.head > 0.4) | (neck & (self.arm < 0.3) & (self.v[:, 1] > self.neck - 0.2)), scalp, -1)
