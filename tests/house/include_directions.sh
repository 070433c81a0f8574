#!/usr/bin/env bash
# Two rules of the house, read off the #include lines (docs/house.md):
#   1. the rooms include downwards only: engine -> models -> comm -> kernels, with paths from the repository root;
#   2. no header of a room includes a third-party library that belongs to one implementation file. kernels/cuda/gpu.h, the
#      language of kernels, may include CUDA's own, and is itself included in kernels/cuda alone.
# Usage: include_directions.sh ROOT. Prints each breach as FILE:LINE; exit 1 if there is one, 2 if there is nothing to read.
set -euo pipefail

root=${1:?usage: include_directions.sh ROOT}
cd "$root"

mapfile -t files < <(find kernels comm models engine -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) | sort)
if ((${#files[@]} == 0)); then
  echo "no sources under $root" >&2
  exit 2
fi

awk '
  BEGIN {
    language = "kernels/cuda/gpu.h"
    level["kernels"] = 0; level["comm"] = 1; level["models"] = 2; level["engine"] = 3
    third_party = "^(mpi[.]h|(oneapi/)?dnnl|cuda|cudnn|cublas|nccl|nvtx|nlohmann/|yaml-cpp/|CLI/|pcre2|utf8proc|Eigen/|unsupported/Eigen|xxhash|openssl/|(gtest|gmock)/)"
  }
  function breach(why) { printf "%s:%d: %s\n", FILENAME, FNR, why; found = 1 }
  /^[ \t]*#[ \t]*include[ \t]*[<"]/ {
    quoted = $0 ~ /include[ \t]*"/
    name = $0
    sub(/^[^<"]*[<"]/, "", name)
    sub(/[>"].*$/, "", name)
    from = FILENAME; sub(/\/.*/, "", from)
    to = name; sub(/\/.*/, "", to)
    if (name == language && FILENAME !~ /^kernels\/cuda\//) breach(name " is for kernels: include the host header of the .cu file")
    if (FILENAME == language && name ~ /^cuda_/) next
    if (FILENAME ~ /[.](h|cuh)$/ && name ~ third_party) breach(name " in a header: include it in the .cpp that uses it")
    if (to in level && index(name, "/")) {
      if (level[to] > level[from]) breach(from " must not know " to ": " name)
    } else if (quoted && name !~ third_party) {
      breach(name " is not a path from the repository root into a room")
    }
  }
  END { exit found }
' "${files[@]}"
