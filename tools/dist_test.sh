#!/usr/bin/env bash
# Tests in several processes, one per GPU, or on the CPU where there is none:
#     tools/dist_test.sh configs/cls/prunet_digits.py work_dirs/digits/epoch_40.pth 2
# On several machines start it on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -euo pipefail

if (( $# < 3 )) || [[ ! $3 =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [flags of tools/test.py]," \
        "GPUS being the processes per machine" >&2
    exit 2
fi
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}" exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}" --nproc-per-node="$3" \
    --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${PORT:-29500}" \
    "$tools/test.py" "$1" "$2" --launcher pytorch "${@:4}"
