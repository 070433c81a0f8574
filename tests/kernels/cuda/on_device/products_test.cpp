// Matrix products by cuBLASLt on the device against plain loops on the host: every way that the backend calls them, by
// the library's first choice of algorithm and by measured ones. Run by launch/gpu-check.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/matrix_product.h"
#include "kernels/philox.h"

namespace lomu::cuda {
namespace {

enum class Addend : std::uint8_t { kNone, kOther, kItself };

struct Case {
  std::int64_t m, n, k;
  bool a_transposed = false, b_transposed = false;
  DType operand = DType::kBF16, result = DType::kBF16;
  Addend addend = Addend::kNone;
  bool bias = false;
  std::int64_t gap = 0;  ///< between rows, of all matrices
};

/// What a linear layer of 256 -> 192 with 64 spare columns asks for, then odd shapes.
std::vector<Case> cases() {
  constexpr auto kWide = DType::kF32;
  std::vector<Case> all = {
      {100, 192, 320, false, true},                                            // y
      {100, 192, 320, false, true, DType::kBF16, kWide, Addend::kOther},       // y and residual
      {100, 192, 320, false, true, DType::kBF16, kWide, Addend::kItself},      // in place
      {100, 192, 256, false, true, DType::kBF16, kWide, Addend::kNone, true},  // bias
      {100, 192, 256, false, true, DType::kBF16, kWide, Addend::kOther, true},
      {100, 64, 256, false, true, DType::kBF16, DType::kBF16, Addend::kNone, false, 128},  // S beside x
      {100, 64, 192},                                                                      // dS
      {48, 256, 100, true, false, DType::kBF16, kWide},                                    // dA
      {192, 16, 100, true, false, DType::kBF16, kWide},                                    // dB
      {100, 256, 256},                                                                     // dX
      {4096, 16, 4096, true, false, DType::kBF16, kWide},                                  // long sums, split
      {1, 192, 320, false, true},
      {33, 31, 29, false, true, DType::kBF16, DType::kBF16, Addend::kNone, false, 3},
      {33, 31, 29, true, true, DType::kBF16, kWide, Addend::kItself, false, 1},
  };
  const std::size_t bf16 = all.size();
  for (std::size_t i = 0; i < bf16; ++i) {
    Case in_f32 = all[i];
    in_f32.operand = in_f32.result = kWide;
    all.push_back(in_f32);
  }
  return all;
}

/// A matrix in host memory and the same on the device; between its rows NaN, which nothing may change.
struct Matrix {
  std::vector<std::byte> host;
  Buffer device;
  std::int64_t ld = 0;

  Matrix(Memory& memory, DType type, std::int64_t rows, std::int64_t cols, std::int64_t gap, std::uint64_t stream)
      : host(static_cast<std::size_t>(rows * (cols + gap)) * size_of(type), std::byte{0xff}), ld(cols + gap) {
    const Philox random(5, Purpose::kTest);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        const auto bits = random.bits(stream, static_cast<std::uint64_t>(i * cols + j)) % 256;
        const float x = static_cast<float>(bits) / 128.0F - 1.0F;
        const auto at = static_cast<std::size_t>(i * ld + j);
        if (type == DType::kF32) {
          reinterpret_cast<float*>(host.data())[at] = x;
        } else {
          reinterpret_cast<BF16*>(host.data())[at] = BF16(x);
        }
      }
    }
    device = memory.allocate(Scope::kActivations, host.size(), "matrix");
    memory.storage().upload(device.data(), host.data(), host.size());
  }
};

std::vector<std::byte> on_host(Storage& storage, const Matrix& matrix) {
  std::vector<std::byte> bytes(matrix.host.size());
  storage.download(bytes.data(), matrix.device.data(), bytes.size());
  return bytes;
}

double element(const std::vector<std::byte>& bytes, DType type, std::int64_t at) {
  if (type == DType::kF32) return reinterpret_cast<const float*>(bytes.data())[at];
  return static_cast<float>(reinterpret_cast<const BF16*>(bytes.data())[at]);
}

class DeviceProducts : public testing::Test {
 protected:
  DeviceProducts() : device_(make_cuda_device(0)), memory_(device_->storage()) {}

  /// The result's bytes; expects them to be near the host's.
  std::vector<std::byte> run(MatrixProducts& products, const Case& c) {
    const auto matrix = [&](DType type, std::int64_t rows, std::int64_t cols, bool transposed, std::uint64_t stream) {
      return Matrix(memory_, type, transposed ? cols : rows, transposed ? rows : cols, c.gap, stream);
    };
    const Matrix a = matrix(c.operand, c.m, c.k, c.a_transposed, 1), b = matrix(c.operand, c.k, c.n, c.b_transposed, 2);
    const Matrix addend = matrix(c.result, c.m, c.n, false, 3), bias = matrix(DType::kF32, 1, c.n, false, 4);
    Matrix d = matrix(c.result, c.m, c.n, false, 5);
    const auto described = [&](bool host) {
      const auto data = [&](const Matrix& m) {
        return host ? static_cast<const void*>(m.host.data()) : static_cast<const void*>(m.device.data());
      };
      Product p;
      p.m = c.m;
      p.n = c.n;
      p.k = c.k;
      p.operand = c.operand;
      p.result = c.result;
      p.a = {data(a), a.ld, c.a_transposed};
      p.b = {data(b), b.ld, c.b_transposed};
      p.d = host ? static_cast<void*>(d.host.data()) : static_cast<void*>(d.device.data());
      p.ldd = d.ld;
      p.alpha = 0.5F;
      p.beta = c.addend == Addend::kNone ? 0.0F : 1.0F;
      if (c.addend == Addend::kOther) {
        p.c = data(addend);
        p.ldc = addend.ld;
      }
      if (c.bias) p.bias = static_cast<const float*>(data(bias));
      return p;
    };
    products.run(described(false), device_->stream());
    std::vector<std::byte> got = on_host(device_->storage(), d);
    multiply_plainly(described(true));
    double difference = 0, norm = 0;
    for (std::int64_t i = 0; i < c.m; ++i) {
      for (std::int64_t j = 0; j < d.ld; ++j) {
        const double x = element(got, c.result, i * d.ld + j), want = element(d.host, c.result, i * d.ld + j);
        if (j >= c.n) {
          EXPECT_TRUE(std::isnan(x)) << "between the rows";
          continue;
        }
        difference += std::pow(x - want, 2);
        norm += std::pow(want, 2);
      }
    }
    // Rounded once, to bf16; or sums of up to 4,096 products in another order.
    const double tolerance = c.result == DType::kBF16 ? 1e-3 : 4e-6;
    EXPECT_LE(std::sqrt(difference / norm), tolerance);
    return got;
  }

  void expect_all_right(MatrixProducts& products) {
    for (const Case& c : cases()) {
      SCOPED_TRACE(testing::Message() << c.m << " x " << c.k << " x " << c.n << ", " << name_of(c.operand) << " to "
                                      << name_of(c.result) << ", addend " << static_cast<int>(c.addend));
      const auto first = run(products, c);
      EXPECT_EQ(run(products, c), first) << "another result the second time";
    }
  }

  std::unique_ptr<Device> device_;
  Memory memory_;
};

TEST_F(DeviceProducts, ByTheFirstChoiceAreThoseOfPlainLoops) {
  const auto products = make_cublaslt_products(memory_);
  expect_all_right(*products);
}

TEST_F(DeviceProducts, ByMeasuredAlgorithmsAreThoseOfPlainLoopsAndRemembered) {
  const auto file = std::filesystem::temp_directory_path() / ("lomu-products-test-" + std::to_string(getpid()));
  ProductOptions options;
  options.timed = true;
  options.cache = file;
  options.warn = [](const std::string& text) { ADD_FAILURE() << text; };
  std::vector<std::vector<std::byte>> results;
  {
    const auto products = make_cublaslt_products(memory_, options);
    expect_all_right(*products);
    for (const Case& c : cases()) results.push_back(run(*products, c));
  }
  EXPECT_TRUE(std::filesystem::exists(file));
  const auto written = std::filesystem::last_write_time(file);
  {
    const auto again = make_cublaslt_products(memory_, options);
    for (std::size_t i = 0; i < results.size(); ++i) EXPECT_EQ(run(*again, cases()[i]), results[i]) << "case " << i;
  }
  EXPECT_EQ(std::filesystem::last_write_time(file), written) << "something was measured again";
  std::filesystem::remove(file);
}

}  // namespace
}  // namespace lomu::cuda
