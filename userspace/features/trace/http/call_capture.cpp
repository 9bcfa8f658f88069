// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/call_capture.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include <fmt/format.h>

#include "core/text.hpp"

namespace netctl::trace {

namespace {

/// Of one packet; both IP versions' lengths have 16 bits.
constexpr std::uint32_t segment_limit = 60000;
constexpr std::size_t tcp_size = 20;

void put16(std::string& out, std::size_t value) {
    out += static_cast<char>(value >> 8);
    out += static_cast<char>(value);
}

void put32(std::string& out, std::uint32_t value) {
    put16(out, value >> 16);
    put16(out, value & 0xffff);
}

void append_address(std::string& out, const Address& address) {
    out.append(reinterpret_cast<const char*>(address.bytes.data()),
               address.family == Family::ipv6 ? 16 : 4);
}

std::string ip_header(const Endpoint& from, const Endpoint& to, std::size_t payload) {
    std::string out;
    if (from.address.family == Family::ipv6) {
        put32(out, 6u << 28);
        put16(out, payload);
        out += "\x06\x40"; // TCP, and hops
        append_address(out, from.address);
        append_address(out, to.address);
        return out;
    }
    constexpr std::size_t size = 20;
    put16(out, 0x4500);
    put16(out, size + payload);
    put32(out, 0x4000); // may not be fragmented
    out += "\x40\x06";
    put16(out, 0);
    append_address(out, from.address);
    append_address(out, to.address);
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < size; i += 2)
        sum += static_cast<std::uint32_t>(static_cast<unsigned char>(out[i]) << 8 |
                                          static_cast<unsigned char>(out[i + 1]));
    while (sum > 0xffff)
        sum = (sum & 0xffff) + (sum >> 16);
    out[10] = static_cast<char>(~sum >> 8);
    out[11] = static_cast<char>(~sum);
    return out;
}

/// A Unix socket's client, told from others by the server's cookie or its own.
std::array<Endpoint, 2> ends_of_unix(const CallEnd& end, std::uint64_t cookie) {
    Endpoint server{*Address::parse("127.0.0.1"), 80};
    Endpoint client = server;
    client.port = static_cast<std::uint16_t>(1024 + cookie % 64000);
    return end.server ? std::array{server, client} : std::array{client, server};
}

} // namespace

void CallCapture::write(const CallEnd& end, const nc_http_record& record, std::string_view bytes,
                        Time now) {
    std::array<Endpoint, 2> ends;
    if (*end.unix_path)
        ends = ends_of_unix(end, record.cookie);
    else
        ends = {*end.local, *end.remote};
    const bool sent = record.direction == NC_HTTP_SENT;
    const Endpoint& from = ends[sent ? 0 : 1];
    const Endpoint& to = ends[sent ? 1 : 0];
    std::string comment = fmt::format("{}[{}] {}", shown(end.process->name), end.process->pid,
                                      sent ? "sent" : "received");
    if (*end.unix_path) {
        Transaction names;
        names.unix_path = *end.unix_path;
        comment += ", " + shown(names.server_name());
    }
    const bool last = record.kind == NC_HTTP_END;
    std::uint32_t done = 0;
    do {
        const std::uint32_t length = std::min(record.length - done, segment_limit);
        std::string packet = ip_header(from, to, tcp_size + length);
        const std::size_t headers = packet.size() + tcp_size;
        put16(packet, from.port);
        put16(packet, to.port);
        put32(packet, static_cast<std::uint32_t>(record.position) + done);
        put32(packet, static_cast<std::uint32_t>(record.answered));
        put16(packet, 0x5000 | (last ? 0x11 : 0x18)); // FIN or PSH, and ACK
        put16(packet, 0xffff);
        put32(packet, 0);
        packet += bytes.substr(std::min<std::size_t>(done, bytes.size()), length);
        file_.write(now, static_cast<std::uint32_t>(headers + length),
                    {reinterpret_cast<const std::uint8_t*>(packet.data()), packet.size()}, comment);
        done += length;
    } while (done < record.length);
}

} // namespace netctl::trace
