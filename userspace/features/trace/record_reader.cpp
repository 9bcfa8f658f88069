// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/record_reader.hpp"

#include <algorithm>
#include <ctime>
#include <utility>

namespace netctl::trace {

Pace::Rest Pace::after(std::size_t found) {
    const auto records = std::max<std::int64_t>(static_cast<std::int64_t>(found), 1);
    return rest_ = std::clamp(rest_ * portion / records, shortest, longest);
}

Result<std::unique_ptr<RecordReader>> RecordReader::open(bpf::RawMap ring, Handler handler) {
    auto reader = std::make_unique<RecordReader>();
    reader->handler_ = std::move(handler);
    reader->ring_ = NETCTL_TRY(bpf::RingBuffer::open(
        std::move(ring), [self = reader.get()](std::span<const std::byte> bytes) {
            ++self->received_;
            self->handler_(bytes);
            return --self->budget_ > 0;
        }));
    return reader;
}

Result<> RecordReader::read() {
    budget_ = limit;
    NETCTL_TRY(ring_->consume());
    return {};
}

void RecordReader::rest() {
    const int found = limit - budget_;
    if (found == limit)
        return;
    const timespec rest{0, static_cast<long>(pace_.after(static_cast<std::size_t>(found)).count())};
    nanosleep(&rest, nullptr);
}

Result<> RecordReader::drain() {
    do
        NETCTL_TRY(read());
    while (budget_ < limit);
    return {};
}

} // namespace netctl::trace
