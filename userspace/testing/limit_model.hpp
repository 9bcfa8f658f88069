// SPDX-License-Identifier: GPL-2.0-only
//
// Limits as the reference has them: accounts that are counted, and sets that what is above a limit goes into. Time
// stands still in it, so limits are to be of a kind that gives nothing back while a test runs (Fuzz::limit_some).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <tuple>

#include "netctl/abi/packet.h"
#include "netctl/abi/rule.h"
#include "testing/prog_run.hpp"

namespace netctl::testing {

class LimitModel {
  public:
    /// Whether the packet is above the limit of the rule at `position`, which has one; takes it from its account, and
    /// puts whom it adds into the sets of `setup`.
    bool over(ProgSetup& setup, std::uint32_t position, const nc_packet& packet);
    /// What the program has counted by then.
    const nc_over_adds& adds() const { return adds_; }

  private:
    using Account =
        std::tuple<std::uint32_t, std::uint8_t, std::array<std::uint8_t, 16>, std::uint16_t>;

    std::map<Account, std::uint64_t> used_; ///< packets, or bytes
    nc_over_adds adds_{};
};

} // namespace netctl::testing
