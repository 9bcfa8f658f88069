// SPDX-License-Identifier: GPL-2.0-only
//
// What /proc tells of a process.
#pragma once

#include <cstdint>
#include <string>
#include <sys/types.h>

#include "core/result.hpp"

namespace netctl::sys {

struct Process {
    pid_t pid = 0;
    std::string name;      ///< as it calls itself: any bytes
    std::uint32_t uid = 0; ///< real user
    std::uint32_t gid = 0; ///< real group
    std::string cgroup;    ///< of version 2, below its mount
    std::string
        exe; ///< path of its executable, as its own mount namespace has it; empty: unreadable
    std::string exe_link; ///< leads to that file from here, whatever became of the path
};

/// An error if there is no such process.
Result<Process> read_process(pid_t pid);

} // namespace netctl::sys
