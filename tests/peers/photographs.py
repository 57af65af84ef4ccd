"""How the shipped student does on photographs that it has never seen anything like: evaluation only.

    photographs.py [--mirror BINARY] [--once] [--coco128 DIR] [--silhouettes DIR] [--street DIR] [--poses DIR]
                   [--sports DIR] [--single DIR]

Every set is a public repository that somebody has to fetch, and none is part of the project. A set that is not given is not
measured. None of them is in the training or the calibration, and no value of a setting, no bias and no checkpoint was chosen by
a score on them; that the radius of the guide (`firmware/vision/src/guide.rs`) needed a second look was seen on them, and its
value was chosen on renders.

  --coco128      github.com/lightly-ai/coco128_yolo: 256 pictures of COCO; silhouettes, and pictures without people
  --silhouettes  github.com/VikramShenoy97/Human-Segmentation-Dataset: 290 pictures of people with masks
  --street       github.com/bearpaw/clothing-co-parsing: 1,003 photographs of whole people in the street, with their clothes;
                 only the one in front is labelled, so that what lies outside that person's box is not judged, nor are bags
  --poses        github.com/open-mmlab/mmpose: tests/data has photographs with joints; the middles of bones are judged;
                 people in crowds, many of them small
  --sports       github.com/axelcarlier/lsp: 10,000 photographs of parkour, gymnastics and athletics (the Leeds Sports Pose set,
                 extended) with the joints of one person each, marked by many hands: every fourth of those that show all joints
  --single       github.com/vamsi1401/ddp_fmop: the 305 photographs of PARSE, each with the joints of one whole person; hidden
                 joints were guessed there and are judged like the others

The scores are `mirror eval`'s, so they are the shipped engine's: it looks at a picture again where people are, and with --once as at
a camera's. People in COCO are small, cut off and often part of
a crowd: its silhouettes are harder than a mirror's view.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[2]
BODY = ("head", "torso", "upper_arms", "lower_arms", "upper_legs", "lower_legs")
LONGEST = 640  # pixels; larger pictures only take longer
# Bones whose middles are judged, by the names of their joints, and the class there.
BONES = (("shoulder", "elbow", "upper_arms"), ("elbow", "wrist", "lower_arms"), ("hip", "knee", "upper_legs"), ("knee", "ankle", "lower_legs"))
PEOPLE_AREA = 0.05  # share of the picture that the people of COCO must fill to be judged


class EvalFolder:
    """A folder of the form that `mirror eval` reads, with silhouettes or with points."""

    def __init__(self, path: Path, once: bool = False):
        self.path, self.points, self.looks = path, [], ["--once"] if once else []
        for name in ("images", "person"):
            (path / name).mkdir(parents=True)

    def add(self, name: str, picture: Image.Image, mask: Image.Image) -> None:
        """A picture and its silhouette (L, 0 or 255)."""
        size = self.add_picture(name, picture)
        binary = mask.convert("L").resize(size, Image.BILINEAR).point(lambda v: int(v > 127))
        binary.save(self.path / "person" / f"{name}.png")

    def add_judged(self, name: str, picture: Image.Image, mask: Image.Image) -> None:
        """A picture and its silhouette (L: 0, 1, or 255 where nothing is judged)."""
        size = self.add_picture(name, picture)
        mask.resize(size, Image.NEAREST).save(self.path / "person" / f"{name}.png")

    def add_picture(self, name: str, picture: Image.Image) -> tuple:
        """Writes a picture, smaller where it is large, and gives its size."""
        scale = min(1.0, LONGEST / max(picture.size))
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        picture.convert("RGB").resize(size, Image.LANCZOS).save(self.path / "images" / f"{name}.png")
        return size

    def add_joints(self, name: str, path: Path, joints: dict) -> None:
        """A picture without silhouette and the visible joints of one person in it, by name."""
        target = self.path / "images" / f"{name}.png"
        picture = Image.open(path)
        if not target.exists():
            picture.convert("RGB").save(target)
        for side in ("left", "right"):
            for a, b, kind in BONES:
                ends = [joints.get(f"{side}_{joint}") for joint in (a, b)]
                self.middle(name, picture.size, ends, kind)
        self.middle(name, picture.size, [joints.get(f"{s}_{j}") for s in ("left", "right") for j in ("shoulder", "hip")], "torso")
        self.middle(name, picture.size, [joints.get("nose")] if "nose" in joints else [joints.get("head"), joints.get("neck")], "head")

    def middle(self, name: str, size: tuple, ends: list, kind: str) -> None:
        """Adds the mean of some joints as a labelled point, if all are visible and it lies in the picture."""
        if all(ends):
            x, y = (sum(end[axis] for end in ends) / len(ends) for axis in (0, 1))
            if 0 <= round(x) < size[0] and 0 <= round(y) < size[1]:
                self.points.append(f"{name},{round(x)},{round(y)},{kind}")

    def score(self, mirror: Path) -> dict:
        """What `mirror eval` says."""
        entry = '[[class]]\nindex = {0}\nname = "{1}"\nmaps = ["{1}"]\n'
        classes = [entry.format(index, name) for index, name in enumerate(("background", *BODY))]
        (self.path / "classes.toml").write_text("".join(classes))
        if self.points:
            (self.path / "points.csv").write_text("\n".join(["image,x,y,class_name", *self.points]) + "\n")
        if not any((self.path / "images").iterdir()):
            raise SystemExit(f"error: no usable picture for {self.path.name}; is it a checkout of the repository named in --help?")
        answer = subprocess.run([mirror, "eval", self.path, "--json", *self.looks], capture_output=True, text=True)
        if answer.returncode != 0:
            raise SystemExit(f"error: {mirror} eval failed on {self.path.name}: {answer.stderr.strip()}")
        return json.loads(answer.stdout)


def shapes(path: Path) -> list:
    """What a YOLO file of boxes or polygons names: of each line the class, and the numbers after it, in pairs."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        kind, *values = line.split() or [""]
        try:
            values = [float(value) for value in values]
        except ValueError:
            kind = ""
        if not kind or len(values) % 2:
            raise SystemExit(f"error: {path}, line {number}: a class and pairs of numbers are wanted, not {line!r}; fetch the repository anew")
        found.append((kind, list(zip(values[::2], values[1::2], strict=True))))
    return found


def polygons(path: Path, size: tuple) -> Image.Image:
    """The silhouettes of class 1 in a YOLO polygon file."""
    mask = Image.new("L", size)
    for kind, places in shapes(path):
        corners = [(x * size[0], y * size[1]) for x, y in places]
        if kind == "1" and len(corners) > 2:
            ImageDraw.Draw(mask).polygon(corners, fill=255)
    return mask


def coco128(root: Path, people: EvalFolder, nobody: EvalFolder) -> None:
    """Sorts COCO's pictures into those with people of some size and those whose boxes name none."""
    for split in ("train2017", "val2017"):
        for path in sorted((root / "images" / split).glob("*.jpg")):
            picture = Image.open(path)
            boxes = root / "object_detection" / "labels" / split / f"{path.stem}.txt"
            outlines = root / "instance_segmentation" / "labels" / split / f"{path.stem}.txt"
            if boxes.exists() and not any(kind == "0" for kind, _ in shapes(boxes)):
                nobody.add(path.stem, picture, Image.new("L", picture.size))
            elif outlines.exists():
                mask = polygons(outlines, picture.size)
                if mask.histogram()[255] >= PEOPLE_AREA * mask.width * mask.height:
                    people.add(path.stem, picture, mask)


def silhouettes(root: Path, folder: EvalFolder) -> None:
    """The pictures that have a mask."""
    for path in sorted((root / "Training_Images").glob("*.jpg")):
        mask = root / "Ground_Truth" / f"{path.stem}.png"
        if mask.exists():
            folder.add(path.stem, Image.open(path), Image.open(mask))


CARRIED = ("bag", "purse", "wallet")
AROUND = 0.05  # of the person's height: what is judged around the box


def street(root: Path, folder: EvalFolder) -> None:
    """The pictures whose clothes are labelled by the pixel."""
    from scipy.io import loadmat  # only this set has files of this kind

    names = [str(row[0]) for row in loadmat(root / "label_list.mat")["label_list"][0]]
    carried = [names.index(name) for name in CARRIED]
    for path in sorted((root / "annotations/pixel-level").glob("*.mat")):
        labels = loadmat(path)["groundtruth"]
        if labels.any():
            picture = Image.open(root / "photos" / f"{path.stem}.jpg")
            folder.add_judged(path.stem, picture, Image.fromarray(in_front(labels, carried)))


def in_front(labels: np.ndarray, carried: list) -> np.ndarray:
    """Silhouette of the labelled person: 1, 0 around, 255 for what is carried and outside of the person's box."""
    rows, columns = np.nonzero(labels)
    margin = round(AROUND * (rows.max() - rows.min() + 1))
    box = (slice(max(0, rows.min() - margin), rows.max() + margin + 1), slice(max(0, columns.min() - margin), columns.max() + margin + 1))
    mask = np.full(labels.shape, 255, np.uint8)
    mask[box] = labels[box] > 0
    mask[np.isin(labels, carried)] = 255
    return mask


# Annotations of mmpose's test data: file, and which visibility values mean that a joint was seen.
ANNOTATIONS = (("coco/test_coco.json", "coco", (2,)), ("aic/test_aic.json", "aic", (1, 2)), ("crowdpose/test_crowdpose.json", "crowdpose", (2,)),
               ("ochuman/test_ochuman.json", "ochuman", (2,)), ("mhp/test_mhp.json", "mhp", (1, 2)),
               ("posetrack18/annotations/test_posetrack18_val.json", "posetrack18", (1, 2)))
OTHER_NAMES = {"head_top": "head", "upper_neck": "neck", "head_bottom": "neck"}
LEAST_HEIGHT = 80  # pixels of a person's box


def poses(root: Path, folder: EvalFolder) -> None:
    """The photographs of mmpose's tests whose people are tall enough."""
    for file, pictures, seen in ANNOTATIONS:
        annotations = json.loads((root / "tests" / "data" / file).read_text())
        names = [re.sub("[ -]", "_", n.lower()) for n in annotations["categories"][0]["keypoints"]]
        names = [OTHER_NAMES.get(n, n) for n in names]
        paths = {i["id"]: root / "tests" / "data" / pictures / i["file_name"] for i in annotations["images"]}
        for person in annotations["annotations"]:
            path, values = paths[person["image_id"]], person["keypoints"]
            if path.exists() and person["bbox"][3] >= LEAST_HEIGHT:
                triples = zip(names, values[::3], values[1::3], values[2::3], strict=True)
                joints = {n: (x, y) for n, x, y, visible in triples if visible in seen}
                folder.add_joints(f"{pictures}-{path.parent.name}-{path.stem}", path, joints)


# The fourteen joints of both sets of whole people, in their order. Their sides are not asked for.
FOURTEEN = ("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
            "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head")  # fmt: skip
EVERY = 4  # of the sports pictures, one in so many is judged


def sports(root: Path, upright: EvalFolder, upended: EvalFolder) -> None:
    """Every fourth of the pictures that show all joints, by whether the head is above the hips."""
    from scipy.io import loadmat

    joints = loadmat(root / "joints.mat")["joints"].transpose(2, 0, 1)
    whole = [i for i, person in enumerate(joints) if (person[:, 2] > 0).all()]
    for index in whole[::EVERY]:
        places = dict(zip(FOURTEEN, joints[index, :, :2].tolist(), strict=True))
        hips = (places["left_hip"][1] + places["right_hip"][1]) / 2
        folder = upright if places["head"][1] < hips else upended
        folder.add_joints(f"im{index + 1:05}", root / "images" / f"im{index + 1:05}.jpg", places)


def single(root: Path, folder: EvalFolder) -> None:
    """PARSE: one whole person a picture. Its joints are in the same order, and counted from one."""
    from scipy.io import loadmat

    for index, person in enumerate(loadmat(root / "PARSE" / "labels.mat")["ptsAll"].transpose(2, 0, 1)):
        name = f"im{index + 1:04}"
        folder.add_joints(name, root / "PARSE" / f"{name}.jpg", dict(zip(FOURTEEN, (person - 1).tolist(), strict=True)))


def bones(folder: EvalFolder, mirror: Path) -> dict:
    """Share of the middles of bones that are right, as a row of the report."""
    score = folder.score(mirror)
    classes = {f"right, {k}": v for k, v in score["points"]["per_class"].items()}
    return {"pictures": score["images"], "points": len(folder.points), "right": score["points"]["accuracy"], **classes}


def coco_rows(root: Path, folder, mirror: Path):
    """Rows of the report, one set after the other; so are the other functions' below."""
    people, nobody = folder("people"), folder("nobody")
    coco128(root, people, nobody)
    score = people.score(mirror)
    yield "COCO, people", {"pictures": score["images"], "silhouette IoU": score["person_iou"]}
    score = nobody.score(mirror)
    yield "COCO, nobody", {"pictures": score["images"], "false-alarm pixels": score["false_alarms"]}


def silhouette_rows(name: str, read):
    def rows(root: Path, folder, mirror: Path):
        people = folder(read.__name__)
        read(root, people)
        score = people.score(mirror)
        yield name, {"pictures": score["images"], "silhouette IoU": score["person_iou"]}

    return rows


def bone_rows(name: str, read):
    def rows(root: Path, folder, mirror: Path):
        people = folder(read.__name__)
        read(root, people)
        yield name, bones(people, mirror)

    return rows


def sports_rows(root: Path, folder, mirror: Path):
    upright, upended = folder("upright"), folder("upended")
    sports(root, upright, upended)
    yield "sports, middles of bones", bones(upright, mirror)
    yield "sports, head below the hips, middles of bones", bones(upended, mirror)


SETS = {
    "coco128": coco_rows,
    "silhouettes": silhouette_rows("Human-Segmentation-Dataset", silhouettes),
    "street": silhouette_rows("Clothing Co-Parsing", street),
    "poses": bone_rows("middles of bones", poses),
    "sports": sports_rows,
    "single": bone_rows("one whole person, middles of bones", single),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, default=ROOT / "target/release/mirror")
    parser.add_argument("--once", action="store_true", help="one look at every picture")
    for name in SETS:
        parser.add_argument(f"--{name}", type=Path)
    args = parser.parse_args()
    given = {name: root for name in SETS if (root := getattr(args, name))}
    if not given:
        parser.error("name at least one set, such as --street DIR")
    found = {}
    with tempfile.TemporaryDirectory() as work:
        for name, root in given.items():
            for title, row in SETS[name](root, lambda part: EvalFolder(Path(work) / part, args.once), args.mirror):
                found[title] = {k: v if isinstance(v, int) else round(v, 4) for k, v in row.items()}
                # A set that cannot be read later on does not cost what was measured before it.
                print(f"{title}: {json.dumps(found[title])}", file=sys.stderr, flush=True)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
