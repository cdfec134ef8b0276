#!/usr/bin/env bash
# Starts a vLLM server on this machine's CPU, on loopback, as `burnish.rollout.vllm` needs it: two threads, a small cache.
#
#     tools/vllm_server.sh MODEL [PORT] [more flags of vLLM's server]
#
# VLLM_PYTHON is the interpreter that has vLLM; by default that of .venv-vllm.
set -euo pipefail
usage="usage: tools/vllm_server.sh MODEL [PORT] [more flags of vLLM's server]"
model=${1:?"$usage"} port=8000
shift
case ${1:-} in
  "" | -*) ;;  # no port, or the first of the flags
  *[!0-9]*) echo "the port is '$1', which is no number; $usage" >&2; exit 2 ;;
  *) port=$1; shift ;;
esac
export VLLM_SERVER_DEV_MODE=1  # the endpoints that load weights anew: whoever reaches the port can use them, so it stays on loopback
export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1}  # GiB
export VLLM_CPU_OMP_THREADS_BIND=${VLLM_CPU_OMP_THREADS_BIND:-nobind} OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
# the package for CPUs is called vllm-cpu, and the command `vllm` looks for the version of one called vllm
exec "${VLLM_PYTHON:-.venv-vllm/bin/python}" -m vllm.entrypoints.openai.api_server --model "$model" --host 127.0.0.1 --port "$port" \
  --dtype float32 --generation-config vllm --logprobs-mode processed_logprobs --max-num-seqs 32 --enforce-eager "$@"
