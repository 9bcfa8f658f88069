// SPDX-License-Identifier: GPL-2.0-only
//
// Control groups, version 2.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/fd.hpp"
#include "core/result.hpp"

namespace netctl::sys {

/// Where cgroup v2 is mounted; found in the mount table, since hybrid hosts have it elsewhere.
Result<std::string> cgroup_mount();

/// A cgroup v2 directory that was found.
struct Cgroup {
    std::string path;     ///< of the directory, absolute
    std::string name;     ///< below the mount, `/` for the root
    std::uint64_t id = 0; ///< its inode number, which is the kernel's id of it
};

/// `name` is a path below the mount (`/system.slice/nginx.service`, with or without the first
/// slash) or the directory's own path. Empty is the root.
Result<Cgroup> find_cgroup(const std::string& name);

/// The name below the mount of the cgroup with this id; nothing if it is gone. cgroup_name() says so too where it cannot
/// be known, and is for what is shown; ask look_for_cgroup() where that has something done, or left undone.
Result<std::optional<std::string>> look_for_cgroup(std::uint64_t id);
std::optional<std::string> cgroup_name(std::uint64_t id);

/// The calling process's, by its name; nothing if it cannot be told.
std::optional<std::string> own_cgroup();

/// The same of the process that a directory of /proc is about ("/proc/4711").
std::optional<std::string> cgroup_of(const std::string& process_directory);

/// How far below the root a cgroup of this name is; the root is at 0.
std::uint32_t cgroup_level(const std::string& name);

Result<Fd> open_cgroup(const Cgroup& cgroup);

} // namespace netctl::sys
