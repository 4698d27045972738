#!/usr/bin/env bash
# What this project costs on a GPU, at the widths of real models: python tools/bench/gpu.py with its options.
#
#     tools/bench/gpu.sh                    # under 6 minutes, no network; writes gpu.json and gpu.md
#     tools/bench/gpu.sh --out results
#     tools/bench/gpu.sh --cpu-tiny         # a tiny model on the CPU: whether it runs, not how fast
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# Nothing is downloaded: weights are random.
export HF_HUB_OFFLINE=1 DIFFUSERS_OFFLINE=1
export PYTHONPATH="$here/../..${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" "$here/gpu.py" "$@"
