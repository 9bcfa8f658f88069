// SPDX-License-Identifier: GPL-2.0-only
//
// A few changes to rules that are compiled already, as the block that lib/changes.h reads: one rule
// more among ten thousand takes no new tables and no new program.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/result.hpp"
#include "core/rule.hpp"
#include "netctl/abi/changes.h"

namespace netctl::classifier {

constexpr std::uint32_t not_compiled = 0xffffffff;

/// A rule of the list that is to be in force.
struct ListedRule {
    const Rule* rule = nullptr;
    std::uint32_t compiled = not_compiled; ///< its position among the compiled ones
};

struct Changes {
    /// All of it but `generation`, `next_rule_id`, `texts`, and the `action` of `listed` rules that
    /// are not compiled.
    std::unique_ptr<nc_changes> block;
    /// By bit: the rule's position in the list.
    std::vector<std::uint32_t> rules;
};

/// What makes `list` of the `compiled` rules, which may go, be added to, and change their order.
/// Exact: the first match is the same as if the list were compiled. Fails with ErrorKind::usage and
/// the reason where that takes more than a block holds; then the list is to be compiled.
Result<Changes> compile_changes(std::span<const Rule* const> compiled,
                                std::span<const ListedRule> list);

} // namespace netctl::classifier
