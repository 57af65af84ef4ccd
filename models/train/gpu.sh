#!/bin/bash
# Renders on the processor and trains on the GPU at once, for a machine that is there for a limited time.
#
#   gpu.sh ASSETS OUT SECONDS RECIPE NAME=WEIGHTS..     e.g. gpu.sh ASSETS /tmp/run 560 recipes/student-0.6.json student=runs/student.pt
#
# Everything lands under OUT: shards, runs/NAME/weights.pt, runs/NAME/log.jsonl, render.log. The schedule is SECONDS long, less the first
# renders; loading PyTorch and the last scores come on top: leave half a minute for them. All cores but two render, and five processes at least.
# PYTHON names another interpreter; FIRST (default 6000) is the number of the first shard: choose one whose scenes were not trained on yet.
set -uo pipefail
[ $# -ge 5 ] || { sed -n '2,8s/^# \?//p' "$0"; exit 2; }
began=$SECONDS
fail() { echo "error: $*" >&2; exit 1; }

# Wrong words are said before anything is rendered: the time is short.
[ -d "$1" ] || fail "$1 is not a folder of assets"
[[ $3 =~ ^[0-9]+$ ]] || fail "$3 is not a number of seconds"
[ -f "$4" ] || fail "there is no recipe $4"
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
first=${FIRST:-6000}
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
folders=() wide=()
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
cores=$(($(nproc) > 6 ? $(nproc) - 2 : 4))
each=$((cores > 9 ? cores / 7 : 1))
things=$each gowns=$each moves=$each leaps=$each outfits=$each people=$((cores > 5 ? cores - 5 * each : 1))
# A recipe that wants wide batches has a third of its pictures rendered for a camera on its side, and one process at least.
if grep -Eq '"wide": *0?\.[0-9]*[1-9]' "$recipe"; then
    wide=("$out/wide-gowns" "$out/wide-leaps" "$out/wide-moves" "$out/wide-outfits" "$out/wide-people" "$out/wide-things")
    render wide-gowns gowns $(((gowns + 2) / 3)) --wide
    render wide-leaps leaps $(((leaps + 2) / 3)) --wide
    render wide-moves moves $(((moves + 2) / 3)) --wide
    render wide-things things $(((things + 2) / 3)) --wide
    render wide-outfits outfits $(((outfits + 2) / 3)) --wide
    render wide-people people $(((people + 2) / 3)) --wide
    things=$((things > 1 ? things - (things + 2) / 3 : 1)) gowns=$((gowns > 1 ? gowns - (gowns + 2) / 3 : 1))
    moves=$((moves > 1 ? moves - (moves + 2) / 3 : 1)) leaps=$((leaps > 1 ? leaps - (leaps + 2) / 3 : 1))
    outfits=$((outfits > 1 ? outfits - (outfits + 2) / 3 : 1)) people=$((people > 1 ? people - (people + 2) / 3 : 1))
fi
render things things $things
render outfits outfits $outfits
render gowns gowns $gowns
render moves moves $moves
render leaps leaps $leaps
render people people $people
for pid in "${validation[@]}"; do wait "$pid" || broken; done
until one_of_each; do
    rendering || broken
    sleep 0.5
done

left=$((began + seconds - SECONDS))
[ $left -gt 0 ] || fail "$seconds seconds were over when the first shards were there; give it more"
"$python" -m pipeline together --recipe "$recipe" --shards "$out/people" "$out/outfits" "$out/gowns" "$out/moves" "$out/leaps" "$out/things" --val "$out/val" --out "$out/runs" \
    --wide-shards "${wide[@]}" --start "${starts[@]}" --seconds $left --log-every 45 &
training=($!)
wait "${training[0]}"
