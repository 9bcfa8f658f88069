// SPDX-License-Identifier: GPL-2.0-only
#include "sys/dns.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <netinet/in.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <vector>

#include <fmt/format.h>

#include "core/fd.hpp"

namespace netctl::sys {

namespace {

constexpr std::uint16_t dns_port = 53, largest_answer = 1232;
constexpr int attempts = 2, patience_ms = 2000;
constexpr std::size_t header_size = 12;

void put(std::vector<std::uint8_t>& message, unsigned number) {
    message.push_back(static_cast<std::uint8_t>(number >> 8));
    message.push_back(static_cast<std::uint8_t>(number));
}

/// RFC 1035, 4.1, with EDNS's pseudo record (RFC 6891), so that answers need not fit into 512 bytes.
std::vector<std::uint8_t> question_of(std::span<const std::uint8_t> name, DnsType type) {
    constexpr unsigned recursion_desired = 0x0100, class_in = 1, opt = 41;
    std::array<std::uint8_t, 2> id{};
    // Without random bytes the id is 0, and the port still is one that nobody else knows.
    static_cast<void>(getrandom(id.data(), id.size(), 0));
    std::vector<std::uint8_t> message(id.begin(), id.end());
    for (const unsigned word : {recursion_desired, 1U, 0U, 0U, 1U})
        put(message, word);
    message.insert(message.end(), name.begin(), name.end());
    message.push_back(0);
    put(message, static_cast<unsigned>(type));
    put(message, class_in);
    message.push_back(0);
    for (const unsigned word : {opt, unsigned{largest_answer}, 0U, 0U, 0U})
        put(message, word);
    return message;
}

Result<Fd> connect_to(const Address& resolver) {
    sockaddr_storage to{};
    socklen_t size = 0;
    if (resolver.family == Family::ipv4) {
        auto& v4 = reinterpret_cast<sockaddr_in&>(to);
        v4.sin_family = AF_INET;
        v4.sin_port = htons(dns_port);
        std::memcpy(&v4.sin_addr, resolver.bytes.data(), 4);
        size = sizeof v4;
    } else {
        auto& v6 = reinterpret_cast<sockaddr_in6&>(to);
        v6.sin6_family = AF_INET6;
        v6.sin6_port = htons(dns_port);
        std::memcpy(&v6.sin6_addr, resolver.bytes.data(), 16);
        size = sizeof v6;
    }
    Fd fd(socket(to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!fd || connect(fd.get(), reinterpret_cast<sockaddr*>(&to), size) != 0)
        return Error::system(errno, fmt::format("cannot ask {}", resolver.to_string()));
    return fd;
}

/// What the answer's header says (RFC 1035, 4.1.1).
Result<> judge(const std::array<std::uint8_t, header_size>& header, const std::string& who) {
    const unsigned code = header[3] & 0x0fU;
    if (code == 3)
        return Error::failed(fmt::format("{} says that there is no such name", who));
    if (code != 0)
        return Error::failed(fmt::format("{} refuses, with code {}", who, code));
    if ((header[2] & 0x02) != 0)
        return Error::failed(fmt::format(
            "the answer of {} is too long for UDP, and what it says over TCP is not read", who));
    return {};
}

} // namespace

Result<> ask_dns(const Address& resolver, std::span<const std::uint8_t> name, DnsType type) {
    const Fd fd = NETCTL_TRY(connect_to(resolver));
    const std::string who = resolver.to_string();
    const std::vector<std::uint8_t> question = question_of(name, type);
    for (int attempt = 0; attempt < attempts; attempt++) {
        if (send(fd.get(), question.data(), question.size(), 0) < 0)
            return Error::system(errno, fmt::format("cannot ask {}", who));
        for (pollfd waiting{fd.get(), POLLIN, 0}; poll(&waiting, 1, patience_ms) > 0;) {
            std::array<std::uint8_t, header_size> header{};
            const ssize_t size = recv(fd.get(), header.data(), header.size(), MSG_TRUNC);
            if (size < 0)
                return Error::system(errno, fmt::format("no answer from {}", who));
            if (size >= static_cast<ssize_t>(header_size) && header[0] == question[0] &&
                header[1] == question[1] && (header[2] & 0x80) != 0)
                return judge(header, who);
        }
    }
    return Error::failed(fmt::format("no answer from {}", who));
}

} // namespace netctl::sys
