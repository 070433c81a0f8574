// Which commit this program was built from.
#pragma once

namespace lomu {

/// What `git describe` said when it was built, with "-dirty" for changed files; "unknown" outside a clone.
const char* commit();

}  // namespace lomu
