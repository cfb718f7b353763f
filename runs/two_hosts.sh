#!/usr/bin/env bash
# Two hosts on one machine: two network namespaces, each with an address of its own, run one stage-2 job through a real
# rendezvous and exchange gradients over a virtual cable. Needs root and iproute2. The losses must equal those of one
# process (relative 1e-5), which the last lines check.
#
#   runs/two_hosts.sh [OUT]                    about 2 minutes on 2 cores
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=$(realpath -m "${1:-out/two_hosts}")
PYTHON=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1 TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
rm -rf "$OUT"; mkdir -p "$OUT/data"

PYTHONPATH=tests $PYTHON - "$OUT/data" <<'PAIRS'
import sys
from pathlib import Path
from test_faults import write_pairs
write_pairs(Path(sys.argv[1]))
PAIRS

cleanup() { ip netns del puma_a 2>/dev/null || true; ip netns del puma_b 2>/dev/null || true; }
trap cleanup EXIT
cleanup
ip netns add puma_a; ip netns add puma_b
ip link add puma_va type veth peer name puma_vb
ip link set puma_va netns puma_a; ip link set puma_vb netns puma_b
ip -n puma_a addr add 10.77.0.1/24 dev puma_va; ip -n puma_b addr add 10.77.0.2/24 dev puma_vb
for host in a b; do ip -n puma_$host link set "puma_v$host" up; ip -n puma_$host link set lo up; done

FLAGS=(train_stage2.py --preset tiny --model "" --random_weights --data "$OUT/data/pairs.jsonl" --global_batch 4
       --pack_tokens 768 --num_workers 0 --max_steps 12)
on_host() {  # name, address, 1 where the rendezvous lives: one torchrun with two processes on that host
    ip netns exec "puma_$1" env GLOO_SOCKET_IFNAME="puma_v$1" "$PYTHON" -m torch.distributed.run \
        --nnodes 2 --nproc_per_node 2 --rdzv_backend c10d --rdzv_id two_hosts --rdzv_endpoint 10.77.0.1:29500 \
        --rdzv_conf "is_host=$3" --local_addr "$2" "${FLAGS[@]}" --out_dir "$OUT/four_ranks" > "$OUT/host_$1.log" 2>&1
}
on_host a 10.77.0.1 1 & FIRST=$!
on_host b 10.77.0.2 0 & SECOND=$!
wait $FIRST || { tail -n 30 "$OUT/host_a.log"; exit 1; }
wait $SECOND || { tail -n 30 "$OUT/host_b.log"; exit 1; }
COUNT='import json, sys; print(json.load(sys.stdin)[0]["stats64"]["tx"]["bytes"])'
echo "bytes that the first host sent over the cable: $(ip -n puma_a -s -j link show puma_va | $PYTHON -c "$COUNT")"

$PYTHON "${FLAGS[@]}" --out_dir "$OUT/one_rank" > "$OUT/one.log" 2>&1
$PYTHON - "$OUT" <<'COMPARE'
import json, sys
curves = []
for run in ("four_ranks", "one_rank"):
    with open(f"{sys.argv[1]}/{run}/log.jsonl") as file:
        curves.append([(row["loss"], row["grad_norm"]) for row in map(json.loads, file)])
worst = max(abs(a - b) / abs(b) for two, one in zip(*curves, strict=True) for a, b in zip(two, one))
print(f"{len(curves[0])} steps on 2 hosts x 2 ranks and on 1 rank: losses and gradient norms differ by {worst:.1e} at most")
sys.exit(worst > 1e-5 or len(curves[0]) != 12)
COMPARE
