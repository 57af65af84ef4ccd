"""What carries people who do not stand: seats beneath those who sit, mats and mattresses beneath those who lie."""

import numpy as np

from .cloth import pattern
from .pose import about
from .things import BOX, WOODS, item, solid, surface

SEATED, BEDDED = 0.8, 0.5  # shares of those who sit, and of those who lie, that get something
HIPS = (0.3, 0.6)  # metres above the floor, of people who sit
FEET_BELOW = 0.2  # metres from the knees down to the ankles; who kneels sits on the heels
LEVEL = 0.35  # a thigh falls or rises by less than this share of its length
UPRIGHT = 0.85  # the trunk's share that goes up
LYING_HEIGHT, LYING_LENGTH = 0.6, 0.9  # metres: lower than this, and further from head to feet


def beneath(assets, rng, person):
    """(items in the person's own axes, metres by which they lift the person off the floor)."""
    if sits(person):
        return (seat(assets, rng, person), 0.0) if rng.random() < SEATED else ([], 0.0)
    if lies(person) and rng.random() < BEDDED:
        return bed(assets, rng, person)
    return [], 0.0


def both_sides(person, name):
    """A joint of the left and of the right side, (2, 3) metres."""
    return np.stack([person.joint(name + side) for side in (".L", ".R")])


def sits(person):
    hips, knees, ankles = (both_sides(person, name) for name in ("upperleg01", "lowerleg01", "foot"))
    thighs, trunk = knees - hips, person.head - person.root
    ahead = np.hypot(*thighs.mean(0)[[0, 2]])
    return bool(HIPS[0] < hips[:, 1].mean() - person.lowest < HIPS[1]
                and (np.abs(thighs[:, 1]) < LEVEL * np.linalg.norm(thighs, axis=1)).all()
                and ahead > 0.2 and (knees - ankles)[:, 1].mean() > FEET_BELOW and trunk[1] > UPRIGHT * np.linalg.norm(trunk))


def lies(person):
    head_to_feet = person.head - both_sides(person, "foot").mean(0)
    return bool(np.ptp(person.skin_vertices[:, 1]) < LYING_HEIGHT and np.hypot(head_to_feet[0], head_to_feet[2]) > LYING_LENGTH)


def covering(assets, rng):
    return solid(pattern(assets, rng) if rng.random() < 0.5 else surface(assets, rng, WOODS))


def seat(assets, rng, person):
    """A chair, stool, bench, box or sofa turned with the thighs, its top where the buttocks are; z is ahead, x aside."""
    hips, knees, ankles = (both_sides(person, name) for name in ("upperleg01", "lowerleg01", "foot"))
    hip, thigh = hips.mean(0), (knees - hips).mean(0)
    turned = about("Y", np.rad2deg(np.arctan2(thigh[0], thigh[2])))
    skin, floor = (person.skin_vertices - hip) @ turned, person.lowest - hip[1]
    near = skin[(np.abs(skin[:, 0]) < 0.3) & (skin[:, 2] > -0.15) & (skin[:, 2] < 0.12) & (skin[:, 1] < 0.05)]
    top = (np.quantile(near[:, 1], 0.02) if len(near) else -0.1) + rng.uniform(0.0, 0.03)
    back = skin[(np.abs(skin[:, 0]) < 0.25) & (skin[:, 1] > top + 0.05) & (skin[:, 1] < top + 0.5), 2].min() - 0.03
    knee, heel = ((points - hip) @ turned for points in (knees, ankles))
    front = 0.75 * knee[:, 2].min()
    solid_below = rng.random() < 0.5 and heel[:, 2].min() > front + 0.08
    wide = max(0.2, np.quantile(np.abs(near[:, 0]), 0.98) if len(near) else 0.2) + (rng.uniform(0.02, 0.6) if solid_below else 0.03)
    texture, frame = covering(assets, rng), covering(assets, rng)
    repeats, found = rng.uniform(0.5, 2), []

    def put(low, high, skin_of):
        low, high = np.array(low, float), np.array(high, float)
        found.append(item(BOX, (high - low) / 2, hip + turned @ ((low + high) / 2), skin_of, turned, repeats))

    under = floor if solid_below else top - rng.uniform(0.03, 0.1)
    put((-wide, under, back), (wide, top, front), texture)
    if not solid_below:
        for x in (-wide + 0.03, wide - 0.03):
            for z in (back + 0.03, front - 0.03):
                put((x - 0.02, floor, z - 0.02), (x + 0.02, under, z + 0.02), frame)
    if rng.random() < 0.6:
        put((-wide, top if solid_below else top + rng.uniform(0, 0.2), back - rng.uniform(0.03, 0.15)), (wide, top + rng.uniform(0.25, 0.6), back), texture)
        if rng.random() < 0.4:
            for x in (-wide - 0.06, wide + 0.06):
                put((x - 0.06, floor if solid_below else top + 0.12, back), (x + 0.06, top + rng.uniform(0.16, 0.25), front - 0.05), frame)
    return found


def bed(assets, rng, person):
    """A mat or, beneath those who lie flat, at times a mattress along the body; its top is what the body rests on."""
    head, feet = person.head, both_sides(person, "foot").mean(0)
    along, middle = head - feet, (person.skin_vertices.min(0) + person.skin_vertices.max(0)) / 2
    soft = np.ptp(person.skin_vertices[:, 1]) < 0.45 and rng.random() < 0.4
    thick, wide = (rng.uniform(0.08, 0.25), rng.uniform(0.4, 0.9)) if soft else (rng.uniform(0.006, 0.03), rng.uniform(0.28, 0.45))
    half = [wide, thick / 2, np.hypot(along[0], along[2]) / 2 + rng.uniform(0.1, 0.4)]
    place = np.array([middle[0], person.lowest - thick / 2, middle[2]])
    colours = pattern(assets, rng) if soft else surface(assets, rng, ("Rubber", "Carpet", "Fabric", "Tatami"))
    turned = about("Y", np.rad2deg(np.arctan2(along[0], along[2])))
    return [item(BOX, half, place, solid(colours), turned, rng.uniform(0.5, 2), throws_shadow=bool(soft))], thick
