// SPDX-License-Identifier: GPL-2.0-only
//
// What tells a file from all others inside of the kernel.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>

namespace netctl::sys {

struct FileId {
    std::uint32_t device = 0; ///< of the file system: major << 20 | minor
    std::uint64_t inode = 0;
    auto operator<=>(const FileId&) const = default;
};

/// Device and inode of a regular file as the kernel has them, and not as stat() tells them: btrfs and
/// overlayfs make up other device numbers there. Nothing if there is no such file, or no right to
/// read it. Before Linux 6.8, a file on an overlayfs that only another mount namespace has (by a path
/// below /proc/PID/root) is taken for the file below.
std::optional<FileId> file_id(const std::string& path);

} // namespace netctl::sys
