#include "engine/train/trained_model.h"

#include <algorithm>
#include <vector>

#include "models/files/model_writer.h"
#include "models/tokenizer/byte_tokenizer.h"
#include "models/tokenizer/tokenizer_json.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

/// Adds rows [first, first + count) of s P Q^T.
void add_product(const AdapterSet& adapters, const PairInfo& pair, std::int64_t first, std::int64_t count,
                 std::span<float> out) {
  const auto left = adapters.b(pair);
  const auto right = adapters.a(pair);
  std::vector<double> row(static_cast<std::size_t>(pair.in));
  for (std::int64_t i = 0; i < count; ++i) {
    const auto to = out.subspan(static_cast<std::size_t>(i * pair.in), row.size());
    std::copy(to.begin(), to.end(), row.begin());
    for (std::int64_t k = 0; k < pair.rank; ++k) {
      const double factor =
          pair.scale * static_cast<double>(left[static_cast<std::size_t>((first + i) * pair.rank + k)]);
      const float* q = right.data() + k * pair.in;
      for (std::size_t j = 0; j < row.size(); ++j) row[j] += factor * static_cast<double>(q[j]);
    }
    std::transform(row.begin(), row.end(), to.begin(), [](double x) { return static_cast<float>(x); });
  }
}

}  // namespace

bool makes_a_model(const AdapterSet& adapters, const ModelFiles& files) {
  const bool has_pairs =
      std::any_of(adapters.pairs().begin(), adapters.pairs().end(), [](const PairInfo& p) { return !p.full; });
  return !has_pairs || files.nowhere();
}

void write_trained_model(const fs::path& folder, const AdapterSet& adapters, const ModelFiles& files, DType dtype) {
  const auto rows = [&](WeightId id, std::int64_t first, std::int64_t count, std::span<float> out) {
    const auto found = adapters.find(id);
    if (found && adapters.pairs()[*found].full) {
      const auto values = adapters.b(adapters.pairs()[*found]);
      std::copy_n(values.begin() + first * adapters.pairs()[*found].in, out.size(), out.begin());
      return;
    }
    if (files.config().without_base && site_of(id.kind)) {
      std::fill(out.begin(), out.end(), 0.0f);
    } else {
      files.read_rows(id, first, count, out);
    }
    if (found) add_product(adapters, adapters.pairs()[*found], first, count, out);
  };
  ModelWriterOptions options;
  options.dtype = dtype;
  options.replace = true;
  if (files.gguf() != nullptr) {
    const TokenizerSpec tokenizer = read_tokenizer_spec(files.path());
    options.write_tokenizer = [tokenizer](const fs::path& to) { write_tokenizer_files(tokenizer, to); };
  } else if (files.nowhere()) {
    options.write_tokenizer = [](const fs::path& to) { write_tokenizer_files(byte_tokenizer(), to); };
  }
  write_model_folder(folder, files, rows, options);
}

}  // namespace lomu
