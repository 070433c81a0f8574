#include "engine/commands/base_model.h"

#include <fmt/format.h>

#include <string>
#include <system_error>

#include "engine/session/adapter_source.h"
#include "kernels/error.h"

namespace lomu {

ModelFiles open_base_model(const std::filesystem::path& model, const std::filesystem::path& adapter_folder) {
  if (!model.empty()) return ModelFiles::open(model);
  const std::string named = base_model_of(adapter_folder);
  if (named.empty()) {
    throw UsageError("the adapter does not say what its base model is", adapter_folder.string(), "give --model PATH");
  }
  std::error_code error;
  if (!std::filesystem::exists(named, error)) {
    throw UsageError(fmt::format("the base model that the adapter names is not here: {}", named),
                     adapter_folder.string(), "give its folder or GGUF file as --model PATH");
  }
  return ModelFiles::open(named);
}

}  // namespace lomu
