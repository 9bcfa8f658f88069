// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/ring_buffer.hpp"

#include <cerrno>

#include <bpf/libbpf.h>
#include <fmt/format.h>

namespace netctl::bpf {

void RingBuffer::Free::operator()(ring_buffer* buffer) const {
    ring_buffer__free(buffer);
}

int RingBuffer::on_record(void* state, void* data, std::size_t size) {
    auto& self = *static_cast<State*>(state);
    if (self.stopped)
        return -ECANCELED;
    if (self.handler({static_cast<const std::byte*>(data), size}))
        return 0;
    self.stopped = true;
    return -ECANCELED;
}

Result<RingBuffer> RingBuffer::open(RawMap map, Handler handler) {
    RingBuffer result;
    result.map_ = std::move(map);
    result.state_ = std::make_unique<State>();
    result.state_->handler = std::move(handler);
    result.buffer_.reset(
        ring_buffer__new(result.map_.fd(), on_record, result.state_.get(), nullptr));
    if (!result.buffer_)
        return Error::system(errno, fmt::format("cannot read ring buffer {}", result.map_.name()));
    return result;
}

Result<bool> RingBuffer::poll(int timeout_ms) {
    const int status = ring_buffer__poll(buffer_.get(), timeout_ms);
    if (state_->stopped)
        return false;
    if (status < 0 && status != -EINTR)
        return Error::system(-status, "cannot wait for the ring buffer");
    return true;
}

Result<bool> RingBuffer::consume() {
    state_->stopped = false;
    const int status = ring_buffer__consume(buffer_.get());
    if (state_->stopped)
        return false;
    if (status < 0 && status != -EINTR)
        return Error::system(-status, "cannot read the ring buffer");
    return true;
}

} // namespace netctl::bpf
