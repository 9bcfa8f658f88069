// SPDX-License-Identifier: GPL-2.0-only
//
// Looks for rule sets that cost the classifier much, by hill climbing: some genes of the worst one so far are changed, and
// what is worse yet is kept; after many tries in vain it begins anew.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string_view>

#include "core/result.hpp"
#include "testing/rule_genes.hpp"

namespace netctl::testing {

/// What is to be driven up, for so many rules as were asked for.
enum class Burden : std::uint8_t { apart, lines, bytes, milliseconds };
constexpr std::size_t burdens = 4;
std::string_view to_string(Burden burden);

/// A rule set's figures, by Burden: rules apart of a hundred; cache lines of the tables that a packet reads from, on
/// average; bytes of tables a rule; milliseconds of CPU time to compile 1,000 rules. What only the linear form
/// holds is as many lines as there are rules.
using Burdens = std::array<double, burdens>;

struct Find {
    RuleGenes genes{};
    Burdens figures{};
};

/// Fails if the rules cannot be compiled at all, or tables lead beyond their ends: a defect that was found.
Result<Burdens> weigh(const RuleGenes& genes, Family family, std::size_t rules);

/// The worst in one respect that was found in this time; `told` is called with each that is worse than those before.
Result<Find> hunt(Burden burden, Family family, std::size_t rules, std::chrono::seconds time,
                  std::uint64_t seed, const std::function<void(const Find&)>& told);

} // namespace netctl::testing
