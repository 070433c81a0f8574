#include "engine/optimizers/parallel_pairs.h"

#include <omp.h>

#include <exception>

namespace lomu {

void for_each_pair(std::size_t count, const std::function<void(std::size_t)>& work) {
  std::exception_ptr first_error;
  std::size_t first_failed = count;
  const bool across_pairs = count >= static_cast<std::size_t>(omp_get_max_threads());
#pragma omp parallel for schedule(dynamic) if (across_pairs)
  for (std::size_t i = 0; i < count; ++i) {
    try {
      work(i);
    } catch (...) {
#pragma omp critical(lomu_first_pair_error)
      if (i < first_failed) {
        first_failed = i;
        first_error = std::current_exception();
      }
    }
  }
  if (first_error) std::rethrow_exception(first_error);
}

}  // namespace lomu
