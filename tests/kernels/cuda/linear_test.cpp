// The adapted linear layer of the CUDA backend, in emulation, against the specification: with factors beside the
// weights, and every product by itself.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.h"
#include "tests/kernels/linear_case.h"

namespace lomu::cuda {
namespace {

using namespace lomu::test;

struct Setting {
  Precision precision;
  LinearPath path;
};
void PrintTo(const Setting& s, std::ostream* os) {
  *os << name_of(s.precision.activation) << (s.path == LinearPath::kAugmented ? " augmented" : " plain");
}

const LinearShape kShapes[] = {
    {64, {64}, {0}},
    {64, {40}, {0}, true},
    {48, {40}, {8}},
    {37, {29}, {3}, true},
    {96, {72, 24, 24}, {16, 0, 5}, true},
    {65, {130, 130}, {1, 64}},
    {40, {33}, {64}, true},
    {72, {50, 20}, {100, 256}},
    {96, {64, 8, 8}, {4, 16, 2}, false, 0.3F},
    {100, {1, 57}, {2, 7}, true, 0.5F},
};
constexpr std::int64_t kTokenCounts[] = {0, 1, 33};

class CudaLinearLayer : public testing::TestWithParam<Setting> {
 protected:
  CudaLinearLayer()
      : device_(make_emulated_device()),
        memory_(device_->storage()),
        ops_(make_cuda_ops(GetParam().precision, *device_, memory_, {.linear = GetParam().path})),
        reference_(make_reference_ops(GetParam().precision)) {}

  [[nodiscard]] DType activation() const { return GetParam().precision.activation; }
  [[nodiscard]] DType residual() const { return GetParam().precision.residual; }
  /// bf16: factors, S, dS and the result are rounded, each by 1.1e-3 in root mean square and up to 2^-9, and what the
  /// specification rounds falls elsewhere. f32: sums of n < 1,000 terms err by less than sqrt(n) 2^-24.
  [[nodiscard]] double tolerance() const { return activation() == DType::kBF16 ? 6e-3 : 2e-6; }
  void expect_close(const HostTensor& got, const HostTensor& want, const char* what) const {
    EXPECT_LE(relative_error(got, want), tolerance()) << what;
  }

  /// The same numbers with the spare columns that the backend asks for, NaN in them.
  [[nodiscard]] HostTensor with_room(const LinearCase& c, const HostTensor& t) const {
    HostTensor wide(t.view().dtype, t.view().rows, t.view().cols, c.linear.frozen.spare);
    for (std::int64_t i = 0; i < t.view().rows; ++i) {
      for (std::int64_t j = 0; j < t.view().cols; ++j) wide.set(i, j, t.get(i, j));
    }
    return wide;
  }

  std::unique_ptr<Device> device_;
  Memory memory_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Ops> reference_;
};

TEST_P(CudaLinearLayer, ForwardIsEquivalentToReference) {
  for (const LinearShape& shape : kShapes) {
    LinearCase on_device(shape, *ops_);
    LinearCase on_reference(shape, *reference_);
    const std::int64_t out = on_device.linear.frozen.out();
    const std::int64_t rank = on_device.linear.total_rank();
    const std::int64_t spare = on_device.linear.frozen.spare;
    for (const std::int64_t tokens : kTokenCounts) {
      SCOPED_TRACE(testing::Message() << tokens << " tokens, " << shape.in << " -> " << out << ", rank " << rank);
      const HostTensor numbers = random_tensor(activation(), tokens, shape.in, 1);
      const HostTensor x = with_room(on_device, numbers);
      const Tensor roomy = x.view().with_spare(spare);
      HostTensor s(activation(), tokens, rank, 3);
      HostTensor s_want(activation(), tokens, rank);

      HostTensor y(activation(), tokens, out, 5);
      HostTensor want(activation(), tokens, out);
      ops_->linear_forward(on_device.linear, roomy, {}, y, s);
      reference_->linear_forward(on_reference.linear, numbers, {}, want, s_want);
      expect_close(y, want, "y");
      expect_close(s, s_want, "s");

      HostTensor without_room(activation(), tokens, out);
      ops_->linear_forward(on_device.linear, numbers, {}, without_room, s);
      expect_close(without_room, want, "y without spare columns");

      if (spare > 0) {
        HostTensor beside(activation(), tokens, out);
        ops_->linear_forward(on_device.linear, roomy, {}, beside, x.view().columns(shape.in, rank));
        EXPECT_EQ(relative_error(beside, y), 0) << "s in the spare columns";
      }

      const HostTensor stream = random_tensor(residual(), tokens, out, 2, 4);
      HostTensor sum(residual(), tokens, out);
      HostTensor sum_want(residual(), tokens, out);
      HostTensor in_place = stream;
      ops_->linear_forward(on_device.linear, roomy, stream, sum, s);
      ops_->linear_forward(on_device.linear, roomy, in_place, in_place, s);
      reference_->linear_forward(on_reference.linear, numbers, stream, sum_want, s_want);
      expect_close(sum, sum_want, "residual + y");
      EXPECT_EQ(relative_error(in_place, sum), 0) << "in place";

      HostTensor wide(residual(), tokens, out);
      ops_->linear_forward(on_device.linear, roomy, {}, wide, s);
      reference_->linear_forward(on_reference.linear, numbers, {}, sum_want, s_want);
      expect_close(wide, sum_want, "y in the residual's type");
    }
  }
}

TEST_P(CudaLinearLayer, BackwardIsEquivalentToReference) {
  for (const LinearShape& shape : kShapes) {
    LinearCase on_device(shape, *ops_);
    LinearCase on_reference(shape, *reference_);
    const std::int64_t out = on_device.linear.frozen.out();
    const std::int64_t rank = on_device.linear.total_rank();
    const std::int64_t spare = on_device.linear.frozen.spare;
    for (const std::int64_t tokens : kTokenCounts) {
      for (const DType dy_type : {activation(), residual()}) {
        SCOPED_TRACE(testing::Message() << tokens << " tokens, " << shape.in << " -> " << out << ", rank " << rank
                                        << ", dy " << name_of(dy_type));
        const HostTensor x = random_tensor(activation(), tokens, shape.in, 1, 3);
        const HostTensor numbers = random_tensor(dy_type, tokens, out, 2);
        const HostTensor dy = with_room(on_device, numbers);
        const Tensor roomy = dy.view().with_spare(spare);
        HostTensor y(activation(), tokens, out);
        HostTensor s(activation(), tokens, rank);
        reference_->linear_forward(on_reference.linear, x, {}, y, s);
        HostTensor dx(activation(), tokens, shape.in, 2);
        HostTensor want(activation(), tokens, shape.in);
        reference_->linear_backward(on_reference.linear, x, s, numbers, want);
        const auto expect_gradients = [&](const char* when) {
          for (std::size_t part = 0; part < shape.outs.size(); ++part) {
            SCOPED_TRACE(testing::Message() << "part " << part << when);
            expect_close(on_device.grad_a[part], on_reference.grad_a[part], "grad_a");
            expect_close(on_device.grad_b[part], on_reference.grad_b[part], "grad_b");
          }
        };
        ops_->linear_backward(on_device.linear, x, s, roomy, dx);
        expect_close(dx, want, "dx");
        expect_gradients(" with dx");
        ops_->linear_backward(on_device.linear, x, s, roomy, {});
        expect_gradients(" without dx");
        HostTensor without_room(activation(), tokens, shape.in);
        ops_->linear_backward(on_device.linear, x, s, numbers, without_room);
        expect_close(without_room, want, "dx without spare columns");
        expect_gradients(" without spare columns");
      }
    }
  }
}

TEST_P(CudaLinearLayer, RepackedFactorsAreUsed) {
  const LinearShape shape{48, {40, 24}, {8, 3}, true};
  LinearCase on_device(shape, *ops_), other(kShapes[3], *ops_), base(kShapes[0], *ops_);
  LinearCase on_reference(shape, *reference_);
  for (LinearCase* c : {&on_device, &on_reference}) {
    for (float& value : c->a[0]) value *= -3;
    for (float& value : c->b[1]) value += 1;
  }
  const AdaptedLinear* all[] = {&other.linear, &base.linear, &on_device.linear};
  ops_->pack_all_adapters(all);
  const HostTensor numbers = random_tensor(activation(), 5, 48, 1);
  const HostTensor x = with_room(on_device, numbers);
  HostTensor s(activation(), 5, 11), y(activation(), 5, 64), want(activation(), 5, 64);
  ops_->linear_forward(on_device.linear, x.view().with_spare(on_device.linear.frozen.spare), {}, y, s);
  reference_->linear_forward(on_reference.linear, numbers, {}, want, s);
  expect_close(y, want, "y");
}

/// Factors written to their places leave what packing them again leaves, byte for byte.
TEST_P(CudaLinearLayer, FactorsWrittenToTheirPlacesAreAsPacked) {
  for (const LinearShape& shape : {LinearShape{48, {40, 24}, {8, 3}, true}, LinearShape{37, {29}, {5}},
                                   LinearShape{96, {72, 24, 24}, {16, 0, 5}, true}}) {
    LinearCase written(shape, *ops_), repacked(shape, *ops_);
    for (std::size_t part = 0; part < shape.outs.size(); ++part) {
      const auto places = ops_->packed_places(written.linear, part);
      ASSERT_EQ(places.has_value(), activation() == DType::kBF16);
      if (!places) return;
      const auto write = [&](const PackedFactor& to, const std::vector<float>& factor, std::int64_t lines) {
        const auto length = lines == 0 ? 0 : static_cast<std::int64_t>(factor.size()) / lines;
        for (std::int64_t i = 0; i < lines * length; ++i) {
          to.data[i / length * to.line_stride + i % length] = BF16(to.multiplier * factor[static_cast<std::size_t>(i)]);
        }
      };
      for (LinearCase* c : {&written, &repacked}) {
        for (float& value : c->a[part]) value *= -3;
        for (float& value : c->b[part]) value += 1;
      }
      write(places->left, written.b[part], shape.outs[part]);
      write(places->right, written.a[part], shape.ranks[part]);
    }
    ops_->pack_adapters(repacked.linear);
    EXPECT_EQ(std::memcmp(written.storage.data(), repacked.storage.data(), repacked.storage.size()), 0);
    EXPECT_EQ(std::memcmp(written.packed.data(), repacked.packed.data(), repacked.packed.size()), 0);
  }
}

/// What a base model computes beside an adapter whose factors lie in its spare columns.
TEST_P(CudaLinearLayer, WithoutAdaptersTheSpareRoomIsNotSeen) {
  LinearCase on_device(kShapes[4], *ops_);
  LinearCase on_reference(kShapes[4], *reference_);
  for (LinearCase* c : {&on_device, &on_reference}) {
    for (Adapter& adapter : c->linear.adapters) adapter.rank = 0;
  }
  const HostTensor x = random_tensor(activation(), 7, 96, 1);
  const HostTensor dy = random_tensor(activation(), 7, 120, 2);
  HostTensor y(activation(), 7, 120), want(activation(), 7, 120), dx(activation(), 7, 96), dx_want(activation(), 7, 96);
  ops_->linear_forward(on_device.linear, x, {}, y, {});
  reference_->linear_forward(on_reference.linear, x, {}, want, {});
  expect_close(y, want, "y");
  ops_->linear_backward(on_device.linear, {}, {}, dy, dx);
  reference_->linear_backward(on_reference.linear, {}, {}, dy, dx_want);
  expect_close(dx, dx_want, "dx");
}

/// Adapters of a higher rank than the weights have room for take memory of their own.
TEST_P(CudaLinearLayer, RanksBeyondTheSpareRoomAreRight) {
  const LinearShape shape{48, {40, 24}, {60, 20}, false};
  LinearCase small({48, {40, 24}, {8, 3}, false}, *ops_);
  LinearCase on_device(shape, *ops_);
  LinearCase on_reference(shape, *reference_);
  on_device.linear.frozen = small.linear.frozen;
  const Buffer packed = memory_.allocate(Scope::kAdapters, ops_->adapter_bytes(on_device.linear), "packed");
  on_device.linear.packed = packed.data();
  ops_->pack_adapters(on_device.linear);
  const HostTensor x = random_tensor(activation(), 9, 48, 1);
  HostTensor s(activation(), 9, 80), y(activation(), 9, 64), want(activation(), 9, 64);
  ops_->linear_forward(on_device.linear, x, {}, y, s);
  reference_->linear_forward(on_reference.linear, x, {}, want, s);
  expect_close(y, want, "y");
}

TEST_P(CudaLinearLayer, RoomIsAskedForByWholeTiles) {
  if (GetParam().path == LinearPath::kPlain) {
    EXPECT_EQ(ops_->spare_columns(16, true), 0);
    return;
  }
  EXPECT_EQ(ops_->spare_columns(0, true), 0);
  EXPECT_EQ(ops_->spare_columns(1, false), 64);
  EXPECT_EQ(ops_->spare_columns(62, true), 64);
  EXPECT_EQ(ops_->spare_columns(63, true), 128);
  EXPECT_EQ(ops_->spare_columns(64, false), 64);
  EXPECT_EQ(ops_->spare_columns(768, false), 768);
}

INSTANTIATE_TEST_SUITE_P(Settings, CudaLinearLayer,
                         testing::Values(Setting{kBF16Precision, LinearPath::kAugmented},
                                         Setting{kBF16Precision, LinearPath::kPlain},
                                         Setting{kF32Precision, LinearPath::kAugmented},
                                         Setting{kF32Precision, LinearPath::kPlain}));

}  // namespace
}  // namespace lomu::cuda
