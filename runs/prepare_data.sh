#!/bin/bash
# The training files of the paper's three stages, from folders laid out as the public sets are (augment/README.md).
#
#   bash runs/prepare_data.sh PUBLIC OUT                    # all cores of this machine; the same command resumes
#   AVOID="testmini.json bench.jsonl" bash runs/prepare_data.sh PUBLIC OUT
#   EXPLAIN=http://host:8000/v1 EXPLAIN_MODEL=NAME bash runs/prepare_data.sh PUBLIC OUT
#   WEB=FILE WEB_IMAGES=FOLDER bash runs/prepare_data.sh PUBLIC OUT       # VisualWebInstruct, where it lies elsewhere
#   PYTHON="torchrun --nproc_per_node 8" bash runs/prepare_data.sh PUBLIC OUT
#
# then   source runs/mixes.sh OUT   and   train_stage1.py --data "$STAGE1_DATA" ...
#
# The paper: 200K text rows; 692K pairs = 120K of the engine + 80K collected problems expanded to 310K + 262K of
# VisualWebInstruct; 996K rows = most of stage 2's + MathV360K, its 40K geometry rows expanded to 120K, + text. The
# 80K were collected from web pages that were never named; here Geo170K stands in for them.
set -euo pipefail
cd "$(dirname "$0")/.."

PUBLIC=${1:?folder of the public sets}
OUT=${2:?folder to write to}
PYTHON=${PYTHON:-python}
PER_CATEGORY=${PER_CATEGORY:-40000}       # pairs that the engine makes of each of its three categories
BENCH=${BENCH:-20}                        # held-out problems of each of its families
export PYTHONPATH=.
FLAGS=(--seed "${SEED:-0}")
[ -n "${WORKERS:-}" ] && FLAGS+=(--workers "$WORKERS")
[ -n "${AVOID:-}" ] && FLAGS+=(--avoid $AVOID --avoid_image_root "${AVOID_IMAGES:-}")
[ -n "${FONT:-}" ] && FLAGS+=(--font "$FONT")
EXPLAINED=()
[ -n "${EXPLAIN:-}" ] && EXPLAINED=(--explain "$EXPLAIN" --explain_model "${EXPLAIN_MODEL:?}" --llm_cache "$OUT/llm_cache")

fail() { echo "error: $*" >&2; exit 1; }

# VisualWebInstruct under the names that it has had. Its mixed_conversation.jsonl holds another set too (LLaVA-CoT).
for file in visualwebinstruct_conversation.jsonl conversation_visualwebinstruct.jsonl visualwebinstruct_qa.jsonl; do
    [ -n "${WEB:-}" ] || [ ! -e "$PUBLIC/VisualWebInstruct/$file" ] || WEB=$PUBLIC/VisualWebInstruct/$file
done
WEB=${WEB:-$PUBLIC/VisualWebInstruct/visualwebinstruct_conversation.jsonl}
for file in "$PUBLIC"/MathInstruct/MathInstruct.json "$PUBLIC"/{dart-math-hard,orca-math-word-problems-200k,NuminaMath-CoT}/data \
        "$PUBLIC"/Geo170K/qa_tuning.json "$WEB" "$PUBLIC"/MathV360K/train_samples_all_tuning.json; do
    [ -e "$file" ] || fail "$file is missing; augment/README.md says where it is found"
done

# root NAME FILE FOLDER...: the first of the folders that holds one of the first pictures that FILE names
root() {
    python - "$@" <<'END' || exit 1
import itertools
import os
import sys

from augment import containers
from augment.dialects import normalise
from errors import UserError, run_main
from sources import BadRow, conversations


def main() -> None:
    name, file, *folders = sys.argv[1:]
    pictures = []
    for _, row in itertools.islice(containers.rows(file), 1000):
        try:
            sides = conversations(row if isinstance(row, BadRow) else normalise(row), pairs=False)
        except BadRow:
            continue  # augment_data counts it
        pictures += [image for _, turns in sides for turn in turns for image in turn.images if isinstance(image, str)]
    for folder in folders:
        if not pictures or any(os.path.isfile(os.path.join(folder, picture)) for picture in pictures):
            return print(folder)
    raise UserError(f"{file}: its pictures ({pictures[0]}, ...) lie in none of {', '.join(folders)}; unpack them there"
                    + f", or say {name}=FOLDER")


run_main(main, resumes=False)
END
}

# spec COUNT FILE...: the files as one --data, COUNT rows in all, spread evenly
spec() {
    local count=$1 joined="" file
    shift
    for file in "$@"; do
        joined+="${joined:+,}$file${count:+:$(((count + $# - 1) / $#))}"
    done
    echo "$joined"
}

augment() {      # augment NAME STAGE DATA [flags]; of a file without rows comes one without rows, and mixes.sh says so
    local name=$1 stage=$2 data=$3
    shift 3
    echo "== $name"
    if [ -f "$data" ] && [ ! -s "$data" ]; then
        mkdir -p "$OUT/$name" && : > "$OUT/$name/stage$stage.jsonl"
        echo "$data holds no rows"
        return
    fi
    $PYTHON augment_data.py --stage "$stage" --data "$data" --out_dir "$OUT/$name" "${FLAGS[@]}" "$@"
}

GEO_IMAGES=$(root GEO_IMAGES "$PUBLIC/Geo170K/qa_tuning.json" "${GEO_IMAGES:-$PUBLIC/Geo170K/images}")
MATHV="$PUBLIC/MathV360K/train_samples_all_tuning.json"
MATHV_IMAGES=$(root MATHV_IMAGES "$MATHV" "${MATHV_IMAGES:-$PUBLIC/MathV360K/data_images}")
if [ -n "${WEB_IMAGES:-}" ]; then folders=("$WEB_IMAGES"); else
    folders=("$PUBLIC"/VisualWebInstruct "$PUBLIC"/VisualWebInstruct/{images,imgs,data}); fi
WEB_IMAGES=$(root WEB_IMAGES "$WEB" "${folders[@]}")
GEOMETRY='(GEOS|Geometry3K|GeoQA\+|UniGeo)/'      # the geometry sets of MathV360K, by the folders of its pictures

echo "== engine"
python gen_data.py --out_dir "$OUT/engine" --per_category "$PER_CATEGORY" --bench_per_family "$BENCH" --seed "${SEED:-0}" \
    ${WORKERS:+--workers "$WORKERS"}

# Stage 1: 50K rows of each of four sets. A few more are drawn, because rows without worked reasoning are dropped.
augment text_mathinstruct 1 "$(spec 120000 "$PUBLIC"/MathInstruct/MathInstruct.json)" --select 'source=CoT'
augment text_dart 1 "$(spec 60000 "$PUBLIC"/dart-math-hard/data/train-*)"
augment text_orca 1 "$(spec 60000 "$PUBLIC"/orca-math-word-problems-200k/data/train-*)"
augment text_numina 1 "$(spec 60000 "$PUBLIC"/NuminaMath-CoT/data/train-*)"

# Stage 2: pairs.
augment pairs_geometry 2 "$(spec 80000 "$PUBLIC"/Geo170K/qa_tuning.json)" --image_root "$GEO_IMAGES" \
    --expand 3.875 "${EXPLAINED[@]}"
augment pairs_web 2 "$(spec 262000 "$WEB")" --image_root "$WEB_IMAGES" "${EXPLAINED[@]}"

# Stage 3: single rows.
augment singles_engine 3 "$OUT/engine/stage2.jsonl"
augment singles_geometry 3 "$OUT/pairs_geometry/stage2.jsonl"
augment singles_web 3 "$OUT/pairs_web/stage2.jsonl"
augment mathv_geometry 3 "$(spec "" "$MATHV")" --image_root "$MATHV_IMAGES" --select "image=^$GEOMETRY" \
    --expand 3 "${EXPLAINED[@]}"
augment mathv_other 3 "$(spec "" "$MATHV")" --image_root "$MATHV_IMAGES" --select "image=^(?!$GEOMETRY)" \
    "${EXPLAINED[@]}"

source runs/mixes.sh "$OUT"
for stage in 1 2 3; do
    mix=STAGE${stage}_DATA
    [ -n "${!mix}" ] || fail "no part of stage $stage has any rows; what was dropped, and why, stands above"
done
printf '\nstage 1: --data %s\nstage 2: --data %s\nstage 3: --data %s\n' "$STAGE1_DATA" "$STAGE2_DATA" "$STAGE3_DATA"
