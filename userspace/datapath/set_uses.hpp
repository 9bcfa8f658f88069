// SPDX-License-Identifier: GPL-2.0-only
//
// The sets that rules ask about, in the outer maps of lib/sets.h.
#pragma once

#include <cstdint>
#include <vector>

#include "bpf/object.hpp"
#include "classifier/engine.hpp"
#include "core/result.hpp"
#include "datapath/point.hpp"
#include "datapath/root.hpp"
#include "datapath/sets.hpp"
#include "netctl/abi/classify.h"

namespace netctl::datapath {

/// Opens the set that rules ask about; fails if it holds something else than the field.
Result<Set> open_used_set(const Root& root, const classifier::SetUse& use);
/// Puts the maps of a set into the outer maps of lib/sets.h.
Result<> place_set(const FindMap& find, const Set& set, std::uint32_t index);

/// Those of a program: what its constant `set_use` says, and the sets, in the same order.
struct OpenedSets {
    std::vector<nc_set_use> uses;
    std::vector<Set> sets;
};
Result<OpenedSets> open_sets(const Root& root, const std::vector<classifier::SetUse>& set_uses);
/// Which of them a rule's limit adds to; fails if the set does not take what the limit has accounts of.
Result<std::uint8_t> place_of_over(const Rule& rule, const classifier::SetUse& use,
                                   const classifier::Compiled& compiled, const OpenedSets& opened);
/// Puts them into the maps of a program that is loaded.
Result<> fill_sets(const bpf::Object& object, const OpenedSets& opened);

} // namespace netctl::datapath
