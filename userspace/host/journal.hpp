// SPDX-License-Identifier: GPL-2.0-only
//
// The journal of an apply: pinned beside what it is about, so that it lives and dies with that.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/result.hpp"
#include "datapath/root.hpp"
#include "netctl/abi/journal.h"

namespace netctl::host {

struct Journal {
    nc_journal_state state{};
    std::uint64_t id = 0;
    std::uint64_t deadline_ns = 0; ///< of CLOCK_BOOTTIME; 0: none
    std::uint64_t changes = 0;
    std::string way_back; ///< a configuration
};

/// Whether there is one; asks for no lock, and takes what cannot be seen for none.
bool has_journal(const RootOptions& root);
Result<std::optional<Journal>> read_journal(const datapath::Root& root);
/// The same without its way back, and without waiting for anybody: nothing if there is none, or none that can be read.
/// What it says may be changing at this moment.
std::optional<Journal> peek_journal(const RootOptions& root);
/// Publishes it, filled, in the place of an older one if there is one.
Result<> write_journal(const datapath::LockedRoot& root, const Journal& journal);
/// Changes state and deadline: one write.
Result<> update_journal(const datapath::LockedRoot& root, nc_journal_state state,
                        std::uint64_t deadline_ns);
Result<> remove_journal(const datapath::LockedRoot& root);

/// As users see and name it: eight hexadecimal digits.
std::string journal_name(std::uint64_t id);
std::uint64_t boottime_ns();

} // namespace netctl::host
