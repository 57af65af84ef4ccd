"""Files are whole or absent, and what cannot be written is named."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from render.files import append_line, encoded, write_picture, write_whole

PACKAGE = Path(__file__).resolve().parents[1]


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    for content in (b"first", b"second"):
        write_whole(tmp_path / "a", content)
    assert (tmp_path / "a").read_bytes() == b"second" and os.listdir(tmp_path) == ["a"]


def test_a_full_disk_leaves_the_old_file_and_names_the_new(tmp_path):
    """A limit on the size of files stands for the disk, in a process of its own."""
    write_whole(tmp_path / "a", b"old")
    code = f"from render.files import write_whole; write_whole({str(tmp_path / 'a')!r}, bytes(100_000))"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    answer = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE, preexec_fn=limit, capture_output=True, text=True)
    assert answer.returncode != 0
    assert f"OSError: cannot write {tmp_path / 'a'}: File too large; make room" in answer.stderr
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a", b"new")
    assert os.listdir(tmp_path) == []


def test_half_a_line_goes_away_before_the_next_is_added(tmp_path):
    log = tmp_path / "log"
    for content, wanted in ((b"", b"next\n"), (b"one\n", b"one\nnext\n"), (b"one\nhal", b"one\nnext\n"), (b"hal", b"next\n")):
        log.write_bytes(content)
        append_line(log, "next")
        assert log.read_bytes() == wanted
    long = b"x" * 200_000 + b"\n"
    log.write_bytes(long + long[:-1])
    append_line(log, "next")
    assert log.read_bytes() == long + b"next\n"


def test_a_full_disk_leaves_no_half_line_and_names_the_file(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"y" * 4000 + b"\n")
    code = f"from render.files import append_line; append_line({str(log)!r}, 'z' * 1000)"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    answer = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE, preexec_fn=limit, capture_output=True, text=True)
    assert answer.returncode != 0 and f"OSError: cannot write {log}: " in answer.stderr and "make room" in answer.stderr
    assert log.read_bytes() == b"y" * 4000 + b"\n"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OSError, match="cannot write .*none/a.*No such file"):
        write_whole(tmp_path / "none" / "a", b"")


def test_pictures_keep_their_colours_and_labels_their_values(tmp_path):
    picture = np.zeros((8, 6, 3), np.uint8)
    picture[..., 0] = 250
    write_picture(tmp_path / "a.png", picture)
    assert (cv2.imread(str(tmp_path / "a.png"))[..., ::-1] == picture).all()
    write_picture(tmp_path / "b.png", picture[..., 0])
    assert (cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED) == 250).all()
    assert encoded(".jpg", picture)[:2] == b"\xff\xd8"
    for name in ("a.foo", "a"):
        with pytest.raises(OSError, match="use .jpg or .png"):
            write_picture(tmp_path / name, picture)
