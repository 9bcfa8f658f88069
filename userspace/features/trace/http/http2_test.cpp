// SPDX-License-Identifier: GPL-2.0-only
//
// HTTP/2: streams in any order, cut everywhere, with holes, joined late.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "features/trace/http/http2_connection.hpp"
#include "features/trace/http/http2_wire.hpp"
#include "features/trace/http/http_connection.hpp"

namespace netctl::trace {
namespace {

using namespace std::string_literals;

constexpr auto client = HttpConnection::a;
constexpr auto server = HttpConnection::b;

struct Piece {
    HttpConnection::Side side;
    std::string bytes;
};

/// One connection and what it told.
struct Talk {
    ParserOptions options{.keep_fields = true, .body_limit = 1 << 16};
    ParserCounters counters;
    MemoryBudget budget;
    std::vector<Transaction> told;
    Time now = 1000;
    std::unique_ptr<HttpConnection> http;
    Http2End asks, answers;
    std::vector<Piece> pieces; ///< all that was said

    explicit Talk(bool preface = true,
                  ParserOptions with = {.keep_fields = true, .body_limit = 1 << 16})
        : options(with) {
        http = std::make_unique<HttpConnection>(
            options, counters, budget,
            [this](Transaction& transaction) { told.push_back(transaction); });
        if (preface) {
            say(client, std::string(http2_preface) + settings_frame());
            say(server, settings_frame() + settings_frame(true));
        }
    }
    Talk& say(HttpConnection::Side side, const std::string& bytes) {
        now += 1000;
        pieces.push_back({side, bytes});
        http->data(side, bytes, now);
        return *this;
    }
    Talk& skip(HttpConnection::Side side, std::size_t length) {
        now += 1000;
        http->gap(side, length, now);
        return *this;
    }
    Talk& end() {
        http->close(++now);
        return *this;
    }
    std::string summary() const;
};

/// `1 GET /a 200 5/0`: stream, what was asked, status, bytes of response and request body.
std::string line_of(const Transaction& one) {
    std::string text =
        std::to_string(one.stream.value_or(0)) + " " + (one.method.empty() ? "?" : one.method) +
        " " + (one.target.empty() ? "?" : one.target) + " " + std::to_string(one.status) + " " +
        std::to_string(one.response.body_bytes) + "/" + std::to_string(one.request.body_bytes);
    if (one.pushed)
        text += " pushed";
    if (one.reset)
        text += std::string(one.reset->by_server ? " server " : " client ") +
                (one.reset->goaway ? "goaway " : "") +
                std::string(reset_name(one.reset->code.value_or(99)));
    if (one.closed)
        text += " closed";
    if (one.waiting)
        text += " waits";
    if (one.response.seen && one.response.end != MessageEnd::complete)
        text += one.response.end == MessageEnd::cut ? " cut" : " unframed";
    return text + "\n";
}

std::string Talk::summary() const {
    std::string text;
    for (const Transaction& one : told)
        text += line_of(one);
    return text;
}

TEST(Http2, StreamsAreToldAtTheirEndInAnyOrder) {
    Talk talk;
    talk.say(client, all_of({talk.asks.head(1, get("/1"), true), talk.asks.head(3, get("/3"), true),
                             talk.asks.head(5,
                                            {{":method", "POST"},
                                             {":scheme", "http"},
                                             {":path", "/5"},
                                             {":authority", "example.org"}},
                                            false)}));
    talk.say(server, talk.answers.head(3, answer("404"), true));
    talk.say(client, data_frame(5, "12345", false));
    talk.say(server, talk.answers.head(1, answer("200"), false) + data_frame(1, "abc", false));
    talk.say(client, data_frame(5, "678", true));
    talk.say(server, talk.answers.head(5, answer("201"), false) + data_frame(5, "", true));
    talk.say(server, data_frame(1, "de", true));
    EXPECT_EQ(talk.summary(), "3 GET /3 404 0/0\n5 POST /5 201 0/8\n1 GET /1 200 5/0\n");
    const Transaction& one = talk.told[2];
    EXPECT_EQ(one.host, "example.org");
    EXPECT_EQ(one.response.body, "abcde");
    EXPECT_EQ(one.response.content_type, "text/plain");
    ASSERT_EQ(one.request.fields.size(), 1u);
    EXPECT_EQ(one.request.fields[0].name, "user-agent");
    EXPECT_EQ(one.latency(), 3000u);
    EXPECT_EQ(one.duration(), 6000u);
    EXPECT_EQ(one.response.wire_bytes, one.response.head_bytes + 5 + 2 * 9);
    EXPECT_EQ(talk.counters.http2, 1u);
    EXPECT_EQ(talk.counters.transactions, 3u);
    EXPECT_EQ(talk.counters.tables_unknown, 0u);
    EXPECT_EQ(talk.counters.malformed + talk.counters.holes, 0u);
}

/// A talk that has about everything in it.
void say_all(Talk& talk) {
    talk.say(client, all_of({talk.asks.head_in_pieces(1, get("/in/pieces"), true, 3),
                             talk.asks.head(3, get("/pushes"), true)}));
    talk.say(server, all_of({frame(FrameType::ping, 0, 0, "12345678"),
                             talk.answers.head(1, {{":status", "103"}, {"link", "x"}}, false),
                             talk.answers.head_in_pieces(1, answer("200"), false, 5)}));
    talk.say(server, all_of({talk.answers.promise(3, 2, get("/pushed")),
                             frame(FrameType::data, Frame::padded, 1,
                                   "\3"s + "padded" + std::string(3, '\0')),
                             talk.answers.head(2, answer("200"), false)}));
    talk.say(client, frame(FrameType::window_update, 0, 1, word(100)) +
                         frame(FrameType::priority, 0, 3, word(0) + "\1") +
                         frame(static_cast<FrameType>(0x55), 0xff, 3, "of another kind"));
    talk.say(server,
             all_of({data_frame(2, "pushed body", true), talk.answers.head(3, answer("500"), false),
                     talk.answers.head(1, {{"x-trailer", "t"}}, true)}));
    talk.say(client, all_of({talk.asks.head(5, get("/given-up"), true),
                             talk.asks.head(7, get("/refused"), true),
                             talk.asks.head(9, get("/late"), true)}));
    talk.say(server, rst_frame(7, 7) + data_frame(3, "part", false));
    talk.say(client, rst_frame(5, 8));
    talk.say(server, goaway_frame(7, 0) + talk.answers.head(5, answer("200"), true));
    talk.end();
}

constexpr const char* all_told = "2 GET /pushed 200 11/0 pushed\n"
                                 "1 GET /in/pieces 200 6/0\n"
                                 "7 GET /refused 0 0/0 server REFUSED_STREAM\n"
                                 "5 GET /given-up 0 0/0 client CANCEL\n"
                                 "9 GET /late 0 0/0 server goaway NO_ERROR\n"
                                 "3 GET /pushes 500 4/0 closed cut\n";

TEST(Http2, TellsPushesResetsTrailersAndGoodbyes) {
    Talk talk;
    say_all(talk);
    EXPECT_EQ(talk.summary(), all_told);
    const Transaction& one = talk.told[1];
    EXPECT_EQ(one.interim, 1u);
    ASSERT_EQ(one.response.trailers.size(), 1u);
    EXPECT_EQ(one.response.trailers[0].name, "x-trailer");
    EXPECT_EQ(talk.counters.malformed + talk.counters.holes + talk.counters.tables_unknown, 0u);
    talk.http->abandon(talk.now);
    EXPECT_EQ(talk.budget.used(), 0u);
}

TEST(Http2, IsTheSameHoweverItIsCut) {
    Talk whole;
    say_all(whole);
    for (std::size_t size : {1u, 2u, 8u, 9u, 10u, 23u, 24u, 25u}) {
        Talk talk(false);
        for (const Piece& piece : whole.pieces)
            for (std::size_t at = 0; at < piece.bytes.size(); at += size)
                talk.say(piece.side, piece.bytes.substr(at, size));
        talk.end();
        // A server whose first bytes are less than the head of a frame is not understood from there.
        EXPECT_EQ(talk.summary(), size < 9 ? talk.summary() : all_told) << size;
    }
    for (std::size_t one = 2; one < whole.pieces.size(); ++one)
        for (std::size_t at = 0; at <= whole.pieces[one].bytes.size(); ++at) {
            Talk talk(false);
            for (std::size_t i = 0; i < whole.pieces.size(); ++i) {
                const Piece& piece = whole.pieces[i];
                const std::size_t cut = i == one ? at : 0;
                talk.say(piece.side, piece.bytes.substr(0, cut));
                talk.say(piece.side, piece.bytes.substr(cut));
            }
            talk.end();
            ASSERT_EQ(talk.summary(), all_told) << one << " " << at;
        }
}

TEST(Http2, AfterAHoleAnywhereNothingIsWrong) {
    Talk whole;
    say_all(whole);
    std::vector<std::string> right;
    for (const Transaction& one : whole.told)
        right.push_back(one.method + " " + one.target);
    std::size_t told = 0;
    for (std::size_t one = 0; one < whole.pieces.size(); ++one)
        for (std::size_t at = 0; at < whole.pieces[one].bytes.size(); ++at)
            for (std::size_t size : {1u, 9u, 100u, 10000u}) {
                Talk talk(false);
                for (std::size_t i = 0; i < whole.pieces.size(); ++i) {
                    const Piece& piece = whole.pieces[i];
                    const std::size_t length = piece.bytes.size();
                    const std::size_t from = i == one ? at : length;
                    const std::size_t lost = std::min(size, length - from);
                    talk.say(piece.side, piece.bytes.substr(0, from));
                    talk.skip(piece.side, lost);
                    talk.say(piece.side, piece.bytes.substr(from + lost));
                }
                talk.end();
                talk.http->abandon(talk.now);
                for (const Transaction& transaction : talk.told) {
                    ++told;
                    ASSERT_TRUE(transaction.target.empty() ||
                                std::find(right.begin(), right.end(),
                                          transaction.method + " " + transaction.target) !=
                                    right.end())
                        << transaction.method << " " << transaction.target;
                    ASSERT_TRUE(transaction.host.empty() || transaction.host == "example.org");
                    ASSERT_TRUE(transaction.status == 0 || transaction.status == 200 ||
                                transaction.status == 500);
                }
                ASSERT_EQ(talk.budget.used(), 0u);
            }
    EXPECT_GT(told, 10000u);
}

TEST(Http2, AHoleInABodyCostsNothing) {
    Talk talk;
    talk.say(client, talk.asks.head(1, get("/1"), true));
    const std::string body = data_frame(1, std::string(1000, 'x'), true);
    talk.say(server, talk.answers.head(1, answer("200"), false) + body.substr(0, 100));
    talk.skip(server, 809).say(server, body.substr(909));
    talk.say(client, talk.asks.head(3, get("/3"), true));
    talk.say(server, talk.answers.head(3, answer("204"), true));
    EXPECT_EQ(talk.summary(), "1 GET /1 200 1000/0\n3 GET /3 204 0/0\n");
    EXPECT_EQ(talk.counters.holes + talk.counters.tables_unknown, 0u);
}

TEST(Http2, ALostHeadCostsTheTable) {
    Talk talk;
    talk.say(client, talk.asks.head(1, get("/1"), true));
    talk.say(server, talk.answers.head(1, answer("200"), true));
    talk.skip(client, talk.asks.head(3, get("/3"), true).size());
    talk.say(server, talk.answers.head(3, answer("200"), true));
    talk.say(client, talk.asks.head(5, get("/5"), true));
    talk.say(client, talk.asks.head(7, get("/3"), true));
    talk.say(server, talk.answers.head(5, answer("200"), true));
    talk.say(server, talk.answers.head(7, answer("200"), true));
    // Host and user agent are what stream 1 put into the table.
    EXPECT_EQ(talk.summary(),
              "1 GET /1 200 0/0\n3 ? ? 200 0/0\n5 GET /5 200 0/0\n7 GET /3 200 0/0\n");
    EXPECT_EQ(talk.told[2].host, "");
    EXPECT_EQ(talk.told[2].request.unknown_fields, 2u);
    EXPECT_EQ(talk.counters.tables_unknown, 1u);
    EXPECT_EQ(talk.counters.holes, 1u);
    EXPECT_EQ(talk.counters.unasked, 1u);
}

TEST(Http2, JoinedLateAnywhere) {
    Talk whole;
    for (std::uint32_t id = 1; id < 40; id += 2) {
        whole.say(client, whole.asks.head(id, get("/" + std::to_string(id)), true));
        whole.say(server, whole.answers.head(id, answer("200"), false) + data_frame(id, "x", true));
    }
    for (std::size_t join = 3; join < 30; ++join) {
        Talk talk(false);
        for (std::size_t i = join; i < whole.pieces.size(); ++i)
            talk.say(whole.pieces[i].side, whole.pieces[i].bytes);
        const std::size_t left = (whole.pieces.size() - join + 1) / 2;
        ASSERT_EQ(talk.told.size(), left) << join;
        EXPECT_EQ(talk.counters.tables_unknown, 2u);
        EXPECT_EQ(talk.counters.malformed + talk.counters.holes, 0u);
        for (std::size_t i = talk.told.size(); i-- > 0;) {
            const Transaction& one = talk.told[i];
            const bool asked = i > 0 || left * 2 == whole.pieces.size() - join;
            EXPECT_EQ(one.status, 200);
            EXPECT_EQ(one.target, asked ? "/" + std::to_string(*one.stream) : "");
            EXPECT_EQ(one.host, ""); // it stands in the table since the first request
        }
    }
}

TEST(Http2, OtherProtocolsAreNotTakenForIt) {
    std::mt19937_64 random(7);
    for (int i = 0; i < 20000; ++i) {
        Talk talk(false);
        std::string bytes(9 + random() % 60, '\0');
        for (char& c : bytes)
            c = static_cast<char>(random() % (i % 2 ? 256 : 12));
        bytes[0] = '\0';
        bytes[1] = '\0';
        talk.say(client, bytes);
        // Not even what has the shape of a frame, if there is no head in it.
        ASSERT_EQ(talk.counters.http2, 0u) << i;
    }
    Talk talk(false);
    talk.say(client,
             frame(FrameType::headers, Frame::end_headers, 1, "\x82\x87"s)); // no path, no status
    EXPECT_EQ(talk.counters.http2, 1u);
}

TEST(Http2, Upgrade) {
    Http2End answers, asks;
    const std::string request =
        "GET /up HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    const std::string hundred = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                                "Upgrade: h2c\r\n\r\n";
    const std::string behind =
        settings_frame() + answers.head(1, answer("200"), false) + data_frame(1, "upgraded", true);
    const std::string preface =
        std::string(http2_preface) + settings_frame() + asks.head(3, get("/3"), true);
    const std::string last = answers.head(3, answer("404"), true);
    const std::string first = hundred + behind;
    for (std::size_t cut = 0; cut <= first.size(); ++cut)
        for (std::size_t part : {0u, 1u, 10u, 24u, 30u}) {
            Talk talk(false);
            talk.say(client, request)
                .say(server, first.substr(0, cut))
                .say(server, first.substr(cut));
            talk.say(client, preface.substr(0, part)).say(client, preface.substr(part));
            talk.say(server, last);
            ASSERT_EQ(talk.summary(), "1 GET /up 200 8/0\n3 GET /3 404 0/0\n") << cut;
            EXPECT_EQ(talk.told[0].interim, 1u);
            EXPECT_EQ(talk.told[0].host, "h");
            EXPECT_FALSE(talk.told[0].request.http2);
            EXPECT_TRUE(talk.told[0].response.http2);
            EXPECT_EQ(talk.counters.tunnels, 0u);
        }
}

TEST(Http2, AServerThatHasNoneIsSaidSo) {
    Talk talk(false);
    talk.say(client,
             std::string(http2_preface) + settings_frame() + talk.asks.head(1, get("/"), true));
    talk.say(server, "HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nno\n").end();
    EXPECT_EQ(talk.summary(), "1 GET / 0 0/0 closed\n");
    EXPECT_EQ(talk.counters.malformed, 1u);
}

TEST(Http2, TellsWhatWaits) {
    Talk talk;
    talk.say(client, all_of({talk.asks.head(1, get("/slow"), true),
                             talk.asks.head(3, get("/fast"), true)}));
    talk.say(server, talk.answers.head(3, answer("200"), false));
    talk.http->tick(talk.now + 5 * second, 5 * second);
    talk.http->tick(talk.now + 6 * second, 5 * second);
    ASSERT_EQ(talk.summary(), "1 GET /slow 0 0/0 waits\n");
    EXPECT_TRUE(talk.told[0].stalled);
    talk.http->abandon(talk.now);
    EXPECT_EQ(talk.summary(),
              "1 GET /slow 0 0/0 waits\n1 GET /slow 0 0/0 waits\n3 GET /fast 200 0/0 waits cut\n");
}

TEST(Http2, HoldsNoMoreThanItMay) {
    Talk talk(true, {.keep_fields = true, .body_limit = 0});
    std::string many;
    for (std::uint32_t id = 1; id < 3 * 2 * Http2Connection::stream_limit; id += 2)
        many += talk.asks.head(id, get("/" + std::to_string(id)), true);
    talk.say(client, many);
    EXPECT_EQ(talk.told.size(), 2 * Http2Connection::stream_limit);
    EXPECT_EQ(talk.counters.dropped, 2 * Http2Connection::stream_limit);
    talk.end();
    EXPECT_EQ(talk.told.size(), 3 * Http2Connection::stream_limit);

    // A head that never ends.
    Talk endless;
    endless.say(client, frame(FrameType::headers, 0, 1, "\x82"s));
    for (int i = 0; i < 1000; ++i) {
        endless.say(client, frame(FrameType::continuation, 0, 1, std::string(1000, '\x82')));
        ASSERT_LT(endless.budget.used(), 2 * Http2Connection::block_limit);
    }
    endless.say(client, frame(FrameType::continuation, Frame::end_headers, 1, ""));
    EXPECT_EQ(endless.counters.tables_unknown, 1u);
}

TEST(Http2, AHeadThatUnpacksToMuchIsCut) {
    // Each byte of the second block stands for 2,900.
    Talk talk(true, {.keep_fields = false, .body_limit = 0});
    FieldList bomb = get("/bomb");
    bomb.emplace_back("content-encoding", std::string(2900, 'x'));
    talk.say(client, talk.asks.head(1, bomb, true));
    std::string block = "\x82\x86\x84"s;
    block += std::string(15000, '\xbe');
    talk.say(client, frame(FrameType::headers, Frame::end_headers | Frame::end_stream, 3, block));
    talk.say(server, talk.answers.head(3, answer("200"), true));
    ASSERT_EQ(talk.summary(), "3 GET / 200 0/0\n");
    EXPECT_TRUE(talk.told[0].request.absurd);
    EXPECT_LE(talk.told[0].request.content_encoding.size(), head_limit);
    EXPECT_GT(talk.told[0].request.content_encoding.size(), head_limit / 2);
}

TEST(Http2, Grpc) {
    const FieldList call = {{":method", "POST"},
                            {":scheme", "http"},
                            {":path", "/shop.Orders/Create"},
                            {":authority", "shop"},
                            {"content-type", "application/grpc+proto"},
                            {"grpc-timeout", "250m"}};
    const std::string message = "\0\0\0\0\5hello"s;
    Talk talk;
    talk.say(client,
             talk.asks.head(1, call, false) + data_frame(1, message + message.substr(0, 3), false));
    talk.say(server, talk.answers.head(
                         1, {{":status", "200"}, {"content-type", "application/grpc"}}, false) +
                         data_frame(1, message, false));
    talk.say(client, data_frame(1, message.substr(3), true));
    talk.http->tick(talk.now + second, second);
    talk.say(server,
             talk.answers.head(1, {{"grpc-status", "5"}, {"grpc-message", "no%20such%2"}}, true));
    ASSERT_EQ(talk.told.size(), 2u);
    EXPECT_TRUE(talk.told[0].stalled);
    EXPECT_EQ(talk.told[0].grpc->sent, 2u);
    const GrpcCall& one = *talk.told[1].grpc;
    EXPECT_EQ(one.status, 5u);
    EXPECT_EQ(one.message, "no such%2");
    EXPECT_EQ(one.sent, 2u);
    EXPECT_EQ(one.received, 1u);
    EXPECT_EQ(one.deadline, second / 4);

    // Trailers alone; and a hole in a message, and one over its beginning.
    talk.say(client, talk.asks.head(3, call, false) + data_frame(3, message, true).substr(0, 15));
    talk.skip(client, 4);
    talk.say(server,
             talk.answers.head(
                 3,
                 {{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "12"}},
                 true));
    ASSERT_EQ(talk.told.size(), 3u);
    EXPECT_EQ(talk.told[2].grpc->status, 12u);
    EXPECT_EQ(talk.told[2].grpc->sent, 1u);
    EXPECT_EQ(talk.told[2].grpc->received, 0u);
    talk.say(client, talk.asks.head(5, call, false) + data_frame(5, message, true).substr(0, 11));
    talk.skip(client, 8);
    talk.say(server, talk.answers.head(5, {{":status", "200"}, {"grpc-status", "0"}}, true));
    ASSERT_EQ(talk.told.size(), 4u);
    EXPECT_FALSE(talk.told[3].grpc->sent);
    EXPECT_EQ(talk.told[3].grpc->status, 0u);
}

} // namespace
} // namespace netctl::trace
