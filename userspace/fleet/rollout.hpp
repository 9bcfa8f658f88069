// SPDX-License-Identifier: GPL-2.0-only
//
// Which hosts take a release when. A host is in a stage by its labels or by a hash of its name and the release's number,
// so hosts that join or leave need no bookkeeping; whether the next stage begins is worked out anew each time from what
// the hosts report, and no count of them is kept.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.hpp"

namespace netctl::fleet {

using Labels = std::map<std::string, std::string>;

/// `role=web`, `not zone=eu-2`.
struct LabelTerm {
    std::string key, value;
    bool negated = false;

    std::string to_string() const;
    bool holds(const Labels& labels) const;
};
Result<LabelTerm> parse_label_term(std::string_view text);
/// `role=web,zone=eu-1`.
Result<Labels> parse_labels(std::string_view text);

struct Rollout {
    std::vector<LabelTerm> canary;          ///< empty: there is no stage of canaries
    std::vector<unsigned> stages = {10000}; ///< parts of 10,000, rising, the last 10,000
    std::chrono::seconds soak{30};          ///< how long a host's probes have to hold
    unsigned max_failed = 0;                ///< parts of 10,000 of the hosts in the stage

    /// Canaries are a stage of their own, the first.
    std::size_t stage_count() const { return stages.size() + (canary.empty() ? 0 : 1); }
    /// `canary`, `10%`.
    std::string stage_name(std::size_t stage) const;
    /// Whether a host has a release's turn in this stage, or had it in one before.
    bool includes(std::size_t stage, const std::string& host, const Labels& labels,
                  std::uint64_t release) const;
};

/// `12%`, `0.5%` as parts of 10,000. Errors: another form, or not from `low` to 10,000.
Result<unsigned> parse_share(std::string_view text, unsigned low);
std::string share_text(unsigned parts);

/// How far a release is. Not signed: whoever may write it can hurry or halt a release, and give rules to nobody.
struct RolloutState {
    std::uint64_t release = 0;
    std::size_t stage = 0;
    bool halted = false;
    std::string why;        ///< it is halted
    std::string by;         ///< who has written this
    std::int64_t since = 0; ///< of the stage; seconds since 1970

    bool operator==(const RolloutState&) const = default;
};
std::string rollout_state_text(const RolloutState& state);
Result<RolloutState> parse_rollout_state(std::string_view text);

/// What a host reports of itself.
struct Report {
    std::string host;
    std::string state;           ///< see agent.hpp
    std::uint64_t release = 0;   ///< in force; 0: none
    std::uint64_t candidate = 0; ///< that it tried, waits for or refused; 0: none
    std::string error;
    Labels labels;
    std::int64_t age = 0; ///< seconds since it was written, by the clock of who reads it
};

/// A stage, counted.
struct StageCount {
    std::size_t expected = 0; ///< hosts that are in it
    std::size_t done = 0;     ///< have the release in force
    std::size_t failed = 0;   ///< tried and went back, or refused it
    std::size_t silent = 0;   ///< do not report any more, or never did
    std::size_t pending() const { return expected - done - failed - silent; }
};

struct Decision {
    enum class Kind { wait, advance, halt, finished };
    Kind kind{};
    std::string why;
    StageCount count;
};

/// What a driver should do now. `reports` are of all hosts that ever reported; hosts that are in `inventory` only are
/// expected, too. A host that has not reported for `silent_after` is silent, once the stage is as old.
Decision decide(const Rollout& rollout, const RolloutState& state,
                const std::map<std::string, Labels>& inventory, const std::vector<Report>& reports,
                std::int64_t now, std::int64_t silent_after);

} // namespace netctl::fleet
