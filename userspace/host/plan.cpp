// SPDX-License-Identifier: GPL-2.0-only
#include "host/plan.hpp"

#include <algorithm>
#include <fnmatch.h>
#include <functional>

#include <fmt/format.h>

#include "core/suggest.hpp"
#include "host/element_text.hpp"
#include "sys/cgroup.hpp"
#include "sys/device.hpp"
#include "sys/netlink.hpp"
#include "sys/netns.hpp"

namespace netctl::host {

namespace {

/// Elements that a plan shows; of more only their number.
constexpr std::size_t most_shown = 20;

using Lines = std::vector<std::string>;

/// What is in one list and not in the other, in their order: what has to go and what has to come.
void diff_lines(const Lines& from, const Lines& to, Lines& lines) {
    // The longest common part at both ends; what lies between went and came.
    std::size_t head = 0, tail = 0;
    while (head < from.size() && head < to.size() && from[head] == to[head])
        head++;
    while (tail + head < from.size() && tail + head < to.size() &&
           from[from.size() - 1 - tail] == to[to.size() - 1 - tail])
        tail++;
    const auto tell = [&](const Lines& of, char sign) {
        const std::size_t end = of.size() - tail;
        for (std::size_t i = head; i < end; i++) {
            if (i - head == most_shown) {
                lines.push_back(fmt::format("{} … {} more", sign, end - i));
                return;
            }
            lines.push_back(fmt::format("{} {}", sign, of[i]));
        }
    };
    tell(from, '-');
    tell(to, '+');
}

/// One setting: `default pass -> drop`.
template <class T> void diff_one(const char* what, const T& from, const T& to, Lines& lines) {
    if (from != to)
        lines.push_back(fmt::format("{} {} -> {}", what, from, to));
}

const char* verdict_word(nc_verdict verdict) {
    return verdict == NC_VERDICT_DROP ? "drop" : verdict == NC_VERDICT_NEXT ? "next" : "pass";
}

/// Elements alike, whatever time they have left.
Lines member_lines(const std::vector<datapath::ListedElement>& elements) {
    std::vector<datapath::ListedElement> lasting = elements;
    for (auto& element : lasting)
        element.ttl = element.ttl != 0 ? 1 : 0;
    Lines lines = element_lines(lasting);
    std::ranges::sort(lines);
    return lines;
}

/// Of two sorted lists.
void diff_members(const Lines& from, const Lines& to, Lines& lines) {
    Lines gone, come;
    std::ranges::set_difference(from, to, std::back_inserter(gone));
    std::ranges::set_difference(to, from, std::back_inserter(come));
    diff_lines(gone, {}, lines);
    diff_lines({}, come, lines);
}

bool fits(const std::string& pattern, const std::string& word) {
    return fnmatch(pattern.c_str(), word.c_str(), 0) == 0;
}

/// Whether an entry of a configuration is about an interface of the current network namespace.
bool is_meant(const FilterConfig& filter, const std::string& name) {
    const InterfaceMatch& match = filter.match;
    return (filter.interface.empty() || fits(filter.interface, name)) &&
           (match.driver.empty() || fits(match.driver, sys::driver_of(name))) &&
           (match.mac.empty() || fits(match.mac, sys::mac_of(name))) &&
           (match.altname.empty() || sys::has_altname(name, match.altname));
}

/// `called eth* with the driver virtio_net`.
std::string meant(const FilterConfig& filter) {
    std::vector<std::string> words;
    for (const auto& [what, value] :
         {std::pair("called", filter.interface), std::pair("of driver", filter.match.driver),
          std::pair("of mac", filter.match.mac), std::pair("of altname", filter.match.altname)})
        if (!value.empty())
            words.push_back(fmt::format("{} {}", what, value));
    return fmt::format("{}", fmt::join(words, ", "));
}

class PlanMaker {
  public:
    PlanMaker(const HostConfig& wanted, const HostConfig& present, const std::string& netns,
              MissingInterface missing)
        : wanted_(wanted), present_(present), netns_(netns), missing_(missing) {}

    Result<Plan> make() {
        filters_ = NETCTL_TRY(expand());
        for (const auto& [name, set] : wanted_.sets)
            NETCTL_TRY(plan_set(set));
        NETCTL_TRY(check_sets());
        NETCTL_TRY(plan_policy());
        for (const FilterConfig& filter : filters_)
            NETCTL_TRY(plan_filter(filter));
        NETCTL_TRY(plan_redirect());
        plan_.objects = wanted_.sets.size() + filters_.size() + (wanted_.policy ? 1 : 0) +
                        (wanted_.redirect ? 1 : 0);
        plan_removals();
        return std::move(plan_);
    }

  private:
    const FilterConfig* filter_present(const std::string& title) const {
        const auto found = std::ranges::find_if(
            present_.filters, [&](const FilterConfig& one) { return one.title() == title; });
        return found == present_.filters.end() ? nullptr : &*found;
    }

    void push(Step step, bool was, bool will) {
        step.action = !was ? "add" : !will ? "remove" : "change";
        plan_.steps.push_back(std::move(step));
    }

    /// Patterns become the interfaces that they match.
    Result<std::vector<FilterConfig>> expand() {
        std::vector<FilterConfig> all;
        std::map<std::string, std::string> origin;
        for (FilterConfig filter : wanted_.filters) {
            if (filter.netns.empty())
                filter.netns = netns_;
            const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(filter.netns));
            std::vector<std::string> names, matching;
            for (const sys::Interface& interface : NETCTL_TRY(sys::list_interfaces()))
                names.push_back(interface.name);
            for (const std::string& name : names)
                if (is_meant(filter, name))
                    matching.push_back(name);
            if (matching.empty()) {
                const std::string what =
                    filter.match.any()
                        ? fmt::format("{}: no interface is {}", filter.where, meant(filter))
                        : fmt::format("{}: no interface is called {}{}", filter.where,
                                      filter.interface, did_you_mean(filter.interface, names));
                if (!filter.optional && missing_ == MissingInterface::error)
                    return Error::failed(what, "`optional: true` leaves out what is not there");
                plan_.notes.push_back(what + ": it is left out");
            }
            filter.match = {};
            for (const std::string& name : matching) {
                filter.interface = name;
                const auto [said, is_first] = origin.emplace(filter.title(), filter.where);
                if (!is_first)
                    return Error::usage(
                        fmt::format("{}: {} is told of twice", filter.where, filter.title()),
                        fmt::format("{} names it already", said->second));
                all.push_back(filter);
            }
        }
        return all;
    }

    Result<> plan_set(SetConfig wanted) {
        if (wanted.type == datapath::SetType::name && wanted.netns.empty())
            wanted.netns = netns_;
        Step step{.title = "set " + wanted.name};
        const auto found = present_.sets.find(wanted.name);
        if (found == present_.sets.end()) {
            step.set_to = wanted;
            step.lines.push_back(fmt::format("type {}", datapath::to_string(wanted.type)));
            diff_members({}, member_lines(wanted.elements), step.lines);
            diff_members({}, wanted.names, step.lines);
            push(std::move(step), false, true);
            return {};
        }
        const SetConfig& present = found->second;
        const auto fixed = [&](const char* what, const auto& is, const auto& should) {
            return Error::failed(
                fmt::format("set {} has {} {}, and cannot get {}", wanted.name, what, is, should),
                "another name, or `netctl set destroy` first");
        };
        if (present.type != wanted.type)
            return fixed("type", datapath::to_string(present.type),
                         datapath::to_string(wanted.type));
        if (wanted.size && present.size && *wanted.size != *present.size)
            return fixed("size", *present.size, *wanted.size);
        if (wanted.netns != present.netns)
            return fixed("netns", present.netns.empty() ? "its own" : present.netns,
                         wanted.netns.empty() ? "its own" : wanted.netns);
        if (wanted.grace && present.grace && *wanted.grace != *present.grace)
            return fixed("grace", *present.grace, *wanted.grace);
        if (wanted.external)
            return {};
        diff_members(member_lines(present.elements), member_lines(wanted.elements), step.lines);
        diff_members(present.names, wanted.names, step.lines);
        if (!wanted.resolvers.empty() && wanted.resolvers != present.resolvers)
            step.lines.push_back(fmt::format("resolvers {} -> {}",
                                             fmt::join(present.resolvers, ", "),
                                             fmt::join(wanted.resolvers, ", ")));
        if (step.lines.empty())
            return {};
        step.set_from = present;
        step.set_to = wanted;
        push(std::move(step), true, true);
        return {};
    }

    /// Sets that rules name have to be there, or to come.
    Result<> check_sets() const {
        const auto check = [&](const std::string& where,
                               const std::vector<Rule>& rules) -> Result<> {
            for (const Rule& rule : rules)
                for (const std::string& set : sets_of(rule))
                    if (!wanted_.sets.contains(set) &&
                        (!present_.sets.contains(set) || wanted_.absent.contains("set " + set)))
                        return Error::failed(
                            fmt::format("{}: there is no set {}: {}", where, set, to_string(rule)),
                            "`sets` in the file makes it, or `netctl set create`");
            return {};
        };
        for (const FilterConfig& filter : filters_)
            NETCTL_TRY(check(filter.where + ": " + filter.title(), filter.rules));
        if (wanted_.policy)
            NETCTL_TRY(check("policy", wanted_.policy->rules));
        return {};
    }

    Result<> plan_filter(const FilterConfig& wanted) {
        Step step{.title = wanted.title()};
        step.filter_to = wanted;
        const FilterConfig* present = filter_present(step.title);
        if (present == nullptr) {
            step.lines.push_back(fmt::format("default {}", verdict_word(wanted.default_verdict)));
            diff_lines({}, rule_texts(wanted.rules), step.lines);
            push(std::move(step), false, true);
            return {};
        }
        if (!wanted.mode.empty() && wanted.mode != present->mode)
            return Error::failed(
                fmt::format("{} is attached in mode {}, and cannot get {} without a moment in "
                            "which nothing filters",
                            step.title, present->mode, wanted.mode),
                "detach it first, or leave `mode` out");
        diff_one("default", std::string(verdict_word(present->default_verdict)),
                 std::string(verdict_word(wanted.default_verdict)), step.lines);
        diff_one("on-unparsed", std::string(verdict_word(present->unparsed_verdict)),
                 std::string(verdict_word(wanted.unparsed_verdict)), step.lines);
        diff_one("log-rate", present->log_rate, wanted.log_rate, step.lines);
        diff_lines(rule_texts(present->rules), rule_texts(wanted.rules), step.lines);
        if (step.lines.empty())
            return {};
        step.filter_from = *present;
        push(std::move(step), true, true);
        return {};
    }

    Result<> plan_policy() {
        if (!wanted_.policy)
            return {};
        PolicyConfig wanted = *wanted_.policy;
        wanted.cgroup = NETCTL_TRY(sys::find_cgroup(wanted.cgroup)).name;
        Step step{.title = "policy"};
        const auto& present = present_.policy;
        if (present) {
            if (present->cgroup != wanted.cgroup)
                return cgroup_differs("the policy", present->cgroup, wanted.cgroup);
            if (!wanted.layer.empty() && wanted.layer != present->layer)
                return Error::failed(
                    fmt::format("the policy has the layer {}, and cannot get {} while it runs",
                                present->layer, wanted.layer),
                    "`netctl policy disable` first, or leave `layer` out");
        }
        const auto mode = [](const PolicyConfig& one) {
            return std::string(one.mode == NC_POLICY_MODE_AUDIT ? "audit" : "enforce");
        };
        const auto verdict = [](const PolicyConfig& one) {
            return std::string(one.default_verdict == NC_POLICY_DENY ? "deny" : "allow");
        };
        if (!present)
            step.lines.push_back(fmt::format("cgroup {}, mode {}, default {}", wanted.cgroup,
                                             mode(wanted), verdict(wanted)));
        else {
            diff_one("mode", mode(*present), mode(wanted), step.lines);
            diff_one("default", verdict(*present), verdict(wanted), step.lines);
            diff_one("log-rate", present->log_rate, wanted.log_rate, step.lines);
        }
        diff_lines(present ? rule_texts(present->rules) : Lines(), rule_texts(wanted.rules),
                   step.lines);
        if (step.lines.empty())
            return {};
        step.policy_from = present;
        step.policy_to = wanted;
        push(std::move(step), present.has_value(), true);
        return {};
    }

    static Error cgroup_differs(const char* what, const std::string& is,
                                const std::string& should) {
        return Error::failed(
            fmt::format("{} is of the cgroup {}, and cannot get to {} while it runs", what, is,
                        should),
            "disable it first");
    }

    Result<> plan_redirect() {
        if (!wanted_.redirect)
            return {};
        RedirectConfig wanted = *wanted_.redirect;
        wanted.cgroup = NETCTL_TRY(sys::find_cgroup(wanted.cgroup)).name;
        Step step{.title = "redirect"};
        const auto& present = present_.redirect;
        if (present && present->cgroup != wanted.cgroup)
            return cgroup_differs("redirection", present->cgroup, wanted.cgroup);
        if (present && (present->allow_blocking != wanted.allow_blocking ||
                        present->cross_netns != wanted.cross_netns))
            return Error::failed("redirection is enabled, and cannot get other settings while it "
                                 "runs: allow-blocking, cross-netns",
                                 "`netctl redirect disable` first");
        if (!present)
            step.lines.push_back(fmt::format("cgroup {}", wanted.cgroup));
        diff_lines(present ? rule_texts(present->rules) : Lines(), rule_texts(wanted.rules),
                   step.lines);
        Lines to;
        diff_lines(present ? rule_texts(present->to) : Lines(), rule_texts(wanted.to), to);
        step.lines.insert(step.lines.end(), to.begin(), to.end());
        if (step.lines.empty())
            return {};
        step.redirect_from = present;
        step.redirect_to = wanted;
        push(std::move(step), present.has_value(), true);
        return {};
    }

    /// Behind all else, so that nothing is open before what comes is in force; the sets last, which others use.
    void plan_removals() {
        const auto goes = [&](const std::string& title, bool named) {
            return !named && (wanted_.prune || wanted_.absent.contains(title));
        };
        if (present_.redirect && goes("redirect", wanted_.redirect.has_value())) {
            Step step{.title = "redirect"};
            step.redirect_from = present_.redirect;
            push(std::move(step), true, false);
        }
        for (const FilterConfig& filter : present_.filters) {
            const std::string title = filter.title();
            const bool named = std::ranges::any_of(
                filters_, [&](const FilterConfig& one) { return one.title() == title; });
            // `absent` names points of --netns without it, as entries do.
            FilterConfig here = filter;
            if (here.netns == netns_)
                here.netns.clear();
            if (!goes(title, named) && !goes(here.title(), named))
                continue;
            Step step{.title = title};
            step.filter_from = filter;
            push(std::move(step), true, false);
        }
        if (present_.policy && goes("policy", wanted_.policy.has_value())) {
            Step step{.title = "policy"};
            step.policy_from = present_.policy;
            push(std::move(step), true, false);
        }
        for (const auto& [name, set] : present_.sets)
            if (goes("set " + name, wanted_.sets.contains(name))) {
                Step step{.title = "set " + name};
                step.set_from = set;
                push(std::move(step), true, false);
            }
    }

    const HostConfig& wanted_;
    const HostConfig& present_;
    const std::string& netns_;
    MissingInterface missing_;
    std::vector<FilterConfig> filters_;
    Plan plan_;
};

} // namespace

Step Step::reversed() const {
    Step back = *this;
    back.only_adds = false;
    std::swap(back.set_from, back.set_to);
    std::swap(back.filter_from, back.filter_to);
    std::swap(back.policy_from, back.policy_to);
    std::swap(back.redirect_from, back.redirect_to);
    return back;
}

Result<Plan> make_plan(const HostConfig& wanted, const HostConfig& present,
                       const std::string& netns, MissingInterface missing) {
    return PlanMaker(wanted, present, netns, missing).make();
}

HostConfig way_back(const std::vector<Step>& steps) {
    HostConfig back;
    for (const Step& step : steps) {
        if (step.set_from)
            back.sets.emplace(step.set_from->name, *step.set_from);
        else if (step.filter_from)
            back.filters.push_back(*step.filter_from);
        else if (step.policy_from)
            back.policy = step.policy_from;
        else if (step.redirect_from)
            back.redirect = step.redirect_from;
        else
            back.absent.insert(step.title);
    }
    return back;
}

HostConfig way_on(const std::vector<Step>& steps) {
    std::vector<Step> back;
    for (const Step& step : steps)
        back.push_back(step.reversed());
    return way_back(back);
}

Result<std::string> fingerprint(const Step& step) {
    HostConfig was = way_back({step});
    for (auto& [name, set] : was.sets)
        for (datapath::ListedElement& element : set.elements)
            element.ttl = element.ttl != 0 ? 1 : 0;
    std::uint64_t hash = 0xcbf29ce484222325; // FNV-1a, by Fowler, Noll and Vo
    for (const char c : NETCTL_TRY(config_text(was)))
        hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    return fmt::format("{:016x}", hash);
}

} // namespace netctl::host
