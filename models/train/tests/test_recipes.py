"""Recipes are read as they are, and `gpu.sh` shares its processes out as they want it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import train_config
from pipeline.together import check_recipe

ROOT = Path(__file__).resolve().parent.parent
PAST = ("student-0.5", "student-0.6", "student-0.7", "student-0.8", "student-0.9", "student-0.10", "student-0.11", "student-grown")


def configs(path: Path) -> list:
    """The settings of all runs of a recipe."""
    recipe = json.loads(path.read_text())
    return [train_config(recipe)] if "network" in recipe else list(check_recipe(recipe).values())


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.json")), ids=lambda path: path.stem)
def test_what_is_still_to_be_trained_learns_iou_and_wide_pictures(path):
    runs = configs(path)
    assert runs
    if path.stem not in PAST:
        assert all(run.jaccard_weight == 5.0 and run.wide == 0.3 for run in runs)


def processes(cores: int, share: int) -> dict:
    """(upright, wide) processes of each kind, from the function of that name in `gpu.sh`; the share in thousandths."""
    text = (ROOT / "gpu.sh").read_text()
    function = text[text.index("\nprocesses()") : text.index("\n}\n", text.index("\nprocesses()")) + 3]
    command = ["bash", "-uc", f"{function}\nprocesses {cores} {share}"]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    return {kind: (int(upright), int(wide)) for kind, upright, wide in (row.split() for row in rows if row)}


def test_as_many_processes_are_wide_as_batches_are():
    rows = processes(14, 300)
    assert len(rows) == 6 and sum(wide for _, wide in rows.values()) == 4 and sum(map(sum, rows.values())) == 14
    assert min(upright for upright, _ in rows.values()) == 1
    assert set(processes(14, 0).values()) == {(2, 0), (4, 0)}
    for cores in (2, 4, 6, 9, 30, 62):
        for share in (50, 300, 900):
            rows = processes(cores, share)
            wide = sum(wide for _, wide in rows.values())
            assert min(upright for upright, _ in rows.values()) >= 1 and wide >= 1
            assert cores < 6 or abs(wide - max(1, share * cores / 1000)) <= 0.5


STUB = """#!/bin/bash
case "$1 $2" in
"-m render")
    echo "$*" >>"$STUB/renders"
    [[ "$*" =~ --out\\ ([^ ]+) ]] && mkdir -p "${BASH_REMATCH[1]}" && touch "${BASH_REMATCH[1]}/a.npz"
    [[ "$*" != *--scenes* ]] || exec sleep ${LASTS:-60} ;;
"-m pipeline") echo "$*" >"$STUB/training"; exec sleep ${TRAINS:-0} ;;
"-c import sys, torch;"*) exit ${NO_GPU:-0} ;;
*) exec "$REAL" "$@" ;;
esac
"""


@pytest.fixture
def script(tmp_path):
    """Runs `gpu.sh` with stubs for Python and for a machine of 16 cores; values of the environment by name."""
    for name, text in {"python": STUB, "nproc": "#!/bin/bash\necho 16\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "assets").mkdir()
    (tmp_path / "w.pt").touch()
    own = {"STUB": str(tmp_path), "REAL": sys.executable, "FIRST": "7", "PYTHON": str(tmp_path / "python")}
    own["PATH"] = f"{tmp_path}:{os.environ['PATH']}"

    def run(out, recipe="student-next.json", **values):
        command = [ROOT / "gpu.sh", tmp_path / "assets", tmp_path / out, "30", ROOT / "recipes" / recipe, f"student={tmp_path}/w.pt"]
        return subprocess.run(command, env=os.environ | own | values, capture_output=True, text=True, check=False, timeout=120)

    return run


def test_the_script_starts_what_the_recipe_wants(script, tmp_path):
    done = script("out", CAPACITY="90000")
    assert done.returncode == 0, done.stderr
    renders = (tmp_path / "renders").read_text().splitlines()
    assert sum("--wide" in row for row in renders) == 4 and len(renders) == 14 + 2
    validation = [row.split("/out/val ")[1] for row in renders if "/out/val " in row]
    assert sorted(validation) == [f"--split test --seed 2 --size 128 --first {k} --count 1" for k in (0, 1)]
    training = (tmp_path / "training").read_text()
    wide = training.split("--wide-shards ")[1].split(" --start")[0].split()
    assert [Path(folder).name for folder in wide] == ["wide-outfits", "wide-things", "wide-leaps", "wide-people"]
    assert f"--start student={tmp_path}/w.pt" in training and "--device cuda" in training
    assert "--delete-taken --capacity 90000" in training


def test_a_renderer_that_ends_is_told(script, tmp_path):
    died = script("died", LASTS="8", TRAINS="12")
    assert died.returncode == 1 and "warning: a renderer ended" in died.stderr and "but a renderer ended on the way" in died.stderr
    assert "--capacity" not in (tmp_path / "training").read_text()


@pytest.mark.parametrize("values, says", [
    ({"recipe": "student.json"}, "student.json is no recipe of runs by name"),
    ({"NO_GPU": "1"}, "can use no GPU here; look at nvidia-smi"),
    ({"CAPACITY": "1e5"}, "CAPACITY 1e5 is not a number of pictures"),
    ({"FIRST": ""}, "FIRST, the number of the first shard, is not set"),
])
def test_the_script_refuses_before_it_renders(script, tmp_path, values, says):
    failed = script("out", **values)
    assert failed.returncode == 1 and says in failed.stderr
    assert not (tmp_path / "renders").exists() and not (tmp_path / "training").exists()
