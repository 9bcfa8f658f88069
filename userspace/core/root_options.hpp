// SPDX-License-Identifier: GPL-2.0-only
//
// Which root a command works on, and how patiently.
#pragma once

#include <chrono>
#include <string>

namespace netctl {

/// The root that a host has where no other is named.
inline constexpr const char* default_root = "/sys/fs/bpf/netctl";

struct RootOptions {
    std::string path;                      ///< --root: a directory in a bpffs, as it was given
    std::chrono::seconds lock_timeout{30}; ///< --lock-timeout: how long to wait for other commands
};

} // namespace netctl
