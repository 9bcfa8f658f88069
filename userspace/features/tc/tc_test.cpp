// SPDX-License-Identifier: GPL-2.0-only
#include "features/tc/controller.hpp"

#include <gtest/gtest.h>

#include "core/command.hpp"

namespace netctl::tc {

const Command& command();

namespace {

TEST(TcCommand, ADirectionIsOneOfTwo) {
    const Command root{.name = "netctl", .summary = "all", .children = {command()}};
    EXPECT_TRUE(parse_command(root, {"tc", "attach", "eth0", "ingress"}));
    const auto wrong = parse_command(root, {"tc", "attach", "eth0", "inward"});
    ASSERT_FALSE(wrong);
    EXPECT_EQ(wrong.error().kind, ErrorKind::usage);
    EXPECT_FALSE(parse_command(root, {"tc", "attach", "eth0"}));
}

/// What check_rules says about one rule on `lo`, or on a device of IP packets with lo's index.
Result<> check(const std::string& text, Direction direction, bool ethernet = true) {
    const auto rule = parse_rule(text, Hook::tc);
    EXPECT_TRUE(rule) << rule.error().what;
    sys::Interface interface = NETCTL_TRY(sys::find_interface("lo"));
    interface.ethernet = ethernet;
    interface.layer3 = !ethernet;
    return check_rules({*rule}, interface, direction);
}

TEST(TcRules, WhatWouldGoRoundForeverIsRefused) {
    EXPECT_FALSE(check("redirect lo", Direction::egress));
    EXPECT_FALSE(check("redirect lo ingress", Direction::ingress));
    EXPECT_FALSE(check("mirror lo pass", Direction::egress));
    EXPECT_TRUE(check("redirect lo ingress", Direction::egress));
    EXPECT_TRUE(check("redirect lo", Direction::ingress));
    EXPECT_TRUE(check("mirror lo pass", Direction::ingress));
}

TEST(TcRules, ATargetMustTakeThePackets) {
    const auto header = check("redirect lo", Direction::ingress, false);
    ASSERT_FALSE(header);
    EXPECT_NE(header.error().what.find("Ethernet"), std::string::npos);
}

} // namespace
} // namespace netctl::tc
