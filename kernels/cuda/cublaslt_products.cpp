#include <cublasLt.h>
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <limits>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels/cuda/algorithm_cache.h"
#include "kernels/cuda/matrix_product.h"
#include "kernels/error.h"

namespace lomu::cuda {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;  // NVIDIA's advice for Hopper
constexpr int kCandidates = 8;
constexpr int kRepetitions = 3;       // after one that does not count; the best of them
constexpr std::size_t kPlans = 4096;  // a few dozen for each number of tokens that a run meets
constexpr int kCallsBeforeSave = 64;  // since a choice: the shapes of a step have then been met

void check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(fmt::format("{} failed: {}", call, cublasLtGetStatusString(status)), "cuBLASLt");
}
void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  throw Error(fmt::format("{} failed: {}", call, cudaGetErrorString(status)), "CUDA");
}

cudaDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::kBF16: return CUDA_R_16BF;
    case DType::kF32: return CUDA_R_32F;
    default: throw Error(fmt::format("no products of {} on the device", name_of(dtype)));
  }
}

/// The largest power of two that divides an address, up to what every buffer has: heuristics depend on it. More is of
/// no use to an algorithm, and would give the layers of a model several plans for one shape.
std::uint32_t alignment_of(const void* data) {
  const auto address = reinterpret_cast<std::uintptr_t>(data) | Memory::kAlignment;
  return static_cast<std::uint32_t>(address & (~address + 1));
}

template <class Handle, cublasStatus_t (*Destroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&&) = delete;
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

class Event {
 public:
  Event() { check(cudaEventCreate(&event_), "cudaEventCreate"); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(event_); }
  [[nodiscard]] cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

/// All that decides which algorithm may run and which is fast.
using Key = std::array<std::int64_t, 16>;

Key key_of(const Product& p) {
  return {p.m,
          p.n,
          p.k,
          static_cast<std::int64_t>(p.operand),
          static_cast<std::int64_t>(p.result),
          (p.a.transposed ? 1 : 0) + (p.b.transposed ? 2 : 0) + (p.beta != 0 ? 4 : 0) + (p.bias != nullptr ? 8 : 0),
          p.a.ld,
          p.b.ld,
          p.addend_ld(),
          p.ldd,
          p.c == nullptr ? 1 : 0,
          alignment_of(p.a.data),
          alignment_of(p.b.data),
          alignment_of(p.addend()),
          alignment_of(p.d),
          alignment_of(p.bias)};
}

struct KeyHash {
  std::size_t operator()(const Key& key) const {
    std::uint64_t hash = 0;
    for (const std::int64_t word : key) {
      hash = (hash ^ static_cast<std::uint64_t>(word)) * 0x9e3779b97f4a7c15;
      hash ^= hash >> 32;
    }
    return hash;
  }
};

std::string environment_text() {
  int device = 0;
  int driver = 0;
  cudaDeviceProp properties{};
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  return fmt::format("{}, cuBLASLt {}, driver {}", properties.name, cublasLtGetVersion(), driver);
}

/// cuBLASLt's column-major view of a row-major product: D^T = B'^T A'^T, so the operands change places, and a bias for
/// each column of D is one for each row.
class Plan {
 public:
  explicit Plan(const Product& p) {
    check(cublasLtMatmulDescCreate(description_.address(), CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    set(CUBLASLT_MATMUL_DESC_TRANSA, p.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, p.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (p.bias != nullptr) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    }
    const auto rows_first = [](std::int64_t rows, std::int64_t cols, bool transposed) {
      return transposed ? std::pair(cols, rows) : std::pair(rows, cols);
    };
    const auto [a_rows, a_cols] = rows_first(p.m, p.k, p.a.transposed);
    const auto [b_rows, b_cols] = rows_first(p.k, p.n, p.b.transposed);
    make(first_, type_of(p.operand), b_cols, b_rows, p.b.ld);
    make(second_, type_of(p.operand), a_cols, a_rows, p.a.ld);
    make(addend_, type_of(p.result), p.n, p.m, p.addend_ld());
    make(result_, type_of(p.result), p.n, p.m, p.ldd);
  }

  /// The library's choices, best guess first; at least one. Throws Error for a product that it refuses.
  [[nodiscard]] std::vector<cublasLtMatmulAlgo_t> candidates(cublasLtHandle_t handle, const Product& p,
                                                             int wanted) const {
    Preference preference;
    check(cublasLtMatmulPreferenceCreate(preference.address()), "cublasLtMatmulPreferenceCreate");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      check(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof(value)),
            "cublasLtMatmulPreferenceSetAttribute");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(p.b.data));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(p.a.data));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(p.addend()));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(p.d));
    // Split sums are allowed only through the workspace, which adds them in a fixed order; in-place ones use atomics.
    const std::uint32_t repeatable = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, repeatable);
    std::array<cublasLtMatmulHeuristicResult_t, kCandidates> found{};
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle, description_.get(), first_.get(), second_.get(), addend_.get(),
                                       result_.get(), preference.get(), wanted, found.data(), &count);
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    for (int i = 0; i < count; ++i) {
      const auto& one = found[static_cast<std::size_t>(i)];
      if (one.state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(one.algo);
    }
    if (status != CUBLAS_STATUS_SUCCESS || algorithms.empty()) {
      throw Error(fmt::format("cuBLASLt has no algorithm for a product of {} x {} x {} ({} to {})", p.m, p.k, p.n,
                              name_of(p.operand), name_of(p.result)));
    }
    return algorithms;
  }

  /// Whether the library runs this algorithm on these shapes.
  [[nodiscard]] bool accepts(cublasLtHandle_t handle, const cublasLtMatmulAlgo_t& algorithm) const {
    cublasLtMatmulHeuristicResult_t result{};
    const cublasStatus_t status = cublasLtMatmulAlgoCheck(handle, description_.get(), first_.get(), second_.get(),
                                                          addend_.get(), result_.get(), &algorithm, &result);
    return status == CUBLAS_STATUS_SUCCESS && result.state == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= kWorkspaceBytes;
  }

  [[nodiscard]] cublasStatus_t run(cublasLtHandle_t handle, const Product& p, const cublasLtMatmulAlgo_t& algorithm,
                                   void* workspace, cudaStream_t stream) {
    if (p.bias != nullptr) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    return cublasLtMatmul(handle, description_.get(), &p.alpha, p.b.data, first_.get(), p.a.data, second_.get(),
                          &p.beta, p.addend(), addend_.get(), p.d, result_.get(), &algorithm, workspace,
                          kWorkspaceBytes, stream);
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
  Layout first_, second_, addend_, result_;
};

class CublasLtProducts final : public MatrixProducts {
 public:
  CublasLtProducts(Memory& memory, const ProductOptions& options)
      : memory_(memory), workspace_(memory.allocate(Scope::kWorkspace, kWorkspaceBytes, "matrix products")) {
    check(cublasLtCreate(handle_.address()), "cublasLtCreate");
    if (!options.timed) return;
    const std::string environment = environment_text();
    cache_.emplace(options.cache.empty() ? default_cache_file(environment, std::getenv) : options.cache, environment,
                   options.warn);
  }
  CublasLtProducts(const CublasLtProducts&) = delete;
  CublasLtProducts& operator=(const CublasLtProducts&) = delete;
  ~CublasLtProducts() override {
    if (cache_) cache_->save();
  }

  void run(const Product& p, Stream stream) override {
    if (p.m == 0 || p.n == 0) return;
    Entry& entry = entry_of(p, stream);
    check(entry.plan.run(handle_.get(), p, entry.algorithm, workspace_.data(), stream), "cublasLtMatmul");
    if (calls_to_save_ > 0 && --calls_to_save_ == 0) cache_->save();
  }

 private:
  struct Entry {
    Plan plan;
    cublasLtMatmulAlgo_t algorithm{};
  };

  Entry& entry_of(const Product& p, cudaStream_t stream) {
    const Key key = key_of(p);
    const auto known = entries_.find(key);
    if (known != entries_.end()) return known->second;
    if (entries_.size() >= kPlans) entries_.clear();
    Entry entry{Plan(p), {}};
    entry.algorithm = choose(entry.plan, p, stream);
    return entries_.emplace(key, std::move(entry)).first->second;
  }

  cublasLtMatmulAlgo_t choose(Plan& plan, const Product& p, cudaStream_t stream) {
    if (!cache_) return plan.candidates(handle_.get(), p, 1).front();
    static_assert(sizeof(AlgorithmCache::Algorithm) == sizeof(cublasLtMatmulAlgo_t));
    const std::string shape = shape_text(p);
    if (const auto words = cache_->find(shape)) {
      const auto algorithm = std::bit_cast<cublasLtMatmulAlgo_t>(*words);
      if (plan.accepts(handle_.get(), algorithm)) return algorithm;
    }
    const auto candidates = plan.candidates(handle_.get(), p, kCandidates);
    if (is_captured(stream)) return candidates.front();  // nothing runs now, so nothing can be measured
    const cublasLtMatmulAlgo_t best = fastest(plan, p, candidates, stream);
    cache_->add(shape, std::bit_cast<AlgorithmCache::Algorithm>(best));
    calls_to_save_ = kCallsBeforeSave;
    return best;
  }

  static bool is_captured(cudaStream_t stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
    return status != cudaStreamCaptureStatusNone;
  }

  /// Runs the product with each candidate on its own operands. Results do not change by repetition, except where D is
  /// added to itself: then they go to a copy, and without memory for one nothing is measured.
  cublasLtMatmulAlgo_t fastest(Plan& plan, const Product& wanted, const std::vector<cublasLtMatmulAlgo_t>& candidates,
                               cudaStream_t stream) {
    if (candidates.size() == 1) return candidates.front();
    Product p = wanted;
    Buffer elsewhere;
    if (p.beta != 0 && p.c == nullptr) {
      try {
        const auto bytes = static_cast<std::size_t>(p.m * p.ldd) * size_of(p.result);
        elsewhere = memory_.allocate(Scope::kWorkspace, bytes, "measuring matrix products");
      } catch (const Error&) {
        return candidates.front();
      }
      p.c = p.d;
      p.ldc = p.ldd;
      p.d = elsewhere.data();
    }
    // One round after the other, so that a clock that rises or falls meanwhile favours none.
    std::vector<float> best(candidates.size(), std::numeric_limits<float>::max());
    for (int round = 0; round <= kRepetitions; ++round) {
      for (std::size_t i = 0; i < candidates.size(); ++i) {
        const float taken = milliseconds(plan, p, candidates[i], stream);
        if (round > 0) best[i] = std::min(best[i], taken);
      }
    }
    return candidates[static_cast<std::size_t>(std::min_element(best.begin(), best.end()) - best.begin())];
  }

  /// The largest float if the library refuses.
  float milliseconds(Plan& plan, const Product& p, const cublasLtMatmulAlgo_t& algorithm, cudaStream_t stream) {
    check(cudaEventRecord(start_.get(), stream), "cudaEventRecord");
    const cublasStatus_t status = plan.run(handle_.get(), p, algorithm, workspace_.data(), stream);
    check(cudaEventRecord(stop_.get(), stream), "cudaEventRecord");
    check(cudaEventSynchronize(stop_.get()), "cudaEventSynchronize");
    float taken = 0;
    check(cudaEventElapsedTime(&taken, start_.get(), stop_.get()), "cudaEventElapsedTime");
    return status == CUBLAS_STATUS_SUCCESS ? taken : std::numeric_limits<float>::max();
  }

  Memory& memory_;
  Owned<cublasLtHandle_t, cublasLtDestroy> handle_;
  Buffer workspace_;
  std::unordered_map<Key, Entry, KeyHash> entries_;
  std::optional<AlgorithmCache> cache_;  ///< where algorithms are measured
  int calls_to_save_ = 0;
  Event start_, stop_;
};

}  // namespace

std::unique_ptr<MatrixProducts> make_cublaslt_products(Memory& memory, const ProductOptions& options) {
  return std::make_unique<CublasLtProducts>(memory, options);
}

}  // namespace lomu::cuda
