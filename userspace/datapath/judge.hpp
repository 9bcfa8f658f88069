// SPDX-License-Identifier: GPL-2.0-only
//
// What rules do with a packet, told by the reference matcher (I7) with the sets as they are: for questions
// that are no traffic.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>

#include "classifier/reference.hpp"
#include "datapath/point.hpp"
#include "datapath/root.hpp"
#include "datapath/sets.hpp"

namespace netctl::datapath {

/// The sets that rules name, opened once.
class LiveSets {
  public:
    static Result<LiveSets> open(const Root& root, const std::vector<InstalledRule>& rules);

    /// Valid as long as this is. It has no room for errors: ask status() afterwards.
    classifier::SetOracle oracle();
    /// The first error that a question met.
    Result<> status() const { return failure_ ? Result<>(*failure_) : Result<>(); }

  private:
    bool has(const std::string& name, const SetElement& element);

    std::map<std::string, Set> sets_;
    std::optional<Error> failure_;
};

struct Judged {
    const Rule* rule = nullptr; ///< the one that matches first
    std::uint32_t position = NC_NO_RULE;
    nc_verdict verdict{};
    nc_reason reason{};
};

/// Limits count as not reached. The sets are as an oracle tells.
Result<Judged> judge(const PointState& state, const nc_packet& packet,
                     const classifier::SetOracle& sets);
/// The same with the sets as they are.
Result<Judged> judge(const PointState& state, const nc_packet& packet, LiveSets& sets);

/// The verdict of a rule's final action.
nc_verdict verdict_of(const Rule& rule);

} // namespace netctl::datapath
