// SPDX-License-Identifier: GPL-2.0-only
#include <gtest/gtest.h>

#include <cerrno>
#include <fcntl.h>
#include <set>
#include <sstream>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "features/redirect/bench_target.hpp"
#include "features/redirect/clients.hpp"
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

BenchReport::Line bench_line(const char* placement, unsigned connections, double ratio) {
    BenchReport::Line line;
    line.placement = placement;
    line.connections = connections;
    line.ratio = ratio;
    line.control_low = 0.95;
    line.control_high = 1.05;
    return line;
}

TEST(RedirectBench, JudgesByEachCase) {
    const auto one = bench_line("x:80", 1, 0.7), alike = bench_line("x:80", 1, 0.98),
               many = bench_line("x:80", 4, 1.3);
    EXPECT_EQ(
        judge({one, many}, false),
        "it depends: faster with redirection (x:80), and slower (x:80, 4 connections at once)");
    EXPECT_NE(judge({one, alike}, false).find("worth it here for requests"), std::string::npos);
    EXPECT_NE(judge({alike, many}, false).find("slower than TCP"), std::string::npos);
    EXPECT_NE(judge({alike}, false).find("no difference"), std::string::npos);
    // More is better.
    EXPECT_EQ(judge({many}, true), "streams are faster with redirection here");
    EXPECT_NE(judge({one}, true).find("slower than TCP"), std::string::npos);
}

struct Pairs {
    std::vector<Fd> ours, theirs;

    explicit Pairs(int count) {
        for (int i = 0; i < count; i++) {
            int ends[2];
            EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
            ours.emplace_back(ends[0]);
            theirs.emplace_back(ends[1]);
        }
    }
};

TEST(RedirectBench, AsksOverSeveralConnectionsAtOnce) {
    Pairs pairs(3);
    bool served = false;
    std::thread server([&] { served = serve(pairs.theirs, 5, std::string(70000, 'a')); });
    {
        auto clients = Clients::make(std::move(pairs.ours), "hello", 70000);
        ASSERT_TRUE(clients);
        EXPECT_EQ(clients->count(), 3u);
        for (int i = 0; i < 3; i++) {
            // No time: each connection asks once.
            const auto took = clients->run(std::chrono::milliseconds(i));
            ASSERT_TRUE(took) << took.error().what;
            EXPECT_GT(*took, 0);
        }
    }
    server.join(); // as the connections are closed
    EXPECT_TRUE(served);
}

TEST(RedirectBench, SaysWhenAServerServesFewer) {
    Pairs pairs(2);
    auto clients = Clients::make(std::move(pairs.ours), "hello", 4);
    ASSERT_TRUE(clients);
    clients->set_patience(std::chrono::milliseconds(1));
    ASSERT_EQ(write(pairs.theirs[0].get(), "four", 4), 4);
    const auto silent = clients->run({});
    ASSERT_FALSE(silent);
    EXPECT_NE(silent.error().what.find("1 requests were answered"), std::string::npos);
    ASSERT_EQ(write(pairs.theirs[1].get(), "4", 1), 1);
    pairs.theirs[1].reset();
    const auto closed = clients->run({});
    ASSERT_FALSE(closed);
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
