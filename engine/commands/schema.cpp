#include "engine/commands/schema.h"

#include "engine/config/schema_text.h"
#include "engine/config/terminal.h"

namespace lomu {

Exit run_schema(const SchemaOptions& options) {
  const config::Schema& schema = config::train_schema();
  if (options.json)
    write_out(config::schema_json(schema));
  else if (options.markdown)
    write_out(config::schema_markdown(schema));
  else
    write_out(config::schema_text(schema, style_for(stdout), terminal_width(stdout)));
  return Exit::kDone;
}

}  // namespace lomu
