// SPDX-License-Identifier: GPL-2.0-only
//
// Stacks of threads, as the kernel side takes them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <utility>

#include "bpf/map.hpp"
#include "core/result.hpp"
#include "features/trace/instrument.hpp"
#include "features/trace/selection.hpp"
#include "netctl/abi/trace_profile.h"

namespace netctl::trace::profile {

struct Request {
    bool off_cpu = false;     ///< stacks of waits, and no samples of what runs
    std::uint32_t hertz = 99; ///< samples a second on each CPU
    std::uint32_t ring_bytes = 0;
    Selection selection;
};

/// The innermost frame comes first.
struct Sample {
    nc_profile_sample head{}; ///< `amount` is 1, or the nanoseconds of the wait
    std::span<const std::uint64_t> kernel;
    std::span<const std::uint64_t> user;
};

class ProfileTrace {
  public:
    using OnSample = std::function<void(const Sample&)>;

    /// Takes stacks from now on; `on_sample` is called while poll() or stop() run.
    static Result<ProfileTrace> start(const Request& request, const OnSample& on_sample);

    Instrument& instrument() { return instrument_; }
    /// Detaches, and hands out what there is; of those that wait still, how long they do so far. Returns how many these are.
    Result<std::uint64_t> stop();
    Result<InstrumentCounters> counters() const { return instrument_.counters(); }

  private:
    ProfileTrace(Instrument instrument, OnSample on_sample)
        : instrument_(std::move(instrument)), on_sample_(std::move(on_sample)) {}

    Instrument instrument_;
    OnSample on_sample_;
    bpf::RawMap waiting_; ///< of waits alone
    bool off_cpu_ = false;
};

} // namespace netctl::trace::profile
