"""Poses: captured motions, ready poses, exercises and free standing, as bone rotations for one skeleton.

A pose is a dictionary from bone name to world rotation (absolute) and one to relative rotation (applied after the
parent's). The person faces +z, y is up, x is the person's left.
"""

import numpy as np

UP, FRONT = np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])
LIMBS = (("upperarm01", "lowerarm01", "wrist"), ("upperleg01", "lowerleg01", "foot"))


def turn(axis, degrees):
    """Rotation about any axis (Rodrigues)."""
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    a = np.deg2rad(degrees)
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(a) * k + (1 - np.cos(a)) * k @ k


def about(name, degrees):
    return turn(np.eye(3)["XYZ".index(name)], degrees)


def align(a, b):
    """Smallest rotation that takes direction a to direction b."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    c = np.cross(a, b)
    s = np.linalg.norm(c)
    if s < 1e-6:
        return np.eye(3) if a @ b > 0 else turn(np.cross(a, UP + 0.1), 180)
    return turn(c, np.rad2deg(np.arctan2(s, a @ b)))


def unit(v):
    return v / np.linalg.norm(v)


# ---------------------------------------------------------------- ready poses (BVH) and captured motions

Z_UP_TO_Y_UP = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float)


def read_bvh(path):
    """Relative rotation of each joint in the first frame of a BVH file on the rig's own bone names."""
    skeleton, motion = path.read_text().split("MOTION")
    channels, joint = [], None
    for line in skeleton.splitlines():
        words = line.split()
        if words[:1] in (["ROOT"], ["JOINT"]):
            joint = words[1]
        elif words[:1] == ["End"]:
            joint = None
        elif words[:1] == ["CHANNELS"]:
            channels.append((joint, words[2:]))
    values = iter(float(x) for x in [l for l in motion.splitlines() if l.strip()][2].split())
    pose = {}
    for joint, names in channels:
        rotation = np.eye(3)
        for name in names:
            value = next(values)
            if name.endswith("rotation"):
                rotation = rotation @ about(name[0], value)
        pose[joint] = Z_UP_TO_Y_UP @ rotation @ Z_UP_TO_Y_UP.T
    return pose


def ready_poses(assets):
    if not hasattr(assets, "ready_poses"):
        paths = sorted((assets.root / "makehuman/poses").glob("*.bvh"))
        assets.ready_poses = [read_bvh(p) for p in paths if "tpose" not in p.name]
    return assets.ready_poses


def rotation_of(quaternion):
    x, y, z, w = quaternion.astype(float) / np.linalg.norm(quaternion.astype(float))
    return np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                     [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                     [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])


EVERYDAY = ("Idle_Loop", "Talking", "Walk", "Sitting", "Interact")
RARE = ("Swim", "Death", "Roll")


def clip_weights(names):
    weight = [0.2 if any(k in n for k in RARE) else 2.0 if any(k in n for k in EVERYDAY) else 1.0 for n in names]
    return np.array(weight) / np.sum(weight)


def retarget(assets, joints, frame, clip):
    """World rotations of the controlled bones for one frame of a clip.

    A limb's rotation is the captured one times the smallest rotation from our rest bone to the clip's rest bone;
    trunk, head and feet take the captured rotation as it is, and the wrist shares the forearm's alignment.
    """
    motion, index = assets.motions, assets.rig.index
    names = [str(j) for j in motion["joints"]]
    at = lambda joint: names.index(joint)
    rest = motion["rest_pos"][clip].astype(float)
    captured = lambda joint: rotation_of(motion["rot"][frame, at(joint)])
    world = {bone: captured(joint) for joint, bone in
             (("hips", "root"), ("spine", "spine04"), ("chest", "spine02"), ("neck", "neck01"), ("head", "head"))}

    def limb(bone, child_bone, joint, child_joint):
        ours = joints[index[child_bone]] - joints[index[bone]]
        fix = align(ours, rest[at(child_joint)] - rest[at(joint)])
        world[bone] = captured(joint) @ fix
        return fix

    for side, suffix in (("l", ".L"), ("r", ".R")):
        limb("upperarm01" + suffix, "lowerarm01" + suffix, side + "_shoulder", side + "_elbow")
        fix = limb("lowerarm01" + suffix, "wrist" + suffix, side + "_elbow", side + "_wrist")
        world["wrist" + suffix] = captured(side + "_wrist") @ fix
        limb("upperleg01" + suffix, "lowerleg01" + suffix, side + "_hip", side + "_knee")
        limb("lowerleg01" + suffix, "foot" + suffix, side + "_knee", side + "_ankle")
        world["foot" + suffix] = captured(side + "_ankle")
    return world


def random_motion(assets, rng, joints):
    clips = assets.motions["clips"]
    clip = rng.choice(len(clips), p=clip_weights([str(c) for c in clips]))
    start, end = assets.motions["ptr"][clip], assets.motions["ptr"][clip + 1]
    return retarget(assets, joints, int(rng.integers(start, end)), clip)


# ---------------------------------------------------------------- exercises and standing, by limb directions


class Directions:
    """Trunk rotation and the world direction of each limb segment; `left` and `right` hold
    (upper arm, forearm, thigh, shin)."""

    def __init__(self, trunk, left, right, flat_feet=True):
        self.trunk, self.left, self.right, self.flat_feet = trunk, left, right, flat_feet

    def exchange(self):
        """Mirrors the pose: left does what right did."""
        flip = np.diag([-1.0, 1.0, 1.0])
        self.left, self.right = mirrored(*self.right), mirrored(*self.left)
        self.trunk = flip @ self.trunk @ flip


def mirrored(*vectors):
    return tuple(np.array([-v[0], v[1], v[2]], float) for v in vectors)


def both(*vectors):
    vectors = tuple(np.array(v, float) for v in vectors)
    return vectors, mirrored(*vectors)


def lean(degrees):
    return about("X", degrees)


def squat(rng, u):
    arms = ((0.2, 0.0, 1), (0.0, 0.05, 1)) if rng.random() < 0.6 else ((0.5, -0.6, 0.4), (-0.5, 0.8, 0.5))
    thigh = (0.35, -1 + 1.05 * u, 0.2 + 0.9 * u)
    return Directions(lean(10 + 30 * u), *both(*arms, thigh, (0.08, -1, -0.45 * u)))


def lunge(rng, u):
    arms = ((0.25, -0.8, -0.1), (0.2, -0.6, 0.8)) if rng.random() < 0.5 else ((0.3, -1, 0.0), (0.1, -1, 0.2))
    left, right = both(*arms, (0.12, -1 + u, 0.3 + u), (0.05, -1, 0.0))
    right = right[:2] + (np.array([-0.1, -1, -0.35 * u]), np.array([-0.05, -1 + 0.9 * u, -0.6 - 0.6 * u]))
    return Directions(lean(rng.uniform(0, 18)), left, right, flat_feet=False)


def press(rng, u):
    upper, fore = (0.9 - 0.6 * u, -0.3 + 1.2 * u, 0.15), (0.1 - 0.1 * u, 1, 0.05)
    return Directions(lean(rng.normal(0, 4)), *both(upper, fore, (0.15, -1, 0.05), (0.03, -1, -0.05)))


def curl(rng, u):
    fore = unit(np.array([0.05, -1 + 1.8 * u, 1.0 - abs(u - 0.5)]))
    return Directions(lean(rng.normal(2, 4)), *both((0.15, -1, 0.05), fore, (0.12, -1, 0.04), (0.02, -1, -0.06)))


def jumping_jack(rng, u):
    arm = (np.sin(np.pi * (0.1 + 0.85 * u)), -np.cos(np.pi * (0.1 + 0.85 * u)), 0.05)
    leg = (0.08 + 0.5 * u, -1, 0.02)
    return Directions(np.eye(3), *both(arm, arm, leg, leg), flat_feet=False)


def deadlift(rng, u):
    return Directions(lean(15 + 65 * u), *both((0.12, -1, 0.05), (0.05, -1, 0.05), (0.15, -1, 0.3 * u), (0.05, -1, -0.15)))


def push_up(rng, u):
    fore = (0.1, -1, -0.25 * u)
    upper = unit(np.array([0.25 + 0.6 * u, -1 + 0.9 * u, -0.4 * u]))
    return Directions(lean(80 + 8 * u), *both(upper, fore, (0.06, -0.15 + 0.1 * u, -1), (0.03, -0.2 + 0.1 * u, -1)), False)


def plank(rng, u):
    return Directions(lean(86), *both((0.1, -1, 0.05), (-0.15, -0.05, 1), (0.05, -0.1, -1), (0.03, -0.14, -1)), False)


def side_bend(rng, u):
    left, right = both((0.3, -1, 0.1), (0.2, -1, 0.2), (0.25, -1, 0.02), (0.18, -1, -0.03))
    left = (np.array([-0.2 * u, 1, 0.1]), np.array([-0.5 - u, 0.8, 0.1])) + left[2:]
    return Directions(about("Z", 30 * u), left, right)


def warrior(rng, u):
    left, right = both((1, 0.02, 0), (1, 0.0, 0), (0.9, -0.5, 0.05), (0.1, -1, 0))
    return Directions(np.eye(3), left, right[:2] + mirrored((0.8, -1, 0), (0.75, -1, 0)))


def tree(rng, u):
    left, right = both((0.25, 1, 0.05), (-0.25, 1, 0.05), (0.8, -0.8, 0.25), (-1, -0.75, -0.1))
    return Directions(np.eye(3), left, right[:2] + mirrored((0.02, -1, 0), (0.0, -1, 0)), False)


def sit(rng, u):
    arms = ((0.2, -1, 0.3), (-0.1, -0.35, 1)) if rng.random() < 0.7 else ((0.4, -0.8, 0.2), (-0.8, 0.2, 0.6))
    return Directions(lean(rng.normal(0, 10)), *both(*arms, (0.2 + 0.1 * u, -0.08, 1), (0.05, -1, 0.05 + 0.2 * u)))


def forward_fold(rng, u):
    return Directions(lean(50 + 70 * u), *both((0.15, -1, 0.25), (0.05, -1, 0.2), (0.08, -1, -0.1), (0.03, -1, 0.02)))


def row(rng, u):
    return Directions(lean(55), *both((0.2, -1 + 1.1 * u, -0.1 - 0.6 * u), (0.05, -1, 0.1), (0.15, -1, 0.35), (0.05, -1, -0.3)))


def arms_side(rng, u):
    arm = (1, -0.8 + 0.9 * u, 0.1)
    return Directions(np.eye(3), *both(arm, arm, (0.12, -1, 0.02), (0.04, -1, -0.04)))


def sit_up(rng, u):
    return Directions(lean(-80 + 75 * u), *both((0.5, -0.1, 0.7), (-0.6, 0.7, -0.3), (0.1, 0.65, 0.8), (0.02, -0.8, 0.6)), False)


EXERCISES = (squat, squat, lunge, lunge, press, press, curl, curl, jumping_jack, jumping_jack, deadlift, push_up, plank,
             side_bend, warrior, tree, sit, sit, forward_fold, row, arms_side, sit_up)


def exercise(rng):
    pose = EXERCISES[rng.integers(len(EXERCISES))](rng, rng.uniform())
    if rng.random() < 0.5:
        pose.exchange()
    return pose


def free_arm(rng):
    """Upper arm and forearm of the left side: mostly hanging, else anywhere in reach; elbows bend forwards or in."""
    if rng.random() < 0.5:
        upper = np.array([abs(rng.normal(0.12, 0.12)), -1, rng.normal(0.0, 0.2)])
    else:
        upper = np.array([rng.uniform(-0.2, 1.0), rng.uniform(-1.0, 1.0), rng.uniform(-0.35, 1.0)])
    upper = unit(upper)
    bend = np.deg2rad(min(140, abs(rng.normal(0, 60)) if rng.random() < 0.75 else rng.uniform(60, 140)))
    aim = np.array([rng.uniform(-1, 0.3), rng.uniform(-0.3, 1), 1.0])
    across = unit(aim - (aim @ upper) * upper)
    return upper, np.cos(bend) * upper + np.sin(bend) * across


def free_leg(rng, lift):
    """Thigh and shin of the left side; knees bend backwards."""
    thigh = unit(np.array([rng.normal(0.08, 0.09), -1, rng.normal(0.03, 0.12) + lift]))
    bend = np.deg2rad(abs(rng.normal(0, 10)) + lift * rng.uniform(10, 70))
    back = np.array([0, -0.2, -1.0])
    back = unit(back - (back @ thigh) * thigh)
    return thigh, np.cos(bend) * thigh + np.sin(bend) * back


def standing(rng):
    lift = 0.0 if rng.random() < 0.65 else abs(rng.normal(0, 0.6))
    left = free_arm(rng) + free_leg(rng, lift)
    right = mirrored(*(free_arm(rng) + free_leg(rng, rng.uniform(0, 0.2))))
    if rng.random() < 0.3:
        right = mirrored(*left[:2]) + right[2:]
    trunk = lean(rng.normal(2, 7)) @ about("Z", rng.normal(0, 4)) @ about("Y", rng.normal(0, 8))
    return Directions(trunk, left, right)


def from_directions(assets, rng, joints, pose, jitter=0.07):
    """World rotations that point every limb segment along its direction, twisting as little as possible."""
    index = assets.rig.index
    world = {"root": pose.trunk}
    for suffix, vectors in ((".L", pose.left), (".R", pose.right)):
        vectors = [unit(unit(v) + rng.normal(0, jitter, 3)) for v in vectors]
        for limb, pair in zip(LIMBS, (vectors[:2], vectors[2:])):
            rotation = pose.trunk
            for bone, child, direction in zip(limb, limb[1:], pair):
                rest = joints[index[child + suffix]] - joints[index[bone + suffix]]
                rotation = align(rotation @ rest, direction) @ rotation
                world[bone + suffix] = rotation
        if pose.flat_feet:
            heading = world["lowerleg01" + suffix] @ FRONT
            world["foot" + suffix] = about("Y", np.rad2deg(np.arctan2(heading[0], max(heading[2], 0.2))))
    return world


def random_pose(assets, rng, joints):
    """(world rotations, relative rotations)."""
    kind, relative = rng.random(), {}
    if kind < 0.34:
        world, spread = random_motion(assets, rng, joints), 0.4
    elif kind < 0.44:
        poses = ready_poses(assets)
        world, relative, spread = {}, dict(poses[rng.integers(len(poses))]), 0.5
    elif kind < 0.72:
        world, spread = from_directions(assets, rng, joints, exercise(rng)), 0.6
    else:
        world, spread = from_directions(assets, rng, joints, standing(rng)), 1.0

    loosen(rng, relative, (("spine03", 6), ("neck02", 13), ("head", 12), ("wrist.L", 22), ("wrist.R", 22)), spread)
    return world, relative


def bend(relative, bone, rotation):
    """Turns a bone further, after what `relative` holds for it."""
    relative[bone] = relative.get(bone, np.eye(3)) @ rotation


def loosen(rng, relative, bones, spread=1.0):
    """Turns bones by chance; `bones` has each one's standard deviation in degrees, which `spread` scales."""
    for bone, degrees in bones:
        bend(relative, bone, turn(rng.normal(size=3), rng.normal(0, degrees * spread)))


def skinning(assets, joints, world, relative):
    """Bone matrices (B, 3, 4) by forward kinematics from the root."""
    rig = assets.rig
    rotations = np.zeros((len(rig.order), 3, 3))
    places = np.zeros((len(rig.order), 3))
    for i, (name, parent) in enumerate(zip(rig.order, rig.parents)):
        if parent < 0:
            rotations[i], places[i] = np.eye(3), joints[i]
        else:
            rotations[i] = rotations[parent]
            places[i] = places[parent] + rotations[parent] @ (joints[i] - joints[parent])
        if name in world:
            rotations[i] = world[name]
        if name in relative:
            rotations[i] = rotations[i] @ relative[name]
    matrices = np.zeros((len(rig.order), 3, 4))
    matrices[:, :, :3] = rotations
    matrices[:, :, 3] = places - np.einsum("bij,bj->bi", rotations, joints)
    return matrices
