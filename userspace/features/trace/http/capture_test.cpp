// SPDX-License-Identifier: GPL-2.0-only
//
// Captures as they are: packets missing, doubled, out of order, forged, in tunnels and cut short.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "features/trace/http/packet_tracer.hpp"

namespace netctl::trace {
namespace {

using namespace std::string_literals;

std::string be16(unsigned value) {
    return {static_cast<char>(value >> 8), static_cast<char>(value)};
}
std::string be32(std::uint32_t value) {
    return be16(value >> 16) + be16(value & 0xffff);
}

constexpr int fin = 1, syn = 2, rst = 4, psh = 8, ack = 16, urg = 32;

/// A packet of TCP over IPv4 with right checksums.
struct Packet {
    bool to_server = true;
    std::uint32_t sequence = 0, acknowledged = 0;
    int flags = ack;
    std::string payload;
    unsigned port = 40000;
    unsigned urgent = 0;
    bool wrong_checksum = false;
    Time time = 0;

    std::string ip() const {
        const std::string client = "\x0a\0\0\1"s, server = "\x0a\0\0\2"s;
        const std::string ends = to_server ? client + server : server + client;
        std::string tcp = be16(to_server ? port : 80) + be16(to_server ? 80 : port) +
                          be32(sequence) + be32(acknowledged) + "\x50"s + static_cast<char>(flags) +
                          "\xff\xff\0\0"s + be16(urgent) + payload;
        std::uint32_t sum = 6 + static_cast<std::uint32_t>(tcp.size());
        const std::string covered = ends + tcp + std::string(tcp.size() % 2, '\0');
        for (std::size_t i = 0; i < covered.size(); i += 2)
            sum += static_cast<unsigned char>(covered[i]) << 8 |
                   static_cast<unsigned char>(covered[i + 1]);
        while (sum >> 16 != 0)
            sum = (sum & 0xffff) + (sum >> 16);
        const std::string checksum = be16((~sum & 0xffff) ^ (wrong_checksum ? 0x5555 : 0));
        tcp.replace(16, 2, checksum);
        return "\x45\0"s + be16(static_cast<unsigned>(20 + tcp.size())) + "\0\7\0\0\x40\x06\0\0"s +
               ends + tcp;
    }
};

std::string ethernet(const std::string& inside, const std::string& type = "\x08\0"s) {
    return std::string(12, '\2') + type + inside;
}

/// What was asked and how it was answered, as one line each.
std::string line_of(const Transaction& one) {
    std::string text = (one.method.empty() ? "?" : one.method + " " + one.target) + " ";
    text += one.response.seen ? std::to_string(one.status)
            : one.waiting     ? "waiting"
            : one.closed      ? "closed"
                              : "lost";
    return text;
}

struct Capture {
    ParserOptions options;
    ParserCounters parser;
    PacketCounters counters;
    std::vector<Transaction> told;
    PacketTracer tracer;
    Time now = 1'000'000'000;

    explicit Capture(PacketOptions with = {}, ParserOptions parse = {})
        : options(parse),
          tracer(
              options, parser, counters, [this](Transaction& one) { told.push_back(one); }, {},
              with) {}

    Capture& frame(const std::string& bytes, FrameStart start = FrameStart::ip,
                   std::size_t snapped = SIZE_MAX) {
        now += 1'000'000;
        tracer.frame(
            now, start,
            {reinterpret_cast<const std::uint8_t*>(bytes.data()), std::min(bytes.size(), snapped)},
            static_cast<std::uint32_t>(bytes.size()));
        return *this;
    }
    Capture& put(const Packet& packet) { return frame(packet.ip()); }
    std::vector<std::string> end() {
        tracer.finish(now);
        std::vector<std::string> lines;
        for (const Transaction& one : told)
            lines.push_back(line_of(one));
        return lines;
    }
};

using Lines = std::vector<std::string>;

/// One connection, written as a talk; packets get their numbers by themselves.
struct Connection {
    std::vector<Packet> packets;
    std::uint32_t client = 100, server = 7000;
    unsigned port;

    explicit Connection(unsigned from = 40000, bool with_syn = true) : port(from) {
        if (!with_syn)
            return;
        add(true, syn, "");
        add(false, syn | ack, "");
        add(true, ack, "");
    }
    Connection& add(bool to_server, int flags, const std::string& payload) {
        Packet packet;
        packet.to_server = to_server;
        packet.sequence = to_server ? client : server;
        packet.acknowledged = to_server ? server : client;
        packet.flags = flags;
        packet.payload = payload;
        packet.port = port;
        packets.push_back(packet);
        (to_server ? client : server) +=
            static_cast<std::uint32_t>(payload.size()) + ((flags & (syn | fin)) != 0 ? 1 : 0);
        return *this;
    }
    Connection& ask(const std::string& text) { return add(true, psh | ack, text); }
    Connection& answer(const std::string& text) { return add(false, psh | ack, text); }
    /// In segments of at most `size`.
    Connection& answer(const std::string& text, std::size_t size) {
        for (std::size_t at = 0; at < text.size(); at += size)
            answer(text.substr(at, size));
        return *this;
    }
    Connection& acknowledge(bool to_server) { return add(to_server, ack, ""); }
    Connection& end() {
        add(false, fin | ack, "");
        add(true, fin | ack, "");
        return acknowledge(false);
    }
    Lines told(Capture& capture) const {
        for (const Packet& packet : packets)
            capture.put(packet);
        return capture.end();
    }
    Lines told() const {
        Capture capture;
        return told(capture);
    }
};

std::string get(const std::string& path) {
    return "GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n";
}
std::string ok(int status, const std::string& body = "ok") {
    return "HTTP/1.1 " + std::to_string(status) +
           " X\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

TEST(Capture, AnAnswerBeforeItsRequestIsStillItsOwn) {
    for (int first = 0; first < 3; ++first) {
        Connection talk;
        for (int i = 0; i < 3; ++i)
            talk.ask(get("/" + std::to_string(i))).answer(ok(200 + i));
        std::swap(talk.packets[3 + 2 * static_cast<std::size_t>(first)],
                  talk.packets[4 + 2 * static_cast<std::size_t>(first)]);
        EXPECT_EQ(talk.told(), (Lines{"GET /0 200", "GET /1 201", "GET /2 202"})) << first;
    }
}

TEST(Capture, AnEarlyAnswerToHeadHasNoBody) {
    Connection talk;
    talk.ask("HEAD /h HTTP/1.1\r\n\r\n").answer("HTTP/1.1 200 X\r\nContent-Length: 500\r\n\r\n");
    talk.ask(get("/1")).answer(ok(201));
    std::swap(talk.packets[3], talk.packets[4]);
    EXPECT_EQ(talk.told(), (Lines{"HEAD /h 200", "GET /1 201"}));
}

TEST(Capture, AnAnswerAndTheNextRequestMissing) {
    Connection talk;
    for (int i = 0; i < 4; ++i)
        talk.ask(get("/" + std::to_string(i))).answer(ok(200 + i));
    talk.acknowledge(true);
    talk.packets.erase(talk.packets.begin() + 4, talk.packets.begin() + 6); // answer 0, request 1
    EXPECT_EQ(talk.told(), (Lines{"GET /0 lost", "? 201", "GET /2 202", "GET /3 203"}));
}

TEST(Capture, WhatIsMissingBeforeTheEndIsTold) {
    Connection talk;
    talk.ask(get("/0")).answer("HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n");
    talk.answer(std::string(1500, 'x')).answer(std::string(1500, 'y')).end();
    talk.packets.erase(talk.packets.begin() + 6); // the last segment before the FIN
    EXPECT_EQ(talk.told(), (Lines{"GET /0 200"}));

    Connection whole;
    whole.ask(get("/0")).answer(ok(200)).end();
    whole.packets.erase(whole.packets.begin() + 4);
    EXPECT_EQ(whole.told(), (Lines{"GET /0 closed"}));
}

TEST(Capture, ARequestThatTheServerDoesNotWaitForIsCut) {
    Connection talk;
    talk.ask("PUT /p HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + std::string(1000, 'x'));
    talk.answer(ok(413));
    talk.add(false, fin | ack, "");
    Capture capture;
    EXPECT_EQ(talk.told(capture), (Lines{"PUT /p 413"}));
    EXPECT_EQ(capture.told[0].request.end, MessageEnd::cut);
    EXPECT_EQ(capture.told[0].request.body_bytes, 1000u);
    EXPECT_EQ(capture.told[0].request.wire_bytes, 1043u);
}

TEST(Capture, AnyTokenIsAMethodAndEmptyLinesAreSkipped) {
    for (const char* method : {"SUBSCRIBE", "M-SEARCH", "NOTIFY", "QUERY", "a!b", "X"}) {
        Connection talk;
        talk.ask("\r\n\r\n"s + method + " /m HTTP/1.1\r\nHost: h\r\n\r\n").answer(ok(200));
        EXPECT_EQ(talk.told(), (Lines{std::string(method) + " /m 200"}));
        Connection pieces;
        for (const char c : std::string(method) + " /m HTTP/1.1\r\n\r\n")
            pieces.ask(std::string(1, c));
        pieces.answer(ok(200));
        EXPECT_EQ(pieces.told(), (Lines{std::string(method) + " /m 200"}));
    }
    for (const char* other : {"EHLO mail.example\r\n", "DESCRIBE rtsp://h/ RTSP/1.0\r\n\r\n",
                              "OPTIONS sip:x SIP/2.0\r\n\r\n", "SSH-2.0-x\r\n"}) {
        Connection talk;
        Capture capture;
        talk.ask(other).answer("250 ok\r\n").end();
        EXPECT_EQ(talk.told(capture), Lines{}) << other;
    }
}

TEST(Capture, VersionsOfHttp1) {
    Connection later;
    later.ask("GET /v HTTP/1.2\r\n\r\n").answer("HTTP/1.9 200 OK\r\nContent-Length: 0\r\n\r\n");
    EXPECT_EQ(later.told(), (Lines{"GET /v 200"}));
    Connection wrong;
    wrong.ask(get("/v")).answer("HTTP/1.10 200 OK\r\nContent-Length: 0\r\n\r\n").end();
    Capture capture;
    EXPECT_EQ(wrong.told(capture), (Lines{"GET /v closed"}));
    EXPECT_EQ(capture.parser.malformed, 1u);
    Connection noise;
    noise.ask(get("/v")).answer("what is that\r\n").end();
    Capture second;
    EXPECT_EQ(noise.told(second), (Lines{"GET /v closed"}));
    EXPECT_EQ(second.parser.malformed, 1u);
}

TEST(Capture, ForgedResetsAndSegmentsChangeNothing) {
    const auto with = [](auto change, bool to_server) {
        Connection talk;
        talk.ask(get("/0")).answer(ok(200)).acknowledge(true);
        Packet forged = talk.packets.back();
        forged.to_server = to_server;
        forged.sequence = to_server ? talk.client : talk.server;
        forged.acknowledged = to_server ? talk.server : talk.client;
        change(forged);
        talk.packets.push_back(forged);
        talk.ask(get("/1")).answer(ok(201));
        Capture capture;
        const Lines lines = talk.told(capture);
        EXPECT_EQ(capture.counters.tcp.strays, 1u);
        return lines;
    };
    const Lines right{"GET /0 200", "GET /1 201"};
    for (const bool to_server : {true, false}) {
        for (const std::uint32_t off : {1u, 5000u, 0x7fffffffu, 0u - 1u, 0u - 100000u})
            EXPECT_EQ(right, with([&](Packet& p) { p.flags = rst, p.sequence += off; }, to_server))
                << off;
        EXPECT_EQ(right,
                  with([&](Packet& p) { p.flags = rst, p.wrong_checksum = true; }, to_server));
    }
    EXPECT_EQ(right,
              with([&](Packet& p) { p.payload = get("/forged"), p.wrong_checksum = true; }, true));
    EXPECT_EQ(right, with([&](Packet& p) { p.payload = ok(500), p.wrong_checksum = true; }, false));
    EXPECT_EQ(right,
              with([&](Packet& p) { p.payload = ok(500), p.sequence += 0x60000000; }, false));
}

TEST(Capture, ATrueResetEndsIt) {
    Connection talk;
    talk.ask(get("/0")).add(false, rst | ack, "");
    EXPECT_EQ(talk.told(), (Lines{"GET /0 closed"}));
    Connection answered; // by who has closed its socket: the number is what the other expects
    answered.ask(get("/0")).answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab");
    answered.add(true, rst, "");
    Capture capture;
    EXPECT_EQ(answered.told(capture), (Lines{"GET /0 200"}));
    EXPECT_EQ(capture.told[0].response.end, MessageEnd::cut);
}

TEST(Capture, ChecksumsThatWereNeverFilledInAreNoForgeries) {
    Connection talk;
    talk.ask(get("/0")).answer(ok(200)).ask(get("/1")).answer(ok(201));
    for (Packet& packet : talk.packets)
        packet.wrong_checksum = packet.to_server;
    EXPECT_EQ(talk.told(), (Lines{"GET /0 200", "GET /1 201"}));
}

TEST(Capture, AJumpThatTheOtherEndFollowsIsFollowed) {
    Connection talk;
    talk.ask(get("/0")).answer(ok(200)).acknowledge(true);
    talk.server += 0x50000000; // much was not captured
    talk.ask(get("/1")).answer(ok(201)).ask(get("/2")).answer(ok(202)).ask(get("/3")).answer(
        ok(203));
    Lines lines = talk.told();
    ASSERT_GE(lines.size(), 4u);
    EXPECT_EQ(lines[0], "GET /0 200");
    EXPECT_EQ(lines.back(), "GET /3 203");
}

TEST(Capture, UrgentBytesAreNotInTheStream) {
    Connection talk;
    talk.ask("GET /abXcd HTTP/1.1\r\n\r\n").answer(ok(200));
    talk.packets[3].flags |= urg;
    talk.packets[3].urgent = 8;
    EXPECT_EQ(talk.told(), (Lines{"GET /abcd 200"}));
}

TEST(Capture, WhoWaitsIsTold) {
    Connection talk;
    talk.ask(get("/0")).answer(ok(200)).ask(get("/hangs"));
    PacketOptions patient;
    patient.stalled = 3 * second;
    Capture capture(patient);
    for (const Packet& packet : talk.packets)
        capture.put(packet);
    const Time asked = capture.now;
    for (int i = 0; i < 6; ++i)
        capture.tracer.tick(capture.now += second);
    ASSERT_EQ(capture.told.size(), 2u);
    EXPECT_TRUE(capture.told[1].stalled);
    EXPECT_GE(capture.told[1].duration(), 3 * second);
    EXPECT_EQ(capture.end(), (Lines{"GET /0 200", "GET /hangs waiting", "GET /hangs waiting"}));
    EXPECT_FALSE(capture.told[2].stalled);
    EXPECT_EQ(capture.told[2].duration(), capture.now - asked);
    EXPECT_EQ(capture.parser.unfinished, 1u);
    EXPECT_EQ(capture.parser.unanswered, 0u);

    Connection closed;
    closed.ask(get("/c")).end();
    Capture second;
    EXPECT_EQ(closed.told(second), (Lines{"GET /c closed"}));
    EXPECT_GT(second.told[0].duration(), 0u);
}

TEST(Capture, VlansAreNetworksOfTheirOwn) {
    Capture capture;
    std::array<Connection, 2> talks{Connection(), Connection()};
    for (int i = 0; i < 2; ++i)
        talks[i].ask(get("/" + std::to_string(i))).answer(ok(200 + i));
    for (std::size_t at = 0; at < talks[0].packets.size(); ++at)
        for (unsigned i = 0; i < 2; ++i)
            capture.frame(ethernet("\x08\0"s + talks[i].packets[at].ip(), "\x81\0"s + be16(10 + i)),
                          FrameStart::ethernet);
    EXPECT_EQ(capture.end(), (Lines{"GET /0 200", "GET /1 201"}));
}

struct Wrapping {
    const char* name;
    FrameStart start;
    std::string (*wrap)(const std::string& ip, bool to_server);
    bool tunnel;
};

std::string outer_ip(int protocol, const std::string& inside, bool to_server) {
    const std::string a = "\xc0\0\2\1"s, b = "\xc0\0\2\2"s;
    return "\x45\0"s + be16(static_cast<unsigned>(20 + inside.size())) + "\0\7\0\0\x40"s +
           static_cast<char>(protocol) + "\0\0"s + (to_server ? a + b : b + a) + inside;
}
std::string udp(unsigned port, const std::string& inside) {
    return be16(50000) + be16(port) + be16(static_cast<unsigned>(8 + inside.size())) + "\0\0"s +
           inside;
}

const std::vector<Wrapping>& wrappings() {
    using F = FrameStart;
    using S = const std::string&;
    static const std::vector<Wrapping> all = {
        {"Ethernet", F::ethernet, [](S ip, bool) { return ethernet(ip); }, false},
        {"FourTags", F::ethernet,
         [](S ip, bool) {
             return ethernet("\0\1\x88\xa8\0\2\x81\0\0\3\x91\0\0\4\x08\0"s + ip, "\x81\0"s);
         },
         false},
        {"RawIp", F::ip, [](S ip, bool) { return ip; }, false},
        {"Sll", F::linux_cooked, [](S ip, bool) { return std::string(14, '\0') + "\x08\0"s + ip; },
         false},
        {"Sll2", F::linux_cooked2,
         [](S ip, bool) { return "\x08\0"s + std::string(18, '\0') + ip; }, false},
        {"Null", F::loopback, [](S ip, bool) { return "\2\0\0\0"s + ip; }, false},
        {"Loop", F::loopback, [](S ip, bool) { return "\0\0\0\2"s + ip; }, false},
        {"Ppp", F::ppp, [](S ip, bool) { return "\0\x21"s + ip; }, false},
        {"PppHdlc", F::ppp, [](S ip, bool) { return "\xff\3\0\x21"s + ip; }, false},
        {"PppShort", F::ppp, [](S ip, bool) { return "\x21"s + ip; }, false},
        {"Gre", F::ip, [](S ip, bool s) { return outer_ip(47, "\0\0\x08\0"s + ip, s); }, true},
        {"GreKeySequence", F::ip,
         [](S ip, bool s) { return outer_ip(47, "\xb0\0\x08\0\0\0\0\0\0\0\0\7\0\0\0\1"s + ip, s); },
         true},
        {"GreBridged", F::ip,
         [](S ip, bool s) { return outer_ip(47, "\0\0\x65\x58"s + ethernet(ip), s); }, true},
        {"Pptp", F::ip,
         [](S ip, bool s) {
             return outer_ip(47,
                             "\x30\x81\x88\x0b\0\x22\0"s + (s ? "\1"s : "\2"s) +
                                 "\0\0\0\1\0\0\0\1\xff\3\0\x21"s + ip,
                             s);
         },
         true},
        {"Ipip", F::ip, [](S ip, bool s) { return outer_ip(4, ip, s); }, true},
        {"Vxlan", F::ip,
         [](S ip, bool s) {
             return outer_ip(17, udp(4789, "\x08\0\0\0\0\0\7\0"s + ethernet(ip)), s);
         },
         true},
        {"Geneve", F::ip,
         [](S ip, bool s) {
             return outer_ip(17, udp(6081, "\1\0\x65\x58\0\0\7\0\1\2\3\0"s + ethernet(ip)), s);
         },
         true},
        {"Mpls", F::ethernet,
         [](S ip, bool s) {
             return ethernet((s ? "\0\1\0\x40\0\1\1\x40"s : "\0\2\0\x40\0\2\1\x40"s) + ip,
                             "\x88\x47"s);
         },
         true},
        {"MplsBridged", F::ethernet,
         [](S ip, bool) { return ethernet("\0\1\1\x40\0\0\0\0"s + ethernet(ip), "\x88\x47"s); },
         true},
        {"Pppoe", F::ethernet,
         [](S ip, bool) {
             return ethernet("\x11\0\0\7"s + be16(static_cast<unsigned>(2 + ip.size())) +
                                 "\0\x21"s + ip,
                             "\x88\x64"s);
         },
         true},
        {"VxlanOverGre", F::ip,
         [](S ip, bool s) {
             return outer_ip(47,
                             "\0\0\x08\0"s +
                                 outer_ip(17, udp(4789, "\x08\0\0\0\0\0\7\0"s + ethernet(ip)), s),
                             s);
         },
         true},
    };
    return all;
}

TEST(Capture, EveryLinkTypeAndTunnel) {
    Connection talk;
    talk.ask(get("/0")).answer(ok(200)).ask(get("/1")).answer(ok(201)).end();
    for (const Wrapping& wrapping : wrappings()) {
        for (const bool look : {true, false}) {
            PacketOptions options;
            options.layers.tunnels = look;
            Capture capture(options);
            for (const Packet& packet : talk.packets)
                capture.frame(wrapping.wrap(packet.ip(), packet.to_server), wrapping.start);
            const Lines right =
                wrapping.tunnel && !look ? Lines{} : Lines{"GET /0 200", "GET /1 201"};
            EXPECT_EQ(capture.end(), right) << wrapping.name;
            std::uint64_t counted = 0;
            for (const std::uint64_t frames : capture.counters.layers.tunnelled)
                counted += frames;
            EXPECT_EQ(counted, wrapping.tunnel && !look ? talk.packets.size() : 0) << wrapping.name;
            EXPECT_EQ(capture.counters.layers.damaged, 0u) << wrapping.name;
        }
    }
}

TEST(Capture, NothingOfItIsReadBeyondItsEnd) {
    Connection talk;
    talk.ask(get("/0")).answer(ok(200));
    for (const Wrapping& wrapping : wrappings()) {
        const std::string whole = wrapping.wrap(talk.packets[3].ip(), true);
        for (std::size_t size = 0; size < whole.size(); ++size) {
            Capture capture;
            const std::string cut(whole.data(), size); // its own memory, for the sanitizer
            capture.frame(cut, wrapping.start);
            capture.end();
        }
    }
}

TEST(Capture, OtherConnectionsAreCountedByWhatTheyAre) {
    Capture capture;
    Connection tls(1001), smtp(1002), http2(1003), silent(1004);
    tls.ask("\x16\3\1\2\0\1"s).answer("\x16\3\3"s).end();
    smtp.answer("220 mail ESMTP\r\n").ask("EHLO x\r\n").end();
    http2.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").end();
    silent.end();
    for (const Connection* one : {&tls, &smtp, &http2, &silent})
        for (const Packet& packet : one->packets)
            capture.put(packet);
    EXPECT_EQ(capture.end(), Lines{});
    EXPECT_EQ(capture.counters.tls, 1u);
    EXPECT_EQ(capture.counters.not_http, 1u);
    EXPECT_EQ(capture.parser.http2, 1u);
}

TEST(Capture, AnswersThatGoAnotherWayShiftNothing) {
    // Request 1 is answered where nobody looks; TCP's numbers do not move for that.
    Connection talk;
    talk.ask(get("/0"))
        .answer(ok(200))
        .ask(get("/1"))
        .ask(get("/2"))
        .answer(ok(202))
        .ask(get("/3"))
        .answer(ok(203));
    ParserOptions hidden;
    hidden.answers_may_hide = true;
    Capture capture({}, hidden);
    EXPECT_EQ(talk.told(capture), (Lines{"GET /0 200", "GET /1 lost", "GET /2 202", "GET /3 203"}));
}

TEST(Capture, MemoryHasABound) {
    // Requests that nobody answers.
    Capture flood;
    Connection talk;
    const std::string many = [] {
        std::string text;
        for (int i = 0; i < 60; ++i)
            text += get("/" + std::string(1000, 'x'));
        return text;
    }();
    for (int i = 0; i < 300; ++i) {
        talk.packets.clear();
        talk.ask(many);
        flood.put(talk.packets[0]);
        ASSERT_LE(flood.tracer.memory(), MemoryBudget::default_limit + (1 << 20));
    }
    EXPECT_GT(flood.parser.dropped, 0u);
    flood.end();
    EXPECT_EQ(flood.tracer.memory(), 0u);

    // Segments behind holes that nobody fills, of many connections; a true one beside them.
    Capture holes;
    std::uint64_t given_up = 0;
    for (unsigned port = 1; port < 400; ++port) {
        Connection one(port, false);
        one.ask(get("/")).ask(std::string(10, 'x'));
        one.packets.erase(one.packets.begin() + 1);
        for (int i = 0; i < 200; ++i)
            one.ask(std::string(1400, 'y'));
        for (const Packet& packet : one.packets)
            holes.put(packet);
        ASSERT_LE(holes.tracer.memory(), MemoryBudget::default_limit + (1 << 20));
        given_up = holes.counters.tcp.given_up;
    }
    EXPECT_GT(given_up, 0u);
    Connection honest(50000);
    honest.ask(get("/honest")).answer(ok(200));
    std::swap(honest.packets[3], honest.packets[4]);
    for (const Packet& packet : honest.packets)
        holes.put(packet);
    EXPECT_EQ(line_of(holes.told.back()), "GET /honest 200");
}

// ---- each packet missing, doubled, out of order, cut ----

/// 24 connections of all kinds; no two answers have the same status.
struct Corpus {
    std::vector<Packet> packets;
    std::map<std::string, int> statuses;         ///< by "METHOD target"
    std::map<std::string, std::uint64_t> bodies; ///< of the answers

    Corpus() {
        std::vector<Connection> all;
        for (unsigned i = 0; i < 24; ++i) {
            Connection talk(30000 + i, false);
            talk.client += i * 0x20000000u; // some wrap
            talk.server += i * 0x1fff0000u;
            talk.add(true, syn, "").add(false, syn | ack, "").acknowledge(true);
            fill(talk, i);
            all.push_back(talk);
        }
        // Mixed, as a capture is.
        std::mt19937 engine(5);
        std::vector<std::size_t> at(all.size());
        for (;;) {
            std::vector<std::size_t> open;
            for (std::size_t i = 0; i < all.size(); ++i)
                if (at[i] < all[i].packets.size())
                    open.push_back(i);
            if (open.empty())
                break;
            const std::size_t i = open[engine() % open.size()];
            packets.push_back(all[i].packets[at[i]++]);
        }
    }

    /// The connection's packets alone keep their order when others move.
    static bool same_connection(const Packet& one, const Packet& other) {
        return one.port == other.port;
    }

    /// Empty if all that was told is right or marked; with `all`, if all is right.
    std::string wrong(Capture& capture, bool all) const {
        capture.end();
        std::map<std::string, int> right;
        for (const Transaction& one : capture.told) {
            const std::string what = one.method + " " + one.target;
            if (!one.request.seen || !one.response.seen || one.guessed)
                continue;
            const auto status = statuses.find(what);
            if (status == statuses.end() || status->second != one.status)
                return what + " was told to have got " + std::to_string(one.status);
            if (one.response.end == MessageEnd::complete && !one.waiting) {
                if (one.response.body_bytes != bodies.at(what))
                    return what + " has " + std::to_string(one.response.body_bytes) + " bytes";
                if (++right[what] > 1)
                    return what + " was told twice";
            }
        }
        const ParserCounters& p = capture.parser;
        const PacketCounters& c = capture.counters;
        const std::uint64_t marks = p.holes + p.unframed + p.unanswered + p.unasked + p.unfinished +
                                    p.guessed + p.malformed + c.tcp.missing_bytes +
                                    c.layers.damaged;
        if (right.size() < statuses.size() && (all || marks == 0)) {
            for (const auto& [what, status] : statuses)
                if (!right.contains(what))
                    return what + " is not there, marks: " + std::to_string(marks);
        }
        return {};
    }

  private:
    int next_status = 200;

    std::string request(const std::string& method, const std::string& target, std::size_t body,
                        const std::string& more = "") {
        do
            ++next_status;
        while (next_status == 204 || next_status == 304);
        statuses[method + " " + target] = next_status;
        bodies[method + " " + target] = method == "HEAD" ? 0 : body;
        return method + " " + target + " HTTP/1.1\r\nHost: h\r\n" + more + "\r\n";
    }
    std::string head(const std::string& more) const {
        return "HTTP/1.1 " + std::to_string(next_status) + " X\r\n" + more + "\r\n";
    }
    static std::string length(std::size_t size) {
        return "Content-Length: " + std::to_string(size) + "\r\n";
    }

    void fill(Connection& talk, unsigned i) {
        const std::string path = "/" + std::to_string(i) + "/";
        switch (i % 8) {
        case 0: // keep-alive, an answer in several segments
            for (int n = 0; n < 4; ++n) {
                talk.ask(request("GET", path + std::to_string(n), 4000));
                talk.answer(head(length(4000)) + std::string(4000, 'b'), 1400).acknowledge(true);
            }
            break;
        case 1: // chunked, cut anywhere
            for (int n = 0; n < 3; ++n) {
                talk.ask(request("GET", path + std::to_string(n), 3000)).acknowledge(false);
                std::string body;
                for (int k = 0; k < 10; ++k)
                    body += "12c\r\n" + std::string(300, 'c') + "\r\n";
                talk.answer(head("Transfer-Encoding: chunked\r\n") + body + "0\r\n\r\n", 700);
                talk.acknowledge(true);
            }
            break;
        case 2: // requests with bodies
            for (int n = 0; n < 3; ++n) {
                talk.ask(request("POST", path + std::to_string(n), 5, length(2000)));
                talk.ask(std::string(1000, 'p')).ask(std::string(1000, 'p')).acknowledge(false);
                talk.answer(head(length(5)) + "hello");
            }
            break;
        case 3: { // pipelined
            std::string answers;
            std::string asked;
            for (int n = 0; n < 4; ++n) {
                asked += request("GET", path + std::to_string(n), 600);
                answers += head(length(600)) + std::string(600, 'q');
            }
            talk.ask(asked).answer(answers, 900).acknowledge(true);
            break;
        }
        case 4: // until the end
            talk.ask(request("GET", path, 2500)).acknowledge(false);
            talk.answer(head("") + std::string(2500, 'u'), 1000);
            break;
        case 5: // HEAD, and an interim answer
            talk.ask(request("HEAD", path + "h", 0)).answer(head(length(777)));
            talk.ask(request("PUT", path + "c", 2, length(10) + "Expect: 100-continue\r\n"));
            talk.answer("HTTP/1.1 100 Continue\r\n\r\n").ask("0123456789");
            talk.answer(head(length(2)) + "ok");
            break;
        case 6: // each answer is followed by the next request at once, acknowledged on the way
            for (int n = 0; n < 6; ++n) {
                talk.ask(request("GET", path + std::to_string(n), 2));
                talk.answer(head(length(2)) + "ok");
            }
            break;
        default: { // pipelined one by one
            std::vector<std::string> answers;
            for (int n = 0; n < 4; ++n) {
                talk.ask(request("GET", path + std::to_string(n), 10));
                answers.push_back(head(length(10)) + "0123456789");
            }
            for (const std::string& answer : answers)
                talk.answer(answer);
            talk.acknowledge(true);
        }
        }
        talk.end();
    }
};

TEST(CaptureCorpus, AllIsRightAsItIs) {
    const Corpus corpus;
    Capture capture;
    for (const Packet& packet : corpus.packets)
        capture.put(packet);
    EXPECT_EQ(corpus.wrong(capture, true), "");
    EXPECT_GT(corpus.packets.size(), 300u);
    EXPECT_EQ(capture.parser.guessed + capture.parser.holes + capture.counters.tcp.missing_bytes,
              0u);
}

TEST(CaptureCorpus, EachPacketMissing) {
    const Corpus corpus;
    for (std::size_t missing = 0; missing < corpus.packets.size(); ++missing) {
        Capture capture;
        for (std::size_t i = 0; i < corpus.packets.size(); ++i)
            if (i != missing)
                capture.put(corpus.packets[i]);
        EXPECT_EQ(corpus.wrong(capture, false), "")
            << "without packet " << missing << " of port " << corpus.packets[missing].port;
    }
}

TEST(CaptureCorpus, TwoPacketsOfAConnectionMissing) {
    const Corpus corpus;
    std::mt19937 engine(11);
    for (int round = 0; round < 600; ++round) {
        const std::size_t one = engine() % corpus.packets.size();
        std::size_t other = one;
        for (std::size_t i = one + 1; i < corpus.packets.size() && other == one; ++i)
            if (Corpus::same_connection(corpus.packets[i], corpus.packets[one]) &&
                engine() % 3 == 0)
                other = i;
        Capture capture;
        for (std::size_t i = 0; i < corpus.packets.size(); ++i)
            if (i != one && i != other)
                capture.put(corpus.packets[i]);
        EXPECT_EQ(corpus.wrong(capture, false), "") << "without packets " << one << ", " << other
                                                    << " of port " << corpus.packets[one].port;
    }
}

TEST(CaptureCorpus, EachPacketTwice) {
    const Corpus corpus;
    for (std::size_t twice = 0; twice < corpus.packets.size(); ++twice) {
        for (const std::size_t later : {0u, 1u, 3u}) {
            Capture capture;
            for (std::size_t i = 0; i < corpus.packets.size(); ++i) {
                capture.put(corpus.packets[i]);
                if (i == std::min(twice + later, corpus.packets.size() - 1))
                    capture.put(corpus.packets[twice]);
            }
            ASSERT_EQ(corpus.wrong(capture, true), "") << "packet " << twice << " again";
        }
    }
}

TEST(CaptureCorpus, EachPacketUpToThreeLate) {
    const Corpus corpus;
    for (std::size_t late = 0; late < corpus.packets.size(); ++late) {
        for (std::size_t by = 1; by <= 3; ++by) {
            std::vector<Packet> packets = corpus.packets;
            // Of its own connection, so that it does matter.
            std::size_t at = late;
            std::size_t behind = 0;
            for (std::size_t i = late + 1; i < packets.size() && behind < by; ++i)
                if (Corpus::same_connection(packets[i], packets[late]))
                    at = i, ++behind;
            const auto first = packets.begin() + static_cast<std::ptrdiff_t>(late);
            std::rotate(first, first + 1, packets.begin() + static_cast<std::ptrdiff_t>(at) + 1);
            Capture capture;
            for (const Packet& packet : packets)
                capture.put(packet);
            EXPECT_EQ(corpus.wrong(capture, false), "")
                << "packet " << late << " late by " << by << ", port " << corpus.packets[late].port;
        }
    }
}

TEST(CaptureCorpus, CutAtEachLength) {
    const Corpus corpus;
    std::vector<std::string> frames;
    for (const Packet& packet : corpus.packets)
        frames.push_back(packet.ip());
    for (std::size_t snap = 20; snap < 1500; snap += snap < 200 ? 1 : 37) {
        Capture capture;
        for (const std::string& frame : frames)
            capture.frame(frame, FrameStart::ip, snap);
        ASSERT_EQ(corpus.wrong(capture, false), "") << "cut to " << snap;
    }
}

} // namespace
} // namespace netctl::trace
