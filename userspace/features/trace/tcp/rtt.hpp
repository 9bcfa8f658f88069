// SPDX-License-Identifier: GPL-2.0-only
//
// Round-trip times by groups of connections, as the kernel side counts them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "features/trace/histogram.hpp"
#include "features/trace/instrument.hpp"
#include "features/trace/selection.hpp"
#include "netctl/abi/trace_rtt.h"

namespace netctl::trace::tcp {

struct RttValues {
    std::uint64_t samples = 0; ///< segments that came in, each with the smoothed time then
    std::uint64_t sum_us = 0;
    std::uint64_t deviation_sum_us = 0;
    std::uint32_t min_us = 0; ///< the least single round trip that TCP remembers; 0: none
    Histogram histogram;      ///< microseconds

    void add(const RttValues& other);
    /// Takes away what was there before; the least stays.
    void subtract(const RttValues& earlier);
};

struct RttOrder {
    bool operator()(const nc_rtt_group& a, const nc_rtt_group& b) const;
};
using RttGroups = std::map<nc_rtt_group, RttValues, RttOrder>;

class RttTrace {
  public:
    /// Counts from now on. `by` are NC_RTT_BY_*.
    static Result<RttTrace> start(const Selection& selection, std::uint32_t by);

    /// All since the start.
    Result<RttGroups> read() const;
    Result<> stop() { return instrument_.stop(); }
    Result<InstrumentCounters> counters() const { return instrument_.counters(); }

  private:
    RttTrace(Instrument instrument, bpf::RawMap groups)
        : instrument_(std::move(instrument)), groups_(std::move(groups)) {}

    Instrument instrument_;
    bpf::RawMap groups_;
};

} // namespace netctl::trace::tcp
