// SPDX-License-Identifier: GPL-2.0-only
//
// What outlives a boot: a configuration in a file.
#pragma once

#include <string>
#include <vector>

#include "core/result.hpp"
#include "host/config.hpp"

namespace netctl::host {

inline constexpr const char* saved_path = "/var/lib/netctl/saved.yaml";

/// Writes it beside, and puts it in the place of an older one when it is on the disk. Makes the folder.
Result<> write_saved(const std::string& path, const std::string& text);

struct Restored {
    std::vector<std::string> done;   ///< titles
    std::vector<std::string> failed; ///< with the reason
    std::vector<std::string> notes;
};

/// Puts in force what it can: one missing interface or cgroup keeps nothing else from it.
Result<Restored> restore(const HostConfig& config, const RootOptions& root,
                         const std::string& netns);

} // namespace netctl::host
