#!/usr/bin/env bash
# A rule that cannot fail is none: include_directions.sh must accept a clean tree and refuse each kind of breach.
# Usage: include_directions_notice.sh SCRATCH_FOLDER
set -euo pipefail

check=$(dirname "$(readlink -f "$0")")/include_directions.sh
scratch=${1:?usage: include_directions_notice.sh SCRATCH_FOLDER}
failed=0

# tree FILE LINE: four rooms that hold nothing but one include line.
tree() {
  rm -rf "$scratch"
  mkdir -p "$scratch"/{kernels/cuda,comm,models/files,engine}
  printf '#include <vector>\n%s\n' "$2" >"$scratch/$1"
}

accepts() {
  tree "$@"
  if ! "$check" "$scratch"; then
    echo "refused, though allowed: $1: $2"
    failed=1
  fi
}

refuses() {
  tree "$@"
  local said
  if said=$("$check" "$scratch"); then
    echo "not noticed: $1: $2"
    failed=1
  elif [[ $said != "$1:2: "* ]]; then
    echo "noticed at the wrong place: $1: $2: $said"
    failed=1
  fi
}

accepts engine/a.cpp '#include "kernels/error.h"'
accepts models/files/a.h '#include "comm/communicator.h"'
accepts comm/a.cpp '#include <mpi.h>'
accepts kernels/a.h '#include <omp.h>'
accepts kernels/cuda/gpu.h '#include <cuda_runtime.h>'
accepts kernels/cuda/a.cu '#include "kernels/cuda/gpu.h"'

refuses kernels/a.h '#include "comm/communicator.h"'
refuses kernels/a.cpp '#include "engine/config/load.h"'
refuses comm/a.cpp '#include "models/files/gguf.h"'
refuses models/files/a.cpp '#  include "engine/config/load.h"'
refuses models/files/a.cpp '#include <engine/config/load.h>'
refuses models/files/a.cpp '#include "gguf.h"'
refuses engine/a.cpp '#include "../comm/communicator.h"'
refuses engine/a.cpp '#include "tests/helper.h"'
refuses engine/a.cpp '#include "kernels/cuda/gpu.h"'
refuses kernels/cuda/gpu.h '#include <nccl.h>'
refuses kernels/cuda/a.h '#include <cuda_runtime.h>'
for header in mpi.h oneapi/dnnl/dnnl.hpp cuda_runtime.h nccl.h nlohmann/json.hpp yaml-cpp/yaml.h CLI/CLI.hpp pcre2.h \
  utf8proc.h Eigen/Dense xxhash.h openssl/evp.h; do
  refuses engine/a.h "#include <$header>"
done

rm -rf "$scratch"
exit "$failed"
