// SPDX-License-Identifier: GPL-2.0-only
//
// Profiles as Google's pprof and what learnt from it read them.
#pragma once

#include <cstdint>
#include <string>

#include "core/result.hpp"
#include "features/trace/profile/stacks.hpp"

namespace netctl::trace::profile {

struct PprofAbout {
    std::int64_t time_ns = 0; ///< since the epoch, of its beginning
    std::int64_t duration_ns = 0;
    bool waits = false;      ///< amounts are nanoseconds of waits
    std::uint32_t hertz = 0; ///< samples a second, of what runs
};

/// A message perftools.profiles.Profile (proto/profile.proto of pprof), in gzip. Its samples have the number of samples, or of waits,
/// and nanoseconds; labels tell process and pid.
Result<std::string> pprof(const Stacks& stacks, const PprofAbout& about);

} // namespace netctl::trace::profile
