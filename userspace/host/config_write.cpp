// SPDX-License-Identifier: GPL-2.0-only
#include <algorithm>

#include <fmt/format.h>

#include "host/config.hpp"
#include "host/element_text.hpp"

namespace netctl::host {

namespace {

/// In double quotes, which YAML reads as JSON does.
std::string yaml_quoted(std::string_view text) {
    std::string quoted;
    append_json_string(quoted, text);
    return quoted;
}

class ConfigWriter {
  public:
    void key(int depth, std::string_view name, std::string_view value) {
        text_ += fmt::format("{:{}}{}: {}\n", "", depth, name, value);
    }
    void head(int depth, std::string_view name) {
        text_ += fmt::format("{:{}}{}:\n", "", depth, name);
    }
    /// A block with one a line; nothing if there are none.
    void block(int depth, std::string_view name, const std::vector<std::string>& lines) {
        if (lines.empty())
            return;
        text_ += fmt::format("{:{}}{}: |\n", "", depth, name);
        for (const std::string& line : lines)
            text_ += fmt::format("{:{}}{}\n", "", depth + 2, line);
    }
    void rules(int depth, std::string_view name, const std::vector<Rule>& rules) {
        std::vector<std::string> lines;
        for (const Rule& rule : rules)
            lines.push_back(to_string(rule));
        block(depth, name, lines);
    }

    void set(const SetConfig& set) {
        head(2, yaml_quoted(set.name));
        key(4, "type", datapath::to_string(set.type));
        if (set.size)
            key(4, "size", std::to_string(*set.size));
        if (set.external)
            key(4, "managed", "external");
        block(4, "elements", element_lines(set.elements));
    }

    void filter(const FilterConfig& filter) {
        key(2, "- interfaces", "[" + yaml_quoted(filter.interface) + "]");
        if (filter.hook == Hook::tc)
            key(4, "direction", filter.direction);
        if (!filter.netns.empty())
            key(4, "netns", yaml_quoted(filter.netns));
        if (!filter.mode.empty())
            key(4, "mode", filter.mode);
        key(4, "default", verdict(filter.default_verdict));
        key(4, "on-unparsed", verdict(filter.unparsed_verdict));
        key(4, "log-rate", std::to_string(filter.log_rate));
        rules(4, "rules", filter.rules);
    }

    void policy(const PolicyConfig& policy) {
        head(0, "policy");
        key(2, "cgroup", yaml_quoted(policy.cgroup));
        if (!policy.layer.empty())
            key(2, "layer", policy.layer);
        key(2, "mode", policy.mode == NC_POLICY_MODE_AUDIT ? "audit" : "enforce");
        key(2, "default", policy.default_verdict == NC_POLICY_DENY ? "deny" : "allow");
        key(2, "log-rate", std::to_string(policy.log_rate));
        rules(2, "rules", policy.rules);
    }

    void redirect(const RedirectConfig& redirect) {
        head(0, "redirect");
        key(2, "cgroup", yaml_quoted(redirect.cgroup));
        key(2, "allow-blocking", redirect.allow_blocking ? "true" : "false");
        key(2, "cross-netns", redirect.cross_netns ? "true" : "false");
        block(2, "force", redirect.force);
        rules(2, "rules", redirect.rules);
        rules(2, "to", redirect.to);
    }

    std::string text() && { return std::move(text_); }

  private:
    static const char* verdict(nc_verdict verdict) {
        return verdict == NC_VERDICT_DROP ? "drop" : verdict == NC_VERDICT_NEXT ? "next" : "pass";
    }
    std::string text_;
};

} // namespace

std::string config_text(const HostConfig& config) {
    ConfigWriter writer;
    if (!config.sets.empty())
        writer.head(0, "sets");
    for (const auto& [name, set] : config.sets)
        writer.set(set);
    for (const Hook hook : {Hook::xdp, Hook::tc}) {
        const auto is_of = [&](const FilterConfig& filter) { return filter.hook == hook; };
        if (std::ranges::any_of(config.filters, is_of))
            writer.head(0, to_string(hook));
        for (const FilterConfig& filter : config.filters)
            if (is_of(filter))
                writer.filter(filter);
    }
    if (config.policy)
        writer.policy(*config.policy);
    if (config.redirect)
        writer.redirect(*config.redirect);
    writer.block(0, "absent", {config.absent.begin(), config.absent.end()});
    if (config.prune)
        writer.key(0, "prune", "true");
    return std::move(writer).text();
}

} // namespace netctl::host
