// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/edit.hpp"

#include <gtest/gtest.h>

#include "bpf/pin_dir.hpp"

namespace netctl::datapath {
namespace {

Rule rule(const std::string& text) {
    auto parsed = parse_rule(text, Hook::xdp);
    EXPECT_TRUE(parsed) << parsed.error().what;
    return std::move(parsed).value_or({});
}

std::vector<std::pair<std::uint32_t, std::string>> listing(const PointState& state) {
    std::vector<std::pair<std::uint32_t, std::string>> rows;
    for (const InstalledRule& installed : state.rules)
        rows.emplace_back(installed.rule.id, to_string(installed.rule));
    return rows;
}

using Rows = std::vector<std::pair<std::uint32_t, std::string>>;

TEST(Edit, IdsAreNeverUsedTwice) {
    PointState state;
    EXPECT_EQ(add_rule(state, rule("src 192.0.2.1 drop")).value_or(0), 1U);
    EXPECT_EQ(add_rule(state, rule("src 192.0.2.2 drop")).value_or(0), 2U);
    ASSERT_TRUE(delete_rules(state, {2}));
    EXPECT_EQ(add_rule(state, rule("src 192.0.2.3 drop"), 1).value_or(0), 3U);
    EXPECT_EQ(listing(state), (Rows{{3, "src 192.0.2.3 drop"}, {1, "src 192.0.2.1 drop"}}));
}

TEST(Edit, AnUnknownIdChangesNothingAndNamesTheOthers) {
    PointState state;
    ASSERT_TRUE(add_rule(state, rule("drop")));
    const auto status = delete_rules(state, {1, 99, 9});
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().what, "there is no rule with id 99, 9");
    EXPECT_EQ(status.error().hint, "the ids are 1");
    EXPECT_FALSE(add_rule(state, rule("pass"), 9));
    EXPECT_EQ(listing(state), (Rows{{1, "drop"}}));
}

TEST(Edit, ReplaceKeepsIdAndCounterOfRulesThatStay) {
    PointState state;
    for (const char* text : {"src 192.0.2.1 drop", "src 192.0.2.2 drop", "src 192.0.2.1 drop"})
        ASSERT_TRUE(add_rule(state, rule(text)));
    for (std::uint32_t i = 0; i < 3; i++)
        state.rules[i].slot = 10 + i;
    ASSERT_TRUE(replace_rules(state, {rule("proto udp pass"), rule("src 192.0.2.1 drop"),
                                      rule("src 192.0.2.1 drop"), rule("src 192.0.2.1 drop")}));
    EXPECT_EQ(listing(state), (Rows{{4, "proto udp pass"},
                                    {1, "src 192.0.2.1 drop"},
                                    {3, "src 192.0.2.1 drop"},
                                    {5, "src 192.0.2.1 drop"}}));
    EXPECT_EQ(state.rules[1].slot, 10U);
    EXPECT_EQ(state.rules[2].slot, 12U);
}

TEST(RuleRecords, ComeBackAsTheyWentIn) {
    std::vector<InstalledRule> rules;
    std::string list = "src {";
    for (int i = 0; i < 100; i++)
        list += "198.51." + std::to_string(i) + ".7 ";
    for (const std::string& text : {std::string("drop"), list + "} drop", std::string("pass")}) {
        rules.push_back({rule(text), static_cast<std::uint32_t>(rules.size() + 5)});
        rules.back().rule.id = static_cast<std::uint32_t>(rules.size() * 3);
    }
    const std::vector<nc_rule_text> records = encode_rules(rules);
    EXPECT_GT(records.size(), 10U); // the list takes more than one
    const std::vector<InstalledRule> decoded = decode_rules(records, Hook::xdp);
    ASSERT_TRUE(check_readable(decoded));
    ASSERT_EQ(decoded.size(), rules.size());
    for (std::size_t i = 0; i < rules.size(); i++) {
        EXPECT_TRUE(decoded[i].rule.same_text(rules[i].rule));
        EXPECT_EQ(decoded[i].rule.id, rules[i].rule.id);
        EXPECT_EQ(decoded[i].slot, rules[i].slot);
    }
    // Cut in the middle of a rule, that one cannot be read; the others can.
    const std::vector<nc_rule_text> cut(records.begin(), records.begin() + 3);
    const std::vector<InstalledRule> some = decode_rules(cut, Hook::xdp);
    ASSERT_EQ(some.size(), 2U);
    EXPECT_TRUE(some[0].why.empty());
    EXPECT_FALSE(some[1].why.empty());
    EXPECT_EQ(some[1].unreadable.substr(0, 16), to_string(rules[1].rule).substr(0, 16));
}

TEST(RuleRecords, OfManyRulesKeepTheirOrder) {
    // So many that several threads read them, and each third rule takes several records.
    std::string list = " src {";
    for (int i = 0; i < 40; i++)
        list += "198.51." + std::to_string(i) + ".7 ";
    std::vector<InstalledRule> rules;
    for (std::uint32_t i = 0; i < 10'000; i++) {
        rules.push_back({rule("dport " + std::to_string(i) + (i % 3 == 0 ? list + "}" : "") +
                              (i % 2 == 0 ? " drop" : " pass")),
                         i + 5});
        rules.back().rule.id = 2 * i + 1;
    }
    std::vector<nc_rule_text> records = encode_rules(rules);
    const std::vector<InstalledRule> decoded = decode_rules(records, Hook::xdp);
    ASSERT_TRUE(check_readable(decoded));
    ASSERT_EQ(decoded.size(), rules.size());
    for (std::size_t i = 0; i < rules.size(); i++) {
        ASSERT_TRUE(decoded[i].rule.same_text(rules[i].rule)) << i;
        ASSERT_EQ(decoded[i].rule.id, rules[i].rule.id);
        ASSERT_EQ(decoded[i].slot, rules[i].slot);
    }
    // One that cannot be read is named, wherever it is.
    nc_rule_text& last = records.back();
    last.text[0] = '%';
    const auto refused = check_readable(decode_rules(records, Hook::xdp));
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().what.find("the stored rule 19999"), std::string::npos)
        << refused.error().what;
}

TEST(PinName, HoldsNoDotAndComesBack) {
    for (const std::string name : {"eth0", "eth0.100", "a%b", "x:y", "a b/c~"}) {
        const std::string encoded = bpf::encode_pin_name(name);
        EXPECT_EQ(encoded.find_first_of("./:~ "), std::string::npos) << encoded;
        EXPECT_EQ(bpf::decode_pin_name(encoded), name);
    }
    EXPECT_EQ(bpf::encode_pin_name("eth0.100"), "eth0%2e100");
    EXPECT_EQ(point_name("blue", "eth0.1"), "blue:eth0%2e1");
    EXPECT_EQ(point_name("", "eth0"), "eth0");
}

} // namespace
} // namespace netctl::datapath
