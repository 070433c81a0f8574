#include "kernels/cpu/gemm.h"

#include <fmt/format.h>
#include <omp.h>

#include <array>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "kernels/error.h"

namespace lomu::cpu {
namespace {

struct Key {
  std::int64_t m, n, k, ldc;
  DType dtype;
  bool accumulate;
  friend bool operator==(const Key&, const Key&) = default;
};

struct KeyHash {
  std::size_t operator()(const Key& key) const {
    std::uint64_t h = 0xcbf29ce484222325ull;
    for (const std::int64_t v :
         {key.m, key.n, key.k, key.ldc, static_cast<std::int64_t>(key.dtype) * 2 + key.accumulate}) {
      h = (h ^ static_cast<std::uint64_t>(v)) * 0x100000001b3ull;
      h ^= h >> 29;
    }
    return h;
  }
};

/// A primitive and the memory objects through which it is handed its pointers.
struct Product {
  dnnl::matmul primitive;
  dnnl::memory a, b, c, scratch;
};

/// oneDNN sizes its work by the OpenMP team it sees at creation; a tile product must be built for one thread.
class OneThread {
 public:
  OneThread() : threads_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(threads_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int threads_;
};

}  // namespace

struct TileGemm::State {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::unordered_map<Key, Product, KeyHash> products;
  std::vector<std::byte> scratch;
  bool blocked = dnnl::get_effective_cpu_isa() >= dnnl::cpu_isa::avx512_core;

  Product& find(const Key& key) {
    const auto it = products.find(key);
    if (it != products.end()) return it->second;
    return products.emplace(key, make(key)).first->second;
  }

  Product make(const Key& key) {
    using dnnl::memory;
    const OneThread guard;
    const bool bf16 = key.dtype == DType::kBF16;
    const auto type = bf16 ? memory::data_type::bf16 : memory::data_type::f32;
    const memory::desc a({key.m, key.k}, type, memory::dims{key.k, 1});
    const memory::desc c({key.m, key.n}, memory::data_type::f32, memory::dims{key.ldc, 1});
    // Without AVX-512 oneDNN multiplies plain matrices only: then a call covers one panel, read as [k][64].
    const memory::desc b =
        !blocked
            ? memory::desc({key.k, key.n}, type, memory::dims{kPanel, 1})
            : memory::desc({key.k, key.n}, type, bf16 ? memory::format_tag::BA16a64b2a : memory::format_tag::BA16a64b);
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (key.accumulate) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attr.set_post_ops(sum);
    }
    const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(a, b, c), attr, engine);
    const std::size_t need = description.scratchpad_desc().get_size();
    if (need > scratch.size()) scratch.resize(need);
    // The memory object of B is a flat run of bytes: given the padded blocked descriptor, oneDNN 2.x would write zeros
    // into the padding at every change of pointer, and B may be a read-only mapping. Only the pointer is used.
    const memory::desc flat({static_cast<memory::dim>(PanelShape{key.k, key.n, key.dtype}.bytes())},
                            memory::data_type::u8, memory::format_tag::a);
    return Product{dnnl::matmul(description), memory(a, engine, nullptr), memory(flat, engine, nullptr),
                   memory(c, engine, nullptr), memory(description.scratchpad_desc(), engine, nullptr)};
  }

  void run(const Key& key, const void* a, const void* b, float* c) {
    Product& p = find(key);
    p.a.set_data_handle(const_cast<void*>(a));
    p.b.set_data_handle(const_cast<void*>(b));
    p.c.set_data_handle(c);
    p.scratch.set_data_handle(scratch.data());
    const std::array<dnnl_exec_arg_t, 4> args = {{{DNNL_ARG_SRC, p.a.get()},
                                                  {DNNL_ARG_WEIGHTS, p.b.get()},
                                                  {DNNL_ARG_DST, p.c.get()},
                                                  {DNNL_ARG_SCRATCHPAD, p.scratch.get()}}};
    const dnnl_status_t status =
        dnnl_primitive_execute(p.primitive.get(), stream.get(), static_cast<int>(args.size()), args.data());
    if (status != dnnl_success) {
      throw Error(fmt::format("oneDNN could not run a {} x {} x {} product (status {})", key.m, key.n, key.k,
                              static_cast<int>(status)));
    }
  }
};

TileGemm::TileGemm() : state_(std::make_unique<State>()) {}
TileGemm::~TileGemm() = default;
TileGemm::TileGemm(TileGemm&&) noexcept = default;
TileGemm& TileGemm::operator=(TileGemm&&) noexcept = default;

void TileGemm::multiply(DType dtype, std::int64_t m, std::int64_t n, std::int64_t k, const void* a, const void* b,
                        float* c, bool accumulate) {
  try {
    if (state_->blocked) {
      state_->run({m, n, k, n, dtype, accumulate}, a, b, c);
      return;
    }
    const PanelShape shape{k, n, dtype};
    for (std::int64_t first = 0; first < n; first += kPanel) {
      const std::int64_t cols = n - first < kPanel ? n - first : kPanel;
      state_->run({m, cols, k, n, dtype, accumulate}, a, static_cast<const std::byte*>(b) + shape.column_offset(first),
                  c + first);
    }
  } catch (const dnnl::error& e) {
    throw Error(fmt::format("oneDNN refused a {} x {} x {} {} product: {}", m, n, k, name_of(dtype), e.what()));
  }
}

bool TileGemm::native_bf16() {
  return dnnl::get_effective_cpu_isa() >= dnnl::cpu_isa::avx512_core_bf16;
}

}  // namespace lomu::cpu
