// SPDX-License-Identifier: GPL-2.0-only
#include "testing/answer.hpp"

#include <algorithm>

#include "classifier/packet.hpp"
#include "netctl/abi/rule.h"

namespace netctl::testing {

namespace {

constexpr std::size_t ipv4_size = 20, ipv6_size = 40, tcp_size = 20, icmp_size = 8;
constexpr std::uint8_t icmp = 1, tcp = 6, icmp6 = 58;

std::uint32_t number(std::span<const std::uint8_t> bytes, std::size_t at, std::size_t size) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < size; i++)
        value = value << 8 | bytes[at + i];
    return value;
}

void put(Bytes& bytes, std::size_t at, std::size_t size, std::uint32_t value) {
    for (std::size_t i = 0; i < size; i++)
        bytes[at + i] = static_cast<std::uint8_t>(value >> 8 * (size - 1 - i));
}

/// RFC 1071.
std::uint32_t checksum(std::span<const std::uint8_t> bytes) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < bytes.size(); i++)
        sum += static_cast<std::uint32_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

void append(Bytes& to, std::span<const std::uint8_t> bytes) {
    to.insert(to.end(), bytes.begin(), bytes.end());
}

/// An IP packet that is refused.
struct Refused {
    std::span<const std::uint8_t> packet; ///< to its end, without padding
    bool ipv4 = true;
    std::uint8_t proto = 0;    ///< of the upper layer
    std::size_t transport = 0; ///< where its header starts

    std::span<const std::uint8_t> src() const {
        return ipv4 ? packet.subspan(12, 4) : packet.subspan(8, 16);
    }
    std::span<const std::uint8_t> dst() const {
        return ipv4 ? packet.subspan(16, 4) : packet.subspan(24, 16);
    }
    std::span<const std::uint8_t> behind() const { return packet.subspan(transport); }

    /// From the destination back to the source; `payload` has a checksum of zero at `at`.
    Bytes answer(std::uint8_t with, Bytes payload, std::size_t at) const {
        Bytes pseudo;
        if (with != icmp) {
            append(pseudo, dst());
            append(pseudo, src());
            const std::size_t length = pseudo.size();
            pseudo.resize(length + 8);
            put(pseudo, length, 4, static_cast<std::uint32_t>(payload.size()));
            put(pseudo, length + 4, 4, with);
        }
        append(pseudo, payload);
        put(payload, at, 2, checksum(pseudo));
        Bytes header(ipv4 ? ipv4_size - 8 : ipv6_size - 32);
        if (ipv4) {
            header[0] = 0x45;
            put(header, 2, 2, static_cast<std::uint32_t>(ipv4_size + payload.size()));
            header[6] = 0x40; // may not be fragmented
            header[8] = 64;
            header[9] = with;
        } else {
            header[0] = 0x60;
            put(header, 4, 2, static_cast<std::uint32_t>(payload.size()));
            header[6] = with;
            header[7] = 64;
        }
        append(header, dst());
        append(header, src());
        if (ipv4)
            put(header, 10, 2, checksum(header));
        append(header, payload);
        return header;
    }
};

bool has_sender(const Refused& refused) {
    const auto src = refused.src(), dst = refused.dst();
    if (refused.ipv4)
        return src[0] != 0 && src[0] < 224 && dst[0] < 224;
    const bool unspecified =
        std::all_of(src.begin(), src.end(), [](std::uint8_t byte) { return byte == 0; });
    return !unspecified && src[0] != 0xff && dst[0] != 0xff;
}

std::optional<Bytes> reset(const Refused& refused) {
    const auto segment = refused.behind();
    // What an answer may be made of is what it may quote.
    if (segment.size() < tcp_size || refused.transport + tcp_size > NC_ERROR_QUOTE)
        return std::nullopt;
    const std::uint8_t flags = segment[13];
    const std::size_t header = static_cast<std::size_t>(segment[12] >> 4) * 4;
    if ((flags & rst) != 0 || header < tcp_size || header > segment.size())
        return std::nullopt;
    Bytes back(tcp_size);
    put(back, 0, 2, number(segment, 2, 2));
    put(back, 2, 2, number(segment, 0, 2));
    back[12] = 0x50;
    if ((flags & ack) != 0) {
        put(back, 4, 4, number(segment, 8, 4));
        back[13] = rst;
    } else {
        const auto length = static_cast<std::uint32_t>(segment.size() - header) +
                            ((flags & syn) != 0 ? 1U : 0U) + ((flags & fin) != 0 ? 1U : 0U);
        put(back, 8, 4, number(segment, 4, 4) + length);
        back[13] = rst | ack;
    }
    return refused.answer(tcp, std::move(back), 16);
}

std::optional<Bytes> unreachable(const Refused& refused) {
    if (refused.proto == (refused.ipv4 ? icmp : icmp6)) {
        if (refused.behind().size() < 2 || refused.transport + 2 > NC_ERROR_QUOTE)
            return std::nullopt;
        const std::uint8_t type = refused.behind()[0];
        const bool error = refused.ipv4 ? (type >= 3 && type <= 5) || type == 11 || type == 12
                                        : type < 128 || type == 137;
        if (error)
            return std::nullopt;
    }
    Bytes back(icmp_size);
    back[0] = refused.ipv4 ? 3 : 1;
    back[1] = refused.ipv4 ? 3 : 4;
    append(back,
           refused.packet.first(std::min<std::size_t>(refused.packet.size(), NC_ERROR_QUOTE)));
    return refused.answer(refused.ipv4 ? icmp : icmp6, std::move(back), 2);
}

} // namespace

std::optional<Bytes> answer_to(std::span<const std::uint8_t> frame, bool ether) {
    const classifier::Parsed parsed =
        ether ? classifier::parse_ethernet(frame) : classifier::parse_ip(frame);
    const nc_packet& fields = parsed.packet;
    if (!parsed.parsed || (fields.has & NC_HAS_PROTO) == 0 || fields.frag == NC_FRAG_LATER)
        return std::nullopt;
    std::size_t link = ether ? 14 : 0;
    while (ether && (number(frame, link - 2, 2) == 0x8100 || number(frame, link - 2, 2) == 0x88a8))
        link += 4;
    if (ether && ((frame[0] & 1) != 0 || (frame[6] & 1) != 0)) // to many, or from many
        return std::nullopt;

    Refused refused{frame.subspan(link), (fields.has & NC_HAS_IPV4) != 0, fields.proto};
    if (refused.ipv4) {
        refused.packet = refused.packet.first(number(refused.packet, 2, 2));
        refused.transport = static_cast<std::size_t>(refused.packet[0] & 0xf) * 4;
    } else {
        refused.packet = refused.packet.first(ipv6_size + number(refused.packet, 4, 2));
        std::uint8_t next = refused.packet[6];
        refused.transport = ipv6_size;
        constexpr std::uint8_t extensions[] = {0, 43, 44, 51, 60, 135, 139, 140};
        while (std::find(std::begin(extensions), std::end(extensions), next) !=
               std::end(extensions)) {
            const auto header = refused.behind();
            refused.transport += next == 44   ? 8
                                 : next == 51 ? static_cast<std::size_t>(header[1] + 2) * 4
                                              : static_cast<std::size_t>(header[1] + 1) * 8;
            next = header[0];
        }
    }
    if (!has_sender(refused))
        return std::nullopt;
    const auto back = refused.proto == tcp ? reset(refused) : unreachable(refused);
    if (!back)
        return std::nullopt;

    Bytes answer(frame.begin(), frame.begin() + static_cast<long>(link));
    if (ether) {
        std::copy_n(frame.begin() + 6, 6, answer.begin());
        std::copy_n(frame.begin(), 6, answer.begin() + 6);
    }
    append(answer, *back);
    // Padding stays, and where there were many headers there is some.
    const std::size_t least =
        std::min({frame.size(), std::max<std::size_t>(60, link + refused.transport), link + 128});
    if (refused.proto == tcp && answer.size() < least)
        answer.resize(least);
    return answer;
}

} // namespace netctl::testing
