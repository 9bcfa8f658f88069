// SPDX-License-Identifier: GPL-2.0-only
//
// Files that a user names.
#pragma once

#include <string>

#include "core/result.hpp"

namespace netctl::sys {

/// What messages call the file that read_text() reads.
std::string text_name(const std::string& path);

/// What is in a file; of standard input if `path` is empty or `-`.
Result<std::string> read_text(const std::string& path);

} // namespace netctl::sys
