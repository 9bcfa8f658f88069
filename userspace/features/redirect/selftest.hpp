// SPDX-License-Identifier: GPL-2.0-only
//
// Proves on the running kernel what redirection relies on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.hpp"

namespace netctl::redirect {

struct SelftestCase {
    std::string name;
    std::string about; ///< what must hold, and who notices if not
    bool passed = false;
    bool avoided = false; ///< failed, but holds where no message passes while joined (never_pass)
    bool mended = false;  ///< failed, but holds with Datapath::mend_fionread()
    std::string detail;   ///< what was seen, if it failed
};

/// Runs every case with sockets of its own, in a process and a cgroup of its own; of those that only
/// some of nc_rd_flags need, the ones for `flags`.
Result<std::vector<SelftestCase>> run_selftest(std::uint32_t flags);

/// The names of all cases, in the order in which they run.
std::vector<std::string> selftest_names();

} // namespace netctl::redirect
