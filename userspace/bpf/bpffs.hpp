// SPDX-License-Identifier: GPL-2.0-only
//
// Where a root may be, and the mount of the bpffs that it is in.
#pragma once

#include <string>

#include "core/fd.hpp"
#include "core/result.hpp"

namespace netctl::bpf {

/// The path of a root as it was given, with its slashes put in order. It has to be absolute and without `.`
/// and `..`; the error tells what to write instead.
Result<std::string> root_path(const std::string& given);

/// Opens a directory `name` in `parent`, for the *at calls only. The error's code is ELOOP if it is a
/// symbolic link; `path` is for errors.
Result<Fd> open_step(int parent, const std::string& name, const std::string& path);
bool on_bpffs(int fd);

/// Mounts a bpffs if `path`, from `root_path()`, is not inside one: at /sys/fs/bpf if the path is below it,
/// else at the path itself, which is made. Never over another bpffs, even if two do this at a time.
/// Returns the mount point if it mounted, an empty string if not.
Result<std::string> ensure_bpffs(const std::string& path);

} // namespace netctl::bpf
