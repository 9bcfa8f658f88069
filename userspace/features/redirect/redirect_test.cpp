// SPDX-License-Identifier: GPL-2.0-only
#include <gtest/gtest.h>

#include <random>

#include <cerrno>
#include <fcntl.h>
#include <set>
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

std::string canonical(std::string_view text, Hook hook) {
    const Result<Rule> rule = parse_rule(text, hook);
    if (rule)
        return to_string(*rule);
    const std::string& what = rule.error().what.string();
    return "error: " + what.substr(0, what.find('\n'));
}

TEST(RedirectRule, IsARuleOfTheOneLanguage) {
    for (const std::string text :
         {"allow", "deny", "dport 80 allow", "dport 8000-8100 deny", "dst 127.0.0.0/8 allow",
          "dst ::1 dport 6379 deny", "dst 2001:db8::/32 cgroup /a/b exe /usr/bin/x allow",
          "dst {127.0.0.0/8, ::1} dport {80, 8000-8100} allow comment \"web\"",
          "cgroup \"/a b\" deny"})
        EXPECT_EQ(canonical(text, Hook::redirect), text);
    EXPECT_EQ(canonical("dport 80", Hook::redirect), "dport 80 allow");
    EXPECT_EQ(canonical("dport 80 dst 127.0.0.1", Hook::redirect), "dst 127.0.0.1 dport 80 allow");
    EXPECT_EQ(canonical("dport https", Hook::redirect), "dport 443 allow");
}

TEST(RedirectRule, SaysWhatIsWrong) {
    const struct {
        const char* text;
        const char* said;
    } rows[] = {
        {"", "the rule has no action"},
        {"dport", "'dport' needs a value, but here is the end of the rule"},
        {"dport 70000", "70000 is too large for 'dport'"},
        {"dport 90-80", "the range '90-80' runs backwards"},
        {"dport 1 dport 2", "'dport' is given twice"},
        {"dprot 80", "'dprot' is neither a key nor an action of redirect; did you mean 'dport'?"},
        {"dst 127.0.0.1/8", "'127.0.0.1/8' has bits set behind its /8"},
        {"dst ::ffff:127.0.0.1",
         "this can never match: redirect sees IPv4-mapped addresses as IPv4"},
        {"dport @web", "rules of redirect look into no sets"},
        {"dport not 80", "rules of redirect have no 'not'"},
        {"src 127.0.0.1", "redirect has no key 'src'; only xdp and tc have it"},
        {"dport 80 limit 5/s", "redirect has no modifier 'limit'; only xdp, tc and policy have it"},
        {"dport 80 target 127.0.0.1:1", "redirect has no action 'target'; only redirect to has it"},
    };
    for (const auto& row : rows)
        EXPECT_EQ(canonical(row.text, Hook::redirect), std::string("error: ") + row.said);
}

TEST(RedirectRule, IsAnEntryForEachElementOfItsLists) {
    const auto entries = rule_entries(
        *parse_rule("dst {10.0.0.0/8, fd00::/8} dport {80, 443-444} deny", Hook::redirect));
    ASSERT_TRUE(entries);
    std::vector<std::string> texts;
    for (const nc_rd_rule& entry : *entries)
        texts.push_back(to_string(rule_of(entry)));
    EXPECT_EQ(texts, (std::vector<std::string>{
                         "dst 10.0.0.0/8 dport 80 deny", "dst 10.0.0.0/8 dport 443-444 deny",
                         "dst fd00::/8 dport 80 deny", "dst fd00::/8 dport 443-444 deny"}));
    const auto any = rule_entries(*parse_rule("allow", Hook::redirect));
    ASSERT_TRUE(any && any->size() == 1);
    EXPECT_EQ(to_string(rule_of(any->front())), "allow");
}

TEST(RedirectTo, IsARuleOfTheOneLanguage) {
    for (const std::string text :
         {"dst 127.0.0.1 dport 80 target 127.0.0.1:8080", "dst ::1 dport 80-90 target [::1]:8080",
          "dst 192.0.2.0/24 proto udp cgroup /a/b target 127.0.0.1:53",
          "dst 192.0.2.1 target 127.0.0.1:80,127.0.0.1:81 weight 3,1 by source comment \"two\"",
          "dst ::2 target [::1]:80,[::1]:81 by source"})
        EXPECT_EQ(canonical(text, Hook::to), text);
    EXPECT_EQ(canonical("target 127.0.0.1:1 proto udp dst 127.0.0.1 dport 80", Hook::to),
              "dst 127.0.0.1 proto udp dport 80 target 127.0.0.1:1");
    const auto entries = to_entries(
        *parse_rule("dst {192.0.2.1, 192.0.2.3} proto {tcp, udp} target 127.0.0.1:53", Hook::to));
    ASSERT_TRUE(entries && entries->size() == 4);
    EXPECT_EQ(to_string(rule_of(entries->back())), "dst 192.0.2.3 proto udp target 127.0.0.1:53");
}

TEST(RedirectTo, MayHaveSeveralTargets) {
    const std::string even = "dst 192.0.2.1 target 127.0.0.1:80,127.0.0.1:81";
    EXPECT_EQ(canonical(even + " weight 1,1", Hook::to), even); // as without
    const Rule rule = *parse_rule(even + " weight 3,1 by source", Hook::to);
    const auto entries = to_entries(rule);
    ASSERT_TRUE(entries && entries->size() == 1);
    EXPECT_EQ(entries->front().targets, 2);
    EXPECT_EQ(entries->front().how, NC_RD_TO_BY_SOURCE);
    EXPECT_EQ(entries->front().target_port, 80); // the first
    const std::vector<nc_rd_to_target> targets = target_entries(rule);
    ASSERT_EQ(targets.size(), 2U);
    EXPECT_EQ(targets[0].port, 80);
    EXPECT_EQ(targets[0].weight, 3);
    EXPECT_EQ(targets[1].port, 81);
    EXPECT_EQ(targets[1].weight, 1);
    std::string most = "dst 192.0.2.1 target 127.0.0.1:1";
    for (int port = 2; port <= NC_RD_TO_TARGETS; port++)
        most += ",127.0.0.1:" + std::to_string(port);
    EXPECT_EQ(canonical(most, Hook::to), most);
    EXPECT_EQ(canonical(most + ",127.0.0.1:17", Hook::to), "error: 17 targets are too many");
}

TEST(RedirectTo, MayAskItsTargets) {
    const std::string rule = "dst 192.0.2.1 target 127.0.0.1:80,127.0.0.1:81";
    EXPECT_FALSE(parse_rule(rule, Hook::to)->actions.back().health);
    for (const std::string how :
         {" health tcp every 2s", " weight 3,1 by source health http /a?b=c every 1h fail open"})
        EXPECT_EQ(canonical(rule + how, Hook::to), rule + how);
    EXPECT_EQ(canonical(rule + " health tcp fail refuse", Hook::to), rule + " health tcp every 2s");
    EXPECT_EQ(canonical(rule + " health http / every 120s", Hook::to),
              rule + " health http / every 2m");
}

TEST(RedirectTo, SaysWhatIsWrong) {
    const struct {
        const char* text;
        const char* said;
    } rows[] = {
        {"target 127.0.0.1:1", "'dst' is missing: which address the target stands for"},
        {"dst 127.0.0.1", "the rule has no action"},
        {"dst 127.0.0.1 target", "'target' needs an argument, but here is the end of the rule"},
        {"dst 127.0.0.1 target 127.0.0.1", "'127.0.0.1' is no address with a port"},
        {"dst 127.0.0.1 target 127.0.0.1:0", "'127.0.0.1:0' is no address with a port"},
        {"dst ::1 target ::1:80", "'::1:80' is no address with a port"},
        {"dst ::1 target 127.0.0.1:80", "dst ::1 and target 127.0.0.1 are of different families"},
        {"dst 127.0.0.0/8 target 127.0.0.1:80",
         "the target is itself a destination that the rule rewrites"},
        {"dst 127.0.0.1 dport 81 target 127.0.0.1:80,127.0.0.1:81",
         "the target is itself a destination that the rule rewrites"},
        {"dst 127.0.0.9 target 127.0.0.1:80,[::1]:80",
         "dst 127.0.0.9 and target ::1 are of different families"},
        {"dst 127.0.0.9 target 127.0.0.1:80,", "'' is no address with a port"},
        {"dst 127.0.0.9 target 127.0.0.1:80,127.0.0.1:80", "target 127.0.0.1:80 is given twice"},
        {"dst 127.0.0.9 target 127.0.0.1:80,127.0.0.1:81 weight 1", "'1' are no weights"},
        {"dst 127.0.0.9 target 127.0.0.1:80 weight 0", "'0' are no weights"},
        {"dst 127.0.0.9 target 127.0.0.1:80 weight 101", "'101' are no weights"},
        {"dst 127.0.0.9 target 127.0.0.1:80 by turn", "targets are not chosen by 'turn'"},
        {"dst 127.0.0.9 target 127.0.0.1:80 fail open", "'fail' needs 'health' before it"},
        {"dst 127.0.0.9 target 127.0.0.1:80 health",
         "targets are not asked by the end of the rule"},
        {"dst 127.0.0.9 target 127.0.0.1:80 health udp", "targets are not asked by 'udp'"},
        {"dst 127.0.0.9 target 127.0.0.1:80 health http x", "'x' is no path to ask for"},
        {"dst 127.0.0.9 target 127.0.0.1:80 health http every 2s", "'every' is no path to ask for"},
        {"dst 127.0.0.9 target 127.0.0.1:80 health tcp every 0s",
         "'0s' is no time between questions"},
        {"dst 127.0.0.9 target 127.0.0.1:80 health tcp every 2h",
         "'2h' is no time between questions"},
        {"dst 127.0.0.9 target 127.0.0.1:80 health tcp fail closed",
         "'fail' does not know 'closed'"},
        {"dst 127.0.0.1 trget 127.0.0.1:80",
         "'trget' is neither a key nor an action of redirect to; did you mean 'target'?"},
        {"dst 127.0.0.1 proto sctp target 127.0.0.1:80", "only tcp and udp can be sent elsewhere"},
    };
    for (const auto& row : rows)
        EXPECT_EQ(canonical(row.text, Hook::to), std::string("error: ") + row.said);
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

TEST(RedirectBench, NeverSaysTheOppositeOfItsFigures) {
    // Of the rounds' own ratios, two of three are 0.43: "worth it", it said.
    const Rounds scattered{
        .tcp = {110, 460, 110}, .redirected = {198, 198, 47}, .again = {105, 460, 110}};
    EXPECT_DOUBLE_EQ(scattered.line({}, {}).tcp, 110);
    EXPECT_DOUBLE_EQ(scattered.line({}, {}).ratio, 1.8);
    EXPECT_NE(judge({scattered.line({}, {})}, false).find("slower than TCP"), std::string::npos);
    std::mt19937 random(1);
    std::lognormal_distribution<double> figure(4, 1);
    std::size_t better = 0, worse = 0;
    for (int i = 0; i < 20000; i++) {
        Rounds rounds;
        for (int round = 0; round < 3; round++)
            for (std::vector<double>* into : {&rounds.tcp, &rounds.redirected, &rounds.again})
                into->push_back(figure(random));
        const BenchReport::Line line = rounds.line({}, {});
        const std::string said = judge({line}, false);
        if (said.starts_with("worth it")) {
            EXPECT_LT(line.redirected, line.tcp);
            better++;
        }
        if (said.find("slower than TCP") != std::string::npos) {
            EXPECT_GT(line.redirected, line.tcp);
            worse++;
        }
    }
    EXPECT_GT(better, 100U);
    EXPECT_GT(worse, 100U);
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
