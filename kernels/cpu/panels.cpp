// Where each packed matrix of a linear group lies, and how it is filled.
#include "kernels/cpu/adapter_panels.h"
#include "kernels/cpu/linear.h"

namespace lomu::cpu {
namespace {

/// Byte offset of the forward panels of `part`; part == outs.size() gives the backward panels.
template <class T>
std::size_t panel_offset(const FrozenLinear& linear, std::size_t part) {
  std::size_t offset = 0;
  for (std::size_t i = 0; i < part; ++i) offset += PanelShape{linear.in, linear.outs[i], kDTypeOf<T>}.bytes();
  return offset;
}

}  // namespace

template <class T>
std::size_t frozen_bytes(const FrozenLinear& linear) {
  if (linear.zero) return 0;
  const std::size_t forward = panel_offset<T>(linear, linear.outs.size());
  return forward + (linear.backward ? PanelShape{linear.out(), linear.in, kDTypeOf<T>}.bytes() : 0);
}

template <class T>
const T* forward_panels(const FrozenLinear& linear, std::size_t part) {
  return reinterpret_cast<const T*>(linear.storage + panel_offset<T>(linear, part));
}

template <class T>
const T* backward_panels(const FrozenLinear& linear) {
  return forward_panels<T>(linear, linear.outs.size());
}

template <class T>
void pack_frozen(const FrozenLinear& linear, std::size_t part, std::int64_t first_row, std::int64_t rows,
                 const float* w) {
  const PanelShape forward{linear.in, linear.outs[part], kDTypeOf<T>};
  pack_columns(forward, const_cast<T*>(forward_panels<T>(linear, part)), w, linear.in, 0, linear.in, first_row, rows);
  if (!linear.backward) return;
  std::int64_t row0 = first_row;
  for (std::size_t i = 0; i < part; ++i) row0 += linear.outs[i];
  const PanelShape backward{linear.out(), linear.in, kDTypeOf<T>};
  pack_rows(backward, const_cast<T*>(backward_panels<T>(linear)), w, linear.in, row0, rows, 0, linear.in);
}

template <class T>
std::size_t adapter_bytes(const AdaptedLinear& linear) {
  return AdapterPanels<T>(linear).bytes();
}

template <class T>
void pack_adapters(Team& team, const AdaptedLinear& linear) {
  const AdapterPanels<T> panels(linear);
  const std::int64_t in = linear.frozen.in;
  const auto parts = static_cast<std::int64_t>(linear.adapters.size());
  // A unit of work is one form of one adapter: a group of one part keeps four threads busy.
  team.for_each(4 * parts, [&](std::int64_t unit, Worker&) {
    const auto part = static_cast<std::size_t>(unit / 4);
    const Adapter& adapter = linear.adapters[part];
    const std::int64_t r = adapter.rank;
    if (r == 0) return;
    const std::int64_t out = linear.frozen.outs[part];
    const std::int64_t column = panels.column(part);
    const auto s = static_cast<float>(adapter.scale);
    switch (unit % 4) {
      case 0: return pack_columns(panels.down_shape(), panels.down(), adapter.a, in, 0, in, column, r);
      case 1: return pack_rows(panels.down_grad_shape(), panels.down_grad(), adapter.a, in, column, r, 0, in);
      case 2: return pack_columns(panels.up_shape(part), panels.up(part), adapter.b, r, 0, r, 0, out, s);
      default: return pack_rows(panels.up_grad_shape(part), panels.up_grad(part), adapter.b, r, 0, out, 0, r, s);
    }
  });
}

template std::size_t frozen_bytes<float>(const FrozenLinear&);
template std::size_t frozen_bytes<BF16>(const FrozenLinear&);
template const float* forward_panels<float>(const FrozenLinear&, std::size_t);
template const BF16* forward_panels<BF16>(const FrozenLinear&, std::size_t);
template const float* backward_panels<float>(const FrozenLinear&);
template const BF16* backward_panels<BF16>(const FrozenLinear&);
template void pack_frozen<float>(const FrozenLinear&, std::size_t, std::int64_t, std::int64_t, const float*);
template void pack_frozen<BF16>(const FrozenLinear&, std::size_t, std::int64_t, std::int64_t, const float*);
template std::size_t adapter_bytes<float>(const AdaptedLinear&);
template std::size_t adapter_bytes<BF16>(const AdaptedLinear&);
template void pack_adapters<float>(Team&, const AdaptedLinear&);
template void pack_adapters<BF16>(Team&, const AdaptedLinear&);

}  // namespace lomu::cpu
