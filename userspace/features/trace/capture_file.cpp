// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/capture_file.hpp"

#include <utility>

namespace netctl::trace {

Result<CaptureFile> CaptureFile::create(const std::string& path) {
    return CaptureFile(NETCTL_TRY(sys::PcapWriter::create(path, sys::LinkType::raw_ip)));
}

void CaptureFile::write(std::uint64_t time_ns, std::uint32_t length,
                        std::span<const std::uint8_t> bytes) {
    if (failed_)
        return;
    unflushed_ = true;
    const auto written = writer_.write(time_ns, length, bytes);
    if (!written)
        fail(written.error());
}

void CaptureFile::flush() {
    if (!std::exchange(unflushed_, false) || failed_)
        return;
    const auto flushed = writer_.flush();
    if (!flushed)
        fail(flushed.error());
}

void CaptureFile::flush_at_times() {
    const auto now = std::chrono::steady_clock::now();
    if (!unflushed_ || now < flushed_ + std::chrono::seconds(1))
        return;
    flushed_ = now;
    flush();
}

std::optional<Error> CaptureFile::take_error() {
    return std::exchange(untold_, std::nullopt);
}

void CaptureFile::fail(const Error& error) {
    failed_ = true;
    untold_ = error;
}

} // namespace netctl::trace
