"""A teacher and its students trained at once, and schedules counted in seconds."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.config import TrainConfig
from pipeline.data import ShardError
from pipeline.resident import Mixed, Resident
from pipeline import together
from pipeline.states import StateError, load_parser, pictures_seen, read_state, save_state
from pipeline.together import NEXT, Position, await_shards, check_before, make_runs, save_all, train_together
from pipeline.train import CHECKPOINT, LOG, Run, TrainError

SILENT = {"distil_class": 0.0, "distil_mask": 0.0, "distil_semantic": 0.0}


def recipe(samples=16):
    shared = {"phases": [[128, 96, 4, samples]], "points": 64, "warmup": 4, "val_images": 4}
    return {
        "teacher": shared | SILENT | {"network": "tiny-teacher"},
        "student": shared | {"network": "tiny"},
        "baseline": shared | SILENT | {"network": "tiny"},
    }


def some(*names, samples=16):
    """The recipe of some of the three runs, for what is the same for any number of them."""
    return {name: recipe(samples)[name] for name in names}


def trained(shard_folder, out, starts=None, seconds=float("inf"), values=None):
    runs = make_runs(values or recipe(), out, "cpu", starts or {})
    source = Resident([shard_folder], 16, "cpu", 0)
    source.refill()
    train_together(runs, source, shard_folder, seconds, 100, 1000, 1000)
    return runs


def records(run):
    return [json.loads(line) for line in (run.out / LOG).read_text().splitlines()]


def test_only_students_with_a_weight_listen_and_all_see_the_same(shard_folder, tmp_path):
    teacher, student, baseline = trained(shard_folder, tmp_path)
    assert [run.seen for run in (teacher, student, baseline)] == [16, 16, 16]
    first, *_, last = records(student)
    assert first["event"] == "start" and last["event"] == "stop" and last["finished"]
    assert last["loss"]["distil_mask"] > 0 and last["val"]["ppp_miou"] >= 0
    assert first["validation"] == records(teacher)[0]["validation"] and len(first["validation"]) == 64
    assert first["distilled"] and not records(baseline)[0]["distilled"] and not records(teacher)[0]["distilled"]
    assert not {"distil_mask", "distil_class"} & (set(records(baseline)[-1]["loss"]) | set(records(teacher)[-1]["loss"]))
    # Same seed, same pictures: what differs is what the teacher said.
    pairs = zip(student.model.parameters(), baseline.model.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert load_parser(tmp_path / "student" / "weights.pt").config == student.model.config


def test_runs_go_on_together_and_start_from_weights(shard_folder, tmp_path):
    trained(shard_folder, tmp_path / "first")
    again = trained(shard_folder, tmp_path / "first", values=recipe(24))
    assert [run.seen for run in again] == [24, 24, 24]
    weights = tmp_path / "first" / "student" / "weights.pt"
    (baseline,) = trained(shard_folder, tmp_path / "second", {"baseline": weights}, values=some("baseline"))
    assert records(baseline)[0] == {"event": "origin", "weights": "weights.pt", "seen": 24, "sha256": records(baseline)[0]["sha256"]}
    assert pictures_seen(read_state(tmp_path / "second" / "baseline" / CHECKPOINT)) == 40


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a twentieth of a second whenever it is looked at: how long a step really takes decides nothing."""
    ticks = itertools.count()
    monkeypatch.setattr(together, "time", SimpleNamespace(monotonic=lambda: 0.05 * next(ticks)))


@pytest.mark.parametrize("samples", [1_000_000, 4], ids=["more", "fewer"])
def test_seconds_alone_end_a_schedule_that_has_some(shard_folder, tmp_path, clock, samples):
    """Whether its recipe names more pictures than are seen by then or fewer."""
    (teacher,) = trained(shard_folder, tmp_path, seconds=4.0, values=some("teacher", samples=samples))
    last = records(teacher)[-1]
    assert last["finished"] and 20 < last["seen"] < 60
    # What the optimiser really had in its last step, with all pictures still to come.
    assert teacher.optimiser.parts[0].param_groups[0]["lr"] < 0.5 * TrainConfig().rate


class Asked(TorchDispatchMode):
    """Names of operations whose result the processor must have before it can go on."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_", "_unsafe_index") else ()
        masked = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
        if masked or name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2"):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


def under_way(shards, out, device):
    """A run of the next recipe's losses after its first step, and its source."""
    values = {"student": recipe(64)["baseline"] | {"jaccard_weight": 5.0, "auxiliary": 0.4}}
    run = make_runs(values, out, device, {})[0]
    source = Resident([shards], 8, device, 0)
    source.refill()
    run.step(source.batch(8, (128, 96), 64))
    return run, source


def test_no_operation_of_a_step_waits_for_another(shard_folder, tmp_path):
    """Sizes and numbers that only the device knows would have it waited for; the costs of the pairing are fetched once."""
    run, source = under_way(shard_folder, tmp_path, "cpu")
    with Asked() as asked:
        run.step(source.batch(8, (128, 96), 64), meanwhile=lambda: source.batch(8, (128, 96), 64))
    assert not asked.names


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_no_operation_of_a_step_waits_either(shard_folder, tmp_path):
    run, source = under_way(shard_folder, tmp_path, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.step(source.batch(8, (128, 96), 64), meanwhile=lambda: source.batch(8, (128, 96), 64))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_next_batch_is_made_within_the_first_runs_step(shard_folder, tmp_path, monkeypatch):
    runs = make_runs(recipe(12), tmp_path, "cpu", {})
    source, order = Resident([shard_folder], 16, "cpu", 0), []
    source.refill()
    made, step = source.batch, Run.step
    monkeypatch.setattr(source, "batch", lambda *values: order.append("made") or made(*values))

    def stepped(run, *values):
        order.append(f"begun {run.out.name}")
        return step(run, *values)

    monkeypatch.setattr(Run, "step", stepped)
    train_together(runs, source, shard_folder, float("inf"), 100, 1000, 1000)
    one = ["begun teacher", "made", "begun student", "begun baseline"]
    assert order == ["made", *one, *one, *one]


def test_the_last_batches_are_mild(shard_folder, tmp_path, monkeypatch):
    runs = make_runs({"baseline": recipe()["baseline"] | {"mild": 0.5}}, tmp_path, "cpu", {})
    source, mild = Resident([shard_folder], 16, "cpu", 0), []
    source.refill()
    made = source.batch
    monkeypatch.setattr(source, "batch", lambda *values: mild.append(values[-1]) or made(*values))
    train_together(runs, source, shard_folder, float("inf"), 100, 1000, 1000)
    assert mild == [False, False, False, True, True]


def test_wide_pictures_take_their_share(shard_folder, wide_folder, tmp_path):
    runs = make_runs({"baseline": recipe()["baseline"] | {"wide": 0.5}}, tmp_path, "cpu", {})
    source = Mixed(Resident([shard_folder], 8, "cpu", 0), Resident([wide_folder], 8, "cpu", 1), 0.5)
    source.refill()
    shapes = {tuple(source.batch(2, (128, 96), 64)["pixels"].shape[2:]) for _ in range(12)}
    assert shapes == {(128, 96), (96, 128)} and source.arrived == 16
    train_together(runs, source, shard_folder, float("inf"), 100, 1000, 1000)
    assert records(runs[0])[0]["config"]["wide"] == 0.5 and records(runs[0])[-1]["finished"]


def test_a_warm_up_is_counted_in_pictures():
    position = Position(1000, 10.0, 40, 5.0)
    assert position.pictures() >= 500 and position.rated(50) == 40 and position.rated(40) >= 500
    # Seconds that have hardly begun when a warm-up ends do not begin it anew, and where there are none the pictures count.
    assert Position(1000, 1e6, 40, 0.0).rated(40) == 40 and Position(1000, float("inf"), 40, 5.0).rated(30) == 40


def test_what_cannot_train_together_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--start names \['pupil'\]"):
        make_runs(recipe(), tmp_path, "cpu", {"pupil": tmp_path / "w.pt"})
    for key, value in {"phases": [[64, 64, 4, 8]], "points": 32, "warmup": 5, "seed": 2, "mild": 0.1}.items():
        uneven = recipe()
        uneven["student"][key] = value
        with pytest.raises(ValueError, match=f"the same {key}, not"):
            make_runs(uneven, tmp_path, "cpu", {})
    for flat in ({"network": "tiny", "points": 64}, [], {}):
        with pytest.raises(ValueError, match="settings alone are for `train`"):
            make_runs(flat, tmp_path, "cpu", {})
    assert not list(tmp_path.iterdir())


def test_what_is_wrong_is_said_before_there_is_a_shard(tiny, tmp_path):
    weights, wide = tmp_path / "w.pt", {name: values | {"wide": 0.25} for name, values in recipe().items()}
    save_state(weights, {"config": {"network": "tiny"}, "average": tiny.state_dict(), "seen": 9})
    assert check_before(wide, {"student": weights}, 16, "cpu").wide == 0.25
    with pytest.raises(ValueError, match="the same seed, not"):
        check_before(recipe() | {"more": recipe()["student"] | {"seed": 2}}, {}, 16, "cpu")
    with pytest.raises(ValueError, match=r"--start names \['pupil'\]"):
        check_before(recipe(), {"pupil": weights}, 16, "cpu")
    with pytest.raises(StateError, match="w.pt holds another network"):
        check_before(recipe(), {"teacher": weights}, 16, "cpu")
    with pytest.raises(ValueError, match="a capacity of 15 keeps 12 upright pictures and 3 wide ones, and a batch has 4; raise --capacity"):
        check_before(wide, {}, 15, "cpu")
    with pytest.raises(ShardError, match="for 1000000000000000 pictures do not fit cpu; lower --capacity"):
        check_before(recipe(), {}, 10**15, "cpu")


def waits(monkeypatch, meanwhile):
    """Has `together` wait without waiting: `meanwhile` gets the number of each wait, and a second goes by."""
    count = itertools.count()
    now = [0.0]

    def sleep(_):
        now[0] += 1
        meanwhile(next(count))

    monkeypatch.setattr(together, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))


def test_training_waits_for_a_shard_of_every_folder_and_for_validation(shard_folder, wide_folder, tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("a", "b", "wide", "val")]
    for folder in folders:
        folder.mkdir()
    a, b, wide, val = folders
    source = Mixed(Resident([a, b], 32, "cpu", 0), Resident([wide], 32, "cpu", 1), 0.5)
    coming = iter([(shard_folder, b), (wide_folder, wide), (shard_folder, a), (shard_folder, val)])
    waited = []

    def meanwhile(number):
        origin, folder = next(coming)
        shutil.copy(origin / "a.npz", folder)
        waited.append(number)

    waits(monkeypatch, meanwhile)
    await_shards(source, val, 100)
    assert waited == [0, 1, 2, 3] and source.arrived == 24
    (val / "a.npz").unlink()
    waits(monkeypatch, lambda number: None)
    with pytest.raises(ShardError, match="no shard in .*val within 5 seconds"):
        await_shards(source, val, 5)


def test_what_is_ready_is_told_by_its_shape(shard_folder, wide_folder):
    (shard_folder / "recipe.json").write_text(json.dumps({"student": recipe()["baseline"] | {"wide": 0.3}}))
    command = [sys.executable, "-m", "pipeline", "check", "--recipe", "recipe.json", "--device", "cpu", "--capacity", "16"]
    command += ["--ready", ".", str(wide_folder), "."]
    own = {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"}
    told = subprocess.run(command, cwd=shard_folder, env=os.environ | own, capture_output=True, text=True, check=True).stdout
    assert told == "300 2 1\n"


def test_training_begins_with_what_is_ready_and_deletes_none_of_it(shard_folder, tmp_path, monkeypatch):
    new = tmp_path / "new"
    new.mkdir()
    for name in "bc":
        shutil.copy(shard_folder / "a.npz", shard_folder / f"{name}.npz")
    waits(monkeypatch, lambda number: pytest.fail("it waits"))
    source = Resident([new], 64, "cpu", 0, True, [shard_folder])
    await_shards(source, shard_folder, 100)
    assert source.arrived == 8, "the rest comes while it trains"
    for name in "ab":
        shutil.copy(shard_folder / "a.npz", new / f"{name}.npz")
    source.refill()
    assert source.arrived == 40 and len(list(shard_folder.glob("*.npz"))) == 3
    assert [path.name for path in new.glob("*.npz")] == ["a.npz"]


def test_interrupted_runs_leave_checkpoints_of_one_position(shard_folder, tmp_path, monkeypatch):
    runs = make_runs(recipe(), tmp_path, "cpu", {})
    source = Resident([shard_folder], 16, "cpu", 0)
    source.refill()
    batches = iter(range(3))

    def batch(*sizes):
        if next(batches, None) is None:
            raise KeyboardInterrupt
        return Resident.batch(source, *sizes)

    monkeypatch.setattr(source, "batch", batch)
    with pytest.raises(KeyboardInterrupt):
        train_together(runs, source, shard_folder, float("inf"), 100, 1000, 1000)
    assert [run.seen for run in make_runs(recipe(), tmp_path, "cpu", {})] == [8, 8, 8]
    (tmp_path / "student" / CHECKPOINT).unlink()
    with pytest.raises(TrainError, match="teacher 8, student 0, baseline 8 pictures"):
        make_runs(recipe(), tmp_path, "cpu", {})


def renames(count, end):
    """`os.replace` that works `count` times and then raises."""
    rename, left = os.replace, iter(range(count))

    def replace(source, target):
        if next(left, None) is None:
            raise end
        rename(source, target)

    return replace


@pytest.mark.parametrize("end", [OSError("the disk is full"), KeyboardInterrupt()], ids=["full", "killed"])
def test_whatever_ends_the_saving_leaves_checkpoints_of_one_position(shard_folder, tmp_path, monkeypatch, end):
    """Every file gets its name by a renaming; each one in turn is the one that fails."""
    students = some("student", "baseline")
    runs, reached, whole = make_runs(students, tmp_path, "cpu", {}), [], False
    for run in runs:
        run.seen = 4
    save_all(runs)
    while not whole:
        for run in runs:
            run.seen += 4
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", renames(len(reached), end))
            try:
                save_all(runs)
                whole = True
            except (OSError, KeyboardInterrupt):
                pass
        again = make_runs(students, tmp_path, "cpu", {})
        reached.append({run.seen == runs[0].seen for run in again})
        assert not list(tmp_path.rglob(NEXT)) and len({run.seen for run in again}) == 1
    # Both checkpoints are written before the new position counts; then both and as many weights get their names.
    assert reached == 2 * [{False}] + 5 * [{True}]


def failing(monkeypatch, name, times):
    """Has a function of `together` raise as on a full disk, `times` times; the list of the calls."""
    works, calls = getattr(together, name), []

    def called(*values):
        calls.append(values[0][0].seen)
        if len(calls) <= times:
            raise OSError("cannot write checkpoint.pt: No space left on device")
        return works(*values)

    monkeypatch.setattr(together, name, called)
    return calls


@pytest.mark.parametrize("name", ["save_all", "report"])
def test_what_cannot_be_written_on_the_way_is_tried_again(shard_folder, tmp_path, monkeypatch, capsys, name):
    values = some("student", "baseline")
    runs, source = make_runs(values, tmp_path, "cpu", {}), Resident([shard_folder], 16, "cpu", 0)
    source.refill()
    calls = failing(monkeypatch, name, 2)
    train_together(runs, source, shard_folder, float("inf"), 100, 0, 0)
    assert calls == [4, 8, 12, 16, 16] and capsys.readouterr().err.count("warning: cannot write checkpoint.pt: No space left") == 2
    assert [run.seen for run in make_runs(values, tmp_path, "cpu", {})] == [16, 16]
    assert [record["event"] for record in records(runs[0])][-2:] == ["step", "stop"]


def test_the_last_saving_that_fails_is_an_error(shard_folder, tmp_path, monkeypatch):
    runs, source = make_runs(some("baseline"), tmp_path, "cpu", {}), Resident([shard_folder], 16, "cpu", 0)
    source.refill()
    failing(monkeypatch, "save_all", 100)
    with pytest.raises(OSError, match="No space left"):
        train_together(runs, source, shard_folder, float("inf"), 100, 0, 0)


def test_a_connection_that_drops_leaves_a_checkpoint(shard_folder, tmp_path):
    """SIGHUP, and at once the SIGTERM of the script that the connection had started."""
    (tmp_path / "recipe.json").write_text(json.dumps({"student": recipe(10**6)["baseline"]}))
    command = [sys.executable, "-m", "pipeline", "together", "--recipe", "recipe.json", "--shards", ".", "--val", ".", "--out", "runs"]
    command += ["--device", "cpu", "--capacity", "16", "--log-every", "0", "--wait", "--ready", "."]
    package = str(Path(__file__).resolve().parents[1])
    own = {"PYTHONPATH": package, "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(command, cwd=shard_folder, env=os.environ | own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert any('"event": "step"' in line for line in run.stdout), run.stderr.read()
    run.send_signal(signal.SIGHUP)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=300)
    assert run.returncode == 130 and "goes on from the last checkpoint" in said
    assert read_state(shard_folder / "runs/student" / CHECKPOINT)["seen"] >= 4


def test_a_first_saving_that_ends_early_leaves_a_run_that_begins(shard_folder, tmp_path, monkeypatch):
    runs = make_runs(recipe(), tmp_path, "cpu", {})
    for run in runs:
        run.seen = 4
    with monkeypatch.context() as patch, pytest.raises(OSError, match="teacher|student|baseline"):
        patch.setattr(os, "replace", renames(2, OSError("the disk is full")))
        save_all(runs)
    assert [run.seen for run in make_runs(recipe(), tmp_path, "cpu", {})] == [0, 0, 0] and not list(tmp_path.rglob("*.pt"))


def test_a_loss_that_is_no_number_leaves_the_last_checkpoints(shard_folder, tmp_path):
    runs = trained(shard_folder, tmp_path)
    with torch.no_grad():
        runs[1].model.predictor.class_head.bias.fill_(float("nan"))
    source = Resident([shard_folder], 16, "cpu", 0)
    source.refill()
    for run in runs:
        run.seen = 8
    with pytest.raises(TrainError, match="the loss is nan.*lower rate in the recipe.*student"):
        train_together(runs, source, shard_folder, float("inf"), 100, 1000, 1000)
    again = make_runs(recipe(), tmp_path, "cpu", {})
    assert [run.seen for run in again] == [16, 16, 16]
    assert all(torch.isfinite(p).all() for run in again for p in run.model.parameters())


def test_no_time_and_no_room_are_said(shard_folder, tmp_path):
    with pytest.raises(ValueError, match="-5.0 seconds has no room"):
        trained(shard_folder, tmp_path, seconds=-5.0)
    with pytest.raises(ValueError, match="capacity of 0"):
        Resident([shard_folder], 0, "cpu", 0)
    with pytest.raises(ShardError, match="8 pictures are more than the capacity of 4"):
        Resident([shard_folder], 4, "cpu", 0).refill()
