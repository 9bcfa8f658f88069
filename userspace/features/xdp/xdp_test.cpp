// SPDX-License-Identifier: GPL-2.0-only
#include "features/xdp/controller.hpp"

#include <set>

#include <gtest/gtest.h>

#include "core/command.hpp"

namespace netctl::xdp {

const Command& command();

namespace {

TEST(XdpCommand, EveryLeafRunsAndIsDescribed) {
    std::set<std::string> verbs;
    const std::function<void(const Command&)> walk = [&](const Command& node) {
        EXPECT_FALSE(node.summary.empty()) << node.name;
        EXPECT_NE(node.run == nullptr, node.children.empty()) << node.name;
        for (const Option& option : node.options)
            EXPECT_FALSE(option.help.empty()) << option.name;
        for (const Command& child : node.children) {
            verbs.insert(child.name);
            walk(child);
        }
    };
    walk(command());
    EXPECT_EQ(verbs,
              (std::set<std::string>{"attach", "detach", "status", "rule", "add", "insert",
                                     "delete", "list", "flush", "replace", "log", "simulate"}));
}

TEST(XdpNames, EachVerdictAndReasonHasItsOwn) {
    std::set<std::string> verdicts, reasons, unparsed;
    for (int i = 0; i < NC_VERDICTS; i++)
        verdicts.insert(to_string(static_cast<nc_verdict>(i)));
    for (int i = 0; i <= NC_REASON_FAILED; i++)
        reasons.insert(to_string(static_cast<nc_reason>(i)));
    for (int i = 0; i < NC_UNPARSED_REASONS; i++)
        unparsed.insert(to_string(static_cast<nc_unparsed>(i)));
    EXPECT_EQ(verdicts.size(), static_cast<std::size_t>(NC_VERDICTS));
    EXPECT_EQ(reasons.size(), static_cast<std::size_t>(NC_REASON_FAILED + 1));
    EXPECT_EQ(unparsed.size(), static_cast<std::size_t>(NC_UNPARSED_REASONS));
    for (const auto& names : {verdicts, reasons, unparsed})
        EXPECT_FALSE(names.contains("unknown"));
}

} // namespace
} // namespace netctl::xdp
