// Ctrl-C that ends an answer and not the program.
#pragma once

#include <csignal>

namespace lomu {

/// While one of these lives, an interrupt from the keyboard is remembered instead of ending the process. One at a time.
class InterruptWatch {
 public:
  InterruptWatch();
  InterruptWatch(const InterruptWatch&) = delete;
  InterruptWatch& operator=(const InterruptWatch&) = delete;
  ~InterruptWatch();

  [[nodiscard]] bool interrupted() const;

 private:
  struct sigaction before_ {};
};

}  // namespace lomu
