# The paper's mixes as --data of the three training scripts: source runs/mixes.sh OUT (the folder of prepare_data.sh).
# Counts are at most: a file that holds fewer rows gives all it has, and the script prints the mix it drew.
# The paper names stage 3's parts but not their sizes, only their sum (996K) and the geometry share (120K): the counts
# of the last line are ours, with one row in ten of text.
OUT=${1:-$OUT}
STAGE1_DATA="$OUT/text_mathinstruct/stage1.jsonl:50k,$OUT/text_dart/stage1.jsonl:50k"
STAGE1_DATA+=",$OUT/text_orca/stage1.jsonl:50k,$OUT/text_numina/stage1.jsonl:50k"
STAGE2_DATA="$OUT/engine/stage2.jsonl:120k,$OUT/pairs_geometry/stage2.jsonl:310k,$OUT/pairs_web/stage2.jsonl:262k"
STAGE3_DATA="$OUT/mathv_geometry/stage3.jsonl:120k,$OUT/mathv_other/stage3.jsonl:236k"
STAGE3_DATA+=",$OUT/singles_engine/stage3.jsonl:160k,$OUT/singles_geometry/stage3.jsonl:200k"
STAGE3_DATA+=",$OUT/singles_web/stage3.jsonl:180k"
STAGE3_DATA+=",$OUT/text_mathinstruct/stage1.jsonl:25k,$OUT/text_dart/stage1.jsonl:25k"
STAGE3_DATA+=",$OUT/text_orca/stage1.jsonl:25k,$OUT/text_numina/stage1.jsonl:25k"

with_rows() {  # the files of a --data that hold rows; those without are named and left out
    echo "$1" | tr , '\n' | while read -r part; do
        if [ ! -f "${part%:*}" ] || [ -s "${part%:*}" ]; then echo "$part"; else echo "left out: ${part%:*} holds no rows" >&2; fi
    done | paste -sd , -
}
STAGE1_DATA=$(with_rows "$STAGE1_DATA")
STAGE2_DATA=$(with_rows "$STAGE2_DATA")
STAGE3_DATA=$(with_rows "$STAGE3_DATA")
export STAGE1_DATA STAGE2_DATA STAGE3_DATA
