// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/ending.hpp"

#include <fmt/format.h>

#include "features/trace/selection.hpp"

namespace netctl::trace {

bool Ending::has_come() {
    if (Signals::interrupted())
        return true;
    const auto now = std::chrono::steady_clock::now();
    if (duration_.count() != 0 && now - start_ >= duration_)
        return true;
    if (pid_ == 0 || now < next_look_)
        return false;
    next_look_ = now + std::chrono::milliseconds(250);
    if (process_exists(pid_))
        return false;
    out_->note(fmt::format("process {} is gone", pid_));
    return true;
}

} // namespace netctl::trace
