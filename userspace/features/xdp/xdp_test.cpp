// SPDX-License-Identifier: GPL-2.0-only
#include "features/xdp/controller.hpp"

#include <gtest/gtest.h>

#include "core/command.hpp"

namespace netctl::xdp {

const Command& command();

namespace {

TEST(XdpCommand, ADefaultIsAVerdictThatXdpHas) {
    const Command root{.name = "netctl", .summary = "all", .children = {command()}};
    EXPECT_TRUE(parse_command(root, {"xdp", "attach", "eth0", "--default", "drop"}));
    const auto wrong = parse_command(root, {"xdp", "attach", "eth0", "--default", "next"});
    ASSERT_FALSE(wrong);
    EXPECT_EQ(wrong.error().kind, ErrorKind::usage);
    EXPECT_NE(wrong.error().what.find("next"), std::string::npos) << wrong.error().what;
}

} // namespace
} // namespace netctl::xdp
