#include "engine/commands/interrupt.h"

namespace lomu {
namespace {

// A signal handler gets no argument of ours: what it tells has to be in a static.
volatile std::sig_atomic_t interrupts = 0;

void remember(int) {
  interrupts = 1;
}

}  // namespace

InterruptWatch::InterruptWatch() {
  interrupts = 0;
  struct sigaction action {};
  action.sa_handler = remember;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, &before_);
}

InterruptWatch::~InterruptWatch() {
  sigaction(SIGINT, &before_, nullptr);
}

bool InterruptWatch::interrupted() const {
  return interrupts != 0;
}

}  // namespace lomu
