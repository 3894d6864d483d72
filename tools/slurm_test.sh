#!/usr/bin/env bash
# Tests under Slurm, on 8 GPUs unless told otherwise:
#     tools/slurm_test.sh PARTITION JOB configs/cls/prunet-p0_8xb256_in1k.py CHECKPOINT
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS (further arguments of srun) may be set.
set -euo pipefail

if (( $# < 4 )); then
    echo "usage: $0 PARTITION JOB CONFIG CHECKPOINT [flags of tools/test.py]" >&2
    exit 2
fi
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$(( gpus < 8 ? gpus : 8 ))}
read -ra srun_args <<< "${SRUN_ARGS:-}"
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}" exec srun \
    --partition="$1" --job-name="$2" \
    --ntasks="$gpus" --ntasks-per-node="$per_node" --gres="gpu:$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 "${srun_args[@]}" \
    python -u "$tools/test.py" "$3" "$4" --launcher slurm "${@:5}"
