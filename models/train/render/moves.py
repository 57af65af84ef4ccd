"""People who do something: train on the floor, kneel, hold a hand to the hip, the face or a phone, close their hands."""

import numpy as np

from .outfits import DressedPerson, OutfitScene
from .pose import Directions, about, bend, both, free_arm, free_leg, from_directions, lean, loosen, mirrored, random_pose, turn, unit

UPRIGHT = np.eye(3)
NEAREST = 0.45  # metres between the camera and the first person
FITTING = 0.7  # share of the first people who fit the picture's width

# ---------------------------------------------------------------- on the floor

# Kinds of floor exercise: trunk, then upper arm, forearm, thigh and shin of the left side; the right side mirrors it.


def all_fours(rng, u):
    return Directions(lean(82 + 8 * u), *both((0.08, -1, 0.05), (0.03, -1, 0), (0.1, -1, 0.15 - 0.3 * u), (0.05, -0.06, -1)), False)


def bird_dog(rng, u):
    """On all fours with one arm and the other leg stretched."""
    left, right = both((0.08, -1, 0.05), (0.03, -1, 0), (0.1, -1, 0.1), (0.05, -0.06, -1))
    arm, leg = (np.array([0.1, -0.3 + 0.4 * u, 1]),) * 2, mirrored((0.08, -0.2 + 0.3 * u, -1), (0.05, -0.1 + 0.2 * u, -1))
    return Directions(lean(84), arm + left[2:], right[:2] + leg, False)


def down_dog(rng, u):
    arm = (0.12, -0.75, 0.65)
    return Directions(lean(128 + 15 * u), *both(arm, arm, (0.12, -0.8, -0.6), (0.1, -0.8, -0.55)), False)


def cobra(rng, u):
    return Directions(lean(75 - 40 * u), *both((0.25, -1, 0.2 * u), (0.1, -1, 0.3), (0.1, -0.03, -1), (0.06, -0.02, -1)), False)


def bridge(rng, u):
    return Directions(lean(-95 - 20 * u), *both((0.25, -0.12, 1), (0.1, -0.1, 1), (0.12, 0.2 + 0.3 * u, 1), (0.03, -1, 0.1)), False)


def lying(rng, u):
    """On the back, knees drawn up or not."""
    arm = ((0.35, -0.03, 1), (0.1, -0.02, 1)) if rng.random() < 0.6 else ((1, 0, -0.5 - u), (-0.4, 0.1, -1))
    leg = ((0.12, -0.03, 1), (0.05, -0.03, 1)) if rng.random() < 0.4 else ((0.12, 0.9 * u, 0.8), (0.05, -0.8 * u, 0.6))
    return Directions(lean(-88), *both(*arm, *leg), False)


def leg_raise(rng, u):
    leg = (0.06, 0.1 + 1.4 * u, 1 - 0.8 * u)
    return Directions(lean(-88 + 40 * u * (rng.random() < 0.4)), *both((0.3, -0.03, 1), (0.1, 0.1, 1), leg, leg), False)


def childs_pose(rng, u):
    arm = (0.12, -0.15, 1) if rng.random() < 0.6 else (0.25, -0.2, -1)
    return Directions(lean(98), *both(arm, arm, (0.2, -0.25, 1), (0.05, -0.1, -1)), False)


def cross_legged(rng, u):
    arms = ((0.4, -0.85, 0.35), (0.1, -0.45, 0.9)) if rng.random() < 0.7 else ((0.25, 1, 0.05), (-0.2, 1, 0.05))
    return Directions(lean(rng.normal(3, 8)), *both(*arms, (0.8, -0.25, 0.65), (-0.95, -0.1, 0.25 + 0.3 * u)), False)


def seated_stretch(rng, u):
    arm = (0.15, -0.6 + 0.4 * u, 1)
    spread = rng.uniform(0.08, 0.6)
    return Directions(lean(5 + 65 * u), *both(arm, arm, (spread, -0.06, 1), (spread, -0.04, 1)), False)


def kneeling(rng, u):
    legs = ((0.1, -1, 0.05), (0.03, -0.12, -1)) if rng.random() < 0.6 else ((0.15, -0.25, 1), (0.05, -0.08, -1))
    return Directions(lean(rng.normal(4, 8)), free_arm(rng) + legs, mirrored(*(free_arm(rng) + legs)), False)


def half_kneeling(rng, u):
    front, back = ((0.12, -0.1, 1), (0.03, -1, 0.1)), ((0.1, -1, -0.1 - 0.3 * u), (0.05, -0.12, -1))
    return Directions(lean(rng.normal(5, 9)), free_arm(rng) + front, mirrored(*(free_arm(rng) + back)), False)


def side_plank(rng, u):
    left, right = both((0.1, 1, 0.05), (0, 1, 0), (0.9, -0.5, 0), (0.9, -0.48, 0))
    support = (np.array([0.05, -1, 0.05]), np.array([0.0, -1, 0.4 * (rng.random() < 0.5)]))
    return Directions(about("Z", 58 + 10 * u), left, support + (np.array([0.9, -0.55, 0.05]), np.array([0.9, -0.52, 0.0])), False)


FLOOR = (all_fours, bird_dog, down_dog, cobra, bridge, lying, lying, leg_raise, childs_pose, cross_legged, cross_legged, seated_stretch,
         kneeling, half_kneeling, side_plank)

# ---------------------------------------------------------------- on the feet

# Upper arm and forearm of the left side, as people hold them when they stand, walk or sit.
ARMS = (
    ((0.6, -0.8, -0.2), (-0.75, -0.4, 0.4)),  # hand on the hip
    ((0.15, -1, 0.35), (-0.9, 0.12, 0.5)),  # folded before the chest
    ((0.15, -1, -0.15), (-0.1, -0.9, 0.4)),  # hand in the pocket
    ((0.2, -0.9, 0.45), (-0.25, 0.7, 0.6)),  # a phone or a cup before the chest
    ((0.25, -0.75, 0.6), (-0.4, 1, 0.15)),  # hand at the chin
    ((0.9, 0.4, 0.2), (-0.8, 0.6, -0.1)),  # hand behind the head
    ((0.25, -1, -0.4), (-0.7, -0.6, -0.3)),  # hands behind the back
    ((0.15, -0.9, 0.45), (-0.35, 0.0, 0.95)),  # something carried in both hands
    ((0.4, -0.2, 0.9), (-0.2, 0.15, 1)),  # reaching out
    ((0.75, 0.3, 0.35), (0.15, 1, 0.1)),  # waving
    ((0.1, 1, 0.1), (-0.15, 1, 0)),  # overhead
    ((1, 0.1, 0.1), (-1, 0.2, 0.5)),  # elbows out, hands before the shoulders
)


def held_arms(rng):
    """Both arms, each (upper arm, forearm): often the same, at times one of them free."""
    left = ARMS[rng.integers(len(ARMS))]
    right = left if rng.random() < 0.5 else ARMS[rng.integers(len(ARMS))] if rng.random() < 0.4 else free_arm(rng)
    left, right = tuple(np.array(v, float) for v in left), mirrored(*right)
    return (left, right) if rng.random() < 0.5 else (mirrored(*right), mirrored(*left))


def everyday(rng):
    """Standing or walking with the arms held somehow."""
    (left, right), stride = held_arms(rng), rng.choice([0.0, rng.uniform(0, 0.45)], p=[0.6, 0.4])
    ahead, behind = free_leg(rng, stride), free_leg(rng, 0)
    trunk = lean(rng.normal(2, 7)) @ about("Z", rng.normal(0, 5)) @ about("Y", rng.normal(0, 12))
    return Directions(trunk, left + ahead, right + mirrored(*behind))


def turned(world, degrees):
    """The same pose, turned about the vertical."""
    heading = about("Y", degrees)
    return {bone: heading @ rotation for bone, rotation in world.items()}


def floor_pose(assets, rng, joints):
    """World rotations of an exercise on the floor, mostly seen from the side."""
    pose = FLOOR[rng.integers(len(FLOOR))](rng, rng.uniform())
    world = from_directions(assets, rng, joints, pose)
    return turned(world, rng.choice([-1, 1]) * rng.normal(90, 25)) if rng.random() < 0.6 else world


# ---------------------------------------------------------------- hands, shoulders, back


def close_hands(assets, rng, joints, relative):
    """Fingers from stretched to a fist, the thumb with them; axes are those of the rest pose."""
    place = lambda bone: joints[assets.rig.index[bone]]
    for side in (".L", ".R"):
        grip = rng.choice([rng.uniform(0, 0.35), rng.uniform(0.35, 1)], p=[0.45, 0.55])
        across = place("finger5-1" + side) - place("finger2-1" + side)
        along = place("finger3-1" + side) - place("wrist" + side)
        palm = unit(np.cross(across, along)) * (1 if side == ".L" else -1)
        for finger in range(2, 6):
            share = np.clip(grip + rng.normal(0, 0.08), 0, 1)
            for joint, most in ((1, 75), (2, 95), (3, 60)):
                ahead = place(f"finger{finger}-3{side}") - place(f"finger{finger}-1{side}")
                bend(relative, f"finger{finger}-{joint}{side}", turn(np.cross(ahead, palm), most * share))
        ahead = place("finger1-3" + side) - place("finger1-1" + side)
        for joint in (2, 3):
            bend(relative, f"finger1-{joint}{side}", turn(np.cross(ahead, palm), 45 * grip))


def follow_arms(assets, joints, world, relative):
    """Shoulders rise with raised arms: about a third of the way above the horizontal (scapulohumeral rhythm)."""
    for side, sign in ((".L", 1), (".R", -1)):
        bone = "upperarm01" + side
        if bone not in world:
            continue
        rest = joints[assets.rig.index["lowerarm01" + side]] - joints[assets.rig.index[bone]]
        trunk = world.get("spine02", world.get("root", UPRIGHT))
        height = (trunk.T @ unit(world[bone] @ rest))[1]
        bend(relative, "clavicle" + side, about("Z", sign * 22 * np.clip(height + 0.2, 0, 1)))


def bend_back(rng, world, relative):
    """A rounded or hollow back where the pose has a straight one."""
    if "spine02" in world or "root" not in world:
        return
    degrees = rng.normal(5, 11)
    for bone in ("spine04", "spine03", "spine02", "spine01"):
        bend(relative, bone, about("X", degrees / 4))


def with_hands_and_back(assets, rng, joints, world, relative):
    """The same pose with closed hands, shoulders that follow the arms, and a bent back."""
    close_hands(assets, rng, joints, relative)
    follow_arms(assets, joints, world, relative)
    bend_back(rng, world, relative)
    return world, relative


def moving_pose(assets, rng, joints):
    """(world rotations, relative rotations) of somebody who does something."""
    kind = rng.random()
    if kind < 0.32:
        world, relative = floor_pose(assets, rng, joints), {}
    elif kind < 0.72:
        world, relative = from_directions(assets, rng, joints, everyday(rng)), {}
    else:
        world, relative = random_pose(assets, rng, joints)
    if kind < 0.72:
        loosen(rng, relative, (("neck02", 12), ("head", 12), ("wrist.L", 16), ("wrist.R", 16)))
    return with_hands_and_back(assets, rng, joints, world, relative)


class MovingPerson(DressedPerson):
    """A dressed person in a pose of `draw_pose`."""

    draw_pose = staticmethod(moving_pose)

    def __init__(self, assets, rng, pose=None, tone=None):
        super().__init__(assets, rng, pose or (lambda joints: self.draw_pose(assets, rng, joints)), tone)


class MoveScene(OutfitScene):
    """A scene of people who do something, most of them seen whole."""

    person_kind = MovingPerson
    framing = (0.66, 0.86, 0.94)
    tables = 0.08

    def first_offset(self, person, body, turned):
        """As for anybody, but whoever stretches towards the camera stays before it, and whoever lies across the picture
        mostly fits it."""
        offset, camera = super().first_offset(person, body, turned), self.camera
        seen = (body + offset) @ camera.to_world
        missing = NEAREST + seen[:, 2].max()
        if self.rng.random() < FITTING:
            missing = max(missing, np.ptp(seen[:, 0]) * camera.focal / camera.width - self.distance)
        missing = max(0.0, missing)
        self.distance += missing
        return offset - missing * camera.heading()[:, 2]
