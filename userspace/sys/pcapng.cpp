// SPDX-License-Identifier: GPL-2.0-only
#include "sys/pcapng.hpp"

#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

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

// Codes of blocks and of their options.
constexpr std::uint32_t section_header = 0x0a0d0d0a, interface_description = 1,
                        interface_statistics = 5, enhanced_packet = 6;
constexpr std::uint16_t opt_comment = 1, shb_userappl = 4, if_name = 2, if_description = 3,
                        if_tsresol = 9, epb_flags = 2, epb_verdict = 7, isb_filteraccept = 6,
                        isb_osdrop = 7;

template <class T> void append_number(std::string& out, std::uint16_t code, T value) {
    append_option(out, code, {reinterpret_cast<const char*>(&value), sizeof value});
}

void append_time(std::string& out, std::uint64_t time_ns) {
    append(out, static_cast<std::uint32_t>(time_ns >> 32));
    append(out, static_cast<std::uint32_t>(time_ns));
}

void append_comment(std::string& out, std::string_view comment) {
    if (!comment.empty())
        append_option(out, opt_comment, comment);
}

} // namespace

void PcapngWriter::Close::operator()(std::FILE* file) const {
    std::fclose(file);
}

Result<PcapngWriter> PcapngWriter::create(const std::string& path, const PcapngInterface& interface,
                                          std::string_view comment) {
    PcapngWriter writer;
    writer.path_ = path;
    if (path != "-") {
        writer.file_.reset(std::fopen(path.c_str(), "we"));
    } else if (const int out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0); out >= 0) {
        writer.file_.reset(fdopen(out, "w"));
        if (!writer.file_)
            close(out);
    }
    if (!writer.file_)
        return Error::system(errno, fmt::format("cannot write capture {}", path));
    std::string section;
    append<std::uint32_t>(section, 0x1a2b3c4d); // byte order
    append<std::uint16_t>(section, 1);          // version 1.0
    append<std::uint16_t>(section, 0);
    append<std::int64_t>(section, -1); // of unknown length
    append_comment(section, comment);
    append_option(section, shb_userappl, "netctl");
    append(section, end_of_options);
    NETCTL_TRY(writer.put(block_of(section_header, section)));
    std::string description;
    append<std::uint16_t>(description, interface.link_type == LinkType::ethernet ? 1 : 101);
    append<std::uint16_t>(description, 0);
    append(description, interface.snaplen);
    if (!interface.name.empty())
        append_option(description, if_name, interface.name);
    if (!interface.description.empty())
        append_option(description, if_description, interface.description);
    append_number(description, if_tsresol, std::uint8_t{9}); // times are 10^-9 seconds
    append(description, end_of_options);
    NETCTL_TRY(writer.put(block_of(interface_description, description)));
    NETCTL_TRY(writer.flush());
    return writer;
}

Result<> PcapngWriter::write(const PcapngPacket& packet) {
    std::string body;
    append<std::uint32_t>(body, 0); // the first interface
    append_time(body, packet.time_ns);
    append(body, static_cast<std::uint32_t>(packet.bytes.size()));
    append(body, packet.length);
    body.append(reinterpret_cast<const char*>(packet.bytes.data()), packet.bytes.size());
    pad(body);
    const std::size_t bare = body.size();
    append_comment(body, packet.comment);
    if (packet.direction != PcapngPacket::Direction::unknown)
        append_number(body, epb_flags, static_cast<std::uint32_t>(packet.direction));
    if (packet.verdict) {
        std::string verdict(1, static_cast<char>(packet.verdict->hook));
        append(verdict, packet.verdict->action);
        append_option(body, epb_verdict, verdict);
    }
    if (body.size() != bare)
        append(body, end_of_options);
    return put(block_of(enhanced_packet, body));
}

Result<> PcapngWriter::write(const PcapngStatistics& statistics) {
    std::string body;
    append<std::uint32_t>(body, 0); // the first interface
    append_time(body, statistics.time_ns);
    append_comment(body, statistics.comment);
    append_number(body, isb_filteraccept, statistics.written + statistics.lost);
    append_number(body, isb_osdrop, statistics.lost);
    append(body, end_of_options);
    return put(block_of(interface_statistics, body));
}

Result<> PcapngWriter::put(const std::string& block) {
    if (std::fwrite(block.data(), 1, block.size(), file_.get()) != block.size())
        return Error::system(errno, fmt::format("cannot write capture {}", path_));
    size_ += block.size();
    return {};
}

Result<> PcapngWriter::flush() {
    if (std::fflush(file_.get()) != 0)
        return Error::system(errno, fmt::format("cannot write capture {}", path_));
    return {};
}

} // namespace netctl::sys
