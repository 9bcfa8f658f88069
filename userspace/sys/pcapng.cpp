// SPDX-License-Identifier: GPL-2.0-only
#include "sys/pcapng.hpp"

#include <cerrno>

#include <fmt/format.h>

namespace netctl::sys {

namespace {

/// Numbers are in the machine's order, which the section tells.
template <class T> void append(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void pad(std::string& out) {
    out.append((4 - out.size() % 4) % 4, '\0');
}

void append_option(std::string& out, std::uint16_t code, std::string_view value) {
    constexpr std::size_t most = 65535;
    value = value.substr(0, most);
    append(out, code);
    append(out, static_cast<std::uint16_t>(value.size()));
    out += value;
    pad(out);
}

/// `body` is padded already.
std::string block_of(std::uint32_t type, const std::string& body) {
    std::string block;
    const auto size = static_cast<std::uint32_t>(body.size() + 12);
    append(block, type);
    append(block, size);
    block += body;
    append(block, size);
    return block;
}

constexpr std::uint32_t end_of_options = 0;

} // namespace

void PcapngWriter::Close::operator()(std::FILE* file) const {
    std::fclose(file);
}

Result<PcapngWriter> PcapngWriter::create(const std::string& path) {
    PcapngWriter writer;
    writer.path_ = path;
    writer.file_.reset(std::fopen(path.c_str(), "we"));
    if (!writer.file_)
        return Error::system(errno, fmt::format("cannot write capture {}", path));
    std::string section;
    append<std::uint32_t>(section, 0x1a2b3c4d); // byte order
    append<std::uint16_t>(section, 1);          // version 1.0
    append<std::uint16_t>(section, 0);
    append<std::int64_t>(section, -1); // of unknown length
    append_option(section, 4, "netctl");
    append(section, end_of_options);
    NETCTL_TRY(writer.put(block_of(0x0a0d0d0a, section)));
    std::string interface;
    append<std::uint16_t>(interface, 101); // raw IP
    append<std::uint16_t>(interface, 0);
    append<std::uint32_t>(interface, 0);                      // packets of any length
    append_option(interface, 9, std::string_view("\x09", 1)); // times are 10^-9 seconds
    append(interface, end_of_options);
    NETCTL_TRY(writer.put(block_of(1, interface)));
    NETCTL_TRY(writer.flush());
    return writer;
}

Result<> PcapngWriter::write(std::uint64_t time_ns, std::uint32_t length,
                             std::span<const std::uint8_t> bytes, std::string_view comment) {
    std::string packet;
    append<std::uint32_t>(packet, 0); // the first interface
    append(packet, static_cast<std::uint32_t>(time_ns >> 32));
    append(packet, static_cast<std::uint32_t>(time_ns));
    append(packet, static_cast<std::uint32_t>(bytes.size()));
    append(packet, length);
    packet.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    pad(packet);
    if (!comment.empty()) {
        append_option(packet, 1, comment);
        append(packet, end_of_options);
    }
    return put(block_of(6, packet));
}

Result<> PcapngWriter::put(const std::string& block) {
    if (std::fwrite(block.data(), 1, block.size(), file_.get()) != block.size())
        return Error::system(errno, fmt::format("cannot write capture {}", path_));
    return {};
}

Result<> PcapngWriter::flush() {
    if (std::fflush(file_.get()) != 0)
        return Error::system(errno, fmt::format("cannot write capture {}", path_));
    return {};
}

} // namespace netctl::sys
