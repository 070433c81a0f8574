#include "engine/commands/export.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <system_error>

#include "engine/commands/base_model.h"
#include "engine/commands/merge.h"
#include "engine/config/terminal.h"
#include "engine/session/adapter_source.h"
#include "engine/session/compute.h"
#include "engine/train/job_options.h"
#include "models/files/model_writer.h"
#include "models/files/peft_adapter.h"
#include "models/tokenizer/tokenizer_json.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

bool lies_in(const fs::path& path, const fs::path& folder) {
  const fs::path inner = fs::weakly_canonical(path);
  const fs::path outer = fs::weakly_canonical(folder);
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

/// Whether the folder is something that export writes, or empty: nothing else is ever replaced.
bool may_be_replaced(const fs::path& folder) {
  if (!fs::is_directory(folder)) return false;
  constexpr std::array kMarks{"adapter_config.json", "config.json"};
  return fs::is_empty(folder) || std::any_of(kMarks.begin(), kMarks.end(),
                                             [&](const char* mark) { return fs::is_regular_file(folder / mark); });
}

void check_output(const fs::path& out, bool overwrite, const fs::path& adapter, const fs::path& model) {
  std::error_code error;
  if (!fs::exists(fs::symlink_status(out, error))) return;
  if (!overwrite) {
    throw UsageError("the output exists already", out.string(), "name another folder, or replace it with --overwrite");
  }
  if (lies_in(adapter, out) || lies_in(model, out)) {
    throw UsageError("the output would replace what is exported", out.string(), "name another folder");
  }
  if (!may_be_replaced(out)) {
    throw UsageError("--overwrite replaces a folder of a model or an adapter, and this is neither", out.string(),
                     "name another folder");
  }
}

void export_adapter(const ExportOptions& options, const AdapterFile& adapter, const ModelFiles& base) {
  const DType dtype = stored_dtype(options.dtype.value_or(config::StoredType::kF32));
  write_peft_adapter(options.out, adapter, base.config(), dtype, options.overwrite);
  fmt::print(stderr, "{}: {} pairs in {}, read back and compared\n", options.out.string(), adapter.pairs.size(),
             name_of(dtype));
  fmt::print(stderr, "next: lomu generate --model {} --adapter {}\n", base.path().string(), options.out.string());
}

/// What a merged model is stored as when nobody says: as its base, bf16 where that is quantised.
DType natural_dtype(const ModelFiles& base) {
  std::string type(name_of(base.config().stored_dtype.value_or(DType::kBF16)));
  if (base.gguf() != nullptr) type = base.stored_type(weight_of(0, Site::kQ));
  for (const DType dtype : {DType::kF32, DType::kF16}) {
    if (type == name_of(dtype)) return dtype;
  }
  return DType::kBF16;
}

void export_merged(const ExportOptions& options, const AdapterFile& adapter, const ModelFiles& base,
                   const ComputeChoice& compute) {
  const Backend backend = open_backend(compute);
  MergedWeights merged(base, adapter, *backend.ops, *backend.memory);
  ModelWriterOptions writer;
  writer.dtype = options.dtype ? stored_dtype(*options.dtype) : natural_dtype(base);
  writer.replace = options.overwrite;
  if (base.gguf() != nullptr) {
    const TokenizerSpec tokenizer = read_tokenizer_spec(base.path());
    writer.write_tokenizer = [tokenizer](const fs::path& folder) { write_tokenizer_files(tokenizer, folder); };
  }
  const RoundingReport rounding = write_model_folder(
      options.out, base,
      [&](WeightId id, std::int64_t first, std::int64_t count, std::span<float> out) {
        merged.read_rows(id, first, count, out);
      },
      writer);
  fmt::print(stderr, "{}: {} with {} pairs merged, in {}; summed by {}\n", options.out.string(), base.path().string(),
             adapter.pairs.size(), name_of(writer.dtype), compute.text());
  if (rounding.largest_error == 0) {
    fmt::print(stderr, "storing: exact, against the merge in f32\n");
  } else {
    fmt::print(stderr, "storing: largest error {:.2e} (in {}), {:.2e} relative, against the merge in f32\n",
               rounding.largest_error, rounding.tensor, rounding.relative_error);
  }
  fmt::print(stderr, "next: lomu generate --model {}\n", options.out.string());
}

}  // namespace

Exit run_export(const ExportOptions& options) {
  // Also without arithmetic to do: a device that is named is one that is there.
  const auto alone = make_self_communicator();
  std::optional<ComputeChoice> compute;
  if (options.merged || options.device == config::DeviceName::kCuda) {
    compute = choose_compute({options.device, config::BackendName::kAuto, config::ComputeType::kF32}, *alone);
  }
  const fs::path folder = find_adapter_folder(options.adapter);
  const ModelFiles base = open_base_model(options.model, folder);
  check_output(options.out, options.overwrite, folder, base.path());
  const AdapterFile adapter = load_adapter(folder, base.config());
  if (options.merged)
    export_merged(options, adapter, base, *compute);
  else
    export_adapter(options, adapter, base);
  return Exit::kDone;
}

}  // namespace lomu
