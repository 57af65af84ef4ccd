#!/bin/bash
# Renders on all cores but two and trains on the GPU at once, for a machine that is there for a limited time.
#
#   gpu.sh ASSETS OUT SECONDS RECIPE NAME=WEIGHTS..     e.g. gpu.sh ASSETS /tmp/run 580 recipes/student-0.6.json student=runs/student.pt
#
# Everything lands under OUT: shards, runs/NAME/weights.pt, runs/NAME/log.jsonl, render.log. The schedule is SECONDS long, less the first
# renders; loading PyTorch and the last scores come on top: leave half a minute for them. PYTHON names another interpreter; FIRST
# (default 6000) is the number of the first shard: choose one whose scenes were not trained on yet.
set -uo pipefail
[ $# -ge 5 ] || { sed -n '2,9s/^# \?//p' "$0"; exit 2; }
began=$(date +%s)
assets=$(realpath "$1") out=$(realpath -m "$2") seconds=$3 recipe=$(realpath "$4")
starts=()
for start in "${@:5}"; do starts+=("${start%%=*}=$(realpath "${start#*=}")"); done
cd "$(dirname "$0")" || exit
python=${PYTHON:-python3} first=${FIRST:-6000}
export OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
mkdir -p "$out"

render() { # SCENES PROCESSES
    local k
    for ((k = 0; k < $2; k++)); do
        $python -m render shards --assets "$assets" --scenes "$1" --plain --size 64 --first $((first + k)) --step "$2" --out "$out/$1" >>"$out/render.log" 2>&1 &
        renderers+=($!)
    done
}

renderers=()
trap 'kill "${renderers[@]}" 2>/dev/null' EXIT
validation=()
for k in 0 1; do
    $python -m render shards --assets "$assets" --split test --size 128 --first $k --count 1 --out "$out/val" >>"$out/render.log" 2>&1 &
    validation+=($!)
done
cores=$(($(nproc) - 2))
things=$((cores / 7 > 0 ? cores / 7 : 1)) outfits=$((cores * 3 / 7 > 0 ? cores * 3 / 7 : 1))
people=$((cores - things - outfits > 0 ? cores - things - outfits : 1))
render people $people
render outfits $outfits
render things $things
wait "${validation[0]}" && wait "${validation[1]}" || { echo "rendering failed:" && tail -n 5 "$out/render.log"; exit 1; } >&2
until [ -n "$(find "$out/people" -name '*.npz' 2>/dev/null)" ] && [ -n "$(find "$out/outfits" -name '*.npz' 2>/dev/null)" ] &&
    [ -n "$(find "$out/things" -name '*.npz' 2>/dev/null)" ]; do
    kill -0 "${renderers[@]}" 2>/dev/null || { echo "rendering failed:" && tail -n 5 "$out/render.log"; exit 1; } >&2
    sleep 0.5
done
$python -m pipeline together --recipe "$recipe" --shards "$out/people" "$out/outfits" "$out/things" --val "$out/val" --out "$out/runs" \
    --start "${starts[@]}" --seconds $((began + seconds - $(date +%s))) --log-every 45
