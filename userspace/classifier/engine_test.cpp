// SPDX-License-Identifier: GPL-2.0-only
//
// What compile() refuses and shares. That its tables mean what the rules mean is shown where they
// are run: in the prog suite, against the reference.
#include "classifier/engine.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "netctl/abi/rule.h"

namespace netctl::classifier {

namespace {

Rule rule(const std::string& text) {
    auto parsed = parse_rule(text, Hook::xdp);
    EXPECT_TRUE(parsed) << parsed.error().what;
    return parsed ? *parsed : Rule{};
}

TEST(Engine, NoTableIsEmpty) {
    const auto compiled = compile({});
    ASSERT_TRUE(compiled);
    for (const Table& table : compiled->tables)
        EXPECT_FALSE(table.bytes.empty()) << table.name << ": no map has size 0";
    EXPECT_TRUE(compiled->set_uses.empty());
    EXPECT_FALSE(compiled->engine.empty());
}

TEST(Engine, AsksEachQuestionOnce) {
    const std::vector<Rule> rules{rule("src @a drop"), rule("src not @a dport 80 drop"),
                                  rule("dst @a drop"), rule("sport @p drop")};
    const auto compiled = compile(rules);
    ASSERT_TRUE(compiled);
    const std::vector<SetUse> expected{{Key::src, "a"}, {Key::dst, "a"}, {Key::sport, "p"}};
    EXPECT_EQ(compiled->set_uses, expected);
}

TEST(Engine, RefusesMoreSetsThanAreLookedUp) {
    std::vector<Rule> rules;
    for (int i = 0; i < NC_MAX_SET_USES; i++)
        rules.push_back(rule(fmt::format("src @s{} drop", i)));
    EXPECT_TRUE(compile(rules));
    rules.push_back(rule("dst @s0 drop"));
    const auto compiled = compile(rules);
    ASSERT_FALSE(compiled);
    EXPECT_EQ(compiled.error().kind, ErrorKind::usage);
    EXPECT_NE(compiled.error().what.find("dst @s0"), std::string::npos) << compiled.error().what;
    EXPECT_NE(compiled.error().hint.find("64"), std::string::npos) << compiled.error().hint;
}

TEST(Engine, RefusesWhatPacketsDoNotHave) {
    const auto policy = parse_rule("uid 0 deny", Hook::policy);
    ASSERT_TRUE(policy) << policy.error().what;
    const auto compiled = compile({&*policy, 1});
    ASSERT_FALSE(compiled);
    EXPECT_EQ(compiled.error().kind, ErrorKind::usage);
    EXPECT_NE(compiled.error().what.find("uid"), std::string::npos) << compiled.error().what;
}

} // namespace

} // namespace netctl::classifier
