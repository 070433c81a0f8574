#include <cublasLt.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "kernels/cuda/matrix_product.h"
#include "kernels/error.h"

namespace lomu::cuda {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;  // NVIDIA's advice for Hopper

void check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(fmt::format("{} failed: {}", call, cublasLtGetStatusString(status)), "cuBLASLt");
}

cudaDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::kBF16: return CUDA_R_16BF;
    case DType::kF32: return CUDA_R_32F;
    default: throw Error(fmt::format("no products of {} on the device", name_of(dtype)));
  }
}

/// The largest power of two up to 256 that divides an address: heuristics depend on it.
std::uint32_t alignment_of(const void* data) {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  return address == 0 ? 256 : static_cast<std::uint32_t>(std::min<std::uintptr_t>(256, address & (~address + 1)));
}

template <class Handle, cublasStatus_t (*Destroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() {
    if (handle_ != nullptr) Destroy(handle_);
  }
  Handle* address() { return &handle_; }
  [[nodiscard]] Handle get() const { return handle_; }

 private:
  Handle handle_ = nullptr;
};
using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

/// All that decides which algorithm may run and which is fast.
using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, DType, DType, bool, bool, std::int64_t, std::int64_t,
                       std::int64_t, bool, std::uint32_t, std::uint32_t, std::uint32_t>;

Key key_of(const Product& p) {
  return {p.m,
          p.n,
          p.k,
          p.operand,
          p.result,
          p.a.transposed,
          p.b.transposed,
          p.a.ld,
          p.b.ld,
          p.ldd,
          p.beta != 0,
          alignment_of(p.a.data),
          alignment_of(p.b.data),
          alignment_of(p.d)};
}

/// cuBLASLt's column-major view of a row-major product: D^T = B'^T A'^T, so the operands change places.
class Plan {
 public:
  explicit Plan(const Product& p) {
    check(cublasLtMatmulDescCreate(description_.address(), CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    set(CUBLASLT_MATMUL_DESC_TRANSA, p.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, p.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    const auto rows_first = [](std::int64_t rows, std::int64_t cols, bool transposed) {
      return transposed ? std::pair(cols, rows) : std::pair(rows, cols);
    };
    const auto [a_rows, a_cols] = rows_first(p.m, p.k, p.a.transposed);
    const auto [b_rows, b_cols] = rows_first(p.k, p.n, p.b.transposed);
    make(first_, type_of(p.operand), b_cols, b_rows, p.b.ld);
    make(second_, type_of(p.operand), a_cols, a_rows, p.a.ld);
    make(result_, type_of(p.result), p.n, p.m, p.ldd);
  }

  [[nodiscard]] cublasLtMatmulAlgo_t choose(cublasLtHandle_t handle, const Product& p) const {
    Preference preference;
    check(cublasLtMatmulPreferenceCreate(preference.address()), "cublasLtMatmulPreferenceCreate");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      check(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof(value)),
            "cublasLtMatmulPreferenceSetAttribute");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(p.b.data));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(p.a.data));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(p.d));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(p.d));
    // Split sums are allowed only through the workspace, which adds them in a fixed order; in-place ones use atomics.
    const std::uint32_t repeatable = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, repeatable);
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle, description_.get(), first_.get(), second_.get(), result_.get(),
                                       result_.get(), preference.get(), 1, &found, &count);
    if (status != CUBLAS_STATUS_SUCCESS || count == 0) {
      throw Error(fmt::format("cuBLASLt has no algorithm for a product of {} x {} x {} ({} to {})", p.m, p.k, p.n,
                              name_of(p.operand), name_of(p.result)));
    }
    return found.algo;
  }

  void run(cublasLtHandle_t handle, const Product& p, const cublasLtMatmulAlgo_t& algorithm, void* workspace,
           cudaStream_t stream) const {
    check(cublasLtMatmul(handle, description_.get(), &p.alpha, p.b.data, first_.get(), p.a.data, second_.get(), &p.beta,
                         p.d, result_.get(), p.d, result_.get(), &algorithm, workspace, kWorkspaceBytes, stream),
          "cublasLtMatmul");
  }

 private:
  template <class Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
    check(cublasLtMatmulDescSetAttribute(description_.get(), attribute, &value, sizeof(value)),
          "cublasLtMatmulDescSetAttribute");
  }
  static void make(Layout& layout, cudaDataType_t type, std::int64_t rows, std::int64_t cols, std::int64_t ld) {
    check(cublasLtMatrixLayoutCreate(layout.address(), type, static_cast<std::uint64_t>(rows),
                                     static_cast<std::uint64_t>(cols), ld),
          "cublasLtMatrixLayoutCreate");
  }

  Description description_;
  Layout first_, second_, result_;
};

class CublasLtProducts final : public MatrixProducts {
 public:
  explicit CublasLtProducts(Memory& memory)
      : workspace_(memory.allocate(Scope::kWorkspace, kWorkspaceBytes, "matrix products")) {
    check(cublasLtCreate(handle_.address()), "cublasLtCreate");
  }

  void run(const Product& p, Stream stream) override {
    if (p.m == 0 || p.n == 0) return;
    const Plan plan(p);
    auto known = chosen_.find(key_of(p));
    // The library's first choice depends on the shape and the device alone, so all ranks and runs take the same one.
    if (known == chosen_.end()) known = chosen_.emplace(key_of(p), plan.choose(handle_.get(), p)).first;
    plan.run(handle_.get(), p, known->second, workspace_.data(), stream);
  }

 private:
  Owned<cublasLtHandle_t, cublasLtDestroy> handle_;
  Buffer workspace_;
  std::map<Key, cublasLtMatmulAlgo_t> chosen_;
};

}  // namespace

std::unique_ptr<MatrixProducts> make_cublaslt_products(Memory& memory) {
  return std::make_unique<CublasLtProducts>(memory);
}

}  // namespace lomu::cuda
