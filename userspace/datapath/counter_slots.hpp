// SPDX-License-Identifier: GPL-2.0-only
//
// Which counter a rule has, and the chunks of counters that a list of rules needs.
#pragma once

#include <cstddef>
#include <vector>

#include "bpf/map.hpp"
#include "core/result.hpp"
#include "datapath/point.hpp"

namespace netctl::datapath {

/// Gives each rule without a counter slot one that neither the present nor the last list uses: what
/// is in force must not count into a slot that is being zeroed.
void assign_slots(std::vector<InstalledRule>& rules, const std::vector<InstalledRule>* previous);

struct CounterKind {
    const char* chunk; ///< template of a chunk (bpf/maps/standalone.bpf.c)
    std::size_t size;  ///< bytes of one CPU's counter
};
/// Makes the counters that the rules' slots need, and zeroes those of rules that are new.
Result<> prepare_counters(const bpf::RawMap& counters, const std::vector<InstalledRule>& rules,
                          const std::vector<InstalledRule>* previous, const CounterKind& kind);

} // namespace netctl::datapath
