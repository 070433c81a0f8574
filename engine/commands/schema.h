// `lomu schema`: every key of a job, from the table that parses it.
#pragma once

#include "kernels/error.h"

namespace CLI {
class App;
}

namespace lomu {

struct SchemaOptions {
  bool json = false;      ///< JSON Schema, for editors
  bool markdown = false;  ///< the tables of docs/configuration.md
};

/// Adds `schema` and its options to `program`; parsing fills `options`. Returns the command.
CLI::App& declare(CLI::App& program, SchemaOptions& options);

Exit run_schema(const SchemaOptions& options);

}  // namespace lomu
