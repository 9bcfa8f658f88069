// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/filter.hpp"

#include <set>

#include <gtest/gtest.h>

namespace netctl::datapath {

namespace {

TEST(FilterNames, EachVerdictAndReasonHasItsOwn) {
    std::set<std::string> verdicts, reasons, unparsed;
    for (int i = 0; i < NC_VERDICTS; i++)
        verdicts.insert(to_string(static_cast<nc_verdict>(i)));
    for (int i = 0; i <= NC_REASON_RATE; i++)
        reasons.insert(to_string(static_cast<nc_reason>(i)));
    for (int i = 0; i < NC_UNPARSED_REASONS; i++)
        unparsed.insert(to_string(static_cast<nc_unparsed>(i)));
    EXPECT_EQ(verdicts.size(), static_cast<std::size_t>(NC_VERDICTS));
    EXPECT_EQ(reasons.size(), static_cast<std::size_t>(NC_REASON_RATE + 1));
    EXPECT_EQ(unparsed.size(), static_cast<std::size_t>(NC_UNPARSED_REASONS));
    for (const auto& names : {verdicts, reasons, unparsed})
        EXPECT_FALSE(names.contains("unknown"));
}

} // namespace
} // namespace netctl::datapath
