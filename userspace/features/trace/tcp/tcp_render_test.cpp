// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/tcp/tcp_render.hpp"

#include <cerrno>
#include <cstring>

#include <gtest/gtest.h>

#include "core/json.hpp"

namespace netctl::trace::tcp {
namespace {

nc_tcp_event connect_event() {
    nc_tcp_event raw{};
    raw.kind = NC_TCP_CONNECT;
    raw.ends.family = 4;
    raw.role = NC_TCP_CLIENT;
    raw.before = 2;
    raw.after = 1;
    raw.time_ns = 5'000'000;
    raw.since_ns = 3'765'433;
    raw.ends.local_port = 40000;
    raw.ends.remote_port = 80;
    raw.netns = 7;
    raw.cookie = 9;
    const std::uint8_t local[4] = {192, 0, 2, 1}, remote[4] = {192, 0, 2, 2};
    std::memcpy(raw.ends.local, local, 4);
    std::memcpy(raw.ends.remote, remote, 4);
    raw.owner.pid = 42;
    std::strcpy(raw.owner.comm, "curl");
    return raw;
}

Json json_of(const nc_tcp_event& raw, const std::map<std::uint32_t, std::string>& reasons = {}) {
    Text text;
    append_event_json(text, make_event(raw, 1'000'000'000, reasons));
    return Json::parse(text.string());
}

std::string text_of(const nc_tcp_event& raw) {
    Text text;
    append_event_text(text, make_event(raw, 0, {}));
    return text.string();
}

TEST(TcpRender, AConnectionThatWasMade) {
    const Json json = json_of(connect_event());
    EXPECT_EQ(json["event"], "connect");
    EXPECT_EQ(json["time"], "1970-01-01T00:00:01.005000Z");
    EXPECT_EQ(json["process"], (Json{{"pid", 42}, {"comm", "curl"}}));
    EXPECT_EQ(json["local"], (Json{{"address", "192.0.2.1"}, {"port", 40000}}));
    EXPECT_EQ(json["remote"], (Json{{"address", "192.0.2.2"}, {"port", 80}}));
    EXPECT_EQ(json["result"], "established");
    EXPECT_TRUE(json["error"].is_null());
    EXPECT_TRUE(json["container"].is_null());
    EXPECT_DOUBLE_EQ(json["latency_us"].get<double>(), 1234.567);
    EXPECT_NE(text_of(connect_event()).find("    1.235ms  established\n"), std::string::npos);
}

TEST(TcpRender, AttemptsThatCameToNothing) {
    nc_tcp_event raw = connect_event();
    raw.after = 7;
    EXPECT_EQ(connect_result(raw), "given-up");
    raw.error = ECONNREFUSED;
    EXPECT_EQ(json_of(raw)["result"], "failed");
    EXPECT_EQ(json_of(raw)["error"], "ECONNREFUSED");
    EXPECT_NE(text_of(raw).find("Connection refused"), std::string::npos);
    raw.retransmitted_segments = 2;
    EXPECT_NE(text_of(raw).find("(2 SYN sent again)"), std::string::npos);
    raw.error = 0;
    raw.ends.local_port = 0; // the kernel found none, and says so to the caller alone
    EXPECT_EQ(json_of(raw)["error"], "EADDRNOTAVAIL");
    EXPECT_TRUE(json_of(raw)["local"]["port"].is_null());
}

TEST(TcpRender, NamesAreShownAndNotObeyed) {
    nc_tcp_event raw = connect_event();
    std::memcpy(raw.owner.comm, "a\x1b[2J\n\"{}012345", 16); // no zero at its end
    EXPECT_EQ(text_of(raw).find('\x1b'), std::string::npos);
    EXPECT_NE(text_of(raw).find("\\x1b[2J\\x0a"), std::string::npos);
    EXPECT_EQ(json_of(raw)["process"]["comm"], "a\x1b[2J\n\"{}012345");
}

TEST(TcpRender, AnIpv6SocketThatSpeaksIpv4) {
    nc_tcp_event raw = connect_event();
    raw.ends.family = 6;
    const std::uint8_t mapped[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7};
    std::memcpy(raw.ends.remote, mapped, 16);
    EXPECT_EQ(json_of(raw)["remote"]["address"], "192.0.2.7");
    const std::uint8_t real[16] = {0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    std::memcpy(raw.ends.remote, real, 16);
    EXPECT_NE(text_of(raw).find("[2001:db8::1]:80"), std::string::npos);
}

TEST(TcpRender, HowAConnectionEnded) {
    nc_tcp_event raw = connect_event();
    raw.kind = NC_TCP_CLOSE;
    raw.after = 7;
    raw.before = 9;
    raw.flags = NC_TCP_ESTABLISHED | NC_TCP_FIN_RECEIVED;
    EXPECT_EQ(how_ended(raw), "remote-fin");
    raw.before = 5;
    raw.flags = NC_TCP_ESTABLISHED | NC_TCP_FIN_SENT;
    EXPECT_EQ(how_ended(raw), "local-fin");
    raw.before = 1;
    raw.flags = NC_TCP_ESTABLISHED;
    EXPECT_EQ(how_ended(raw), "local-reset");
    raw.flags = NC_TCP_ESTABLISHED | NC_TCP_RST_RECEIVED;
    raw.error = ECONNRESET;
    EXPECT_EQ(how_ended(raw), "remote-reset");
    raw.flags = NC_TCP_ESTABLISHED | NC_TCP_RST_SENT | NC_TCP_REASON;
    raw.reason = 3;
    EXPECT_EQ(how_ended(raw), "local-reset");
    EXPECT_EQ(json_of(raw, {{3, "no_socket"}})["reset_reason"], "no_socket");
    raw.error = ETIMEDOUT;
    EXPECT_EQ(how_ended(raw), "timeout");
}

TEST(TcpRender, SegmentsThatAreSentAgain) {
    nc_tcp_event raw = connect_event();
    raw.kind = NC_TCP_RETRANSMIT;
    raw.why = NC_TCP_WHY_FAST;
    raw.length = 1448;
    raw.sequence = 4'000'000'000;
    const Json json = json_of(raw);
    EXPECT_EQ(json["event"], "retransmit");
    EXPECT_EQ(json["why"], "fast");
    EXPECT_EQ(json["state"], "ESTABLISHED");
    EXPECT_EQ(json["bytes"], 1448);
    EXPECT_EQ(json["sequence"], 4'000'000'000);
    EXPECT_NE(text_of(raw).find("ESTABLISHED    1448B"), std::string::npos);
}

TEST(TcpRender, ResetsAndDropsWithoutASocket) {
    nc_tcp_event raw = connect_event();
    raw.kind = NC_TCP_RESET;
    raw.before = raw.after = 0;
    raw.cookie = 0;
    raw.owner = {};
    raw.flags = NC_TCP_RST_SENT | NC_TCP_REASON;
    raw.reason = 2;
    Json json = json_of(raw, {{2, "no_socket"}});
    EXPECT_EQ(json["direction"], "sent");
    EXPECT_EQ(json["reason"], "no_socket");
    EXPECT_EQ(json_of(raw)["reason"], "2"); // which no enum of this kernel has
    for (const char* member : {"state", "cookie", "process"})
        EXPECT_TRUE(json[member].is_null()) << member;
    raw.flags = NC_TCP_RST_RECEIVED;
    EXPECT_EQ(json_of(raw)["direction"], "received");
    EXPECT_TRUE(json_of(raw)["reason"].is_null());
    raw.kind = NC_TCP_DROP;
    raw.length = 5;
    json = json_of(raw, {{2, "no_socket"}});
    EXPECT_EQ(json["event"], "drop");
    EXPECT_EQ(json["reason"], "no_socket");
    EXPECT_EQ(json["bytes"], 5);
    EXPECT_TRUE(json["place"].is_null());
}

TEST(TcpRender, WhatIsNotKnownIsNull) {
    nc_tcp_event raw = connect_event();
    raw.kind = NC_TCP_CLOSE;
    raw.role = NC_TCP_UNKNOWN;
    raw.since_ns = 0;
    raw.owner = {};
    const Json json = json_of(raw);
    for (const char* member : {"process", "role", "duration_us", "rtt_us", "min_rtt_us"})
        EXPECT_TRUE(json[member].is_null()) << member;
    EXPECT_EQ(json["sent_bytes"], 0);
}

} // namespace
} // namespace netctl::trace::tcp
