// SPDX-License-Identifier: GPL-2.0-only
//
// Files that may be compressed, read as what they hold.
#pragma once

#include <cstddef>
#include <cstdio>
#include <memory>
#include <string>

#include "core/result.hpp"

namespace netctl::sys {

/// A stream of the C library over the file, which is read from its beginning to its end; `-` is standard
/// input. What gzip and zstd have compressed comes out as it was, all else as it is; which of them it is
/// shows in the first bytes, not in the name. If reading fails, what went wrong is in `trouble`, which has
/// to outlive the stream; what a cut file holds is handed out before that.
Result<std::FILE*> open_input(const std::string& path, std::string& trouble);

} // namespace netctl::sys
