// SPDX-License-Identifier: GPL-2.0-only
#include "host/metrics_table.hpp"

#include <fstream>
#include <iterator>
#include <regex>
#include <set>

#include <gtest/gtest.h>

#include "host/exposition.hpp"
#include "source_dir.hpp"

namespace netctl::host {

namespace {

TEST(Metrics, AreNamedAsPrometheusHasIt) {
    std::set<std::string_view> names;
    for (const MetricInfo& info : metric_table()) {
        const std::string name(info.name);
        EXPECT_TRUE(names.insert(info.name).second) << name << " is there twice";
        EXPECT_TRUE(std::regex_match(name, std::regex("netctl_[a-z]+(_[a-z]+)*"))) << name;
        EXPECT_EQ(info.type == "counter", name.ends_with("_total")) << name;
        EXPECT_TRUE(info.type == "counter" || info.type == "gauge") << name;
        EXPECT_TRUE(info.help.ends_with('.')) << name;
        EXPECT_EQ(info.help.find_first_of("\\\n|"), std::string::npos)
            << name << ": not for a line of the exposition, nor of a table";
        for (const std::string_view label : label_names(info)) {
            // What there may be any number of.
            const std::set<std::string_view> known{
                "abi",   "by",     "direction", "hook", "interface", "kind",    "layer",
                "mode",  "netns",  "outcome",   "part", "reason",    "rule",    "set",
                "state", "target", "text",      "type", "verdict",   "version", "way"};
            EXPECT_TRUE(known.contains(label)) << name << ": " << label;
            if (label == "text") {
                EXPECT_TRUE(name.ends_with("_info")) << name << ": a text would multiply series";
            }
        }
    }
}

TEST(Metrics, AreInTheDocumentation) {
    std::ifstream file(std::string(NETCTL_SOURCE_DIR) + "/docs/metrics.md");
    const std::string page((std::istreambuf_iterator<char>(file)),
                           std::istreambuf_iterator<char>());
    EXPECT_NE(page.find("\n\n" + metrics_markdown() + "\n"), std::string::npos)
        << "the table of docs/metrics.md is what `netctl generate metrics` prints:\n"
        << metrics_markdown();
}

TEST(Exposition, KeepsFamiliesTogetherAndEscapesLabels) {
    Exposition page;
    page.add(Metric::policy_rule_info, {"2", "a \"b\" \\ \n\x1b\xff"}, 1);
    page.add(Metric::part_up, {"xdp"}, 1);
    page.add(Metric::redirect_joined, {}, 18446744073709551615U);
    page.add(Metric::part_up, {"tc"}, 0);
    EXPECT_EQ(page.samples(), 4U);
    EXPECT_EQ(
        page.take_text(),
        "# HELP netctl_part_up 1 if this part could be read as a whole, 0 if metrics of it are "
        "missing.\n"
        "# TYPE netctl_part_up gauge\n"
        "netctl_part_up{part=\"xdp\"} 1\n"
        "netctl_part_up{part=\"tc\"} 0\n"
        "# HELP netctl_policy_rule_info The text of a rule of the policy, to be joined by its id; "
        "always 1.\n"
        "# TYPE netctl_policy_rule_info gauge\n"
        // A line feed and a control character are shown as \x0a and \x1b, as everywhere.
        "netctl_policy_rule_info{rule=\"2\",text=\"a \\\"b\\\" \\\\ \\\\x0a\\\\x1b\\\\xff\"} 1\n"
        "# HELP netctl_redirect_joined_total Connections that were joined.\n"
        "# TYPE netctl_redirect_joined_total counter\n"
        "netctl_redirect_joined_total 18446744073709551615\n");
}

} // namespace
} // namespace netctl::host
