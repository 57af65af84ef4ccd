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


# Renderers are done at once: that of validation ends, the others last until they are ended, or until training has begun; where a kind FAILS
# they end without a shard. Training waits for all of them, as it does, and where a renderer ends until that is told.
STUB = """#!/bin/bash
case "$1 $2 $3" in
"-m render shards")
    echo "$*" >>"$STUB/renders"
    [[ -n ${FAILS:-} && "$*" == *"$FAILS"* ]] && exit 1
    [[ "$*" =~ --out\\ ([^ ]+) ]] && mkdir -p "${BASH_REMATCH[1]}" && touch "${BASH_REMATCH[1]}/a.npz"
    [[ "$*" == *--scenes* ]] || exit 0
    [ -n "${ENDS:-}" ] || exec sleep 60
    until [ -e "$STUB/trains" ]; do sleep 0.1; done ;;
"-m pipeline check") [ -z "${CHECKED:-}" ] || exec "$REAL" "${@/cuda/$CHECKED}"; echo "300 ${READY_KINDS:-0 0}" ;;
"-m pipeline together")
    echo "$*" >"$STUB/training"
    [[ "$*" =~ --val\\ ([^ ]+) ]]
    until [ -e "${BASH_REMATCH[1]}/a.npz" ] && (($(wc -l <"$STUB/renders") >= RENDERERS)); do sleep 0.1; done
    touch "$STUB/trains"
    [ -z "${ENDS:-}" ] || until [ -e "$STUB/told" ]; do sleep 0.1; done ;;
*) exec "$REAL" "$@" ;;
esac
"""
TAIL = """#!/bin/bash
touch "$STUB/told"
exec /usr/bin/tail "$@"
"""


@pytest.fixture
def script(tmp_path):
    """Runs `gpu.sh` with stubs for Python, for a machine of 16 cores, and for the telling of a renderer's last words; values of the
    environment by name."""
    for name, text in {"python": STUB, "nproc": "#!/bin/bash\necho 16\n", "tail": TAIL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "assets").mkdir()
    (tmp_path / "w.pt").touch()
    own = {"STUB": str(tmp_path), "REAL": sys.executable, "RENDERERS": "16", "FIRST": "7", "PYTHON": str(tmp_path / "python")}
    own["PATH"] = f"{tmp_path}:{os.environ['PATH']}"

    def run(out, recipe="student-next.json", **values):
        command = [ROOT / "gpu.sh", tmp_path / "assets", tmp_path / out, "30", ROOT / "recipes" / recipe, f"student={tmp_path}/w.pt"]
        return subprocess.run(command, env=os.environ | own | values, capture_output=True, text=True, check=False, timeout=120)

    return run


def test_the_script_starts_what_the_recipe_wants(script, tmp_path):
    (tmp_path / "out" / "val").mkdir(parents=True)  # as what was interrupted leaves it
    done = script("out", CAPACITY="90000")
    assert done.returncode == 0, done.stderr
    renders = (tmp_path / "renders").read_text().splitlines()
    assert sum("--wide" in row for row in renders) == 4 and len(renders) == 14 + 2
    validation = [row.split("/out/val-unfinished ")[1] for row in renders if "/out/val-unfinished " in row]
    assert sorted(validation) == [f"--split test --seed 2 --size 128 --first {k} --count 1" for k in (0, 1)]
    training = (tmp_path / "training").read_text()
    wide = training.split("--wide-shards ")[1].split(" --val")[0].split()
    assert [Path(folder).name for folder in wide] == ["wide-outfits", "wide-things", "wide-leaps", "wide-people"]
    assert f"--start student={tmp_path}/w.pt" in training and "--device cuda" in training
    assert "--capacity 90000" in training and "--wait" in training and "--delete-taken" in training
    assert [str(path.relative_to(tmp_path)) for path in (tmp_path / "out").glob("val*/*")] == ["out/val/a.npz"]


def test_what_is_ready_is_not_rendered(script, tmp_path):
    for name in ("held", "one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.npz").touch()
    done = script("out", VAL=str(tmp_path / "held"), READY=f"{tmp_path}/one:{tmp_path}/two", RENDERERS="14")
    assert done.returncode == 0, done.stderr
    assert not [row for row in (tmp_path / "renders").read_text().splitlines() if "/val" in row]
    training = (tmp_path / "training").read_text()
    assert f"--ready {tmp_path}/one {tmp_path}/two --shards" in training and f"--val {tmp_path}/held --out" in training


def test_a_renderer_that_ends_is_told(script, tmp_path):
    died = script("died", ENDS="1")
    assert died.returncode == 1 and "warning: a renderer ended" in died.stderr and "but a renderer ended on the way" in died.stderr
    assert "--capacity" not in (tmp_path / "training").read_text()


@pytest.mark.parametrize("kinds, fails, begins", [("1 0", "--wide", False), ("1 1", "--wide", True), ("0 1", "/outfits", False)])
def test_a_renderer_that_training_waits_for_ends_it(script, tmp_path, kinds, fails, begins):
    for name in ("held", "ready"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.npz").touch()
    values = {"VAL": str(tmp_path / "held"), "READY": str(tmp_path / "ready"), "RENDERERS": "14"}
    died = script("out", ENDS="1", READY_KINDS=kinds, FAILS=fails, **values)
    assert died.returncode == 1 and ("warning: a renderer ended" in died.stderr) == begins
    assert ("error: rendering ended; see" in died.stderr) != begins


@pytest.mark.parametrize("values, says", [
    ({"CHECKED": "cpu", "recipe": "student.json"}, "settings alone are for `train`"),
    ({"CHECKED": "cpu"}, "w.pt is not a whole checkpoint or weights file"),
    ({"CHECKED": "cuda", "CUDA_VISIBLE_DEVICES": ""}, "can use no GPU here; look at nvidia-smi"),
    ({"CAPACITY": "1e5"}, "CAPACITY 1e5 is not a number of pictures"),
    ({"FIRST": ""}, "FIRST, the number of the first shard, is not set"),
    ({"VAL": "/none"}, "VAL: there are no shards in /none"),
    ({"READY": "/none"}, "READY: there are no shards in /none"),
])
def test_the_script_refuses_before_it_renders(script, tmp_path, values, says):
    failed = script("out", **values)
    assert failed.returncode == 1 and says in failed.stderr
    assert not (tmp_path / "renders").exists() and not (tmp_path / "training").exists()
