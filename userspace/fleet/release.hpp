// SPDX-License-Identifier: GPL-2.0-only
//
// What a release says: a YAML file of several documents. The first is about the fleet: how the release is rolled out,
// what a host has to be able to do with it, and which labels each host has. Those behind it are netctl's own
// configuration files (netctl.yaml(5)), each with the hosts that it is for.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.hpp"
#include "fleet/rollout.hpp"

namespace netctl::fleet {

/// `tcp 192.0.2.1:22`, `http http://127.0.0.1/health`, `netctl status`.
struct Probe {
    enum class Kind { tcp, http, status };
    Kind kind{};
    std::string host, port; ///< of tcp
    std::string url;        ///< of http

    std::string to_string() const;
};

/// Which hosts a document is for: those that have all of the labels, and one of the names.
struct HostSelector {
    std::vector<LabelTerm> labels;
    std::vector<std::string> names; ///< with * and ?; empty: any
};

struct PolicyDocument {
    std::size_t number = 0; ///< from 1, in its file; the fleet's own is 1
    std::size_t line = 0;   ///< where it begins
    HostSelector hosts;
    std::string text;             ///< a configuration file of netctl
    std::set<std::string> titles; ///< of the objects in it: `set NAME`, `xdp IFACE`, `policy` …
};

struct Release {
    std::string name; ///< of the file, for messages
    std::string fleet;
    Rollout rollout;
    std::vector<Probe> probes;
    std::map<std::string, Labels> inventory; ///< labels by host
    std::vector<PolicyDocument> documents;
};

/// Reads a release, and checks each of its documents as `netctl check` would. Errors: every place that is wrong, up to
/// twenty.
Result<Release> parse_release(const std::string& name, const std::string& text);

/// Whether a host may be called so: letters, digits, dots and dashes, at most 253, with a letter or digit first.
bool is_host_name(std::string_view name);

struct Host {
    std::string name;
    Labels labels;
};

/// A host as the release knows it: what the inventory says of it goes before `own`.
Host host_of(const Release& release, const std::string& name, const Labels& own);

struct SkippedDocument {
    std::size_t number = 0, line = 0;
    std::string why; ///< `label role is web, not db`
};

/// What a release is for one host.
struct Rendered {
    std::vector<std::string> files;       ///< configuration files of netctl, in order
    std::vector<SkippedDocument> skipped; ///< documents that are for others
    std::set<std::string> titles;         ///< of all objects

    /// All of it as one text, as people read it.
    std::string text() const;
    /// SHA-256 of that.
    std::string sha256() const;
};

/// Errors: two documents for this host are about the same object.
Result<Rendered> render(const Release& release, const Host& host);

} // namespace netctl::fleet
