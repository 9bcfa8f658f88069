// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/histogram.hpp"

#include <algorithm>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "netctl/abi/trace_func.h"
#include "netctl/abi/trace_rtt.h"

namespace netctl::trace {
namespace {

static_assert(Histogram::slot_count >= NC_RTT_SLOTS && Histogram::bits == NC_RTT_SLOT_BITS);
static_assert(Histogram::slot_count == NC_FUNC_SLOTS);

Histogram of(const std::vector<std::uint64_t>& values) {
    std::vector<std::uint32_t> counts(Histogram::slot_count);
    for (const std::uint64_t value : values)
        ++counts[Histogram::slot_of(value)];
    Histogram histogram;
    histogram.add(counts);
    return histogram;
}

TEST(Histogram, ASlotHasWhatIsBetweenItsEnds) {
    for (std::size_t slot = 0; slot + 1 < Histogram::slot_count; ++slot) {
        EXPECT_EQ(Histogram::slot_of(Histogram::begin_of(slot)), slot);
        EXPECT_EQ(Histogram::slot_of(Histogram::begin_of(slot + 1) - 1), slot);
    }
    EXPECT_EQ(Histogram::begin_of(Histogram::slot_count), std::uint64_t{1} << 40);
    EXPECT_EQ(Histogram::slot_of(UINT64_MAX), Histogram::slot_count - 1);
}

TEST(Histogram, QuantilesAreTheValuesOrUpToAnEighthMore) {
    std::mt19937_64 random(7);
    std::vector<std::uint64_t> values;
    for (int i = 0; i < 5000; ++i)
        values.push_back(random() >> (40 + random() % 24));
    const Histogram histogram = of(values);
    std::sort(values.begin(), values.end());
    for (const double part : {0.0, 0.01, 0.5, 0.9, 0.99, 1.0}) {
        const std::size_t rank =
            std::max<std::size_t>(1, static_cast<std::size_t>(part * 5000 + 0.5));
        const std::uint64_t value = values[rank - 1], told = histogram.quantile(part);
        EXPECT_GE(told, value) << part;
        EXPECT_LE(told, value + value / 8) << part;
    }
    EXPECT_EQ(Histogram().quantile(0.5), 0);
    EXPECT_EQ(histogram.count(), 5000);
}

TEST(Histogram, WhatIsNewSinceThen) {
    const Histogram before = of({1, 5, 100});
    Histogram now = of({1, 5, 5, 100, 3000});
    now.subtract(before);
    ASSERT_EQ(now.slots().size(), 2);
    EXPECT_EQ(now.slots()[0].from, 5);
    EXPECT_EQ(now.slots()[0].count, 1);
    EXPECT_LE(now.slots()[1].from, 3000);
    EXPECT_GT(now.slots()[1].below, 3000);
}

TEST(Histogram, BarsShowTheGapsBetween) {
    const std::string bars = of({4, 4, 4, 4, 6}).bars(1, "us").string();
    EXPECT_EQ(bars,
              "     4.000 -      5.000 us          4  ########################################\n"
              "     5.000 -      6.000 us          0  \n"
              "     6.000 -      7.000 us          1  ##########\n");
    EXPECT_EQ(Histogram().bars(1, "us"), "");
}

} // namespace
} // namespace netctl::trace
