#!/usr/bin/env bash
#SBATCH --job-name=ctm-rl
#SBATCH --output=%x-%j.log
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
# Two minutes before the time is up, so that a checkpoint is saved.
#SBATCH --signal=B:TERM@120
# A run outlives the loss of a node, other than the first.
#SBATCH --no-kill
#
# A Ray cluster on the nodes of a SLURM job, and one command of ctm-rl on it; --address is added. With the environment
# activated that ctm-rl is installed in, on a file system that all nodes share:
#   sbatch deploy/slurm.sh train cartpole --num-env-runners 23 --placement spread --storage STORAGE
#   sbatch deploy/slurm.sh resume STORAGE/cartpole-20260131T120000Z
set -euo pipefail

fail() {
    echo "slurm.sh: $1" >&2
    exit "${2:-1}"
}

(($#)) || fail "say what to run: sbatch deploy/slurm.sh train cartpole --num-env-runners 23" 2
[[ -n ${SLURM_JOB_ID:-} ]] || fail "this is no SLURM job; start it with sbatch" 2
[[ -n ${SLURM_CPUS_PER_TASK:-} ]] || fail "the job has no --cpus-per-task, and Ray would take whole machines" 2
for program in srun scontrol ray ctm-rl; do
    command -v "$program" >/dev/null || fail "there is no $program here; activate the environment before sbatch" 2
done

steps=()
training=
cleanup() {
    trap '' TERM
    # Not ray stop, which would end this user's other clusters on the nodes too.
    if ((${#steps[@]})); then
        kill "${steps[@]}" 2>/dev/null || true
        wait "${steps[@]}" 2>/dev/null || true
    fi
}
terminate() {
    [[ -n $training ]] || exit 143
    kill -TERM "$training" 2>/dev/null || true
}
trap cleanup EXIT
trap terminate TERM

check_steps() {
    local step
    for step in "${steps[@]}"; do
        kill -0 "$step" 2>/dev/null || fail "a node's ray start has ended; what it said is above"
    done
}

# --- the head's address ---

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
((${#nodes[@]} == SLURM_JOB_NUM_NODES)) || fail "scontrol names ${#nodes[@]} of $SLURM_JOB_NUM_NODES nodes"
head=${nodes[0]}
name=$(scontrol show node "$head" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
host=$({ getent ahostsv4 "${name:-$head}" || true; } | awk 'NR == 1 { print $1 }')
[[ -n $host && $host != 127.* ]] || fail "other nodes do not reach $head by the address ${host:-$name}"
# Jobs that share a node need ports of their own: below those that Linux gives away, above those of Ray's workers.
port=$((20000 + 2 * (SLURM_JOB_ID % 5000)))
address=$host:$port

# Whoever reaches the port of a cluster without a token can run programs as this user.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0

# --- the cluster ---

# srun does not take the number of cores over from sbatch, nor Ray from SLURM. Where a node is lost, the others go on.
start=(srun --no-kill --kill-on-bad-exit=0 --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK")
wait_seconds=300

# One core of the head's is the training process's.
"${start[@]}" --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --block --node-ip-address="$host" --port="$port" --ray-client-server-port="$((port + 1))" \
    --include-dashboard=false --num-cpus="$((SLURM_CPUS_PER_TASK - 1))" &
steps+=("$!")
deadline=$((SECONDS + wait_seconds))
until ray status --address "$address" >/dev/null 2>&1; do
    check_steps
    ((SECONDS < deadline)) || fail "the head does not answer at $address"
    sleep 1
done

num_workers=$((SLURM_JOB_NUM_NODES - 1))
if ((num_workers)); then
    "${start[@]}" --nodes="$num_workers" --ntasks="$num_workers" --nodelist="$(IFS=, && echo "${nodes[*]:1}")" \
        ray start --block --address="$address" --num-cpus="$SLURM_CPUS_PER_TASK" &
    steps+=("$!")
fi
while :; do
    joined=$(ctm-rl cluster-check --address "$address" --json | grep -o '"round_trip_ms"' | wc -l) || true
    ((joined < SLURM_JOB_NUM_NODES)) || break
    check_steps
    ((SECONDS < deadline)) || fail "$joined of $SLURM_JOB_NUM_NODES nodes have joined the cluster at $address"
    sleep 1
done

# --- the run ---

# Fails where a node differs: all of them are to have one environment.
ctm-rl cluster-check --address "$address"
ctm-rl "$@" --address "$address" &
training=$!
status=0
wait "$training" || status=$?
# A signal ends the first wait at once, and the training process is still saving.
while kill -0 "$training" 2>/dev/null; do
    status=0
    wait "$training" || status=$?
done
exit "$status"
