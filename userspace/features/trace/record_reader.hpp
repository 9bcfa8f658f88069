// SPDX-License-Identifier: GPL-2.0-only
//
// Reading the ring of a tracer.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "bpf/map.hpp"
#include "bpf/ring_buffer.hpp"
#include "core/result.hpp"

namespace netctl::trace {

/// Reads a ring. The kernel side wakes nobody, as that costs the traced processes more than all the
/// rest: this looks by itself, and the more it finds, the sooner again. To take a CPU from a busy
/// server for more than some hundred microseconds at a time lets its clients run dry, which costs more
/// than to come often.
class RecordReader {
  public:
    using Handler = std::function<void(std::span<const std::byte>)>;

    /// `handler` is called for each record, in order, while read() or drain() run.
    static Result<std::unique_ptr<RecordReader>> open(bpf::RawMap ring, Handler handler);

    /// What there is, up to a limit, so that the caller gets a word in when it never ends.
    Result<> read();
    /// Waits until about `portion` records are there, if as many come as before.
    void rest();
    /// All that there is; the programs must be gone, or it may not end.
    Result<> drain();
    /// Records read so far.
    std::uint64_t received() const { return received_; }

  private:
    using Rest = std::chrono::nanoseconds;
    static constexpr int limit = 32768;
    static constexpr int portion = 400;
    static constexpr Rest shortest_rest = std::chrono::milliseconds(1);
    /// Shorter than anybody notices; at a few thousand transactions a second most of what netctl
    /// costs is to be woken.
    static constexpr Rest longest_rest = std::chrono::milliseconds(20);

    Handler handler_;
    std::optional<bpf::RingBuffer> ring_;
    std::uint64_t received_ = 0;
    int budget_ = 0;
    Rest rest_ = longest_rest;
};

} // namespace netctl::trace
