// SPDX-License-Identifier: GPL-2.0-only
//
// Reading a BPF ring buffer.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "bpf/map.hpp"
#include "core/result.hpp"

struct ring_buffer;

namespace netctl::bpf {

class RingBuffer {
  public:
    /// Called for each record, in order; returns false to stop reading.
    using Handler = std::function<bool(std::span<const std::byte>)>;

    /// The map stays open as long as this is. One reader at a time: a record is read once.
    static Result<RingBuffer> open(RawMap map, Handler handler);

    /// Waits up to `timeout_ms` for records and handles them. False once the handler said stop.
    /// A signal ends the wait early, without error.
    Result<bool> poll(int timeout_ms);
    /// Handles what is there, without waiting. False once the handler said stop.
    Result<bool> consume();

  private:
    struct Free {
        void operator()(ring_buffer* buffer) const;
    };
    struct State {
        Handler handler;
        bool stopped = false;
    };
    static int on_record(void* state, void* data, std::size_t size);

    RawMap map_;
    std::unique_ptr<State> state_; // its address is what libbpf holds
    std::unique_ptr<ring_buffer, Free> buffer_;
};

} // namespace netctl::bpf
