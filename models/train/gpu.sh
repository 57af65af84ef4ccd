#!/bin/bash
# Renders on the processor and trains on the GPU at once, for a machine that is there for a limited time.
#
#   gpu.sh ASSETS OUT SECONDS RECIPE NAME=WEIGHTS..     e.g. FIRST=30000 gpu.sh ASSETS /tmp/run 560 recipes/student-0.6.json student=runs/student.pt
#
# Everything lands under OUT: shards, runs/NAME/weights.pt, runs/NAME/log.jsonl, render.log. The schedule is SECONDS long, less the first
# renders; loading PyTorch and the last scores come on top: leave half a minute for them. All cores but two render; six processes at
# least, twelve where the recipe wants wide pictures. FIRST is the number of the first shard: one whose scenes were not trained on yet, which
# the table in README.md tells. PYTHON names another interpreter.
set -uo pipefail
[ $# -ge 5 ] || { sed -n '2,9s/^# \?//p' "$0"; exit 2; }
began=$SECONDS
fail() { echo "error: $*" >&2; exit 1; }

# Wrong words are said before anything is rendered: the time is short.
[ -d "$1" ] || fail "$1 is not a folder of assets"
[[ $3 =~ ^[0-9]+$ ]] || fail "$3 is not a number of seconds"
[ -f "$4" ] || fail "there is no recipe $4"
[[ ${FIRST:-} =~ ^[0-9]+$ ]] || fail "FIRST, the number of the first shard, is not set; README.md tells which numbers were trained on"
ls "$2"/runs/*/checkpoint.pt >/dev/null 2>&1 && fail "$2 holds a run already; take another OUT and start from its weights.pt"
assets=$(realpath "$1") out=$(realpath -m "$2") seconds=$3 recipe=$(realpath "$4")
starts=()
for start in "${@:5}"; do
    [[ $start == *=* && -f ${start#*=} ]] || fail "$start: NAME=WEIGHTS is wanted, as in student=runs/student.pt"
    starts+=("${start%%=*}=$(realpath "${start#*=}")")
done
python=$(command -v "${PYTHON:-python3}") || fail "there is no ${PYTHON:-python3}"
[[ $python == /* ]] || python=$PWD/$python # not resolved: a virtual environment is known by its link
cd "$(dirname "$0")" || exit
first=$FIRST
export OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
mkdir -p "$out" || exit

renderers=() validation=() training=()
# The training leaves a checkpoint when it is ended, which takes it a moment.
stop() {
    kill "${renderers[@]}" "${validation[@]}" "${training[@]}" 2>/dev/null
    wait "${training[@]}" 2>/dev/null
}
trap stop EXIT
trap 'exit 130' INT TERM

shards() { "$python" -m render shards --assets "$assets" --out "$out/$1" "${@:2}" >>"$out/render.log" 2>&1 & }
folders=()
render() { # FOLDER SCENES PROCESSES [--wide]
    local k
    mkdir -p "$out/$1" || exit
    folders+=("$out/$1")
    for ((k = 0; k < $3; k++)); do
        shards "$1" --scenes "$2" --plain --size 64 --first $((first + k)) --step "$3" "${@:4}"
        renderers+=($!)
    done
}
one_of_each() {
    local folder
    for folder in "${folders[@]}"; do ls "$folder"/*.npz >/dev/null 2>&1 || return 1; done
}
rendering() { # fails if one of the renderers has ended
    local pid
    for pid in "${renderers[@]}"; do kill -0 "$pid" 2>/dev/null || return 1; done
}
broken() { tail -n 5 "$out/render.log" >&2; fail "rendering ended; see $out/render.log"; }

for k in 0 1; do
    shards val --split test --size 128 --first $k --count 1
    validation+=($!)
done
# Where the recipe wants wide batches, a third of each kind's processes, and one at least, render for a camera on its side.
upright=() wide=()
grep -Eq '"wide": *0?\.[0-9]*[1-9]' "$recipe" && wants_wide=1 || wants_wide=0
render_kind() { # KIND PROCESSES
    local aside=$((wants_wide * (($2 + 2) / 3)))
    if ((aside)); then
        wide+=("$out/wide-$1")
        render "wide-$1" "$1" $aside --wide
    fi
    upright+=("$out/$1")
    render "$1" "$1" $(($2 > aside ? $2 - aside : 1))
}
cores=$(($(nproc) > 6 ? $(nproc) - 2 : 4))
each=$((cores > 9 ? cores / 7 : 1))
for kind in things outfits gowns moves leaps; do render_kind $kind $each; done
render_kind people $((cores > 5 * each ? cores - 5 * each : 1))
for pid in "${validation[@]}"; do wait "$pid" || broken; done
until one_of_each; do
    rendering || broken
    sleep 0.5
done

left=$((began + seconds - SECONDS))
[ $left -gt 0 ] || fail "$seconds seconds were over when the first shards were there; give it more"
"$python" -m pipeline together --recipe "$recipe" --shards "${upright[@]}" --val "$out/val" --out "$out/runs" \
    --wide-shards "${wide[@]}" --start "${starts[@]}" --seconds $left --log-every 45 &
training=($!)
wait "${training[0]}"
