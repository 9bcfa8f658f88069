// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/frame_layers.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace netctl::trace {

namespace {

constexpr std::uint16_t ether_ip = 0x0800, ether_ip6 = 0x86dd, ether_mpls = 0x8847,
                        ether_mpls_multicast = 0x8848, ether_pppoe = 0x8864,
                        ether_bridged = 0x6558; // Ethernet in GRE and GENEVE
constexpr std::uint8_t proto_ipip = 4, proto_tcp = 6, proto_udp = 17, proto_ip6 = 41,
                       proto_gre = 47;

bool is_tag(std::uint16_t type) {
    return type == 0x8100 || type == 0x88a8 || type == 0x9100 || type == 0x9200;
}

/// Of 16-bit words, RFC 1071; an odd last byte counts as the higher one.
std::uint64_t add_words(std::uint64_t sum, std::span<const std::uint8_t> bytes) {
    std::size_t i = 0;
    for (; i + 1 < bytes.size(); i += 2)
        sum += be16(&bytes[i]);
    if (i < bytes.size())
        sum += static_cast<std::uint32_t>(bytes[i] << 8);
    return sum;
}

class Walk {
  public:
    Walk(const LayerOptions& options, FrameCounters& counters, TcpPlace& place)
        : options_(&options), counters_(&counters), place_(&place) {}

    bool start(FrameStart start, std::span<const std::uint8_t> bytes, std::uint32_t length) {
        bytes_ = bytes;
        length_ = length;
        switch (start) {
        case FrameStart::ethernet: return ethernet();
        case FrameStart::ip: return ip();
        case FrameStart::linux_cooked: return has(16) && typed(be16(&bytes_[14]), 16);
        case FrameStart::linux_cooked2: return has(20) && typed(be16(&bytes_[0]), 20);
        case FrameStart::loopback: return skip(4) && ip();
        case FrameStart::ppp: return ppp();
        }
        return false;
    }

  private:
    static constexpr int layer_limit = 16;

    bool damaged() {
        ++counters_->damaged;
        return false;
    }
    bool other() {
        ++counters_->other;
        return false;
    }
    /// Counts it if not.
    bool has(std::size_t size) {
        if (bytes_.size() >= size && length_ >= size)
            return true;
        return damaged();
    }
    bool skip(std::size_t size) {
        if (!has(size))
            return false;
        bytes_ = bytes_.subspan(size);
        length_ -= static_cast<std::uint32_t>(size);
        return true;
    }
    void mix(std::uint64_t value) {
        place_->path = (place_->path ^ value) * 0x9e3779b97f4a7c15;
        place_->path ^= place_->path >> 29;
    }
    /// False, and counted, if it is not to be looked into.
    bool enter(Tunnel tunnel, std::uint64_t id) {
        if (!options_->tunnels) {
            ++counters_->tunnelled[static_cast<std::size_t>(tunnel)];
            return false;
        }
        mix(static_cast<std::uint64_t>(tunnel) + 1);
        mix(id);
        return true;
    }

    bool ethernet() { return has(14) && typed(be16(&bytes_[12]), 14); }

    /// What has ether type `type` begins `header` bytes on.
    bool typed(std::uint16_t type, std::size_t header) {
        if (!skip(header))
            return false;
        for (int tags = 0; is_tag(type); ++tags) {
            if (tags == 4)
                return other();
            if (!has(4))
                return false;
            if (options_->vlans)
                mix(0x10000u | (be16(&bytes_[0]) & 0x0fff));
            type = be16(&bytes_[2]);
            skip(4);
        }
        switch (type) {
        case ether_ip:
        case ether_ip6: return ip();
        case ether_mpls:
        case ether_mpls_multicast: return mpls();
        case ether_pppoe:
            return has(6) && enter(Tunnel::pppoe, be16(&bytes_[2])) && skip(6) && ppp();
        case ether_bridged: return ethernet();
        default: return other();
        }
    }

    bool ppp() {
        if (!has(4))
            return false;
        if (bytes_[0] == 0xff && bytes_[1] == 0x03) // as in HDLC, RFC 1662
            skip(2);
        // The protocol may be one byte long (RFC 1661 6.5).
        const bool odd = (bytes_[0] & 1) != 0;
        const std::uint16_t protocol = odd ? bytes_[0] : be16(&bytes_[0]);
        skip(odd ? 1 : 2);
        if (protocol == 0x0021 || protocol == 0x0057)
            return ip();
        return protocol == 0x0281 ? mpls() : other();
    }

    bool mpls() {
        // Not which labels: each direction has its own.
        if (!enter(Tunnel::mpls, 0))
            return false;
        for (bool bottom = false; !bottom;) {
            if (!has(4))
                return false;
            bottom = (bytes_[2] & 1) != 0;
            if (++layers_ > layer_limit)
                return deep();
            skip(4);
        }
        if (!has(1))
            return false;
        // What is inside shows in its first four bits; 0 is a control word before Ethernet (RFC 4385).
        switch (bytes_[0] >> 4) {
        case 4:
        case 6: return ip();
        case 0: return skip(4) && ethernet();
        default: return other();
        }
    }

    bool deep() {
        ++counters_->deep;
        return false;
    }

    bool ip() {
        if (++layers_ > layer_limit)
            return deep();
        if (!has(20))
            return false;
        Endpoint& source = place_->source;
        Endpoint& target = place_->target;
        source = target = {};
        std::size_t header = 0;
        std::uint32_t total = 0; // 0: the kernel merged more than the field can say
        std::uint8_t protocol = 0;
        if (bytes_[0] >> 4 == 4) {
            header = (bytes_[0] & 15) * 4u;
            if (header < 20 || bytes_.size() < header)
                return damaged();
            total = be16(&bytes_[2]);
            if ((be16(&bytes_[6]) & 0x3fff) != 0) {
                ++counters_->fragments;
                return false;
            }
            protocol = bytes_[9];
            std::memcpy(source.address.bytes.data(), &bytes_[12], 4);
            std::memcpy(target.address.bytes.data(), &bytes_[16], 4);
        } else if (bytes_[0] >> 4 == 6) {
            if (!has(40))
                return false;
            const std::uint16_t payload = be16(&bytes_[4]);
            total = payload ? 40u + payload : 0;
            source.address.family = target.address.family = Family::ipv6;
            std::memcpy(source.address.bytes.data(), &bytes_[8], 16);
            std::memcpy(target.address.bytes.data(), &bytes_[24], 16);
            protocol = bytes_[6];
            header = 40;
            // Hop-by-hop, routing, destination options, authentication, mobility; RFC 8200.
            while (protocol == 0 || protocol == 43 || protocol == 60 || protocol == 51 ||
                   protocol == 135 || protocol == 44) {
                if (bytes_.size() < header + 8)
                    return damaged();
                std::size_t size = (bytes_[header + 1] + 1u) * 8;
                if (protocol == 44) {
                    if ((be16(&bytes_[header + 2]) & 0xfff9) != 0) {
                        ++counters_->fragments;
                        return false;
                    }
                    size = 8;
                } else if (protocol == 51) {
                    size = (bytes_[header + 1] + 2u) * 4;
                }
                protocol = bytes_[header];
                header += size;
            }
            if (bytes_.size() < header)
                return damaged();
        } else {
            return damaged();
        }
        // Ethernet pads short frames; the datagram ends where it says.
        if (total != 0)
            length_ = std::min(length_, total);
        if (length_ < header)
            return damaged();
        bytes_ = bytes_.subspan(0, std::min<std::size_t>(bytes_.size(), length_));
        if (!skip(header))
            return false;
        switch (protocol) {
        case proto_tcp: return tcp();
        case proto_ipip: return enter(Tunnel::ipip, outer()) && ip();
        case proto_ip6: return enter(Tunnel::six_in_four, outer()) && ip();
        case proto_gre: return gre();
        case proto_udp: return udp();
        default: return other();
        }
    }

    /// The same for both directions.
    std::uint64_t outer() const {
        std::uint64_t sum = 0;
        for (const Endpoint* end : {&place_->source, &place_->target}) {
            std::uint64_t words[2];
            std::memcpy(words, end->address.bytes.data(), sizeof words);
            sum += (words[0] * 0x9e3779b97f4a7c15) ^ (words[1] * 0xcbf29ce484222325);
        }
        return sum;
    }

    /// RFC 2784 and 2890; version 1 is PPTP's (RFC 2637).
    bool gre() {
        if (!has(4))
            return false;
        const std::uint16_t flags = be16(&bytes_[0]), type = be16(&bytes_[2]);
        std::size_t header = 4;
        std::uint64_t key = 0;
        if ((flags & 0x8000) != 0) // checksum
            header += 4;
        if ((flags & 0x2000) != 0) {
            if (!has(header + 4))
                return false;
            // PPTP's call number, in the lower half, is one in each direction.
            if ((flags & 7) == 0)
                key = static_cast<std::uint64_t>(be16(&bytes_[header])) << 16 |
                      be16(&bytes_[header + 2]);
            header += 4;
        }
        if ((flags & 0x1000) != 0) // sequence number
            header += 4;
        if ((flags & 7) == 1 && (flags & 0x0080) != 0) // acknowledgment
            header += 4;
        if ((flags & 7) > 1 || (flags & 0x4000) != 0)
            return other();
        if (!enter(Tunnel::gre, outer() + key))
            return false;
        if (type == 0x880b)
            return skip(header) && ppp();
        return typed(type, header);
    }

    bool udp() {
        if (!has(8))
            return false;
        const std::uint16_t port = be16(&bytes_[2]);
        if (port == 4789 || port == 8472) { // RFC 7348, and Linux before it had a number
            if (!has(16) || (bytes_[8] & 0x08) == 0)
                return other();
            const std::uint64_t vni = be16(&bytes_[12]) << 8 | bytes_[14];
            return enter(Tunnel::vxlan, outer() + vni) && skip(16) && ethernet();
        }
        if (port == 6081) { // RFC 8926
            if (!has(16) || (bytes_[8] & 0xc0) != 0)
                return other();
            const std::size_t options = (bytes_[8] & 0x3fu) * 4;
            const std::uint16_t type = be16(&bytes_[10]);
            const std::uint64_t vni = be16(&bytes_[12]) << 8 | bytes_[14];
            return enter(Tunnel::geneve, outer() + vni) && typed(type, 16 + options);
        }
        place_->source.port = be16(&bytes_[0]);
        place_->target.port = port;
        place_->bytes = bytes_.subspan(8);
        place_->length = length_ - 8;
        place_->datagram = true;
        return other();
    }

    bool tcp() {
        if (!has(20))
            return false;
        place_->source.port = be16(&bytes_[0]);
        place_->target.port = be16(&bytes_[2]);
        place_->bytes = bytes_;
        place_->length = length_;
        place_->checksum_wrong =
            options_->checksums && bytes_.size() == length_ && !checksum_right();
        return true;
    }

    bool checksum_right() const {
        std::uint64_t sum = proto_tcp + (length_ >> 16) + (length_ & 0xffff);
        const std::size_t size = place_->source.address.family == Family::ipv6 ? 16 : 4;
        for (const Endpoint* end : {&place_->source, &place_->target})
            sum = add_words(sum, std::span(end->address.bytes.data(), size));
        sum = add_words(sum, bytes_);
        while (sum >> 16 != 0)
            sum = (sum & 0xffff) + (sum >> 16);
        return sum == 0xffff;
    }

    const LayerOptions* options_;
    FrameCounters* counters_;
    TcpPlace* place_;
    std::span<const std::uint8_t> bytes_;
    std::uint32_t length_ = 0;
    int layers_ = 0;
};

} // namespace

const char* tunnel_name(Tunnel tunnel) {
    switch (tunnel) {
    case Tunnel::gre: return "GRE";
    case Tunnel::ipip: return "IPIP";
    case Tunnel::six_in_four: return "6in4";
    case Tunnel::vxlan: return "VXLAN";
    case Tunnel::geneve: return "GENEVE";
    case Tunnel::mpls: return "MPLS";
    case Tunnel::pppoe: return "PPPoE";
    }
    return "";
}

bool find_tcp(FrameStart start, std::span<const std::uint8_t> frame, std::uint32_t length,
              const LayerOptions& options, FrameCounters& counters, TcpPlace& place) {
    place.path = 0;
    place.datagram = false;
    return Walk(options, counters, place).start(start, frame, length);
}

} // namespace netctl::trace
