// SPDX-License-Identifier: GPL-2.0-only
//
// Calls of functions, as the kernel side counts or tells them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "bpf/map.hpp"
#include "core/result.hpp"
#include "features/trace/func/targets.hpp"
#include "features/trace/histogram.hpp"
#include "features/trace/instrument.hpp"
#include "features/trace/selection.hpp"
#include "netctl/abi/trace_func.h"

namespace netctl::trace::func {

struct Request {
    nc_func_mode mode = NC_FUNC_TIMES;
    std::uint32_t by = NC_FUNC_BY_FUNCTION; ///< NC_FUNC_BY_*
    std::uint64_t slower_ns = 0;            ///< EACH: calls that took at least so long
    std::uint32_t ring_bytes = 0;
    Selection selection;
};

struct Values {
    std::uint64_t calls = 0;
    std::uint64_t sum_ns = 0;
    std::uint32_t pid = 0; ///< of the first who called
    std::string comm;      ///< of him
    Histogram histogram;   ///< nanoseconds

    void add(const Values& other);
    /// Takes away what was there before.
    void subtract(const Values& earlier);
};

struct GroupOrder {
    bool operator()(const nc_func_group& a, const nc_func_group& b) const;
};
using Groups = std::map<nc_func_group, Values, GroupOrder>;

struct Counters {
    InstrumentCounters instrument;
    nc_func_counters calls{};

    /// Calls that were to be counted or told, and are not.
    std::uint64_t lost() const { return instrument.lost() + calls.no_thread + calls.no_group; }
};

class FunctionTrace {
  public:
    using OnCall = std::function<void(const nc_func_call&)>;

    /// Watches the places of `targets` from now on, each by its index; `on_call` is called while poll() or stop() run.
    static Result<FunctionTrace> start(const Targets& targets, const Request& request,
                                       OnCall on_call);

    Instrument& instrument() { return instrument_; }
    /// What is used for functions of the kernel: `fentry`, `kprobe`, or both; empty: none is watched.
    const std::string& kernel_way() const { return kernel_way_; }
    /// All since the start.
    Result<Groups> read() const;
    Result<> stop() { return instrument_.stop(); }
    Result<Counters> counters() const;

  private:
    explicit FunctionTrace(Instrument instrument) : instrument_(std::move(instrument)) {}

    Instrument instrument_;
    bpf::RawMap groups_;
    bpf::RawMap func_counters_;
    std::string kernel_way_;
};

} // namespace netctl::trace::func
