// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/packet_file.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include <fmt/format.h>

#include "sys/clock.hpp"

namespace netctl::datapath {

std::vector<Option> packet_file_options(const std::string& what) {
    return {
        {"write",
         "FILE",
         fmt::format("write {} to a file: pcap, or pcapng if its name ends so; `-`: pcapng to "
                     "standard output, and no lines",
                     what),
         {}},
        {"snaplen", "BYTES", "of each packet write so many at most", {}},
        {"size", "MB", "begin a new file at so many megabytes; FILE becomes FILE.1, and so on", {}},
        {"files", "N", "keep so many of these files (default: 10)", {}}};
}

Result<std::optional<PacketFileOptions>> packet_file_of(const Arguments& arguments,
                                                        std::uint32_t most) {
    if (!arguments.has("write")) {
        for (const char* const option : {"snaplen", "size", "files"})
            if (arguments.has(option))
                return Error::usage(fmt::format("--{} is about what --write FILE writes", option));
        return std::optional<PacketFileOptions>();
    }
    PacketFileOptions options;
    options.path = arguments.get("write");
    options.snaplen =
        static_cast<std::uint32_t>(NETCTL_TRY(arguments.number("snaplen", most, 1, most)));
    if (arguments.has("size"))
        options.file_size = NETCTL_TRY(arguments.number("size", 0, 1, 1'000'000)) * 1'000'000;
    if (arguments.has("files") && !options.file_size)
        return Error::usage("--files takes --size with it");
    options.files =
        static_cast<std::uint32_t>(NETCTL_TRY(arguments.number("files", options.files, 1, 10'000)));
    if (options.file_size && options.path == "-")
        return Error::usage("--size is for files, and not for standard output");
    return std::optional(options);
}

Result<> PacketFile::begin() {
    written_ = 0;
    plain_size_ = 0;
    if (options_.path != "-" && !options_.path.ends_with(".pcapng")) {
        writer_ = NETCTL_TRY(sys::PcapWriter::create(options_.path, link_));
        return {};
    }
    const Head begins = head();
    writer_ = NETCTL_TRY(sys::PcapngWriter::create(
        options_.path, {link_, begins.interface, begins.description, options_.snaplen},
        begins.comment));
    return {};
}

std::uint64_t PacketFile::size() const {
    const auto* const named = std::get_if<sys::PcapngWriter>(&*writer_);
    return named ? named->size() : plain_size_;
}

Result<> PacketFile::put(const sys::PcapngPacket& packet) {
    if (options_.file_size && written_ != 0 && size() >= *options_.file_size)
        NETCTL_TRY(rotate());
    sys::PcapngPacket cut = packet;
    cut.bytes = cut.bytes.first(std::min<std::size_t>(cut.bytes.size(), options_.snaplen));
    written_++;
    if (auto* const plain = std::get_if<sys::PcapWriter>(&*writer_)) {
        plain_size_ += cut.bytes.size() + 16; // a packet's header in pcap
        return plain->write(cut.time_ns, cut.length, cut.bytes);
    }
    return std::get<sys::PcapngWriter>(*writer_).write(cut);
}

Result<> PacketFile::put_flush() {
    return std::visit([](auto& writer) { return writer.flush(); }, *writer_);
}

Result<> PacketFile::end() {
    auto* const named = std::get_if<sys::PcapngWriter>(&*writer_);
    if (!named)
        return put_flush();
    const auto lacking = missing();
    if (!lacking)
        return put_flush();
    NETCTL_TRY(named->write(
        sys::PcapngStatistics{sys::wall_ns(), written_, lacking->packets, lacking->comment}));
    return named->flush();
}

Result<> PacketFile::rotate() {
    NETCTL_TRY(end());
    writer_.reset();
    const auto name = [&](std::uint32_t back) {
        return back == 0 ? options_.path : fmt::format("{}.{}", options_.path, back);
    };
    for (std::uint32_t back = options_.files - 1; back > 0; back--)
        if (std::rename(name(back - 1).c_str(), name(back).c_str()) != 0 && errno != ENOENT)
            return Error::system(errno, fmt::format("cannot rename capture {}", name(back - 1)));
    return begin();
}

Result<bool> PacketFile::readable(Result<> written) const {
    if (written)
        return true;
    if (options_.path == "-" && written.error().code == EPIPE)
        return false;
    return Error(written.error());
}

Result<bool> PacketFile::write(const sys::PcapngPacket& packet) {
    return readable(put(packet));
}

Result<bool> PacketFile::flush() {
    return readable(put_flush());
}

Result<bool> PacketFile::finish() {
    return readable(end());
}

} // namespace netctl::datapath
