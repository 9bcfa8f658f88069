// SPDX-License-Identifier: GPL-2.0-only
#include "host/metrics_table.hpp"

#include <array>

#include <fmt/format.h>

namespace netctl::host {

namespace {

// A direction of an interface: what one filter is attached to.
#define NETCTL_POINT "hook,netns,interface,direction"

constexpr std::array table{
    MetricInfo{
        Metric::build_info, "netctl_build_info", "gauge", "version,abi",
        "The netctl that answers, and the version of the layout of its pinned maps; always 1."},
    MetricInfo{Metric::scrape_duration, "netctl_scrape_duration_seconds", "gauge", "",
               "How long it took to read all of this."},
    MetricInfo{Metric::part_up, "netctl_part_up", "gauge", "part",
               "1 if this part could be read as a whole, 0 if metrics of it are missing."},
    MetricInfo{Metric::point_info, "netctl_point_info", "gauge", NETCTL_POINT ",mode",
               "A point where a packet filter is, and how it is attached; always 1."},
    MetricInfo{Metric::point_healthy, "netctl_point_healthy", "gauge", NETCTL_POINT,
               "1 if the filter is in force and all of it can be read, whatever it has "
               "counted; netctl status tells why not."},
    MetricInfo{Metric::point_generation, "netctl_point_generation", "gauge", NETCTL_POINT,
               "Grows by one with each change of the rules or settings."},
    MetricInfo{Metric::point_rules, "netctl_point_rules", "gauge", NETCTL_POINT, "Rules in force."},
    MetricInfo{Metric::point_rules_omitted, "netctl_point_rules_omitted", "gauge", NETCTL_POINT,
               "Rules in force that have no metrics of their own, being above --max-rules."},
    MetricInfo{Metric::point_packets, "netctl_point_packets_total", "counter",
               NETCTL_POINT ",verdict", "Packets that the filter saw, by the verdict in the end."},
    MetricInfo{Metric::point_bytes, "netctl_point_bytes_total", "counter", NETCTL_POINT,
               "Bytes of all packets that the filter saw."},
    MetricInfo{Metric::point_default_packets, "netctl_point_default_packets_total", "counter",
               NETCTL_POINT, "Packets that no rule matched."},
    MetricInfo{Metric::point_default_bytes, "netctl_point_default_bytes_total", "counter",
               NETCTL_POINT, "Bytes of the packets that no rule matched."},
    MetricInfo{Metric::point_unparsed, "netctl_point_unparsed_packets_total", "counter",
               NETCTL_POINT ",reason", "Packets that could not be parsed."},
    MetricInfo{Metric::point_limited, "netctl_point_limited_packets_total", "counter",
               NETCTL_POINT ",by", "Packets dropped for being over a rule's limit or rate."},
    MetricInfo{Metric::point_failures, "netctl_point_failures_total", "counter",
               NETCTL_POINT ",kind",
               "Packets whose action could not be done: no redirect target, no room for a limit's "
               "state, no mirror, no rewriting, no answer, no room in a set."},
    MetricInfo{Metric::point_log_events, "netctl_point_log_events_total", "counter",
               NETCTL_POINT ",outcome",
               "Log events that were written, lost since the buffer was full, or suppressed by the "
               "log's rate."},
    MetricInfo{Metric::rule_info, "netctl_rule_info", "gauge", NETCTL_POINT ",rule,text",
               "The text of a rule, to be joined by its id; always 1."},
    MetricInfo{Metric::rule_packets, "netctl_rule_packets_total", "counter", NETCTL_POINT ",rule",
               "Packets that got the rule's action."},
    MetricInfo{Metric::rule_bytes, "netctl_rule_bytes_total", "counter", NETCTL_POINT ",rule",
               "Bytes of the packets that got the rule's action."},
    MetricInfo{Metric::rule_limited, "netctl_rule_limited_packets_total", "counter",
               NETCTL_POINT ",rule",
               "Packets that matched the rule, but were over its limit or rate."},
    MetricInfo{Metric::set_elements, "netctl_set_elements", "gauge", "set,type",
               "Elements of a set, of a large host set those that expired included."},
    MetricInfo{Metric::set_size, "netctl_set_max_elements", "gauge", "set,type",
               "How many elements of each family a set has room for."},
    MetricInfo{Metric::policy_healthy, "netctl_policy_healthy", "gauge", "",
               "1 if the policy is in force and all of it can be read, whatever it has counted."},
    MetricInfo{Metric::policy_layer_live, "netctl_policy_layer_live", "gauge", "layer",
               "1 if this layer of the policy judges connections."},
    MetricInfo{Metric::policy_rules, "netctl_policy_rules", "gauge", "", "Rules of the policy."},
    MetricInfo{Metric::policy_rules_omitted, "netctl_policy_rules_omitted", "gauge", "",
               "Rules of the policy that have no metrics of their own, being above --max-rules."},
    MetricInfo{Metric::policy_decisions, "netctl_policy_decisions_total", "counter",
               "layer,verdict",
               "Connections that were judged. Both layers see the same ones: do not add them up. "
               "Those of would_deny are among those of allow."},
    MetricInfo{Metric::policy_default, "netctl_policy_default_decisions_total", "counter", "layer",
               "Connections that no rule of the policy matched."},
    MetricInfo{Metric::policy_failures, "netctl_policy_failures_total", "counter", "layer",
               "Connections that were denied since they met a broken table."},
    MetricInfo{Metric::policy_log_events, "netctl_policy_log_events_total", "counter", "outcome",
               "Log events of the policy that were written, lost since the buffer was full, or "
               "suppressed by the log's rate."},
    MetricInfo{Metric::policy_rule_info, "netctl_policy_rule_info", "gauge", "rule,text",
               "The text of a rule of the policy, to be joined by its id; always 1."},
    MetricInfo{Metric::policy_rule_decisions, "netctl_policy_rule_decisions_total", "counter",
               "layer,rule", "Connections that got the rule's verdict."},
    MetricInfo{Metric::policy_rule_limited, "netctl_policy_rule_limited_total", "counter",
               "layer,rule", "Connections that matched the rule, but were over its limit."},
    MetricInfo{Metric::redirect_healthy, "netctl_redirect_healthy", "gauge", "",
               "1 if redirection is in force and connections can join, whatever it has counted."},
    MetricInfo{Metric::redirect_joiner_up, "netctl_redirect_joiner_up", "gauge", "",
               "1 if a joiner runs; without one no connection joins."},
    MetricInfo{
        Metric::redirect_connections, "netctl_redirect_connections", "gauge", "state",
        "Connections that are in the map of redirection now, and those on their way out of it."},
    MetricInfo{Metric::redirect_announced, "netctl_redirect_announced_total", "counter", "",
               "Connections that the joiner was told of."},
    MetricInfo{Metric::redirect_joined, "netctl_redirect_joined_total", "counter", "",
               "Connections that were joined."},
    MetricInfo{Metric::redirect_left, "netctl_redirect_left_total", "counter", "reason",
               "Connections that stayed on TCP, or went back to it, by the reason."},
    MetricInfo{Metric::redirect_messages, "netctl_redirect_messages_total", "counter", "way",
               "Messages of joined connections that were redirected, or went by TCP."},
    MetricInfo{Metric::redirect_bytes, "netctl_redirect_bytes_total", "counter", "way",
               "Bytes of joined connections that were redirected, or went by TCP."},
    MetricInfo{Metric::redirect_failures, "netctl_redirect_failures_total", "counter", "",
               "Times that the kernel had no memory for a connection."},
    MetricInfo{Metric::redirect_target_connections, "netctl_redirect_target_connections_total",
               "counter", "rule,target",
               "Connections that went to this target of a rule of `redirect to`."},
    MetricInfo{Metric::redirect_target_datagrams, "netctl_redirect_target_datagrams_total",
               "counter", "rule,target",
               "Datagrams of sockets that are not connected that went to this target."},
    MetricInfo{Metric::redirect_target_up, "netctl_redirect_target_up", "gauge", "rule,target",
               "0 if this target is down, 1 if it is up, or nobody has asked it yet; of rules with "
               "health."},
    MetricInfo{Metric::redirect_all_down, "netctl_redirect_all_down_total", "counter",
               "rule,outcome",
               "Connections and datagrams that came when all targets of the rule were down, and "
               "were refused, or went where they asked for (opened); of rules with health."},
};

#undef NETCTL_POINT

constexpr bool in_order() {
    for (std::size_t i = 0; i < table.size(); i++)
        if (static_cast<std::size_t>(table[i].metric) != i)
            return false;
    return true;
}
static_assert(in_order(), "info_of() takes a metric for its line");

} // namespace

std::span<const MetricInfo> metric_table() {
    return table;
}

const MetricInfo& info_of(Metric metric) {
    return table[static_cast<std::size_t>(metric)];
}

std::vector<std::string_view> label_names(const MetricInfo& info) {
    std::vector<std::string_view> names;
    for (std::string_view rest = info.labels; !rest.empty();) {
        const std::size_t comma = rest.find(',');
        names.push_back(rest.substr(0, comma));
        rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
    }
    return names;
}

std::string metrics_markdown() {
    std::string page = "| metric | type | labels | |\n|---|---|---|---|\n";
    for (const MetricInfo& info : table) {
        std::string labels;
        for (const std::string_view name : label_names(info))
            labels += fmt::format("{}`{}`", labels.empty() ? "" : " ", name);
        page += fmt::format("| `{}` | {} | {} | {} |\n", info.name, info.type, labels, info.help);
    }
    return page;
}

} // namespace netctl::host
