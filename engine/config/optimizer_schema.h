// The rows of the key table below `optimizer`.
#pragma once

#include "engine/config/section.h"

namespace lomu::config {

void add_optimizer(Table& table);

}  // namespace lomu::config
