// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/changes.hpp"

#include <algorithm>
#include <bit>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace netctl::classifier {
namespace {

Rule rule(const std::string& text) {
    auto parsed = parse_rule(text, Hook::xdp);
    EXPECT_TRUE(parsed) << parsed.error().what;
    return std::move(parsed).value_or({});
}

/// Rules as they are compiled, and a list of them that can be edited.
struct Rules {
    explicit Rules(std::size_t count) {
        for (std::size_t i = 0; i < count; i++)
            compiled.push_back(rule(fmt::format("src 10.0.{}.{} drop", i / 256, i % 256)));
        for (std::uint32_t i = 0; i < count; i++) {
            pointers.push_back(&compiled[i]);
            list.push_back({&compiled[i], i});
        }
    }
    void add(const std::string& text) {
        added.push_back(std::make_unique<Rule>(rule(text)));
        list.push_back({added.back().get(), not_compiled});
    }
    Result<Changes> changes() const { return compile_changes(pointers, list); }

    std::vector<Rule> compiled;
    std::vector<const Rule*> pointers;
    std::vector<std::unique_ptr<Rule>> added;
    std::vector<ListedRule> list;
};

TEST(Changes, NoneTakeNoBits) {
    Rules rules(3);
    const auto changes = rules.changes();
    ASSERT_TRUE(changes);
    EXPECT_EQ(changes->block->all, 0U);
    EXPECT_EQ(changes->block->rules, 3U);
    EXPECT_EQ(changes->block->gone[0], 0U);
}

TEST(Changes, ARuleStandsBeforeTheNextCompiledOne) {
    Rules rules(3);
    rules.add("dst 192.0.2.1 drop");
    std::swap(rules.list[2], rules.list[3]);
    const auto changes = rules.changes();
    ASSERT_TRUE(changes);
    EXPECT_EQ(changes->block->all, 1U);
    EXPECT_EQ(changes->block->before[0], 2U);
    EXPECT_EQ(changes->rules, std::vector<std::uint32_t>{2});
    EXPECT_EQ(changes->block->fields, 1U << NC_FIELD_DST);
}

TEST(Changes, OneMoveIsOneChange) {
    Rules rules(200);
    std::rotate(rules.list.begin(), rules.list.begin() + 1, rules.list.end());
    const auto changes = rules.changes();
    ASSERT_TRUE(changes);
    EXPECT_EQ(std::popcount(changes->block->listed), 1);
    EXPECT_EQ(changes->block->gone[0], 1U);
    EXPECT_EQ(changes->block->action[0], 0U); // its own
    EXPECT_EQ(changes->block->before[0], 200U);
}

TEST(Changes, OnlyWhatSharesPacketsStandsInForARuleThatIsGone) {
    Rules rules(100);
    rules.compiled[3] = rule("src 10.0.0.2/31 proto udp drop"); // shares, and does not cover
    rules.compiled[5] = rule("src 10.0.0.0/24 drop");           // covers: the end
    rules.compiled[7] = rule("drop");
    rules.list.erase(rules.list.begin() + 2);
    const auto changes = rules.changes();
    ASSERT_TRUE(changes);
    EXPECT_EQ(changes->block->listed, 0U);
    EXPECT_EQ(changes->block->all, 3U);
    EXPECT_EQ(changes->block->action[0], 3U);
    EXPECT_EQ(changes->block->action[1], 5U);
}

TEST(Changes, WhatDoesNotFitIsRefusedWithItsReason) {
    Rules more(100);
    for (int i = 0; i <= NC_CHANGES; i++)
        more.add("dst 192.0.2.1 drop");
    EXPECT_EQ(more.changes().error().what, "65 rules that are new or moved are too many changes");
    Rules fewer(300);
    fewer.list.resize(20);
    EXPECT_EQ(fewer.changes().error().what, "280 rules that are gone are too many changes");
    Rules sets(100);
    sets.add("src @bad drop");
    EXPECT_EQ(sets.changes().error().what, "sets are not looked up for changes");
    Rules overlap(100);
    for (Rule& rule : overlap.compiled)
        rule.matches.front().key = Key::dst;
    overlap.compiled[0] = rule("src 192.0.2.1 drop");
    overlap.list.erase(overlap.list.begin());
    EXPECT_EQ(overlap.changes().error().what,
              "rules that overlap with one that is gone are too many changes");
    Rules mask(100);
    mask.added.push_back(
        std::make_unique<Rule>(parse_rule("mark 1/1 drop", Hook::tc).value_or({})));
    mask.list.push_back({mask.added.back().get(), not_compiled});
    EXPECT_EQ(mask.changes().error().what, "the values of a mask are too many changes");
}

} // namespace
} // namespace netctl::classifier
