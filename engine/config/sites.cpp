#include "engine/config/sites.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string_view>

#include "engine/config/nearest.h"
#include "engine/config/value.h"

namespace lomu::config {
namespace {

constexpr std::array<std::string_view, 7> kSites = {"q", "k", "v", "o", "gate", "up", "down"};
/// What can be trained in full beside the sites.
constexpr std::array<std::string_view, 3> kOthers = {"embedding", "head", "norms"};
// More blocks than any model has; keeps a slip of the keyboard from becoming a large table.
constexpr int kMostLayers = 65535;

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

/// The parts between commas of every entry, without blanks around them.
std::vector<std::string> split(const std::vector<std::string>& written) {
  std::vector<std::string> parts;
  for (std::string_view entry : written) {
    while (true) {
      const auto comma = entry.find(',');
      parts.emplace_back(trimmed(entry.substr(0, comma)));
      if (comma == std::string_view::npos) break;
      entry.remove_prefix(comma + 1);
    }
  }
  return parts;
}

bool is_none(const std::vector<std::string>& parts) {
  return parts.size() == 1 && parts.front() == "none";
}

bool is_all(const std::vector<std::string>& parts) {
  return parts.size() == 1 && parts.front() == "all";
}

std::optional<int> layer_number(std::string_view text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0 || number > kMostLayers) return {};
  return number;
}

LayerRange read_range(const std::string& part) {
  const std::string_view text = part;
  const auto dash = text.find('-');
  const auto first = layer_number(trimmed(text.substr(0, dash)));
  const auto last = dash == std::string_view::npos ? first : layer_number(trimmed(text.substr(dash + 1)));
  if (!first || !last) {
    throw BadValue(fmt::format("`{}` is not a layer or a range of layers", part), "write all, 12, 0-9, or [0-9, 12]");
  }
  if (*first > *last) {
    throw BadValue(fmt::format("the range `{}` runs backwards", part), fmt::format("write {}-{}", *last, *first));
  }
  return {*first, *last};
}

}  // namespace

std::vector<std::string> read_sites(const std::vector<std::string>& written) {
  const std::vector<std::string> parts = split(written);
  if (is_all(parts)) return {kSites.begin(), kSites.end()};
  if (is_none(parts)) return {};
  std::array<bool, kSites.size()> chosen{};
  for (const std::string& part : parts) {
    std::string_view name = part;
    if (name.ends_with("_proj")) name.remove_suffix(5);
    const auto site = std::ranges::find(kSites, name);
    if (site == kSites.end()) {
      const std::vector<std::string> names(kSites.begin(), kSites.end());
      const auto close = nearest(name, names);
      throw BadValue(fmt::format("`{}` is not a linear layer that can have an adapter", part),
                     fmt::format("{}allowed: q, k, v, o, gate, up, down, or all alone",
                                 close ? fmt::format("did you mean `{}`? ", *close) : ""));
    }
    bool& taken = chosen[static_cast<std::size_t>(site - kSites.begin())];
    if (taken) throw BadValue(fmt::format("`{}` is given twice", *site));
    taken = true;
  }
  std::vector<std::string> sites;
  for (std::size_t i = 0; i < kSites.size(); ++i) {
    if (chosen[i]) sites.emplace_back(kSites[i]);
  }
  return sites;
}

std::vector<std::string> read_full(const std::vector<std::string>& written) {
  const std::vector<std::string> parts = split(written);
  if (is_none(parts)) return {};
  std::vector<std::string> sites;
  if (is_all(parts)) {
    sites.assign(kOthers.begin(), kOthers.end());
    sites.insert(sites.end(), kSites.begin(), kSites.end());
    return sites;
  }
  std::array<bool, kOthers.size()> chosen{};
  for (const std::string& part : parts) {
    const auto other = std::ranges::find(kOthers, part);
    if (other == kOthers.end()) {
      sites.push_back(part);
      continue;
    }
    bool& taken = chosen[static_cast<std::size_t>(other - kOthers.begin())];
    if (taken) throw BadValue(fmt::format("`{}` is given twice", *other));
    taken = true;
  }
  std::vector<std::string> full;
  for (std::size_t i = 0; i < kOthers.size(); ++i) {
    if (chosen[i]) full.emplace_back(kOthers[i]);
  }
  if (sites.empty()) return full;
  for (const std::string& part : sites) {
    const std::string_view name = std::string_view(part).ends_with("_proj")
                                      ? std::string_view(part).substr(0, part.size() - 5)
                                      : std::string_view(part);
    if (std::ranges::find(kSites, name) != kSites.end()) continue;
    std::vector<std::string> names(kOthers.begin(), kOthers.end());
    names.insert(names.end(), kSites.begin(), kSites.end());
    const auto close = nearest(name, names);
    throw BadValue(fmt::format("`{}` is no weight that can be trained in full", part),
                   fmt::format("{}allowed: {}, or all or none alone",
                               close ? fmt::format("did you mean `{}`? ", *close) : "", fmt::join(names, ", ")));
  }
  for (std::string& site : read_sites(sites)) full.push_back(std::move(site));
  return full;
}

std::vector<std::string> names_text(const std::vector<std::string>& names) {
  return names.empty() ? std::vector<std::string>{"none"} : names;
}

std::vector<LayerRange> read_layers(const std::vector<std::string>& written) {
  const std::vector<std::string> parts = split(written);
  if (is_all(parts)) return {};
  std::vector<LayerRange> ranges;
  for (const std::string& part : parts) ranges.push_back(read_range(part));
  std::ranges::sort(ranges, {}, &LayerRange::first);
  std::vector<LayerRange> joined;
  for (const LayerRange& range : ranges) {
    if (joined.empty() || range.first > joined.back().last + 1) {
      joined.push_back(range);
      continue;
    }
    if (range.first <= joined.back().last) throw BadValue(fmt::format("layer {} is given twice", range.first));
    joined.back().last = range.last;
  }
  return joined;
}

std::vector<std::string> layers_text(const std::vector<LayerRange>& layers) {
  if (layers.empty()) return {"all"};
  std::vector<std::string> text;
  for (const auto& [first, last] : layers) {
    text.push_back(first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last));
  }
  return text;
}

}  // namespace lomu::config
