// What `lomu inspect` shows of a model, an adapter and an example: each as text for people, or as one JSON object.
// They read files and return text; nothing is printed here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "engine/config/terminal.h"
#include "engine/session/compute.h"

namespace lomu {

struct ViewOptions {
  bool json = false;
  Style style;  ///< of the text; JSON has no colours
};

/// Architecture, sizes, stored types, chat layout, and the sites an adapter can sit on; with `compute` also what the
/// weights take in memory there. Throws what ModelFiles::open and Tokenizer::load throw; a folder without a tokenizer
/// is shown without one.
std::string view_model(const std::filesystem::path& model, const std::optional<ComputeChoice>& compute,
                       const ViewOptions& options);

/// By site: rank, ||A||_F, ||B||_F, and from the singular values of scale B A the largest ones and the stable rank.
/// `model`: the base; empty: the one the adapter names. Throws what open_base_model and load_adapter throw.
std::string view_adapter(const std::filesystem::path& adapter, const std::filesystem::path& model,
                         const ViewOptions& options);

/// Record `index` (from 0, blank lines not counted, through all training files in order) of the job in `file`, token by
/// token as training would see it. Throws ConfigError, UsageError when there is no such record, and what reading
/// records and the tokenizer throws.
std::string view_example(const std::filesystem::path& file, std::int64_t index, const ViewOptions& options);

}  // namespace lomu
