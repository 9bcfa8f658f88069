// SPDX-License-Identifier: GPL-2.0-only
#include "core/duration.hpp"

#include <gtest/gtest.h>

namespace netctl {
namespace {

using namespace std::chrono_literals;

Result<std::chrono::nanoseconds> parsed(std::string_view text) {
    return parse_duration("min", text, 1ms, 24h);
}

TEST(Duration, HasAUnit) {
    EXPECT_EQ(*parsed("1500us"), 1500us);
    EXPECT_EQ(*parsed("7ms"), 7ms);
    EXPECT_EQ(*parsed("60s"), 60s);
    EXPECT_EQ(*parsed("5m"), 5min);
    EXPECT_EQ(*parsed("24h"), 24h);
}

TEST(Duration, IsWithinItsBounds) {
    for (const char* wrong : {"", "s", "1", "1 s", "-1s", "1.5s", "1d", "1sh", "0s", "999us", "25h",
                              "99999999999999999999s", "18446744073709551615h"}) {
        const auto refused = parsed(wrong);
        ASSERT_FALSE(refused.has_value()) << wrong;
        EXPECT_EQ(refused.error().what.string(), "--min '" + std::string(wrong) + "' is no time");
        EXPECT_EQ(refused.error().hint.string(),
                  "a whole number and us, ms, s, m or h, from 1ms to 24h");
    }
    EXPECT_EQ(*parse_duration("min", "0s", 0ns, 1h), 0ns);
}

} // namespace
} // namespace netctl
