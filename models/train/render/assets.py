"""Reads the CC0 assets: base mesh, shape targets, rig, garments, skins, panoramas, swatches, motions."""

import hashlib
import json
import os
from pathlib import Path

import cv2
import numpy as np

from .classes import INDEX

TEXTURE = 128  # side of a texture made from rules or swatches, in texels; people are at most 256 pixels tall
PAINTED_TEXTURE = 256  # of one that is painted all round a body: skin, suits, shoes, hair


class AssetError(RuntimeError):
    """An asset is missing or cannot be read; the message names it and what to do."""


def linear(srgb):
    """sRGB in 0..1 to linear light (power 2.2)."""
    srgb = np.asarray(srgb, np.float32)
    return cv2.pow(srgb, 2.2) if srgb.ndim == 3 else srgb**2.2  # OpenCV's takes a quarter of the time for a picture


def read_image(path, flags=cv2.IMREAD_COLOR):
    image = cv2.imread(str(path), flags)
    if image is None:
        raise AssetError(f"{path}: not a readable picture; fetch the assets again (see MANIFEST.tsv)")
    if image.ndim == 3 and image.shape[2] == 4:
        return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)
    if image.ndim == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return image


LIST = "MANIFEST.tsv"


def check_files(root):
    """Every file of the folder's list must be there and be the listed one, and no other beside them: a picture that is cut off
    reads as a picture, and with other assets the same seeds would give other scenes."""
    try:
        rows = [line.split("\t") for line in (root / LIST).read_text().splitlines()[1:]]
    except OSError as error:
        raise AssetError(f"{root / LIST}: {error.strerror}; it lists the assets (a copy is models/train/assets.tsv)") from None
    if short := [row for row in rows if len(row) < 4]:
        raise AssetError(f"{root / LIST}: {short[0]} is no row of path, digest, source and licence; copy models/train/assets.tsv again")
    check_nothing_else(root, {name for name, *_ in rows})
    for name, digest, *_ in rows:
        path = root / name
        if "/" not in name:  # texts about the folder
            continue
        if not path.is_file():
            raise AssetError(f"{path}: missing; fetch it again, or take its line out of {LIST} if it is left out on purpose")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise AssetError(f"{path}: not the file that {LIST} lists; fetch it again")


def check_nothing_else(root, names):
    """No file in the folders of the listed ones that is not listed itself."""
    for top in sorted({Path(name).parts[0] for name in names if "/" in name}):
        for folder, _, files in os.walk(root / top, followlinks=True):
            for file in files:
                path = Path(folder) / file
                if path.relative_to(root).as_posix() not in names:
                    raise AssetError(f"{path}: not in {LIST}, and it would change the scenes; take it away, or add its line")


class Mesh:
    """Vertices, texture coordinates and polygon lists of one OBJ file, with group names."""

    def __init__(self, path):
        vertices, uvs, faces, face_uvs, groups, group = [], [], [], [], [], ""
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError as error:
            raise AssetError(f"{path}: {error.strerror}; is --assets the right folder?") from None
        for line in lines:
            word, *rest = line.split() or [""]
            if word == "v":
                vertices.append([float(x) for x in rest[:3]])
            elif word == "vt":
                uvs.append([float(x) for x in rest[:2]])
            elif word == "g":
                group = rest[0] if rest else ""
            elif word == "f":
                corners = [corner.split("/") for corner in rest]
                faces.append([int(c[0]) - 1 for c in corners])
                face_uvs.append([int(c[1]) - 1 if len(c) > 1 and c[1] else 0 for c in corners])
                groups.append(group)
        if not vertices or not faces:
            raise AssetError(f"{path}: no mesh in it; fetch the assets again (see MANIFEST.tsv)")
        self.vertices = np.array(vertices)
        self.uvs = np.array(uvs or [[0.0, 0.0]])
        self.faces, self.face_uvs, self.groups = faces, face_uvs, groups

    def triangles(self, group=None):
        """(vertex indices, uv indices), each (T, 3), of one group or of all."""
        keep = [i for i, g in enumerate(self.groups) if group is None or g == group]
        return fan([self.faces[i] for i in keep]), fan([self.face_uvs[i] for i in keep])


def fan(polygons):
    rows = []
    for p in polygons:
        rows += [(p[0], p[k], p[k + 1]) for k in range(1, len(p) - 1)]
    return np.array(rows, np.int64).reshape(-1, 3)


def sparse_rows(dense, least=1e-4):
    """(pointers, columns, values) of a row-sparse matrix, for the skinning kernel."""
    rows, columns = np.nonzero(dense > least)
    pointers = np.searchsorted(rows, np.arange(len(dense) + 1)).astype(np.int64)
    return pointers, columns.astype(np.int64), dense[rows, columns].astype(np.float64)


# Bones that move a part, by the beginning of their names; the first match counts, the rest is torso.
BONE_PARTS = (
    (("head", "jaw", "eye", "special", "oris", "levator", "orbicularis", "oculi", "temporalis",
      "risorius", "tongue"), "face"),
    (("upperarm",), "upper_arm"),
    (("lowerarm",), "lower_arm"),
    (("wrist", "metacarpal", "finger"), "hand"),
    (("upperleg",), "upper_leg"),
    (("lowerleg",), "lower_leg"),
    (("foot", "toe"), "foot"),
)


def bone_class(name):
    for prefixes, part in BONE_PARTS:
        if name.startswith(prefixes):
            if part == "face":
                return INDEX["face"]
            return INDEX[part + ("_left" if name.endswith(".L") else "_right")]
    return INDEX["torso"]


class Rig:
    """Bones in parent-first order, skin weights, and each vertex's weight by part class."""

    def __init__(self, folder, vertex_count):
        skeleton = read_json(folder / "default.mhskel")
        weights = read_json(folder / "default_weights.mhw")["weights"]
        bones = skeleton["bones"]
        self.order = []

        def visit(name):
            if name in self.order:
                return
            if bones[name]["parent"]:
                visit(bones[name]["parent"])
            self.order.append(name)

        for name in bones:
            visit(name)
        self.index = {name: i for i, name in enumerate(self.order)}
        self.parents = [self.index[bones[n]["parent"]] if bones[n]["parent"] else -1 for n in self.order]
        self.heads = [np.array(skeleton["joints"][bones[n]["head"]]) for n in self.order]
        dense = np.zeros((vertex_count, len(self.order)), np.float32)
        for name, pairs in weights.items():
            for vertex, weight in pairs:
                dense[vertex, self.index[name]] += weight
        dense[dense.sum(1) == 0, self.index["root"]] = 1
        self.dense = dense / dense.sum(1, keepdims=True)
        classes = np.array([bone_class(name) for name in self.order])
        self.parts = np.stack([self.dense[:, classes == c].sum(1) for c in range(16)], 1).astype(np.float32)
        self.weights = sparse_rows(self.dense)


def read_json(path):
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise AssetError(f"{path}: {error.strerror}; is --assets the right folder?") from None
    except ValueError as error:
        raise AssetError(f"{path}: broken JSON ({error}); fetch the assets again") from None


class Targets:
    """Shape targets: sparse vertex displacements by name."""

    def __init__(self, path):
        data = read_npz(path)
        self.names = {str(name): k for k, name in enumerate(data["names"])}
        self.data = data
        self.cache = {}

    def add(self, vertices, name, weight):
        if weight < 1e-3 or name not in self.names:
            return
        if name not in self.cache:
            k = self.names[name]
            a, b = self.data["ptr"][k], self.data["ptr"][k + 1]
            index = np.cumsum(self.data["didx"][a:b].astype(np.int64))
            moves = np.stack([self.data[axis][a:b] for axis in "xyz"], 1) * float(self.data["scale"][k])
            self.cache[name] = index, moves
        index, moves = self.cache[name]
        vertices[index] += weight * moves


def read_npz(path):
    try:
        with np.load(path) as archive:
            return {key: archive[key] for key in archive.files}
    except OSError as error:
        raise AssetError(f"{path}: {error}; is --assets the right folder?") from None
    except Exception as error:  # zipfile and numpy raise many kinds for a damaged archive
        raise AssetError(f"{path}: damaged ({error}); fetch the assets again") from None


class Garment:
    """A piece bound to the base mesh: each vertex follows three base vertices and an offset."""

    def __init__(self, path, rig, vertex_count):
        self.name = path.parent.name
        rows, self.scales, hidden, mode, mesh_name = [], {}, [], None, None
        for line in path.read_text(errors="replace").splitlines():
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if words[0] == "verts":
                mode = "vertices"
            elif words[0] == "delete_verts":
                mode = "hidden"
            elif words[0] in ("x_scale", "y_scale", "z_scale"):
                self.scales[words[0][0]] = int(words[1]), int(words[2]), float(words[3])
            elif words[0] == "obj_file":
                mesh_name = words[1]
            elif mode == "vertices" and words[0].lstrip("-").isdigit():
                rows.append([int(words[0])] * 3 + [1, 0, 0, 0, 0, 0] if len(words) == 1
                            else [float(x) for x in words[:9]])
            elif mode == "hidden":
                hidden += index_ranges(words)
        if not rows or mesh_name is None:
            raise AssetError(f"{path}: not a garment binding; fetch the assets again")
        rows = np.array(rows)
        self.base, self.share, self.offset = rows[:, :3].astype(int), rows[:, 3:6], rows[:, 6:9]
        self.hidden = np.array(sorted(v for v in set(hidden) if v < vertex_count), int)
        mesh = Mesh(path.parent / mesh_name)
        self.triangles, self.uv_triangles = mesh.triangles()
        self.uvs = mesh.uvs
        share = np.clip(self.share, 0, None)[..., None]
        dense = (rig.dense[self.base] * share).sum(1)
        self.weights = sparse_rows(dense / dense.sum(1, keepdims=True).clip(1e-6))
        parts = (rig.parts[self.base] * share).sum(1)
        self.parts = (parts / parts.sum(1, keepdims=True).clip(1e-6)).astype(np.float32)
        textures = sorted(path.parent.glob("*diffuse*.png"))
        self.texture = load_texture(textures[0], PAINTED_TEXTURE) if textures else None
        self.pieces = upper_and_lower(mesh, self.parts)

    def fit(self, body):
        """Vertex positions on a shaped body, (N, 3)."""
        scale = np.array([
            abs(body[self.scales[a][0]][k] - body[self.scales[a][1]][k]) / self.scales[a][2]
            if a in self.scales else 1.0 for k, a in enumerate("xyz")])
        return (body[self.base] * self.share[..., None]).sum(1) + self.offset * scale


def index_ranges(words):
    found, i = [], 0
    while i < len(words):
        if i + 2 < len(words) and words[i + 1] == "-":
            found += range(int(words[i]), int(words[i + 2]) + 1)
            i += 3
        else:
            found.append(int(words[i]))
            i += 1
    return found


def upper_and_lower(mesh, parts):
    """0 for vertices of connected pieces that sit above the waist, 1 for those on the legs."""
    parent = np.arange(len(mesh.vertices))

    def root(v):
        while parent[v] != v:
            parent[v] = parent[parent[v]]
            v = parent[v]
        return v

    for face in mesh.faces:
        first = root(face[0])
        for v in face[1:]:
            parent[root(v)] = first
    roots = np.array([root(v) for v in range(len(parent))])
    legs = parts[:, INDEX["upper_leg_left"]:].sum(1)
    pieces = np.zeros(len(parent), np.int64)
    for r in np.unique(roots):
        pieces[roots == r] = int(legs[roots == r].mean() > 0.35)
    return pieces


def load_texture(path, side):
    """RGBA in sRGB 0..1, (side, side, 4) float32."""
    image = read_image(path, cv2.IMREAD_UNCHANGED)
    if image.ndim == 2:
        image = np.dstack([image] * 3)
    if image.shape[2] == 3:
        image = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def held_out(name):
    """Whether an asset belongs to the test split alone: a fixed sixth of the names."""
    value = 2166136261
    for byte in name.encode():  # FNV-1a: stable across machines and Python versions
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return value % 6 == 0


# Panoramas in which people, or statues of people, can be seen or may be hidden in the distance. A person's picture is
# never used, not even as background, and a person labelled as background would teach the wrong thing.
WITH_PEOPLE = {
    "canary_wharf", "esplanade", "leadenhall_market", "modern_buildings_2", "outdoor_umbrellas", "potsdamer_platz",
    "sepulchral_chapel_rotunda", "shanghai_bund", "shanghai_riverside", "spiaggia_di_mondello",
    "st_peters_square_night", "sunset", "urban_street_01", "venice", "venice_sunset",
}


class Assets:
    """Everything that scenes are made of, for one split ("train" or "test")."""

    def __init__(self, folder, split):
        root = Path(folder)
        if not (root / "makehuman" / "base.obj").is_file():
            raise AssetError(f"{root}: no makehuman/base.obj there; give the folder of the CC0 assets with --assets")
        check_files(root)
        self.root, self.split = root, split
        human = root / "makehuman"
        self.base = Mesh(human / "base.obj")
        self.rig = Rig(human / "rigs", len(self.base.vertices))
        self.targets = Targets(human / "targets.npz")
        self.body = self.base.triangles("body")
        self.tights = self.base.triangles("helper-tights")
        self.skirt = self.base.triangles("helper-skirt")
        self._load_clothes(human)
        self.skins = {p.stem: load_texture(p, PAINTED_TEXTURE) for p in sorted((human / "skins/textures").glob("*.jpg"))}
        self._load_environments(root / "environments")
        self._load_swatches(root / "textures")
        self.motions = read_npz(root / "motions/motions.npz")
        self._require(suits=all(self.suits.values()), shoes=self.shoes, hats=self.hats, hair=self.hair, eyebrows=self.brows,
                      skins=self.skins, cloth=self.cloth_swatches, poses=any((human / "poses").glob("*.bvh")))

    def _require(self, **kinds):
        for kind, found in kinds.items():
            if not found:
                raise AssetError(f"{self.root}: no {kind} there for the {self.split} split; fetch the assets again")

    def mine(self, name):
        return held_out(name) == (self.split == "test")

    def _garments(self, pattern):
        paths = sorted((self.root / "makehuman").glob(pattern))
        return [Garment(path, self.rig, len(self.base.vertices)) for path in paths]

    def _load_clothes(self, human):
        # Garments, hair and skins are few: both splits have them all. What the splits never share is cloth, rooms and seeds.
        self.suits = {sex: self._garments(f"clothes/{sex}_*/*.mhclo") for sex in ("male", "female")}
        self.shoes = self._garments("clothes/shoes*/*.mhclo")
        self.hats = self._garments("clothes/fedora01/*.mhclo")
        self.hair = self._garments("hair/*/*.mhclo")
        self.eyes = Garment(human / "eyes/low-poly/low-poly.mhclo", self.rig, len(self.base.vertices))
        self.eye_texture = load_texture(human / "eyes/materials/brown_eye.png", 64)
        self.brows = self._garments("eyebrows/*/*.mhclo")

    def _load_environments(self, folder):
        probes = read_npz(folder / "lighting.npz")
        self.environments = []
        for name, hdr in zip(probes["names"], probes["hdr"]):
            name = str(name)
            if name in WITH_PEOPLE or not self.mine(name):
                continue
            self.environments.append((name, folder / f"{name}.jpg", hdr.astype(np.float64)))
        if not self.environments:
            raise AssetError(f"{folder}: no panorama for the {self.split} split")

    def _load_swatches(self, folder):
        try:
            rows = [line.split("\t") for line in (folder / "index.tsv").read_text().splitlines()[1:]]
        except OSError as error:
            raise AssetError(f"{folder}/index.tsv: {error.strerror}; is --assets the right folder?") from None
        self.swatches = {}
        for file, count, *_ in rows:
            atlas = read_image(folder / file)
            kind = Path(file).stem
            cells = []
            for i in range(int(count)):
                y, x = 120 * (i // 16), 120 * (i % 16)
                if self.mine(f"{kind}/{i}"):
                    cells.append(atlas[y:y + 120, x:x + 120])
            if cells:
                self.swatches[kind] = cells
        self.all_swatches = [cell for cells in self.swatches.values() for cell in cells]
        cloth = ("Fabric", "Wallpaper", "Carpet", "Plastic", "Rubber")
        self.cloth_swatches = [cell for kind in cloth for cell in self.swatches.get(kind, [])]
