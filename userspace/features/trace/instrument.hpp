// SPDX-License-Identifier: GPL-2.0-only
//
// The kernel side of an instrument: an object that is made of lib/trace.h, with a selection, counters and a ring of
// records. It pins nothing, so that nothing is left of it however it ends.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bpf/map.hpp"
#include "bpf/object.hpp"
#include "core/json.hpp"
#include "core/result.hpp"
#include "features/trace/record_reader.hpp"
#include "features/trace/selection.hpp"
#include "netctl/abi/trace.h"

namespace netctl::trace {

struct InstrumentCounters {
    nc_trace_counters kernel{};   ///< summed over the CPUs
    std::uint64_t recursions = 0; ///< events that the kernel skipped, as the program was under way

    /// Events that were to be told and are not.
    std::uint64_t lost() const { return kernel.lost + recursions; }
    /// `12 records, 0 lost`, and what else was not as it should be.
    std::string text() const;
    /// The members `records`, `lost` and `not_remembered`.
    Json json() const;
};

struct InstrumentPlan {
    std::vector<std::string> programs;  ///< attached, in this order
    std::vector<std::string> probes{};  ///< loaded, for the caller to attach
    std::vector<std::string> iterators; ///< run when they are, and by iterate()
    std::uint32_t ring_bytes = 0;
};

class Instrument {
  public:
    /// Loads what the plan has of the object, and attaches it. Of the object, constants besides the selection are the
    /// caller's to set before. `handler` is called for each record while poll() or stop() run.
    static Result<Instrument> start(const bpf::Object& object, const Selection& selection,
                                    const InstrumentPlan& plan, RecordReader::Handler handler);

    /// For what the caller attaches: stop() takes it away, and runs of the program that were left out are counted.
    void keep(bpf::Link link) { links_.push_back(std::move(link)); }
    void keep(bpf::Program program) { programs_.push_back(std::move(program)); }

    /// Hands out what there is, or a part of it.
    Result<> poll() { return reader_->read(); }
    /// Waits until it is worth while to look again: some milliseconds, or not at all.
    void rest() { reader_->rest(); }
    /// Runs the iterators again.
    Result<> iterate() const;
    /// Hands out all that is in the ring; for instruments that attach nothing.
    Result<> drain() { return reader_->drain(); }
    /// Detaches, and hands out what is in the ring.
    Result<> stop();
    Result<InstrumentCounters> counters() const;

  private:
    bpf::RawMap counters_;
    std::unique_ptr<RecordReader> reader_;
    std::vector<bpf::Program> programs_;
    std::vector<bpf::Program> iterators_;
    std::vector<bpf::Link> links_;
};

} // namespace netctl::trace
