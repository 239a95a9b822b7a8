#!/usr/bin/env bash
# One session on a GPU that trains, exports and measures the model `base`, in parts that a time limit may end.
#
#     benchmarks/base_session.sh PHOTOS VALIDATION RUN MINUTES [PART]
#
# MINUTES is all that training and its export may take, PART what this call may train (both without the measurement,
# some minutes at the end). Call it again with the same arguments until RUN/report is there. CONFIG and DEVICE name
# another preset and device, for a rehearsal.
set -euo pipefail

photos=$1 validation=$2 run=$3 minutes=$4 part=${5:-$4}
config=${CONFIG:-presets/base.toml} device=${DEVICE:-cuda}

weights=$run/base.decoder.safetensors
if [ ! -e "$weights" ]; then
    again=()
    if [ -e "$run/config.json" ]; then again=(--resume); fi
    python -m vqcodec train "$photos" -o "$run" --validation "$validation" --config "$config" --device "$device" \
        --name base --minutes "$minutes" --stop-after "$part" "${again[@]}"
fi
if [ -e "$weights" ]; then
    python -m vqcodec rd-curve "$validation" -o "$run/report" --weights "$weights" --device "$device" \
        --anchors avif --metrics psnr -q 1,20,40,60,80,100
fi
