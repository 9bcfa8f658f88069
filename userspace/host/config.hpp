// SPDX-License-Identifier: GPL-2.0-only
//
// What a host should do, as a file tells it, or as it is: the same form for both, so that they can be compared.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "core/root_options.hpp"
#include "core/rule.hpp"
#include "datapath/set_text.hpp"
#include "datapath/sets.hpp"
#include "netctl/abi/policy.h"
#include "netctl/abi/rule.h"

namespace netctl::host {

struct SetConfig {
    std::string name;
    datapath::SetType type{};
    std::optional<std::uint32_t> size{}; ///< nothing: what it has, or the type's default
    bool external = false;               ///< others keep its elements
    std::vector<datapath::ListedElement> elements{};
    // Of sets of names, which have no elements here.
    std::string netns{}; ///< whose answers are read; empty: of a file, that it is applied in
    std::vector<std::string> names{};     ///< as set::WantedName::to_string() has them, sorted
    std::optional<std::uint32_t> grace{}; ///< seconds; nothing: what it has, or 60
    std::vector<std::string> resolvers{}; ///< addresses, sorted; empty: what it has, or the host's
};

/// Which interfaces are meant, where names do not tell; patterns but for `altname`. Empty: that is no matter.
struct InterfaceMatch {
    std::string driver, mac, altname;
    bool any() const { return !driver.empty() || !mac.empty() || !altname.empty(); }
};

/// A point of xdp or tc.
struct FilterConfig {
    Hook hook{};
    std::string netns;
    std::string
        interface; ///< of a file: a name or a pattern; empty: any, of those that `match` says
    std::string direction; ///< tc: ingress, egress
    std::string mode;      ///< empty: any
    nc_verdict default_verdict = NC_VERDICT_PASS;
    nc_verdict unparsed_verdict = NC_VERDICT_DROP;
    std::uint32_t log_rate = 10000;
    std::vector<Rule> rules{};
    bool optional = false; ///< the interface need not be there
    std::string where{};   ///< FILE:LINE, for messages
    InterfaceMatch match{};
    std::vector<std::string> remarks{}; ///< to be written: a comment above each rule; may be empty

    /// `xdp eth0`, `tc eth0 ingress`, with ` in NETNS` behind it.
    std::string title() const;
};

struct PolicyConfig {
    std::string cgroup = "/";
    std::string layer; ///< empty: any
    nc_policy_mode mode = NC_POLICY_MODE_ENFORCE;
    nc_policy_verdict default_verdict = NC_POLICY_ALLOW;
    std::uint32_t log_rate = 10000;
    std::vector<Rule> rules{};
};

struct RedirectConfig {
    std::string cgroup = "/";
    bool allow_blocking = false;
    bool cross_netns = false;
    std::vector<std::string> force{}; ///< only for enabling; not known of what runs
    std::vector<Rule> rules{}, to{};
};

struct HostConfig {
    std::map<std::string, SetConfig> sets{};
    std::vector<FilterConfig> filters{};
    std::optional<PolicyConfig> policy{};
    std::optional<RedirectConfig> redirect{};
    /// Titles of what must not be there: `set NAME`, `xdp IFACE`, `tc IFACE DIRECTION`, `policy`, `redirect`.
    std::set<std::string> absent{};
    bool prune = false; ///< nor anything else that is not named
};

/// Reads a file, a folder of `*.yaml` and `*.yml` files, or standard input (`-`). Touches nothing but these files
/// and the lists that they name. Every error of them is told, up to twenty.
Result<HostConfig> read_config(const std::string& path);
/// The same of a text that is in no file; `file:` is refused in it.
Result<HostConfig> parse_config(const std::string& name, const std::string& text);

/// A text that reads as the same configuration. Errors: a name that is no UTF-8, which YAML cannot hold.
Result<std::string> config_text(const HostConfig& config);

/// JSON Schema (draft 7) of what read_config() takes, made of the table that it reads by.
std::string config_schema();

/// What is in force under a root. Errors: something of it cannot be read, or is lost.
Result<HostConfig> read_present(const RootOptions& root);

} // namespace netctl::host
