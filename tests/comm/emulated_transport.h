// A DeviceTransport without a device: the kernels in emulation, the messages over a Communicator.
#pragma once

#include <algorithm>
#include <vector>

#include "comm/device_transport.h"

namespace lomu {

class EmulatedTransport final : public DeviceTransport {
 public:
  EmulatedTransport(Communicator& comm, Memory& memory) : comm_(comm), memory_(memory) {}

  [[nodiscard]] int rank() const override { return comm_.rank(); }
  [[nodiscard]] int size() const override { return comm_.size(); }
  [[nodiscard]] Memory& memory() override { return memory_; }
  void wait_for(cuda::Stream) override {}
  void release_to(cuda::Stream) override {}
  void check_queued() override {}
  void drain() override {}
  void copy_tiles(const cuda::CopyTile* tiles, std::size_t count, const float* from, float* to) override {
    cuda::copy_tiles(tiles, count, from, to, nullptr);
  }
  void ordered_add(const cuda::OrderedSource* sources, int count, int depth, float* out, std::size_t n) override {
    cuda::ordered_add(sources, count, depth, out, n, nullptr);
  }
  void zero(float* data, std::size_t n) override { std::fill_n(data, n, 0.0f); }
  void exchange(std::span<const Outgoing> sends, std::span<const Incoming> receives, std::string_view what) override {
    comm_.exchange(sends, receives, 2, what);
  }
  void reduce_scatter(const float* all, float* mine, std::size_t n, std::string_view what) override {
    const std::span<const float> own(all, n * static_cast<std::size_t>(size()));
    std::vector<float> everything(own.size() * static_cast<std::size_t>(size()));
    comm_.all_gather(std::as_bytes(own), std::as_writable_bytes(std::span(everything)), what);
    std::fill_n(mine, n, 0.0f);
    for (std::size_t k = static_cast<std::size_t>(size()); k-- > 0;) {
      for (std::size_t i = 0; i < n; ++i)
        mine[i] += everything[k * own.size() + static_cast<std::size_t>(rank()) * n + i];
    }
  }
  void all_gather(const float* mine, float* all, std::size_t n, std::string_view what) override {
    comm_.all_gather(std::as_bytes(std::span(mine, n)),
                     std::as_writable_bytes(std::span(all, n * static_cast<std::size_t>(size()))), what);
  }

 private:
  Communicator& comm_;
  Memory& memory_;
};

}  // namespace lomu
