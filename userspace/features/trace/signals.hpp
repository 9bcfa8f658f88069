// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <csignal>

namespace netctl::trace {

/// While it lives, SIGINT and SIGTERM end the trace in order, so that what is in flight is told and pins go
/// away, and a reader that is gone is an error of writing.
class Signals {
  public:
    Signals();
    Signals(const Signals&) = delete;
    Signals& operator=(const Signals&) = delete;
    ~Signals();

    static bool interrupted();
    /// Whether the terminal has another size since the last call.
    static bool take_resized();

  private:
    struct sigaction old_[4]{};
};

} // namespace netctl::trace
