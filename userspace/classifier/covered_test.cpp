// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/covered.hpp"

#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "classifier/engine.hpp"
#include "classifier/reference.hpp"
#include "testing/must.hpp"
#include "testing/rule_families.hpp"
#include "testing/rule_fuzz.hpp"

namespace netctl::classifier {
namespace {

using testing::RuleFuzz;

std::vector<bool> covered(const std::vector<Rule>& rules, const std::vector<SetUse>& uses) {
    return covered_rules(
        take_apart(rules, uses, std::vector<Place>(rules.size(), Place::crossed)).crossed,
        rules.size());
}

/// Whether the last of these rules is covered.
bool last_is_covered(std::initializer_list<std::string> texts) {
    const std::vector<Rule> rules = testing::must_parse(Hook::xdp, texts);
    return covered(rules, testing::must(compile(rules)).set_uses).back();
}

TEST(Covered, ByOneThatIsWiderInAllFields) {
    EXPECT_TRUE(last_is_covered({"drop", "pass"}));
    EXPECT_TRUE(last_is_covered({"dport 80 proto tcp drop", "dport 80 proto tcp pass"}));
    EXPECT_TRUE(
        last_is_covered({"src 10.0.0.0/8 drop", "src 10.1.0.0/16 dst 10.2.0.1 dport 1 pass"}));
    EXPECT_TRUE(last_is_covered({"dport {10-20, 30-40} drop", "dport {12, 35-40} sport 1 pass"}));
    EXPECT_TRUE(last_is_covered({"dport not 80 drop", "dport 90-100 pass"}));
    EXPECT_TRUE(last_is_covered({"flags syn/syn drop", "flags syn/syn,ack pass"}));
    EXPECT_TRUE(last_is_covered({"src @s0 drop", "src @s0 dport 80 pass"}));
    EXPECT_TRUE(last_is_covered({"src 0.0.0.0/0 drop", "src 10.0.0.0/8 pass"}));
    EXPECT_TRUE(last_is_covered({"dst ::/0 drop", "src 2001:db8::/32 pass"}));
    EXPECT_TRUE(last_is_covered({"src not {10.0.0.0/8, 11.0.0.0/8} drop",
                                 "src not {10.0.0.0/8, 11.0.0.0/8} dport 1 pass"}));
}

TEST(Covered, EachPieceByAnother) {
    EXPECT_TRUE(last_is_covered(
        {"src 10.0.0.0/8 drop", "src 2001:db8::/32 drop", "src {10.1.0.0/16, 2001:db8::1} pass"}));
    EXPECT_FALSE(last_is_covered({"src 10.0.0.0/8 drop", "src {10.1.0.0/16, 2001:db8::1} pass"}));
}

TEST(Covered, NotWherePacketsAreLeft) {
    EXPECT_FALSE(last_is_covered({"pass"}));
    EXPECT_FALSE(last_is_covered({"dport 80 drop", "pass"}));
    EXPECT_FALSE(last_is_covered({"dport 10-20 drop", "dport 10-21 pass"}));
    EXPECT_FALSE(last_is_covered({"dport {10-20, 30-40} drop", "dport 20-30 pass"}));
    EXPECT_FALSE(last_is_covered({"dport 1 drop", "dport 0-5 pass"}));
    EXPECT_FALSE(last_is_covered({"src 10.1.0.0/16 drop", "src 10.0.0.0/8 pass"}));
    EXPECT_FALSE(last_is_covered({"src 0.0.0.0/0 drop", "src 2001:db8::/32 pass"}));
    EXPECT_FALSE(last_is_covered({"src 0.0.0.0/0 drop", "dport 1 pass"}));
    EXPECT_FALSE(last_is_covered({"flags syn/syn,ack drop", "flags syn/syn pass"}));
    EXPECT_FALSE(last_is_covered({"src @s0 drop", "src @s1 pass"}));
    EXPECT_FALSE(last_is_covered({"src @s0 drop", "dst @s0 pass"}));
    // A packet without a tag has no VLAN that could be another one.
    EXPECT_FALSE(last_is_covered({"vlan not 5 drop", "vlan none pass"}));
    EXPECT_FALSE(last_is_covered({"proto tcp drop", "dport 80 pass"}));
}

/// No packet's first match is a rule that is covered.
TEST(Covered, NeverTheFirstMatch) {
    const SetOracle sets = RuleFuzz::sets();
    std::size_t found = 0;
    const auto check = [&](const std::vector<Rule>& rules, const std::vector<SetUse>& uses,
                           RuleFuzz& fuzz, const std::string& what) {
        const std::vector<bool> is_covered = covered(rules, uses);
        found += static_cast<std::size_t>(std::ranges::count(is_covered, true));
        for (int i = 0; i < 1000; ++i) {
            const std::optional<std::size_t> first = first_match(rules, fuzz.packet(rules), sets);
            ASSERT_FALSE(first && is_covered[*first]) << what << ", rule " << *first;
        }
    };
    for (std::uint64_t seed = 1; seed <= 3 * testing::rule_styles; ++seed) {
        RuleFuzz fuzz(seed);
        const auto style = static_cast<testing::RuleStyle>(seed % testing::rule_styles);
        const std::vector<Rule> rules = fuzz.rules(style, 80);
        check(rules, testing::must(compile(rules)).set_uses, fuzz, fmt::format("seed {}", seed));
    }
    for (int family = 0; family < testing::rule_families; ++family) {
        RuleFuzz fuzz(1);
        const auto named = static_cast<testing::RuleFamily>(family);
        check(testing::family_rules(named, Family::ipv4, 1000, 1), {}, fuzz, to_string(named));
    }
    EXPECT_GT(found, 1000u);
}

} // namespace
} // namespace netctl::classifier
