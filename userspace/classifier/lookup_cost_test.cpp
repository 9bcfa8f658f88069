// SPDX-License-Identifier: GPL-2.0-only
//
// What a packet costs, counted in cache lines of the tables, against the number of rules (I8): no step of a
// tenth more rules may be a cliff, and many rules cost little more than few.
#include <algorithm>
#include <optional>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "classifier/crossing.hpp"
#include "classifier/engine.hpp"
#include "classifier/reference.hpp"
#include "netctl/abi/rule.h"
#include "testing/rule_families.hpp"
#include "testing/rule_fuzz.hpp"
#include "testing/table_walk.hpp"

namespace netctl::classifier {
namespace {

using testing::RuleFuzz;
using testing::TableWalk;

/// The count is of the lookup that it claims to be of.
TEST(LookupCost, TheWalkFindsWhatTheReferenceFinds) {
    const SetOracle sets = RuleFuzz::sets();
    std::size_t with_apart = 0;
    for (std::uint64_t seed = 1; seed <= 4 * testing::rule_styles; ++seed) {
        RuleFuzz fuzz(seed);
        const auto style = static_cast<testing::RuleStyle>(seed % testing::rule_styles);
        const std::vector<Rule> rules = fuzz.rules(style, 20 + seed * 4);
        Result<Compiled> whole = compile(rules);
        ASSERT_TRUE(whole) << whole.error().what;
        std::vector<bool> apart(rules.size());
        for (std::size_t i = 0; i < apart.size(); ++i)
            apart[i] = i * seed % 7 < seed % 4;
        Result<Compiled> compiled = compile_crossing(rules, whole->set_uses, apart);
        ASSERT_TRUE(compiled) << compiled.error().what;
        with_apart += compiled->rules_apart > 0;
        TableWalk walk(*compiled);
        for (int i = 0; i < 300; ++i) {
            const nc_packet packet = fuzz.packet(rules);
            const auto found = walk.find(packet, RuleFuzz::set_bits(compiled->set_uses, packet));
            const std::optional<std::size_t> expected = first_match(rules, packet, sets);
            ASSERT_FALSE(found.fault) << "seed " << seed;
            ASSERT_EQ(found.rule,
                      expected ? static_cast<std::uint32_t>(*expected) : std::uint32_t{NC_NO_RULE})
                << "seed " << seed << ", packet " << i << ", " << compiled->rules_apart << " apart";
        }
    }
    EXPECT_GT(with_apart, 20u);
}

/// Addresses by path tries, ports by runs: what takes the place of larger tables where there are many rules.
TEST(LookupCost, TheWalkFindsWhatTheReferenceFindsAmongManyRules) {
    const std::vector<Rule> rules =
        testing::family_rules(testing::RuleFamily::blocks, Family::ipv4, 6000, 2);
    Result<Compiled> compiled = compile(rules);
    ASSERT_TRUE(compiled) << compiled.error().what;
    const auto has = [&](std::string_view table) {
        return std::ranges::find(compiled->tables, table, &Table::name) != compiled->tables.end();
    };
    EXPECT_TRUE(has("nc_paths4"));
    EXPECT_FALSE(has("nc_paths"));
    TableWalk walk(*compiled);
    RuleFuzz fuzz(2);
    for (int i = 0; i < 500; ++i) {
        const nc_packet packet = fuzz.packet(rules);
        const auto found = walk.find(packet, 0);
        const std::optional<std::size_t> expected = first_match(rules, packet, RuleFuzz::sets());
        ASSERT_FALSE(found.fault);
        ASSERT_EQ(found.rule,
                  expected ? static_cast<std::uint32_t>(*expected) : std::uint32_t{NC_NO_RULE});
    }
}

double lines_of(const Compiled& compiled, const std::vector<Rule>& rules) {
    const testing::LinesRead read = testing::lines_read(compiled, rules);
    EXPECT_EQ(read.faults, 0u);
    return read.average;
}

std::vector<Rule> first_of(const std::vector<Rule>& rules, double count) {
    return {rules.begin(), rules.begin() + static_cast<std::ptrdiff_t>(count)};
}

/// A trie of another form begins somewhere, and lists get a stage more: few steps each. Beyond them, the
/// average of so many packets is off by a tenth.
constexpr double step_lines = 6, step_part = 1.1;

TEST(LookupCost, HasNoCliff) {
    for (int family = 0; family < testing::rule_families; ++family)
        for (const Family addresses : {Family::ipv4, Family::ipv6}) {
            const auto named = static_cast<testing::RuleFamily>(family);
            const std::vector<Rule> all = testing::family_rules(named, addresses, 2500, 1);
            // What was hunted is the worst, and still bounded; it takes long to compile.
            const bool hunted = named == testing::RuleFamily::hunted;
            const double most = hunted ? 3 : 2, most_rules = hunted ? 1000 : 2500;
            std::optional<double> before, first;
            for (double count = 10; count <= most_rules; count *= 1.1) {
                const std::vector<Rule> rules = first_of(all, count);
                Result<Compiled> compiled = compile(rules);
                ASSERT_TRUE(compiled) << compiled.error().what;
                ASSERT_EQ(compiled->engine, "crossing");
                const double lines = lines_of(*compiled, rules);
                const std::string what = fmt::format(
                    "{}, {} rules, {} of them apart, {}", to_string(named), rules.size(),
                    compiled->rules_apart, addresses == Family::ipv4 ? "IPv4" : "IPv6");
                EXPECT_LE(lines, before.value_or(lines) * step_part + step_lines) << what;
                if (!first)
                    first = lines;
                EXPECT_LE(lines, *first * most + step_lines) << what;
                before = lines;
            }
        }
}

/// Rules apart fill words, and beyond 4,096 of them a second group of words.
TEST(LookupCost, RulesApartHaveNoCliff) {
    for (const auto family : {testing::RuleFamily::blocks, testing::RuleFamily::zones}) {
        const std::vector<Rule> all = testing::family_rules(family, Family::ipv4, 6000, 1);
        std::optional<double> before;
        for (double count = 200; count <= 6000; count *= 1.1) {
            const std::vector<Rule> rules = first_of(all, count);
            Result<Compiled> compiled =
                compile_crossing(rules, {}, std::vector<bool>(rules.size(), true));
            ASSERT_TRUE(compiled) << compiled.error().what;
            const double lines = lines_of(*compiled, rules);
            EXPECT_LE(lines, before.value_or(lines) * step_part + step_lines)
                << to_string(family) << ", " << rules.size() << " rules apart";
            before = lines;
        }
    }
}

} // namespace
} // namespace netctl::classifier
