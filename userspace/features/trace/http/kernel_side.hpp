// SPDX-License-Identifier: GPL-2.0-only
//
// What the sources in the kernel have in common: an object with the maps `settings`, `ports` and
// `counters`, and a ring of records, `events`.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bpf/map.hpp"
#include "bpf/object.hpp"
#include "core/result.hpp"
#include "features/trace/http/session.hpp"
#include "features/trace/http/tracer_pins.hpp"
#include "features/trace/record_reader.hpp"
#include "netctl/abi/http.h"

namespace netctl::trace {

class KernelSide {
  public:
    /// Loads the object, gives it its settings, and pins those maps that are for others, which are
    /// `pinned`, below `root`. Attaches nothing. Of `config`, the caller sets what his source alone
    /// has; the version and what the request says of ports is filled in here.
    static Result<KernelSide> load(const bpf::Object& object, nc_http_config config,
                                   std::span<const char* const> pinned, const Request& request,
                                   const RootOptions& root, RecordReader::Handler handler);

    RecordReader& reader() const { return *reader_; }
    /// Where the settings are pinned.
    const std::string& pins() const { return pins_.path(); }
    /// What the programs counted and how much was read of the ring; the rest is zero.
    Result<Counters> counters() const;

  private:
    KernelSide(bpf::RawMap counters, std::unique_ptr<RecordReader> reader, TracerPins pins)
        : counters_(std::move(counters)), reader_(std::move(reader)), pins_(std::move(pins)) {}

    bpf::RawMap counters_;
    std::unique_ptr<RecordReader> reader_;
    TracerPins pins_;
};

} // namespace netctl::trace
