#!/bin/bash
# The training files of the paper's three stages, from folders laid out as the public sets are (augment/README.md).
#
#   bash runs/prepare_data.sh PUBLIC OUT                    # all cores of this machine; the same command resumes
#   AVOID="testmini.json bench.jsonl" bash runs/prepare_data.sh PUBLIC OUT
#   EXPLAIN=http://host:8000/v1 EXPLAIN_MODEL=NAME bash runs/prepare_data.sh PUBLIC OUT
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

for file in MathInstruct/MathInstruct.json dart-math-hard/data orca-math-word-problems-200k/data NuminaMath-CoT/data \
        Geo170K/qa_tuning.json VisualWebInstruct MathV360K/train_samples_all_tuning.json; do
    [ -e "$PUBLIC/$file" ] || { echo "error: $PUBLIC/$file is missing; augment/README.md says where it is found" >&2; exit 1; }
done

# spec COUNT FILE...: the files as one --data, COUNT rows in all, spread evenly
spec() {
    local count=$1 joined="" file
    shift
    for file in "$@"; do
        joined+="${joined:+,}$file${count:+:$(((count + $# - 1) / $#))}"
    done
    echo "$joined"
}

augment() {      # augment NAME STAGE DATA [flags]
    local name=$1 stage=$2 data=$3
    shift 3
    echo "== $name"
    $PYTHON augment_data.py --stage "$stage" --data "$data" --out_dir "$OUT/$name" "${FLAGS[@]}" "$@"
}

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
augment pairs_geometry 2 "$(spec 80000 "$PUBLIC"/Geo170K/qa_tuning.json)" --image_root "$PUBLIC/Geo170K/images" \
    --expand 3.875 "${EXPLAINED[@]}"
augment pairs_web 2 "$(spec 262000 "$PUBLIC"/VisualWebInstruct/*_conversation.jsonl)" "${EXPLAINED[@]}"

# Stage 3: single rows.
augment singles_engine 3 "$OUT/engine/stage2.jsonl"
augment singles_geometry 3 "$OUT/pairs_geometry/stage2.jsonl"
augment singles_web 3 "$OUT/pairs_web/stage2.jsonl"
MATHV="$PUBLIC/MathV360K/train_samples_all_tuning.json"
augment mathv_geometry 3 "$(spec "" "$MATHV")" --image_root "$PUBLIC/MathV360K/data_images" --select "image=^$GEOMETRY" \
    --expand 3 "${EXPLAINED[@]}"
augment mathv_other 3 "$(spec "" "$MATHV")" --image_root "$PUBLIC/MathV360K/data_images" --select "image=^(?!$GEOMETRY)" \
    "${EXPLAINED[@]}"

source runs/mixes.sh "$OUT"
printf '\nstage 1: --data %s\nstage 2: --data %s\nstage 3: --data %s\n' "$STAGE1_DATA" "$STAGE2_DATA" "$STAGE3_DATA"
