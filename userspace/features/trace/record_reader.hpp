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

/// When to look into a ring again: the more was found, the sooner. To take a CPU from a busy server for
/// more than some hundred microseconds at a time lets its clients run dry, which costs more than to
/// come often.
class Pace {
  public:
    using Rest = std::chrono::nanoseconds;

    /// Until about `portion` records are there, if as many come as before.
    Rest after(std::size_t found);

    static constexpr std::int64_t portion = 400;
    static constexpr Rest shortest = std::chrono::milliseconds(1);
    /// Shorter than anybody notices; at a few thousand transactions a second most of what netctl
    /// costs is to be woken.
    static constexpr Rest longest = std::chrono::milliseconds(20);

  private:
    Rest rest_ = longest;
};

/// Reads a ring. The kernel side wakes nobody, as that costs the traced processes more than all the
/// rest: this looks by itself.
class RecordReader {
  public:
    using Handler = std::function<void(std::span<const std::byte>)>;

    /// `handler` is called for each record, in order, while read() or drain() run.
    static Result<std::unique_ptr<RecordReader>> open(bpf::RawMap ring, Handler handler);

    /// What there is, up to a limit, so that the caller gets a word in when it never ends.
    Result<> read();
    /// Waits until it is worth while to read again, or not at all if there is more.
    void rest();
    /// All that there is; the programs must be gone, or it may not end.
    Result<> drain();
    /// Records read so far.
    std::uint64_t received() const { return received_; }

  private:
    static constexpr int limit = 32768;

    Handler handler_;
    std::optional<bpf::RingBuffer> ring_;
    std::uint64_t received_ = 0;
    int budget_ = 0;
    Pace pace_;
};

} // namespace netctl::trace
