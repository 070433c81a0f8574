// The tokenizer inside a GGUF file (keys tokenizer.ggml.*), as the same data that tokenizer.json gives.
// GGUF holds vocabulary and merges but only a name for the pipeline; known names are spelled out here, others refused.
#pragma once

#include "models/files/gguf.h"
#include "models/tokenizer/tokenizer_spec.h"

namespace lomu {

/// Throws FormatError (missing or contradictory keys), UnsupportedError (tokenizer model or pre-tokenizer not known, by
/// name).
TokenizerSpec read_tokenizer_gguf(const GgufFile& file);

}  // namespace lomu
