// SPDX-License-Identifier: GPL-2.0-only
//
// Asks the targets of rules of `to` whether they are up, and writes the answers into the map, where the programs and
// every reader find them. What it knows itself is only which questions are on their way.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "core/fd.hpp"
#include "core/result.hpp"
#include "core/rule.hpp"
#include "features/redirect/datapath.hpp"

namespace netctl::redirect {

class Prober {
  public:
    /// `tell` gets a line when a target goes down or comes back. Targets are asked from the network namespace that
    /// step() is called in.
    Prober(const Datapath& datapath, std::function<void(const std::string&)> tell)
        : datapath_(&datapath), tell_(std::move(tell)) {}

    /// Begins what is due and hears what has come. Never waits.
    Result<> step();
    /// How long step() has nothing to do, in milliseconds; `most` at most.
    int idle_ms(int most) const;

  private:
    using Key =
        std::pair<std::uint32_t, std::uint32_t>; ///< rule and number, as in nc_rd_to_target_key

    /// A target and the question that is on its way to it, if one is.
    struct Probe {
        Target target;
        Health health;
        std::uint64_t next_ms = 0; ///< when it is to be asked
        Fd fd;                     ///< none: no question is on its way
        std::uint64_t end_ms = 0;  ///< when that question has been in vain
        bool sent = false;         ///< it is connected, and the request is out
        std::string answer;
    };
    /// What came of a question.
    struct Outcome {
        int error = 0;       ///< errno; 0 if it was answered
        unsigned answer = 0; ///< the HTTP status that says no
    };

    /// Learns which targets there are; questions to those that went away are dropped.
    Result<> look_for_targets();
    Result<> begin(const Key& key, Probe& probe);
    Result<> listen(const Key& key, Probe& probe);
    Result<> note(const Key& key, Probe& probe, const Outcome& outcome);

    const Datapath* datapath_;
    std::function<void(const std::string&)> tell_;
    std::map<Key, Probe> probes_;
};

/// What the beginning of an answer by HTTP says: its status; 0 if more is needed; -1 if that is no HTTP.
int http_status(const std::string& answer);

} // namespace netctl::redirect
