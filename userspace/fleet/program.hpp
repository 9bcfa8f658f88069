// SPDX-License-Identifier: GPL-2.0-only
//
// Another program, run to its end.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "core/result.hpp"

namespace netctl::fleet {

struct ProgramEnd {
    int status = -1; ///< as it exited; -1: a signal ended it, or it took too long and was killed
    std::string output, errors; ///< of each up to 1 MiB; what is more is read and dropped
};

/// Runs argv[0], which is looked for in PATH, without standard input. Errors: it could not be started.
Result<ProgramEnd> run_program(const std::vector<std::string>& argv, std::chrono::seconds limit);

} // namespace netctl::fleet
