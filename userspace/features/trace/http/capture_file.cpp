// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/capture_file.hpp"

#include <utility>

namespace netctl::trace {

Result<CaptureFile> CaptureFile::create(const std::string& path) {
    if (path.ends_with(".pcapng"))
        return CaptureFile(NETCTL_TRY(sys::PcapngWriter::create(path)));
    return CaptureFile(NETCTL_TRY(sys::PcapWriter::create(path, sys::LinkType::raw_ip)));
}

void CaptureFile::write(std::uint64_t time_ns, std::uint32_t length,
                        std::span<const std::uint8_t> bytes, std::string_view comment) {
    if (failed_)
        return;
    unflushed_ = true;
    auto* const plain = std::get_if<sys::PcapWriter>(&writer_);
    const auto written = plain ? plain->write(time_ns, length, bytes)
                               : std::get<sys::PcapngWriter>(writer_).write(
                                     sys::PcapngPacket{time_ns, length, bytes, comment});
    if (!written)
        fail(written.error());
}

void CaptureFile::flush() {
    if (!std::exchange(unflushed_, false) || failed_)
        return;
    const auto flushed = std::visit([](auto& writer) { return writer.flush(); }, writer_);
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
