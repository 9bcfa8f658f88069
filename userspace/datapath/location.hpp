// SPDX-License-Identifier: GPL-2.0-only
//
// Where the interface of a point is by now. An interface is its index in its network namespace: its name may be
// another one's by now (invariant I9), and it may have gone to another namespace.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bpf/pin_dir.hpp"
#include "core/result.hpp"
#include "core/rule.hpp"
#include "datapath/point.hpp"
#include "datapath/root.hpp"

namespace netctl::datapath {

/// How a point stands.
enum class Presence {
    attached,
    renamed,  ///< attached, and its interface has another name now
    moved,    ///< attached, and its interface is in another network namespace now
    vanished, ///< the interface is gone: rules and counters are kept
    returned, ///< gone and made again under its name: not attached to the new one
    removed, ///< the interface is there, but somebody took the filter away (clsact, XDP without a link)
    unknown, ///< the kernel refused to tell (invariant I13)
};

struct Location {
    Presence presence = Presence::attached;
    std::string interface;        ///< its name now
    std::optional<Error> trouble; ///< why it is unknown
};

/// Finds the interface of a point by what the kernel says of its attachment.
Location locate(const PointName& name, const LivePoint& live, Hook hook);

/// The directory of the point whose interface is called `interface` now, of whatever name, if there is one that
/// was renamed; for readers, who rename nothing. In the point's namespace.
Result<std::optional<bpf::PinDir>>
find_renamed(const Root& root, Hook hook, const std::string& netns, const std::string& interface);

/// Names the directories of points after what their interfaces are called now, and tells of each. In the
/// namespace `netns`, which is the current one.
Result<> follow_renamed(const LockedRoot& root, Hook hook, const std::string& netns,
                        std::vector<std::string>& notes);

/// Gives the directory of a point another name, INTERFACE@INDEX, so that the name is free; returns it.
Result<std::string> park(const LockedRoot& root, Hook hook, const PointName& name,
                         std::uint32_t ifindex);

} // namespace netctl::datapath
