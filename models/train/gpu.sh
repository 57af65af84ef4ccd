#!/bin/bash
# Renders on the processor and trains on the GPU at once, for a machine that is there for a limited time.
#
#   gpu.sh ASSETS OUT SECONDS RECIPE NAME=WEIGHTS..     e.g. FIRST=30000 gpu.sh ASSETS /tmp/run 560 recipes/student-next.json student=runs/student.pt
#
# Everything lands under OUT: runs/NAME/weights.pt, runs/NAME/log.jsonl, render.log, which names every shard, and the shards until they are
# in the GPU's memory; the first of each kind stays. The schedule is SECONDS long, less the first renders; loading PyTorch and the last
# scores come on top: leave half a minute for them. All cores but two render, six processes at least; as many of them render wide pictures
# as the recipe wants wide batches. FIRST is the number of the first shard: one whose scenes were not trained on yet, which the table in
# runs/HISTORY.md tells. CAPACITY is how many pictures the GPU's memory keeps, 0.25 MB each. PYTHON names another interpreter.
# The GPU waits for the first shards and for those of validation, a minute or more: VAL is a folder where the latter are ready. READY is a
# list of folders of ready shards, upright or wide, with colons between; training begins with theirs, and they stay.
set -uo pipefail
[ $# -ge 5 ] || { sed -n '2,12s/^# \?//p' "$0"; exit 2; }
began=$SECONDS
fail() { echo "error: $*" >&2; exit 1; }
has_shards() { ls "$1"/*.npz >/dev/null 2>&1; }

# Wrong words are said before anything is rendered: the time is short.
[ -d "$1" ] || fail "$1 is not a folder of assets"
[[ $3 =~ ^[0-9]+$ ]] || fail "$3 is not a number of seconds"
[ -f "$4" ] || fail "there is no recipe $4"
[[ ${FIRST:-} =~ ^[0-9]+$ ]] || fail "FIRST, the number of the first shard, is not set; runs/HISTORY.md tells which numbers were trained on"
[[ ${CAPACITY-1} =~ ^[1-9][0-9]*$ ]] || fail "CAPACITY $CAPACITY is not a number of pictures"
[ -z "${VAL:-}" ] || has_shards "$VAL" || fail "VAL: there are no shards in $VAL"
ls "$2"/runs/*/checkpoint.pt >/dev/null 2>&1 && fail "$2 holds a run already; take another OUT and start from its weights.pt"
assets=$(realpath "$1") out=$(realpath -m "$2") seconds=$3 recipe=$(realpath "$4")
starts=()
for start in "${@:5}"; do
    [[ $start == *=* && -f ${start#*=} ]] || fail "$start: NAME=WEIGHTS is wanted, as in student=runs/student.pt"
    starts+=("${start%%=*}=$(realpath "${start#*=}")")
done
ready=()
IFS=: read -ra given <<<"${READY:-}"
for folder in "${given[@]}"; do
    has_shards "$folder" || fail "READY: there are no shards in $folder"
    ready+=("$(realpath "$folder")")
done
val=${VAL:+$(realpath "$VAL")}
python=$(command -v "${PYTHON:-python3}") || fail "there is no ${PYTHON:-python3}"
[[ $python == /* ]] || python=$PWD/$python # not resolved: a virtual environment is known by its link
cd "$(dirname "$0")" || exit
first=$FIRST
beginning=(--device cuda --recipe "$recipe" --start "${starts[@]}" --ready "${ready[@]}" ${CAPACITY:+--capacity "$CAPACITY"})
# The share of wide batches, in thousandths, and how many of READY are upright and how many wide.
# Without a GPU it would be trained a hundred times as slowly, and nobody would notice before the end.
checked=$("$python" -m pipeline check "${beginning[@]}") || exit 1
read -r share ready_upright ready_wide <<<"$checked"
export OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
mkdir -p "$out" || exit

renderers=() validation=() training=()
# The training leaves a checkpoint when it is ended, which takes it a moment.
stop() {
    kill "${renderers[@]}" "${validation[@]}" "${training[@]}" 2>/dev/null
    wait "${training[@]}" 2>/dev/null
}
trap stop EXIT
trap 'exit 130' INT TERM HUP

shards() { "$python" -m render shards --assets "$assets" --out "$out/$1" "${@:2}" >>"$out/render.log" 2>&1 & }
render() { # FOLDER SCENES PROCESSES [--wide]
    local k
    mkdir -p "$out/$1" || exit
    for ((k = 0; k < $3; k++)); do
        shards "$1" --scenes "$2" --plain --size 64 --first $((first + k)) --step "$3" "${@:4}"
        renderers+=($!)
    done
}
all_have_shards() {
    local folder
    for folder; do has_shards "$folder" || return 1; done
}
has_begun() { # whether the training has all that it waits for
    has_shards "$val" && { ((ready_upright)) || all_have_shards "${upright[@]}"; } && { ((ready_wide)) || all_have_shards "${wide[@]}"; }
}
rendering() { # fails if one of the renderers has ended
    local pid
    for pid in "${renderers[@]}"; do kill -0 "$pid" 2>/dev/null || return 1; done
}
broken() { tail -n 5 "$out/render.log" >&2; fail "rendering ended; see $out/render.log"; }

val=${val:-$out/val}
has_shards "$val" || for k in 0 1; do
    # Seed 1 is the card's: the same people and rooms must not choose the weights and then judge them.
    shards val-unfinished --split test --seed 2 --size 128 --first $k --count 1
    validation+=($!)
done
# Once all of its shards are whole the folder of validation gets its name, for which the training waits.
name_validation() {
    local pid
    for pid in "${validation[@]}"; do kill -0 "$pid" 2>/dev/null && return; done
    for pid in "${validation[@]}"; do wait "$pid" || broken; done
    [ ${#validation[@]} -eq 0 ] || mv -T "$out/val-unfinished" "$val" || exit
    validation=()
}
# A row for each kind of scenes: how many processes render it upright, one at least, and how many for a camera on its side.
# The wide ones are SHARE thousandths of all, rounded, one at least; where they are too few for every kind, every second has one.
processes() { # CORES SHARE
    local each=$(($1 > 9 ? $1 / 7 : 1)) kind count sum=0 given=0 aside
    for kind in outfits gowns things moves leaps people; do
        count=$each
        [ $kind = people ] && count=$(($1 > 5 * each ? $1 - 5 * each : 1))
        sum=$((sum + count))
        aside=$(((sum * $2 + 500) / 1000 - given))
        [ $kind = people ] && (($2 > 0 && given + aside == 0)) && aside=1
        given=$((given + aside))
        echo $kind $((count > aside ? count - aside : 1)) $aside
    done
}
upright=() wide=()
mapfile -t rows < <(processes $(($(nproc) > 6 ? $(nproc) - 2 : 4)) "$share")
for row in "${rows[@]}"; do
    read -r kind count aside <<<"$row"
    upright+=("$out/$kind")
    render "$kind" "$kind" "$count"
    ((aside)) || continue
    wide+=("$out/wide-$kind")
    render "wide-$kind" "$kind" "$aside" --wide
done
"$python" -m pipeline together "${beginning[@]}" --shards "${upright[@]}" --wide-shards "${wide[@]}" --val "$val" --out "$out/runs" \
    --wait --seconds $((began + seconds - SECONDS)) --log-every 45 --delete-taken &
training=($!)
# They render until they are ended here: one that ends by itself has failed, and the pictures get fewer.
died=
while kill -0 "${training[0]}" 2>/dev/null; do
    name_validation
    if [ -z "$died" ] && ! rendering; then
        has_begun || broken
        died=1
        echo "warning: a renderer ended; training goes on with the pictures that come" >&2
        tail -n 5 "$out/render.log" >&2
    fi
    sleep 1
done
wait "${training[0]}" || exit
[ -z "$died" ] || fail "trained to the end, but a renderer ended on the way; see $out/render.log"
