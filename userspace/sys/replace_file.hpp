// SPDX-License-Identifier: GPL-2.0-only
//
// Files that others read while they are written anew.
#pragma once

#include <string>
#include <string_view>

#include <sys/types.h>

#include "core/result.hpp"

namespace netctl::sys {

/// Puts a file with this text and mode in the place of the one at `path`, in one step: who opens it has the old
/// text or the new one, whole. It has no name while it is written, where the file system can do that, and a name of its
/// own beside it for a moment then: NAME.netctl-new. What fails leaves the old one, and nothing else. A link at `path`
/// is replaced, not followed.
Result<> replace_file(const std::string& path, std::string_view text, mode_t mode);

} // namespace netctl::sys
