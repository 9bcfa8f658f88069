// SPDX-License-Identifier: GPL-2.0-only
#include "host/import/import.hpp"

#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "host/import/flatten.hpp"

namespace netctl::host {

namespace {

/// Chains that netctl has no place for, in one line each.
void tell_chain(const ForeignChain& chain, std::vector<NotTaken>& not_taken) {
    const bool forward = chain.hook == ForeignHook::forward;
    if (!forward && chain.hook != ForeignHook::other)
        return;
    const bool drops = chain.policy == Outcome::drop;
    if (chain.rules.empty() && !drops)
        return;
    const std::string place = chain.table + " " + chain.name;
    const std::string count =
        fmt::format("{} rule{}", chain.rules.size(), chain.rules.size() == 1 ? "" : "s");
    if (forward && chain.rules.empty())
        not_taken.push_back({place, "policy drop",
                             "what is routed through this host is judged where it arrives: leave "
                             "net.ipv4.ip_forward and net.ipv6.conf.all.forwarding at 0",
                             effect_none});
    else if (forward)
        not_taken.push_back({place, count,
                             "what is routed through this host is judged by the rules of what "
                             "arrives: netctl has no chain of its own for it",
                             effect_weaker | effect_cuts});
    else if (chain.type == "nat")
        not_taken.push_back({place, count,
                             "netctl does not translate addresses: leave them where they are",
                             effect_none});
    else
        not_taken.push_back({place, count, fmt::format("netctl has no such place ({})", chain.type),
                             chain.type == "filter" ? effect_weaker : effect_none});
}

std::string interfaces_named(const Foreign& foreign) {
    std::set<std::string> names;
    for (const ForeignChain& chain : foreign.chains)
        for (const ForeignRule& rule : chain.rules)
            for (const InterfaceTest& test : rule.interfaces)
                names.insert(test.names.begin(), test.names.end());
    names.erase("lo");
    return fmt::format("{}", fmt::join(names, ", "));
}

} // namespace

Result<Imported> import(Foreign foreign, const ImportOptions& options) {
    Imported made;
    made.not_taken = std::move(foreign.not_taken);
    made.notes = std::move(foreign.notes);
    bool judged = foreign.filter.has_value();
    for (const ForeignChain& chain : foreign.chains) {
        tell_chain(chain, made.not_taken);
        judged =
            judged || ((chain.hook == ForeignHook::input || chain.hook == ForeignHook::output) &&
                       (!chain.rules.empty() || chain.policy == Outcome::drop));
    }
    if (judged && options.interfaces.empty()) {
        const std::string named = interfaces_named(foreign);
        return Error::usage("--interfaces is missing: which ones are to be filtered",
                            named.empty() ? Text("--interfaces eth0, or several: eth0,eth1")
                                          : Text::format("the rules name {}", named));
    }
    for (const Family family : {Family::ipv4, Family::ipv6}) {
        const auto sees = [&](const ForeignChain& chain) {
            return chain.hook == ForeignHook::input &&
                   (family == Family::ipv4 ? chain.ipv4 : chain.ipv6);
        };
        if (judged && !foreign.filter &&
            std::none_of(foreign.chains.begin(), foreign.chains.end(), sees))
            made.notes.push_back(fmt::format("no rules for IPv{} are there: all of it is let in",
                                             family == Family::ipv4 ? 4 : 6));
    }
    if (foreign.filter)
        for (const std::string& interface : options.interfaces) {
            made.rules = foreign.filter->rules.size();
            FilterConfig filter = *foreign.filter;
            filter.hook = options.input;
            filter.interface = interface;
            if (filter.hook == Hook::tc)
                filter.direction = "ingress";
            made.config.filters.push_back(std::move(filter));
        }
    std::set<std::string> places;
    for (const ForeignChain& chain : foreign.chains)
        if (chain.hook != ForeignHook::other && chain.hook != ForeignHook::forward)
            for (const ForeignRule& rule : chain.rules)
                places.insert(rule.place);
    made.rules += places.size();
    for (const bool egress : {false, true})
        for (const std::string& interface : options.interfaces) {
            const Hook hook = egress ? Hook::tc : options.input;
            Flattened list =
                NETCTL_TRY(flatten(foreign, {hook, egress, interface}, made.not_taken));
            if (list.rules.empty() && list.fallback == NC_VERDICT_PASS)
                continue;
            FilterConfig filter;
            filter.hook = hook;
            filter.interface = interface;
            if (hook == Hook::tc)
                filter.direction = egress ? "egress" : "ingress";
            filter.default_verdict = list.fallback;
            filter.rules = std::move(list.rules);
            filter.remarks = std::move(list.remarks);
            made.config.filters.push_back(std::move(filter));
        }
    made.config.sets = std::move(foreign.sets);
    for (const NotTaken& one : made.not_taken)
        made.effect |= one.effect;
    return made;
}

} // namespace netctl::host
