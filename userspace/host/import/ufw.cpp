// SPDX-License-Identifier: GPL-2.0-only
//
// What ufw has around the rules of its users: ufw-framework(8).
#include <fmt/format.h>

#include "host/import/foreign.hpp"

namespace netctl::host {

namespace {

// What ufw lets in before all rules of users, for those who give user.rules alone.
constexpr const char* before4 =
    "*filter\n"
    "-A ufw-before-input -i lo -j ACCEPT\n"
    "-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
    "-A ufw-before-input -p icmp --icmp-type 3 -j ACCEPT\n"
    "-A ufw-before-input -p icmp --icmp-type 11 -j ACCEPT\n"
    "-A ufw-before-input -p icmp --icmp-type 12 -j ACCEPT\n"
    "-A ufw-before-input -p icmp --icmp-type 8 -j ACCEPT\n"
    "-A ufw-before-input -p udp --sport 67 --dport 68 -j ACCEPT\n"
    "-A ufw-before-input -d 224.0.0.251 -p udp --dport 5353 -j ACCEPT\n"
    "-A ufw-before-input -d 239.255.255.250 -p udp --dport 1900 -j ACCEPT\n";
constexpr const char* before6 =
    "*filter\n"
    "-A ufw6-before-input -i lo -j ACCEPT\n"
    "-A ufw6-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
    "-A ufw6-before-input -p icmpv6 --icmpv6-type 1 -j ACCEPT\n"
    "-A ufw6-before-input -p icmpv6 --icmpv6-type 2 -j ACCEPT\n"
    "-A ufw6-before-input -p icmpv6 --icmpv6-type 3 -j ACCEPT\n"
    "-A ufw6-before-input -p icmpv6 --icmpv6-type 4 -j ACCEPT\n"
    "-A ufw6-before-input -p icmpv6 --icmpv6-type 128 -j ACCEPT\n"
    "-A ufw6-before-input -p icmpv6 --icmpv6-type 133 -m hl --hl-eq 255 -j ACCEPT\n"
    "-A ufw6-before-input -p icmpv6 --icmpv6-type 134 -m hl --hl-eq 255 -j ACCEPT\n"
    "-A ufw6-before-input -p icmpv6 --icmpv6-type 135 -m hl --hl-eq 255 -j ACCEPT\n"
    "-A ufw6-before-input -p icmpv6 --icmpv6-type 136 -m hl --hl-eq 255 -j ACCEPT\n"
    "-A ufw6-before-input -s fe80::/10 -p icmpv6 --icmpv6-type 130 -j ACCEPT\n"
    "-A ufw6-before-input -s fe80::/10 -p icmpv6 --icmpv6-type 131 -j ACCEPT\n"
    "-A ufw6-before-input -s fe80::/10 -p icmpv6 --icmpv6-type 132 -j ACCEPT\n"
    "-A ufw6-before-input -s fe80::/10 -p icmpv6 --icmpv6-type 143 -j ACCEPT\n"
    "-A ufw6-before-input -s fe80::/10 -p udp --sport 547 --dport 546 -j ACCEPT\n"
    "-A ufw6-before-input -d ff02::fb -p udp --dport 5353 -j ACCEPT\n";

} // namespace

Result<> finish_ufw(Foreign& foreign) {
    for (const bool six : {false, true}) {
        const std::string table = six ? "ip6 filter" : "ip filter", prefix = six ? "ufw6-" : "ufw-";
        if (foreign.find(table, prefix + "user-input") == nullptr ||
            foreign.find(table, "INPUT") != nullptr)
            continue;
        if (foreign.find(table, prefix + "before-input") == nullptr)
            NETCTL_TRY(read_iptables(six ? "ufw's before6.rules" : "ufw's before.rules",
                                     six ? before6 : before4, true, foreign));
        const auto base = [&](const char* name, const char* part, ForeignHook hook,
                              Outcome policy) {
            ForeignChain chain;
            chain.table = table;
            chain.name = name;
            chain.ipv4 = !six;
            chain.ipv6 = six;
            chain.hook = hook;
            chain.type = "filter";
            chain.policy = policy;
            for (const char* where : {"before-", "user-", "after-"}) {
                ForeignRule call;
                call.place = "ufw";
                call.outcome = Outcome::jump;
                call.target = prefix + where + part;
                const ForeignChain* target = foreign.find(table, call.target);
                if (target != nullptr && !target->rules.empty())
                    chain.rules.push_back(std::move(call));
            }
            foreign.chains.push_back(std::move(chain));
        };
        base("INPUT", "input", ForeignHook::input, Outcome::drop);
        base("OUTPUT", "output", ForeignHook::output, Outcome::pass);
        base("FORWARD", "forward", ForeignHook::forward, Outcome::drop);
        foreign.notes.push_back(
            fmt::format("ufw's defaults for IPv{} are taken to be those that it comes with: deny "
                        "incoming, allow outgoing",
                        six ? 6 : 4));
    }
    return {};
}

} // namespace netctl::host
