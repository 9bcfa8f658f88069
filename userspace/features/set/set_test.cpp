// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/sets.hpp"

#include <gtest/gtest.h>

#include "core/command.hpp"
#include "features/set/watch.hpp"

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

TEST(SetWatch, TellsWhatChangedBetweenTwoLooks) {
    const auto entry = [](const char* text, std::uint32_t expires, std::uint32_t flags = 0) {
        return datapath::SetEntry{*parse_element(SetType::cidr, text), {expires, flags}};
    };
    const std::vector<datapath::SetEntry> before{
        entry("10.0.0.1", 0),  entry("10.0.0.2", 0),  entry("10.0.0.3", 50), entry("10.0.0.4", 60),
        entry("10.0.0.5", 60), entry("10.0.0.6", 99), entry("10.0.0.7", 0),  entry("10.0.0.8", 70)};
    const std::vector<datapath::SetEntry> after{
        entry("10.0.0.2", 0, NC_SET_FOLD), // where it lies is no matter
        entry("10.0.0.3", 90),             // it had expired, and is back
        entry("10.0.0.4", 60),             // runs out between the looks, and is listed still
        entry("10.0.0.6", 199),
        entry("10.0.0.7", 0, NC_SET_ABSENT),
        entry("10.0.0.9", 0),
        entry("10.0.1.0/24", 65)};
    std::string told;
    for (const SetChange& change : changes_between(before, 55, after, 65))
        told += to_string(change.event) + " " + datapath::to_string(change.entry.element) + "\n";
    EXPECT_EQ(told, "removed 10.0.0.1\n"
                    "added 10.0.0.3\n"
                    "expired 10.0.0.4\n"
                    "expired 10.0.0.5\n"
                    "changed 10.0.0.6\n"
                    "changed 10.0.0.7\n"
                    "removed 10.0.0.8\n"
                    "added 10.0.0.9\n");
    EXPECT_TRUE(changes_between(after, 65, after, 65).empty());
}

TEST(SetCommand, HasTheVerbsOfTheDesign) {
    std::vector<std::string> verbs;
    for (const Command& child : command().children)
        verbs.push_back(child.name);
    EXPECT_EQ(verbs, (std::vector<std::string>{"create", "destroy", "chgrp", "add", "delete",
                                               "list", "watch", "test", "import", "diff", "resolve",
                                               "resolvers", "swap", "fold"}));
}

} // namespace
} // namespace netctl::set
