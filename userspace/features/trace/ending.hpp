// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <chrono>
#include <cstdint>

#include "core/output.hpp"
#include "features/trace/signals.hpp"

namespace netctl::trace {

/// When an instrument is to end: with a signal, after its time, or with the process that it was asked about.
class Ending {
  public:
    /// `duration_s` 0: no such time; `pid` 0: no such process. `out` has to outlive this.
    Ending(std::uint64_t duration_s, std::uint32_t pid, Output& out)
        : duration_(duration_s), pid_(pid), out_(&out) {}

    /// Its time runs from now on; signals and the process are looked for before.
    void begin() { start_ = next_look_ = std::chrono::steady_clock::now(); }
    /// Whether it is time. That the process is gone is told.
    bool has_come();
    std::chrono::steady_clock::time_point start() const { return start_; }

  private:
    Signals signals_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
    std::chrono::steady_clock::time_point next_look_ = start_;
    std::chrono::seconds duration_;
    std::uint32_t pid_;
    Output* out_;
};

} // namespace netctl::trace
