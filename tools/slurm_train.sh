#!/usr/bin/env bash
# Trains under Slurm, on 8 GPUs unless told otherwise:
#     GPUS=16 tools/slurm_train.sh PARTITION JOB configs/cls/prunet-p0_8xb256_in1k.py
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS (further arguments of srun) may be set.
set -euo pipefail

if (( $# < 3 )); then
    echo "usage: $0 PARTITION JOB CONFIG [WORK_DIR] [flags of tools/train.py]" >&2
    exit 2
fi
partition=$1 job=$2 config=$3
shift 3
if (( $# )) && [[ $1 != -* ]]; then
    set -- --work-dir "$@"
fi
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$(( gpus < 8 ? gpus : 8 ))}
read -ra srun_args <<< "${SRUN_ARGS:-}"
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}" exec srun \
    --partition="$partition" --job-name="$job" \
    --ntasks="$gpus" --ntasks-per-node="$per_node" --gres="gpu:$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 "${srun_args[@]}" \
    python -u "$tools/train.py" "$config" --launcher slurm "$@"
