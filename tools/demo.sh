#!/usr/bin/env bash
# The main job on the five founding problems: explain, optimize, verify, bench.
# On a GPU at full scale, otherwise at the small scale on the CPU target. Writes to out/demo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON="${PYTHON:-python3}"
OUT="${OUT:-out/demo}"
PROBLEMS=(
    sigmoid
    sum_reduction
    gemm_divide_sum_scaling
    gemm_sigmoid_scaling_residual
    matmul_sigmoid_sum
)

fusewright() {
    "$PYTHON" -c 'import sys; from fusewright.cli import main; sys.exit(main())' "$@"
}

if "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    device=cuda
else
    device=cpu
    export FUSEWRIGHT_EXAMPLE_SCALE=small
fi
echo "device: $device, scale: ${FUSEWRIGHT_EXAMPLE_SCALE:-full}"

mkdir -p "$OUT"
for name in "${PROBLEMS[@]}"; do
    reference="examples/$name.py"
    candidate="$OUT/$name.py"
    printf '\n== %s\n' "$name"
    fusewright explain "$reference"
    fusewright optimize "$reference" -o "$candidate" --no-check  # the next two commands check it
    fusewright verify "$reference" "$candidate" --device "$device"
    fusewright bench "$reference" "$candidate" --device "$device"
done
