"""People in the poses of sports, dance and gymnastics: they kick, leap, throw, stand on their hands, turn over."""

import numpy as np

from .moves import MoveScene, MovingPerson, with_hands_and_back
from .pose import Directions, about, bend, both, from_directions, lean, loosen, mirrored, unit

LIFTED = 0.4  # share of the scenes whose first person is in the air
# Metres above the floor: at least, at most, at most in a mirror's view; and where rooms may end.
LOWEST, HIGHEST, HIGHEST_MIRRORED, CEILING = 0.1, 0.8, 0.4, 2.3


def reach(rng):
    """Upper arm and forearm of the left side anywhere an arm gets to; elbows bend forwards or in."""
    upper = unit(np.array([rng.uniform(-0.35, 1.0), rng.uniform(-1.0, 1.0), rng.uniform(-0.6, 1.0)]))
    bent = np.deg2rad(rng.choice([abs(rng.normal(0, 25)), rng.uniform(20, 145)]))
    aim = np.array([rng.uniform(-1, 0.3), rng.uniform(-0.4, 1), 1.0])
    across = unit(aim - (aim @ upper) * upper)
    return upper, np.cos(bent) * upper + np.sin(bent) * across


def stride(rng):
    """Thigh and shin of the left side: the hip bends up to 130 degrees, stretches to 40 and spreads to 75; knees bend
    backwards."""
    ahead, aside = np.deg2rad(rng.uniform(-40, 130)), np.deg2rad(rng.choice([rng.normal(6, 8), rng.uniform(0, 75)], p=[0.6, 0.4]))
    thigh = np.array([np.sin(aside), -np.cos(ahead) * np.cos(aside), np.sin(ahead) * np.cos(aside)])
    bent = np.deg2rad(rng.choice([abs(rng.normal(0, 15)), rng.uniform(10, 140)]))
    back = np.array([0.0, -np.sin(ahead), -np.cos(ahead)])
    back = unit(back - (back @ thigh) * thigh)
    return thigh, np.cos(bent) * thigh + np.sin(bent) * back


# Each gives a pose of somebody upright; the second number of `KINDS` says how often it is turned over.


def anyhow(rng):
    return Directions(np.eye(3), reach(rng) + stride(rng), mirrored(*(reach(rng) + stride(rng))), False)


def sprint(rng):
    """Running: arms and legs cross over."""
    swing, lift = rng.uniform(0.4, 1), rng.uniform(0.3, 1)
    ahead, behind = ((0.08, -1 + lift, lift), (0.03, -1, -0.5 * swing)), ((0.05, -1, -0.7 * swing), (0.03, -0.5, -1 - 0.3 * lift))
    front, back = ((0.15, -0.8, 0.6 * swing), (-0.25, 0.6, 1)), ((0.25, -0.8, -swing), (0.05, -0.7, 0.6))
    return Directions(lean(rng.uniform(3, 25)), arrays(back + ahead), mirrored(*(front + behind)), False)


def kick(rng):
    """One leg up, on the other one."""
    height, side = rng.uniform(-0.2, 1), rng.uniform(0, 1)
    raised = ((side, height, 1 - side), (side, height + rng.uniform(-0.5, 0.3), 1 - side))
    return Directions(lean(-25 * rng.random()) @ about("Z", 20 * side * rng.random()), reach(rng) + arrays(raised),
                      mirrored(*(reach(rng) + arrays(((0.06, -1, 0.0), (0.02, -1, -0.1))))), False)  # fmt: skip


def tuck(rng):
    """Knees at the chest, arms around them."""
    u = rng.uniform(0.2, 1)
    return Directions(lean(15 + 40 * u), *both((0.3, -0.7, 0.8), (-0.3, -0.6, 0.5), (0.15, -0.4 + 1.1 * u, 1), (0.05, -1, -0.2 - 0.8 * u)), False)


def split_leap(rng):
    u = rng.uniform(0.5, 1)
    left = reach(rng) + arrays(((0.15, -1 + 1.1 * u, u), (0.1, -1 + u, u)))
    right = reach(rng) + arrays(((0.15, -1 + 1.0 * u, -u), (0.08, -0.8 + 0.8 * u, -1)))
    return Directions(lean(rng.normal(0, 12)), left, mirrored(*right), False)


def star(rng):
    """Arms and legs apart, as in a cartwheel."""
    spread = rng.uniform(0.2, 1)
    return Directions(about("Z", rng.normal(0, 10)), *both((spread, 1, 0), (spread, 1.1, 0), (spread, -1, 0), (spread, -1.05, 0)), False)


def on_hands(rng):
    """Arms overhead and straight; legs together, apart, split or bent."""
    arm, kind = arrays(((0.12, 1, 0.1), (0.05, 1, 0.05))), rng.random()
    if kind < 0.4:
        return Directions(lean(rng.normal(0, 8)), *both(*arm, (0.06, -1, 0.0), (0.03, -1, -0.05)), False)
    left, right = (stride(rng), stride(rng)) if kind < 0.7 else (arrays(((0.1, -0.4, 1), (0.1, -0.5, 1))), arrays(((0.1, -0.6, -1), (0.05, -0.7, -1))))
    return Directions(lean(rng.normal(0, 8)), arm + left, mirrored(*(arm + right)), False)


def arabesque(rng):
    """Bent forwards on one leg, the other one stretched behind."""
    u = rng.uniform(0.3, 1)
    left = reach(rng) + arrays(((0.06, -1, 0.1), (0.02, -1, 0.0)))
    right = reach(rng) + arrays(((0.1, -1 + 1.1 * u, -0.4 - u), (0.08, -0.9 + 1.2 * u, -1)))
    return Directions(lean(70 * u), left, mirrored(*right), False)


def throw(rng):
    """One arm behind the head or stretched to throw, feet apart."""
    arm = arrays(((0.7, 0.5, -0.5), (0.0, 0.6, -1))) if rng.random() < 0.5 else arrays(((0.4, 0.6, 0.8), (0.1, 0.5, 1)))
    left = arm + arrays(((0.3, -1, -0.35), (0.15, -1, -0.5)))
    right = reach(rng) + arrays(((0.25, -0.8, 0.7), (0.05, -1, 0.05)))
    return Directions(lean(rng.normal(5, 15)) @ about("Y", rng.normal(0, 25)), left, mirrored(*right), False)


def arrays(vectors):
    """Plain directions as `Directions` keeps them."""
    return tuple(np.array(v, float) for v in vectors)


# Kind, share, and the share of it that is upside down or on its side.
KINDS = ((anyhow, 0.26, 0.35), (sprint, 0.14, 0.0), (kick, 0.12, 0.05), (tuck, 0.08, 0.4), (split_leap, 0.08, 0.15), (star, 0.1, 0.5),
         (on_hands, 0.12, 0.95), (arabesque, 0.05, 0.0), (throw, 0.05, 0.0))  # fmt: skip


def turned_over(rng):
    """A rotation that stands somebody on the head, lays them down in the air or turns them anyhow."""
    kind = rng.random()
    degrees = rng.normal(180, 18) if kind < 0.5 else rng.choice([-1, 1]) * rng.normal(90, 30) if kind < 0.8 else rng.uniform(-180, 180)
    axis = rng.choice(["X", "Z"])
    return about("Y", rng.uniform(-180, 180)) @ about(axis, degrees)


def leaping_pose(assets, rng, joints):
    """(world rotations, relative rotations) of somebody in such a pose."""
    kind, _, over = KINDS[rng.choice(len(KINDS), p=[share for _, share, _ in KINDS])]
    pose = kind(rng)
    if rng.random() < 0.5:
        pose.exchange()
    world, relative = from_directions(assets, rng, joints, pose), {}
    around = turned_over(rng) if rng.random() < over else lean(rng.normal(4, 10)) @ about("Z", rng.normal(0, 10))
    world = {bone: around @ rotation for bone, rotation in world.items()}
    # Trunk and limbs were turned together; the back bends and twists on its own.
    loosen(rng, relative, (("spine03", 12), ("spine02", 10), ("neck02", 14), ("head", 14), ("wrist.L", 20), ("wrist.R", 20)))
    for side in (".L", ".R"):
        bend(relative, "foot" + side, about("X", rng.uniform(-10, 55)))
    return with_hands_and_back(assets, rng, joints, world, relative)


class LeapingPerson(MovingPerson):
    """A dressed person in a pose of `leaping_pose`."""

    draw_pose = staticmethod(leaping_pose)


class LeapScene(MoveScene):
    """A scene of people in such poses, seen from any side, at times in the air."""

    person_kind = LeapingPerson
    framing = (0.78, 0.92, 0.97)
    tables = 0.0

    def support(self, person):
        """Nothing: some of them are in the air."""
        return []

    def facing(self):
        return self.rng.uniform(-180, 180) if self.rng.random() < 0.5 else super().facing()

    def note(self, person, body, number):
        super().note(person, body, number)
        if number > 1 or self.rng.random() >= LIFTED:
            return
        most = HIGHEST_MIRRORED if self.view == "mirror" else HIGHEST
        most = min(most, CEILING - np.ptp(body[:, 1])) if self.inside else most
        if most > LOWEST:
            self.ground -= self.rng.uniform(LOWEST, most)
            self.feet = []
