// SPDX-License-Identifier: GPL-2.0-only
//
// Garbage collections of processes, by the probes that runtimes have built in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/result.hpp"
#include "features/trace/instrument.hpp"
#include "features/trace/selection.hpp"
#include "features/trace/usdt/probes.hpp"
#include "netctl/abi/trace_gc.h"

namespace netctl::trace::gc {

struct Pool {
    std::string name;
    std::uint64_t before = 0; ///< bytes in use
    std::uint64_t after = 0;
};

/// One that is over.
struct Collection {
    std::uint64_t time_ns = 0; ///< CLOCK_MONOTONIC, of its end
    std::uint64_t took_ns = 0;
    std::uint64_t cgroup_id = 0;
    std::uint32_t pid = 0;
    std::uint32_t tid = 0;
    std::string comm;
    bool java = false;        ///< or else Python
    std::string collector;    ///< of Java; empty: it named none. `generation 2` of Python
    std::optional<bool> full; ///< of Java
    std::optional<std::int64_t> collected; ///< objects, of Python
    std::vector<Pool> pools;               ///< of Java, in the order in which it told them
};

/// Puts together what belongs to one collection: in Java the pools are told between its beginning and its end.
class Collections {
  public:
    /// Of the ring, in order. Nothing until the collection is over.
    std::optional<Collection> add(const nc_gc_record& record);

  private:
    struct Open {
        std::string collector;
        std::vector<Pool> pools;
    };
    std::map<std::pair<std::uint32_t, std::uint32_t>, Open> open_; ///< by process and thread
};

/// The programs and libraries that have probes of collections: `file`, or what `pid` has mapped, or what any process has
/// that looks like a runtime. Errors: there are none.
Result<std::vector<usdt::ProbeFile>> find_runtimes(const std::string& file, std::uint32_t pid);

/// Watches these until the instrument is stopped; `on_record` is called while poll() or stop() run.
Result<Instrument> watch_collections(const std::vector<usdt::ProbeFile>& files,
                                     const Selection& selection, std::uint32_t ring_bytes,
                                     std::function<void(const nc_gc_record&)> on_record);

} // namespace netctl::trace::gc
