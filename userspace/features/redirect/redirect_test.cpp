// SPDX-License-Identifier: GPL-2.0-only
#include <gtest/gtest.h>

#include <set>
#include <sstream>

#include "features/redirect/bench_target.hpp"
#include "features/redirect/controller.hpp"
#include "features/redirect/rule_text.hpp"
#include "features/redirect/selftest.hpp"
#include "netctl/abi/redirect.h"

namespace netctl::redirect {
namespace {

std::vector<std::string> words(const std::string& text) {
    std::istringstream stream(text);
    std::vector<std::string> all;
    for (std::string word; stream >> word;)
        all.push_back(word);
    return all;
}

TEST(RedirectRule, PrintsWhatItParsed) {
    for (const std::string text :
         {"allow", "deny", "dport 80 allow", "dport 8000-8100 deny", "dst 127.0.0.0/8 allow",
          "dport 6379 dst ::1 deny", "dst 2001:db8::/32 cgroup /a/b exe /usr/bin/x allow"}) {
        const auto rule = parse_rule(words(text));
        ASSERT_TRUE(rule) << text << ": " << rule.error().what;
        EXPECT_EQ(to_string(*rule), text);
        const auto again = parse_rule(words(to_string(*rule)));
        ASSERT_TRUE(again);
        EXPECT_EQ(*again, *rule);
    }
}

TEST(RedirectRule, AllowsIfNothingElseIsSaid) {
    const auto rule = parse_rule({"dport", "80"});
    ASSERT_TRUE(rule);
    EXPECT_TRUE(rule->allow);
}

TEST(RedirectRule, KeysMayComeInAnyOrder) {
    EXPECT_EQ(*parse_rule(words("dst 127.0.0.1 dport 80")),
              *parse_rule(words("dport 80 dst 127.0.0.1 allow")));
}

TEST(RedirectRule, TakesMappedAddressesForTheIpv4OnesThatTheyAre) {
    EXPECT_EQ(to_string(*parse_rule(words("dst ::ffff:127.0.0.1"))), "dst 127.0.0.1 allow");
    EXPECT_EQ(to_string(*parse_rule(words("dst ::ffff:127.0.0.0/104"))), "dst 127.0.0.0/8 allow");
}

TEST(RedirectRule, SaysWhatIsWrong) {
    const struct {
        const char* text;
        const char* said;
    } rows[] = {
        {"", "missing"},
        {"dport", "'dport' needs a value"},
        {"dport 70000", "'70000' is no port"},
        {"dport 90-80", "is empty"},
        {"dport 1 dport 2", "stands twice"},
        {"dprot 80", "did you mean 'dport'"},
        {"dst 127.0.0.1/8", "dst"},
        {"allow dport 80", "'dport' follows"},
    };
    for (const auto& row : rows) {
        const auto rule = parse_rule(words(row.text));
        ASSERT_FALSE(rule) << row.text;
        EXPECT_EQ(rule.error().kind, ErrorKind::usage);
        EXPECT_NE(rule.error().what.find(row.said), std::string::npos)
            << row.text << ": " << rule.error().what;
    }
}

TEST(RedirectTo, PrintsWhatItParsed) {
    for (const std::string text :
         {"dst 127.0.0.1 dport 80 target 127.0.0.1:8080", "dst ::1 dport 80-90 target [::1]:8080",
          "dst 192.0.2.0/24 proto udp target 127.0.0.1:53 cgroup /a/b"}) {
        const auto rule = parse_to(words(text));
        ASSERT_TRUE(rule) << text << ": " << rule.error().what;
        EXPECT_EQ(to_string(*rule), text);
    }
    EXPECT_EQ(to_string(*parse_to(words("target 127.0.0.1:1 dst ::ffff:127.0.0.1 dport 80"))),
              "dst 127.0.0.1 dport 80 target 127.0.0.1:1");
}

TEST(RedirectTo, SaysWhatIsWrong) {
    const struct {
        const char* text;
        const char* said;
    } rows[] = {
        {"", "'dst' is missing"},
        {"dst 127.0.0.1", "'target' is missing"},
        {"dst 127.0.0.1 target", "needs a value"},
        {"dst 127.0.0.1 target 127.0.0.1", "no address with a port"},
        {"dst 127.0.0.1 target 127.0.0.1:0", "no address with a port"},
        {"dst ::1 target ::1:80", "no address with a port"},
        {"dst ::1 target 127.0.0.1:80", "different families"},
        {"dst 127.0.0.0/8 target 127.0.0.1:80", "itself a destination"},
        {"dst 127.0.0.1 trget 127.0.0.1:80", "did you mean 'target'"},
        {"dst 127.0.0.1 proto sctp target 127.0.0.1:80", "neither tcp nor udp"},
    };
    for (const auto& row : rows) {
        const auto rule = parse_to(words(row.text));
        ASSERT_FALSE(rule) << row.text;
        EXPECT_NE(rule.error().what.find(row.said), std::string::npos)
            << row.text << ": " << rule.error().what;
    }
}

TEST(Redirect, RequestsMayHoldWhatCannotBeTyped) {
    EXPECT_EQ(*unescape("PING\\r\\n"), "PING\r\n");
    EXPECT_EQ(*unescape("\\x00\\xfF\\\\x\\t\\0."), std::string("\0\xff\\x\t\0.", 7));
    for (const char* wrong : {"\\", "\\q", "\\x1", "\\xg0"})
        EXPECT_FALSE(unescape(wrong)) << wrong;
}

TEST(Redirect, EveryReasonHasItsOwnName) {
    std::set<std::string> names;
    for (std::uint32_t reason = 0; reason < NC_RD_REASONS; reason++)
        names.insert(reason_name(reason));
    EXPECT_EQ(names.size(), NC_RD_REASONS);
    EXPECT_EQ(reason_name(NC_RD_REASON_STREAM), "stream");
    EXPECT_EQ(reason_name(NC_RD_REASON_DISABLED), "disabled");
    EXPECT_EQ(reason_name(NC_RD_REASON_DRAINED), "drained");
}

TEST(Redirect, SelftestNamesAreUnique) {
    const auto names = selftest_names();
    EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), names.size());
}

} // namespace
} // namespace netctl::redirect
