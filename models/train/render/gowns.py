"""People in clothes that hang from the hips or the shoulders: long skirts, gowns, robes, long coats, wide trousers."""

import numpy as np

from .cloth import garment_texture, pleated
from .outfits import DressedPerson, OutfitScene
from .pose import from_directions, random_pose, standing

ABOVE_FLOOR = 0.15  # decimetres from the floor to the lowest hem
WAIST = 1.2  # decimetres from the hips to the top of the skirt's mesh, at most


def calm_pose(assets, rng):
    """Mostly standing, as people in long clothes do; a pose for given joints."""
    if rng.random() < 0.3:
        return lambda joints: random_pose(assets, rng, joints)
    return lambda joints: (from_directions(assets, rng, joints, standing(rng)), {})


class Drape:
    """The skirt of the base mesh as a cloth of its own: longer, wider, in pleats; rest positions in decimetres."""

    def __init__(self, person, flare, length=1.0):
        rng, f = person.rng, person.fields
        self.vertices = person.shape.vertices.copy()
        faces = person.assets.skirt[0]
        rows = np.unique(faces)
        v = self.vertices[rows]
        top, low, floor = v[:, 1].max(), v[:, 1].min(), person.shape.vertices[:13380, 1].min() + ABOVE_FLOOR
        centre = np.array([0.0, np.median(v[:, 2])])
        down = np.clip((f.hips - v[:, 1]) / (f.hips - low), 0, 1)
        angle = np.arctan2(v[:, 2] - centre[1], v[:, 0])
        pleats = rng.gamma(1.5, 0.035) * np.sin(rng.integers(4, 13) * angle + rng.uniform(0, 6.28))
        wide = (1 + flare * down ** rng.uniform(0.7, 1.6)) * (1 + pleats * down)
        self.vertices[rows, 0] = v[:, 0] * wide
        self.vertices[rows, 2] = centre[1] + (v[:, 2] - centre[1]) * wide
        # What lies below the hips is stretched, so that a hem can reach the floor.
        longest = (f.hips - floor) / (f.hips - low)
        below = np.minimum(v[:, 1] - f.hips, 0)
        self.vertices[rows, 1] = v[:, 1] + below * (longest - 1) * length
        self.top, self.hem = top, self.vertices[rows, 1].min()
        self.angle = np.zeros(len(self.vertices))
        self.angle[rows] = angle

    def swollen(self, thickness):
        """Further from the legs by `thickness` decimetres all round."""
        out = np.stack([np.cos(self.angle), np.zeros(len(self.angle)), np.sin(self.angle)], 1)
        self.vertices = self.vertices + thickness * out
        return self

    def between(self, hem, waist, rng):
        """The field of a piece from `waist` down to `hem`; hems may be slanted or wavy."""
        y = self.vertices[:, 1]
        sway = rng.gamma(1.0, 0.15) if rng.random() < 0.4 else 0.0
        return np.minimum(y - hem - sway * np.sin(rng.integers(1, 4) * self.angle + rng.uniform(0, 6.28)), waist - y)


class GownPerson(DressedPerson):
    """A person in long clothes, of either sex."""

    def __init__(self, assets, rng, pose=None, tone=None):
        super().__init__(assets, rng, pose or calm_pose(assets, rng), tone)

    def dress(self):
        self.wear_shells()
        self.wear_shoes(0.85)

    def wear_shells(self):
        kind = self.rng.random()
        if kind < 0.34:
            self.wear_long_skirt()
        elif kind < 0.58:
            self.wear_gown()
        elif kind < 0.86:
            super().wear_shells()
            self.wear_long_coat()
        else:
            self.wear_wide_trousers()

    def hem_of(self, drape):
        """Mostly between the knees and the floor."""
        f, share = self.fields, self.rng.beta(1.3, 0.9)
        return f.hips - 2.0 - share * (f.hips - 2.0 - drape.hem)

    def hang_skirt(self, waist, texture):
        rng, f = self.rng, self.fields
        drape = Drape(self, rng.choice([rng.uniform(-0.1, 0.1), rng.gamma(2.0, 0.25)], p=[0.35, 0.65]), rng.uniform(0.3, 1.0))
        hem = self.hem_of(drape)
        cut = drape.between(hem, min(waist + 0.3, drape.top), rng)
        # Legs well inside would poke through where a knee is lifted.
        self.hidden |= f.under_shells & (f.arm < 0.3) & (f.v[:, 1] < f.hips - 0.5) & (f.v[:, 1] > hem + 1.0)
        texture = pleated(texture, rng) if rng.random() < 0.55 else texture
        self.add_shell(drape.vertices, self.assets.skirt, cut, texture, repeats=rng.uniform(1, 3))

    def upper(self, waist, texture=None):
        """A top of any sleeve and neck, down to the waist or over it; some stand off the body, more so lower down."""
        rng, f = self.rng, self.fields
        low = waist - 0.15 - (rng.uniform(0, 1.6) if rng.random() < 0.4 else 0.0)
        thickness = 0.02 + rng.gamma(1.2, 0.07)
        if rng.random() < 0.3:
            thickness = thickness + rng.uniform(0.2, 0.9) * np.clip((f.neck - f.v[:, 1]) / (f.neck - f.hips), 0, 1)
        sleeve = rng.choice([-0.08, 0.12, 0.3, 0.6, 0.97], p=[0.2, 0.1, 0.2, 0.15, 0.35]) + rng.normal(0, 0.03)
        self.put_on(f.top(low, f.neck + rng.uniform(-1.0, 0.3), sleeve), thickness, texture)

    def wear_long_skirt(self):
        waist = self.fields.hips + self.rng.uniform(0.2, WAIST)
        self.hang_skirt(waist, self.cloth())
        self.upper(waist)

    def wear_gown(self):
        """Skirt and top of one cloth, to the floor or not."""
        waist = self.fields.hips + self.rng.uniform(0.4, WAIST)
        texture = garment_texture(self.assets, self.rng)
        self.hang_skirt(waist, texture)
        self.upper(waist, texture)
        if self.rng.random() < 0.3:
            self.wear_belt(waist, 0.25, self.cloth())

    def wear_belt(self, waist, thickness, texture):
        width = self.rng.uniform(0.12, 0.4)
        band = width - np.abs(self.shape.vertices[:, 1] - waist)
        self.put_on(np.where(self.fields.arm < 0.3, band, -1), thickness, texture)

    def wear_long_coat(self):
        """Over all else: a coat, robe or bathrobe, open or closed, from mid-thigh to the floor."""
        rng, f = self.rng, self.fields
        texture, thickness = self.cloth(), rng.uniform(0.25, 0.6)
        opening = rng.uniform(0.15, 1.1) if rng.random() < 0.6 else 0.0
        waist = f.hips + rng.uniform(0.2, WAIST)
        self.put_on(f.top(waist - 0.6, f.neck + rng.uniform(0.0, 0.4), rng.choice([0.97, 0.6], p=[0.85, 0.15]), opening), thickness, texture)
        drape = Drape(self, rng.uniform(-0.05, 0.35), rng.uniform(0.2, 0.9)).swollen(thickness)
        y = drape.vertices[:, 1]
        hem = f.hips - 1.0 - rng.beta(1.3, 1.0) * (f.hips - 1.0 - drape.hem)
        cut = drape.between(hem, min(waist, drape.top), rng)
        if opening:
            apart = opening + rng.uniform(0, 0.12) * (f.hips - y)
            cut = np.where(drape.vertices[:, 2] > 0, np.minimum(cut, np.abs(drape.vertices[:, 0]) - apart), cut)
        self.add_shell(drape.vertices, self.assets.skirt, cut, texture, repeats=rng.uniform(1, 3))
        if rng.random() < 0.35:
            self.wear_belt(waist, thickness + 0.1, texture if rng.random() < 0.6 else self.cloth())

    def wear_wide_trousers(self):
        """Trousers that widen to the hem, with a top."""
        rng, f = self.rng, self.fields
        waist = f.hips + rng.uniform(0.2, WAIST)
        cut = f.trousers(waist, rng.choice([0.6, 0.8, 0.97, 1.1], p=[0.1, 0.1, 0.3, 0.5]))
        loose = np.where(f.leg > 0.3, rng.uniform(0.15, 0.75) * np.clip(f.along_leg, 0, 1) ** rng.uniform(0.3, 1.5), 0)
        self.put_on(cut, rng.uniform(0.05, 0.3), loose=loose)
        self.upper(waist)


class GownScene(OutfitScene):
    """A scene of people in long clothes, most of them seen whole."""

    person_kind = GownPerson
    framing = (0.75, 0.86, 0.92)
    tables = 0.05
