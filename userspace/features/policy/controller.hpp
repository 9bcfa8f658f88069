// SPDX-License-Identifier: GPL-2.0-only
//
// The connect policy of this host, or of a cgroup: enabling, rules, counters, log.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "core/rule.hpp"
#include "datapath/explanation.hpp"
#include "datapath/point.hpp"
#include "datapath/rule_command.hpp"
#include "features/policy/connection.hpp"
#include "netctl/abi/policy_tables.h"

namespace netctl::policy {

enum class LayerChoice {
    automatic, ///< both if the kernel takes both, else the cgroup layer, and says why
    both,
    cgroup,
    lsm,
};

struct EnableRequest {
    std::optional<LayerChoice> layer;                 ///< first enable: automatic
    std::optional<std::string> cgroup;                ///< first enable: all cgroups
    std::optional<nc_policy_mode> mode;               ///< first enable: enforce
    std::optional<nc_policy_verdict> default_verdict; ///< first enable: allow
    std::optional<std::uint32_t> log_rate;            ///< events a second; first enable: 10,000
    std::optional<std::vector<Rule>> rules;           ///< in force from the first moment
    bool allow_missing = false;
    bool yes = false; ///< even if the caller may cut themselves off
};

struct EditOptions {
    bool allow_missing = false;
    bool yes = false; ///< as in EnableRequest
};

struct EnableReport {
    bool was_enabled = false; ///< its settings were changed
    std::array<bool, NC_LAYERS> live{};
    std::size_t rules = 0;
    std::uint64_t generation = 0;
    std::string scope;
    nc_policy_mode mode{};
    nc_policy_verdict default_verdict{};
    std::vector<std::string> notes;
};

struct LayerStatus {
    bool live = false;
    std::string why; ///< why not
};

struct Status {
    bool enabled = false;    ///< if not, there is nothing else to tell but the next one
    bool unfinished = false; ///< hooks that do nothing are left of a command that was interrupted
    nc_policy_head settings{};
    std::string scope;
    std::array<LayerStatus, NC_LAYERS> layers;
    nc_policy_stats stats{};
    std::vector<datapath::RuleStatus> rules;
    std::vector<std::string> notes; ///< what no longer is as the rules have it
    std::string trouble;            ///< why its rules cannot be read; empty if they can
    bool lost =
        false; ///< its cgroup is gone, or was made anew: nothing is judged, or by some hooks
};

struct LogEvent {
    nc_policy_event event{};
    std::string cgroup; ///< path, empty if it is gone
    std::string exe;    ///< path, or the file's name if the process is gone
};

/// What `test` asks about.
struct Question {
    Address dst;
    std::uint16_t dport = 0;
    std::uint16_t sport = 0;
    std::uint8_t proto = 0;
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    std::string cgroup;   ///< empty: the caller's
    std::string exe;      ///< empty: none that a rule names
    std::string exe_name; ///< what to call it
    bool explain = false; ///< tell of each rule up to the decisive one why it does not match
};

struct Answer {
    nc_policy_verdict verdict{};
    nc_policy_reason reason{};
    nc_policy_mode mode{};
    Address dst; ///< normalised
    std::optional<Rule> rule;
    datapath::Explanation explanation{"connection"};
};

/// What the mode audit let pass since, in the form of a rule that allows it.
struct Learnt {
    Rule rule;
    std::uint64_t count = 0;
    std::string who;
};

/// Tries out a layer below the cgroup at `directory`; an error says why it cannot be had.
Result<> try_layer(nc_policy_layer layer, const std::string& directory);

class Controller {
  public:
    /// `root` is the bpffs directory. Nothing is touched yet.
    explicit Controller(RootOptions root) : root_(std::move(root)) {}

    Result<EnableReport> enable(const EnableRequest& request) const;
    /// Takes all programs off at once and removes all pins.
    Result<std::vector<std::string>> disable() const;
    /// Whether to try out why a layer is not live, which takes longer than all else.
    enum class Why : bool { skip, tell };
    Result<Status> status(Why why = Why::tell) const;
    std::unique_ptr<datapath::RuleEditor> edit(const EditOptions& options) const;
    /// Calls `handle` for each event until it returns false. With `follow`, waits for more until the
    /// policy is disabled; `idle` is asked at least ten times a second whether to go on. Only one
    /// reader at a time.
    Result<> read_log(const std::function<bool(const LogEvent&)>& handle, bool follow,
                      const std::function<bool()>& idle) const;
    /// Asks the kernel's own lookup, without counting.
    Result<Answer> test(const Question& question) const;
    Result<std::vector<Learnt>> learn(bool forget) const;

  private:
    RootOptions root_;
};

std::string to_string(nc_policy_layer layer);
std::string to_string(nc_policy_verdict verdict);
std::string to_string(nc_policy_reason reason);
std::string to_string(nc_policy_mode mode);
std::string to_string(nc_policy_hook hook);

} // namespace netctl::policy
