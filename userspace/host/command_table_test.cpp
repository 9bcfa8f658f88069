// SPDX-License-Identifier: GPL-2.0-only
#include "host/command_table.hpp"

#include <functional>
#include <set>

#include <gtest/gtest.h>

#include "host/host.hpp"

namespace netctl {

namespace {

void walk(const Command& node, const std::string& path,
          const std::function<void(const Command&, const std::string&)>& visit) {
    visit(node, path);
    for (const Command& child : node.children)
        walk(child, path + " " + child.name, visit);
}

TEST(CommandTable, EveryLeafRunsAndEverythingIsDescribed) {
    std::set<std::string> leaves;
    walk(command_table(), "netctl", [&](const Command& node, const std::string& path) {
        EXPECT_FALSE(node.summary.empty()) << path;
        EXPECT_NE(node.run == nullptr, node.children.empty()) << path;
        for (const Option& option : node.options)
            EXPECT_FALSE(option.help.empty()) << path << " --" << option.name;
        if (node.children.empty()) {
            EXPECT_TRUE(leaves.insert(path).second) << path << " is there twice";
        }
    });
    // What every packet filter has.
    for (const std::string filter : {"netctl xdp ", "netctl tc "})
        for (const char* verb :
             {"attach", "detach", "status", "log", "simulate", "rule add", "rule insert",
              "rule delete", "rule list", "rule flush", "rule replace"})
            EXPECT_TRUE(leaves.contains(filter + verb)) << filter << verb;
}

TEST(CommandTable, WhatChangesSomethingCanGoBack) {
    std::set<std::string> takes;
    walk(command_table(), "", [&](const Command& node, const std::string& path) {
        for (const Option& option : node.options)
            if (option.name == "confirm")
                takes.insert(path.substr(1));
    });
    std::set<std::string> wanted{"apply"};
    for (const std::string& words : host::confirmable_commands())
        wanted.insert(words);
    EXPECT_EQ(takes, wanted);
}

} // namespace
} // namespace netctl
