#!/bin/bash
# Build llama.cpp with CUDA from packed sources and measure everything that needs a GPU (gpu.py), within
# nine minutes on 16 cores and without network.
#
#   benchmarks/perf/gpu.sh [--pack llama-pack.tar.gz] [--out FOLDER] [--arch 90] [more for gpu.py]
#   benchmarks/perf/gpu.sh --cpu --tiny            the same without a GPU, on small shapes
#
# The pack is made by `python -m tools.pack_llama`. Needed here: a C++ compiler, CMake, Python with numpy, PyYAML
# and typing-extensions, for the grammar arm outlines-core, for busy share and energy
# nvidia-ml-py; for a GPU, CUDA's toolkit. Without a pack, the llama-cpp-python that
# Python finds is measured, and there is nothing of llama-bench to compare with.
set -u
cd "$(dirname "$0")/../.." || exit 1
pack="" out="gpu-results" arch="" python="${PYTHON:-python3}" cpu="" more=()
while [ $# -gt 0 ]; do
  case "$1" in
    --pack) pack="$2"; shift 2 ;;
    --out) out="$2"; shift 2 ;;
    --arch) arch="$2"; shift 2 ;;
    --cpu) cpu=1; more+=("$1"); shift ;;
    *) more+=("$1"); shift ;;
  esac
done
started=$(date +%s)
total=$((${MEDLOCAL_GPU_SECONDS:-535}))
mkdir -p "$out"
work="${MEDLOCAL_GPU_WORK:-$(mktemp -d)}"   # outside any git checkout: ggml asks git for its commit
built=0
if [ -n "$pack" ]; then
  tar xzf "$pack" -C "$work" || exit 1
  flags=(-DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DLLAMA_BUILD_COMMON=ON -DLLAMA_BUILD_TOOLS=ON
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF
    -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DCMAKE_BUILD_RPATH_USE_ORIGIN=ON)
  command -v ninja > /dev/null && flags+=(-G Ninja)
  if [ -z "$cpu" ]; then
    # The same ways round an incomplete toolkit as in `make build-cuda`.
    while IFS= read -r flag; do flags+=("$flag"); done < <("$python" - "$arch" "$work/headers" <<'PYTHON'
import sys
from pathlib import Path
from tools.build_llama import Host, choose_architectures, cuda_args, take_headers
host = Host()
print(*cuda_args(choose_architectures(sys.argv[1] or None, host), host), sep="\n")
print(f"-DCMAKE_CUDA_COMPILER={host.nvcc()}")
if package := host.cublas_package():
    print(f"-DCMAKE_CUDA_FLAGS=-I{take_headers(package, Path(sys.argv[2]))}")
PYTHON
)
  fi
  echo "building llama.cpp on $(nproc) cores (log: $out/build.log)" >&2
  if cmake -S "$work/llama/vendor/llama.cpp" -B "$work/build" "${flags[@]}" > "$out/build.log" 2>&1 &&
    timeout $((total - 100)) cmake --build "$work/build" -j "$(nproc)" --target llama llama-bench >> "$out/build.log" 2>&1
  then
    rm -rf "$work/llama/llama_cpp/lib" && ln -s "$work/build/bin" "$work/llama/llama_cpp/lib"
    export PYTHONPATH="$work/llama:$work/llama/vendor/llama.cpp/gguf-py${PYTHONPATH:+:$PYTHONPATH}"
    export LD_LIBRARY_PATH="$work/build/bin${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    more+=(--bench "$work/build/bin/llama-bench")
    built=1
  else
    tail -n 15 "$out/build.log" >&2
    # Without a GPU's build there would be nothing to measure on one.
    [ -z "$cpu" ] && exit 1
  fi
fi
spent=$(($(date +%s) - started))
"$python" -m benchmarks.perf.gpu --folder "$work/models" -o "$out/gpu.json" --seconds $((total - spent)) \
  --note "{\"built_from_pack\": $built, \"build_seconds\": $spent}" "${more[@]}"
