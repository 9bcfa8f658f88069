// SPDX-License-Identifier: GPL-2.0-only
//
// What became of a set between two looks at it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "datapath/sets.hpp"

namespace netctl::set {

enum class Event : std::uint8_t {
    there,   ///< at the first look
    added,   ///< since the look before
    changed, ///< it has another end now, or is an exception now, or is none any more
    expired, ///< its time is over
    removed, ///< by somebody
};
std::string to_string(Event event);

struct SetChange {
    Event event{};
    datapath::SetEntry entry; ///< as it is; of one that is gone, as it was
};

/// `before` and `after` are as Set::entries() gives them, at the seconds of CLOCK_BOOTTIME `then` and `now`; what has expired
/// by then is not there. Sorted as these.
std::vector<SetChange> changes_between(const std::vector<datapath::SetEntry>& before,
                                       std::uint32_t then,
                                       const std::vector<datapath::SetEntry>& after,
                                       std::uint32_t now);

} // namespace netctl::set
