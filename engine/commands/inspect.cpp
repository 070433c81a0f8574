#include "engine/commands/inspect.h"

#include "engine/commands/inspect_views.h"

namespace lomu {

Exit run_inspect(const InspectOptions& options) {
  const ViewOptions view{options.json, style_for(stdout)};
  if (!options.example.empty())
    write_out(view_example(options.example, options.index, view));
  else if (!options.adapter.empty())
    write_out(view_adapter(options.adapter, options.model, view));
  else
    write_out(view_model(options.model, view));
  return Exit::kDone;
}

}  // namespace lomu
