"""The readers of tests/peers/photographs.py, on made-up sets."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests/peers"))

import photographs  # noqa: E402
from photographs import EvalFolder, coco128, in_front, polygons, single  # noqa: E402


def picture(path: Path, size=(40, 60)) -> Image.Image:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 90, 90)).save(path)
    return Image.open(path)


def test_what_is_carried_and_what_lies_outside_of_the_persons_box_is_not_judged(monkeypatch):
    labels = np.zeros((6, 6), np.uint8)
    labels[1:5, 2:4], labels[2, 3] = 4, 9
    # A quarter of the four rows: one pixel around the box.
    monkeypatch.setattr(photographs, "AROUND", 0.25)
    assert in_front(labels, [9]).tolist() == [
        [255, 0, 0, 0, 0, 255],
        [255, 0, 1, 1, 0, 255],
        [255, 0, 1, 255, 0, 255],
        [255, 0, 1, 1, 0, 255],
        [255, 0, 1, 1, 0, 255],
        [255, 0, 0, 0, 0, 255],
    ]


def test_the_middles_of_bones_are_judged_where_both_ends_are_seen(tmp_path):
    folder = EvalFolder(tmp_path / "set")
    picture(tmp_path / "a.jpg")
    joints = {
        "nose": (20, 5), "left_shoulder": (26, 14), "right_shoulder": (14, 14), "left_hip": (24, 34), "right_hip": (16, 34),
        "left_elbow": (32, 20), "left_wrist": (49, 20), "right_elbow": (10, 22), "left_knee": (24, 44), "left_ankle": (25, 55),
    }  # fmt: skip
    folder.add_joints("a", tmp_path / "a.jpg", joints)
    # The left forearm's middle lies beside the picture; the right wrist and the right leg are not seen.
    wanted = ["a,29,17,upper_arms", "a,24,39,upper_legs", "a,24,50,lower_legs", "a,12,18,upper_arms", "a,20,24,torso", "a,20,5,head"]
    assert folder.points == wanted and Image.open(tmp_path / "set/images/a.png").size == (40, 60)
    folder.add_joints("a", tmp_path / "a.jpg", {"head": (20, 2), "neck": (20, 10)})
    assert folder.points[len(wanted) :] == ["a,20,6,head"]


def test_joints_that_are_counted_from_one_are_those_of_the_pixel(tmp_path):
    points = np.ones((14, 2, 1)) * 21
    points[[12, 13], :, 0] = (11, 9), (11, 5)
    picture(tmp_path / "PARSE/im0001.jpg")
    savemat(tmp_path / "PARSE/labels.mat", {"ptsAll": points})
    folder = EvalFolder(tmp_path / "set")
    single(tmp_path, folder)
    assert folder.points == [*(f"im0001,20,20,{kind}" for _ in "lr" for *_, kind in photographs.BONES), "im0001,20,20,torso", "im0001,10,6,head"]


def test_of_polygons_those_of_people_make_the_silhouette(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("1 0.25 0.25 0.75 0.25 0.75 0.5 0.25 0.5\n0 0 0 1 0 1 1 0 1\n")
    mask = np.array(polygons(file, (40, 60)))
    inside = np.zeros((60, 40), bool)
    inside[15:31, 10:31] = True
    assert (mask[inside] == 255).all() and not mask[~inside].any()


def test_pictures_of_nobody_are_those_whose_boxes_name_none_and_a_broken_file_is_named(tmp_path):
    boxes, outlines = (tmp_path / kind / "labels/train2017" for kind in ("object_detection", "instance_segmentation"))
    boxes.mkdir(parents=True)
    outlines.mkdir(parents=True)
    for name, box in {"cat": "15 0.5 0.5 0.2 0.2\n", "none": "", "one": "0 0.5 0.5 1 1\n"}.items():
        picture(tmp_path / f"images/train2017/{name}.jpg")
        (boxes / f"{name}.txt").write_text(box)
    (outlines / "one.txt").write_text("1 0 0 1 0 1 1 0 1\n")
    people, nobody = EvalFolder(tmp_path / "people"), EvalFolder(tmp_path / "nobody")
    coco128(tmp_path, people, nobody)
    names = lambda folder: sorted(path.stem for path in (folder.path / "images").iterdir())
    assert names(people) == ["one"] and names(nobody) == ["cat", "none"]
    for text in ("\n15 0.5 0.5 0.2 0.2\n", "15 0.5 0.5 0.2\n", "15 0.5 0.5 0.2 wide\n"):
        (boxes / "cat.txt").write_text(text)
        with pytest.raises(SystemExit, match="cat.txt, line 1: a class and pairs of numbers are wanted"):
            coco128(tmp_path, people, nobody)
