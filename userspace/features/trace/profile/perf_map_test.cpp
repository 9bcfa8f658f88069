// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/profile/perf_map.hpp"

#include <gtest/gtest.h>

namespace netctl::trace::profile {

namespace {

TEST(PerfMap, KnowsWhereFunctionsBeginAndEnd) {
    const PerfMap map("1000 20 first\n0x2000 0x10 of two words\n");
    EXPECT_EQ(map.at(0xfff), "");
    EXPECT_EQ(map.at(0x1000), "first");
    EXPECT_EQ(map.at(0x101f), "first");
    EXPECT_EQ(map.at(0x1020), "");
    EXPECT_EQ(map.at(0x200f), "of two words");
    EXPECT_EQ(map.at(UINT64_MAX), "");
}

TEST(PerfMap, LaterCodeIsInThePlaceOfEarlier) {
    const PerfMap map("1000 100 old\n1100 100 beside\n10f0 20 new\n");
    EXPECT_EQ(map.at(0x1000), "");
    EXPECT_EQ(map.at(0x10f0), "new");
    EXPECT_EQ(map.at(0x1110), "");
    EXPECT_EQ(map.size(), 1u);
}

TEST(PerfMap, LeavesOutWhatIsNoLineOfIt) {
    const PerfMap map("\nx\n1000\n1000 10\n1000 10 \n1000 0 empty\nzz 10 a\n"
                      "ffffffffffffffff 10 around\n2000 10 last, without its end");
    EXPECT_EQ(map.size(), 1u);
    EXPECT_EQ(map.at(0x2000), "last, without its end");
}

} // namespace

} // namespace netctl::trace::profile
