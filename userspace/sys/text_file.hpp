// SPDX-License-Identifier: GPL-2.0-only
//
// Files that a user names.
#pragma once

#include <string>
#include <vector>

#include "core/result.hpp"

namespace netctl::sys {

/// What messages call the file that read_text() reads.
std::string text_name(const std::string& path);

/// What is in a file; of standard input if `path` is empty or `-`.
Result<std::string> read_text(const std::string& path);

/// The files that a path stands for: itself, or of a folder its plain files, in the order of their names,
/// without those whose names begin with a dot.
Result<std::vector<std::string>> text_files(const std::string& path);

} // namespace netctl::sys
