// That all ranks of a job do the same thing: one program file, one configuration. Ranks that differ would wait for each
// other for ever, or train on garbage; so they compare before anything else.
#pragma once

#include <string>

#include "comm/communicator.h"
#include "engine/config/train_config.h"

namespace lomu {

/// Collective. Throws AgreedError naming the first rank whose program file or resolved configuration is not that of
/// rank 0, and the first line in which the configurations differ.
void check_same_job(const config::TrainConfig& config, Communicator& comm);

/// The same for any text in place of the configuration and any name in place of the program's hash; for tests.
void check_same_job(const std::string& program, const std::string& configuration, Communicator& comm);

}  // namespace lomu
