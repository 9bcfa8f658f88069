// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/set_base.hpp"

#include <algorithm>
#include <random>

#include <gtest/gtest.h>

namespace netctl::datapath {

namespace {

std::vector<Prefix> nets(std::initializer_list<const char*> texts) {
    std::vector<Prefix> prefixes;
    for (const char* text : texts)
        prefixes.push_back(*Prefix::parse(text));
    std::sort(prefixes.begin(), prefixes.end());
    return prefixes;
}

std::vector<nc_base_line> build(Family family, std::span<const Prefix> prefixes) {
    auto lines = build_base(family, prefixes);
    EXPECT_TRUE(lines) << lines.error().what;
    return lines ? std::move(*lines) : std::vector<nc_base_line>();
}

Prefix random_net(std::mt19937_64& random, Family family, unsigned shortest) {
    Prefix prefix;
    prefix.address.family = family;
    const unsigned bits = prefix.address.bits();
    prefix.length = static_cast<std::uint8_t>(shortest + random() % (bits - shortest + 1));
    for (unsigned i = 0; i < prefix.length; i++)
        if (random() & 1)
            prefix.address.bytes[i / 8] |= static_cast<std::uint8_t>(0x80 >> i % 8);
    return prefix;
}

TEST(SetBase, OfNothingIsNothing) {
    EXPECT_TRUE(build(Family::ipv4, {}).empty());
    EXPECT_TRUE(base_elements({}).empty());
    EXPECT_EQ(base_head({}), nullptr);
}

TEST(SetBase, GivesItsElementsBack) {
    for (const std::vector<Prefix>& prefixes :
         {nets({"0.0.0.0/0"}), nets({"192.0.2.1"}),
          nets({"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/9", "10.0.0.0", "255.255.255.255"}),
          nets({"128.0.0.0/1", "127.0.0.0/8", "64.0.0.0/3"}), nets({"::/0"}),
          nets({"::/0", "::", "::/64", "ffff::/16"}),
          nets({"2001:db8::/32", "2001:db8::/64", "2001:db8::/65", "2001:db8::1", "2001:db8::2",
                "2001:db9::1", "2001:db9::/128", "4000::/2"})}) {
        const auto lines = build(prefixes.front().address.family, prefixes);
        EXPECT_EQ(base_elements(lines), prefixes) << prefixes.front().to_string();
        EXPECT_EQ(base_head(lines)->elements, prefixes.size());
    }
}

TEST(SetBase, WhatAnotherToolWroteIntoItIsNoticedOrDoesNoHarm) {
    std::mt19937_64 random(2);
    std::size_t noticed = 0;
    for (int round = 0; round < 4000; round++) {
        const Family family = round % 2 ? Family::ipv4 : Family::ipv6;
        std::vector<Prefix> prefixes;
        for (int i = 0; i < 20; i++)
            prefixes.push_back(random_net(random, family, i % 3 ? 8 : 24));
        std::sort(prefixes.begin(), prefixes.end());
        prefixes.erase(std::unique(prefixes.begin(), prefixes.end()), prefixes.end());
        auto lines = build(family, prefixes);
        ASSERT_TRUE(is_whole_base(lines));
        // One number anywhere, or an end that is missing.
        auto* words = reinterpret_cast<std::uint32_t*>(lines.data());
        const bool in_head = random() % 4 == 0;
        words[random() % (in_head ? 16 : lines.size() * 16)] ^= 1U << random() % 32;
        if (random() % 8 == 0)
            lines.resize(lines.size() - random() % 3);
        if (!is_whole_base(lines)) {
            noticed++;
            continue;
        }
        // These check what they index.
        base_elements(lines);
        for (const Prefix& prefix : prefixes)
            base_lengths(lines, prefix.address);
    }
    EXPECT_GT(noticed, 400U);
}

TEST(SetBase, GivesManyElementsBackAndIsSmall) {
    std::mt19937_64 random(1);
    struct Row {
        Family family;
        unsigned shortest;
        std::size_t bytes;
    };
    for (const Row& row : {Row{Family::ipv4, 8, 16}, Row{Family::ipv4, 25, 16},
                           Row{Family::ipv6, 16, 32}, Row{Family::ipv6, 65, 32}}) {
        std::vector<Prefix> prefixes;
        for (int i = 0; i < 50000; i++)
            prefixes.push_back(random_net(random, row.family, row.shortest));
        std::sort(prefixes.begin(), prefixes.end());
        prefixes.erase(std::unique(prefixes.begin(), prefixes.end()), prefixes.end());
        const auto lines = build(row.family, prefixes);
        EXPECT_EQ(base_elements(lines), prefixes);
        EXPECT_LE(lines.size() * sizeof(nc_base_line), row.bytes * prefixes.size());
    }
}

// What an address in no element costs depends on it: where its bucket has no start, the filter ends the way.
TEST(SetBase, FewPrefixesLeaveMostBucketsEmpty) {
    std::mt19937_64 random(1);
    for (const int count : {200, 1000, 5000, 30000}) {
        std::vector<Prefix> prefixes;
        for (int i = 0; i < count; i++)
            prefixes.push_back(random_net(random, Family::ipv4, 20));
        std::sort(prefixes.begin(), prefixes.end());
        prefixes.erase(std::unique(prefixes.begin(), prefixes.end()), prefixes.end());
        const auto lines = build(Family::ipv4, prefixes);
        const unsigned bits = 32 - base_head(lines)->filter_shift;
        EXPECT_GE(std::size_t{1} << bits, 8 * prefixes.size()) << count << " prefixes";
        EXPECT_LE(lines.size() * sizeof(nc_base_line),
                  std::max<std::size_t>(256 << 10, 16 * prefixes.size()));
    }
}

} // namespace
} // namespace netctl::datapath
