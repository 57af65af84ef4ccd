"""Pets, farm animals and wild ones in any posture: what has a face, a trunk and four limbs and yet is nobody.

An animal is lofts along its spine, neck, legs and tail, with a head that has eyes, a nose and ears, because those are what a network
takes for a face. Lengths are in units of the body; x goes from tail to nose, y is up.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .assets import TEXTURE
from .cloth import X, Y, cloth_colour, hue_colour, smooth_noise
from .lofts import bumpy, grain, loft
from .pose import about
from .things import BALL, item, solid


@dataclass(frozen=True)
class Species:
    """Proportions of a kind of animal: halves of thicknesses, and lengths."""

    fat: float
    leg: float
    thick: float
    neck: float
    lift: float  # of the neck, radians
    head: float
    muzzle: float  # in units of the head
    ear: float  # in units of the head
    droop: float  # of the ears: 0 upright, 1 aside, 2 hanging
    tail: float
    coats: tuple
    trunk: bool = False
    horns: bool = False
    bird: bool = False


FUR = ("plain", "plain", "patches", "bicolour", "stripes")
SPECIES = (
    Species(0.13, 0.30, 0.040, 0.12, 0.7, 0.12, 0.7, 0.8, 0.2, 0.8, FUR),  # cat
    Species(0.14, 0.40, 0.045, 0.22, 0.7, 0.12, 1.4, 1.0, 1.2, 0.5, FUR),  # dogs, with upright and with hanging ears
    Species(0.16, 0.28, 0.050, 0.18, 0.6, 0.13, 1.2, 0.9, 0.2, 0.4, FUR),
    Species(0.19, 0.62, 0.050, 0.48, 0.8, 0.11, 2.4, 0.7, 0.1, 0.5, ("plain", "plain", "patches", "stripes", "stripes")),  # horse
    Species(0.23, 0.45, 0.055, 0.28, 0.2, 0.13, 1.9, 0.8, 1.0, 0.6, ("plain", "patches"), horns=True),  # cow
    Species(0.27, 0.30, 0.040, 0.18, 0.5, 0.10, 1.7, 0.8, 1.1, 0.1, ("wool",)),  # sheep
    Species(0.24, 0.20, 0.050, 0.10, 0.1, 0.14, 1.5, 0.8, 0.8, 0.2, ("plain", "patches")),  # pig
    Species(0.30, 0.50, 0.110, 0.14, 0.4, 0.19, 0.8, 1.5, 1.1, 0.3, ("hide",), trunk=True),  # elephant
    Species(0.21, 0.90, 0.055, 1.00, 1.1, 0.10, 2.0, 0.7, 0.8, 0.4, ("net",), horns=True),  # giraffe
    Species(0.25, 0.36, 0.085, 0.18, 0.3, 0.15, 1.2, 0.5, 0.3, 0.05, ("plain", "wool")),  # bear
    Species(0.16, 0.55, 0.035, 0.38, 0.9, 0.09, 1.9, 0.9, 0.8, 0.1, ("plain", "spots"), horns=True),  # deer
    Species(0.18, 0.22, 0.018, 0.15, 0.9, 0.11, 1.0, 0.0, 0.0, 0.5, FUR, bird=True),
)
# How often each; cats and dogs share the homes of the people before the mirror.
SHARES = np.array([4, 3, 3, 2, 1, 2, 1, 2, 1, 2, 1, 2]) / 24
PETS = 3  # the first of SPECIES
POSTURES, POSTURE_SHARES = ("standing", "sitting", "lying", "rearing", "fallen"), (0.6, 0.15, 0.14, 0.06, 0.05)


def draw_species(rng, pet=False):
    """A kind of animal, its proportions moved by a tenth or two."""
    one = SPECIES[rng.integers(PETS) if pet else rng.choice(len(SPECIES), p=SHARES)]
    vary = lambda value, spread=0.18: value * np.exp(rng.normal(0, spread))
    return replace(one, fat=vary(one.fat), leg=vary(one.leg, 0.25), thick=vary(one.thick), neck=vary(one.neck, 0.25), head=vary(one.head),
                   muzzle=vary(one.muzzle, 0.25), ear=vary(one.ear, 0.35), droop=one.droop + rng.normal(0, 0.5), tail=vary(one.tail, 0.4))


# ------------------------------------------------------------ coats

def fur_colour(rng):
    """sRGB of fur, hide and feathers: whites, greys, blacks, and browns from cream over ginger to dark; at times any colour."""
    kind = rng.random()
    if kind < 0.38:
        return np.clip(rng.uniform(0.05, 0.95) * rng.uniform(0.92, 1.05, 3), 0.02, 0.97)
    if kind < 0.9:
        return np.clip(hue_colour(rng.uniform(0.03, 0.12), rng.beta(2, 2), rng.uniform(0.1, 0.95)) + 0.02, 0, 0.97)
    return cloth_colour(rng)


def marking(rng, kind):
    """Where the second colour of a coat lies, (T, T) in 0..1; the texture's lines go round the body."""
    soft = rng.uniform(4, 20)
    step = lambda field, level: np.clip((field - level) * soft + 0.5, 0, 1)
    if kind == "stripes":
        wave = np.sin(2 * np.pi * rng.integers(5, 16) * (Y / TEXTURE + 0.06 * smooth_noise(rng, 5)) + rng.uniform(0, 6))
        return step(wave, rng.uniform(-0.4, 0.4))
    if kind == "spots":
        return step(smooth_noise(rng, int(rng.integers(14, 30))), 0.8)
    if kind == "net":  # what is near the zeros of a noise: light lines between dark patches
        return step(np.abs(smooth_noise(rng, int(rng.integers(7, 14)))), 0.25)
    if kind == "bicolour":
        return step(np.abs(X / TEXTURE - 0.5) * 2 + 0.2 * smooth_noise(rng, 6), rng.uniform(0.2, 0.8))
    return step(smooth_noise(rng, int(rng.integers(3, 7))), rng.uniform(-0.6, 0.8))


def coat(rng, kind, colour):
    """Linear RGBA texture of one coat."""
    rough = rng.gamma(2.0, 0.1) + (0.25 if kind in ("wool", "hide") else 0)
    noise = grain(rng)
    if kind == "wool":  # curls: fine noise, dark between
        noise = 0.6 * noise - np.abs(smooth_noise(rng, int(rng.integers(24, 50))))[..., None]
    elif kind == "hide":  # wrinkles round limbs and trunk
        noise = 0.5 * noise - np.abs(smooth_noise(rng, int(rng.integers(20, 44)), stretch=4))[..., None]
    picture = colour * np.exp(rough * noise)
    if kind not in ("plain", "wool", "hide"):
        share = marking(rng, kind)[..., None]
        picture = picture * (1 - share) + fur_colour(rng) * np.exp(rough * noise) * share
    if rng.random() < 0.5:  # a lighter belly, or a darker one: three quarters round is underneath
        under = np.exp(-((X / TEXTURE - 0.75) / 0.15) ** 2)[..., None]
        picture = picture * (1 + under * rng.normal(0.2, 0.3))
    return solid(cv2.GaussianBlur(np.clip(picture, 0, 1).astype(np.float32), (0, 0), 0.7))


# ------------------------------------------------------------ bodies

class Animal:
    """The parts of one animal as (mesh, place of its texture): "coat", "points" (face, legs) or "dark"."""

    def __init__(self, rng, species, posture):
        self.rng, self.species, self.posture, self.parts = rng, species, posture, []
        self.rough = rng.uniform(0.03, 0.08) if "wool" in species.coats else rng.uniform(0, 0.02)
        self.trunk_of_body()
        self.legs()
        self.neck_and_head()
        self.tail()

    def add(self, path, radii, texture="coat", columns=12, rows=14):
        self.parts.append((bumpy(self.rng, loft(path, radii, columns, rows), self.rough, 5), texture))

    def ball(self, centre, half, texture):
        vertices, triangles, uvs = BALL
        self.parts.append(((vertices * half + centre, triangles, uvs), texture))

    def trunk_of_body(self):
        rng, s = self.rng, self.species
        pitch = {"sitting": rng.uniform(0.5, 1.0), "rearing": rng.uniform(0.9, 1.4)}.get(self.posture, rng.normal(0.02, 0.05))
        low = self.posture in ("sitting", "lying")
        self.hip = np.array([-0.42, s.fat * 0.9 if low else s.leg + 0.6 * s.fat, 0])
        self.along = np.array([np.cos(pitch), np.sin(pitch), 0])
        across = np.array([-np.sin(pitch), np.cos(pitch), 0])
        at = lambda x, y=0.0: self.hip + self.along * x + across * y
        self.shoulder = at(0.8)
        sag, belly = rng.normal(0, 0.05), rng.uniform(0.85, 1.25)
        self.add([at(-0.14), at(0.06, 0.02), at(0.4, sag), at(0.76, 0.03), at(0.95, 0.05)], s.fat * np.array([0.55, 1, belly, 1.02, 0.6]), columns=18, rows=20)
        self.base_of_neck = at(0.84, 0.25 * s.fat)

    def legs(self):
        rng, s = self.rng, self.species
        aside = s.fat * (0.6 if s.fat > 0.15 else 0.75)
        profile = s.thick * np.array([2.0, 1.35, 1.0, 0.85, 1.0])
        for side in (-1, 1):
            if s.bird:
                self.leg(self.hip + self.along * 0.35, side * aside * 0.6, -0.25, profile * 0.8)
                self.wing(side)
                continue
            self.leg(self.hip, side * aside, -0.12, profile * 1.1)
            self.leg(self.shoulder - [0, 0.2 * s.fat, 0], side * aside, 0.06, profile)

    def leg(self, top, z, knee, profile):
        """From `top` to the floor, bent by `knee`; folded under whoever lies, hanging where the floor is out of reach."""
        rng, s = self.rng, self.species
        top = top + [0, 0, z]
        if self.posture == "lying" or (self.posture == "sitting" and knee < 0):
            forward = rng.uniform(0.5, 1.0) * s.leg
            path = [top, top + [0.4 * forward, 0.1 * s.fat, 0.3 * z], [top[0] + 0.15, 0.06, 1.3 * z], [top[0] + 0.15 + 0.5 * forward, 0.04, 1.3 * z], [top[0] + 0.2 + 0.6 * forward, 0.03, 1.3 * z]]
        else:
            reach = min(top[1], 1.15 * (s.leg + 0.6 * s.fat))
            foot = np.array([top[0] + rng.normal(0, 0.22) * s.leg, top[1] - reach + 0.02, z])
            middle = lambda share, bend: top * (1 - share) + foot * share + [bend * s.leg, 0, 0]
            path = [top, middle(0.35, -knee * 0.6), middle(0.65, knee), foot + [0, 0.03, 0], foot + [1.2 * s.thick + 0.02, 0, 0]]
        self.add(path, profile, "points" if rng.random() < 0.8 else "coat")

    def wing(self, side):
        rng, s = self.rng, self.species
        open_by = rng.uniform(0, 1) if rng.random() < 0.4 else 0.0
        root = self.shoulder + [-0.05, 0.3 * s.fat, side * s.fat * 0.8]
        self.add([root, root + [-0.3, 0.3 * open_by, side * (0.05 + 0.6 * open_by)], root + [-0.75, 0.1 * open_by - 0.1, side * 0.9 * open_by]],
                 s.fat * np.array([[0.3, 0.7], [0.2, 0.9], [0.1, 0.3]]), columns=12, rows=14)

    def neck_and_head(self):
        rng, s = self.rng, self.species
        grazing = self.posture == "standing" and not s.bird and rng.random() < 0.2
        lift = rng.uniform(-1.2, -0.6) if grazing else s.lift + rng.normal(0, 0.25)
        way = np.array([np.cos(lift), np.sin(lift), rng.normal(0, 0.25)])
        self.skull = self.base_of_neck + way * (s.neck + s.head)
        width = np.array([0.75 * s.fat, max(0.5 * s.fat, 0.8 * s.head), 0.75 * s.head])
        self.add([self.base_of_neck - self.along * 0.12, self.base_of_neck + way * 0.4 * s.neck, self.skull], width)
        pitch = rng.uniform(-1.3, -0.7) if grazing else rng.normal(-0.35, 0.35)
        self.facing = about("Y", rng.normal(0, 45)) @ about("Z", np.rad2deg(pitch))
        self.face()
        self.ears()

    def on_head(self, x, y, z):
        """A place in units of the head, x towards the nose."""
        return self.skull + self.facing @ (np.array([x, y, z]) * self.species.head)

    def face(self):
        rng, s = self.rng, self.species
        skin = "points" if rng.random() < 0.6 else "coat"
        self.add([self.on_head(-0.9, 0, 0), self.on_head(-0.3, 0.1, 0), self.on_head(0.3, 0.05, 0), self.on_head(0.9, -0.1, 0)],
                 s.head * np.array([0.6, 1.0, 0.95, 0.6]), skin)
        tip = 0.6 + s.muzzle * 0.7
        blunt = 0.12 if s.bird else rng.uniform(0.35, 0.6)
        self.add([self.on_head(0.2, -0.15, 0), self.on_head(0.5 + 0.3 * s.muzzle, -0.22, 0), self.on_head(tip, -0.3, 0)],
                 s.head * np.array([0.75, 0.3 + 0.5 * blunt, blunt]), "points" if s.bird else skin)
        if s.trunk:
            self.add([self.on_head(tip - 0.5, -0.2, 0), self.on_head(tip, -1.1, rng.normal(0, 0.2)), self.on_head(tip + rng.normal(0, 0.5), -2.3, rng.normal(0, 0.4)),
                      self.on_head(tip + rng.normal(0, 0.9), -3.1, rng.normal(0, 0.5))], s.head * np.array([0.5, 0.38, 0.28, 0.18]), skin, rows=20)
        elif not s.bird:
            self.ball(self.on_head(tip + blunt * 0.4, -0.2, 0), s.head * blunt * rng.uniform(0.3, 0.6), "dark")
        eye, out = rng.uniform(0.09, 0.2), rng.uniform(0.45, 0.75)
        for side in (-1, 1):
            self.ball(self.on_head(0.55, 0.32, side * out), s.head * eye, "dark")

    def ears(self):
        rng, s = self.rng, self.species
        if s.bird:
            return
        flat = 2.0 if s.trunk else 1.0
        for side in (-1, 1):
            root = np.array([-0.25, 0.75, side * 0.6])
            angle = np.clip(s.droop, 0, 2.2) * np.pi / 2
            out = np.array([rng.normal(-0.1, 0.1), np.cos(angle), side * np.sin(angle)]) * s.ear
            self.add([self.on_head(*root), self.on_head(*(root + 0.5 * out)), self.on_head(*(root + out))],
                     s.head * s.ear * np.array([[0.25 * flat, 0.12], [0.4 * flat, 0.1], [0.12 * flat, 0.04]]), "points" if rng.random() < 0.5 else "coat")
            if s.horns and rng.random() < 0.5:
                end = np.array([rng.normal(-0.2, 0.3), rng.uniform(0.6, 1.6), side * rng.uniform(0.1, 0.9)])
                self.add([self.on_head(*root), self.on_head(*(root + 0.6 * end * [1, 0.8, 1.2])), self.on_head(*(root + end))], s.head * np.array([0.2, 0.14, 0.05]), "dark")

    def tail(self):
        rng, s = self.rng, self.species
        root = self.hip - self.along * 0.1 + [0, 0.3 * s.fat, 0]
        rise = rng.normal(0.0, 0.7) if s.tail > 0.3 else rng.normal(0, 0.3)
        width = rng.uniform(0.02, 0.07)
        tip = root + s.tail * np.array([-np.cos(rise), np.sin(rise), rng.normal(0, 0.4)])
        middle = root + s.tail * np.array([-0.6, 0.5 * np.sin(rise) - 0.1, rng.normal(0, 0.2)])
        tip[1], middle[1] = max(tip[1], width), max(middle[1], width)  # on the floor at the lowest
        self.add([root, middle, tip], [width * 1.2, width, width * rng.uniform(0.3, 1.6)])


def animal(rng, species, place, size, toward=None, portrait=False):
    """Items of one animal of a kind in any posture; `size` is the length of the body in metres, `place` the floor below it, or
    with `portrait` the middle of its head. `toward` is the rotation that turns somebody's face to the camera; without it the animal
    faces anywhere."""
    posture = "standing" if species.bird else POSTURES[rng.choice(len(POSTURES), p=POSTURE_SHARES)]
    own = coat(rng, species.coats[rng.integers(len(species.coats))], fur_colour(rng))
    points = coat(rng, "plain", fur_colour(rng) * 0.7) if rng.random() < 0.35 else own
    textures = {"coat": own, "points": points, "dark": solid(np.full((4, 4, 3), rng.uniform(0.01, 0.12)))}
    turned = about("Y", rng.uniform(0, 360)) if toward is None else toward @ about("Y", rng.normal(-90, 35))
    if posture == "fallen":
        turned = turned @ about("X", 90)
    body = Animal(rng, species, posture)
    if portrait:
        place = place - turned @ body.skull * size
    elif posture == "fallen":  # on its flank, not halfway in the floor
        place = place - [0, size * min((vertices @ turned.T)[:, 1].min() for (vertices, _, _), _ in body.parts), 0]
    along = [1, rng.uniform(0.6, 1.6)]  # a texture goes round once, so that it has no seam and its belly underneath
    return [item((vertices, triangles, uvs * along), size, place, textures[texture], turned)
            for (vertices, triangles, uvs), texture in body.parts]
