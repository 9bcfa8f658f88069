// SPDX-License-Identifier: GPL-2.0-only
#include "core/rule.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/rule_keys.hpp"
#include "core/rule_lexer.hpp"
#include "core/rule_parser.hpp"
#include "netctl/abi/packet.h"
#include "source_dir.hpp"

namespace netctl {

void PrintTo(const Rule& rule, std::ostream* out) {
    *out << to_string(rule);
}

namespace {

/// Those whose rules have all of the language.
constexpr Hook hooks[] = {Hook::xdp, Hook::tc, Hook::policy};

/// What a rule reads back as; or the error.
std::string canonical(std::string_view text, Hook hook = Hook::xdp) {
    const Result<Rule> rule = parse_rule(text, hook);
    return rule ? to_string(*rule) : "error: " + rule.error().what.string();
}

/// The error's first line, and the text under its carets in brackets.
std::string complaint(std::string_view text, Hook hook = Hook::xdp) {
    const Result<Rule> rule = parse_rule(text, hook);
    if (rule)
        return "no error, but: " + to_string(*rule);
    std::istringstream lines(rule.error().what);
    std::string message, line, carets;
    std::getline(lines, message);
    std::getline(lines, line);
    std::getline(lines, carets);
    const std::size_t from = carets.find('^');
    if (from == std::string::npos)
        return "no carets: " + rule.error().what;
    return fmt::format("{} [{}]", message,
                       from < line.size() ? line.substr(from, carets.size() - from) : "");
}

std::string hint(std::string_view text, Hook hook = Hook::xdp) {
    const Result<Rule> rule = parse_rule(text, hook);
    return rule ? "no error" : rule.error().hint;
}

Rule parsed(std::string_view text, Hook hook = Hook::xdp) {
    Result<Rule> rule = parse_rule(text, hook);
    if (!rule) {
        ADD_FAILURE() << text << "\n" << rule.error().what;
        return {};
    }
    return std::move(rule).value();
}

// ---- what texts mean ----

struct Spelling {
    Hook hook;
    const char* text;
    const char* canonical;
};

TEST(Rule, HasOneCanonicalText) {
    const Spelling spellings[] = {
        {Hook::xdp, "drop", "drop"},
        {Hook::xdp, "  \t drop\r\n", "drop"},
        {Hook::xdp, "drop src 192.0.2.1", "src 192.0.2.1 drop"},
        {Hook::xdp, "log drop comment x src 192.0.2.1", "src 192.0.2.1 drop log comment \"x\""},
        {Hook::xdp, "then drop", "drop"},
        {Hook::xdp, "limit 10/s reject src 192.0.2.1", "src 192.0.2.1 reject limit 10/s burst 10"},
        {Hook::tc, "dport 80 mirror eth1 reject", "dport 80 mirror eth1 reject"},
        {Hook::xdp, "drop # src 192.0.2.1", "drop"},
        // addresses
        {Hook::xdp, "src 10.0.0.0/8 drop", "src 10.0.0.0/8 drop"},
        {Hook::xdp, "src {192.0.2.1} drop", "src 192.0.2.1 drop"},
        {Hook::xdp, "src {2001:DB8::/32,10.0.0.0/8 9.9.9.9,} drop",
         "src {9.9.9.9, 10.0.0.0/8, 2001:db8::/32} drop"},
        {Hook::xdp, "src {10.1.0.0/16, 10.0.0.0/8, 10.0.0.0/8, 10.255.255.255, 11.0.0.0} drop",
         "src {10.0.0.0/8, 11.0.0.0} drop"},
        {Hook::xdp, "src not {::1,127.0.0.0/8} drop", "src not {127.0.0.0/8, ::1} drop"},
        {Hook::xdp, "src{192.0.2.1}drop", "src 192.0.2.1 drop"},
        {Hook::xdp, "src @a-B_9 dst not @b drop", "src @a-B_9 dst not @b drop"},
        {Hook::xdp, "src ::ffff:192.0.2.1 drop", "src ::ffff:192.0.2.1 drop"},
        // ports
        {Hook::xdp, "dport 80 drop", "dport 80 drop"},
        {Hook::xdp, "dport 0x50 drop", "dport 80 drop"},
        {Hook::xdp, "dport {443,80,http,81-90,85-99} drop", "dport {80-99, 443} drop"},
        {Hook::xdp, "sport not 1024-65535 drop", "sport not 1024-65535 drop"},
        {Hook::xdp, "dport @web drop", "dport @web drop"},
        {Hook::xdp, "dport ssh proto tcp drop", "proto tcp dport 22 drop"},
        // protocols
        {Hook::xdp, "proto {udp, tcp} drop", "proto {tcp, udp} drop"},
        {Hook::xdp, "proto {0-5, 6, 58, 132, 7} drop", "proto {0-7, icmp6, sctp} drop"},
        {Hook::xdp, "proto icmpv6 drop", "proto icmp6 drop"},
        {Hook::xdp, "proto 47 drop", "proto gre drop"},
        {Hook::xdp, "proto not 0xff drop", "proto not 255 drop"},
        // flags
        {Hook::xdp, "flags syn drop", "flags syn drop"},
        {Hook::xdp, "flags syn/syn drop", "flags syn drop"},
        {Hook::xdp, "flags ack,syn drop", "flags syn,ack drop"},
        {Hook::xdp, "flags syn/ack,syn drop", "flags syn/syn,ack drop"},
        {Hook::xdp, "flags 0x02/0x12 drop", "flags syn/syn,ack drop"},
        {Hook::xdp, "flags 2/syn,16 drop", "flags syn/syn,ack drop"},
        {Hook::xdp, "flags none drop", "flags none drop"},
        {Hook::xdp, "flags none/all drop", "flags none drop"},
        {Hook::xdp, "flags none/syn drop", "flags none/syn drop"},
        {Hook::xdp, "flags not fin,psh,urg/all drop", "flags not fin,psh,urg/all drop"},
        {Hook::xdp, "flags 255 drop", "flags all drop"},
        // ICMP
        {Hook::xdp, "icmp-type 8 drop", "icmp-type 8 drop"},
        {Hook::xdp, "icmp-type echo-request proto icmp drop",
         "proto icmp icmp-type echo-request drop"},
        {Hook::xdp, "icmp-type 128 proto icmp6 drop", "proto icmp6 icmp-type echo-request drop"},
        {Hook::xdp, "icmp-type echo-request src ::1 drop", "src ::1 icmp-type 128 drop"},
        {Hook::xdp, "icmp-type echo-request ether-type ipv4 drop",
         "icmp-type 8 ether-type ipv4 drop"},
        {Hook::xdp, "icmp-type echo-request proto {tcp, icmp} drop",
         "proto {icmp, tcp} icmp-type 8 drop"},
        {Hook::xdp, "icmp-type {redirect, neighbour-solicitation} proto icmp6 drop",
         "proto icmp6 icmp-type {neighbor-solicitation, redirect} drop"},
        {Hook::xdp, "icmp-type 3 icmp-code port-unreachable proto icmp drop",
         "proto icmp icmp-type destination-unreachable icmp-code port-unreachable drop"},
        {Hook::xdp, "icmp-code port-unreachable icmp-type destination-unreachable proto icmp6 drop",
         "proto icmp6 icmp-type destination-unreachable icmp-code port-unreachable drop"},
        {Hook::xdp, "proto icmp icmp-code 3 drop", "proto icmp icmp-code 3 drop"},
        // VLAN, fragments, DSCP, length, Ethernet
        {Hook::xdp, "vlan none drop", "vlan none drop"},
        {Hook::xdp, "vlan not none drop", "vlan any drop"},
        {Hook::xdp, "vlan 0-4095 drop", "vlan any drop"},
        {Hook::xdp, "vlan {5, 4, 7-9} drop", "vlan {4-5, 7-9} drop"},
        {Hook::xdp, "vlan not 5 drop", "vlan not 5 drop"},
        {Hook::xdp, "frag {later, first} drop", "frag any drop"},
        {Hook::xdp, "frag {first, none} drop", "frag {none, first} drop"},
        {Hook::xdp, "frag {none, any} drop", "frag {none, first, later} drop"},
        {Hook::xdp, "frag {none, later} drop", "frag {none, later} drop"},
        {Hook::xdp, "frag not none drop", "frag not none drop"},
        {Hook::xdp, "frag tiny drop", "frag tiny drop"},
        {Hook::xdp, "frag {tiny, none, later} drop", "frag {none, tiny, later} drop"},
        {Hook::xdp, "frag {first, tiny} drop", "frag first drop"},
        {Hook::xdp, "dscp 46 drop", "dscp ef then drop"},
        {Hook::xdp, "dscp {be, 1-7, af43} drop", "dscp {0-7, af43} then drop"},
        {Hook::xdp, "proto {136, dccp} dport 80 drop", "proto {dccp, udplite} dport 80 drop"},
        {Hook::xdp, "ttl {1, 0, 255} drop", "ttl {0-1, 255} drop"},
        {Hook::xdp, "socket {related, listening, established} drop", "socket any drop"},
        {Hook::tc, "socket not none pass", "socket not none pass"},
        {Hook::xdp, "ct {untracked, related, established} ct-mark 16/0xff pass",
         "ct {established, related, untracked} ct-mark 0x10/0xff pass"},
        {Hook::tc, "ct not {invalid, new} pass", "ct not {new, invalid} pass"},
        {Hook::xdp, "proto icmp socket {none, related} drop",
         "proto icmp socket {none, related} drop"},
        {Hook::xdp, "len {64, 1500-9000} drop", "len {64, 1500-9000} drop"},
        {Hook::xdp, "len 0-4294967295 drop", "len 0-4294967295 drop"},
        {Hook::xdp, "ether-type {0x806, 34525, 0x1234} drop",
         "ether-type {arp, 0x1234, ipv6} drop"},
        {Hook::xdp, "ether-src AA:bb:0C:dd:ee:ff drop", "ether-src aa:bb:0c:dd:ee:ff drop"},
        {Hook::xdp, "ether-dst 01:00:5e:00:00:00-01:00:5e:7f:ff:ff drop",
         "ether-dst 01:00:5e:00:00:00-01:00:5e:7f:ff:ff drop"},
        // actions and modifiers
        {Hook::xdp, "redirect eth1", "redirect eth1"},
        {Hook::xdp, "redirect \"a,b\"", "redirect \"a,b\""},
        {Hook::xdp, "redirect drop", "redirect drop"},
        {Hook::xdp, "tx", "tx"},
        {Hook::xdp, "proto tcp dport 443 then syncookie", "proto tcp dport 443 syncookie"},
        {Hook::xdp, "pass limit 3/s", "pass limit 3/s burst 5"},
        {Hook::xdp, "pass limit 300/second", "pass limit 300/s burst 300"},
        {Hook::xdp, "pass limit 6000/minute", "pass limit 6000/min burst 100"},
        {Hook::xdp, "pass limit 1/day burst 1", "pass limit 1/day burst 1"},
        {Hook::xdp, "limit 5/hour per src burst 7 pass", "pass limit 5/hour burst 7 per src"},
        {Hook::xdp, "pass log limit 5/s", "pass limit 5/s burst 5 log"},
        {Hook::xdp, "limit 5/s per src over add @banned ttl 600s burst 9 pass",
         "pass limit 5/s burst 9 per src over add @banned ttl 10m"},
        {Hook::xdp, "pass limit 5/s per dst,dport over add @b-1 ttl 0 log ttl 64",
         "ttl 64 pass limit 5/s burst 5 per dst,dport over add @b-1 ttl 0 log"},
        {Hook::xdp, "flags syn/syn,ack limit 9/s over syncookie per src/64 pass",
         "flags syn/syn,ack pass limit 9/s burst 9 per src/64 over syncookie"},
        {Hook::xdp, "flags syn pass limit 64bit burst 1 per src over syncookie over add @b ttl 1m",
         "flags syn pass limit 64bit burst 1 per src over add @b ttl 1m over syncookie"},
        {Hook::tc, "pass limit 1mbit per src/64 over add @b ttl 48h",
         "pass limit 1mbit burst 128k per src/64 over add @b ttl 2d"},
        {Hook::xdp, R"(pass comment "a \"b\" \\ c")", R"(pass comment "a \"b\" \\ c")"},
        {Hook::xdp, "pass comment \"naïve – ✓\"", "pass comment \"naïve – ✓\""},
        {Hook::xdp, "pass comment drop", "pass comment \"drop\""},
        {Hook::xdp, "pass comment \"\"", "pass"},
        // tc
        {Hook::tc, "next", "next"},
        {Hook::tc, "redirect eth1", "redirect eth1"},
        {Hook::tc, "redirect eth1 egress", "redirect eth1"},
        {Hook::tc, "redirect eth1 ingress", "redirect eth1 ingress"},
        {Hook::tc, "redirect ingress ingress", "redirect ingress ingress"},
        {Hook::tc, "mirror eth1", "mirror eth1 pass"},
        {Hook::tc, "rate 1000000kbit", "rate 1gbit pass"},
        {Hook::tc, "rate 1500mbit burst 1536 drop", "rate 1500mbit burst 1536 drop"},
        {Hook::tc, "rate 8bit burst 64k next", "rate 8bit burst 64k next"},
        {Hook::tc, "rate 1tbit burst 1024k pass", "rate 1tbit burst 1m pass"},
        {Hook::tc, "rate 1mbit burst 2k limit 5/s burst 9 pass",
         "rate 1mbit burst 2k pass limit 5/s burst 9"},
        {Hook::tc, "priority 7", "set priority 7 pass"},
        {Hook::tc, "priority 1:10", "set priority 1:10 pass"},
        {Hook::tc, "priority 65552 pass", "set priority 1:10 pass"},
        {Hook::tc, "priority ffff:", "set priority ffff:0 pass"},
        {Hook::tc, "priority 0:a pass", "set priority 10 pass"},
        {Hook::tc, "rate 1mbit priority 3 mirror a next",
         "set priority 3 mirror a rate 1mbit next"},
        // key or action?
        {Hook::tc, "mark 5 drop", "mark 0x5 then drop"},
        {Hook::tc, "mark 5 pass", "mark 0x5 then pass"},
        {Hook::tc, "mark 5 then pass", "mark 0x5 then pass"},
        {Hook::tc, "then mark 5 pass", "set mark 0x5 pass"},
        {Hook::tc, "set mark 5 pass", "set mark 0x5 pass"},
        {Hook::tc, "set mark 5", "set mark 0x5 pass"},
        {Hook::tc, "dport 80 mark 7 set mark 5/7 set dscp ef set priority 6 next",
         "dport 80 mark 0x7 set mark 0x5/0x7 set priority 6 set dscp ef next"},
        {Hook::tc, "mark 5 rate 1mbit pass", "mark 0x5 then rate 1mbit pass"},
        {Hook::tc, "mark 5", "set mark 0x5 pass"},
        {Hook::tc, "dport 80 mark 0x7/0xf log", "dport 80 set mark 0x7/0xf pass log"},
        {Hook::tc, "dport 80 dscp ef", "dport 80 set dscp ef pass"},
        {Hook::tc, "mark 5 mark 7", "mark 0x5 set mark 0x7 pass"},
        {Hook::tc, "mark 5 mark 7 dscp 1 drop", "mark 0x5 set mark 0x7 set dscp le drop"},
        {Hook::tc, "priority 3 mark 7 next", "set mark 0x7 set priority 3 next"},
        {Hook::tc, "mark not 0/1 drop", "mark not 0x0/0x1 then drop"},
        {Hook::tc, "dscp {ef, cs1} mark 1 pass", "dscp {cs1, ef} mark 0x1 then pass"},
        {Hook::tc, "dport 80 mark 7 src 10.0.0.0/8 dscp ef then mark 1",
         "src 10.0.0.0/8 dport 80 dscp ef mark 0x7 set mark 0x1 pass"},
        // policy
        {Hook::policy, "dst 169.254.169.254 uid not 0 deny", "dst 169.254.169.254 uid not 0 deny"},
        {Hook::policy, "uid root allow", "uid 0 allow"},
        {Hook::policy, "gid {root, 5-9} allow", "gid {0, 5-9} allow"},
        {Hook::policy, "cgroup /a//b/ deny", "cgroup /a/b deny"},
        {Hook::policy, "cgroup / deny", "cgroup / deny"},
        {Hook::policy, "exe \"/opt/my app/x\" audit log", "exe \"/opt/my app/x\" audit log"},
        {Hook::policy, "exe not /bin/sh deny", "exe not /bin/sh deny"},
        {Hook::policy, "allow limit 5/min", "allow limit 5/min burst 5"},
    };
    for (const Spelling& spelling : spellings) {
        EXPECT_EQ(canonical(spelling.text, spelling.hook), spelling.canonical) << spelling.text;
        EXPECT_EQ(canonical(spelling.canonical, spelling.hook), spelling.canonical);
    }
}

TEST(Rule, HoldsWhatTheTextSays) {
    const Rule rule =
        parsed("proto tcp flags syn/syn,ack src not {10.0.0.0/8, ::1} dport {80, 90-99} "
               "vlan none log redirect eth0 comment \"hi\" limit 9/min burst 3 per src");
    ASSERT_EQ(rule.matches.size(), 5u);
    const Match* src = rule.find(Key::src);
    ASSERT_NE(src, nullptr);
    EXPECT_TRUE(src->negated);
    EXPECT_EQ(src->prefixes,
              (std::vector<Prefix>{*Prefix::parse("10.0.0.0/8"), *Prefix::parse("::1")}));
    EXPECT_EQ(rule.find(Key::dport)->ranges, (std::vector<Range>{{80, 80}, {90, 99}}));
    EXPECT_EQ(rule.find(Key::proto)->ranges, (std::vector<Range>{{6, 6}}));
    EXPECT_EQ(rule.find(Key::flags)->masked, (Masked{0x02, 0x12}));
    EXPECT_TRUE(rule.find(Key::vlan)->absent);
    EXPECT_TRUE(rule.find(Key::vlan)->ranges.empty());
    EXPECT_EQ(rule.find(Key::dst), nullptr);
    ASSERT_EQ(rule.actions.size(), 1u);
    EXPECT_EQ(rule.actions[0].kind, ActionKind::redirect);
    EXPECT_EQ(rule.actions[0].device, "eth0");
    ASSERT_TRUE(rule.limit);
    EXPECT_EQ(rule.limit->count, 9u);
    EXPECT_EQ(rule.limit->period_ns, 60'000'000'000u);
    EXPECT_EQ(rule.limit->burst, 3u);
    EXPECT_EQ(rule.limit->per.of, Accounts::Of::src);
    EXPECT_TRUE(rule.log);
    EXPECT_EQ(rule.comment, "hi");
    EXPECT_EQ(rule.id, 0u);

    const Rule shaped = parsed("dst @x then mark 1/3 priority a:b dscp af11 rate 2mbit burst 3k "
                               "mirror m redirect r ingress",
                               Hook::tc);
    ASSERT_EQ(shaped.actions.size(), 6u);
    EXPECT_EQ(shaped.find(Key::dst)->set, "x");
    EXPECT_EQ(shaped.actions[0].kind, ActionKind::mark);
    EXPECT_EQ(shaped.actions[0].number, 1u);
    EXPECT_EQ(shaped.actions[0].mask, 3u);
    EXPECT_EQ(shaped.actions[1].number, 0xa000bu);
    EXPECT_EQ(shaped.actions[2].number, 10u);
    EXPECT_EQ(shaped.actions[3].device, "m");
    EXPECT_EQ(shaped.actions[4].kind, ActionKind::rate);
    EXPECT_EQ(shaped.actions[4].number, 2'000'000u);
    EXPECT_EQ(shaped.actions[4].burst, 3072u);
    EXPECT_TRUE(shaped.actions[5].to_ingress);

    const Match mac = parsed("ether-src 02:00:00:00:00:01 drop").matches[0];
    EXPECT_EQ(mac.ranges, (std::vector<Range>{{0x020000000001, 0x020000000001}}));
    EXPECT_EQ(parsed("frag any drop").matches[0].ranges, (std::vector<Range>{{1, 3}}));
    EXPECT_EQ(parsed("vlan any drop").matches[0].ranges, (std::vector<Range>{{0, 4095}}));
}

TEST(Rule, WholeListsOfPrefixesStayMinimal) {
    std::string text = "src {";
    for (int i = 255; i >= 0; i--)
        text += fmt::format("10.{}.0.0/16, 10.{}.7.0/24 ", i, i);
    const Rule rule = parsed(text + "} drop");
    ASSERT_EQ(rule.matches.size(), 1u);
    EXPECT_EQ(rule.matches[0].prefixes.size(), 256u);
    EXPECT_TRUE(std::is_sorted(rule.matches[0].prefixes.begin(), rule.matches[0].prefixes.end()));
}

TEST(Rule, IsReadForItsKeysAlone) {
    const auto keys = [](const char* text, Hook hook) {
        const auto rule = parse_filter(text, hook);
        return rule ? to_string(*rule) : rule.error().what.string();
    };
    EXPECT_EQ(keys("", Hook::xdp), "");
    EXPECT_EQ(keys("dport 80 proto tcp", Hook::xdp), "proto tcp dport 80");
    EXPECT_EQ(keys("src @bad drop log comment \"x\"", Hook::xdp), "src @bad");
    EXPECT_EQ(keys("src @bad pass limit 9/s", Hook::tc), "src @bad");
    // At the end of a rule of tc these would be what is set.
    EXPECT_EQ(keys("proto tcp mark 7", Hook::tc), "proto tcp mark 0x7");
    EXPECT_EQ(keys("proto tcp set mark 7", Hook::tc), "proto tcp");
    for (const char* const wrong : {"dprot 80", "dport 80 then", "dport 99999", "uid 7"}) {
        const auto rule = parse_filter(wrong, Hook::tc);
        EXPECT_FALSE(rule) << wrong;
    }
}

// ---- errors ----

TEST(RuleError, ShowsPlaceFindingAndWhatIsAllowed) {
    const Result<Rule> key = parse_rule("src 10.0.0.0/8 dprot 80 drop", Hook::xdp);
    ASSERT_FALSE(key);
    EXPECT_EQ(key.error().kind, ErrorKind::usage);
    EXPECT_EQ(key.error().what,
              "'dprot' is neither a key nor an action of xdp; did you mean 'dport'?\n"
              "  src 10.0.0.0/8 dprot 80 drop\n"
              "                 ^~~~~\n"
              "keys of xdp: src dst sport dport proto flags icmp-type icmp-code vlan frag dscp len "
              "ether-type ether-src ether-dst ttl socket ct ct-mark\n"
              "actions of xdp: pass drop reject tx redirect syncookie\n"
              "modifiers: limit log comment");
    EXPECT_EQ(key.error().hint, "");

    const Result<Rule> hook = parse_rule("uid 0 drop", Hook::tc);
    ASSERT_FALSE(hook);
    EXPECT_EQ(
        hook.error().what,
        "tc has no key 'uid'; only policy has it\n"
        "  uid 0 drop\n"
        "  ^~~\n"
        "keys of tc: src dst sport dport proto flags icmp-type icmp-code vlan frag dscp len "
        "ether-type ether-src ether-dst mark ttl socket ct ct-mark\n"
        "actions of tc: pass drop reject redirect next set mark set priority set dscp mirror rate\n"
        "modifiers: limit log comment");

    const Result<Rule> prefix = parse_rule("src 10.0.0.1/8 drop", Hook::xdp);
    ASSERT_FALSE(prefix);
    EXPECT_EQ(prefix.error().what,
              "'10.0.0.1/8' has bits set behind its /8\n"
              "  src 10.0.0.1/8 drop\n"
              "      ^~~~~~~~~~\n"
              "allowed for src: ADDRESS, ADDRESS/LENGTH, a list {A, B}, or @SET; 'not' before it "
              "negates");
    EXPECT_EQ(prefix.error().hint, "the network is 10.0.0.0/8, the address alone is 10.0.0.1");

    const Result<Rule> end = parse_rule("src 10.0.0.0/8", Hook::policy);
    ASSERT_FALSE(end);
    const Result<Rule> none = parse_rule("dst 10.0.0.0/8", Hook::policy);
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().what, "the rule has no action\n"
                                 "  dst 10.0.0.0/8\n"
                                 "                ^\n"
                                 "actions of policy: allow deny audit");

    const Result<Rule> limit = parse_rule("src @a drop limit 10/s per src", Hook::xdp);
    ASSERT_FALSE(limit);
    EXPECT_EQ(limit.error().what, "'limit' on a rule that ends in 'drop'\n"
                                  "  src @a drop limit 10/s per src\n"
                                  "              ^~~~~~~~~~~~~~~~~~\n"
                                  "a limit drops what exceeds it");
    EXPECT_EQ(limit.error().hint,
              "to drop only what exceeds a rate write: pass limit 10/s per src");
}

struct Wrong {
    Hook hook;
    const char* text;
    const char* complaint; ///< first line, and the marked part of the text
};

TEST(RuleError, PointsAtTheFirstThingThatIsWrong) {
    const Wrong wrongs[] = {
        {Hook::xdp, "", "the rule has no action []"},
        {Hook::xdp, "# drop", "the rule has no action []"},
        {Hook::xdp, "accept", "'accept' is neither a key nor an action of xdp [accept]"},
        {Hook::xdp, "allow", "xdp has no action 'allow'; only policy and redirect have it [allow]"},
        {Hook::policy, "drop", "policy has no action 'drop'; only xdp and tc have it [drop]"},
        {Hook::xdp, "mark 5 drop", "xdp has no key 'mark'; only tc has it [mark]"},
        {Hook::tc, "tx", "tc has no action 'tx'; only xdp has it [tx]"},
        {Hook::tc, "dport 1 syncookie",
         "tc has no action 'syncookie'; only xdp has it [syncookie]"},
        {Hook::policy, "src 192.0.2.1 deny",
         "policy has no key 'src'; only xdp and tc have it [src]"},
        {Hook::xdp, "drop pass", "'pass' behind 'drop', which ends the actions [pass]"},
        {Hook::tc, "drop mark 1", "'mark' behind 'drop', which ends the actions [mark]"},
        {Hook::tc, "mirror a mirror b", "the action 'mirror' is given twice [mirror]"},
        {Hook::tc, "mark 5 mark 7 dscp 1 dscp 2", "the action 'dscp' is given twice [dscp]"},
        {Hook::xdp, "then then drop", "'then' is given twice [then]"},
        {Hook::xdp, "drop then", "'then' comes before the first action [then]"},
        {Hook::xdp, "then", "an action is missing behind 'then' []"},
        {Hook::tc, "mark 5 then", "an action is missing behind 'then' []"},
        {Hook::xdp, "then src 192.0.2.1 drop", "the key 'src' behind 'then' [src]"},
        {Hook::tc, "mark 7 dscp ef", "'mark' may be a key or an action here [mark 7 dscp ef]"},
        {Hook::tc, "mark {1} ", "'mark' takes no list [{1}]"},
        {Hook::tc, "dscp {1, 2}", "the rule has no action []"},
        {Hook::tc, "mark not 5", "the rule has no action []"},
        {Hook::tc, "mark 5 dport 80", "the rule has no action []"},
        {Hook::xdp, "not src 192.0.2.1 drop",
         "'not' stands where a key or an action is expected [not]"},
        {Hook::xdp, "\"drop\"",
         "a quoted text stands where a key or an action is expected "
         "[\"drop\"]"},
        {Hook::xdp, "drop }", "'}' stands where a key or an action is expected [}]"},
        {Hook::xdp, "{drop}", "'{' stands where a key or an action is expected [{]"},
        // values
        {Hook::xdp, "src", "'src' needs a value, but here is the end of the rule []"},
        {Hook::xdp, "src }", "'src' needs a value, but here is '}' [}]"},
        {Hook::xdp, "src not", "'src' needs a value, but here is the end of the rule []"},
        {Hook::xdp, "src not not 192.0.2.1 drop", "'not' is given twice [not]"},
        {Hook::xdp, "src !192.0.2.1 drop",
         "'src' needs a value, but here is '!192.0.2.1' "
         "[!192.0.2.1]"},
        {Hook::xdp, "src drop", "'drop' is not an IPv4 or IPv6 address [drop]"},
        {Hook::xdp, "src 192.0.2.256 drop",
         "'192.0.2.256' is not an IPv4 or IPv6 address "
         "[192.0.2.256]"},
        {Hook::xdp, "src 10.0.0.0/33 drop",
         "'33' is not a prefix length; 0 to 32 is allowed [10.0.0.0/33]"},
        {Hook::xdp, "src 192.0.2.1,192.0.2.2 drop",
         "'192.0.2.1,192.0.2.2' is not an IPv4 or IPv6 address [192.0.2.1,192.0.2.2]"},
        {Hook::xdp, "src 192.0.2.1 192.0.2.2 drop",
         "'192.0.2.2' is neither a key nor an action of xdp [192.0.2.2]"},
        {Hook::xdp, "src {192.0.2.1 drop", "this list is not closed [{]"},
        {Hook::xdp, "src {192.0.2.1 {", "a list within a list [{]"},
        {Hook::xdp, "src { , } drop", "an empty list matches nothing [{ , }]"},
        {Hook::xdp, "src {192.0.2.1, not 192.0.2.2} drop", "'not' within a list [not]"},
        {Hook::xdp, "src {@a, 192.0.2.2} drop", "a set within a list [@a]"},
        {Hook::xdp, "src @ drop", "'@' is no name of a set [@]"},
        {Hook::xdp, "src @a.b drop", "'@a.b' is no name of a set [@a.b]"},
        {Hook::xdp, "src \"@a\" drop", "'@a' is not an IPv4 or IPv6 address [\"@a\"]"},
        {Hook::xdp, "proto @a drop", "'proto' takes no set [@a]"},
        {Hook::xdp, "src 192.0.2.1 src 192.0.2.2 drop", "'src' is given twice [src]"},
        {Hook::xdp, "dport 65536 drop", "65536 is too large for 'dport' [65536]"},
        {Hook::xdp, "dport 1-99999 drop", "99999 is too large for 'dport' [1-99999]"},
        {Hook::xdp, "dport 99999999999999999999 drop",
         "'99999999999999999999' is not a value of 'dport' [99999999999999999999]"},
        {Hook::xdp, "dport 20-10 drop", "the range '20-10' runs backwards [20-10]"},
        {Hook::xdp, "dport -5 drop", "'-5' is not a value of 'dport' [-5]"},
        {Hook::xdp, "dport 5- drop", "'5-' is not a value of 'dport' [5-]"},
        {Hook::xdp, "dport 1-2-3 drop", "'1-2-3' is not a value of 'dport' [1-2-3]"},
        {Hook::xdp, "dport 0x drop", "'0x' is not a value of 'dport' [0x]"},
        {Hook::xdp, "dport htpp drop",
         "'htpp' is not a value of 'dport'; did you mean 'http'? [htpp]"},
        {Hook::xdp, "proto tpc drop", "'tpc' is not a value of 'proto'; did you mean 'tcp'? [tpc]"},
        {Hook::xdp, "proto 256 drop", "256 is too large for 'proto' [256]"},
        {Hook::xdp, "flags syn/ack drop",
         "this can never match: the value has flags outside of its mask [syn/ack]"},
        {Hook::xdp, "flags sin drop", "'sin' is no TCP flag; did you mean 'fin'? [sin]"},
        {Hook::xdp, "flags syn,akc/all drop", "'akc' is no TCP flag; did you mean 'ack'? [akc]"},
        {Hook::xdp, "flags syn/ drop", "'' is no TCP flag [ ]"},
        {Hook::xdp, "flags syn,/all drop", "'' is no TCP flag [/]"},
        {Hook::xdp, "flags 256 drop", "'256' is no TCP flag [256]"},
        {Hook::xdp, "flags none/none drop",
         "a mask without flags looks at none of them [none/none]"},
        {Hook::xdp, "flags {syn, ack} drop", "'flags' takes no list [{syn, ack}]"},
        {Hook::xdp, "vlan {none, 5} drop", "'none' within a list [none]"},
        {Hook::xdp, "vlan 4096 drop", "4096 is too large for 'vlan' [4096]"},
        {Hook::xdp, "frag 1 drop", "'1' is not a value of 'frag' [1]"},
        {Hook::xdp, "frag latter drop",
         "'latter' is not a value of 'frag'; did you mean 'later'? [latter]"},
        {Hook::xdp, "dscp 64 drop", "64 is too large for 'dscp' [64]"},
        {Hook::xdp, "ether-src 2:0:0:0:0:1 drop",
         "'2:0:0:0:0:1' is not a value of 'ether-src' [2:0:0:0:0:1]"},
        {Hook::xdp, "ether-src 02:00:00:00:00:0g drop",
         "'02:00:00:00:00:0g' is not a value of 'ether-src' [02:00:00:00:00:0g]"},
        {Hook::tc, "mark 5/0 drop", "a mask of 0 selects no bit [5/0]"},
        {Hook::tc, "mark 5/3 drop", "the value has bits outside of its mask [5/3]"},
        {Hook::tc, "mark 0x100000000 drop", "'0x100000000' is no mark [0x100000000]"},
        {Hook::policy, "uid no-such-user deny", "there is no user 'no-such-user' [no-such-user]"},
        {Hook::policy, "gid no-such-group deny",
         "there is no group 'no-such-group' [no-such-group]"},
        {Hook::policy, "uid 4294967295 deny", "4294967295 is too large for 'uid' [4294967295]"},
        {Hook::policy, "exe curl deny", "'curl' is no absolute path [curl]"},
        {Hook::policy, "exe /a/../b deny", "'..' within a path [/a/../b]"},
        {Hook::policy, "dst ::ffff:192.0.2.0/120 deny",
         "this can never match: policy sees IPv4-mapped addresses as IPv4 [::ffff:192.0.2.0/120]"},
        {Hook::policy, "dst {192.0.2.1, 0.0.0.0} deny",
         "this can never match: policy sees 0.0.0.0 as what it leads to, this host [0.0.0.0]"},
        {Hook::policy, "dst not :: deny",
         "this can never match: policy sees :: as what it leads to, this host [::]"},
        // arguments of actions and modifiers
        {Hook::xdp, "redirect", "'redirect' needs an argument, but here is the end of the rule []"},
        {Hook::xdp, "redirect eth1 ingress",
         "'ingress' is neither a key nor an action of xdp [ingress]"},
        {Hook::xdp, "redirect a/b", "'a/b' cannot be an interface [a/b]"},
        {Hook::xdp, "redirect sixteen-letters-",
         "'sixteen-letters-' cannot be an interface "
         "[sixteen-letters-]"},
        {Hook::tc, "then mark x", "'x' is no mark [x]"},
        {Hook::tc, "priority 1:2:3", "'1:2:3' is no priority [1:2:3]"},
        {Hook::tc, "priority 10000:1", "'10000:1' is no priority [10000:1]"},
        {Hook::tc, "then dscp ff", "'ff' is no DSCP; did you mean 'ef'? [ff]"},
        {Hook::tc, "then dscp 64", "'64' is no DSCP [64]"},
        {Hook::tc, "rate 100", "'100' is no rate [100]"},
        {Hook::tc, "rate 0mbit", "'0mbit' is no rate [0mbit]"},
        {Hook::tc, "rate 99999999999999tbit",
         "'99999999999999tbit' is no rate "
         "[99999999999999tbit]"},
        {Hook::tc, "rate 1mbit burst x", "'x' is no size of a burst [x]"},
        {Hook::xdp, "pass log log", "'log' is given twice [log]"},
        {Hook::xdp, "pass comment a comment b", "'comment' is given twice [comment]"},
        {Hook::xdp, "pass comment", "'comment' needs a text, but here is the end of the rule []"},
        {Hook::xdp, "pass limit", "'limit' needs a rate, but here is the end of the rule []"},
        {Hook::xdp, "pass limit 5", "'5' is no rate of packets [5]"},
        {Hook::xdp, "pass limit 5/fortnight", "'5/fortnight' is no rate of packets [5/fortnight]"},
        {Hook::xdp, "pass limit 0/s", "a rate of 0 [0/s]"},
        {Hook::xdp, "pass limit 1000000001/s", "a rate of 1000000001 [1000000001/s]"},
        {Hook::xdp, "pass limit 5/s burst 0", "'0' is no burst [0]"},
        {Hook::xdp, "pass limit 5/s burst", "the end of the rule is no burst []"},
        {Hook::xdp, "pass limit 1/day burst 36501",
         "at this rate the burst would take more than 100 years [36501]"},
        {Hook::xdp, "pass limit 5/s per port", "'per' is followed by 'port' [port]"},
        {Hook::policy, "allow limit 5/s per src", "policy has no limit 'per src' [per src]"},
        {Hook::policy, "allow limit 5/s over add @a ttl 1m",
         "policy has no limit with 'over' [over]"},
        {Hook::xdp, "pass limit 5/s over add @a ttl 1m",
         "'over add' without an account that is over the limit [over]"},
        {Hook::xdp, "pass limit 5/s per src over @a",
         "'over' is followed by 'add' or 'syncookie', but here is '@a' [@a]"},
        {Hook::tc, "pass limit 5/s per src over @a",
         "'over' is followed by 'add', but here is '@a' [@a]"},
        {Hook::policy, "allow limit 5/s over syncookie", "policy has no limit with 'over' [over]"},
        {Hook::tc, "flags syn pass limit 5/s over syncookie",
         "tc has no 'over syncookie'; only xdp has it [syncookie]"},
        {Hook::xdp, "pass limit 5/s over syncookie",
         "'over syncookie' on a rule that is not of SYNs [limit 5/s over syncookie]"},
        {Hook::xdp, "flags ack/syn,ack pass limit 5/s over syncookie",
         "'over syncookie' on a rule that is not of SYNs [limit 5/s over syncookie]"},
        {Hook::xdp, "flags not syn pass limit 5/s over syncookie",
         "'over syncookie' on a rule that is not of SYNs [limit 5/s over syncookie]"},
        {Hook::xdp, "flags syn syncookie limit 5/s over syncookie",
         "'over syncookie' on a rule that ends in 'syncookie' [limit 5/s over syncookie]"},
        {Hook::xdp, "flags syn pass limit 5/s over syncookie per src over syncookie",
         "'over syncookie' is given twice [over syncookie]"},
        {Hook::xdp, "pass limit 5/s per src over add @a ttl 0 over add @b ttl 0",
         "'over add' is given twice [over add]"},
        {Hook::xdp, "pass limit 5/s per src over add",
         "'over add' needs a set, but here is the "
         "end of the rule []"},
        {Hook::xdp, "pass limit 5/s per src over add banned ttl 1m",
         "'over add' needs a set, but here is 'banned' [banned]"},
        {Hook::xdp, "pass limit 5/s per src over add @a/b ttl 1m",
         "'@a/b' is no name of a set [@a/b]"},
        {Hook::xdp, "pass limit 5/s per src over add @a log",
         "the time to live in the set is missing, but here is 'log' [log]"},
        {Hook::xdp, "pass limit 5/s per src over add @a ttl 10", "'10' is no time to live [10]"},
        {Hook::xdp, "pass limit 5/s per src over add @a ttl -1", "'-1' is no time to live [-1]"},
        {Hook::xdp, "pass limit 5/s per src over add @a ttl 0s", "'0s' is no time to live [0s]"},
        {Hook::xdp, "pass limit 5/s per src over add @a ttl 36501d",
         "'36501d' is no time to live [36501d]"},
        {Hook::xdp, "pass limit 5/s per src over add @a ttl",
         "the end of the rule is no time to "
         "live []"},
        {Hook::policy, "deny limit 5/s", "'limit' on a rule that ends in 'deny' [limit 5/s]"},
        {Hook::policy, "audit limit 5/s", "'limit' on a rule that ends in 'audit' [limit 5/s]"},
        // the lexer
        {Hook::xdp, "pass comment \"x", "this quote is not closed [\"]"},
        {Hook::xdp, "pass comment \"x\"y", "a blank is missing behind the closing quote [y]"},
        {Hook::xdp, "pass comment x\"y\"", "a quote within a word [\"]"},
        {Hook::xdp, "pass comment \"\\n\"", "unknown escape in a quoted text [\\n]"},
        {Hook::xdp, "pass comment \"\\x0\"", "unknown escape in a quoted text [\\x0\"]"},
        {Hook::xdp, "pass comment \"\\x00\"", "unknown escape in a quoted text [\\x00]"},
        {Hook::xdp, "pass comment \"\\xg1\"", "unknown escape in a quoted text [\\xg1]"},
        {Hook::xdp, "pass comment \"a\tb\"",
         "a quoted text cannot hold a tab or the end of a line [ ]"},
        {Hook::xdp, "pass \x1b[1m", "a rule cannot hold the control character 0x1b [?]"},
        {Hook::xdp, "pass comment \"\xc2\x9b\"",
         "a rule cannot hold the control character 0xc2 [?]"},
        {Hook::xdp, "pass \xff", "byte 0xff is no UTF-8 text [?]"},
        {Hook::xdp, "pass \xed\xa0\x80", "byte 0xed is no UTF-8 text [?]"},
        {Hook::xdp, "pass \xc0\xaf", "byte 0xc0 is no UTF-8 text [?]"},
        {Hook::xdp, "pass \xe2\x82", "byte 0xe2 is no UTF-8 text [?]"},
        // of two errors, the one further left
        {Hook::xdp, "src nonsense bogus", "'nonsense' is not an IPv4 or IPv6 address [nonsense]"},
        {Hook::xdp, "icmp-type echo-request prto icmp drop",
         "'prto' is neither a key nor an action of xdp; did you mean 'proto'? [prto]"},
    };
    for (const Wrong& wrong : wrongs)
        EXPECT_EQ(complaint(wrong.text, wrong.hook), wrong.complaint) << wrong.text;
}

TEST(RuleError, SaysWhatWordsOfOtherToolsAreHere) {
    const struct {
        Hook hook;
        const char* text;
        const char* hint;
    } rows[] = {
        {Hook::xdp, "dport 80:90 drop", "a range is written 80-90"},
        {Hook::xdp, "tcp dport 80 drop", "the protocol is a key of its own: proto tcp dport …"},
        {Hook::xdp, "icmp drop", "the protocol is a key of its own: proto icmp"},
        {Hook::xdp, "ip saddr 192.0.2.1 drop",
         "'ip saddr' is 'src': addresses tell their IP version"},
        {Hook::tc, "ip6 daddr ::1 drop", "'ip6 daddr' is 'dst': addresses tell their IP version"},
        {Hook::xdp, "-s 192.0.2.1 drop", "xdp calls it 'src'"},
        {Hook::policy, "-d 192.0.2.1 deny", "policy calls it 'dst'"},
        {Hook::xdp, "dport 80 -j drop", "an action stands alone, without '-j'"},
        {Hook::xdp, "-i eth0 drop", "rules belong to the interface that they are added to"},
        {Hook::xdp, "state established pass",
         "what this host has a connection or a listener for is 'socket established' and 'socket "
         "listening'; the first packet of a TCP connection is 'flags syn/syn,ack'; what connection "
         "tracking knows is 'ct established'"},
        {Hook::xdp, "reject with tcp-reset",
         "leave it out: the protocol tells the answer, a reset for TCP and port unreachable for "
         "all "
         "else"},
        {Hook::tc, "set makr 5", ""},
    };
    for (const auto& row : rows) {
        const Result<Rule> rule = parse_rule(row.text, row.hook);
        ASSERT_FALSE(rule) << row.text;
        EXPECT_EQ(rule.error().hint, row.hint) << row.text;
    }
    EXPECT_EQ(canonical("set makr 5", Hook::tc),
              "error: 'set' is followed by 'makr'; did you mean 'mark'?\n"
              "  set makr 5\n"
              "      ^~~~\n"
              "allowed: set mark|priority|dscp");
}

TEST(Rule, SaysWhatMayNotBeMeant) {
    const struct {
        Hook hook;
        const char* text;
        const char* note;
    } rows[] = {
        {Hook::tc, "dport 80 mark 7 pass",
         "'mark 7' is a condition here: it matches packets that have it; to set it write 'set mark "
         "7'"},
        {Hook::xdp, "src 2001:db8::/32 proto icmp drop",
         "'icmp' is of IPv4 and the addresses are of IPv6: its ICMP is 'proto icmp6'"},
        {Hook::policy, "dst 192.0.2.1 proto icmp6 deny",
         "'icmp6' is of IPv6 and the addresses are of IPv4: its ICMP is 'proto icmp'"},
        {Hook::tc, "dport 80 mark 7 then pass", nullptr},
        {Hook::tc, "dport 80 mark 7 set dscp ef", nullptr},
        {Hook::tc, "dport 80 mark 7", nullptr},
        {Hook::tc, "mark 5 mark 7", nullptr},
        {Hook::xdp, "dscp ef drop", nullptr},
        {Hook::xdp, "src 192.0.2.1 proto icmp drop", nullptr},
        {Hook::xdp, "proto icmp drop", nullptr},
    };
    for (const auto& row : rows) {
        std::vector<std::string> notes;
        ASSERT_TRUE(parse_rule(row.text, row.hook, &notes)) << row.text;
        EXPECT_EQ(notes, row.note ? std::vector<std::string>{row.note} : std::vector<std::string>{})
            << row.text;
    }
}

TEST(RuleError, RefusesWhatCanNeverMatch) {
    const Wrong wrongs[] = {
        {Hook::xdp, "src 192.0.2.1 dst ::1 drop",
         "this rule can never match: src and dst are of different IP versions [dst ::1]"},
        {Hook::xdp, "src not 192.0.2.1 dst not ::1 drop",
         "this rule can never match: src and dst are of different IP versions [dst not ::1]"},
        {Hook::xdp, "proto icmp dport 80 drop",
         "this rule can never match: only tcp, udp, sctp, dccp and udplite have ports, and "
         "'proto icmp' leaves none of them [dport 80]"},
        {Hook::policy, "proto not {tcp, udp, sctp, 33, 136} dport 80 deny",
         "this rule can never match: only tcp, udp, sctp, dccp and udplite have ports, and "
         "'proto not {tcp, udp, sctp, 33, 136}' leaves none of them [dport 80]"},
        {Hook::xdp, "proto udp flags syn drop",
         "this rule can never match: only tcp has flags, and 'proto udp' leaves it out "
         "[flags syn]"},
        {Hook::xdp, "proto tcp icmp-type 8 drop",
         "this rule can never match: only icmp and icmp6 have 'icmp-type', and 'proto tcp' leaves "
         "none of them [icmp-type 8]"},
        {Hook::xdp, "proto tcp icmp-type echo-request drop",
         "this rule can never match: only icmp and icmp6 have 'icmp-type', and 'proto tcp' leaves "
         "none of them [icmp-type echo-request]"},
        {Hook::xdp, "proto icmp src ::1 icmp-type echo-request drop",
         "this rule can never match: icmp is of IPv4 and icmp6 of IPv6, and the addresses are not "
         "[proto icmp]"},
        {Hook::xdp, "icmp-type 8 dport 80 drop",
         "this rule can never match: no packet has both 'dport' and 'icmp-type' [icmp-type 8]"},
        {Hook::xdp, "icmp-code 8 flags syn drop",
         "this rule can never match: no packet has both 'flags' and 'icmp-code' [icmp-code 8]"},
        {Hook::xdp, "frag later socket established drop",
         "this rule can never match: a later fragment has no ports to find a socket by "
         "[socket established]"},
        {Hook::xdp, "proto sctp socket any drop",
         "this rule can never match: only tcp and udp are 'established' or 'listening', and only "
         "icmp "
         "and icmp6 'related' [socket any]"},
        {Hook::xdp, "dport 80 socket related drop",
         "this rule can never match: only tcp and udp are 'established' or 'listening', and only "
         "icmp "
         "and icmp6 'related' [socket related]"},
        {Hook::xdp, "icmp-type 3 socket listening drop",
         "this rule can never match: only tcp and udp are 'established' or 'listening', and only "
         "icmp "
         "and icmp6 'related' [socket listening]"},
        {Hook::xdp, "frag tiny flags syn drop",
         "this rule can never match: a tiny or later fragment has no 'flags' [flags syn]"},
        {Hook::xdp, "frag later sport 80 drop",
         "this rule can never match: a later fragment has no 'sport' [sport 80]"},
        {Hook::xdp, "frag not {none, first} flags syn drop",
         "this rule can never match: a later fragment has no 'flags' [flags syn]"},
        {Hook::xdp, "ether-type arp src 192.0.2.1 drop",
         "this rule can never match: 'ether-type arp' leaves no IP packet that has 'src' "
         "[src 192.0.2.1]"},
        {Hook::xdp, "ether-type ipv6 src 192.0.2.1 drop",
         "this rule can never match: 'ether-type ipv6' leaves no IP packet that has 'src' "
         "[src 192.0.2.1]"},
        {Hook::xdp, "ether-type arp dscp ef drop",
         "this rule can never match: 'ether-type arp' leaves no IP packet that has 'dscp' "
         "[dscp ef]"},
        {Hook::xdp, "src not 0.0.0.0/0 drop",
         "this can never match: it excludes every value [src not 0.0.0.0/0]"},
        {Hook::xdp, "dport not 0-65535 drop",
         "this can never match: it excludes every value [dport not 0-65535]"},
        {Hook::xdp, "vlan not any drop",
         "this can never match: it excludes every value [vlan not any]"},
        {Hook::xdp, "frag not {any, none} drop",
         "this can never match: it excludes every value [frag not {any, none}]"},
    };
    for (const Wrong& wrong : wrongs)
        EXPECT_EQ(complaint(wrong.text, wrong.hook), wrong.complaint) << wrong.text;

    for (const char* good :
         {"src {192.0.2.1, ::1} dst ::1 drop", "proto {icmp, tcp} dport 80 drop",
          "proto not icmp dport 80 drop", "frag any dport 80 drop", "flags syn dport 80 drop",
          "src @a dst ::1 drop", "ether-type {arp, ipv6} src ::1 drop", "proto icmp src ::1 drop",
          "ether-type not ipv4 src ::1 drop", "src not {0.0.0.0/0, ::1} drop",
          "proto {icmp, icmp6} src ::1 icmp-type 1 drop"})
        EXPECT_TRUE(parse_rule(good, Hook::xdp)) << canonical(good);
}

TEST(RuleError, IcmpNamesNeedTheirProtocol) {
    EXPECT_EQ(complaint("icmp-type echo-request drop"),
              "'echo-request' is 8 in icmp and 128 in icmp6, and the rule does not say which "
              "[echo-request]");
    EXPECT_EQ(complaint("proto {icmp, icmp6} icmp-type echo-request drop"),
              "'echo-request' is 8 in icmp and 128 in icmp6, and the rule does not say which "
              "[echo-request]");
    EXPECT_EQ(complaint("icmp-type packet-too-big drop"),
              "'packet-too-big' is 2 in icmp6, and the rule does not say which [packet-too-big]");
    EXPECT_EQ(complaint("proto icmp icmp-type packet-too-big drop"),
              "'packet-too-big' does not exist in icmp [packet-too-big]");
    EXPECT_EQ(complaint("proto icmp icmp-type echo-rekwest drop"),
              "'echo-rekwest' is not a value of 'icmp-type'; did you mean 'echo-request'? "
              "[echo-rekwest]");
    EXPECT_EQ(complaint("proto icmp icmp-code port-unreachable drop"),
              "'port-unreachable' is a code of the type 'destination-unreachable', which this rule "
              "does not name [port-unreachable]");
    EXPECT_EQ(complaint("proto icmp icmp-type 8 icmp-code port-unreachable drop"),
              "'port-unreachable' is a code of the type 'destination-unreachable', which this rule "
              "does not name [port-unreachable]");
}

TEST(RuleError, HintsAtWhatWasMeant) {
    EXPECT_EQ(hint("accept"), "xdp calls it 'pass'");
    EXPECT_EQ(hint("reject", Hook::policy), "policy calls it 'deny'");
    EXPECT_EQ(hint("deny"), "xdp calls it 'drop'");
    EXPECT_EQ(hint("saddr 192.0.2.1 drop"), "xdp calls it 'src'");
    EXPECT_EQ(hint("src any drop"), "leave 'src' out to match any");
    EXPECT_EQ(hint("src 192.0.2.1,192.0.2.2 drop"), "a list is written in braces: src {A, B}");
    EXPECT_EQ(hint("dport 80,443 drop"), "a list is written in braces: dport {A, B}");
    EXPECT_EQ(hint("dport 80 443 drop"), "several values are written as a list: dport {A, B}; a "
                                         "shell expands {A,B} unless it is quoted or has blanks");
    EXPECT_EQ(hint("src 192.0.2.1 src 192.0.2.2 drop"),
              "several values are written as a list: src {A, B}");
    EXPECT_EQ(hint("not src 192.0.2.1 drop"),
              "'not' goes between a key and its value: src not 192.0.2.1");
    EXPECT_EQ(hint("src !192.0.2.1 drop"), "write: src not VALUE");
    EXPECT_EQ(hint("dport 20-10 drop"), "write 10-20");
    EXPECT_EQ(hint("mark 5/2 drop", Hook::tc), "0x5/0x7 has them all");
    EXPECT_EQ(hint("mark 7 dscp ef", Hook::tc),
              "write 'mark 7 set dscp ef' to match and set, 'set mark 7 set dscp ef' to set both");
    EXPECT_EQ(
        hint("pass mark 5", Hook::tc),
        "to set it write 'set mark …' before 'pass', to match it write it before 'then pass'");
    EXPECT_EQ(hint("dst ::ffff:192.0.2.0/120 deny", Hook::policy), "write 192.0.2.0/24");
    EXPECT_EQ(hint("deny limit 7/min", Hook::policy),
              "to deny only what exceeds a rate write: allow limit 7/min");
}

TEST(RuleError, LongTextIsCutAroundThePlace) {
    std::string list;
    for (int i = 0; i < 500; i++)
        list += fmt::format("10.0.{}.{}, ", i / 250, i % 250);
    for (const std::string& text : {"src {" + list + "bogus, " + list + "} drop",
                                    "src {bogus, " + list + "} drop", "src {" + list + "} bogus"}) {
        const Result<Rule> rule = parse_rule(text, Hook::xdp);
        ASSERT_FALSE(rule);
        std::istringstream lines(rule.error().what);
        std::string message, line, carets;
        std::getline(lines, message);
        std::getline(lines, line);
        std::getline(lines, carets);
        EXPECT_LE(line.size(), 110u);
        // An ellipsis in front is three bytes and one column.
        const std::size_t extra = line.starts_with("  …") ? 2 : 0;
        EXPECT_EQ(line.substr(carets.find('^') + extra, 5), "bogus") << rule.error().what;
        EXPECT_TRUE(carets.ends_with("^~~~~"));
    }
}

TEST(RuleError, StaysShortWhateverTheText) {
    const std::string big(1'000'000, 'x');
    const std::string zeros(1'000'000, '0');
    std::string umlauts;
    for (int i = 0; i < 10000; i++)
        umlauts += "ä";
    for (const std::string& text : {big,
                                    "src " + big,
                                    "src {" + big,
                                    "dport " + big,
                                    "flags " + big,
                                    "redirect " + big,
                                    "pass limit " + big,
                                    "pass comment " + big,
                                    "pass comment \"" + big + "\"",
                                    umlauts,
                                    "src " + umlauts,
                                    "x" + umlauts + " \"",
                                    big + " src",
                                    "proto " + big + "-1 drop",
                                    "src @" + big,
                                    "frag " + umlauts,
                                    "src 192.0.2.1/" + big + " drop",
                                    "dport " + zeros + "65536 drop",
                                    "dport " + zeros + "2-1 drop",
                                    "pass limit " + zeros,
                                    "rate " + zeros + "mbit",
                                    "priority " + zeros + ":" + zeros + "x"}) {
        const Result<Rule> rule = parse_rule(text, Hook::xdp);
        ASSERT_FALSE(rule) << text.substr(0, 40);
        EXPECT_LT(rule.error().what.size() + rule.error().hint.size(), 1500u)
            << rule.error().what.string().substr(0, 2000);
        EXPECT_NO_THROW((void)nlohmann::json(rule.error().what + rule.error().hint).dump());
    }
}

TEST(RuleError, CaretsCountCharactersNotBytes) {
    const Result<Rule> rule = parse_rule("comment \"äöü\" bogus", Hook::xdp);
    ASSERT_FALSE(rule);
    EXPECT_NE(rule.error().what.find("  comment \"äöü\" bogus\n                ^~~~~\n"),
              std::string::npos)
        << rule.error().what;
}

// ---- files ----

TEST(Rules, OneALine) {
    const auto rules = parse_rules("# policy of the office\n"
                                   "\n"
                                   "   src 192.0.2.1 drop   # a printer\r\n"
                                   "\t# nothing\n"
                                   "pass comment \"# no comment\"",
                                   Hook::xdp, "office.rules");
    ASSERT_TRUE(rules) << rules.error().what;
    ASSERT_EQ(rules->size(), 2u);
    EXPECT_EQ(to_string((*rules)[0]), "src 192.0.2.1 drop");
    EXPECT_EQ(to_string((*rules)[1]), "pass comment \"# no comment\"");
    EXPECT_TRUE(parse_rules("", Hook::xdp, "empty")->empty());
    EXPECT_TRUE(parse_rules("\n\n# x\n", Hook::xdp, "empty")->empty());
}

TEST(Rules, ErrorsNameFileAndLine) {
    const auto rules =
        parse_rules("drop\n\n  src 192.0.2.1 dorp\npass\n", Hook::xdp, "office.rules");
    ASSERT_FALSE(rules);
    EXPECT_EQ(rules.error().what.string().substr(0, rules.error().what.find("\nkeys")),
              "office.rules:3: 'dorp' is neither a key nor an action of xdp; did you mean 'drop'?\n"
              "    src 192.0.2.1 dorp\n"
              "                  ^~~~");
}

TEST(Rules, WordsOfACommandLineKeepWhatTheShellUnquoted) {
    const auto text = [](std::vector<std::string> words) { return rule_text(words); };
    EXPECT_EQ(text({"src", "192.0.2.1", "drop"}), "src 192.0.2.1 drop");
    EXPECT_EQ(text({"src {192.0.2.1, ::1} drop"}), "src {192.0.2.1, ::1} drop");
    EXPECT_EQ(text({"src", "{192.0.2.1,", "::1}", "drop"}), "src {192.0.2.1, ::1} drop");
    EXPECT_EQ(text({"drop", "comment", "two words"}), "drop comment \"two words\"");
    EXPECT_EQ(text({"drop", "comment", "\"two words\""}), "drop comment \"two words\"");
    EXPECT_EQ(text({"drop", "comment", "say \"hi\" \\"}), R"(drop comment "say \"hi\" \\")");
    EXPECT_EQ(text({"drop", "comment", ""}), "drop comment \"\"");
    EXPECT_EQ(text({"exe", "not", "/opt/a b", "deny"}), "exe not \"/opt/a b\" deny");
    EXPECT_EQ(text({"cgroup", "/a#b", "deny"}), "cgroup \"/a#b\" deny");
    EXPECT_EQ(text({}), "");
}

// ---- properties ----

/// Random rules in their normal form: valid, and matched by some packet.
class RandomRules {
  public:
    explicit RandomRules(std::uint64_t seed) : random_(seed) {}

    Rule rule(Hook hook) {
        hook_ = hook;
        rule_ = {};
        ipv4_ = chance(70);
        ipv6_ = !ipv4_ || chance(40);
        // What the rule is about decides which keys may stand beside each other.
        enum {
            anything,
            ports,
            tcp,
            icmp,
            link
        } about = static_cast<decltype(about)>(hook == Hook::policy ? below(2) : below(5));
        for (const KeyInfo& key : rule_keys()) {
            if (!key.in(hook) || !chance(40))
                continue;
            const bool has_ports = about == ports || about == tcp;
            switch (key.key) {
            case Key::sport:
            case Key::dport:
                if (has_ports)
                    add(key);
                break;
            case Key::flags:
                if (about == tcp)
                    add(key);
                break;
            case Key::icmp_type:
            case Key::icmp_code:
                if (about == icmp)
                    add(key);
                break;
            case Key::proto:
                if (has_ports)
                    numbers(key, about == tcp
                                     ? std::vector<std::uint64_t>{protocol_tcp}
                                     : std::vector<std::uint64_t>{protocol_tcp, protocol_udp});
                else if (about == icmp)
                    numbers(key, icmp_protocols());
                else if (about == anything)
                    add(key);
                break;
            case Key::frag:
                if (about == anything)
                    add(key);
                else if (about != link)
                    match(key).ranges = {chance(50) ? Range{frag_none, frag_none}
                                                    : Range{frag_first, frag_tiny}};
                break;
            case Key::socket:
                if (about != link)
                    numbers(key, about == icmp
                                     ? std::vector<std::uint64_t>{socket_none, socket_related}
                                     : std::vector<std::uint64_t>{socket_none, socket_established});
                break;
            case Key::ct:
                if (about != link)
                    numbers(key, {ct_new, ct_related, ct_untracked});
                break;
            case Key::ct_mark:
                if (about != link)
                    add(key);
                break;
            case Key::ether_type:
                if (about == link)
                    add(key);
                else
                    numbers(key, chance(50) ? std::vector<std::uint64_t>{0x0800, 0x86dd}
                                            : std::vector<std::uint64_t>{0x0800, 0x0806, 0x86dd});
                break;
            default:
                if (about != link || (key.part & (NC_HAS_IPV4 | NC_HAS_IPV6 | NC_HAS_PROTO)) == 0)
                    add(key);
            }
        }
        actions();
        modifiers();
        return std::move(rule_);
    }

    std::uint64_t below(std::uint64_t n) { return random_() % n; }
    bool chance(unsigned percent) { return below(100) < percent; }

    template <class Container> const auto& pick(const Container& container) {
        return *std::next(std::begin(container),
                          static_cast<std::ptrdiff_t>(below(std::size(container))));
    }

  private:
    Match& match(const KeyInfo& key) {
        rule_.matches.push_back({});
        rule_.matches.back().key = key.key;
        return rule_.matches.back();
    }

    /// These numbers, and no negation.
    void numbers(const KeyInfo& key, std::vector<std::uint64_t> values) {
        Match& added = match(key);
        std::sort(values.begin(), values.end());
        for (const std::uint64_t value : values)
            added.ranges.push_back({value, value});
    }

    std::vector<std::uint64_t> icmp_protocols() {
        if (ipv4_ && ipv6_)
            return {protocol_icmp, protocol_icmp6};
        return {ipv4_ ? protocol_icmp : protocol_icmp6};
    }

    void add(const KeyInfo& key) {
        Match& added = match(key);
        added.negated = chance(25);
        switch (key.form) {
        case ValueForm::path: added.path = path(); return;
        case ValueForm::flags:
        case ValueForm::mark: {
            const auto top = static_cast<std::uint32_t>(key.max);
            std::uint32_t mask = chance(40) ? top : static_cast<std::uint32_t>(random_()) & top;
            mask = std::max(mask, 1u);
            added.masked = {chance(30) ? mask : static_cast<std::uint32_t>(random_()) & mask, mask};
            return;
        }
        case ValueForm::addresses:
            if (chance(20))
                added.set = name();
            else
                prefixes(added);
            return;
        case ValueForm::names:
            for (std::uint64_t i = below(2) + 1; i > 0; i--) {
                const NamedRange& named = key.names[below(key.names.size())];
                added.ranges.push_back({named.low, named.high});
            }
            std::sort(added.ranges.begin(), added.ranges.end());
            if (added.ranges.size() == 2 && added.ranges[1].low <= added.ranges[0].high + 1) {
                added.ranges[0].high = std::max(added.ranges[0].high, added.ranges[1].high);
                added.ranges.pop_back();
            }
            if (added.ranges.front() == Range{0, key.max})
                added.negated = false;
            return;
        case ValueForm::ports:
            if (chance(20)) {
                added.set = name();
                return;
            }
            break;
        case ValueForm::vlan:
            if (chance(15)) {
                added.negated = false;
                added.absent = true;
                return;
            }
            break;
        default: break;
        }
        // Cut points that are not neighbours make ranges that are disjoint and not adjacent.
        const std::uint64_t highest = chance(50) ? key.max : std::min<std::uint64_t>(key.max, 20);
        std::set<std::uint64_t> cuts;
        for (std::uint64_t i = below(6) + 1; i > 0; i--)
            cuts.insert(below(highest + 1));
        if (chance(10))
            cuts = {0, key.max};
        std::uint64_t before = 0;
        for (auto cut = cuts.begin(); cut != cuts.end(); ++cut) {
            if (cut != cuts.begin() && *cut <= before + 1)
                continue;
            Range range{*cut, *cut};
            if (const auto next = std::next(cut); next != cuts.end() && chance(50)) {
                range.high = *next;
                cut = next;
            }
            added.ranges.push_back(range);
            before = range.high;
        }
        if (added.ranges.front() == Range{0, key.max})
            added.negated = false;
    }

    void prefixes(Match& added) {
        std::vector<Prefix> drawn;
        for (std::uint64_t i = below(5) + 1; i > 0; i--) {
            if (ipv4_)
                drawn.push_back(prefix(Family::ipv4));
            if (ipv6_)
                drawn.push_back(prefix(Family::ipv6));
        }
        std::sort(drawn.begin(), drawn.end());
        // Naively: those that no other one covers.
        for (const Prefix& candidate : drawn) {
            const bool covered = std::any_of(drawn.begin(), drawn.end(), [&](const Prefix& other) {
                return other != candidate && other.length <= candidate.length &&
                       other.contains(candidate.address);
            });
            if (!covered && (added.prefixes.empty() || added.prefixes.back() != candidate))
                added.prefixes.push_back(candidate);
        }
    }

    Prefix prefix(Family family) {
        Prefix prefix;
        prefix.address.family = family;
        prefix.length = static_cast<std::uint8_t>(chance(30) ? prefix.address.bits()
                                                             : below(prefix.address.bits()) + 1);
        // Mostly from a few bits, so that some cover others. The mapped range and the unspecified
        // address are no use in policy.
        for (unsigned bit = 0; bit < prefix.length; bit++)
            if (bit < 6 ? chance(50) : chance(20))
                prefix.address.bytes[bit / 8] |= static_cast<std::uint8_t>(0x80 >> bit % 8);
        prefix.address.bytes[0] |= 0x80;
        return prefix;
    }

    std::string name() {
        std::string text;
        const std::string_view letters = "abcXYZ019_-";
        for (std::uint64_t i = below(12) + 1; i > 0; i--)
            text += pick(letters);
        return text;
    }

    std::string path() {
        const std::string_view letters = "ab.:#@,{}\"\\ 'ß";
        std::string text;
        for (std::uint64_t i = below(3) + 1; i > 0; i--) {
            text += "/x";
            for (std::uint64_t j = below(8); j > 0; j--) {
                const char letter = pick(letters);
                text += static_cast<unsigned char>(letter) < 0x80 ? std::string(1, letter) : "ß";
            }
        }
        return text;
    }

    std::string device() {
        const std::string_view letters = "eth019.-_@#,{}\"\\";
        std::string text = "v";
        for (std::uint64_t i = below(max_device_name - 1); i > 0; i--)
            text += pick(letters);
        return text;
    }

    void actions() {
        std::vector<ActionKind> finals;
        for (const ActionInfo& action : rule_actions()) {
            if (!action.in(hook_))
                continue;
            if (action.final)
                finals.push_back(action.kind);
            else if (chance(25))
                rule_.actions.push_back(arguments(action.kind));
        }
        rule_.actions.push_back(arguments(pick(finals)));
    }

    Action arguments(ActionKind kind) {
        Action action;
        action.kind = kind;
        switch (kind) {
        case ActionKind::redirect:
            action.to_ingress = hook_ == Hook::tc && chance(50);
            [[fallthrough]];
        case ActionKind::mirror: action.device = device(); break;
        case ActionKind::mark:
            action.mask =
                chance(50) ? 0xffffffff : std::max(static_cast<std::uint32_t>(random_()), 1u);
            action.number = static_cast<std::uint32_t>(random_()) & action.mask;
            break;
        case ActionKind::priority:
            action.number = chance(50) ? below(100) : below(0x100000000);
            break;
        case ActionKind::dscp: action.number = below(64); break;
        case ActionKind::rate:
            action.number = chance(50) ? (below(1000) + 1) * 1'000'000 : below(1'000'000) + 8;
            action.burst = chance(50) ? 0 : chance(50) ? (below(64) + 1) * 1024 : below(99999) + 1;
            break;
        default: break;
        }
        return action;
    }

    void modifiers() {
        const ActionKind final = rule_.actions.back().kind;
        if (final != ActionKind::drop && final != ActionKind::deny && final != ActionKind::audit &&
            chance(40)) {
            Limit limit;
            limit.count = below(5000) + 1;
            limit.period_ns = pick(limit_units()).low;
            limit.burst = below(10000) + 1;
            if (hook_ != Hook::policy && chance(50)) {
                limit.per.of = chance(50) ? Accounts::Of::src : Accounts::Of::dst;
                limit.per.dport = chance(30);
                if (chance(40))
                    limit.per.ipv4_bits = static_cast<std::uint8_t>(below(32) + 1);
                if (chance(40))
                    limit.per.ipv6_bits = static_cast<std::uint8_t>(below(128) + 1);
            }
            if (hook_ != Hook::policy && chance(30)) {
                limit.bits = true;
                limit.count = below(1'000'000'000) + 64;
                limit.period_ns = 1'000'000'000;
            }
            rule_.limit = limit;
        }
        rule_.log = chance(30);
        if (chance(40)) {
            const std::string_view letters = "az \"\\#{},@'/~";
            for (std::uint64_t i = below(40); i > 0; i--)
                rule_.comment += chance(10) ? std::string("é漢") : std::string(1, pick(letters));
        }
    }

    std::mt19937_64 random_;
    Hook hook_ = Hook::xdp;
    Rule rule_;
    bool ipv4_ = true;
    bool ipv6_ = true;
};

TEST(RuleProperty, CanonicalTextParsesToAnEqualRule) {
    RandomRules random(1);
    std::set<Key> keys;
    std::set<ActionKind> actions;
    for (int i = 0; i < 15000; i++) {
        const Hook hook = hooks[i % 3];
        const Rule rule = random.rule(hook);
        const std::string text = to_string(rule);
        const Result<Rule> again = parse_rule(text, hook);
        ASSERT_TRUE(again) << again.error().what << "\n" << again.error().hint;
        ASSERT_TRUE(again->same_text(rule)) << text << "\n" << to_string(*again);
        ASSERT_EQ(to_string(*again), text);
        for (const Match& match : rule.matches)
            keys.insert(match.key);
        for (const Action& action : rule.actions)
            actions.insert(action.kind);
    }
    EXPECT_EQ(keys.size(), rule_keys().size()) << "some key was never tried";
    for (const ActionInfo& action : rule_actions())
        EXPECT_EQ(actions.contains(action.kind),
                  action.in(Hook::xdp) || action.in(Hook::tc) || action.in(Hook::policy))
            << action.name;
}

/// Damages a text in a way that a typing person, an editor or a broken file would.
std::string mutated(std::string text, RandomRules& random) {
    static const std::vector<std::string> words = [] {
        std::vector<std::string> all{"not",  "then",      "burst",      "per",
                                     "{",    "}",         ",",          "\"",
                                     "@",    "#",         "/",          "-",
                                     "!",    "0x",        "4294967296", "18446744073709551616",
                                     "::",   "0.0.0.0/0", "\\",         "\n",
                                     "\xff", "\xc3",      "…",          ""};
        for (const Hook hook : hooks)
            for (const std::string& word : rule_words(hook))
                all.push_back(word);
        for (const KeyInfo& key : rule_keys())
            for (const std::string& word : value_words(key.key))
                all.push_back(word);
        return all;
    }();
    for (std::uint64_t i = random.below(4) + 1; i > 0; i--) {
        const std::size_t at = random.below(text.size() + 1);
        const std::size_t length = std::min<std::size_t>(random.below(12), text.size() - at);
        switch (random.below(7)) {
        case 0: text.erase(at, length); break;
        case 1: text.insert(at, text.substr(at, length)); break;
        case 2: text.resize(at); break;
        case 3: text.insert(at, 1, static_cast<char>(random.below(256))); break;
        case 4: text.insert(at, " " + random.pick(words) + " "); break;
        case 5: text.insert(at, random.pick(words)); break;
        default:
            if (at < text.size())
                text[at] = static_cast<char>(text[at] ^ 1 << random.below(8));
        }
    }
    return text;
}

TEST(RuleProperty, MutatedTextIsARuleOrAnError) {
    RandomRules random(2);
    int good = 0;
    for (int i = 0; i < 12000; i++) {
        const Hook hook = hooks[i % 3];
        const std::string text = mutated(to_string(random.rule(hook)), random);
        const Result<Rule> rule = parse_rule(text, hook);
        if (rule) {
            good++;
            const std::string printed = to_string(*rule);
            const Result<Rule> again = parse_rule(printed, hook);
            ASSERT_TRUE(again) << text << "\n" << printed << "\n" << again.error().what;
            ASSERT_TRUE(again->same_text(*rule)) << text << "\n" << printed;
            continue;
        }
        const Error& error = rule.error();
        ASSERT_EQ(error.kind, ErrorKind::usage);
        ASSERT_NE(error.what.find("^"), std::string::npos) << error.what;
        // Safe for terminals and for JSON, whatever the input was.
        ASSERT_NO_THROW((void)nlohmann::json(error.what + error.hint).dump()) << text;
        for (const char c : error.what.string())
            ASSERT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= 0x20) << error.what;
    }
    EXPECT_GT(good, 400) << "mutations should leave some rules valid";
    EXPECT_LT(good, 11000) << "and break most";
}

TEST(RuleText, NamesOfFilesReadBackByteByByte) {
    for (const std::string name :
         {"/a\"b", "/a\nb", "/a b", "/a\\b", "/a\\x41", "/a#b{c,d}", "/\x1b[2J", "/\xff\xfe",
          "/\u009b", "/\u202etxt", "/@set", "/\xc3", "/ä名", "/x\nallow"}) {
        Rule rule;
        Match& match = rule.matches.emplace_back();
        match.key = Key::exe;
        match.path = name;
        rule.actions.emplace_back().kind = ActionKind::allow;
        rule.comment = name;
        const std::string text = to_string(rule);
        EXPECT_EQ(shown(text), text);
        const Result<Rule> again = parse_rule(text, Hook::policy);
        ASSERT_TRUE(again) << text << "\n" << again.error().what;
        EXPECT_TRUE(again->same_text(rule)) << text;
        // Of the words of a command line a shell has taken the quotes away.
        const Result<Rule> words =
            parse_rule(rule_text({"exe", name, "allow", "comment", name}), Hook::policy);
        ASSERT_TRUE(words) << words.error().what;
        EXPECT_TRUE(words->same_text(rule)) << text;
    }
    EXPECT_EQ(canonical(R"(pass comment "\x41\xe4")"), R"(pass comment "A\xe4")");
}

TEST(RuleProperty, AnyBytesAtAll) {
    RandomRules random(3);
    for (int i = 0; i < 5000; i++) {
        std::string bytes;
        for (std::uint64_t j = random.below(60); j > 0; j--)
            bytes += static_cast<char>(random.below(256));
        (void)parse_rule(bytes, hooks[i % 3]);
        (void)parse_rules(bytes, hooks[i % 3], "x");
    }
}

// ---- the table of words ----

TEST(RuleKeys, NamesAreDistinctAndFound) {
    for (const KeyInfo& key : rule_keys()) {
        EXPECT_EQ(find_key(key.name), &key);
        EXPECT_EQ(to_string(key.key), key.name);
        EXPECT_EQ(find_modifier(key.name), nullptr);
        EXPECT_FALSE(key.value.empty());
        EXPECT_FALSE(key.help.empty());
        EXPECT_FALSE(key.help.ends_with('.'));
    }
    for (const ActionInfo& action : rule_actions()) {
        EXPECT_EQ(find_action(action.name), &action);
        EXPECT_EQ(find_modifier(action.name), nullptr);
    }
    EXPECT_EQ(find_key("then"), nullptr);
    EXPECT_EQ(find_action("then"), nullptr);
}

TEST(RuleKeys, HooksHaveWhatTheDesignSays) {
    EXPECT_EQ(key_names(Hook::policy), (std::vector<std::string>{"dst", "sport", "dport", "proto",
                                                                 "uid", "gid", "cgroup", "exe"}));
    EXPECT_EQ(action_names(Hook::xdp),
              (std::vector<std::string>{"pass", "drop", "reject", "tx", "redirect", "syncookie"}));
    EXPECT_EQ(action_names(Hook::policy), (std::vector<std::string>{"allow", "deny", "audit"}));
    EXPECT_EQ(key_names(Hook::tc).size(), key_names(Hook::xdp).size() + 1);
    const std::vector<std::string> words = rule_words(Hook::tc);
    EXPECT_EQ(std::count(words.begin(), words.end(), "mark"), 1);
}

TEST(RuleKeys, HelpHasALineForEachWordOfTheHook) {
    for (const Hook hook : all_hooks) {
        std::istringstream lines(rule_help(hook));
        std::vector<std::string> words;
        for (std::string line; std::getline(lines, line);)
            if (line.starts_with("  "))
                words.push_back(line.substr(2, line.find("  ", 2) - 2));
        std::vector<std::string> expected = key_names(hook);
        for (const std::string& action : action_names(hook))
            expected.push_back(action);
        for (const ModifierInfo& modifier : rule_modifiers())
            if (modifier.in(hook))
                expected.emplace_back(modifier.name);
        EXPECT_EQ(words, expected) << rule_help(hook);
    }
    EXPECT_NE(rule_help(Hook::xdp).find("  ttl           TTL of IPv4, hop limit of IPv6: 0-255"),
              std::string::npos);
    EXPECT_EQ(rule_help(Hook::redirect).find("@SET"), std::string::npos);
}

TEST(RuleKeys, ValueWordsAreUnderstood) {
    for (const KeyInfo& key : rule_keys())
        for (const std::string& word : value_words(key.key)) {
            bool understood = false;
            for (const char* beside :
                 {"", "proto icmp ", "proto icmp6 ", "proto icmp icmp-type 3 ",
                  "proto icmp icmp-type 5 ", "proto icmp icmp-type 11 ", "proto icmp6 icmp-type 1 ",
                  "proto icmp6 icmp-type 3 ", "proto icmp6 icmp-type 4 "})
                understood |=
                    parse_rule(fmt::format("{}{} {} drop", beside, key.name, word), Hook::xdp)
                        .has_value();
            EXPECT_TRUE(understood) << key.name << " " << word;
        }
}

// ---- docs/rules.md ----

std::string read_docs() {
    std::ifstream file(NETCTL_SOURCE_DIR "/docs/rules.md");
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

struct Block {
    std::string kind; ///< what stands behind the three backticks
    std::vector<std::string> lines;
};

std::vector<Block> blocks_of(const std::string& text) {
    std::vector<Block> blocks;
    std::istringstream lines(text);
    bool inside = false;
    for (std::string line; std::getline(lines, line);) {
        if (line.starts_with("```")) {
            inside = !inside;
            if (inside)
                blocks.push_back({line.substr(3), {}});
        } else if (inside) {
            blocks.back().lines.push_back(line);
        }
    }
    EXPECT_FALSE(inside) << "a block is not closed";
    return blocks;
}

std::optional<Hook> hook_named(std::string_view name) {
    for (const Hook hook : all_hooks)
        if (to_string(hook) == name)
            return hook;
    return std::nullopt;
}

TEST(RuleDocs, ExamplesAreRules) {
    int rules = 0, errors = 0;
    for (const Block& block : blocks_of(read_docs())) {
        const std::size_t space = std::min(block.kind.find(' '), block.kind.size());
        const std::string kind = block.kind.substr(0, space);
        if (kind != "rules" && kind != "rule-error")
            continue;
        const auto hook =
            hook_named(std::string_view(block.kind).substr(std::min(space + 1, block.kind.size())));
        ASSERT_TRUE(hook) << "```" << block.kind;
        if (kind == "rules") {
            for (const std::string& line : block.lines) {
                rules++;
                EXPECT_EQ(canonical(line, *hook).find("error"), std::string::npos)
                    << line << "\n"
                    << canonical(line, *hook);
            }
            continue;
        }
        errors++;
        ASSERT_GT(block.lines.size(), 1u);
        std::string expected;
        for (std::size_t i = 1; i < block.lines.size(); i++)
            expected += (i > 1 ? "\n" : "") + block.lines[i];
        EXPECT_EQ(canonical(block.lines[0], *hook), "error: " + expected);
    }
    EXPECT_GE(rules, 15);
    EXPECT_GE(errors, 1);
}

TEST(RuleDocs, TablesAreThoseOfTheProgram) {
    const std::string docs = read_docs();
    const auto escaped = [](std::string_view text) {
        std::string result;
        for (const char c : text) {
            if (c == '|')
                result += '\\';
            result += c;
        }
        return result;
    };
    const auto hook_list = [](auto& info) {
        std::string list;
        for (const Hook hook : all_hooks)
            if (info.in(hook))
                list += (list.empty() ? "" : ", ") + std::string(to_string(hook));
        return list;
    };
    const auto has_row = [&docs](const std::string& row) {
        EXPECT_NE(docs.find("\n" + row + "\n"), std::string::npos) << "missing: " << row;
    };
    const auto with = [&](std::string_view name, std::string_view takes) {
        return takes.empty() ? std::string(name) : fmt::format("{} {}", name, escaped(takes));
    };
    for (const KeyInfo& key : rule_keys())
        has_row(fmt::format("| `{}` | {} | {} | {} |", key.name, escaped(key.value), hook_list(key),
                            key.help));
    for (const ActionInfo& action : rule_actions())
        has_row(fmt::format("| `{}` | {} | {} | {} |",
                            with(action.spelling(), argument(action, Hook::tc)), hook_list(action),
                            action.final ? "yes" : "no", action.help));
    for (const ModifierInfo& modifier : rule_modifiers())
        has_row(
            fmt::format("| `{}` | {} |", with(modifier.name, modifier.argument), modifier.help));
}

/// What netctl-rules(7) shows beside iptables and nft.
TEST(RuleDocs, TheManualsExamplesAreRules) {
    std::ifstream file(NETCTL_SOURCE_DIR "/docs/man/netctl-rules.7");
    int rules = 0;
    for (std::string line; std::getline(file, line);) {
        std::string text;
        for (std::size_t i = 0; i < line.size(); i++)
            if (line[i] != '"' && (line[i] != '\\' || line[i + 1] != '-'))
                text += line[i];
        for (const auto& [start, hook] : {std::pair("netctl xdp rule add eth0 ", Hook::xdp),
                                          std::pair("netctl tc rule add eth0 egress ", Hook::tc),
                                          std::pair("netctl policy rule add ", Hook::policy)}) {
            const std::size_t at = text.find(start);
            if (at == std::string::npos)
                continue;
            rules++;
            const std::string rule = text.substr(at + std::string_view(start).size());
            EXPECT_EQ(canonical(rule, hook).find("error"), std::string::npos)
                << canonical(rule, hook);
        }
    }
    EXPECT_GE(rules, 7);
}

TEST(RuleDocs, KeyOrActionIsAsTheTableSays) {
    EXPECT_EQ(canonical("dport 80 mark 7 pass", Hook::tc), "dport 80 mark 0x7 then pass");
    EXPECT_EQ(canonical("dport 80 set mark 7", Hook::tc), "dport 80 set mark 0x7 pass");
    EXPECT_EQ(canonical("dport 80 mark 7", Hook::tc), "dport 80 set mark 0x7 pass");
    EXPECT_EQ(canonical("dport 80 then mark 7 pass", Hook::tc), "dport 80 set mark 0x7 pass");
    EXPECT_EQ(canonical("mark 5 mark 7", Hook::tc), "mark 0x5 set mark 0x7 pass");
    EXPECT_EQ(canonical("priority 3 mark 7", Hook::tc), "set mark 0x7 set priority 3 pass");
    EXPECT_FALSE(parse_rule("dport 80 mark 7 dscp ef", Hook::tc));
}

} // namespace
} // namespace netctl
