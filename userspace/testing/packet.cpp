// SPDX-License-Identifier: GPL-2.0-only
#include "testing/packet.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include <fmt/format.h>

namespace netctl::testing {

namespace {

/// How a header in front names the layer behind it.
struct Name {
    std::uint16_t ether_type = 0x88b5; // for local experiments, IEEE 802
    std::uint8_t proto = 59;           // no next header
};

Name name_of(const Layer& layer) {
    struct Visitor {
        Name operator()(const Ether&) const { return {0x6558, 143}; }
        Name operator()(const Vlan& vlan) const { return {vlan.tag_type, 59}; }
        Name operator()(const Ipv4&) const { return {0x0800, 4}; }
        Name operator()(const Ipv6&) const { return {0x86dd, 41}; }
        Name operator()(const Extension& header) const { return {0x88b5, header.kind}; }
        Name operator()(const Fragment6&) const { return {0x88b5, 44}; }
        Name operator()(const Tcp&) const { return {0x88b5, 6}; }
        Name operator()(const Udp& udp) const { return {0x88b5, udp.proto}; }
        Name operator()(const Icmp& icmp) const { return {0x88b5, icmp.proto}; }
        Name operator()(const Payload& payload) const { return {0x88b5, payload.proto}; }
    };
    return std::visit(Visitor{}, layer);
}

void put16(Bytes& to, std::uint64_t value) {
    to.push_back(static_cast<std::uint8_t>(value >> 8));
    to.push_back(static_cast<std::uint8_t>(value));
}

void put_mac(Bytes& to, std::uint64_t mac) {
    for (int shift = 40; shift >= 0; shift -= 8)
        to.push_back(static_cast<std::uint8_t>(mac >> shift));
}

void put_address(Bytes& to, const Address& address) {
    to.insert(to.end(), address.bytes.begin(), address.bytes.begin() + address.bits() / 8);
}

/// Writes one header; knows what follows it and how many bytes that takes.
struct Writer {
    Name next;
    std::size_t behind = 0;

    Bytes operator()(const Ether& ether) const {
        Bytes out;
        put_mac(out, ether.dst);
        put_mac(out, ether.src);
        put16(out, ether.type.value_or(next.ether_type));
        return out;
    }
    Bytes operator()(const Vlan& vlan) const {
        Bytes out;
        put16(out, vlan.priority << 13 | (vlan.drop_eligible ? 1 << 12 : 0) | vlan.id);
        put16(out, vlan.type.value_or(next.ether_type));
        return out;
    }
    Bytes operator()(const Ipv4& ip) const {
        Bytes out;
        const std::size_t header = 20 + 4U * ip.option_words;
        out.push_back(static_cast<std::uint8_t>(ip.version.value_or(4) << 4 |
                                                (ip.header_words.value_or(header / 4) & 15)));
        out.push_back(static_cast<std::uint8_t>(ip.dscp << 2));
        put16(out, ip.total_length.value_or(static_cast<std::uint16_t>(header + behind)));
        put16(out, 0); // identification
        put16(out, (ip.more_fragments ? 0x2000 : 0) | ip.fragment_offset);
        out.push_back(ip.ttl);
        out.push_back(ip.proto.value_or(next.proto));
        put16(out, 0);
        put_address(out, ip.src);
        put_address(out, ip.dst);
        out.resize(header, 1);
        std::uint32_t sum = 0;
        for (std::size_t i = 0; i < out.size(); i += 2)
            sum += out[i] * 256U + out[i + 1];
        while (sum > 0xffff)
            sum = (sum & 0xffff) + (sum >> 16);
        out[10] = static_cast<std::uint8_t>(~sum >> 8);
        out[11] = static_cast<std::uint8_t>(~sum);
        return out;
    }
    Bytes operator()(const Ipv6& ip) const {
        Bytes out;
        const std::uint8_t traffic_class = static_cast<std::uint8_t>(ip.dscp << 2);
        out.push_back(static_cast<std::uint8_t>(ip.version.value_or(6) << 4 | traffic_class >> 4));
        out.push_back(static_cast<std::uint8_t>(traffic_class << 4));
        put16(out, 0); // flow label
        put16(out, ip.payload_length.value_or(static_cast<std::uint16_t>(behind)));
        out.push_back(ip.next.value_or(next.proto));
        out.push_back(ip.hop_limit);
        put_address(out, ip.src);
        put_address(out, ip.dst);
        return out;
    }
    Bytes operator()(const Extension& header) const {
        const std::size_t size = 8 + 8U * header.units;
        const std::size_t authentication = size / 4 - 2; // RFC 4302 counts in words, less two
        const std::size_t field = header.kind == 51 ? authentication : header.units;
        Bytes out(size, 1); // options of one byte each, "pad" and unknown ones alike
        out[0] = header.next.value_or(next.proto);
        out[1] = header.length.value_or(static_cast<std::uint8_t>(field));
        return out;
    }
    Bytes operator()(const Fragment6& fragment) const {
        Bytes out;
        out.push_back(fragment.next.value_or(next.proto));
        out.push_back(0);
        put16(out, fragment.offset << 3 | (fragment.more ? 1 : 0));
        out.resize(8, 0x42);
        return out;
    }
    Bytes operator()(const Tcp& tcp) const {
        Bytes out;
        put16(out, tcp.sport);
        put16(out, tcp.dport);
        out.resize(12);
        out.push_back(5 << 4);
        out.push_back(tcp.flags);
        out.resize(20);
        return out;
    }
    Bytes operator()(const Udp& udp) const {
        Bytes out;
        put16(out, udp.sport);
        put16(out, udp.dport);
        put16(out, 8 + behind);
        put16(out, 0);
        return out;
    }
    Bytes operator()(const Icmp& icmp) const { return {icmp.type, icmp.code, 0, 0, 0, 0, 0, 0}; }
    Bytes operator()(const Payload& payload) const { return Bytes(payload.size, payload.fill); }
};

/// Collects `name=value` for what a reader of a failure wants to see.
class Text {
  public:
    explicit Text(std::string layer) : text_(std::move(layer) + "(") {}
    template <class T> Text& add(const char* name, const T& value) {
        if (text_.back() != '(')
            text_ += ", ";
        text_ += fmt::format("{}={}", name, value);
        return *this;
    }
    template <class T> Text& add_if(const char* name, const std::optional<T>& value) {
        return value ? add(name, unsigned{*value}) : *this;
    }
    std::string str() const { return text_ + ")"; }

  private:
    std::string text_;
};

struct Printer {
    static std::string mac(std::uint64_t mac) {
        return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac >> 40 & 255,
                           mac >> 32 & 255, mac >> 24 & 255, mac >> 16 & 255, mac >> 8 & 255,
                           mac & 255);
    }
    std::string operator()(const Ether& e) const {
        return Text("Ether")
            .add("src", mac(e.src))
            .add("dst", mac(e.dst))
            .add_if("type", e.type)
            .str();
    }
    std::string operator()(const Vlan& v) const {
        return Text("Vlan")
            .add("id", v.id)
            .add("tag_type", fmt::format("{:#x}", v.tag_type))
            .add_if("type", v.type)
            .str();
    }
    std::string operator()(const Ipv4& i) const {
        return Text("Ipv4")
            .add("src", i.src.to_string())
            .add("dst", i.dst.to_string())
            .add("dscp", i.dscp)
            .add("option_words", i.option_words)
            .add("more_fragments", i.more_fragments)
            .add("fragment_offset", i.fragment_offset)
            .add_if("proto", i.proto)
            .add_if("version", i.version)
            .add_if("header_words", i.header_words)
            .add_if("total_length", i.total_length)
            .str();
    }
    std::string operator()(const Ipv6& i) const {
        return Text("Ipv6")
            .add("src", i.src.to_string())
            .add("dst", i.dst.to_string())
            .add("dscp", i.dscp)
            .add_if("next", i.next)
            .add_if("version", i.version)
            .add_if("payload_length", i.payload_length)
            .str();
    }
    std::string operator()(const Extension& e) const {
        return Text("Extension")
            .add("kind", e.kind)
            .add("units", e.units)
            .add_if("next", e.next)
            .add_if("length", e.length)
            .str();
    }
    std::string operator()(const Fragment6& f) const {
        return Text("Fragment6")
            .add("offset", f.offset)
            .add("more", f.more)
            .add_if("next", f.next)
            .str();
    }
    std::string operator()(const Tcp& t) const {
        return Text("Tcp")
            .add("sport", t.sport)
            .add("dport", t.dport)
            .add("flags", fmt::format("{:#x}", t.flags))
            .str();
    }
    std::string operator()(const Udp& u) const {
        return Text("Udp").add("sport", u.sport).add("dport", u.dport).add("proto", u.proto).str();
    }
    std::string operator()(const Icmp& i) const {
        return Text("Icmp").add("type", i.type).add("code", i.code).add("proto", i.proto).str();
    }
    std::string operator()(const Payload& p) const {
        return Text("Payload").add("size", p.size).add("proto", p.proto).str();
    }
};

template <class T> T known_good(Result<T> parsed) {
    if (!parsed) {
        std::fprintf(stderr, "test data: %s\n", parsed.error().what.string().c_str());
        std::abort();
    }
    return std::move(parsed).value();
}

} // namespace

Address ip(std::string_view text) {
    return known_good(Address::parse(text));
}
Prefix net(std::string_view text) {
    return known_good(Prefix::parse(text));
}

Bytes Packet::bytes() const {
    Bytes packet;
    Writer writer;
    for (auto layer = layers_.rbegin(); layer != layers_.rend(); ++layer) {
        writer.behind = packet.size();
        const Bytes header = std::visit(writer, *layer);
        packet.insert(packet.begin(), header.begin(), header.end());
        writer.next = name_of(*layer);
    }
    return packet;
}

std::string Packet::to_string() const {
    std::string text;
    for (const Layer& layer : layers_) {
        if (!text.empty())
            text += " / ";
        text += std::visit(Printer{}, layer);
    }
    return text;
}

std::string hex(std::span<const std::uint8_t> bytes) {
    constexpr std::size_t shown = 512;
    std::string text;
    for (std::size_t line = 0; line < std::min(bytes.size(), shown); line += 16) {
        text += fmt::format("{:04x}:", line);
        std::string readable;
        for (std::size_t i = line; i < std::min(line + 16, bytes.size()); i++) {
            text += fmt::format(" {:02x}", bytes[i]);
            readable += bytes[i] >= 0x20 && bytes[i] < 0x7f ? static_cast<char>(bytes[i]) : '.';
        }
        text += fmt::format("  |{}|\n", readable);
    }
    if (bytes.size() > shown)
        text += fmt::format("({} bytes in all)\n", bytes.size());
    return text;
}

} // namespace netctl::testing
