// The keys that say what is trained, as text and as data: adapter.targets, adapter.full and adapter.layers.
// Knows no model: which layers exist is checked where a model is at hand (AdapterConfig::layer_mask).
#pragma once

#include <string>
#include <vector>

#include "engine/config/train_config.h"

namespace lomu::config {

/// Names as written ("q", "q_proj", "q,v", "all", "none") to the short names in the order q, k, v, o, gate, up, down.
/// BadValue for an unknown name or one given twice.
std::vector<std::string> read_sites(const std::vector<std::string>& written);

/// The same for weights trained in full: embedding, head and norms come before the sites.
std::vector<std::string> read_full(const std::vector<std::string>& written);
/// "none" for an empty list.
std::vector<std::string> names_text(const std::vector<std::string>& names);

/// "all", or numbers and ranges ("0-9", "12", "0-9,12") to ranges in rising order, neighbours joined; "all" gives none.
/// BadValue for anything else, and for a layer given twice.
std::vector<LayerRange> read_layers(const std::vector<std::string>& written);
std::vector<std::string> layers_text(const std::vector<LayerRange>& layers);

}  // namespace lomu::config
