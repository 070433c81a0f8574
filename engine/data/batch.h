// One micro-batch as the model takes it: documents one after another, attention cut by cumulative lengths, positions
// that restart with each document.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/data/dataset.h"

namespace lomu {

struct Batch {
  std::vector<std::int32_t> ids;         ///< [tokens]
  std::vector<std::int32_t> labels;      ///< [tokens], not shifted: the output at t is compared with labels[t + 1]
  std::vector<std::int32_t> positions;   ///< [tokens], 0 at the start of each document
  std::vector<std::int32_t> cu_seqlens;  ///< [documents + 1], from 0 to tokens
  std::uint64_t supervised = 0;          ///< predictions: labels after the first of their document, not kNotSupervised

  [[nodiscard]] std::size_t tokens() const { return ids.size(); }
  [[nodiscard]] std::size_t documents() const { return cu_seqlens.empty() ? 0 : cu_seqlens.size() - 1; }
};

/// One example and the data set it is in.
struct ExampleRef {
  const Dataset* data = nullptr;
  std::uint32_t index = 0;
};

/// The examples of one micro-batch, in the given order. Throws UsageError when their tokens exceed 2^31 - 1.
Batch make_batch(std::span<const ExampleRef> examples);
Batch make_batch(const Dataset& data, std::span<const std::uint32_t> examples);

/// Some examples of one or several data sets, for several files and for a held-out split: what a StepPlan is made of,
/// and the way back from the plan's indices to the data sets'. The data sets must outlive this.
class DatasetPart {
 public:
  /// All of it.
  explicit DatasetPart(const Dataset& data);
  /// Those examples, in that order.
  DatasetPart(const Dataset& data, std::vector<std::uint32_t> examples);
  /// Several data sets, one after another: all of them, or those of their examples, counted through.
  explicit DatasetPart(std::span<const Dataset> data);
  DatasetPart(std::span<const Dataset> data, std::vector<std::uint32_t> examples);

  [[nodiscard]] std::size_t size() const { return examples_.size(); }
  [[nodiscard]] std::span<const std::uint32_t> lengths() const { return lengths_; }
  [[nodiscard]] std::span<const std::uint32_t> supervised() const { return supervised_; }
  /// Index of each of this part's examples, counted through all data sets.
  [[nodiscard]] std::span<const std::uint32_t> examples() const { return examples_; }

  /// `part_examples` index this part, as a plan made of its lengths does.
  [[nodiscard]] Batch batch(std::span<const std::uint32_t> part_examples) const;

 private:
  std::vector<ExampleRef> refs_;
  std::vector<std::uint32_t> examples_;
  std::vector<std::uint32_t> lengths_;
  std::vector<std::uint32_t> supervised_;
};

}  // namespace lomu
