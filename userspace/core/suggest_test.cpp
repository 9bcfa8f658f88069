// SPDX-License-Identifier: GPL-2.0-only
#include "core/suggest.hpp"

#include <gtest/gtest.h>

namespace netctl {
namespace {

TEST(Suggest, DistanceCountsEdits) {
    EXPECT_EQ(edit_distance("", ""), 0u);
    EXPECT_EQ(edit_distance("drop", ""), 4u);
    EXPECT_EQ(edit_distance("", "drop"), 4u);
    EXPECT_EQ(edit_distance("drop", "drop"), 0u);
    EXPECT_EQ(edit_distance("drop", "dro"), 1u);
    EXPECT_EQ(edit_distance("drop", "dropp"), 1u);
    EXPECT_EQ(edit_distance("drop", "crop"), 1u);
    EXPECT_EQ(edit_distance("drop", "dorp"), 1u) << "two neighbours swapped";
    EXPECT_EQ(edit_distance("ca", "abc"), 3u) << "a swapped pair is not edited again";
    EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
}

TEST(Suggest, NearestWordIsNearEnough) {
    const std::vector<std::string> words{"src", "dst", "sport", "dport", "icmp-type", "tx"};
    EXPECT_EQ(closest("sorc", words), "src");
    EXPECT_EQ(closest("dprot", words), "dport");
    EXPECT_EQ(closest("icmp_typ", words), "icmp-type");
    EXPECT_EQ(closest("banana", words), "");
    EXPECT_EQ(closest("", words), "");
    EXPECT_EQ(closest("ab", words), "") << "every letter would have to change";
    EXPECT_EQ(closest("x", {}), "");
    EXPECT_EQ(closest(std::string(100000, 'x'), words), "");
}

TEST(Suggest, ReadyForAMessage) {
    EXPECT_EQ(did_you_mean("sorc", {"src"}), "; did you mean 'src'?");
    EXPECT_EQ(did_you_mean("banana", {"src"}), "");
}

} // namespace
} // namespace netctl
