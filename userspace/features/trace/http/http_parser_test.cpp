// SPDX-License-Identifier: GPL-2.0-only
//
// Requests and responses as servers and clients send them, cut everywhere, with holes.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "features/trace/http/http_connection.hpp"
#include "features/trace/http/packet_tracer.hpp"
#include "features/trace/http/tcp_stream.hpp"

namespace netctl::trace {
namespace {

using namespace std::string_literals;

constexpr auto client = HttpConnection::a;
constexpr auto server = HttpConnection::b;

/// One connection and what it told.
struct Talk {
    ParserOptions options;
    ParserCounters counters;
    MemoryBudget budget;
    std::vector<Transaction> told;
    Time now = 1000;
    std::unique_ptr<HttpConnection> http;

    explicit Talk(ParserOptions with = {.keep_fields = true, .body_limit = 1 << 20})
        : options(with) {
        http = std::make_unique<HttpConnection>(
            options, counters, budget,
            [this](Transaction& transaction) { told.push_back(transaction); });
    }
    Talk& say(HttpConnection::Side side, std::string_view text) {
        now += 1000;
        http->data(side, text, now);
        return *this;
    }
    Talk& skip(HttpConnection::Side side, std::uint64_t length) {
        now += 1000;
        http->gap(side, length, now);
        return *this;
    }
    Talk& end() {
        http->close(++now);
        return *this;
    }
    /// `GET /a 200 5/0`: one line for each transaction: status, bytes of response and request body.
    std::string summary() const {
        std::string text;
        for (const Transaction& one : told) {
            text += (one.method.empty() ? "?" : one.method) + " " +
                    (one.target.empty() ? "?" : one.target) + " " + std::to_string(one.status) +
                    " " + std::to_string(one.response.body_bytes) + "/" +
                    std::to_string(one.request.body_bytes);
            if (one.closed)
                text += " closed";
            if (one.response.seen && one.response.end != MessageEnd::complete)
                text += one.response.end == MessageEnd::cut ? " cut" : " unframed";
            text += "\n";
        }
        return text;
    }
};

struct Exchange {
    const char* name;
    std::string request;
    std::string response;
    std::string summary;
};

void PrintTo(const Exchange& exchange, std::ostream* out) {
    *out << exchange.name;
}

const std::vector<Exchange>& exchanges() {
    static const std::vector<Exchange> all = {
        {"Get", "GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
         "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "GET /a 200 5/0\n"},
        {"KeepAlive", "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
         "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 404 Not Found\r\nContent-Length: "
         "0\r\n\r\n",
         "GET /a 200 1/0\nGET /b 404 0/0\n"},
        {"Head", "HEAD /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
         "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: "
         "2\r\n\r\nok",
         "HEAD /a 200 0/0\nGET /b 200 2/0\n"},
        {"Post", "POST /p HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody",
         "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", "POST /p 201 0/4\n"},
        {"Continue", "PUT /p HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody",
         "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\nHTTP/1.1 204 "
         "No Content\r\n\r\n",
         "PUT /p 204 0/4\n"},
        {"NotModified", "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
         "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length:"
         "1\r\n\r\nx",
         "GET /a 304 0/0\nGET /b 200 1/0\n"},
        {"Chunked", "GET /c HTTP/1.1\r\n\r\nGET /d HTTP/1.1\r\n\r\n",
         "HTTP/1.1 200 OK\r\nTransfer-Encoding: "
         "chunked\r\n\r\n5;ext=\"a\"\r\nhello\r\n0A\r\n0123456789"
         "\r\n0\r\nTrailer: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
         "GET /c 200 15/0\nGET /d 200 0/0\n"},
        {"ChunkedRequest",
         "POST /c HTTP/1.1\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
         "GET /d HTTP/1.1\r\n\r\n",
         "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
         "POST /c 200 0/3\nGET /d 200 0/0\n"},
        {"Http10", "GET /old HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nuntil the end",
         "GET /old 200 13/0\n"},
        {"BareNewlines", "GET /n HTTP/1.1\nHost: x\n\n", "HTTP/1.1 200\nContent-Length: 1\n\nx",
         "GET /n 200 1/0\n"},
        {"EmptyLinesBetween",
         "POST /1 HTTP/1.1\r\nContent-Length: 1\r\n\r\nx\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
         "HTTP/1.1 204 \r\n\r\nHTTP/1.1 204 \r\n\r\n", "POST /1 204 0/1\nGET /2 204 0/0\n"},
        {"Upgrade",
         "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05GET / ",
         "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x02HTTP/1.1 500 Oops",
         "GET /ws 101 0/0\n"},
        {"Connect", "CONNECT example.org:443 HTTP/1.1\r\n\r\n",
         "HTTP/1.1 200 Connection established\r\n\r\n\x16\x03\x01GET / HTTP/1.1\r\n\r\n",
         "CONNECT example.org:443 200 0/0\n"},
        {"ConnectRefused", "CONNECT example.org:443 HTTP/1.1\r\n\r\n",
         "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
         "CONNECT example.org:443 403 2/0\n"},
        {"LengthTwice", "GET /a HTTP/1.1\r\n\r\n",
         "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
         "GET /a 200 5/0\n"},
        {"NoReason", "GET /a HTTP/1.1\r\n\r\n", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
         "GET /a 200 0/0\n"},
    };
    return all;
}

class EveryCut : public ::testing::TestWithParam<Exchange> {};

TEST_P(EveryCut, TellsTheSame) {
    const Exchange& exchange = GetParam();
    for (std::size_t cut = 0; cut <= exchange.request.size(); ++cut) {
        for (std::size_t step : {std::size_t{1}, std::size_t{3}, exchange.response.size()}) {
            Talk talk;
            talk.say(client, exchange.request.substr(0, cut));
            talk.say(client, exchange.request.substr(cut));
            for (std::size_t at = 0; at < exchange.response.size(); at += step)
                talk.say(server, exchange.response.substr(at, step));
            talk.end();
            ASSERT_EQ(talk.summary(), exchange.summary) << "cut " << cut << " step " << step;
            EXPECT_EQ(talk.counters.malformed, 0u);
            EXPECT_EQ(talk.counters.holes, 0u);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(HttpConnection, EveryCut, ::testing::ValuesIn(exchanges()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(HttpConnection, PairsAPipelineInOrder) {
    Talk talk;
    std::string requests, responses, expected;
    for (int i = 0; i < 100; ++i) {
        const std::string path = "/" + std::to_string(i);
        const std::string method = i % 3 == 0 ? "HEAD" : "GET";
        requests += method + " " + path + " HTTP/1.1\r\nHost: h\r\n\r\n";
        responses += "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(i) + "\r\n\r\n";
        if (method == "GET")
            responses += std::string(i, 'x');
        expected +=
            method + " " + path + " 200 " + std::to_string(method == "GET" ? i : 0) + "/0\n";
    }
    talk.say(client, requests).say(server, responses);
    EXPECT_EQ(talk.summary(), expected);
}

TEST(HttpConnection, TimesAndSizes) {
    Talk talk;
    talk.now = 0;
    talk.say(client, "POST /p HTTP/1.1\r\nHost: h.example\r\nContent-Le"); // 1000
    talk.say(client, "ngth: 4\r\n\r\nbo");                                 // 2000
    talk.say(client, "dy");                                                // 3000
    talk.say(server, "HTTP/1.1 200 OK\r\n");                               // 4000
    talk.say(server, "Content-Length: 3\r\n\r\nab");                       // 5000
    talk.say(server, "c");                                                 // 6000
    ASSERT_EQ(talk.told.size(), 1u);
    const Transaction& one = talk.told[0];
    EXPECT_EQ(one.request.first_byte, 1000u);
    EXPECT_EQ(one.request.last_byte, 3000u);
    EXPECT_EQ(one.response.first_byte, 4000u);
    EXPECT_EQ(one.response.last_byte, 6000u);
    EXPECT_EQ(one.latency(), 3000u);
    EXPECT_EQ(one.duration(), 5000u);
    EXPECT_EQ(one.host, "h.example");
    EXPECT_EQ(one.request.wire_bytes, 18u + 17 + 19 + 2 + 4);
    EXPECT_EQ(one.request.head_bytes, 18u + 17 + 19 + 2);
    EXPECT_EQ(one.response.wire_bytes, 17u + 19 + 2 + 3);
    EXPECT_EQ(one.request.body, "body");
    EXPECT_EQ(one.response.body, "abc");
    EXPECT_EQ(one.request.fields.size(), 2u);
    EXPECT_EQ(one.request.fields[1].name, "Content-Length");
    EXPECT_EQ(one.request.fields[1].value, "4");
}

TEST(HttpConnection, KeepsOnlyTheBodysBeginning) {
    Talk talk({.keep_fields = false, .body_limit = 4});
    talk.say(client, "GET / HTTP/1.1\r\nA: b\r\n\r\n");
    talk.say(server, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n012");
    talk.say(server, "3456789");
    ASSERT_EQ(talk.told.size(), 1u);
    EXPECT_EQ(talk.told[0].response.body, "0123");
    EXPECT_TRUE(talk.told[0].request.fields.empty());
}

TEST(HttpConnection, SkipsAHoleInsideABodyByItsLength) {
    Talk talk;
    talk.say(client, "GET /big HTTP/1.1\r\n\r\n");
    talk.say(server, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc");
    talk.skip(server, 999990).say(server, "1234567");
    talk.say(client, "GET /next HTTP/1.1\r\n\r\n");
    talk.say(server, "HTTP/1.1 204 No Content\r\n\r\n");
    EXPECT_EQ(talk.summary(), "GET /big 200 1000000/0\nGET /next 204 0/0\n");
    EXPECT_EQ(talk.counters.holes, 0u);
}

TEST(HttpConnection, SkipsAHoleInsideAChunk) {
    Talk talk;
    talk.say(client, "GET /c HTTP/1.1\r\n\r\n");
    talk.say(server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\nab");
    talk.skip(server, 0x100000 - 2).say(server, "\r\n0\r\n\r\n");
    EXPECT_EQ(talk.summary(), "GET /c 200 1048576/0\n");
    EXPECT_EQ(talk.counters.unframed, 0u);
}

TEST(HttpConnection, EndsAChunkedBodyWhoseFramingWasLost) {
    for (const bool last_chunk_seen : {true, false}) {
        Talk talk;
        talk.say(client, "GET /c HTTP/1.1\r\n\r\n");
        talk.say(server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nab");
        talk.skip(server, 5000);
        if (last_chunk_seen)
            talk.say(server, "xx\r\n0\r\n\r\n");
        EXPECT_EQ(talk.told.size(), last_chunk_seen ? 1u : 0u);
        talk.say(client, "GET /next HTTP/1.1\r\n\r\n");
        talk.say(server, "HTTP/1.1 204 No Content\r\n\r\n");
        ASSERT_EQ(talk.told.size(), 2u);
        EXPECT_EQ(talk.told[0].response.end, MessageEnd::unframed);
        EXPECT_EQ(talk.told[1].target, "/next");
        EXPECT_EQ(talk.told[1].status, 204);
        EXPECT_EQ(talk.counters.unframed, 1u);
    }
}

TEST(HttpConnection, FindsItsPlaceAfterALostRequest) {
    Talk talk;
    talk.say(client, "GET /1 HTTP/1.1\r\n\r\n")
        .say(server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    talk.skip(client, 20); // GET /2
    talk.say(server, "HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n");
    talk.say(client, "GET /3 HTTP/1.1\r\n\r\n")
        .say(server, "HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n");
    EXPECT_EQ(talk.summary(), "GET /1 200 0/0\n? ? 201 0/0\nGET /3 202 0/0\n");
    EXPECT_EQ(talk.counters.holes, 1u);
    EXPECT_EQ(talk.counters.unasked, 1u);
}

TEST(HttpConnection, FindsItsPlaceAfterALostResponse) {
    Talk talk;
    talk.say(client, "GET /1 HTTP/1.1\r\n\r\n").skip(server, 400);
    talk.say(client, "GET /2 HTTP/1.1\r\n\r\n")
        .say(server, "HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n");
    EXPECT_EQ(talk.summary(), "GET /1 0 0/0\nGET /2 202 0/0\n");
    EXPECT_EQ(talk.counters.holes, 1u);
    EXPECT_EQ(talk.counters.unanswered, 1u);
}

TEST(HttpConnection, FindsItsPlaceAfterALostExchange) {
    Talk talk;
    talk.say(client, "GET /1 HTTP/1.1\r\n\r\n")
        .say(server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    talk.skip(client, 20).skip(server, 40); // /2 and its answer
    talk.say(client, "GET /3 HTTP/1.1\r\n\r\n")
        .say(server, "HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n");
    EXPECT_EQ(talk.summary(), "GET /1 200 0/0\nGET /3 202 0/0\n");
    EXPECT_EQ(talk.counters.holes, 2u);
}

TEST(HttpConnection, JoinsInTheMiddle) {
    Talk talk;
    talk.say(server, "rest of a body that we did not see the beginning of");
    talk.say(server, "and more");
    talk.say(client, "GET /1 HTTP/1.1\r\n\r\n")
        .say(server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    EXPECT_EQ(talk.summary(), "GET /1 200 0/0\n");

    Talk response_first;
    response_first.say(server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab");
    response_first.say(client, "GET /1 HTTP/1.1\r\n\r\n");
    response_first.say(server, "HTTP/1.1 204 OK\r\n\r\n");
    EXPECT_EQ(response_first.summary(), "? ? 200 2/0\nGET /1 204 0/0\n");
}

TEST(HttpConnection, ClientThatIsRefusedDoesNotSendItsBody) {
    Talk talk;
    talk.say(client, "PUT /p HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n");
    talk.say(server, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
    talk.say(client, "GET /next HTTP/1.1\r\n\r\n");
    talk.say(server, "HTTP/1.1 204 No Content\r\n\r\n");
    EXPECT_EQ(talk.summary(), "PUT /p 417 0/0\nGET /next 204 0/0\n");
}

TEST(HttpConnection, EarlyAnswerWaitsForTheRequest) {
    Talk talk;
    talk.say(client, "PUT /p HTTP/1.1\r\nContent-Length: 8\r\n\r\n1234");
    talk.say(server, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    EXPECT_TRUE(talk.told.empty());
    talk.say(client, "5678");
    EXPECT_EQ(talk.summary(), "PUT /p 413 0/8\n");
}

TEST(HttpConnection, TellsWhatWasNotAnswered) {
    Talk talk;
    talk.say(client, "GET /1 HTTP/1.1\r\n\r\n").end();
    EXPECT_EQ(talk.summary(), "GET /1 0 0/0 closed\n");
    EXPECT_EQ(talk.counters.unanswered, 1u);

    Talk cut;
    cut.say(client, "GET /1 HTTP/1.1\r\n\r\n");
    cut.say(server, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").end();
    EXPECT_EQ(cut.summary(), "GET /1 200 3/0 cut\n");
}

TEST(HttpConnection, CountsHttp2AndLeavesItAlone) {
    for (std::size_t cut : {0u, 1u, 3u, 5u, 18u, 24u}) {
        Talk talk;
        const std::string preface =
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04GET / HTTP/1.1\r\n\r\n"s;
        talk.say(client, preface.substr(0, cut)).say(client, preface.substr(cut));
        talk.say(server, "HTTP/1.1 200 OK\r\n\r\n").end();
        EXPECT_EQ(talk.summary(), "") << cut;
        EXPECT_EQ(talk.counters.http2, 1u) << cut;
    }
}

TEST(HttpConnection, LeavesOtherProtocolsAlone) {
    Talk talk;
    talk.say(server, "220 mail.example ESMTP\r\n")
        .say(client, "EHLO x\r\n")
        .say(server, "250 ok\r\n");
    talk.say(client, "\x16\x03\x01 GET / HTTP/1.1\r\n\r\n").say(client, "GETAWAY now\r\n").end();
    EXPECT_EQ(talk.summary(), "");
    EXPECT_EQ(talk.counters.malformed, 0u);
}

TEST(HttpConnection, TakesHeadsOf64KiBAndMarksLargerOnes) {
    for (const bool absurd : {false, true}) {
        Talk talk;
        std::string head = "GET /h HTTP/1.1\r\n";
        const std::string last = "Content-Length: 3\r\n\r\n";
        const std::size_t size = absurd ? 300'000 : head_limit;
        for (int i = 0; head.size() + last.size() + 1000 < size; ++i)
            head += "X-" + std::to_string(i) + ": " + std::string(900, 'v') + "\r\n";
        head += "Y: " + std::string(size - head.size() - last.size() - 5, 'y') + "\r\n" + last;
        ASSERT_EQ(head.size(), size);
        head += "abc";
        for (std::size_t at = 0; at < head.size(); at += 1448)
            talk.say(client, head.substr(at, 1448));
        talk.say(server, "HTTP/1.1 204 No Content\r\n\r\n");
        ASSERT_EQ(talk.summary(), "GET /h 204 0/3\n");
        EXPECT_EQ(talk.told[0].request.absurd, absurd);
        EXPECT_EQ(talk.told[0].request.head_bytes, size);
        if (!absurd) {
            EXPECT_EQ(talk.told[0].request.fields.back().name, "Content-Length");
        }
    }
    Talk target;
    target.say(client, "GET /" + std::string(200'000, 'x') + " HTTP/1.1\r\nHost: h\r\n\r\n");
    target.say(server, "HTTP/1.1 414 URI Too Long\r\nContent-Length: 0\r\n\r\n");
    ASSERT_EQ(target.told.size(), 1u);
    EXPECT_TRUE(target.told[0].request.absurd);
    EXPECT_EQ(target.told[0].method, "GET");
    EXPECT_EQ(target.told[0].host, "h");
    EXPECT_LE(target.told[0].target.size(), head_limit);
}

TEST(HttpConnection, ChecksFraming) {
    Talk smuggled;
    smuggled.say(client,
                 "POST / HTTP/1.1\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n"
                 "0\r\n\r\n");
    smuggled.say(server, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    ASSERT_EQ(smuggled.summary(), "POST / 400 0/0\n"); // RFC 9112 6.3: the coding wins
    EXPECT_TRUE(smuggled.told[0].request.absurd);

    Talk overflow;
    overflow.say(client, "GET / HTTP/1.1\r\n\r\n");
    overflow.say(server, "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nab")
        .end();
    ASSERT_EQ(overflow.summary(), "GET / 200 2/0\n");
    EXPECT_TRUE(overflow.told[0].response.absurd);

    Talk bad_chunk;
    bad_chunk.say(client, "GET / HTTP/1.1\r\n\r\n");
    bad_chunk.say(server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab");
    ASSERT_EQ(bad_chunk.told.size(), 1u);
    EXPECT_EQ(bad_chunk.told[0].response.end, MessageEnd::unframed);
    EXPECT_EQ(bad_chunk.counters.malformed, 1u);
}

// ---- TCP ----

struct Stream {
    TcpCounters counters;
    std::string text; ///< missing bytes as dots
    MemoryBudget budget;
    TcpStream tcp{counters, budget, [this](std::string_view data, const Moment&) { text += data; },
                  [this](std::uint64_t length, Time) { text.append(length, '.'); }};

    Stream& put(std::uint32_t at, std::string_view payload, bool fin = false) {
        TcpSegment segment;
        segment.sequence = at;
        segment.payload = payload;
        segment.length = static_cast<std::uint32_t>(payload.size());
        segment.fin = fin;
        tcp.segment(segment);
        return *this;
    }
    Stream& syn(std::uint32_t at) {
        TcpSegment segment;
        segment.sequence = at;
        segment.syn = true;
        tcp.segment(segment);
        return *this;
    }
};

TEST(TcpStream, InOrderOverTheWrap) {
    Stream stream;
    stream.syn(0xfffffffd).put(0xfffffffe, "ab").put(0, "cd").put(2, "e", true);
    EXPECT_EQ(stream.text, "abcde");
    EXPECT_TRUE(stream.tcp.ended());
}

TEST(TcpStream, Reordered) {
    Stream stream;
    stream.syn(99).put(102, "cd").put(104, "e", true).put(100, "ab");
    EXPECT_EQ(stream.text, "abcde");
    EXPECT_EQ(stream.counters.reordered, 2u);
    EXPECT_TRUE(stream.tcp.ended());
}

TEST(TcpStream, RetransmittedAndOverlapping) {
    Stream stream;
    stream.syn(99).put(100, "ab").put(100, "XX").put(100, "XXcd").put(99, "?").put(103, "Yef");
    EXPECT_EQ(stream.text, "abcdef");
    EXPECT_EQ(stream.counters.retransmitted, 2u);
    EXPECT_EQ(stream.counters.overlapping, 2u);
}

TEST(TcpStream, HeldSegmentsMayOverlap) {
    Stream stream;
    stream.syn(99).put(104, "ef").put(102, "cdEFgh").put(103, "D").put(100, "ab");
    EXPECT_EQ(stream.text, "abcdEFgh");
}

TEST(TcpStream, AHoleIsGivenUpWhenTheReceiverHasIt) {
    Stream stream;
    stream.syn(99).put(100, "ab").put(105, "fg");
    EXPECT_EQ(stream.text, "ab");
    stream.tcp.acknowledged(102, 1);
    EXPECT_EQ(stream.text, "ab");
    stream.tcp.acknowledged(107, 1);
    EXPECT_EQ(stream.text, "ab...fg");
    EXPECT_EQ(stream.counters.missing_bytes, 3u);
}

TEST(TcpStream, AHoleIsGivenUpWhenTooMuchWaits) {
    Stream stream;
    const std::string block(60000, 'x');
    stream.syn(99).put(100, "ab");
    std::uint32_t at = 103;
    for (int i = 0; i < 20; ++i, at += 60000)
        stream.put(at, block);
    EXPECT_EQ(stream.text.substr(0, 4), "ab.x");
    EXPECT_EQ(stream.counters.missing_bytes, 1u);
}

TEST(TcpStream, JoinsInTheMiddleAndSkipsWhatWasCutOff) {
    Stream stream;
    stream.put(5000, "ab");
    TcpSegment cut;
    cut.sequence = 5002;
    cut.length = 10;
    cut.payload = "cde";
    stream.tcp.segment(cut);
    stream.put(5012, "z");
    EXPECT_EQ(stream.text, "abcde.......z");
}

TEST(TcpStream, AnotherConnectionOnTheSamePorts) {
    Stream stream;
    stream.syn(99).put(100, "ab", true).syn(7000000).put(7000001, "cd");
    EXPECT_EQ(stream.text, "abcd");
    EXPECT_FALSE(stream.tcp.ended());
}

TEST(TcpStream, AnyOrderOfAnyCutGivesTheSameBytes) {
    std::uint64_t state = 12345;
    const auto random = [&](std::uint32_t below) {
        state = state * 6364136223846793005 + 1442695040888963407;
        return static_cast<std::uint32_t>((state >> 33) % below);
    };
    for (int round = 0; round < 500; ++round) {
        std::string text;
        for (int i = 0; i < 200; ++i)
            text += static_cast<char>('a' + random(26));
        struct Piece {
            std::uint32_t at, size;
        };
        std::vector<Piece> pieces;
        for (std::uint32_t at = 0; at < text.size();) {
            const std::uint32_t size = 1 + random(30);
            pieces.push_back({at, std::min<std::uint32_t>(size, text.size() - at)});
            at += size - random(std::min(size, 10u)); // overlaps
        }
        for (std::size_t i = 0; i < 10; ++i)
            std::swap(pieces[random(pieces.size())], pieces[random(pieces.size())]);
        const std::uint32_t start = 0xffffff00u + random(512);
        Stream stream;
        stream.syn(start - 1);
        for (const Piece& piece : pieces)
            stream.put(start + piece.at, std::string_view(text).substr(piece.at, piece.size));
        ASSERT_EQ(stream.text, text) << "round " << round;
    }
}

// ---- packets ----

struct Wire {
    ParserOptions options{.keep_fields = false, .body_limit = 0};
    ParserCounters parser;
    PacketCounters counters;
    std::vector<Transaction> told;
    Time now = 1'000'000'000;
    std::optional<std::uint32_t> until; ///< what the server sends up to here is not wanted
    PacketTracer tracer{options, parser, counters,
                        [this](Transaction& transaction) { told.push_back(transaction); },
                        [this](const Endpoint& sender, const Endpoint&, std::uint32_t sequence,
                               std::optional<std::uint32_t>) {
                            if (sender.port == 80)
                                until = sequence;
                        }};

    static void put16(std::string& out, unsigned value) {
        out += static_cast<char>(value >> 8);
        out += static_cast<char>(value);
    }
    static std::string tcp(bool to_server, std::uint32_t sequence, std::uint32_t ack, int flags,
                           std::string_view payload) {
        std::string out;
        put16(out, to_server ? 40000 : 80);
        put16(out, to_server ? 80 : 40000);
        put16(out, sequence >> 16);
        put16(out, sequence);
        put16(out, ack >> 16);
        put16(out, ack);
        out += "\x60"s + static_cast<char>(flags); // one option word
        out += "\xff\xff\0\0\0\0\1\1\1\1"s;
        return out.append(payload);
    }
    static std::string ip4(bool to_server, const std::string& payload, int options = 0,
                           bool zero_total = false, int fragment = 0) {
        std::string out;
        out += static_cast<char>(0x45 + options);
        out += '\0';
        put16(out, zero_total ? 0 : 20 + options * 4 + payload.size());
        put16(out, 7);
        put16(out, fragment);
        out += "\x40\x06\0\0"s;
        out += to_server ? "\x0a\0\0\1\x0a\0\0\2"s : "\x0a\0\0\2\x0a\0\0\1"s;
        out.append(options * 4, '\1');
        return out + payload;
    }
    static std::string ip6(bool to_server, const std::string& payload, const std::string& extension,
                           int first) {
        std::string out("\x60\0\0\0"s);
        put16(out, payload.size() + extension.size());
        out += static_cast<char>(first);
        out += '\x40';
        const std::string low = "\xfd"s + std::string(14, '\0') + "\1";
        const std::string high = "\xfd"s + std::string(14, '\0') + "\2";
        out += to_server ? low + high : high + low;
        return out + extension + payload;
    }
    static std::string ethernet(const std::string& packet, const std::string& tags = "") {
        return std::string(12, '\x02') + tags + ((packet[0] >> 4) == 4 ? "\x08\0"s : "\x86\xdd"s) +
               packet;
    }
    void frame(const std::string& bytes, FrameStart start = FrameStart::ethernet) {
        now += 1000;
        tracer.frame(now, start,
                     {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()},
                     static_cast<std::uint32_t>(bytes.size()));
    }
    /// From the server, as the kernel's part hands it out: without a payload that is not wanted as a whole.
    void from_server(std::uint32_t sequence, std::uint32_t ack, std::string_view payload) {
        const std::string bytes = ip4(false, tcp(false, sequence, ack, 0x10, payload));
        const auto length = static_cast<std::uint32_t>(payload.size());
        std::size_t captured = bytes.size();
        if (until && static_cast<std::int32_t>(*until - sequence - length) >= 0)
            captured -= length;
        else
            until.reset();
        now += 1000;
        tracer.frame(now, FrameStart::ip,
                     {reinterpret_cast<const std::uint8_t*>(bytes.data()), captured},
                     static_cast<std::uint32_t>(bytes.size()));
    }
};

const std::string request = "GET /w HTTP/1.1\r\nHost: h\r\n\r\n";
const std::string response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

TEST(PacketTracer, LooksThroughHeaders) {
    const auto wrap = [&](auto shape) {
        Wire wire;
        const std::string out = Wire::tcp(true, 100, 500, 0x18, request);
        const std::string back =
            Wire::tcp(false, 500, 100 + static_cast<std::uint32_t>(request.size()), 0x18, response);
        shape(wire, true, out);
        shape(wire, false, back);
        EXPECT_EQ(wire.told.size(), 1u);
        if (wire.told.empty())
            return std::string();
        return wire.told[0].client.to_string() + " " + wire.told[0].server.to_string();
    };
    const std::string v4 = "10.0.0.1:40000 10.0.0.2:80";
    const std::string v6 = "[fd00::1]:40000 [fd00::2]:80";
    EXPECT_EQ(v4, wrap([](Wire& w, bool s, const std::string& t) {
                  w.frame(Wire::ethernet(Wire::ip4(s, t)));
              }));
    EXPECT_EQ(v4, wrap([](Wire& w, bool s, const std::string& t) {
                  w.frame(Wire::ethernet(Wire::ip4(s, t, 5)));
              }));
    EXPECT_EQ(v4, wrap([](Wire& w, bool s, const std::string& t) {
                  w.frame(Wire::ethernet(Wire::ip4(s, t, 0, true)));
              }));
    EXPECT_EQ(v4, wrap([](Wire& w, bool s, const std::string& t) {
                  w.frame(Wire::ip4(s, t), FrameStart::ip);
              }));
    EXPECT_EQ(v4, wrap([](Wire& w, bool s, const std::string& t) {
                  w.frame(Wire::ethernet(Wire::ip4(s, t), "\x88\xa8\0\7\x81\0\0\5"s));
              }));
    EXPECT_EQ(v4, wrap([](Wire& w, bool s, const std::string& t) { // padding is no payload
                  w.frame(Wire::ethernet(Wire::ip4(s, t)) + "PADDING");
              }));
    EXPECT_EQ(v6, wrap([](Wire& w, bool s, const std::string& t) {
                  w.frame(Wire::ethernet(Wire::ip6(s, t, "", 6)));
              }));
    EXPECT_EQ(v6, wrap([](Wire& w, bool s, const std::string& t) {
                  w.frame(Wire::ethernet(
                      Wire::ip6(s, t, "\x3c\0\1\4\0\0\0\0\x06\1\1\4\0\0\0\0\0\0\0\0\0\0\0\0"s, 0)));
              }));
}

TEST(PacketTracer, CountsWhatItCannotRead) {
    Wire wire;
    const std::string packet =
        Wire::ip4(true, Wire::tcp(true, 1, 0, 0x18, request), 0, false, 0x2000);
    wire.frame(Wire::ethernet(packet));
    wire.frame(Wire::ethernet(Wire::ip4(true, Wire::tcp(true, 1, 0, 0x18, "x"))).substr(0, 40));
    wire.frame("short");
    wire.frame(std::string(12, '\0') + "\x08\x06" + std::string(28, '\0'));
    EXPECT_EQ(wire.counters.frames, 4u);
    EXPECT_EQ(wire.counters.layers.fragments, 1u);
    EXPECT_EQ(wire.counters.layers.damaged, 2u);
    EXPECT_EQ(wire.counters.layers.other, 1u);
}

TEST(PacketTracer, EachFrameTwiceIsOneTransaction) {
    Wire wire;
    for (const auto& [to_server, text, at, ack] :
         {std::tuple{true, request, 100u, 500u}, std::tuple{false, response, 500u, 128u}})
        for (int i = 0; i < 2; ++i)
            wire.frame(
                Wire::ethernet(Wire::ip4(to_server, Wire::tcp(to_server, at, ack, 0x18, text))));
    EXPECT_EQ(wire.told.size(), 1u);
    EXPECT_EQ(wire.counters.tcp.retransmitted, 2u);
}

TEST(PacketTracer, ConnectionEndsAndItsPortsAreUsedAgain) {
    Wire wire;
    for (int i = 0; i < 3; ++i) {
        const std::uint32_t base = 1000u * static_cast<std::uint32_t>(i + 1);
        const auto length = static_cast<std::uint32_t>(request.size());
        const std::string old = "HTTP/1.0 200 OK\r\n\r\nbody";
        wire.frame(Wire::ethernet(Wire::ip4(true, Wire::tcp(true, base, 0, 0x02, ""))));
        wire.frame(Wire::ethernet(Wire::ip4(false, Wire::tcp(false, base, base + 1, 0x12, ""))));
        wire.frame(
            Wire::ethernet(Wire::ip4(true, Wire::tcp(true, base + 1, base + 1, 0x18, request))));
        wire.frame(Wire::ethernet(
            Wire::ip4(false, Wire::tcp(false, base + 1, base + 1 + length, 0x19, old))));
        if (i != 1) // the middle one's end is not seen
            wire.frame(Wire::ethernet(
                Wire::ip4(true, Wire::tcp(true, base + 1 + length, base + 26, 0x11, ""))));
    }
    ASSERT_EQ(wire.told.size(), 3u);
    EXPECT_EQ(wire.told[2].response.body_bytes, 4u);
    EXPECT_EQ(wire.counters.tcp.missing_bytes, 0u);
}

TEST(PacketTracer, LongBodyIsSkippedInAnyOrder) {
    constexpr std::uint32_t piece = 1400;
    const std::string body(500'000, 'b');
    // What follows begins in the segment in which the body ends.
    const std::string stream =
        "HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + body + response;
    const auto asked = static_cast<std::uint32_t>(request.size());
    std::mt19937 engine(7);
    for (int round = 0; round < 50; ++round) {
        Wire wire;
        const std::uint32_t start = round % 2 ? 0u - 200'000u : 500u; // sequence numbers wrap
        wire.frame(Wire::ip4(true, Wire::tcp(true, 100, start, 0x18, request + request)),
                   FrameStart::ip);
        std::vector<std::uint32_t> order;
        for (std::uint32_t at = 0; at < stream.size(); at += piece)
            order.push_back(at);
        // The first in its place, as is the head; the others up to 40 late, so that what lies behind the
        // body overtakes some of it.
        for (std::size_t i = 1; i + 1 < order.size(); ++i)
            if (engine() % 4 == 0)
                std::swap(order[i], order[std::min(i + engine() % 40, order.size() - 1)]);
        std::size_t unwanted = 0;
        for (const std::uint32_t at : order) {
            unwanted += wire.until.has_value();
            wire.from_server(start + at, 100 + 2 * asked, stream.substr(at, piece));
        }
        ASSERT_GT(unwanted, order.size() / 2);
        ASSERT_GT(wire.counters.tcp.reordered, 0u);
        ASSERT_EQ(wire.told.size(), 2u) << "round " << round;
        EXPECT_EQ(wire.told[0].response.body_bytes, body.size());
        EXPECT_EQ(wire.told[0].response.end, MessageEnd::complete);
        EXPECT_EQ(wire.told[1].response.body_bytes, 2u);
        EXPECT_EQ(wire.counters.tcp.missing_bytes, 0u);
        EXPECT_EQ(wire.parser.holes, 0u);
    }
}

} // namespace
} // namespace netctl::trace
