// A hash of everything in a TokenizerSpec that determines ids.
#pragma once

#include <cstdint>

#include "models/tokenizer/tokenizer_spec.h"

namespace lomu {

/// The order of the vocabulary in the file does not matter; chat template, decoders and the names of special tokens are
/// left out.
std::uint64_t fingerprint_of(const TokenizerSpec& spec);

}  // namespace lomu
