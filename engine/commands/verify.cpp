#include "engine/commands/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>
#include <vector>

#include "engine/commands/shipped_cases.h"
#include "engine/commands/verify_report.h"
#include "engine/optimizers/verify_vectors.h"
#include "engine/session/compute.h"
#include "engine/verify/model_cases.h"
#include "models/tokenizer/verify_cases.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;
using config::BackendName;
using config::ComputeType;

template <class Checks>
void add(const Checks& some, const std::string& suffix, std::vector<Check>& checks) {
  for (const auto& check : some) {
    checks.push_back(
        {check.case_name + suffix, check.quantity, check.error, check.tolerance, check.pass, check.note, {}});
  }
}

/// Precision of a check: what is named; else the most exact of the backend, f64 for the specification.
ComputeChoice choose(const ComputeOptions& compute, ComputeType otherwise) {
  const auto alone = make_self_communicator();
  const bool named = compute.dtype != ComputeType::kAuto;
  ComputeChoice choice =
      choose_compute({compute.device, compute.backend, named ? compute.dtype : otherwise, compute.threads}, *alone);
  if (!named && choice.backend == BackendName::kReference) choice.precision = kF64Precision;
  return choice;
}

void add_lora_muon(const fs::path& file, const ComputeChoice& choice, std::vector<Check>& checks) {
  if (choice.cuda_device) {
    add(verify_lora_muon(file, open_backend(choice)), "", checks);
    return;
  }
  const bool reference = choice.backend == BackendName::kReference;
  add(verify_lora_muon(file, reference ? VectorBackend::kReference : VectorBackend::kCpu), "", checks);
}

void add_models(const fs::path& folder, const fs::path& weights, const ComputeChoice& choice, const std::string& suffix,
                std::vector<Check>& checks) {
  const Backend backend = open_backend(choice);
  add(verify_model_cases(folder, weights, *backend.ops, choice.threads, *backend.memory), suffix, checks);
}

/// `set`: shows all cases of the folder as one line of that name; empty: a line each.
void add_tokenizer(const fs::path& folder, const std::string& set, std::vector<Check>& checks) {
  const std::string prefix = set.empty() ? "" : set + " ";
  for (const TokenizerCheck& check : verify_tokenizer_folder(folder)) {
    const std::string note = check.pass ? "" : fmt::format("got {}, expected {}", check.got, check.expected);
    checks.push_back({prefix + check.name, check.quantity, check.pass ? 0.0 : 1.0, 0, check.pass, note, set});
  }
}

/// Entries of a folder by name; none where there is no such folder.
std::vector<fs::path> entries(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(folder, error)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// Everything that ships with the program, in every precision that a run on this machine would choose among.
void add_shipped(const ComputeOptions& compute, std::vector<Check>& checks) {
  const fs::path root = shipped_cases();
  std::vector<ComputeChoice> choices{choose(compute, ComputeType::kF32)};
  for (const fs::path& file : entries(root / "lora_muon")) {
    if (file.extension() == ".json") add_lora_muon(file, choices.front(), checks);
  }
  const bool either = compute.dtype == ComputeType::kAuto && compute.backend != BackendName::kReference;
  if (either && (choices.front().cuda_device || cpu_has_fast_bf16()))
    choices.push_back(choose(compute, ComputeType::kBF16));
  for (const ComputeChoice& choice : choices) {
    for (const fs::path& folder : entries(root / "models")) {
      // Results of a real model come without its weights: `lomu verify model FOLDER --weights FILE`.
      if (!fs::exists(folder / "expected.json") || !fs::exists(folder / "config.json")) continue;
      add_models(folder, {}, choice, fmt::format(" ({})", name_of(choice.precision.activation)), checks);
    }
  }
  for (const fs::path& folder : entries(root / "tokenizer")) {
    if (fs::exists(folder / "cases.jsonl")) add_tokenizer(folder, "tokenizer " + folder.filename().string(), checks);
  }
  if (checks.empty()) throw FileError("no reference case is in this folder", root.string());
}

std::vector<Check> run_checks(const VerifyOptions& options) {
  std::vector<Check> checks;
  switch (options.kind) {
    case VerifyKind::kAll: add_shipped(options.compute, checks); break;
    case VerifyKind::kLoraMuon: add_lora_muon(options.path, choose(options.compute, ComputeType::kF32), checks); break;
    case VerifyKind::kModel:
      add_models(options.path, options.weights, choose(options.compute, ComputeType::kF32), "", checks);
      break;
    case VerifyKind::kTokenizer: add_tokenizer(options.path, "", checks); break;
  }
  return checks;
}

}  // namespace

Exit run_verify(const VerifyOptions& options) {
  std::vector<Check> checks;
  try {
    checks = run_checks(options);
  } catch (const UsageError&) {
    throw;
  } catch (const FileError& error) {
    throw FileError(error.what(), error.where(), error.hint(), Exit::kUsage);
  } catch (const FormatError& error) {
    throw FormatError(error.what(), error.where(), error.hint(), Exit::kUsage);
  } catch (const UnsupportedError& error) {
    throw UnsupportedError(error.what(), error.where(), error.hint(), Exit::kUsage);
  }
  write_out(options.json ? verify_json(checks) : verify_text(checks, style_for(stdout)));
  const bool passed = std::all_of(checks.begin(), checks.end(), [](const Check& check) { return check.pass; });
  return passed ? Exit::kDone : Exit::kFailed;
}

}  // namespace lomu
