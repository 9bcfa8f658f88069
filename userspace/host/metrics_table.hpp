// SPDX-License-Identifier: GPL-2.0-only
//
// Every metric that netctl exports: name, type, labels and help, once. The exposition, docs/metrics.md and the
// tests are made from it or compared with it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace netctl::host {

/// In the order of the table and of the exposition.
enum class Metric : std::uint8_t {
    build_info,
    scrape_duration,
    part_up,
    point_info,
    point_healthy,
    point_generation,
    point_rules,
    point_rules_omitted,
    point_packets,
    point_bytes,
    point_default_packets,
    point_default_bytes,
    point_unparsed,
    point_limited,
    point_failures,
    point_log_events,
    rule_info,
    rule_packets,
    rule_bytes,
    rule_limited,
    set_elements,
    set_size,
    policy_healthy,
    policy_layer_live,
    policy_rules,
    policy_rules_omitted,
    policy_decisions,
    policy_default,
    policy_failures,
    policy_log_events,
    policy_rule_info,
    policy_rule_decisions,
    policy_rule_limited,
    redirect_healthy,
    redirect_joiner_up,
    redirect_connections,
    redirect_announced,
    redirect_joined,
    redirect_left,
    redirect_messages,
    redirect_bytes,
    redirect_failures,
    redirect_target_connections,
    redirect_target_datagrams,
    redirect_target_up,
    redirect_all_down,
};

struct MetricInfo {
    Metric metric;
    std::string_view name;
    std::string_view type;   ///< counter or gauge
    std::string_view labels; ///< names with commas between; may be empty
    std::string_view help;   ///< one sentence
};

std::span<const MetricInfo> metric_table();
const MetricInfo& info_of(Metric metric);
std::vector<std::string_view> label_names(const MetricInfo& info);

/// The table of docs/metrics.md, in Markdown.
std::string metrics_markdown();

} // namespace netctl::host
