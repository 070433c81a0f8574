#include "bench/gemm_ceiling.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "kernels/error.h"

namespace lomu {
namespace {

constexpr dnnl::memory::dim kSize = 1024;
constexpr int kRepetitions = 24;

/// One thread's product and its matrices.
class Product {
 public:
  explicit Product(DType dtype) {
    using dnnl::memory;
    const auto type = dtype == DType::kBF16 ? memory::data_type::bf16 : memory::data_type::f32;
    const memory::dims dims = {kSize, kSize};
    const memory::desc plain(dims, type, memory::format_tag::ab);
    const memory::desc result(dims, memory::data_type::f32, memory::format_tag::ab);
    const memory::desc any(dims, type, memory::format_tag::any);
    const dnnl::matmul::primitive_desc description({plain, any, result}, engine_);
    matmul_ = dnnl::matmul(description);
    arguments_ = {{DNNL_ARG_SRC, filled(plain)},
                  {DNNL_ARG_WEIGHTS, filled(description.weights_desc())},
                  {DNNL_ARG_DST, filled(result)}};
    run();
  }

  void run() {
    matmul_.execute(stream_, arguments_);
    stream_.wait();
  }

 private:
  dnnl::memory filled(const dnnl::memory::desc& desc) {
    dnnl::memory memory(desc, engine_);
    std::fill_n(static_cast<char*>(memory.get_data_handle()), desc.get_size(), '\x3c');  // 0.0115 in both types
    return memory;
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  dnnl::matmul matmul_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

}  // namespace

double gemm_ceiling(DType dtype, int threads) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> seconds;
  std::exception_ptr failure;
#pragma omp parallel num_threads(threads)
  {
    omp_set_num_threads(1);  // of this thread alone: oneDNN sizes its work by it
    std::unique_ptr<Product> product;
    try {
      product = std::make_unique<Product>(dtype);
    } catch (...) {
#pragma omp critical
      failure = std::current_exception();
    }
    for (int i = 0; i < kRepetitions; ++i) {
#pragma omp barrier
      const auto start = Clock::now();
      if (product) product->run();
#pragma omp barrier
#pragma omp master
      seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
  }
  if (failure) {
    try {
      std::rethrow_exception(failure);
    } catch (const dnnl::error& e) {
      throw Error(fmt::format("oneDNN refused a {} product: {}", name_of(dtype), e.what()));
    }
  }
  const auto middle = seconds.begin() + kRepetitions / 2;
  std::nth_element(seconds.begin(), middle, seconds.end());
  return 2.0 * kSize * kSize * kSize * threads / *middle;
}

}  // namespace lomu
