#include "engine/commands/inspect.h"

#include "engine/commands/inspect_views.h"
#include "engine/session/compute.h"

namespace lomu {

Exit run_inspect(const InspectOptions& options) {
  const ViewOptions view{options.json, style_for(stdout)};
  // For every view: a device that is named is one that is there.
  std::optional<ComputeChoice> compute;
  if (options.device) compute = choose_compute({*options.device}, *make_self_communicator());
  if (!options.example.empty())
    write_out(view_example(options.example, options.index, view));
  else if (!options.adapter.empty())
    write_out(view_adapter(options.adapter, options.model, view));
  else
    write_out(view_model(options.model, compute, view));
  return Exit::kDone;
}

}  // namespace lomu
