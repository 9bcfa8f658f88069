// SPDX-License-Identifier: GPL-2.0-only
#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "host/config.hpp"
#include "host/element_text.hpp"

namespace netctl::host {

namespace {

/// An interface's name as a pattern of interfaces that matches no other: the kernel takes `a*` for a name, too.
std::string pattern_of(std::string_view name) {
    std::string pattern;
    for (const char c : name) {
        if (std::string_view("*?[\\").find(c) != std::string_view::npos)
            pattern += '\\';
        pattern += c;
    }
    return pattern;
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
    /// `remarks`: of each rule, or none; an empty one is none.
    void rules(int depth, std::string_view name, const std::vector<Rule>& rules,
               const std::vector<std::string>& remarks = {}) {
        std::vector<std::string> lines;
        for (std::size_t i = 0; i < rules.size(); i++) {
            if (i < remarks.size() && !remarks[i].empty())
                lines.push_back("# " + shown(remarks[i]));
            lines.push_back(to_string(rules[i]));
        }
        block(depth, name, lines);
    }

    void set(const SetConfig& set) {
        head(2, quoted(set.name));
        key(4, "type", datapath::to_string(set.type));
        if (set.size)
            key(4, "size", std::to_string(*set.size));
        if (set.external)
            key(4, "managed", "external");
        block(4, "elements", element_lines(set.elements));
        block(4, "names", set.names);
        if (!set.netns.empty())
            key(4, "netns", quoted(set.netns));
        if (set.grace)
            key(4, "grace", std::to_string(*set.grace));
        if (!set.resolvers.empty())
            key(4, "resolvers", fmt::format("[\"{}\"]", fmt::join(set.resolvers, "\", \"")));
    }

    void filter(const FilterConfig& filter) {
        key(2, "- interfaces", "[" + quoted(pattern_of(filter.interface)) + "]");
        if (filter.hook == Hook::tc)
            key(4, "direction", filter.direction);
        if (!filter.netns.empty())
            key(4, "netns", quoted(filter.netns));
        if (!filter.mode.empty())
            key(4, "mode", filter.mode);
        key(4, "default", verdict(filter.default_verdict));
        key(4, "on-unparsed", verdict(filter.unparsed_verdict));
        key(4, "log-rate", std::to_string(filter.log_rate));
        rules(4, "rules", filter.rules, filter.remarks);
    }

    void policy(const PolicyConfig& policy) {
        head(0, "policy");
        key(2, "cgroup", quoted(policy.cgroup));
        if (!policy.layer.empty())
            key(2, "layer", policy.layer);
        key(2, "mode", policy.mode == NC_POLICY_MODE_AUDIT ? "audit" : "enforce");
        key(2, "default", policy.default_verdict == NC_POLICY_DENY ? "deny" : "allow");
        key(2, "log-rate", std::to_string(policy.log_rate));
        rules(2, "rules", policy.rules);
    }

    void redirect(const RedirectConfig& redirect) {
        head(0, "redirect");
        key(2, "cgroup", quoted(redirect.cgroup));
        key(2, "allow-blocking", redirect.allow_blocking ? "true" : "false");
        key(2, "cross-netns", redirect.cross_netns ? "true" : "false");
        block(2, "force", redirect.force);
        rules(2, "rules", redirect.rules);
        rules(2, "to", redirect.to);
    }

    Result<std::string> text() && {
        if (no_utf8_)
            return Error::failed(
                Text::format("'{}' is no UTF-8, which a configuration has to be", *no_utf8_),
                "another name for what is called so");
        return std::move(text_);
    }

  private:
    /// A name in double quotes, which YAML reads as JSON does.
    std::string quoted(std::string_view name) {
        if (!is_utf8(name))
            no_utf8_ = name;
        std::string quoted;
        append_json_string(quoted, name);
        return quoted;
    }
    static const char* verdict(nc_verdict verdict) {
        return verdict == NC_VERDICT_DROP ? "drop" : verdict == NC_VERDICT_NEXT ? "next" : "pass";
    }
    std::string text_;
    std::optional<std::string> no_utf8_; ///< a name that cannot be written
};

} // namespace

Result<std::string> config_text(const HostConfig& config) {
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
