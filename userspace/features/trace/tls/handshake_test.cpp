// SPDX-License-Identifier: GPL-2.0-only
//
// Hellos that are made here byte by byte; what libraries send is in netns-tests/trace_tls_handshakes_test.py. Random changes,
// cuts and holes: the reader must keep its promises, and cuts must change nothing.
#include "features/trace/tls/handshake.hpp"

#include <algorithm>
#include <cstdlib>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "features/trace/tls/names.hpp"

namespace netctl::trace::tls {
namespace {

constexpr auto client = HandshakeReader::a;
constexpr auto server = HandshakeReader::b;

std::string number(std::uint64_t value, std::size_t size) {
    std::string bytes;
    for (std::size_t i = size; i-- > 0;)
        bytes += static_cast<char>(value >> (8 * i));
    return bytes;
}

std::string vector(const std::string& content, std::size_t size) {
    return number(content.size(), size) + content;
}

std::string extension(std::uint16_t type, const std::string& content) {
    return number(type, 2) + vector(content, 2);
}

std::string message(std::uint8_t type, const std::string& body) {
    return number(type, 1) + vector(body, 3);
}

std::string record(std::uint8_t type, const std::string& content) {
    return number(type, 1) + number(0x0303, 2) + vector(content, 2);
}

std::string client_hello(const std::string& extensions) {
    return message(1, number(0x0303, 2) + std::string(32, 'r') + vector("session", 1) +
                          vector(number(0x1301c02f, 4), 2) + vector(std::string(1, '\0'), 1) +
                          vector(extensions, 2));
}

std::string usual_extensions() {
    return extension(0, vector(number(0, 1) + vector("example.org", 2), 2)) +
           extension(16,
                     vector(vector("\x0a\x0a", 1) + vector("h2", 1) + vector("http/1.1", 1), 2)) +
           extension(43, vector(number(0x3a3a03040303, 6), 1));
}

std::string server_hello(const std::string& random, std::uint16_t cipher,
                         const std::string& extensions) {
    return message(2, number(0x0303, 2) + random + vector("session", 1) + number(cipher, 2) +
                          number(0, 1) + vector(extensions, 2));
}

const std::string plain_random(32, 's');
const std::string version13 = extension(43, number(0x0304, 2));
const std::string change = record(20, number(1, 1));
const std::string finished12 = record(22, std::string(40, '\xee'));

struct Piece {
    HandshakeReader::Side side;
    std::string bytes;
};

/// What is told of these pieces, each a call of its own at times 1, 2, ...; unfinished if nothing is.
Handshake told(const std::vector<Piece>& pieces, bool end = true) {
    std::vector<Handshake> all;
    HandshakeReader reader([&](const Handshake& one) { all.push_back(one); });
    Time now = 0;
    for (const Piece& piece : pieces)
        reader.data(piece.side, piece.bytes, ++now);
    EXPECT_EQ(reader.over(), !all.empty());
    if (end)
        reader.abandon(++now);
    EXPECT_LE(all.size(), 1u);
    return all.empty() ? Handshake{} : all.front();
}

std::vector<Piece> exchange13() {
    return {{client, record(22, client_hello(usual_extensions()))},
            {server, record(22, server_hello(plain_random, 0x1301, version13)) + change +
                         record(23, std::string(60, 'e')) + record(23, std::string(900, 'c'))},
            {client, change + record(23, std::string(53, 'f'))}};
}

std::vector<Piece> exchange12(bool resumed) {
    const std::string hello =
        record(22, server_hello(plain_random, 0xc02f, extension(16, vector(vector("h2", 1), 2))));
    if (resumed)
        return {{client, record(22, client_hello(usual_extensions()))},
                {server, hello + change + finished12},
                {client, change + finished12}};
    return {{client, record(22, client_hello(usual_extensions()))},
            {server, hello + record(22, message(11, std::string(3000, 'c')) + message(14, ""))},
            {client, record(22, message(16, std::string(66, 'k'))) + change + finished12},
            {server, record(22, message(4, std::string(200, 't'))) + change + finished12}};
}

TEST(TlsHandshake, Tls13) {
    const Handshake one = told(exchange13());
    EXPECT_EQ(one.result, Outcome::done);
    EXPECT_EQ(one.began, 1u);
    EXPECT_EQ(one.ended, 3u);
    EXPECT_EQ(version_name(one.version), "TLS 1.3");
    EXPECT_EQ(cipher_name(one.cipher), "TLS_AES_128_GCM_SHA256");
    EXPECT_EQ(one.server_name, "example.org");
    EXPECT_EQ(one.offered, (std::vector<std::string>{"h2", "http/1.1"}));
    EXPECT_EQ(one.protocol, "");
    EXPECT_EQ(one.resumed, false);
    EXPECT_FALSE(one.retried || one.early_data || one.missing || one.alert);
}

TEST(TlsHandshake, Tls12AndResumed) {
    for (const bool resumed : {false, true}) {
        const Handshake one = told(exchange12(resumed));
        EXPECT_EQ(one.result, Outcome::done);
        EXPECT_EQ(version_name(one.version), "TLS 1.2");
        EXPECT_EQ(cipher_name(one.cipher), "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
        EXPECT_EQ(one.protocol, "h2");
        EXPECT_EQ(one.resumed, resumed);
    }
}

TEST(TlsHandshake, Tls13ByAKeyOfBefore) {
    auto pieces = exchange13();
    pieces[1].bytes =
        record(22, server_hello(plain_random, 0x1301, version13 + extension(41, number(0, 2)))) +
        record(23, std::string(60, 'e'));
    EXPECT_EQ(told(pieces).resumed, true);
}

TEST(TlsHandshake, SecondHello) {
    const std::string retry("\xCF\x21\xAD\x74\xE5\x9A\x61\x11\xBE\x1D\x8C\x02\x1E\x65\xB8\x91"
                            "\xC2\xA2\x11\x16\x7A\xBB\x8C\x5E\x07\x9E\x09\xE2\xC8\xA8\x33\x9C",
                            32);
    auto pieces = exchange13();
    pieces[0].bytes = record(22, client_hello(usual_extensions() + extension(42, "")));
    const Piece again{client, change + record(22, client_hello(usual_extensions()))};
    pieces.insert(pieces.begin() + 1,
                  {{server, record(22, server_hello(retry, 0x1301, version13)) + change}, again});
    const Handshake one = told(pieces);
    EXPECT_EQ(one.result, Outcome::done);
    EXPECT_TRUE(one.retried);
    EXPECT_FALSE(one.early_data);
    EXPECT_EQ(one.began, 1u);
    EXPECT_EQ(one.ended, 5u);
    EXPECT_EQ(one.resumed, false);
}

TEST(TlsHandshake, AlertsSayWhoAndWhy) {
    auto pieces = exchange13();
    pieces[1] = {server, record(21, number(0x0228, 2))};
    Handshake one = told(pieces);
    EXPECT_EQ(one.result, Outcome::alert);
    EXPECT_FALSE(one.alert->by_client);
    EXPECT_EQ(alert_name(*one.alert->description), "handshake_failure");
    EXPECT_FALSE(one.answered);

    pieces = exchange12(false);
    pieces[2] = {client, record(21, number(0x0230, 2))};
    one = told(pieces);
    EXPECT_TRUE(one.alert->by_client);
    EXPECT_EQ(alert_name(*one.alert->description), "unknown_ca");

    // A warning, behind which it goes on.
    pieces = exchange12(false);
    pieces[1].bytes = record(21, number(0x0170, 2)) + pieces[1].bytes;
    EXPECT_EQ(told(pieces).result, Outcome::done);

    // Encrypted, known by its length.
    pieces = exchange13();
    pieces[2].bytes = change + record(23, std::string(19, 'a'));
    one = told(pieces);
    EXPECT_EQ(one.result, Outcome::alert);
    EXPECT_TRUE(one.alert->by_client);
    EXPECT_FALSE(one.alert->description);

    pieces = exchange12(false);
    pieces[3].bytes = record(21, std::string(26, 'a'));
    pieces[3].bytes = change + pieces[3].bytes;
    one = told(pieces);
    EXPECT_FALSE(one.alert->by_client);
    EXPECT_FALSE(one.alert->description);
}

TEST(TlsHandshake, WhoClosedIt) {
    for (const auto side : {client, server}) {
        std::vector<Handshake> all;
        HandshakeReader reader([&](const Handshake& one) { all.push_back(one); });
        reader.data(client, record(22, client_hello(usual_extensions())), 5);
        reader.close(side, 7);
        reader.close(side == client ? server : client, 8);
        ASSERT_EQ(all.size(), 1u);
        EXPECT_EQ(all[0].result, Outcome::closed);
        EXPECT_EQ(all[0].closed_by_client, side == client);
        EXPECT_EQ(all[0].ended, 7u);
        EXPECT_EQ(version_name(all[0].offered_version), "TLS 1.3");
    }
}

TEST(TlsHandshake, BehindAnotherProtocol) {
    auto pieces = exchange12(false);
    pieces.insert(
        pieces.begin(),
        {{server, "220 here\r\n"}, {client, "STARTTLS\r\n"}, {server, "220 go ahead\r\n"}});
    const Handshake one = told(pieces);
    EXPECT_EQ(one.result, Outcome::done);
    EXPECT_EQ(one.began, 4u);
}

TEST(TlsHandshake, ClientHelloOverSeveralRecords) {
    const std::string hello = client_hello(usual_extensions());
    auto pieces = exchange13();
    pieces[0].bytes.clear();
    for (std::size_t at = 0; at < hello.size(); at += 11)
        pieces[0].bytes += record(22, hello.substr(at, 11));
    EXPECT_EQ(told(pieces).server_name, "example.org");
}

/// Byte by byte, and cut once at each place.
TEST(TlsHandshake, CutsChangeNothing) {
    for (const auto& pieces : {exchange13(), exchange12(false), exchange12(true)}) {
        const Handshake whole = told(pieces);
        const auto same = [&](const Handshake& one, std::size_t at) {
            EXPECT_EQ(one.result, whole.result) << at;
            EXPECT_EQ(one.cipher, whole.cipher) << at;
            EXPECT_EQ(one.version, whole.version) << at;
            EXPECT_EQ(one.server_name, whole.server_name) << at;
            EXPECT_EQ(one.protocol, whole.protocol) << at;
            EXPECT_EQ(one.resumed, whole.resumed) << at;
        };
        std::vector<Piece> bytes;
        for (std::size_t i = 0; i < pieces.size(); ++i) {
            for (const char byte : pieces[i].bytes)
                bytes.push_back({pieces[i].side, std::string(1, byte)});
            for (std::size_t at = 1; at < pieces[i].bytes.size(); ++at) {
                auto cut = pieces;
                cut.insert(cut.begin() + static_cast<std::ptrdiff_t>(i),
                           {pieces[i].side, pieces[i].bytes.substr(0, at)});
                cut[i + 1].bytes.erase(0, at);
                same(told(cut), at);
            }
        }
        same(told(bytes), 0);
    }
}

TEST(TlsHandshake, HolesInWhatNobodyReadsCostNothing) {
    std::vector<Handshake> all;
    HandshakeReader reader([&](const Handshake& one) { all.push_back(one); });
    const auto pieces = exchange12(false);
    reader.data(client, pieces[0].bytes, 1);
    const std::size_t certificate = pieces[1].bytes.find("ccc");
    reader.data(server, std::string_view(pieces[1].bytes).substr(0, certificate), 2);
    reader.gap(server, 3000, 2);
    reader.data(server, std::string_view(pieces[1].bytes).substr(certificate + 3000), 2);
    reader.data(client, pieces[2].bytes, 3);
    reader.data(server, pieces[3].bytes, 4);
    ASSERT_EQ(all.size(), 1u);
    EXPECT_EQ(all[0].result, Outcome::done);
    EXPECT_EQ(all[0].resumed, false);
    EXPECT_FALSE(all[0].missing);
}

TEST(TlsHandshake, WhatIsMissingIsSaid) {
    std::vector<Handshake> all;
    HandshakeReader reader([&](const Handshake& one) { all.push_back(one); });
    const auto pieces = exchange12(false);
    reader.data(client, pieces[0].bytes, 1);
    reader.gap(server, 20, 2);
    reader.data(client, pieces[2].bytes, 3);
    reader.close(client, 4);
    ASSERT_EQ(all.size(), 1u);
    EXPECT_EQ(all[0].result, Outcome::unfinished);
    EXPECT_TRUE(all[0].missing);
    EXPECT_EQ(all[0].resumed, std::nullopt);
}

TEST(TlsHandshake, WhatIsNoneTellsNothing) {
    for (const char* text : {"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01", "SSH-2.0-x\r\n"}) {
        HandshakeReader reader([](const Handshake&) { ADD_FAILURE(); });
        reader.data(client, text, 1);
        reader.data(server, "\x15\x03\x03", 2);
        reader.close(3);
        EXPECT_FALSE(reader.begun());
    }
}

TEST(TlsHandshake, RandomChangesBreakNoPromise) {
    const char* cases = std::getenv("NETCTL_FUZZ_CASES");
    const unsigned long many = cases ? std::strtoul(cases, nullptr, 10) : 20'000;
    std::mt19937 random(7);
    const auto below = [&](std::size_t limit) {
        return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random);
    };
    std::uint64_t done = 0;
    for (unsigned long i = 0; i < many; ++i) {
        auto pieces = i % 3 == 0 ? exchange13() : exchange12(i % 3 == 1);
        for (std::size_t changes = below(4); changes > 0; --changes) {
            std::string& bytes = pieces[below(pieces.size())].bytes;
            if (bytes.empty())
                continue;
            const std::size_t at = below(bytes.size());
            switch (below(3)) {
            case 0: bytes[at] = static_cast<char>(random()); break;
            case 1: bytes.erase(at, below(bytes.size() - at) + 1); break;
            default: bytes.insert(at, std::string(below(40), static_cast<char>(random())));
            }
        }
        unsigned told = 0;
        Time now = 100;
        HandshakeReader reader([&](const Handshake& one) {
            ++told;
            EXPECT_LE(one.began, one.ended);
            EXPECT_LE(one.ended, now);
            EXPECT_EQ(one.alert.has_value(), one.result == Outcome::alert);
            EXPECT_TRUE(one.answered || (one.version == 0 && one.cipher == 0));
            EXPECT_LE(one.server_name.size(), 65536u);
            done += one.result == Outcome::done;
        });
        for (const Piece& piece : pieces) {
            std::string_view rest = piece.bytes;
            while (!rest.empty()) {
                const std::size_t take = std::min(rest.size(), below(700) + 1);
                ++now;
                if (below(60) == 0)
                    reader.gap(piece.side, take, now);
                else
                    reader.data(piece.side, rest.substr(0, take), now);
                rest.remove_prefix(take);
                EXPECT_LE(reader.memory(), 400'000u);
            }
        }
        if (below(2) == 0)
            reader.close(below(2) == 0 ? client : server, ++now);
        reader.abandon(++now);
        EXPECT_EQ(told, reader.begun() ? 1u : 0u);
        EXPECT_EQ(reader.over(), reader.begun());
    }
    EXPECT_GT(done, 0u);
}

} // namespace
} // namespace netctl::trace::tls
