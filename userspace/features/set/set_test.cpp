// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/sets.hpp"

#include <gtest/gtest.h>

#include "core/command.hpp"

namespace netctl::set {

const Command& command();

namespace {

using datapath::parse_element;
using datapath::SetType;

std::string element(SetType type, const std::string& text) {
    const auto parsed = parse_element(type, text);
    return parsed ? datapath::to_string(*parsed) : "error: " + parsed.error().what.string();
}

TEST(SetElement, FitsItsSet) {
    EXPECT_EQ(element(SetType::host, "192.0.2.1"), "192.0.2.1");
    EXPECT_EQ(element(SetType::host, "2001:DB8::0:1"), "2001:db8::1");
    EXPECT_EQ(element(SetType::host, "192.0.2.0/24"),
              "error: '192.0.2.0/24' is a network, and the set holds addresses");
    EXPECT_EQ(element(SetType::cidr, "192.0.2.0/24"), "192.0.2.0/24");
    EXPECT_EQ(element(SetType::cidr, "::/0"), "::/0");
    EXPECT_EQ(element(SetType::cidr, "192.0.2.1/24"),
              "error: '192.0.2.1/24' has bits set behind its /24");
    EXPECT_EQ(element(SetType::port, "443"), "443");
    EXPECT_EQ(element(SetType::port, "https"), "443");
    EXPECT_EQ(element(SetType::port, "65536"), "error: '65536' is no port");
    EXPECT_EQ(element(SetType::host, "x"), "error: 'x' is not an IPv4 or IPv6 address");
}

TEST(SetCommand, HasTheVerbsOfTheDesign) {
    std::vector<std::string> verbs;
    for (const Command& child : command().children)
        verbs.push_back(child.name);
    EXPECT_EQ(verbs, (std::vector<std::string>{"create", "destroy", "chgrp", "add", "delete",
                                               "list", "test", "import", "diff", "resolve",
                                               "resolvers", "swap", "fold"}));
}

} // namespace
} // namespace netctl::set
