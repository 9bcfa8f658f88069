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

/// An IP packet that is answered.
struct Incoming {
    std::span<const std::uint8_t> link;   ///< the header before it
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

bool has_sender(const Incoming& refused) {
    if (!refused.link.empty() && ((refused.link[0] & 1) != 0 || (refused.link[6] & 1) != 0))
        return false; // to many, or from many
    const auto src = refused.src(), dst = refused.dst();
    if (refused.ipv4)
        return src[0] != 0 && src[0] < 224 && dst[0] < 224;
    const bool unspecified =
        std::all_of(src.begin(), src.end(), [](std::uint8_t byte) { return byte == 0; });
    return !unspecified && src[0] != 0xff && dst[0] != 0xff;
}

std::optional<Bytes> reset(const Incoming& refused) {
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

std::optional<Bytes> unreachable(const Incoming& refused) {
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

/// The packet in a frame, if it is a whole one of IP. `ether`: the frame has a link header.
std::optional<Incoming> incoming(std::span<const std::uint8_t> frame, bool ether) {
    const classifier::Parsed parsed =
        ether ? classifier::parse_ethernet(frame) : classifier::parse_ip(frame);
    const nc_packet& fields = parsed.packet;
    if (!parsed.parsed || (fields.has & NC_HAS_PROTO) == 0 || fields.frag == NC_FRAG_LATER)
        return std::nullopt;
    std::size_t link = ether ? 14 : 0;
    while (ether && (number(frame, link - 2, 2) == 0x8100 || number(frame, link - 2, 2) == 0x88a8))
        link += 4;

    Incoming in{frame.first(link), frame.subspan(link), (fields.has & NC_HAS_IPV4) != 0,
                fields.proto};
    if (in.ipv4) {
        in.packet = in.packet.first(number(in.packet, 2, 2));
        in.transport = static_cast<std::size_t>(in.packet[0] & 0xf) * 4;
    } else {
        in.packet = in.packet.first(ipv6_size + number(in.packet, 4, 2));
        std::uint8_t next = in.packet[6];
        in.transport = ipv6_size;
        constexpr std::uint8_t extensions[] = {0, 43, 44, 51, 60, 135, 139, 140};
        while (std::find(std::begin(extensions), std::end(extensions), next) !=
               std::end(extensions)) {
            const auto header = in.behind();
            in.transport += next == 44   ? 8
                            : next == 51 ? static_cast<std::size_t>(header[1] + 2) * 4
                                         : static_cast<std::size_t>(header[1] + 1) * 8;
            next = header[0];
        }
    }
    return in;
}

/// The frame that goes back with the IP packet `back`, in place of one of `size` bytes.
Bytes frame_with(const Incoming& in, std::span<const std::uint8_t> back, std::size_t size) {
    Bytes answer(in.link.begin(), in.link.end());
    if (!answer.empty()) {
        std::copy_n(in.link.begin() + 6, 6, answer.begin());
        std::copy_n(in.link.begin(), 6, answer.begin() + 6);
    }
    append(answer, back);
    // Padding stays, and where there were many headers there is some.
    const std::size_t least = std::min(
        {size, std::max<std::size_t>(60, in.link.size() + in.transport), in.link.size() + 128});
    if (in.proto == tcp && answer.size() < least)
        answer.resize(least);
    return answer;
}

/// What a SYN offers that a cookie has no room for.
struct Offer {
    std::optional<std::uint32_t> timestamp;
    std::optional<std::uint8_t> wscale;
    bool sack = false;
    bool is_signed = false;
};

Offer offer_in(std::span<const std::uint8_t> options) {
    Offer offer;
    while (!options.empty() && options[0] != 0) {
        if (options[0] == 1) {
            options = options.subspan(1);
            continue;
        }
        if (options.size() < 2 || options[1] < 2 || options[1] > options.size())
            break;
        const auto option = options.first(options[1]);
        options = options.subspan(option.size());
        switch (option[0]) {
        case 3:
            if (option.size() == 3)
                offer.wscale = std::min<std::uint8_t>(option[2], 14);
            break;
        case 4: offer.sack = offer.sack || option.size() == 2; break;
        case 8:
            if (option.size() == 10)
                offer.timestamp = number(option, 2, 4);
            break;
        case 19:
        case 29: offer.is_signed = true; break;
        default: break;
        }
    }
    return offer;
}

} // namespace

std::optional<Bytes> answer_to(std::span<const std::uint8_t> frame, bool ether) {
    const auto refused = incoming(frame, ether);
    if (!refused || !has_sender(*refused))
        return std::nullopt;
    const auto back = refused->proto == tcp ? reset(*refused) : unreachable(*refused);
    return back ? std::optional(frame_with(*refused, *back, frame.size())) : std::nullopt;
}

std::span<const std::uint8_t> segment_in(std::span<const std::uint8_t> frame) {
    const auto in = incoming(frame, true);
    return in && in->proto == tcp ? in->behind() : std::span<const std::uint8_t>();
}

void learn(CookieAnswer& with, std::span<const std::uint8_t> answer) {
    const auto segment = segment_in(answer);
    if (segment.size() < tcp_size)
        return;
    with.cookie = number(segment, 4, 4);
    with.window = static_cast<std::uint16_t>(number(segment, 14, 2));
    if (segment.size() >= tcp_size + 16)
        with.time = number(segment, tcp_size + 8, 4);
}

std::optional<Bytes> syn_answer_to(std::span<const std::uint8_t> frame, const CookieAnswer& with) {
    const auto in = incoming(frame, true);
    if (!in || !has_sender(*in) || in->proto != tcp ||
        classifier::parse_ethernet(frame).packet.frag != NC_FRAG_NONE)
        return std::nullopt;
    const auto segment = in->behind();
    if (segment.size() < tcp_size || in->transport + tcp_size > NC_ERROR_QUOTE)
        return std::nullopt;
    const std::size_t header = static_cast<std::size_t>(segment[12] >> 4) * 4;
    if ((segment[13] & (syn | ack | fin | rst)) != syn || header < tcp_size ||
        header > segment.size() || number(segment, 2, 2) != with.port)
        return std::nullopt;
    const Offer offer = offer_in(segment.first(header).subspan(tcp_size));
    if (offer.is_signed)
        return std::nullopt;

    Bytes back(tcp_size + 4);
    put(back, 0, 2, number(segment, 2, 2));
    put(back, 2, 2, number(segment, 0, 2));
    put(back, 4, 4, with.cookie);
    put(back, 8, 4, number(segment, 4, 4) + 1);
    back[13] = syn | ack;
    put(back, 14, 2, with.window);
    put(back, 20, 2, 0x0204);
    put(back, 22, 2, in->ipv4 ? with.ipv4_mss : with.ipv6_mss);
    if (offer.timestamp) {
        Bytes times{1, 1, 8, 10};
        if (offer.sack)
            put(times, 0, 2, 0x0402);
        times.resize(12);
        const std::uint32_t options = offer.wscale.value_or(15) | (offer.sack ? 16U : 0U);
        put(times, 4, 4, (with.time & ~std::uint32_t{63}) | options);
        put(times, 8, 4, *offer.timestamp);
        append(back, times);
        if (offer.wscale)
            append(back, Bytes{1, 3, 3, with.wscale});
    }
    back[12] = static_cast<std::uint8_t>(back.size() / 4 << 4);
    return frame_with(*in, in->answer(tcp, std::move(back), 16), frame.size());
}

} // namespace netctl::testing
