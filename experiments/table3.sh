#!/usr/bin/env bash
# Does PUMA close the gap between text and vision? The paper's Table 3 in miniature: five orders of the three stages, two
# budgets, three seeds, all from one start. Run again, it goes on where it stopped; what has finished is left alone.
#
#   experiments/table3.sh                             everything, on a CPU, then the table: out/table3/tiny/table3.md
#   DRY_RUN=1 experiments/table3.sh                   only print the commands
#   SEEDS="0 1" OUT=out/try experiments/table3.sh     some seeds; another folder
# Sweeps: 1→2→3 with one thing changed in stage 2, then out/table3/tiny/sweep-*.md:
#   experiments/table3.sh --lam 0.5                   or any other flag of train_stage2.py: --alpha, --tau, --train
#   TEACHER=text-only experiments/table3.sh           taught by the text-only form, never by a picture with its question
#   LOSS=released_loss experiments/table3.sh          another loss, by its patch in forks/: here the paper's released code's
#   PROBLEMS=300 experiments/table3.sh                other numbers of multimodal problems at the same steps; 1→3 as well
# The paper's models and settings, one epoch a stage; START holds an aligned projector (runs/align.sh):
#   PRESET=puma-qwen2-1.5b START=out/aligned DATA=data NPROC=8 FLAGS=--activation_checkpointing experiments/table3.sh
# FLAGS is handed to every training run, ASK to every evaluation; BENCH and QUESTIONS name another benchmark.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python} PRESET=${PRESET:-tiny} START=${START:-} SEEDS=${SEEDS:-0 1 2} NPROC=${NPROC:-1}
OUT=${OUT:-out/table3/$PRESET}
DATA=${DATA:-$OUT/data}
BENCH=${BENCH:-generated} QUESTIONS=${QUESTIONS:-$DATA/bench.jsonl}
PROBLEMS=${PROBLEMS:-1000} TEACHER=${TEACHER:-} LOSS=${LOSS:-}
launch=("$PYTHON")
((NPROC == 1)) || launch=(torchrun --nproc_per_node "$NPROC")

planned=" "
run() { # run FILE COMMAND...: unless FILE is there, which the same command left at its end
    local command="${*:2}"
    if [[ -n ${DRY_RUN:-} ]]; then
        [[ $planned == *" $1 "* ]] || echo "$command"
        planned+="$1 "
    elif [[ ! -e $1 ]]; then
        mkdir -p "$(dirname "$1")"
        echo "$command" >"$1.made_by"
        printf '\n── %s\n' "$command"
        "${launch[@]}" "${@:2}"
        [[ -e $1 ]] || { echo "stopped before $1 was there; the same command goes on" >&2 && exit 1; }
        rm -rf "$(dirname "$1")"/step_* # checkpoints: the next stage opens the folder itself
    elif [[ -e $1.made_by && $(cat "$1.made_by") != "$command" ]]; then
        echo "error: $1 was made by another command ($1.made_by); choose another OUT, or delete its folder" >&2
        exit 1
    fi
}

# ----------------------------------------------------------------------------------------------------------------------
# Data and settings. An order is a list of STAGE-STEPSxROWS, and the first stage starts from START (or the preset).
#
# Budget "paper": a stage that is left out is simply left out. Budget "equal": as many steps and as much computation as
# 1→2→3. The steps of the stage that is left out go to the multimodal stages that stay, in proportion to their own, and
# their rows are scaled until the tokens are those of 1→2→3: 101 a row of stage 1, 238 a pair, 141 a row of stage 3 (a
# token that the teacher reads counts a third, for it only passes forward). The report says how equal they came out.
whole="1-150x24 2-100x12 3-100x16" one_three="1-150x24 3-200x18"
orders=("$whole" "1-150x24 3-100x16 2-100x12"
    "2-175x12 3-175x16" "$one_three" "1-150x24 2-200x11"         # equal
    "2-100x12 3-100x16" "1-150x24 3-100x16" "1-150x24 2-100x12") # paper
if [[ $PRESET == tiny ]]; then
    # Half of the problems only ever appear as text and captions. Of the other half a fixed, small set makes both the
    # pairs of stage 2 and the rows of stage 3: where labelled pictures never end, cross entropy closes the gap alone.
    # Every held-out problem is drawn twice, because small numbers make few problems.
    run "$DATA/manifest.json" gen_data.py --out_dir "$DATA" --seed 1 --per_category "${PER_CATEGORY:-3000}" \
        --families triangle_angle_sum,angles_on_a_line,rectangle,cuboid,cube,linear_value,line_through_points \
        --picture_size 96 --small_numbers --bench_per_family 60 --bench_copies 2
    # Captions stand among stage 1's text, as text alone undoes the reading of pictures: so stage 3's script does it.
    script1=train_stage3.py data1=$DATA/text.jsonl,$DATA/arithmetic.jsonl:0.2,$DATA/text-captions.jsonl:0.5 rate1=4e-4
    data2=$DATA/pairs-$PROBLEMS.jsonl rate2=6e-4
    train2=vision,projector,llm # the language model too: shown a picture, the start describes it
    data3=$DATA/singles-$PROBLEMS.jsonl,$DATA/text.jsonl:$((PROBLEMS / 2)) rate3=5e-4
    run "$DATA/singles-$PROBLEMS.jsonl" -m experiments.table3_data "$DATA" "$PROBLEMS" --data "$data1" "$data2" "$data3"
    data2=${data2%.jsonl}${TEACHER:+-$TEACHER}.jsonl
    flags="--num_workers 0 --pack_tokens 4096 --save_every 0 --keep 1 --beta2 0.95 --warmup 0.05 ${FLAGS:-}"
    ask="--max_new_tokens 72 --batch_size 128 ${ASK:-}"
else # one epoch (0 steps) of each stage at the scripts' own settings, which are the paper's
    orders=("1-0x256 2-0x512 3-0x256" "1-0x256 3-0x256 2-0x512" "2-0x512 3-0x256" "1-0x256 3-0x256" "1-0x256 2-0x512")
    whole=${orders[0]} one_three=${orders[3]}
    script1=train_stage1.py data1=$DATA/stage1.jsonl rate1=3e-5
    data2=$DATA/stage2.jsonl rate2=5e-5 train2=vision,projector
    data3=$DATA/stage3.jsonl rate3=3e-5
    flags="--keep 1 ${FLAGS:-}" ask="${ASK:-}"
    if [[ $PROBLEMS != 1000 || -n $TEACHER ]]; then
        echo "error: PROBLEMS and TEACHER are for PRESET=tiny, whose data are made here" >&2
        exit 1
    fi
fi

# What a sweep changes stands in the names of its folders, behind the steps of the stages that it changes.
label2="" label3="" script2=train_stage2.py
(($# == 0)) || label2=$(sed -E 's/ *--([a-z0-9_]+) /-\1=/g' <<<"$*")
[[ -z $TEACHER ]] || label2+=-teacher=$TEACHER
if [[ -n $LOSS ]]; then
    label2+=-loss=$LOSS script2=$OUT/$LOSS.py
    mkdir -p "$OUT"
    patch -s -o "$script2" train_stage2.py "forks/$LOSS.patch"
    export PYTHONPATH=$PWD
fi
[[ -z $label2 ]] || orders=("$whole")
[[ $PROBLEMS == 1000 ]] || orders=("$whole" "$one_three") label2+=-problems=$PROBLEMS label3=-problems=$PROBLEMS

# ----------------------------------------------------------------------------------------------------------------------
# Every seed, every order: its stages one after another, each from the folder of the one before, then the evaluation,
# also with every picture white. A folder's path says what was trained: orders that begin alike share their beginning.
for seed in $SEEDS; do
    for order in "${orders[@]}"; do
        model=$START folder=$OUT/seed$seed
        for step in $order; do
            size=${step#*-}
            case $step in
            1-*) stage=("$script1" --train llm --data "$data1" --learning_rate "$rate1") ;;
            2-*) stage=("$script2" --train "$train2" --data "$data2" --learning_rate "$rate2" "$@") step+=$label2 ;;
            3-*) stage=(train_stage3.py --data "$data3" --learning_rate "$rate3") step+=$label3 ;;
            esac
            folder+=/$step
            # shellcheck disable=SC2086  # flags are several words
            run "$folder/config.json" "${stage[@]}" --preset "$PRESET" --model="$model" --out_dir "$folder" \
                --max_steps "${size%x*}" --global_batch "${size#*x}" --seed "$seed" $flags
            model=$folder
        done
        # shellcheck disable=SC2086
        run "$folder/eval/report.json" eval.py --bench "$BENCH" --data "$QUESTIONS" --model "$folder" \
            --out_dir "$folder/eval" --name "${folder#"$OUT/"}" --blind $ask
    done
done
[[ -n ${DRY_RUN:-} ]] || "$PYTHON" -m experiments.table3_report "$OUT" --bench "$BENCH" --data "$QUESTIONS"
