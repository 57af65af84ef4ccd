"""A whole scene: where people and things stand, what the camera sees, and the class of every pixel."""

import cv2
import numpy as np

from . import kernels, sensor
from .animals import animal, draw_species
from .classes import INDEX, PADDING
from .cloth import pattern
from .light import lights
from .person import Person
from .pose import about
from .seats import beneath
from .things import Room, clutter, held_thing, solid


FAR = 1e9
HIGHEST_FLOOR = -0.3  # metres: a room's floor is further below the camera
THING = 200  # instance number of everything that is not a person, while rasterising
SHADOW_SIDE, SHADOW_METRES = 192, 4.6
FIXED = 0.6  # share of the mirrors whose camera is aimed at nobody: it hangs as it was hung
LEAST_SEEN = 0.35  # of a person before such a mirror; else the camera is aimed at the person
POLISHED = 0.15  # share of the rooms whose floor reflects
ON_FLOOR = 0.004  # metres from the floor, of what is the floor
MOVING = 0.1  # share of the pictures with people in which somebody or a limb moves
SOFT = 0.5  # share of the panorama scenes in which people are as soft as the panorama


class Camera:
    """Pinhole at the origin, looking along -z after `to_world`; `focal` in pixels of a height x width picture."""

    def __init__(self, height, width, focal, to_world):
        self.height, self.width, self.focal, self.to_world = height, width, focal, to_world
        self.cx, self.cy = width / 2, height / 2

    def heading(self):
        """Rotation about y that turns a person from facing +z to facing the camera."""
        return about("Y", np.rad2deg(np.arctan2(self.to_world[0, 2], self.to_world[2, 2])))


class Layers:
    """What the rasteriser fills."""

    def __init__(self, height, width):
        self.depth = np.full((height, width), FAR)
        self.albedo, self.normal = np.zeros((height, width, 3), np.float32), np.zeros((height, width, 3), np.float32)
        self.label, self.who = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)


class Scene:
    """Builds one scene from a generator; `render` gives (picture, parts, person, record)."""

    person_kind = Person
    # Of the generic views, the shares up to which they show the whole person, the upper body, the head; else any place.
    framing = (0.40, 0.70, 0.84)
    enlargement = 0.0  # pixels of the picture in one of the panorama, by side; 0 where there is none

    def __init__(self, assets, rng, height, width, people=None, view=None, tone=None):
        self.assets, self.rng, self.tone = assets, rng, tone
        self.view = view or ("mirror", "generic")[int(rng.random() > 0.42)]
        self.count = int(rng.choice([0, 1, 2, 3, 4], p=[0.17, 0.48, 0.21, 0.10, 0.04])) if people is None else people
        self.light_index = int(rng.integers(len(assets.environments)))
        self.light = lights(assets)[self.light_index]
        self.dark = bool(rng.random() < 0.14)
        fov = np.deg2rad(rng.uniform(42, 76) if self.view == "mirror" else rng.uniform(24, 70))
        focal = max(height, width) / 2 / np.tan(fov / 2)
        pitch = rng.normal(-9, 6) if self.view == "mirror" else rng.normal(-4, 10)
        roll = rng.normal(0, 1.5 if self.view == "mirror" else 4)
        to_world = about("Y", rng.uniform(0, 360)) @ about("X", pitch) @ about("Z", roll)
        self.camera = Camera(height, width, focal, to_world)
        self.layers = Layers(height, width)
        self.placed, self.people, self.feet = [], [], []  # (world vertices, item, who)
        self.ground, self.centre, self.distance = 1.0, None, None
        self.inside = bool(rng.random() < 0.55)

    # ------------------------------------------------------------ placing

    def place_people(self):
        for number in range(1, self.count + 1):
            person = self.person_kind(self.assets, self.rng, tone=self.tone)
            support = self.support(person)
            turned = self.camera.heading() @ about("Y", self.facing())
            body = person.skin_vertices @ turned.T
            offset = self.first_offset(person, body, turned) if number == 1 else self.next_offset(body, turned, person)
            if offset is None:
                continue
            for entry in person.items:
                self.add(entry, entry.vertices @ turned.T + offset, number)
            if offset[1] + person.lowest > HIGHEST_FLOOR:
                support = []  # seen from beneath it would hide the person
            for entry in self.carried(person) + support:
                self.add(entry, entry.vertices @ turned.T + offset, THING)
            self.note(person, body + offset, number)

    def support(self, person):
        """What the person sits or lies on, in the person's own axes."""
        items, lifted = beneath(self.assets, self.rng.spawn(1)[0], person)
        person.below += lifted
        return items

    def carried(self, person):
        """What the person holds, in the person's own axes."""
        return held_thing(self.assets, self.rng, person) if self.rng.random() < 0.12 else []

    def facing(self):
        return self.rng.normal(0, 40) if self.rng.random() < 0.78 else self.rng.uniform(-180, 180)

    def first_offset(self, person, body, turned):
        low, high = body.min(0), body.max(0)
        if self.view == "mirror":
            return self.mirror_offset(body, low - [0, person.below, 0], high)
        rng, camera = self.rng, self.camera
        head, root, kind = turned @ person.head, turned @ person.root, rng.random()
        whole, upper, close = self.framing
        if kind < whole:
            target = np.array([body[:, 0].mean(), (low[1] + high[1]) / 2, body[:, 2].mean()])
            span = max(high[1] - low[1], 0.6 * (high[0] - low[0]), 0.8) * np.exp(rng.normal(0.25, 0.32))
        elif kind < upper:
            target, span = head + (root - head) * rng.uniform(0.2, 0.8), rng.uniform(0.7, 1.4)
        elif kind < close:
            target, span = head, rng.uniform(0.35, 0.9)
        else:
            target, span = body[rng.integers(len(body))], rng.uniform(0.6, 1.8)
        self.distance = max(0.45, span * camera.focal / camera.height)
        side = np.array([rng.normal(0, 0.15) * camera.width, rng.normal(0, 0.07) * camera.height]) / camera.focal
        return camera.to_world @ np.array([side[0], side[1], -1.0]) * self.distance - target

    def mirror_offset(self, body, low, high):
        """On the floor before a camera at the mirror's top edge, 1 to 4 m away, mostly whole."""
        rng, camera = self.rng, self.camera
        height = rng.uniform(1.3, 2.0)
        self.distance = rng.uniform(1.1, 4.2)
        middle = np.array([body[:, 0].mean(), low[1], body[:, 2].mean()])
        off, roll, heading = rng.normal(0, 5), rng.normal(0, 1.5), camera.heading()
        aimed = lambda level, distance: heading @ about("X", np.rad2deg(np.arctan2(level - height, distance)) + off) @ about("Z", roll)
        sideways = rng.normal(0, 0.22) * self.distance * camera.width / camera.focal
        place = heading[:, 0] * sideways - heading[:, 2] * self.distance
        place[1] = -height
        # Most mirrors hang so that somebody who stands at a usual place is in the picture's middle, whoever comes and
        # whatever they do there; others so that this person's middle lies near the picture's. The rest is chance.
        own = rng.spawn(1)[0]
        camera.to_world = aimed(0.85, own.uniform(1.8, 3.5))
        if own.random() >= FIXED or self.seen_share(body + place - middle) < LEAST_SEEN:
            camera.to_world = aimed((high[1] - low[1]) / 2, self.distance)
        return place - middle

    def seen_share(self, world):
        """Share of the points that lie within the picture."""
        camera = self.camera
        x, y, z = (world @ camera.to_world).T
        return np.mean((np.abs(x) * camera.focal < -z * camera.width / 2) & (np.abs(y) * camera.focal < -z * camera.height / 2))

    def next_offset(self, body, turned, person):
        rng, heading = self.rng, self.camera.heading()
        deeper = rng.uniform(-0.4, 2.6) if self.distance > 1.2 else rng.uniform(0.1, 2.0)
        side = rng.choice([-1, 1]) * rng.uniform(0.3, 0.6 + 0.22 * self.distance)
        place = self.base - heading[:, 2] * deeper + heading[:, 0] * side
        offset = place - turned @ person.root
        offset[1] = self.ground + person.below - body[:, 1].min()
        ahead = -(self.camera.to_world.T @ (offset + body.mean(0)))[2]
        return offset if ahead > 0.5 else None

    def note(self, person, body, number):
        """Keeps what later steps need: the floor, the feet, the record."""
        if self.centre is None:
            self.centre, self.ground = body.mean(0), body[:, 1].min() - person.below
            self.base = body.mean(0)
        low = body[body[:, 1] < body[:, 1].min() + 0.06]
        middle = np.median(low[:, 0])
        self.feet += [half.mean(0) for half in (low[low[:, 0] < middle], low[low[:, 0] >= middle]) if len(half)]
        self.people.append((number, dict(person.record), float(np.linalg.norm(body.mean(0)))))

    def place_room(self):
        camera, rng = self.camera, self.rng
        far = max([2.2] + [d for _, _, d in self.people]) + rng.uniform(0.4, 2.5)
        if self.people and self.ground >= HIGHEST_FLOOR:
            self.inside = False  # whoever lies as high as the camera has no floor that a room could stand on
            return
        self.ground = self.ground if self.people else -rng.uniform(1.0, 1.9)
        room = Room(self.assets, rng, self.ground, far, far * rng.uniform(0.9, 1.8) + 1)
        heading = camera.heading() @ about("Y", rng.normal(0, 12))
        for entry in room.items:
            self.add(entry, entry.vertices @ heading.T, THING)

    def place_things(self):
        rng, camera = self.rng, self.camera
        for _ in range(rng.integers(0, 5) if rng.random() < 0.6 else 0):
            ray = np.array([rng.uniform(-0.5, 0.5) * camera.width, rng.uniform(-0.5, 0.35) * camera.height, 0]) / camera.focal
            place = camera.to_world @ (ray + [0, 0, -1]) * np.exp(rng.uniform(np.log(0.9), np.log(6)))
            ahead = -(camera.to_world.T @ place)[2]
            if self.people and ahead < 0.75 * self.distance and rng.random() < 0.7:
                place, ahead = place * 2.2, ahead * 2.2
            if ahead < 0.5:
                continue
            if rng.random() < 0.25:
                place[1] = self.ground if self.ground < 0 else place[1]
                found = animal(rng, draw_species(rng, pet=True), place, np.exp(rng.normal(-0.9, 0.4)))
            else:
                found = clutter(self.assets, rng, place, rng.uniform(0.02, 0.13) * camera.height / camera.focal * ahead)
            self.add_things(found)
            self.centre = place if self.centre is None else self.centre

    def add_things(self, entries):
        """Items that are nobody's and already stand where they belong."""
        for entry in entries:
            self.add(entry, entry.vertices, THING)

    def add(self, entry, world, who):
        self.placed.append((world, entry, who))

    # ------------------------------------------------------------ rendering

    def draw(self, layers, world, entry, who):
        camera, seen = self.camera, world @ self.camera.to_world
        normal = kernels.normals(seen, entry.triangles)
        kernels.rasterise(seen, entry.uvs, entry.triangles, entry.uv_triangles, normal, entry.parts, entry.layer,
                          kernels.pyramid(entry.textures, entry.holes), entry.holes, entry.cut, camera.focal, camera.cx, camera.cy, who,
                          layers.depth, layers.albedo, layers.normal, layers.label, layers.who)

    def rasterise(self):
        layers = self.layers
        for world, entry, who in self.placed:
            self.draw(layers, world, entry, who)
        things = layers.who == THING
        layers.label[things], layers.who[things] = 0, 0
        # A label of 0 on a person is a vertex without weights; there is none, but silence would be a hole.
        layers.label[(layers.who > 0) & (layers.label == 0)] = 3

    def background(self):
        """The panorama in the camera's direction as linear radiance. It is enlarged, and so softer than what stands before
        it; `render` makes up for that at times."""
        camera, rng = self.camera, self.rng
        panorama = panorama_of(self.assets, self.light_index)
        zoom = camera.focal * (1 if rng.random() < 0.6 else rng.uniform(0.6, 1.6))
        x, y = np.meshgrid((np.arange(camera.width) + 0.5 - camera.cx) / zoom, -(np.arange(camera.height) + 0.5 - camera.cy) / zoom)
        ray = np.stack([x, y, -np.ones_like(x)], -1) @ camera.to_world.T
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        self.enlargement = zoom * 2 * np.pi / panorama.shape[1]
        u = (np.arctan2(ray[..., 0], -ray[..., 2]) / (2 * np.pi)) % 1 * panorama.shape[1] - 0.5
        v = np.arccos(np.clip(ray[..., 1], -1, 1)) / np.pi * panorama.shape[0] - 0.5
        seen = cv2.remap(panorama, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        return LINEAR[seen]

    def shade(self, radiance):
        camera, light, rng = self.camera, self.light, self.rng
        shadow, scale = np.full((SHADOW_SIDE, SHADOW_SIDE), -FAR), SHADOW_SIDE / SHADOW_METRES
        sun_share = light.sun.mean() / (light.sun.mean() + light.ambient + 1e-9)
        use_sun = bool(sun_share > 0.15 and rng.random() < 0.9)
        basis, centre = light.shadow_basis(), np.zeros(3) if self.centre is None else self.centre
        if use_sun:
            for world, entry, who in self.placed:
                if self.casts_shadow(entry):
                    near = np.abs(world - centre).max(1) < SHADOW_METRES
                    if near.any():
                        kernels.shadow_depth(world - centre, entry.triangles, basis, scale, shadow)
        level = light.ambient + 0.5 * light.sun.mean()
        backdrop = np.clip(np.median(radiance[::4, ::4]) / 0.2, 0.35, 1.6) ** 0.5 if not self.inside else 1.0
        exposure = backdrop * rng.uniform(0.6, 1.5) / max(level, 1e-3)
        feet = np.array(self.feet) if self.feet else np.zeros((0, 3))

        def lit(layers, occlusion, use_sun, image):
            kernels.shade(layers.depth, layers.albedo, layers.normal, occlusion, layers.who, camera.to_world, camera.focal, camera.cx, camera.cy,
                          light.sh, light.sun, light.direction, use_sun, basis, scale, centre, shadow, self.ground, feet, exposure, image)

        lit(self.layers, self.occlusion(), use_sun, radiance)
        if self.inside:
            self.polish(radiance, lit)
            self.pools_of_light(radiance)

    def polish(self, radiance, lit):
        """Some rooms' floors reflect what stands on them; a reflection of somebody is nobody. `lit` shades layers into a picture."""
        rng = self.rng.spawn(1)[0]
        if rng.random() >= POLISHED:
            return
        share, rough, mirrored = rng.uniform(0.05, 0.25), rng.uniform(0.3, 3), Layers(*radiance.shape[:2])
        for world, entry, who in self.placed:
            if np.abs(world[:, 1] - self.ground).max() > ON_FLOOR:
                self.draw(mirrored, world * [1, -1, 1] + [0, 2 * self.ground, 0], entry, who)
        reflection = np.zeros_like(radiance)
        lit(mirrored, np.ones(mirrored.depth.shape), False, reflection)
        where = self.floor_seen() & (mirrored.depth < FAR / 2)
        radiance[where] = (1 - share) * radiance[where] + share * cv2.GaussianBlur(reflection, (0, 0), rough)[where]

    def floor_seen(self):
        """Pixels of the floor itself, (H, W)."""
        camera, depth = self.camera, self.layers.depth
        x, y = np.meshgrid((np.arange(camera.width) + 0.5 - camera.cx) / camera.focal, -(np.arange(camera.height) + 0.5 - camera.cy) / camera.focal)
        height = (camera.to_world[1, 0] * x + camera.to_world[1, 1] * y - camera.to_world[1, 2]) * depth
        return (self.layers.label == 0) & (depth < FAR / 2) & (np.abs(height - self.ground) < ON_FLOOR)

    def casts_shadow(self, entry):
        return entry.throws_shadow

    def occlusion(self):
        """Corners and gaps are darker: depth compared with its surroundings, in [0.5, 1]."""
        solid_pixels = self.layers.depth < FAR / 2
        if not solid_pixels.any():
            return np.ones(self.layers.depth.shape)
        depth = np.where(solid_pixels, self.layers.depth, self.layers.depth[solid_pixels].max() + 0.5).astype(np.float32)
        radius = int(np.clip(self.camera.focal * 0.1 / np.median(depth[solid_pixels]), 3, 61)) | 1
        shade = 1 - np.clip((depth - cv2.blur(depth, (radius, radius))) * 4, 0, 0.5)
        # Where the depth jumps, a wall is far behind somebody, not beside them: no halo there.
        window = np.ones((radius, radius), np.uint8)
        jump = cv2.dilate(depth, window) - cv2.erode(depth, window) > 0.5
        return np.where(jump & (self.layers.who == 0), 1.0, shade)

    def pools_of_light(self, radiance):
        """Lamps light a room unevenly."""
        grid = np.exp(self.rng.normal(0, 0.28, (3, 3))).astype(np.float32)
        radiance *= cv2.resize(grid, (self.camera.width, self.camera.height), interpolation=cv2.INTER_CUBIC)[..., None]

    def occluders(self, radiance):
        """Flat things close to the lens: furniture edges, door frames, a bar of the camera's own housing."""
        rng, (h, w) = self.rng, self.layers.label.shape
        for _ in range(rng.integers(1, 3)):
            mask, kind = np.zeros((h, w), np.uint8), rng.integers(4)
            centre = int(rng.uniform(0, w)), int(rng.uniform(0, h))
            if kind == 0:
                cv2.ellipse(mask, centre, (int(rng.uniform(0.03, 0.2) * w), int(rng.uniform(0.03, 0.2) * h)), rng.uniform(0, 180), 0, 360, 1, -1)
            elif kind == 1:
                corners = cv2.boxPoints((centre, (float(rng.uniform(0.05, 0.4) * w), float(rng.uniform(0.05, 0.3) * h)), float(rng.uniform(0, 90))))
                cv2.fillPoly(mask, [corners.astype(np.int32)], 1)
            elif kind == 2:
                cv2.line(mask, (centre[0], 0), (centre[0] + int(rng.normal(0, 0.07 * w)), h), 1, max(2, int(rng.uniform(0.015, 0.1) * w)))
            else:
                mask[int(h * rng.uniform(0.7, 0.97)):] = 1
            texture = cv2.resize(solid(pattern(self.assets, rng))[0, ..., :3], (w, h), interpolation=cv2.INTER_LINEAR)
            ramp = np.linspace(*rng.uniform(0.4, 1.1, 2), h)[:, None, None] * np.linspace(*rng.uniform(0.6, 1.1, 2), w)[None, :, None]
            where = mask > 0
            radiance[where] = (texture * ramp)[where]
            self.layers.label[where], self.layers.who[where] = 0, 0

    def render(self):
        """Radiance (H, W, 3) linear, parts and person (H, W)."""
        self.place_people()
        if self.inside:
            self.place_room()
        self.place_things()
        self.rasterise()
        radiance = self.background()
        self.shade(radiance)
        if self.rng.random() < 0.2:
            self.occluders(radiance)
        if not self.inside:
            radiance = self.soften(radiance)
        return radiance, self.layers.label, self.layers.who

    def soften(self, radiance):
        """In half of the panorama scenes all is as soft as the panorama: cuttings are sharper than their ground, people are not."""
        if self.rng.spawn(1)[0].random() >= SOFT or not self.enlargement:
            return radiance
        return cv2.GaussianBlur(radiance, (0, 0), min(2.0, 0.35 * self.enlargement))

    def record(self, who):
        """What the test set is grouped by; people of whom nothing is seen are left out."""
        seen = [(record, distance) for number, record, distance in self.people if (who == number).sum() > 30]
        first = seen[0] if seen else ({}, 0.0)
        bands = ("under 1.5 m", "1.5 to 3 m", "over 3 m")
        return {"people": len(seen), "view": self.view, "light": "dark" if self.dark else "bright",
                "place": "room" if self.inside else "panorama", **first[0],
                **({"distance": bands[int(np.digitize(first[1], (1.5, 3.0)))]} if seen else {})}


LINEAR = (np.arange(256) / 255.0) ** 2.2


def panorama_of(assets, index):
    """Decoded once; 68 panoramas are 100 MB."""
    if not hasattr(assets, "panoramas"):
        assets.panoramas = {}
    if index not in assets.panoramas:
        from .assets import read_image
        assets.panoramas[index] = read_image(assets.environments[index][1])
    return assets.panoramas[index]


# (height, width) of the picture inside the frame, and how often: upright most, then as cameras and photographs come.
ASPECTS = (((256, 192), 0.55), ((256, 170), 0.10), ((192, 192), 0.10), ((144, 192), 0.17), ((108, 192), 0.08))
# The same for the frame of a camera that lies on its side.
WIDE_ASPECTS = (((192, 256), 0.55), ((170, 256), 0.15), ((144, 256), 0.20), ((192, 192), 0.10))
# The frames (height, width) that the network's inputs have. Into the two narrow ones come pictures of 16 to 9.
UPRIGHT, WIDE, NARROW, NARROW_WIDE = (256, 192), (192, 256), (288, 160), (160, 288)
FRAMES = {UPRIGHT: ASPECTS, WIDE: WIDE_ASPECTS, NARROW: (((284, 160), 0.75), (NARROW, 0.25)), NARROW_WIDE: (((160, 284), 0.75), (NARROW_WIDE, 0.25))}


def sample(assets, seed, supersample=1.0, tone=None, make=Scene, frame=UPRIGHT, detail=1):
    """One picture by seed: image (H, W, 3), parts and person (H, W), all uint8, and its record; `frame` is one of `FRAMES`,
    and the picture's height and width.

    With `tone` everybody in it has that skin tone (see `Shape`), and the scene is the same for every tone. `make` is the
    kind of scene: this module's or one made from it, such as `moves.MoveScene`. With `detail` the picture has that many times
    as many pixels along each side.
    """
    if supersample % 2 == 0:
        raise ValueError(f"a supersample of {supersample}: of an even number of pixels none is the middle one; take another")
    rng = np.random.default_rng(seed)
    (height, width), aspects = frame, FRAMES[frame]
    (h, w), _ = aspects[rng.choice(len(aspects), p=[share for _, share in aspects])]
    height, width, h, w = (detail * side for side in (height, width, h, w))
    scene = make(assets, rng, round(h * supersample), round(w * supersample), tone=tone)
    radiance, parts, who = sensor.distorted(rng.spawn(1)[0], *scene.render())
    own = rng.spawn(1)[0]
    mask = moving(own, parts, who)
    if supersample != 1.0:
        radiance = cv2.resize(radiance, (w, h), interpolation=cv2.INTER_AREA)
        parts, who = (shrink_labels(a, w, h) for a in (parts, who))
    if mask is not None:
        radiance = sensor.moved(own, radiance, cv2.resize(mask.astype(np.float32), (w, h), interpolation=cv2.INTER_AREA))
    picture = sensor.develop(rng, radiance, scene.dark)
    image = np.full((height, width, 3), PADDING, np.uint8)
    maps = np.zeros((2, height, width), np.uint8)
    top, left = (height - h) // 2, (width - w) // 2
    image[top:top + h, left:left + w] = picture
    maps[0, top:top + h, left:left + w], maps[1, top:top + h, left:left + w] = parts, who
    return image, maps[0], compact(maps[1]), {"seed": [int(s) for s in np.atleast_1d(seed)], **scene.record(who)}


# Forearm with hand and shin with foot, left and right.
MOVING_LIMBS = [[INDEX[f"{part}_{side}"] for part in limb] for limb in (("lower_arm", "hand"), ("lower_leg", "foot")) for side in ("left", "right")]


def moving(rng, parts, who):
    """Who moves in a share of the pictures with people: one of them or a limb of one, bool (H, W), else `None`. The camera of
    a mirror hangs still, and what is behind people is sharp."""
    people = np.flatnonzero(np.bincount(who.ravel(), minlength=1))
    people = people[people > 0]
    if not len(people) or rng.random() >= MOVING:
        return None
    mask = who == people[rng.integers(len(people))]
    if rng.random() < 0.6:
        mask &= np.isin(parts, MOVING_LIMBS[rng.integers(len(MOVING_LIMBS))])
    return mask if mask.any() else None


def shrink_labels(labels, width, height):
    """Labels (height, width) at fewer pixels: those at the new pixels' middles. OpenCV's INTER_NEAREST takes the upper left of those that
    become one, which is nearly half a pixel beside what the picture shows."""
    return cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def compact(who):
    """Instance numbers 1..P without gaps."""
    numbers = [n for n in np.unique(who) if n]
    table = np.zeros(256, np.uint8)
    for k, n in enumerate(numbers, 1):
        table[n] = k
    return table[who]
