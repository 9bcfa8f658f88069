// SPDX-License-Identifier: GPL-2.0-only
#include "host/import/import.hpp"

#include <algorithm>

#include <gtest/gtest.h>

#include "core/json.hpp"
#include "testing/fuzz.hpp"

namespace netctl::host {

namespace {

Result<> read(std::string_view text, Foreign& foreign) {
    const Format format = guess_format(text).value_or(Format::nft);
    switch (format) {
    case Format::ipset: return read_ipset("sets", text, foreign);
    case Format::iptables:
    case Format::ufw: return read_iptables("rules", text, format == Format::ufw, foreign);
    case Format::firewalld: return read_firewalld("zone", text, foreign);
    case Format::xdp_filter: return read_xdp_filter("status", text, foreign);
    default: return read_nft("ruleset", text, foreign);
    }
}

Result<Imported> imported(std::initializer_list<std::string> texts, Hook hook = Hook::xdp) {
    Foreign foreign;
    for (const std::string& text : texts)
        NETCTL_TRY(read(text, foreign));
    NETCTL_TRY(finish_ufw(foreign));
    return import(std::move(foreign), {{"eth0"}, hook});
}

/// The rules of the first filter, as text, and its default; what was not taken behind them.
std::vector<std::string> lines(const Result<Imported>& made) {
    if (!made.has_value())
        return {made.error().what};
    std::vector<std::string> all;
    if (!made->config.filters.empty()) {
        const FilterConfig& filter = made->config.filters.front();
        for (const Rule& rule : filter.rules)
            all.push_back(to_string(rule));
        all.push_back(filter.default_verdict == NC_VERDICT_DROP ? "default drop" : "default pass");
    }
    for (const NotTaken& one : made->not_taken)
        all.push_back(one.place + ": " + one.reason + " " + std::to_string(one.effect));
    return all;
}

/// What stands in front of all rules where something is dropped.
const std::vector<std::string> around = {"ether-type not {ipv4, ipv6} pass", "frag tiny drop",
                                         "frag later pass"};
std::vector<std::string> behind_around(std::vector<std::string> rest) {
    rest.insert(rest.begin(), around.begin(), around.end());
    return rest;
}

std::string filter(const std::string& rules, const std::string& policy = "DROP") {
    return "*filter\n:INPUT " + policy + " [0:0]\n" + rules + "COMMIT\n";
}

std::string nft(const std::string& rules, const std::string& more = "") {
    std::string text = R"({"nftables": [{"metainfo": {"json_schema_version": 1}},
        {"chain": {"family": "inet", "table": "t", "name": "input", "handle": 1, "type": "filter",
                   "hook": "input", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "inet", "table": "t", "name": "other", "handle": 2}})" +
                       more;
    return text + ", " + rules + "]}";
}
std::string nft_rule(const std::string& statements, int handle = 7,
                     const std::string& chain = "input") {
    return R"({"rule": {"family": "inet", "table": "t", "chain": ")" + chain + R"(", "handle": )" +
           std::to_string(handle) + R"(, "expr": [)" + statements + "]}}";
}
std::string payload(const std::string& protocol, const std::string& field, const std::string& right,
                    const std::string& op = "==") {
    return R"({"match": {"op": ")" + op + R"(", "left": {"payload": {"protocol": ")" + protocol +
           R"(", "field": ")" + field + R"("}}, "right": )" + right + "}}";
}

const std::string accept = R"({"accept": null})", drop = R"({"drop": null})";

TEST(Import, ReturningGoesOnBehindTheCall) {
    const auto made = imported({filter(":office - [0:0]\n"
                                       "-A INPUT -p tcp -j office\n"
                                       "-A INPUT -s 10.1.0.0/16 -p tcp --dport 80 -j ACCEPT\n"
                                       "-A office -s 10.1.0.0/16 -j RETURN\n"
                                       "-A office -p tcp --dport 22 -j ACCEPT\n")});
    EXPECT_EQ(lines(made), behind_around({"src 10.1.0.0/16 proto tcp dport 80 pass",
                                          "src 10.1.0.0/16 proto tcp drop",
                                          "proto tcp dport 22 ether-type ipv4 pass",
                                          "src 10.1.0.0/16 proto tcp dport 80 pass",
                                          "ether-type ipv4 drop", "default pass"}));
}

TEST(Import, LeapingDoesNotComeBack) {
    const auto made = imported({filter(":last - [0:0]\n"
                                       "-A INPUT -p udp -g last\n"
                                       "-A INPUT -p udp --dport 53 -j ACCEPT\n"
                                       "-A last -p udp --dport 123 -j ACCEPT\n")});
    EXPECT_EQ(lines(made), behind_around({"proto udp dport 123 ether-type ipv4 pass",
                                          "proto udp ether-type ipv4 drop",
                                          "proto udp dport 53 ether-type ipv4 pass",
                                          "ether-type ipv4 drop", "default pass"}));
}

TEST(Import, ConditionsOfCallsAreThoseOfTheRules) {
    const auto made = imported({filter(":a - [0:0]\n"
                                       "-A INPUT -s 10.0.0.0/8 -j a\n"
                                       "-A a ! -s 10.128.0.0/9 -p tcp --dport 22 -j ACCEPT\n"
                                       "-A a -s 192.0.2.0/24 -j ACCEPT\n")});
    EXPECT_EQ(lines(made), behind_around({"src 10.0.0.0/9 proto tcp dport 22 pass",
                                          "ether-type ipv4 drop", "default pass"}));
}

TEST(Import, WhatOneChainLetsThroughIsAskedOfTheNext) {
    const auto made = imported({"*raw\n:PREROUTING ACCEPT [0:0]\n"
                                "-A PREROUTING -s 10.0.0.0/8 -j ACCEPT\n"
                                "-A PREROUTING -p udp -j DROP\nCOMMIT\n" +
                                filter("-A INPUT -p udp --dport 53 -j ACCEPT\n")});
    EXPECT_EQ(lines(made), behind_around({"src 10.0.0.0/8 proto udp dport 53 pass",
                                          "src 10.0.0.0/8 drop", "proto udp ether-type ipv4 drop",
                                          "proto udp dport 53 ether-type ipv4 pass",
                                          "ether-type ipv4 drop", "default pass"}));
}

TEST(Import, AddressesOfBothFamiliesTellNone) {
    const auto made =
        imported({filter("-A INPUT -m addrtype --dst-type MULTICAST -j DROP\n", "ACCEPT")});
    EXPECT_EQ(lines(made),
              behind_around({"dst {224.0.0.0/4, ff00::/8} ether-type ipv4 drop", "default pass"}));
}

TEST(Import, InterfacesAreDecided) {
    const auto made =
        imported({filter("-A INPUT -i lo -j ACCEPT\n-A INPUT -i eth+ -p udp -j ACCEPT\n"
                         "-A INPUT ! -i eth0 -p tcp -j ACCEPT\n")});
    EXPECT_EQ(lines(made), behind_around({"proto udp ether-type ipv4 pass", "ether-type ipv4 drop",
                                          "default pass"}));
}

TEST(Import, ALimitIsTakenWhereWhatIsAboveIsDropped) {
    const std::string limited =
        "-A INPUT -p icmp -m limit --limit 5/sec --limit-burst 9 -j ACCEPT\n";
    EXPECT_EQ(lines(imported({filter(limited)})),
              behind_around({"proto icmp ether-type ipv4 pass limit 5/s burst 9",
                             "ether-type ipv4 drop", "default pass"}));
    // All of it passes, and the limit changes nothing.
    EXPECT_EQ(lines(imported({filter(limited, "ACCEPT")})), std::vector<std::string>{});
    // Half of it does.
    const auto partly = imported({filter(limited + "-A INPUT -s 10.0.0.0/8 -p icmp -j ACCEPT\n")});
    EXPECT_EQ(
        lines(partly),
        behind_around({"proto icmp ether-type ipv4 pass limit 5/s burst 9",
                       "src 10.0.0.0/8 proto icmp pass", "ether-type ipv4 drop", "default pass",
                       "rules:3: what is above its limit is dropped, where some of the rules "
                       "behind it would let it through 1"}));
}

TEST(Import, DroppingAboveALimitIsPassingWithin) {
    const std::string above =
        "-A INPUT -p tcp --dport 22 -m hashlimit --hashlimit-above 6/min "
        "--hashlimit-burst 6 --hashlimit-mode srcip --hashlimit-name ssh -j DROP\n";
    EXPECT_EQ(lines(imported({filter(above + "-A INPUT -p tcp --dport 22 -j ACCEPT\n")})),
              behind_around({"proto tcp dport 22 ether-type ipv4 pass limit 6/min burst 6 per src",
                             "proto tcp dport 22 ether-type ipv4 pass", "ether-type ipv4 drop",
                             "default pass"}));
    const auto told = imported({filter(above + "-A INPUT -s 10.0.0.0/8 -j ACCEPT\n")});
    ASSERT_TRUE(told.has_value());
    EXPECT_EQ(told->effect, effect_weaker);
}

TEST(Import, LoggingJoinsTheRuleThatDecides) {
    const auto made =
        imported({filter(":LOGGING - [0:0]\n-A INPUT -j LOGGING\n"
                         "-A LOGGING -m limit --limit 2/min -j LOG --log-prefix \"x \"\n"
                         "-A LOGGING -j DROP\n")});
    EXPECT_EQ(lines(made), behind_around({"ether-type ipv4 drop log", "default pass"}));
}

TEST(Import, EffectsOfWhatIsNotTaken) {
    const auto effect = [](const std::string& rules, const std::string& policy = "DROP") {
        const auto made = imported({filter(rules, policy)});
        return made.has_value() ? int{made->effect} : -1;
    };
    EXPECT_EQ(effect("-A INPUT -m owner --uid-owner 0 -j ACCEPT\n"), effect_stricter);
    EXPECT_EQ(effect("-A INPUT -m recent --rcheck -j DROP\n", "ACCEPT"), effect_weaker);
    EXPECT_EQ(effect("-A INPUT -m recent --rcheck -j DROP\n"), effect_none); // the policy drops
    EXPECT_EQ(effect("-A INPUT -m recent --rcheck -m conntrack --ctstate ESTABLISHED -j ACCEPT\n"),
              effect_cuts);
    EXPECT_EQ(effect(":x - [0:0]\n-A INPUT -m recent --rcheck -j x\n-A x -j ACCEPT\n"),
              effect_weaker | effect_cuts);
    EXPECT_EQ(effect(":x - [0:0]\n-A INPUT -m recent --rcheck -j x\n-A x -j LOG\n"), effect_none);
    EXPECT_EQ(effect("-A INPUT -m conntrack --ctstate INVALID -j DROP\n", "ACCEPT"), effect_none);
    EXPECT_EQ(effect("-A INPUT -m set --match-set missing src -j ACCEPT\n"), effect_stricter);
    EXPECT_EQ(effect("-A INPUT -p tcp --dport 1:2:3 -j ACCEPT\n"), effect_stricter);
    EXPECT_EQ(effect(":FORWARD DROP [0:0]\n"), effect_none);
    EXPECT_EQ(effect(":FORWARD ACCEPT [0:0]\n-A FORWARD -i eth0 -j ACCEPT\n"),
              effect_weaker | effect_cuts);
}

TEST(Import, WhatOthersGoByMatters) {
    const auto effect = [](const std::string& rules) {
        const auto made = imported({rules});
        return made.has_value() ? int{made->effect} : -1;
    };
    constexpr int both = effect_weaker | effect_cuts;
    EXPECT_EQ(effect(filter("-A INPUT -j SET --add-set seen src\n", "ACCEPT")), both);
    EXPECT_EQ(effect(filter("-A INPUT -j MARK --set-xmark 1\n", "ACCEPT")), both);
    EXPECT_EQ(effect(filter("-A INPUT -j NFQUEUE --queue-num 1\n", "ACCEPT")), both);
    EXPECT_EQ(effect(filter("-A INPUT -j TRACE\n", "ACCEPT")), effect_none);
    EXPECT_EQ(effect(nft(nft_rule(R"({"set": {"op": "add", "elem": "x", "set": "@seen"}})"))),
              both);
    EXPECT_EQ(effect(nft(nft_rule(R"({"queue": null})"))), both);
    // One verdict of a map that is not read, and another before it that would be.
    EXPECT_EQ(effect(nft(nft_rule(R"({"vmap": {"key": {"ct": {"key": "mark"}}, "data":
                  {"set": [[1, {"accept": null}], [2, {"drop": null}]]}}})"))),
              both);
    EXPECT_EQ(effect(nft(nft_rule(R"({"vmap": {"key": {"payload": {"protocol": "tcp", "field":
                  "dport"}}, "data": {"set": [[1, {"accept": null}], ["zz", {"drop": null}]]}}})"))),
              both);
    EXPECT_EQ(
        effect(nft(nft_rule(R"({"vmap": {"key": {"ct": {"key": "mark"}}, "data": "@none"}})"))),
        both);
}

TEST(Import, SetsOfIpset) {
    const std::string sets = "create bad hash:net family inet hashsize 1024 maxelem 65536\n"
                             "add bad 192.0.2.0/24 timeout 60\nadd bad 198.51.100.7 nomatch\n"
                             "create web bitmap:port range 0-1023\nadd web 80\n"
                             "create pairs hash:ip,port family inet\nadd pairs 10.0.0.1,tcp:80\n";
    const auto made =
        imported({sets, filter("-A INPUT -m set --match-set bad src -j DROP\n"
                               "-A INPUT -p tcp -m set --match-set web dst -j ACCEPT\n"
                               "-A INPUT -m set --match-set pairs src,dst -j ACCEPT\n")});
    EXPECT_EQ(lines(made),
              behind_around({"src @bad ether-type ipv4 drop",
                             "proto tcp dport @web ether-type ipv4 pass", "ether-type ipv4 drop",
                             "default pass", "sets:6: netctl has no sets of type hash:ip,port 0",
                             "rules:5: netctl has no set of several parts 'src,dst' 1"}));
    ASSERT_TRUE(made.has_value());
    const SetConfig& bad = made->config.sets.at("bad");
    ASSERT_EQ(bad.elements.size(), 2U);
    EXPECT_EQ(bad.elements[0].ttl, 60U);
    EXPECT_TRUE(bad.elements[1].absent);
}

TEST(Import, WordsOfNft) {
    const auto one = [](const std::string& statements) {
        auto all = lines(imported({nft(nft_rule(statements))}));
        return all.size() > 4 ? all[3] : std::string("nothing");
    };
    EXPECT_EQ(one(payload("tcp", "dport", R"({"set": [22, {"range": [80, 90]}]})") + "," + accept),
              "proto tcp dport {22, 80-90} pass");
    EXPECT_EQ(one(payload("ip", "saddr", R"({"prefix": {"addr": "10.1.0.0", "len": 16}})", "!=") +
                  "," + accept),
              "src not 10.1.0.0/16 pass");
    EXPECT_EQ(one(payload("tcp", "dport", "1024", ">=") + "," + accept),
              "proto tcp dport 1024-65535 pass");
    EXPECT_EQ(
        one(payload("icmpv6", "type", R"({"set": ["nd-neighbor-solicit", 143]})") + "," + accept),
        "proto icmp6 icmp-type {neighbor-solicitation, mld2-report} pass");
    EXPECT_EQ(one(R"({"match": {"op": "==", "left": {"&": [{"payload": {"protocol": "tcp", "field":
                  "flags"}}, ["syn", "ack"]]}, "right": "syn"}})" +
                  std::string(",") + accept),
              "proto tcp flags syn/syn,ack pass");
    EXPECT_EQ(one(payload("tcp", "flags", R"(["syn", "fin"])", "in") + "," + accept),
              "proto tcp flags not none/fin,syn pass");
    EXPECT_EQ(
        one(R"({"match": {"op": "==", "left": {"meta": {"key": "nfproto"}}, "right": "ipv6"}})" +
            std::string(",") + accept),
        "ether-type ipv6 pass");
    EXPECT_EQ(one(payload("ether", "saddr", R"("02:00:00:00:00:0a")") + "," + accept),
              "ether-src 02:00:00:00:00:0a pass");
    EXPECT_EQ(one(R"({"vmap": {"key": {"payload": {"protocol": "tcp", "field": "dport"}},
                  "data": {"set": [[22, {"accept": null}]]}}})"),
              "proto tcp dport 22 pass");
    EXPECT_EQ(
        one(R"({"match": {"op": "==", "left": {"concat": [{"payload": {"protocol": "ip", "field":
                  "saddr"}}, {"payload": {"protocol": "udp", "field": "dport"}}]},
                  "right": {"set": [{"concat": ["10.0.0.2", {"range": [80, 90]}]}]}}})" +
            std::string(",") + accept),
        "src 10.0.0.2 proto udp dport 80-90 pass");
}

const std::string iptables_corpus = filter(
    ":TCP - [0:0]\n"
    "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
    "-A INPUT -p icmp -m icmp --icmp-type 8 -m limit --limit 5/sec --limit-burst 7 -j ACCEPT\n"
    "-A INPUT -p icmp -m icmp --icmp-type 3/4 -j ACCEPT\n"
    "-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j TCP\n"
    "-A INPUT ! -s 10.0.0.0/8 -p tcp -m multiport --dports 80,443,8000:8100 -j ACCEPT\n"
    "-A INPUT -m mac --mac-source 02:00:00:00:00:01 -j DROP\n"
    "-A INPUT -m iprange --src-range 10.0.0.1-10.0.0.9 -m ttl --ttl-eq 3 -j DROP\n"
    "-A INPUT -p udp --sport 67 --dport 68 -m addrtype --dst-type BROADCAST -j ACCEPT\n"
    "-A TCP -d 192.0.2.0/255.255.255.0 -p tcp --dport 22 -g TCP2\n"
    "-A TCP2 -j RETURN\n");

const std::string nft_corpus = nft(
    nft_rule(
        R"({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established"]}},)" +
        accept) +
        "," +
        nft_rule(payload("tcp", "dport", R"({"set": [22, {"range": [80, 90]}]})") +
                     R"(, {"limit": {"rate": 10, "burst": 5, "per": "minute"}}, )" + accept,
                 8) +
        "," +
        nft_rule(payload("ip", "saddr", R"({"prefix": {"addr": "10.1.0.0", "len": 16}})", "!=") +
                     R"(, {"jump": {"target": "other"}})",
                 9) +
        "," +
        nft_rule(R"({"vmap": {"key": {"payload": {"protocol": "udp", "field": "dport"}}, "data":
                     {"set": [[53, {"accept": null}], [54, {"goto": {"target": "other"}}]]}}})",
                 10) +
        "," + nft_rule(payload("icmp", "type", R"("echo-request")") + "," + drop, 11, "other") +
        "," + nft_rule(payload("ip6", "daddr", R"("@six")") + "," + drop, 12, "other"),
    R"(, {"set": {"family": "inet", "table": "t", "name": "six", "type": "ipv6_addr", "handle": 3,
         "flags": ["interval"], "elem": [{"prefix": {"addr": "2001:db8::", "len": 32}}]}})");

const std::string ipset_corpus =
    "create bad hash:net family inet maxelem 65536\n"
    "add bad 192.0.2.0/24 timeout 60\nadd bad 198.51.100.7 nomatch\n"
    "create web bitmap:port range 0-1023\nadd web 80-90 comment \"a b\"\n";

const std::string ufw_corpus =
    "*filter\n:ufw-user-input - [0:0]\n:ufw-user-limit - [0:0]\n:ufw-user-limit-accept - [0:0]\n"
    "### RULES ###\n\n### tuple ### limit tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n"
    "-A ufw-user-input -p tcp --dport 22 -m conntrack --ctstate NEW -m recent --set\n"
    "-A ufw-user-input -p tcp --dport 22 -m conntrack --ctstate NEW -m recent --update "
    "--seconds 30 --hitcount 6 -j ufw-user-limit\n"
    "-A ufw-user-input -p tcp --dport 22 -j ufw-user-limit-accept\n\n"
    "### tuple ### allow udp 51820 0.0.0.0/0 any 10.0.0.0/8 in\n"
    "-A ufw-user-input -p udp --dport 51820 -s 10.0.0.0/8 -j ACCEPT\n"
    "-A ufw-user-limit -j REJECT\n-A ufw-user-limit-accept -j ACCEPT\nCOMMIT\n";

const std::string zone_corpus = R"(<?xml version="1.0" encoding="utf-8"?>
<zone>
  <short>Public</short>
  <interface name="eth0"/>
  <service name="ssh"/>
  <service name="dhcpv6-client"/>
  <port protocol="tcp" port="8000-8010"/>
  <icmp-block name="timestamp-request"/>
  <rule family="ipv4">
    <source address="203.0.113.0/24"/>
    <log prefix="no"/>
    <drop/>
  </rule>
  <rule family="ipv4">
    <source address="10.1.2.3"/>
    <service name="postgresql"/>
    <accept/>
  </rule>
  <forward/>
</zone>
)";

const std::string status_corpus =
    "CURRENT XDP-FILTER STATUS:\n\nAggregate per-action statistics:\n"
    "  XDP_PASS                                    300 pkts        6016 KiB\n\n"
    "Loaded on interfaces:\n                                           Enabled features\n"
    "xdpfilt_alw_all\n  eth0 (native mode)                       "
    "tcp,udp,ipv6,ipv4,ethernet,allow\n\n"
    "Filtered ports:\n                                           Mode             Hit counter\n"
    "  80                                       dst,tcp          0\n"
    "  53                                       src,dst,tcp,udp  7\n\n"
    "Filtered IP addresses:\n                                           Mode             Hit "
    "counter\n"
    "  2001:db8::1                              dst              0\n"
    "  10.0.0.1                                 src              0\n\n"
    "Filtered MAC addresses:\n                                           Mode             Hit "
    "counter\n"
    "  02:00:00:00:00:01                        src              0\n\n";

TEST(Import, UfwLimitsByRatesAndHasItsOwnRulesInFront) {
    const auto made = imported({ufw_corpus});
    const auto all = lines(made);
    const auto has = [&](const char* line) {
        return std::find(all.begin(), all.end(), line) != all.end();
    };
    EXPECT_TRUE(has("ether-type ipv4 socket {established, related} pass"));
    EXPECT_TRUE(has("proto icmp icmp-type echo-request ether-type ipv4 pass"));
    EXPECT_TRUE(has("proto tcp dport 22 ether-type ipv4 socket {none, listening} pass limit 10/min "
                    "burst 5 per src"));
    EXPECT_TRUE(has("src 10.0.0.0/8 proto udp dport 51820 pass"));
    EXPECT_TRUE(has("ether-type ipv4 drop"));
    ASSERT_TRUE(made.has_value());
    EXPECT_EQ(made->effect, effect_stricter) << "answers to ping";
}

TEST(Import, ZonesOfFirewalld) {
    EXPECT_EQ(
        lines(imported({zone_corpus})),
        behind_around(
            {"socket {established, related} pass", "proto icmp icmp-type timestamp-request reject",
             "src 203.0.113.0/24 drop log", "proto tcp dport 22 pass",
             "dst fe80::/64 proto udp dport 546 pass", "proto tcp dport 8000-8010 pass",
             "src 10.1.2.3 proto tcp dport 5432 pass", "proto icmp pass", "proto icmp6 pass",
             "reject", "default pass", "zone:19: what is routed is judged where it arrives 0",
             "firewalld: answers to ping, and to UDP sockets that are not connected, are of "
             "no connection here 1"}));
    // A zone of sources is asked before the one of the interface.
    EXPECT_EQ(
        lines(imported({R"(<zone target="DROP"><interface name="eth0"/></zone>)",
                        R"(<zone target="ACCEPT"><source address="10.0.0.0/8"/></zone>)"})),
        behind_around({"socket {established, related} pass", "src 10.0.0.0/8 pass", "default drop",
                       "firewalld: answers to ping, and to UDP sockets that are not "
                       "connected, are of no connection here 1"}));
    EXPECT_FALSE(imported({"<zone><!DOCTYPE x></zone>"}).has_value());
    EXPECT_FALSE(
        imported({R"(<!DOCTYPE z [<!ENTITY a "b">]><zone><short>&a;</short></zone>)"}).has_value());
}

TEST(Import, StatusOfXdpFilter) {
    EXPECT_EQ(lines(imported({status_corpus})),
              (std::vector<std::string>{"proto tcp dport 80 drop", "proto {tcp, udp} sport 53 drop",
                                        "proto {tcp, udp} dport 53 drop", "dst 2001:db8::1 drop",
                                        "src 10.0.0.1 drop", "ether-src 02:00:00:00:00:01 drop",
                                        "default pass"}));
}

/// Whatever is read: a configuration that reads back, or an error, or a list.
void expect_sound(const std::string& text) {
    const auto made = imported({text});
    if (!made.has_value()) {
        EXPECT_FALSE(made.error().what.empty());
        return;
    }
    const auto written = config_text(made->config);
    ASSERT_TRUE(written.has_value()) << written.error().what.string();
    const auto back = parse_config("written", *written);
    ASSERT_TRUE(back.has_value()) << back.error().what.string() << "\n" << *written << "\n" << text;
    ASSERT_EQ(back->filters.size(), made->config.filters.size());
    for (std::size_t i = 0; i < back->filters.size(); i++)
        EXPECT_EQ(back->filters[i].rules.size(), made->config.filters[i].rules.size());
}

TEST(Import, MutationsAreReadOrRefused) {
    testing::Fuzz fuzz(20261130);
    for (const std::string& corpus :
         {iptables_corpus, nft_corpus, ipset_corpus, ufw_corpus, zone_corpus, status_corpus}) {
        expect_sound(corpus);
        for (int round = 0; round < 800 && !HasFailure(); round++) {
            std::string text = corpus;
            fuzz.damage(text, {"\n", "-", "9", "!", "\"", " ", ",", "::"});
            expect_sound(text);
        }
    }
}

TEST(Import, NoWordThatIsNotUnderstoodIsPassedOver) {
    // Names of one's own: anything may stand there.
    const auto is_free = [](const std::string& before) {
        return before == "-i" || before == "-o" || before == "--comment" ||
               before == "--log-prefix";
    };
    std::vector<std::string> rules;
    for (std::size_t at = 0; at < iptables_corpus.size();) {
        const std::size_t end = iptables_corpus.find('\n', at);
        rules.push_back(iptables_corpus.substr(at, end - at));
        at = end + 1;
    }
    std::size_t tried = 0;
    for (std::size_t number = 0; number < rules.size(); number++) {
        if (!rules[number].starts_with("-A INPUT"))
            continue;
        for (std::size_t at = 9; at < rules[number].size();) {
            const std::size_t end = std::min(rules[number].find(' ', at), rules[number].size());
            std::string text;
            for (std::size_t i = 0; i < rules.size(); i++)
                text += (i != number ? rules[i]
                                     : rules[i].substr(0, at) + "zz%" + rules[i].substr(end)) +
                        "\n";
            const std::size_t before = rules[number].rfind(' ', at - 2);
            const std::string option = rules[number].substr(before + 1, at - before - 2);
            const std::string word = rules[number].substr(at, end - at);
            at = end + 1;
            if (is_free(option))
                continue;
            const auto made = imported({text});
            tried++;
            const std::string place = "rules:" + std::to_string(number + 1);
            EXPECT_TRUE(!made.has_value() ||
                        std::any_of(made->not_taken.begin(), made->not_taken.end(),
                                    [&](const NotTaken& one) {
                                        return one.place == place &&
                                               one.reason.find("connection") == std::string::npos;
                                    }))
                << rules[number] << ": " << word;
        }
    }
    EXPECT_GT(tried, 50U);
}

TEST(Import, NoValueOfJsonThatIsNotUnderstoodIsPassedOver) {
    const Json whole = Json::parse(nft_corpus);
    const Json flat = whole.flatten();
    std::size_t tried = 0;
    for (const auto& [pointer, value] : flat.items()) {
        if (pointer.find("/rule/expr/") == std::string::npos || value.is_null())
            continue;
        Json changed = whole;
        changed[Json::json_pointer(pointer)] = "zz%";
        const auto made = imported({changed.dump()});
        tried++;
        EXPECT_TRUE(!made.has_value() || std::any_of(made->not_taken.begin(), made->not_taken.end(),
                                                     [](const NotTaken& one) {
                                                         return one.reason.find("connection") ==
                                                                std::string::npos;
                                                     }))
            << pointer;
    }
    EXPECT_GT(tried, 25U);
}

TEST(Import, ChainsThatGoRoundAreAnError) {
    const auto made =
        imported({filter(":a - [0:0]\n:b - [0:0]\n-A INPUT -j a\n-A a -j b\n-A b -j a\n")});
    ASSERT_FALSE(made.has_value());
    EXPECT_NE(made.error().what.find("circles"), std::string::npos);
}

TEST(Import, TooManyRulesAreAnError) {
    std::string many;
    for (int i = 0; i <= 100'000; i++)
        many += "-A INPUT -p tcp --dport 22 -j ACCEPT\n";
    const auto made = imported({filter(many)});
    ASSERT_FALSE(made.has_value());
    EXPECT_NE(made.error().what.find("more than 100000 rules"), std::string::npos);
}

} // namespace

} // namespace netctl::host
