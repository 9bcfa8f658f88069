// SPDX-License-Identifier: GPL-2.0-only
#include "host/metrics.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "bpf/map_count.hpp"
#include "core/abi_version.hpp"
#include "core/rule.hpp"
#include "datapath/root.hpp"
#include "datapath/rule_command.hpp"
#include "datapath/sets.hpp"
#include "host/exposition.hpp"
#include "host/status.hpp"

namespace netctl::host {

namespace {

constexpr std::array layers{NC_LAYER_CGROUP, NC_LAYER_LSM};

/// One of them, on its way into the text.
class Scrape {
  public:
    Scrape(RootOptions root, std::size_t max_rules)
        : root_(std::move(root)), max_rules_(max_rules) {}

    Metrics read();

  private:
    /// Where a packet filter is, as the first labels of its metrics.
    struct Place {
        std::string hook, netns, interface, direction;
    };
    struct Counted {
        Metric metric;
        std::uint64_t value;
    };

    void number(Metric metric, std::uint64_t value) { page_.add(metric, {}, value); }
    void point(Metric metric, const Place& place, std::uint64_t value) {
        page_.add(metric, {place.hook, place.netns, place.interface, place.direction}, value);
    }
    void point(Metric metric, const Place& place, std::string_view label, std::uint64_t value) {
        page_.add(metric, {place.hook, place.netns, place.interface, place.direction, label},
                  value);
    }
    /// The end of a part: what went wrong in it, if anything.
    void part(const char* name, const std::vector<std::string>& wrong);

    void hooks();
    void add_point(const Place& place, const datapath::FilterStatus& filter, const HookStatus& hook,
                   std::string_view mode);
    void add_policy(const policy::Status& status, const HookStatus& hook);
    void add_redirect(const redirect::Status& status, const HookStatus& hook);
    void add_targets(const std::vector<redirect::Controller::ListedTo>& rules);
    void add_sets(const std::vector<datapath::Set>& sets, std::vector<std::string> wrong);
    /// Calls `add` for the rules that have metrics, with the id as text; returns how many have none.
    template <class Add>
    std::size_t each_rule(const std::vector<datapath::RuleStatus>& rules, const Add& add) const;

    RootOptions root_;
    std::size_t max_rules_;
    Exposition page_;
    std::vector<std::string> unread_;
};

/// Only of these there is a metric of what was over, and from the beginning.
bool may_be_over(const datapath::RuleStatus& status) {
    return status.rule.limit || std::ranges::any_of(status.rule.actions, [](const Action& action) {
               return action.kind == ActionKind::rate;
           });
}

/// Exactly, where that is quick. To tell what expired in a hash each of a million elements would be looked up.
Result<std::size_t> elements_of(const datapath::Set& set) {
    constexpr std::size_t quickly_read = 4096;
    if (set.type() == datapath::SetType::host) {
        const std::size_t all = NETCTL_TRY(bpf::count_keys(set.addresses(Family::ipv4))) +
                                NETCTL_TRY(bpf::count_keys(set.addresses(Family::ipv6)));
        if (all > quickly_read)
            return all;
    }
    return NETCTL_TRY(set.size()).elements;
}

std::string wrong_at(const std::string& place, const std::string& trouble) {
    return fmt::format("{}: {}", place, trouble);
}

} // namespace

void Scrape::part(const char* name, const std::vector<std::string>& wrong) {
    page_.add(Metric::part_up, {name}, wrong.empty() ? 1 : 0);
    for (const std::string& one : wrong)
        unread_.push_back(fmt::format("{}: {}", name, one));
}

template <class Add>
std::size_t Scrape::each_rule(const std::vector<datapath::RuleStatus>& rules,
                              const Add& add) const {
    const bool all = rules.size() <= max_rules_;
    // Whatever stands in the maps: an id that is there twice would spoil the whole page.
    std::set<std::uint32_t> told;
    for (const datapath::RuleStatus& status : rules)
        if ((all || (!status.rule.comment.empty() && told.size() < max_rules_)) &&
            told.insert(status.rule.id).second)
            add(status, std::to_string(status.rule.id));
    return rules.size() - told.size();
}

void Scrape::add_point(const Place& place, const datapath::FilterStatus& filter,
                       const HookStatus& hook, std::string_view mode) {
    point(Metric::point_info, place, mode, 1);
    point(Metric::point_healthy, place, hook.in_force ? 1 : 0);
    // What could not be read must not look like counters that went back to 0.
    if (!filter.trouble.empty())
        return;
    const nc_stats& stats = filter.stats;
    point(Metric::point_generation, place, filter.settings.generation);
    point(Metric::point_rules, place, filter.rules.size());
    for (std::uint32_t verdict = 0; verdict < NC_VERDICTS; verdict++)
        point(Metric::point_packets, place, datapath::to_string(static_cast<nc_verdict>(verdict)),
              filter.packets_with(static_cast<nc_verdict>(verdict)));
    point(Metric::point_bytes, place, stats.bytes);
    point(Metric::point_default_packets, place, stats.default_packets);
    point(Metric::point_default_bytes, place, stats.default_bytes);
    for (std::uint32_t reason = 0; reason < NC_UNPARSED_REASONS; reason++)
        point(Metric::point_unparsed, place, datapath::to_string(static_cast<nc_unparsed>(reason)),
              stats.unparsed[reason]);
    point(Metric::point_limited, place, "limit", stats.over_limit);
    point(Metric::point_limited, place, "rate", stats.over_rate);
    point(Metric::point_failures, place, "redirect", stats.redirect_failed);
    point(Metric::point_failures, place, "limit", stats.limit_failed);
    point(Metric::point_failures, place, "mirror", stats.mirror_failed);
    point(Metric::point_failures, place, "rewrite", stats.rewrite_failed);
    point(Metric::point_failures, place, "reject", filter.rejects.failed);
    point(Metric::point_failures, place, "over-add", filter.over_adds.full);
    point(Metric::point_failures, place, "syncookie", filter.syncookies.failed);
    point(Metric::point_log_events, place, "written", stats.log_written);
    point(Metric::point_log_events, place, "lost", stats.log_lost);
    point(Metric::point_log_events, place, "suppressed", stats.log_suppressed);
    const std::size_t omitted =
        each_rule(filter.rules, [&](const datapath::RuleStatus& status, const std::string& id) {
            page_.add(Metric::rule_info,
                      {place.hook, place.netns, place.interface, place.direction, id,
                       datapath::text_of(status)},
                      1);
            point(Metric::rule_packets, place, id, status.counter.packets);
            point(Metric::rule_bytes, place, id, status.counter.bytes);
            if (may_be_over(status))
                point(Metric::rule_limited, place, id, status.counter.over_packets);
        });
    point(Metric::point_rules_omitted, place, omitted);
}

void Scrape::add_policy(const policy::Status& status, const HookStatus& hook) {
    const nc_policy_stats& stats = status.stats;
    number(Metric::policy_healthy, hook.in_force ? 1 : 0);
    if (!status.enabled) // hooks that do nothing
        return;
    number(Metric::policy_rules, status.rules.size());
    for (const nc_policy_layer layer : layers) {
        const std::string name = policy::to_string(layer);
        page_.add(Metric::policy_layer_live, {name}, status.layers[layer].live ? 1 : 0);
        page_.add(Metric::policy_decisions, {name, "allow"}, stats.allowed[layer]);
        page_.add(Metric::policy_decisions, {name, "deny"}, stats.denied[layer]);
        page_.add(Metric::policy_decisions, {name, "would_deny"}, stats.would_deny[layer]);
        page_.add(Metric::policy_default, {name}, stats.by_default[layer]);
        page_.add(Metric::policy_failures, {name}, stats.failed[layer]);
    }
    page_.add(Metric::policy_log_events, {"written"}, stats.log_written);
    page_.add(Metric::policy_log_events, {"lost"}, stats.log_lost);
    page_.add(Metric::policy_log_events, {"suppressed"}, stats.log_suppressed);
    const std::size_t omitted =
        each_rule(status.rules, [&](const datapath::RuleStatus& rule, const std::string& id) {
            page_.add(Metric::policy_rule_info, {id, datapath::text_of(rule)}, 1);
            // Its counter has connections by layer: see RuleStatus.
            const std::array<std::array<std::uint64_t, 2>, NC_LAYERS> counted{
                {{rule.counter.packets, rule.counter.over_packets},
                 {rule.counter.bytes, rule.counter.over_bytes}}};
            for (const nc_policy_layer layer : layers) {
                const std::string name = policy::to_string(layer);
                page_.add(Metric::policy_rule_decisions, {name, id}, counted[layer][0]);
                if (may_be_over(rule))
                    page_.add(Metric::policy_rule_limited, {name, id}, counted[layer][1]);
            }
        });
    number(Metric::policy_rules_omitted, omitted);
}

void Scrape::add_redirect(const redirect::Status& status, const HookStatus& hook) {
    const nc_rd_stats& stats = status.stats;
    number(Metric::redirect_healthy, hook.in_force ? 1 : 0);
    if (!status.enabled) // hooks that do nothing
        return;
    number(Metric::redirect_joiner_up, status.joiner ? 1 : 0);
    page_.add(Metric::redirect_connections, {"joined"}, status.joined);
    page_.add(Metric::redirect_connections, {"leaving"}, status.leaving);
    number(Metric::redirect_announced, stats.announced);
    number(Metric::redirect_joined, stats.joined);
    for (std::uint32_t reason = NC_RD_REASON_NONE + 1; reason < NC_RD_REASONS; reason++)
        if (reason != NC_RD_REASON_AGAIN) // never counted
            page_.add(Metric::redirect_left, {redirect::reason_name(reason)}, stats.on_tcp[reason]);
    page_.add(Metric::redirect_messages, {"redirected"}, stats.redirected_messages);
    page_.add(Metric::redirect_messages, {"tcp"}, stats.passed_messages);
    page_.add(Metric::redirect_bytes, {"redirected"}, stats.redirected_bytes);
    page_.add(Metric::redirect_bytes, {"tcp"}, stats.passed_bytes);
    number(Metric::redirect_failures, stats.helper_failed);
}

void Scrape::add_targets(const std::vector<redirect::Controller::ListedTo>& rules) {
    for (const auto& rule : rules) {
        const std::string id = std::to_string(rule.rule.id);
        bool asked = false;
        for (const auto& one : rule.targets) {
            const std::string target = to_string(one.target);
            page_.add(Metric::redirect_target_connections, {id, target}, one.connections);
            page_.add(Metric::redirect_target_datagrams, {id, target}, one.datagrams);
            if (one.health)
                page_.add(Metric::redirect_target_up, {id, target},
                          one.health->state == NC_RD_TO_DOWN ? 0 : 1);
            asked = asked || one.health;
        }
        if (!asked)
            continue;
        page_.add(Metric::redirect_all_down, {id, "refused"}, rule.failed.refused);
        page_.add(Metric::redirect_all_down, {id, "opened"}, rule.failed.opened);
    }
}

void Scrape::hooks() {
    std::vector<std::string> wrong;
    if (const auto points = xdp::Controller(root_, "").status_of_all(); points.has_value()) {
        for (const xdp::Status& one : *points) {
            add_point({"xdp", one.netns, one.interface, "ingress"}, one, hook_of(one),
                      xdp::to_string(one.mode));
            if (!one.trouble.empty())
                wrong.push_back(wrong_at(one.interface, one.trouble));
        }
    } else {
        wrong.push_back(points.error().what);
    }
    part("xdp", std::exchange(wrong, {}));
    if (const auto points = tc::Controller(root_, "").status_of_all(); points.has_value()) {
        for (const tc::Status& one : *points) {
            const std::string direction = tc::to_string(one.direction);
            add_point({"tc", one.netns, one.interface, direction}, one, hook_of(one),
                      tc::to_string(one.mode));
            if (!one.trouble.empty())
                wrong.push_back(wrong_at(one.interface + " " + direction, one.trouble));
        }
    } else {
        wrong.push_back(points.error().what);
    }
    part("tc", std::exchange(wrong, {}));
    const auto policy = policy::Controller(root_).status(policy::Controller::Why::skip);
    if (!policy) {
        wrong.push_back(policy.error().what);
    } else if (const auto hook = hook_of(*policy)) {
        add_policy(*policy, *hook);
        if (!policy->trouble.empty())
            wrong.push_back(policy->trouble);
    }
    part("policy", std::exchange(wrong, {}));
    const auto redirect = redirect::Controller(root_).status();
    if (!redirect)
        wrong.push_back(redirect.error().what);
    else if (const auto hook = hook_of(*redirect))
        add_redirect(*redirect, *hook);
    if (redirect && redirect->to_rules != 0) {
        const auto rules = redirect::Controller(root_).to_list();
        if (rules)
            add_targets(*rules);
        else
            wrong.push_back(rules.error().what);
    }
    part("redirect", wrong);
}

void Scrape::add_sets(const std::vector<datapath::Set>& sets, std::vector<std::string> wrong) {
    for (const datapath::Set& set : sets) {
        const std::string type = datapath::to_string(set.type());
        page_.add(Metric::set_size, {set.name(), type}, set.max_entries());
        if (const auto count = elements_of(set); count)
            page_.add(Metric::set_elements, {set.name(), type}, *count);
        else
            wrong.push_back(wrong_at(set.name(), count.error().what));
    }
    part("set", wrong);
}

Metrics Scrape::read() {
    const auto begin = std::chrono::steady_clock::now();
    page_.add(Metric::build_info, {NETCTL_VERSION, std::to_string(abi_version())}, 1);
    std::vector<datapath::Set> sets;
    std::vector<std::string> wrong;
    {
        const auto reading = datapath::OneReading::begin(root_);
        const auto root =
            reading ? datapath::Root::open(root_) : Result<datapath::Root>(reading.error());
        part("root", root ? std::vector<std::string>() : std::vector{root.error().what.string()});
        if (root) {
            hooks();
            for (const std::string& name : datapath::Set::list(*root)) {
                auto set = datapath::Set::open(*root, name);
                if (set)
                    sets.push_back(std::move(*set));
                else
                    wrong.push_back(wrong_at(name, set.error().what));
            }
        }
    }
    // A million elements take a tenth of a second to count: without the lock, and so about.
    add_sets(sets, std::move(wrong));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    page_.add_seconds(Metric::scrape_duration, {}, took.count());
    Metrics metrics;
    metrics.samples = page_.samples();
    metrics.text = page_.take_text();
    metrics.unread = std::move(unread_);
    return metrics;
}

Metrics read_metrics(const RootOptions& root, std::size_t max_rules) {
    return Scrape(root, max_rules).read();
}

} // namespace netctl::host
