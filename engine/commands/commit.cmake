# Writes the source file that says which commit is built: cmake -DSOURCE=... -DOUTPUT=... -P commit.cmake
# Run by every build; the file changes only with what it says.
set(commit unknown)
find_program(git git)
if(git AND EXISTS ${SOURCE}/.git)
  execute_process(COMMAND ${git} describe --always --tags --dirty WORKING_DIRECTORY ${SOURCE}
    OUTPUT_VARIABLE found RESULT_VARIABLE failed OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(NOT failed AND found MATCHES "^[A-Za-z0-9._/+-]+$")
    set(commit ${found})
  endif()
endif()
file(CONFIGURE OUTPUT ${OUTPUT} @ONLY CONTENT [[
#include "engine/commands/commit.h"

namespace lomu {

const char* commit() {
  return "@commit@";
}

}  // namespace lomu
]])
