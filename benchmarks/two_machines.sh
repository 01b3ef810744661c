#!/usr/bin/env bash
# Two machines made of network namespaces train together; the cable between them is pulled, and the run is resumed.
#
#     sudo benchmarks/two_machines.sh PYTHON DATA [SETTING=VALUE ...]
#
# PYTHON has mobiledet installed, DATA is a data set. Needs root and iproute2. The first run is undisturbed; in the second
# the cable is pulled after the first epoch. The trainings must then end by themselves on both machines, and the resumed run
# must be the first one, bit by bit. torchrun of the machine that was cut off asks for the other until TCP gives up, a
# quarter of an hour later: it is ended by SIGKILL.
set -uo pipefail
python=$1 data=$(realpath "$2")
shift 2
work=$(mktemp -d)
names=(mobiledet-a mobiledet-b)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null; for n in "${names[@]}"; do ip netns del $n 2>/dev/null; done; rm -rf "$work"' EXIT

for n in "${names[@]}"; do ip netns add $n; ip -n $n link set lo up; done
ip link add va netns mobiledet-a type veth peer name vb netns mobiledet-b
ip -n mobiledet-a addr add 10.77.0.1/24 dev va && ip -n mobiledet-a link set va up
ip -n mobiledet-b addr add 10.77.0.2/24 dev vb && ip -n mobiledet-b link set vb up
export OMP_NUM_THREADS=1 MOBILEDET_PROCESS_TIMEOUT=20

train() { # train LOG WORDS...: on both machines; their exit statuses
    local log=$1 device=va host=1  # torchrun finds out by the computer's name, which both have, who keeps the rendezvous
    shift
    pids=()
    for n in "${names[@]}"; do
        ip netns exec $n env GLOO_SOCKET_IFNAME=$device "$python" -m torch.distributed.run --nnodes 2 --nproc-per-node 1 \
            --rdzv-backend c10d --rdzv-endpoint 10.77.0.1:29400 --rdzv-id "$log" --rdzv-conf is_host=$host \
            --local-addr 10.77.0.$((${#pids[@]} + 1)) -m mobiledet train "$@" >"$work/$log.$n" 2>&1 &
        pids+=($!)
        device=vb host=0
    done
}
ends() { # their exit statuses, in $statuses: a subshell can't wait for them
    statuses=
    for p in "${pids[@]}"; do wait "$p"; statuses+=" $?"; done
}
settings=(ssd_mobilenet_a025 data.root="$data" schedule.epochs=3 schedule.batch_size=8 train.threads=1 train.precision=float32
    model.input_size=128 data.workers=0 name=run train.output="$work" "$@")

train whole "${settings[@]}"
ends
echo "undisturbed, exit statuses:$statuses"
train cut "${settings[@]}"
until grep -q "^epoch 1/" "$work/cut.mobiledet-a" || ! kill -0 "${pids[0]}" 2>/dev/null; do sleep 0.2; done
ip -n mobiledet-a link set va down
start=$SECONDS
for n in "${names[@]}"; do
    until grep -q "error: another process" "$work/cut.$n" || ((SECONDS - start > 300)); do sleep 0.5; done
done
echo "cable pulled, the trainings ended after $((SECONDS - start)) s"
kill -KILL "${pids[@]}" 2>/dev/null
ends
grep -h "^\(process\|error\)" "$work"/cut.*
ip -n mobiledet-a link set va up
sleep 1
train resumed --resume "$work/run/2"
ends
echo "resumed, exit statuses:$statuses"
# The files also hold when they were written; what counts is compared as kill_resume.py does.
"$python" - "$work" <<PYTHON
import sys
from pathlib import Path
sys.path.insert(0, "$(dirname "$0")")
from kill_resume import compare
differences = compare(Path(sys.argv[1], "run/2"), Path(sys.argv[1], "run/1"))
print("\n".join(differences) or "weights, averages, optimiser, results.csv: the same")
PYTHON
[ -n "${KEEP_LOGS:-}" ] && cp "$work"/*.mobiledet-* "$KEEP_LOGS"
exit 0
