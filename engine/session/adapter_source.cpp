#include "engine/session/adapter_source.h"

#include <fmt/format.h>

#include <array>
#include <system_error>

#include "kernels/error.h"
#include "models/files/json_value.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = "adapter_config.json";

bool holds_adapter(const fs::path& folder) {
  std::error_code error;
  return fs::is_regular_file(folder / kConfig, error);
}

}  // namespace

fs::path find_adapter_folder(const fs::path& path) {
  const std::array places{path, path / "adapter"};
  for (const fs::path& place : places) {
    if (holds_adapter(place)) return place;
  }
  std::error_code error;
  if (!fs::exists(path, error))
    throw FileError("there is no such folder", path.string(), "name a PEFT folder or a run");
  throw FileError(fmt::format("no adapter is here: neither {0} nor adapter/{0}", kConfig), path.string(),
                  "name a PEFT folder, or the folder of a run that has finished");
}

std::string base_model_of(const fs::path& adapter_folder) {
  const fs::path path = adapter_folder / kConfig;
  const JsonValue document = read_json_file(path);
  if (!document.is_object()) throw FormatError("an adapter's configuration is a JSON object", path.string());
  return JsonFields(document, path.string()).string("base_model_name_or_path").value_or("");
}

AdapterFile load_adapter(const fs::path& path, const ModelConfig& config) {
  return read_peft_adapter(find_adapter_folder(path), config);
}

}  // namespace lomu
