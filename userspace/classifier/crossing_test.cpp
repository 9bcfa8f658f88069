// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/crossing.hpp"

#include <algorithm>
#include <random>

#include <gtest/gtest.h>

#include "classifier/address_trie.hpp"
#include "classifier/classbench.hpp"
#include "classifier/engine.hpp"
#include "classifier/packet_classes.hpp"
#include "classifier/pieces.hpp"
#include "netctl/abi/crossing.h"
#include "testing/rule_fuzz.hpp"

namespace netctl::classifier {
namespace {

Rule rule(std::string_view text) {
    Result<Rule> parsed = parse_rule(text, Hook::xdp);
    EXPECT_TRUE(parsed) << text;
    return parsed ? *parsed : Rule{};
}

/// What the kernel does with a path trie.
std::uint32_t walk(const PathTries& tries, PathTries::Root root, const TrieKey& key) {
    const std::vector<std::uint64_t>& entries = tries.entries();
    std::uint64_t entry = root.entry;
    for (unsigned level = 0; level < root.levels && !(entry & NC_NODE_LEAF); ++level) {
        std::size_t base = NC_NODE_BASE(entry);
        if (entry & NC_NODE_SKIPS && (((key.high ^ entries[base - 5]) & entries[base - 4]) |
                                      ((key.low ^ entries[base - 3]) & entries[base - 2]))) {
            entry = entries[base - 1];
            break;
        }
        std::uint64_t half = entry & NC_NODE_LOW ? key.low : key.high;
        entry = entries[base + (half >> NC_NODE_SHIFT(entry) & ~(~0ull << NC_NODE_COUNT(entry)))];
    }
    EXPECT_TRUE(entry & NC_NODE_LEAF);
    return static_cast<std::uint32_t>(entry);
}

/// The same with one whose entries are narrow.
std::uint32_t walk_narrow(const PathTries& tries, PathTries::Root root, std::uint32_t key) {
    const std::vector<std::uint64_t>& entries = tries.entries();
    std::uint64_t entry = root.entry;
    for (unsigned level = 0; level < root.levels && !(entry & NC_NODE4_LEAF); ++level) {
        const std::size_t base = NC_NODE4_BASE(entry);
        if (entry & NC_NODE4_SKIPS && (key ^ entries[base - 3]) & entries[base - 2]) {
            entry = entries[base - 1];
            break;
        }
        entry = entries[base + (key >> NC_NODE4_SHIFT(entry) & ~(~0u << NC_NODE4_COUNT(entry)))];
    }
    EXPECT_TRUE(entry & NC_NODE4_LEAF);
    return static_cast<std::uint32_t>(entry & ~std::uint64_t{NC_NODE4_LEAF});
}

PathTries::Leaf leaf(std::mt19937_64& random, unsigned length, std::uint32_t value) {
    // Few different bits, so that prefixes nest and share long paths.
    TrieKey key{random() & random() & random(), random() & random() & random()};
    if (length < 64)
        key = {length ? key.high >> (64 - length) << (64 - length) : 0, 0};
    else if (length < 128)
        key.low = length > 64 ? key.low >> (128 - length) << (128 - length) : 0;
    return {key, length, value};
}

/// Of tries over keys of `bits` bits.
void finds_the_longest_prefix(PathTries::Form form, unsigned bits) {
    const bool narrow = form == PathTries::Form::narrow;
    for (unsigned seed = 1; seed <= 200; ++seed) {
        std::mt19937_64 random(seed);
        std::vector<PathTries::Leaf> leaves{{{}, 0, 0}};
        for (std::uint32_t i = 1; i <= 1 + seed % 90; ++i)
            leaves.push_back(leaf(random, 1 + static_cast<unsigned>(random() % bits), i));
        if (seed % 10 == 0) // every length on one path: the deepest trie there is
            for (unsigned length = 1; length <= bits; ++length)
                leaves.push_back({{length < 64 ? ~(~0ull >> length) : ~0ull,
                                   length <= 64    ? 0
                                   : length == 128 ? ~0ull
                                                   : ~(~0ull >> (length - 64))},
                                  length,
                                  1000 + length});
        auto order = [](const PathTries::Leaf& a, const PathTries::Leaf& b) {
            return std::tie(a.key, a.length) < std::tie(b.key, b.length);
        };
        auto same = [](const PathTries::Leaf& a, const PathTries::Leaf& b) {
            return a.key == b.key && a.length == b.length;
        };
        std::ranges::sort(leaves, order);
        leaves.erase(std::ranges::unique(leaves, same).begin(), leaves.end());

        PathTries tries(form);
        PathTries::Root other = tries.add(leaves);
        PathTries::Root root = tries.add(leaves); // a second one, behind the first
        EXPECT_EQ(root.levels, other.levels);
        EXPECT_LE(root.levels, unsigned{NC_LEVELS_PATH});
        for (unsigned i = 0; i < 300; ++i) {
            const PathTries::Leaf& near = leaves[random() % leaves.size()];
            TrieKey key{near.key.high ^ (random() % 3 ? 0 : 1ull << random() % 64),
                        near.key.low ^ (random() % 3 ? 0 : 1ull << random() % 64)};
            if (narrow)
                key.high = key.high >> 32 << 32;
            std::uint32_t expected = 0;
            for (const PathTries::Leaf& candidate : leaves) // sorted: the last one is the longest
                if (key.agrees(candidate.key, candidate.length))
                    expected = candidate.value;
            ASSERT_EQ(narrow ? walk_narrow(tries, root, static_cast<std::uint32_t>(key.high >> 32))
                             : walk(tries, root, key),
                      expected)
                << "seed " << seed;
        }
    }
}

TEST(PathTrie, FindsTheLongestPrefix) {
    finds_the_longest_prefix(PathTries::Form::wide, 128);
}

TEST(PathTrie, FindsTheLongestPrefixOfIpv4) {
    finds_the_longest_prefix(PathTries::Form::narrow, 32);
}

TEST(PrefixForest, NumbersSubtreesAsIntervals) {
    PrefixForest forest;
    for (const char* text :
         {"10.1.0.0/16", "10.0.0.0/8", "10.1.2.3", "192.0.2.0/24", "2001:db8::/32"})
        forest.add(*Prefix::parse(text));
    forest.build();
    ASSERT_EQ(forest.size(), 8u); // with any, 0.0.0.0/0 and ::/0
    std::uint32_t ten = forest.find(*Prefix::parse("10.0.0.0/8"));
    EXPECT_EQ(forest[ten].end - ten, 3u);
    EXPECT_EQ(forest[forest.find(*Prefix::parse("10.1.2.3"))].parent, ten + 1);
    EXPECT_EQ(forest[ten].parent, forest.root(Family::ipv4));
    EXPECT_EQ(forest[PrefixForest::any].end, forest.size());
    EXPECT_EQ(forest[forest.root(Family::ipv6)].end, forest.size());
}

TEST(Crossing, EmptyRuleSetCompiles) {
    Result<Compiled> compiled = compile({});
    ASSERT_TRUE(compiled);
    EXPECT_EQ(compiled->engine, "crossing");
    EXPECT_TRUE(compiled->tables.empty());
}

TEST(Crossing, CompilesTheSameTwice) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        testing::RuleFuzz fuzz(seed);
        std::vector<Rule> rules =
            fuzz.rules(static_cast<testing::RuleStyle>(seed % testing::rule_styles), 50);
        Result<Compiled> first = compile(rules), second = compile(rules);
        ASSERT_TRUE(first && second);
        ASSERT_EQ(first->tables.size(), second->tables.size());
        for (std::size_t i = 0; i < first->tables.size(); ++i) {
            EXPECT_EQ(first->tables[i].name, second->tables[i].name);
            EXPECT_EQ(first->tables[i].bytes, second->tables[i].bytes) << first->tables[i].name;
        }
        for (std::size_t i = 0; i < first->constants.size(); ++i)
            EXPECT_EQ(first->constants[i].values, second->constants[i].values);
    }
}

TEST(Crossing, FieldsThatRulesDoNotNameHaveNoTables) {
    Result<Compiled> compiled = compile(std::vector{rule("dport 22 drop"), rule("proto udp pass")});
    ASSERT_TRUE(compiled);
    for (const Table& table : compiled->tables)
        for (const char* part : {"src4", "dst4", "paths", "row", "cross", "lists", "firsts"})
            EXPECT_EQ(table.name.find(part), std::string::npos) << table.name;
}

TEST(Crossing, SetsInFrontDoNotMultiply) {
    // 2^24 combinations of answers, of which the first yes decides.
    std::vector<Rule> rules;
    for (int i = 0; i < 24; ++i)
        rules.push_back(rule("src @s" + std::to_string(i) + " drop"));
    rules.push_back(rule("src 10.0.0.0/8 dport 22 pass"));
    Result<Compiled> compiled = compile(rules);
    ASSERT_TRUE(compiled);
    EXPECT_EQ(compiled->engine, "crossing");
    EXPECT_EQ(compiled->set_uses.size(), 24u);
    EXPECT_LT(compiled->memory(), 1u << 20);
}

TEST(Crossing, WhatExplodesStandsApartAndSaysWhy) {
    // Pairs of sets that every packet may be in: 2^40 combinations that matter.
    std::vector<Rule> rules;
    for (int i = 0; i < 40; ++i)
        rules.push_back(
            rule("src @s" + std::to_string(i) + " dst 10.0.0." + std::to_string(i) + " drop"));
    Result<Compiled> compiled = compile(rules);
    ASSERT_TRUE(compiled);
    EXPECT_EQ(compiled->engine, "crossing");
    EXPECT_GT(compiled->rules_apart, 0u);
    EXPECT_NE(compiled->reason.find("sets"), std::string::npos) << compiled->reason;
}

TEST(Crossing, StaysWithinItsBudget) {
    for (std::uint64_t seed = 1; seed <= 18; ++seed) {
        testing::RuleFuzz fuzz(seed);
        std::vector<Rule> rules =
            fuzz.rules(static_cast<testing::RuleStyle>(seed % testing::rule_styles), 400);
        Result<Compiled> compiled = compile(rules);
        ASSERT_TRUE(compiled);
        if (compiled->engine == "crossing") {
            EXPECT_LE(compiled->memory(), memory_budget(rules.size()));
        }
    }
}

TEST(ClassBench, ReadsRules) {
    Result<std::vector<Rule>> rules = parse_classbench(
        "@192.0.2.0/24\t0.0.0.0/0\t0 : 65535\t80 : 90\t0x06/0xFF\t0x0000/0x0200\t\n\n"
        "@10.1.2.3/8 10.0.0.1/32 53 : 53 0 : 65535 0x00/0x00\n",
        "file", ActionKind::drop);
    ASSERT_TRUE(rules) << rules.error().what;
    ASSERT_EQ(rules->size(), 2u);
    EXPECT_EQ(to_string((*rules)[0]), "src 192.0.2.0/24 dst 0.0.0.0/0 proto tcp dport 80-90 drop");
    EXPECT_EQ(to_string((*rules)[1]), "src 10.0.0.0/8 dst 10.0.0.1 sport 53 drop");
}

TEST(ClassBench, NamesTheLineAndTheFault) {
    for (const auto& [text, fault] : {
             std::pair{"@1.2.3.4/33 0.0.0.0/0 0 : 1 0 : 1 0x06/0xFF", "1.2.3.4/33"},
             std::pair{"192.0.2.1/32 0.0.0.0/0 0 : 1 0 : 1 0x06/0xFF", "'@'"},
             std::pair{"@1.2.3.4/32 0.0.0.0/0 9 : 1 0 : 1 0x06/0xFF", "source port"},
             std::pair{"@1.2.3.4/32 0.0.0.0/0 0 : 1 0 : 65536 0x06/0xFF", "destination port"},
             std::pair{"@1.2.3.4/32 0.0.0.0/0 0 : 1 0 : 1 0x06/0x0F", "protocol"},
         }) {
        Result<std::vector<Rule>> rules =
            parse_classbench(std::string("\n") + text, "some/file", ActionKind::drop);
        ASSERT_FALSE(rules) << text;
        EXPECT_NE(rules.error().what.find("some/file:2"), std::string::npos);
        EXPECT_NE(rules.error().what.find(fault), std::string::npos) << rules.error().what;
    }
}

} // namespace
} // namespace netctl::classifier
