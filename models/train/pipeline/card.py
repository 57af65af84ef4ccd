"""The model card and the training curve. Tables and figures about this version and the one before come from measured scores; what
was seen to go wrong, and how things came to be, is a text that somebody wrote (`runs/faults.md`)."""

import json
from pathlib import Path

INTRODUCTION = """# Model card: {name} {version}

**What it is for.** Finding the parts of people (fifteen part classes, left and right apart, and whole people) in the
picture of a fitness mirror's camera, on the device, for an overlay that lies on the viewer's own reflection.

**What it must not be used for.** Identifying, tracking across places, counting for surveillance, or judging people;
medical or safety decisions; anything where a missed or misplaced limb can hurt somebody. It knows parts of bodies,
not who they belong to.

**How it was made.** From random weights, on rendered pictures only (`models/train/render`): MakeHuman people, clothes,
hair and skins, in rendered and panoramic surroundings. No photograph of a person was used in training, calibration or
choice of weights. It is a network of {parameters:.2f} M parameters and {macs:.2f} GMAC at 256 x 192; the convolutions
run in int8, the decoder in float.

**The run.** {run}
The recipe of its last stretch is `models/train/{recipe}`, the log of all of it `models/train/{log}`.
"""

CORES = "one or two processor cores that other work shared"

OUTLOOK = """## What it gets wrong

`{sheet}` shows pictures of the test set, each with the truth and the answer below it: first a random choice, then the scenes with people and
last those without people in which most pixels are wrong.
{measured}{faults}

Scores on rendered scenes do not predict real ones: expect clearly lower figures in front of a camera, most of all for
clothes, light, surroundings and things that the renderer does not know.
"""


# The rendered sets that versions are compared on, as a reader would call them.
SETS = {
    "int8": "the test scenes",
    "outfits": "richer wardrobe",
    "gowns": "long clothes",
    "moves": "moves",
    "leaps": "leaps",
    "tones": "the same scenes in six tones",
    "wide": "wide",
    "wide_upright": "wide, at an upright input",
    "things": "among things",
}
# Sets that a version may have: for the inputs that pictures of 16 to 9 get.
NARROW = {"narrow": "narrow, 288 x 160", "narrow_wide": "narrow on its side, 160 x 288"}
# The same for photographs: set, score, and what it is.
PHOTOGRAPHS = (
    ("COCO, nobody", "false-alarm pixels", "nobody: false-alarm pixels"),
    ("Clothing Co-Parsing", "silhouette IoU", "whole people in the street: silhouette IoU"),
    ("Human-Segmentation-Dataset", "silhouette IoU", "any framing: silhouette IoU"),
    ("COCO, people", "silhouette IoU", "COCO's people: silhouette IoU"),
    ("one whole person, middles of bones", "right", "one whole person: middles of bones"),
    ("middles of bones", "right", "many in crowds: middles of bones"),
    ("sports, middles of bones", "right", "sports: middles of bones"),
    ("sports, head below the hips, middles of bones", "right", "sports, head below the hips: middles of bones"),
)


def read_log(path: Path) -> list:
    """Records of a training log, which may be several runs' one after another: a run that began from another's weights
    counts its pictures and seconds on from theirs."""
    records, seen, began, latest = [], 0, 0, 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: cut off or no record ({error}); delete that line") from error
        # The same origin again is the same run again, stopped before its first checkpoint.
        if record["event"] == "origin" and record.get("seen", 0) != seen:
            seen, began = record["seen"], latest
        elif record["event"] in ("step", "stop"):
            record |= {"seen": record["seen"] + seen, "seconds": record["seconds"] + began}
            latest = record["seconds"]
        records.append(record)
    return records


def run_sentence(records: list) -> str:
    """Where the run began, how long it was, and how much its last tenth still moved the score."""
    steps = scored(records)
    if not steps:
        raise ValueError("the training log has no score in it; train until the first record of a step")
    last = steps[-1]
    origins = [r for r in records if r["event"] == "origin"]
    spent = " and ".join(f"{seconds / 60:.0f} minutes on {place}" for place, seconds in minutes_by_place(records).items())
    return (
        (f"It began from {origins[0]['weights']}. " if origins else "")
        + f"It saw {last['seen']:,} augmented pictures in {spent}. "
        + end_sentence(*comparable(records), bool(last.get("finished")))
    )


def scored(records: list) -> list:
    """The records that have scores on the validation pictures."""
    return [r for r in records if r["event"] in ("step", "stop") and r.get("val")]


def comparable(records: list) -> tuple:
    """The scored records since the validation pictures last changed, how many pictures had been seen by then, and the
    run's name."""
    changed = last_change(records)
    before = scored(records[: changed + 1])
    return scored(records[changed + 1 :]), before[-1]["seen"] if before else 0, "run" if changed < 0 else "part that was scored on the same pictures"


def last_change(records: list) -> int:
    """Index of the record at which the validation pictures last changed, -1 if they never did. A run's start has their
    digest; logs of before that have an event of their own for it, and pictures without a digest are not taken for ones
    with one."""
    changed, known, scores = -1, None, False
    for index, record in enumerate(records):
        scores = scores or bool(record.get("val"))
        if record["event"] == "validation":
            changed = index
        elif record["event"] == "start" and record.get("validation") != known:
            known = record.get("validation")
            changed = index if scores else changed
    return changed


def minutes_by_place(records: list) -> dict:
    """Seconds of training on each kind of machine, as a reader would call it, in the order of the log."""
    spent, before, place = {}, 0, CORES
    for record in records:
        if record["event"] == "start":
            place = CORES if record["device"] == "cpu" else f"an {record['device']}"
        elif record["event"] in ("step", "stop"):
            spent[place] = spent.get(place, 0) + record["seconds"] - before
            before = record["seconds"]
    return spent


def end_sentence(steps: list, since: int, name: str, finished: bool) -> str:
    """How much the last tenth of the pictures after `since` moved the score, and what that says. Where scores are too far
    apart for a tenth it is as much as lies between the last two that are at least that far apart."""
    last = steps[-1]
    before = [r for r in steps if r["seen"] <= since + 0.9 * (last["seen"] - since)]
    if not before:
        return "It was too short to say how much its last tenth moved the score."
    moved = last["val"]["ppp_miou"] - before[-1]["val"]["ppp_miou"]
    share = (last["seen"] - before[-1]["seen"]) / (last["seen"] - since)
    part = "tenth" if share < 0.2 else f"{100 * share:.0f} %"
    if moved > 0.5:
        meaning = "so it is undertrained: a longer run will be better."
    elif finished:
        meaning = "with a learning rate that had fallen to almost nothing: the schedule had ended, which does not say that the network can learn no more."
    else:
        meaning = "and it was stopped before its schedule ended."
    return f"The last {part} of the {name} moved the seven-class mIoU by {moved:+.1f} points, {meaning}"


def class_table(scores: dict) -> str:
    """IoU per class, fine and coarse."""
    lines = ["| class | IoU % |", "|---|---|"]
    lines += [f"| {name} | {value:.1f} |" for name, value in scores["iou"].items()]
    lines += ["", "| PASCAL-Person-Part class | IoU % |", "|---|---|"]
    lines += [f"| {name} | {value:.1f} |" for name, value in scores["ppp_iou"].items()]
    return "\n".join(lines)


def overall_table(int8: dict, exact: dict) -> str:
    """The headline figures, int8 through onnxruntime beside float through PyTorch."""
    rows = {
        "mIoU, 16 classes": "miou",
        "mIoU, seven classes": "ppp_miou",
        "person IoU": "person_iou",
        "pixel accuracy": "pixel_accuracy",
        "left/right confusion, of limb pixels": "left_right",
        "false-alarm pixels in people-free scenes": "false_alarms",
    }
    lines = ["| % | int8, onnxruntime | float, PyTorch |", "|---|---|---|"]
    lines += [f"| {title} | {int8[key]:.2f} | {exact[key]:.2f} |" for title, key in rows.items()]
    for title, key in (("whole people found", "recall"), ("found people that are real", "precision")):
        lines.append(f"| {title} (mask IoU above one half) | {int8['people'][key]:.2f} | {exact['people'][key]:.2f} |")
    return "\n".join(lines)


def group_table(key: str, groups: dict) -> str:
    """Scores of the values of one grouping."""
    lines = [
        f"| {key.replace('_', ' ')} | pictures | mIoU | seven-class | person IoU | left/right |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {v} | {g['images']} | {g['miou']:.1f} | {g['ppp_miou']:.1f} | {g['person_iou']:.1f} | {g['left_right']:.1f} |"
        for v, g in groups.items()
    ]
    return "\n".join(lines)


def group_tables(scores: dict) -> str:
    """One table per grouping of the test set."""
    return "\n\n".join(group_table(key, groups) for key, groups in scores["groups"].items())


def apart(groups: dict, key: str) -> float:
    """How far the best of some groups is above the worst."""
    values = [group[key] for group in groups.values()]
    return round(max(values) - min(values), 2)


def headlines(version: str, scores: dict) -> dict:
    """What the next version's card will compare itself with: a few figures of every set, and what they were measured on."""
    keys = ("images", "digest", "miou", "ppp_miou", "person_iou", "left_right", "false_alarms")
    return {
        "version": version,
        "scenes": {name: {key: scores[name][key] for key in keys} for name in [*SETS, *(name for name in NARROW if name in scores)]},
        "people_among_things": scores["things"]["groups"]["people"]["1"]["person_iou"],
        "tones": {"same": apart(scores["tones"]["groups"]["tone"], "ppp_miou"), "different": apart(scores["int8"]["groups"]["tone"], "ppp_miou")},
        "photographs": {title: scores["photographs"][name][key] for name, key, title in PHOTOGRAPHS},
        "pictures": {title: scores["photographs"][name]["pictures"] for name, _, title in PHOTOGRAPHS},
    }


def asked_section(info: dict, now: dict, before: dict, scores: dict) -> str:
    """What was asked of the network beside what was measured. `now` and `before` are `headlines`, `scores` those of now."""
    test, then = now["scenes"]["int8"], before["scenes"]["int8"]
    version = before["version"]
    both = lambda value, older: f"{value:.1f}; {version} had {older:.1f}"
    titles = {name: (key, title) for name, key, title in PHOTOGRAPHS}

    def shown(name: str) -> str:
        key, title = titles[name]
        again = 100 * scores["photographs_again"][name][key]
        return f"{again:.1f} looked at again, at one look {both(100 * now['photographs'][title], 100 * before['photographs'][title])}"

    cost = scores["float"]["ppp_miou"] - test["ppp_miou"]
    rows = [
        ("multiply-accumulates and parameters", "1.0 G, 2.5 M", f"{info['macs']:.2f} G, {info['parameters']:.2f} M"),
        ("trunk file", "3 MB", f"{info['trunk'] / 1e6:.2f} MB"),
        ("seven-class mIoU, rendered test scenes", "80", both(test["ppp_miou"], then["ppp_miou"])),
        ("person IoU", "93", both(test["person_iou"], then["person_iou"])),
        ("left/right confusion", "below 5", both(test["left_right"], then["left_right"])),
        ("cost of int8, points of seven-class mIoU", "at most 1.0", f"{cost:.1f}" if cost > 0 else f"none ({cost:.1f})"),
        ("false-alarm pixels, photographs of nobody", "0.5, at most 3", shown("COCO, nobody")),
        ("silhouette, photographs of whole people in the street", "92, at least 88", shown("Clothing Co-Parsing") + "; within the box of the labelled person"),
        ("middles of bones, photographs of one whole person", "80, at least 70", shown("one whole person, middles of bones")),
        ("middles of bones, photographs with crowds", "80, at least 70", shown("middles of bones")),
        ("skin tones in the same scenes, best above worst, points of seven-class mIoU", "at most 3", both(now["tones"]["same"], before["tones"]["same"])),
        ("skin tones in different scenes, the same", "at most 3", both(now["tones"]["different"], before["tones"]["different"])),
    ]
    return (
        "## Against what was asked\n\nIn per cent where nothing else is said.\n\n| | wanted | measured here |\n|---|---|---|\n"
        + "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n"
    )


def same_pictures(title: str, newer: dict, older: dict, version: str) -> bool:
    """Whether figures of now and of `version` are known to be of the same pictures: `ValueError` if they are not, and `False` if
    the older ones, kept before there were digests, are of as many."""
    if older["images"] != newer["images"]:
        raise ValueError(f"{title}: {newer['images']} scenes are scored, and {older['images']} of {version}; they must be the same")
    if older.get("digest", newer["digest"]) != newer["digest"]:
        raise ValueError(f"{title}: other pictures or labels are scored than of {version}; render them with the code and assets of then, or score {version} on these")
    return "digest" in older


def since_section(now: dict, before: dict) -> str:
    """This version and the one before on the same scenes and photographs."""
    version = before["version"]
    pair = lambda one: f"{one['ppp_miou']:.1f}, {one['person_iou']:.1f}"
    both = {title: (now["scenes"][name], before["scenes"][name]) for name, title in (SETS | NARROW).items() if name in now["scenes"] and name in before["scenes"]}
    known = [same_pictures(title, newer, older, version) for title, (newer, older) in both.items()]
    scenes = "the same rendered scenes" if all(known) else f"as many rendered scenes of each kind (no digest was kept with {version} that shows them to be the same pictures)"
    text = f"### Since {version}\n\nOn {scenes}, seven-class mIoU and person IoU:\n\n| scenes | {version} | {now['version']} |\n|---|---|---|\n"
    for title, (newer, older) in both.items():
        text += f"| {title} ({newer['images']}) | {pair(older)} | {pair(newer)} |\n"
    text += f"| a person among things: person IoU alone | {before['people_among_things']:.1f} | {now['people_among_things']:.1f} |\n"
    alarms = lambda headline: headline["scenes"]["things"]["false_alarms"]
    text += f"| things alone: false-alarm pixels | {alarms(before):.2f} | {alarms(now):.2f} |\n"
    text += f"\nOn photographs of the same sets, as many of each:\n\n| photographs | {version} | {now['version']} |\n|---|---|---|\n"
    for title, value in now["photographs"].items():
        count, older = now["pictures"][title], before["pictures"][title]
        if count != older:
            raise ValueError(f"{title}: {count} photographs are scored, and {older} of {version}; they must be the same")
        text += f"| {title} ({now['pictures'][title]}) | {100 * before['photographs'][title]:.1f} | {100 * value:.1f} |\n"
    return text + "\n"


def measured_faults(scores: dict) -> str:
    """What goes wrong and has a figure, as the first items of the list."""
    whole, groups = scores["int8"], scores["int8"]["groups"]
    one_in = lambda group, what="one": f"{what} in {100 / max(group['left_right'], 0.1):.0f}"
    pixel = lambda group: one_in(group, "one limb pixel")
    below = lambda better, worse: f"{better['ppp_miou'] - worse['ppp_miou']:.1f} points of seven-class mIoU and {better['person_iou'] - worse['person_iou']:.1f} of person IoU"
    people, light = groups["people"], groups["light"]
    leaps, moves = scores["leaps"], scores["moves"]
    return (
        f"- Left and right are exchanged on {pixel(whole)}: {one_in(people['1'])} where a person is alone, {one_in(people['3'])} with three,\n"
        f"  {one_in(light['dark'])} in the dark.\n"
        f"- Beyond 3 m it scores {below(whole, groups['distance']['over 3 m'])} below the whole set, in dark pictures\n"
        f"  {below(light['bright'], light['dark'])} below bright ones, with three people\n"
        f"  {below(people['1'], people['3'])} below one alone.\n"
        "- Sports, dance and gymnastics are the hardest poses that were tried: on scenes of people who leap, kick, or stand on their hands it has\n"
        f"  {leaps['ppp_miou']:.1f} of seven-class mIoU and {leaps['person_iou']:.1f} of person IoU, and left and right are exchanged on {pixel(leaps)}; on scenes in\n"
        f"  which a third do an exercise on the floor {moves['ppp_miou']:.1f} and {moves['person_iou']:.1f}.\n"
    )


def tone_section(tones: dict) -> str:
    """The comparison of skin tones over scenes that differ in nothing else, from `evaluate` on `render tones`."""
    groups = tones["groups"]["tone"]
    spread = {k: apart(groups, k) for k in ("ppp_miou", "person_iou")}
    return (
        "### Skin tone alone\n\n"
        "The groups above differ in people, rooms and poses too. Here the same scenes were rendered once with every tone,\n"
        f"from the lightest (0) to the darkest: best and worst are {spread['ppp_miou']:.1f} apart in seven-class mIoU and "
        f"{spread['person_iou']:.1f} in person IoU.\n\n" + group_table("tone", groups) + "\n\n"
    )


def thing_section(things: dict) -> str:
    """What is taken for a person in scenes where something else fills the picture."""
    rows = ["| what fills the picture | pictures of nobody | false-alarm pixels % |", "|---|---|---|"]
    rows += [f"| {place} | {r['images']} | {r['false_alarms']:.2f} |" for place, r in things["false_alarms_by_place"].items()]
    return (
        "### Things that are not people\n\n"
        f"In {things['images']} rendered scenes of food, animals, made things and abstract clutter that fill the picture,\n"
        f"{things['false_alarms']:.2f} % of the pixels of people-free scenes were called a person; where a person stands among\n"
        f"them, the person IoU is {things['groups']['people']['1']['person_iou']:.1f}, and with all pictures counted {things['person_iou']:.1f}.\n"
        "The bars beside pictures of another shape than the input count as pixels, and nothing is found on them: of the pictures\n"
        "themselves, about a fifth more is called a person.\n\n" + "\n".join(rows) + "\n\n"
    )


def headline(scores: dict) -> str:
    """The end of a table's row: 16-class and seven-class mIoU, person IoU, left/right confusion."""
    return "| " + " | ".join(f"{scores[key]:.1f}" for key in ("miou", "ppp_miou", "person_iou", "left_right")) + " |\n"


def wide_section(wide: dict, upright: dict, narrow: dict, records: list) -> str:
    """The same wide pictures at the network's wide input, and made to fit its upright one; and their scenes before cameras of 16 to 9
    at the narrow inputs, where `narrow` has scores of a set of `NARROW`. `records`: the training log."""
    share = max((r["config"].get("wide", 0) for r in records if r["event"] == "start"), default=0)
    learned = f"in its last stretches up to {share:.0%} of the batches were wide" if share else "it was trained on upright inputs alone"
    return (
        "### Pictures of a camera on its side\n\n"
        f"On {wide['images']} rendered wide test scenes. The network runs at a wide input with the same weights and the\n"
        f"same work, and that is what the mirror does; {learned}.\n\n"
        "| input | mIoU | seven-class | person IoU | left/right |\n|---|---|---|---|---|\n"
        f"| 192 x 256 {headline(wide)}| 256 x 192, the picture small in the middle {headline(upright)}"
        + "".join(f"| {NARROW[name]}: the same {scores['images']} scenes before a camera of 16 to 9 {headline(scores)}" for name, scores in narrow.items())
        + "\n"
    )


def wardrobe_section(outfits: dict, gowns: dict, moves: dict, leaps: dict) -> str:
    """The headline figures on people in the richer wardrobe, in long clothes and in more poses."""
    return (
        "### A richer wardrobe, more poses\n\n"
        "On rendered test scenes of people in suits, hats, glasses, beards, scarves, with bags and behind tables; of people in\n"
        "clothes that hang from the hips or the shoulders (long skirts, gowns, robes, coats, wide trousers); of people who train\n"
        "on the floor, kneel, lie, fold their arms, hold a hand to the hip or the face; and of people who kick, leap, throw, run,\n"
        "stand on their hands or turn over:\n\n"
        "| scenes | pictures | mIoU | seven-class | person IoU | left/right |\n|---|---|---|---|---|---|\n"
        f"| outfits | {outfits['images']} {headline(outfits)}| long clothes | {gowns['images']} {headline(gowns)}"
        f"| moves | {moves['images']} {headline(moves)}| leaps | {leaps['images']} {headline(leaps)}\n"
    )


def faults_of(text: str, version: str, where) -> str:
    """The text about what goes wrong without its first line, `version = X`: what was seen of one version is not said of another."""
    first, _, rest = text.partition("\n")
    name, _, value = (part.strip() for part in first.partition("="))
    if name != "version":
        raise ValueError(f"{where} begins with {first[:40]!r}; its first line must be `version = {version}`")
    if value != version:
        raise ValueError(f"{where} is of {value} and not of {version}; write what was seen of {version}, then change its first line")
    return rest.strip()


def again_section(once: dict, again: dict) -> str:
    """What further looks at a picture are worth: `mirror eval` on the same rendered scenes with `--once` and without."""
    if once["images"] != again["images"]:
        raise ValueError(f"{once['images']} detailed scenes were looked at once and {again['images']} again; measure both on all")
    rows = (("mIoU, 16 classes", "miou"), ("person IoU", "person_iou"), ("pixel accuracy", "pixel_accuracy"), ("false-alarm pixels in people-free scenes", "false_alarms"))
    return (
        "### Looked at again\n\n"
        "`mirror parse` and `mirror eval` look again, larger and by the mirror image, where a first look found people, and once more at\n"
        "everybody who is small in that (`firmware/mirror/src/second_look.rs`). A camera's pictures get one look, and all figures above are\n"
        f"of one. On {once['images']} rendered test scenes of three times the input's sides (`render testset --detail 3`), by the shipped engine:\n\n"
        "| % | one look | looked at again |\n|---|---|---|\n"
        + "".join(f"| {title} | {100 * once[key]:.1f} | {100 * again[key]:.1f} |\n" for title, key in rows) + "\n"
    )


def photograph_section(once: dict, again: dict) -> str:
    """Scores of `tests/peers/photographs.py`, with `--once` and without, as one table."""
    rows = ["| set | pictures | what | one look | looked at again |", "|---|---|---|---|---|"]
    counts = lambda photographs: {name: scores["pictures"] for name, scores in photographs.items()}
    if counts(once) != counts(again):
        raise ValueError("the photographs of one look and of more are not the same sets; measure both on all")
    for name, scores in once.items():
        values = [(key, value) for key, value in scores.items() if key not in ("pictures", "points")]
        rows += [f"| {name} | {scores['pictures']} | {key} | {100 * value:.1f} % | {100 * again[name][key]:.1f} % |" for key, value in values]
    return (
        "## On photographs\n\n"
        "Public photographs, none of them used for training or calibration. What the renderer lacked was found by looking at some of\n"
        'them, the sports among them, and one setting had a second look there; "What it gets wrong" says which. Measured by\n'
        "`tests/peers/photographs.py` with the shipped engine. They are harder than a mirror's view (crowds, people cut\n"
        "off, close-ups of food and animals) and the only figures here about the real world. A camera's pictures get one look;\n"
        "`mirror parse` and `mirror eval` look again.\n\n" + "\n".join(rows) + "\n\n"
    )


def card(info: dict, scores: dict, before: dict, log: Path, sheet: str, faults: str) -> str:
    """The text of CARD.md. `info`: name, version, parameters in millions, macs in giga, trunk in bytes, log and recipe as named
    in the card. `before`: `headlines` of the version before, on the same scenes and photographs.

    `scores`: `int8` and `float` of `evaluate` on the test scenes, `wide` and `wide_upright` on wide ones without and with
    `--upright`, where there are such ones `detail_once` and `detail_again` of `mirror eval` on those of `render testset --detail 3`, and `narrow` and `narrow_wide` on those of `--frame 288x160` and `160x288`, `tones` on those of `render tones`, `outfits`, `gowns`, `moves`, `leaps`
    and `things` on those of `render shards --scenes`, `photographs` of `tests/peers/photographs.py --once` and `photographs_again` of it
    without that option.
    """
    int8, exact = scores["int8"], scores["float"]
    if int8["digest"] != exact["digest"]:
        raise ValueError("the scores in int8 and in float are of other pictures; evaluate both on the same shards, with the same --skip")
    text = INTRODUCTION.format(run=run_sentence(read_log(log)), **info)
    text += f"\n## Measured\n\nOn {int8['images']} rendered test scenes, with seeds, surroundings and cloth never trained on (the shapes of\ngarments, hair, the skins, and captured and ready-made poses are few and the same).\n\n"
    text += (
        overall_table(int8, exact) + "\n\n" + class_table(int8) + "\n\n### By group\n\n"
        "A picture counts for the tone, age, build, sex and distance of its first person; all people in it are judged.\n\n"
        + group_tables(int8) + "\n\n"
    )
    narrow = {name: scores[name] for name in NARROW if name in scores}
    text += wide_section(scores["wide"], scores["wide_upright"], narrow, read_log(log))
    wardrobe = wardrobe_section(*(scores[name] for name in ("outfits", "gowns", "moves", "leaps")))
    text += tone_section(scores["tones"]) + wardrobe
    text += thing_section(scores["things"])
    if "detail_once" in scores:
        text += again_section(scores["detail_once"], scores["detail_again"])
    text += photograph_section(scores["photographs"], scores["photographs_again"])
    now = headlines(info["version"], scores)
    text += asked_section(info, now, before, scores) + since_section(now, before)
    return text + OUTLOOK.format(sheet=sheet, measured=measured_faults(scores), faults=faults)


def curve(log: Path) -> str:
    """The scores over the pictures seen, as a small SVG."""
    points = scored(read_log(log))
    width, height, most = 640, 320, max(r["seen"] for r in points)
    place = lambda r, key: (
        f"{40 + (width - 60) * r['seen'] / most:.1f},{height - 30 - (height - 50) * r['val'][key] / 100:.1f}"
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
    ]
    lines.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    for percent in range(0, 101, 20):
        y = height - 30 - (height - 50) * percent / 100
        lines.append(f'<path d="M40 {y:.0f}H{width - 20}" stroke="#ddd"/><text x="12" y="{y + 4:.0f}">{percent}</text>')
    for row, (key, colour, title) in enumerate(
        (
            ("person_iou", "#36a", "person IoU"),
            ("ppp_miou", "#c52", "seven-class mIoU"),
            ("miou", "#285", "16-class mIoU"),
        )
    ):
        track = " ".join(place(r, key) for r in points)
        lines.append(f'<polyline points="{track}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        lines.append(f'<text x="{60 + 150 * row}" y="{height - 8}" fill="{colour}">{title}</text>')
    lines.append(f'<text x="{width - 150}" y="{height - 8}">{most:,} pictures seen</text></svg>')
    return "\n".join(lines) + "\n"
