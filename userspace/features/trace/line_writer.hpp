// SPDX-License-Identifier: GPL-2.0-only
//
// Lines to standard output, many at a time, for tracers, which go on when a disk is full.
#pragma once

#include <cstdint>

#include "core/json.hpp"
#include "core/output.hpp"
#include "core/text.hpp"

namespace netctl::trace {

class LineWriter {
  public:
    /// `out` has to outlive this.
    explicit LineWriter(const Output& out) : out_(&out) {}

    /// Whole lines that wait to be written.
    Text& pending() { return pending_; }
    /// Writes them. False if nobody reads any more. Any other trouble is told once, and what it took of the lines is
    /// counted.
    bool write();
    /// Adds the last object of a stream of JSON, which counts: `members`, with `event` end and `not_written`.
    void add_end(const Json& members);
    /// Lines that could not be written.
    std::uint64_t unwritten() const { return unwritten_; }

  private:
    const Output* out_;
    Text pending_;
    bool failed_ = false;
    bool torn_ = false; ///< the last line that was written is not whole
    std::uint64_t unwritten_ = 0;
};

} // namespace netctl::trace
