// SPDX-License-Identifier: GPL-2.0-only
//
// What is around the parser: filters, renderings, the table of routes, records of the kernel.
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>

#include <nlohmann/json.hpp>
#include <zlib.h>
#include <zstd.h>

#include "features/trace/container.hpp"
#include "features/trace/http/call_tracer.hpp"
#include "features/trace/http/content_coding.hpp"
#include "features/trace/http/filter.hpp"
#include "features/trace/http/har.hpp"
#include "features/trace/http/render.hpp"
#include "features/trace/http/top.hpp"
#include "features/trace/number_list.hpp"
#include "features/trace/record_reader.hpp"

namespace netctl::trace {
namespace {

Transaction example() {
    Transaction one;
    one.client = {*Address::parse("192.0.2.1"), 40000};
    one.server = {*Address::parse("192.0.2.2"), 80};
    one.server_process = {42, "nginx", nullptr};
    one.method = "GET";
    one.target = "/a/b?x=1&y=%41+b";
    one.host = "Example.ORG:8080";
    one.status = 200;
    one.reason = "OK";
    one.request.seen = one.response.seen = true;
    one.request.first_byte = 1'700'000'000'000'000'000;
    one.request.last_byte = one.request.first_byte + 1'000'000;
    one.response.first_byte = one.request.first_byte + 3'000'000;
    one.response.last_byte = one.request.first_byte + 7'000'000;
    one.request.wire_bytes = one.request.head_bytes = 50;
    one.response.wire_bytes = 120;
    one.response.head_bytes = 100;
    one.response.body_bytes = 20;
    return one;
}

nlohmann::json har_of(const Transaction& one) {
    std::string text = har_begin("1", one.start());
    append_har_entry(text, one);
    return nlohmann::json::parse(text + har_end())["log"]["entries"][0];
}

TEST(Har, OfTlsWithoutASocketHasNoAddress) {
    Transaction one = example();
    one.tls = true;
    EXPECT_EQ(har_of(one)["request"]["url"], "https://Example.ORG:8080/a/b?x=1&y=%41+b");
    EXPECT_EQ(har_of(one)["serverIPAddress"], "192.0.2.2");
    one.placed = false;
    one.host.clear();
    EXPECT_EQ(har_of(one)["request"]["url"], "https://unknown.invalid/a/b?x=1&y=%41+b");
    EXPECT_FALSE(har_of(one).contains("serverIPAddress"));
    EXPECT_FALSE(har_of(one).contains("connection"));
}

TEST(TraceRender, TlsIsMarked) {
    Transaction one = example();
    one.tls = true;
    Text text;
    append_text(text, one);
    EXPECT_NE(text.find("GET https://Example.ORG:8080/a/b?x=1&y=%41+b"), std::string::npos) << text;
    one.placed = false;
    Text without, json;
    append_text(without, one);
    EXPECT_EQ(without.find("192.0.2."), std::string::npos) << without;
    append_json(json, one);
    const auto document = nlohmann::json::parse(json.string());
    EXPECT_TRUE(document["client"].is_null() && document["server"].is_null());
    EXPECT_EQ(document["tls"], true);
}

constexpr const char* container_id =
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

TEST(Container, IsFoundInTheCgroup) {
    const std::string id = container_id;
    struct Case {
        std::string cgroup, runtime, id;
    };
    for (const Case& one :
         {Case{"/system.slice/docker-" + id + ".scope", "docker", id},
          {"/docker/" + id, "docker", id},
          {"/machine.slice/libpod-" + id + ".scope/container", "podman", id},
          {"/kubepods.slice/kubepods-besteffort.slice/cri-containerd-" + id + ".scope",
           "containerd", id},
          {"/kubepods/burstable/pod1/" + id, "containerd", id},
          {"/kubepods.slice/crio-" + id + ".scope", "crio", id},
          {"/lxc.payload.web/system.slice/nginx.service", "lxc", "web"},
          {"/lxc/web", "lxc", "web"},
          {"/machine.slice/machine-my\\x2dbox.scope", "nspawn", "my-box"},
          {"/machine.slice/systemd-nspawn@box.service/payload", "nspawn", "box"},
          // The innermost is where a process is.
          {"/lxc.payload.host/docker/" + id, "docker", id}}) {
        const auto found = container_of(one.cgroup);
        ASSERT_TRUE(found) << one.cgroup;
        EXPECT_EQ(found->runtime, one.runtime) << one.cgroup;
        EXPECT_EQ(found->id, one.id) << one.cgroup;
    }
    for (const char* none :
         {"", "/", "/system.slice/docker.service", "/docker-0123.scope", "/machine.slice",
          "/user.slice/user-0.slice/session-1.scope", "/lxc.payload."})
        EXPECT_FALSE(container_of(none)) << none;
}

TEST(Container, IsNamedByItsRuntimesFiles) {
    char folder[] = "/tmp/netctl-containers-XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    const std::filesystem::path root = folder;
    const auto write = [&](const std::string& path, const std::string& text) {
        std::filesystem::create_directories((root / path).parent_path());
        std::ofstream(root / path) << text;
    };
    const std::string id = container_id;
    write("var/lib/docker/containers/" + id + "/config.v2.json",
          R"({"Name":"/web","Config":{"Image":"nginx:1.27"}})");
    write("var/lib/containers/storage/overlay-containers/containers.json",
          R"([3,{"id":"x"},{"id":")" + id +
              R"(","names":["pod"],"metadata":"{\"image-name\":\"redis\"}"}])");
    write(
        "run/containerd/io.containerd.runtime.v2.task/default/" + id + "/config.json",
        R"({"annotations":{"io.kubernetes.cri.container-name":"api","io.kubernetes.cri.image-name":"ours"}})");
    for (const auto& [runtime, name, image] :
         std::vector<std::array<std::string, 3>>{{"docker", "web", "nginx:1.27"},
                                                 {"podman", "pod", "redis"},
                                                 {"containerd", "api", "ours"}}) {
        Container container{runtime, id, {}, {}};
        name_container(container, folder);
        EXPECT_EQ(container.name, name);
        EXPECT_EQ(container.image, image);
        for (const std::string& called : {name, image, id, id.substr(0, 8)})
            EXPECT_TRUE(container.is_called(called)) << called;
        for (const std::string& called :
             {std::string("x"), id.substr(0, 7), id + "0", std::string()})
            EXPECT_FALSE(container.is_called(called)) << called;
    }
    // What is none of theirs, or was left half written, names nothing.
    write("var/lib/docker/containers/" + id + "/config.v2.json", R"({"Name":["web"],"Config":)");
    Container container{"docker", id, {}, {}};
    name_container(container, folder);
    EXPECT_EQ(container.label(), "0123456789ab");

    unsigned asked = 0;
    Containers containers(
        [&](std::uint64_t cgroup) -> std::optional<std::string> {
            ++asked;
            return cgroup == 7 ? "/lxc/box" : std::optional<std::string>();
        },
        folder);
    for (unsigned i = 0; i < 3; ++i) {
        EXPECT_EQ(containers.of(7)->label(), "box");
        EXPECT_EQ(containers.of(8), nullptr);
    }
    EXPECT_EQ(asked, 2u);
    Transaction one = example();
    one.server_process.container = containers.of(7);
    const auto matches = [&](const char* wanted) {
        Filter filter;
        filter.container = wanted;
        return filter.matches(one);
    };
    EXPECT_TRUE(matches("box") && matches("any") && matches("") && !matches("bo"));
    Text text;
    append_text(text, one);
    EXPECT_NE(text.find(" nginx[42]@box "), std::string::npos) << text;
    text.clear();
    append_json(text, one);
    const auto json = nlohmann::json::parse(text.string());
    EXPECT_EQ(json["server_process"]["container"]["runtime"], "lxc");
    EXPECT_TRUE(json["server_process"]["container"]["image"].is_null());
    one.server_process.container = nullptr;
    EXPECT_FALSE(matches("any"));
    std::filesystem::remove_all(root);
}

TEST(TraceFilter, ByEachOfItsParts) {
    const auto matches = [](auto change) {
        Filter filter;
        change(filter);
        return filter.matches(example());
    };
    EXPECT_TRUE(matches([](Filter&) {}));
    EXPECT_TRUE(matches([](Filter& f) { f.host = "example.org"; }));
    EXPECT_TRUE(matches([](Filter& f) { f.host = "example.ORG:8080"; }));
    EXPECT_FALSE(matches([](Filter& f) { f.host = "example.com"; }));
    EXPECT_TRUE(matches([](Filter& f) { f.path_prefix = "/a/"; }));
    EXPECT_FALSE(matches([](Filter& f) { f.path_prefix = "/b"; }));
    EXPECT_TRUE(matches([](Filter& f) { f.methods = {"POST", "GET"}; }));
    EXPECT_FALSE(matches([](Filter& f) { f.methods = {"POST"}; }));
    EXPECT_TRUE(matches([](Filter& f) { f.statuses = *parse_status_list("404,2xx"); }));
    EXPECT_FALSE(matches([](Filter& f) { f.statuses = *parse_status_list("201-299"); }));
    EXPECT_TRUE(matches([](Filter& f) { f.min_latency = 3'000'000; }));
    EXPECT_FALSE(matches([](Filter& f) { f.min_latency = 3'000'001; }));
    Transaction absolute = example();
    absolute.target = "http://proxied.example/p";
    Filter filter;
    filter.host = "proxied.example";
    filter.path_prefix = "/p";
    EXPECT_TRUE(filter.matches(absolute));
}

TEST(TraceFilter, RefusesWhatIsNoList) {
    for (const char* text : {"", "20", "6x", "200-100", "99", "1000", "2xx,", "-200", "200-"})
        EXPECT_FALSE(parse_status_list(text)) << text;
    for (const char* text : {"", "0", "65536", "80,", "90-80", "http", "8x"})
        EXPECT_FALSE(parse_port_list(text)) << text;
    EXPECT_EQ(*parse_port_list("90,80-82,81"), (std::vector<std::uint16_t>{80, 81, 82, 90}));
}

TEST(TraceRender, JsonIsJson) {
    Transaction one = example();
    one.target = "/\x01\"\\\xff\xc3\xa9";
    one.request.fields = {{"X", "\r\nbad"}, {"Y", "\xf0\x9f\x98\x80"}};
    one.response.body = std::string("\0\x80", 2);
    Text text;
    append_json(text, one);
    const std::string& line = text.string();
    EXPECT_EQ(line.find('\n'), line.size() - 1);
    const auto json = nlohmann::json::parse(line);
    EXPECT_EQ(json["method"], "GET");
    EXPECT_EQ(json["status"], 200);
    EXPECT_EQ(json["client"], "192.0.2.1:40000");
    EXPECT_EQ(json["server_process"]["comm"], "nginx");
    EXPECT_EQ(json["target"], "/\x01\"\\\xc3\xbf\xc3\xa9");
    EXPECT_EQ(json["latency_us"], 3000.0);
    EXPECT_EQ(json["duration_us"], 7000.0);
    EXPECT_EQ(json["time"], "2023-11-14T22:13:20.000000Z");
    EXPECT_EQ(json["request"]["headers"][0]["value"], "\r\nbad");
    EXPECT_EQ(json["response"]["body_bytes"], 20);
}

TEST(TraceRender, TellsWhatIsNotOver) {
    Transaction one = example();
    one.response = {};
    one.status = 0;
    one.host.clear();
    one.waiting = one.stalled = true;
    one.until = one.request.first_byte + 5 * second;
    Text text;
    append_json(text, one);
    const auto json = nlohmann::json::parse(text.string());
    EXPECT_TRUE(json["waiting"].get<bool>());
    EXPECT_TRUE(json["stalled"].get<bool>());
    EXPECT_EQ(json["duration_us"], 5e6);
    for (const char* key : {"host", "status", "reason", "latency_us"})
        EXPECT_TRUE(json[key].is_null()) << key;
    EXPECT_FALSE(json["guessed"].get<bool>());
    EXPECT_FALSE(json["closed"].get<bool>());
    text.clear();
    append_text(text, one);
    EXPECT_NE(text.find(" waits "), std::string::npos) << text;
    EXPECT_NE(text.find(" 5000.0ms "), std::string::npos) << text;
    Transaction guess = example();
    guess.guessed = true;
    text.clear();
    append_text(text, guess);
    EXPECT_NE(text.find(" 200? "), std::string::npos) << text;
}

/// A call of gRPC that failed.
Transaction failed_call() {
    Transaction one = example();
    one.stream = 7;
    one.request.http2 = one.response.http2 = true;
    one.grpc.emplace();
    one.grpc->status = 5;
    one.grpc->message = "no\x1bsuch";
    one.grpc->sent = 1;
    one.grpc->received.reset();
    one.grpc->deadline = second / 4;
    one.response.trailers = {{"grpc-status", "5"}};
    return one;
}

TEST(TraceRender, Http2HasMembersOfItsOwn) {
    Text text;
    append_json(text, failed_call());
    auto json = nlohmann::json::parse(text.string());
    EXPECT_EQ(json["stream"], 7);
    EXPECT_EQ(json["request"]["version"], "HTTP/2");
    EXPECT_EQ(json["response"]["trailers"][0]["name"], "grpc-status");
    EXPECT_EQ(json["grpc"], nlohmann::json::parse(R"({"status":5,"name":"NOT_FOUND",
        "message":"no\u001bsuch","messages_sent":1,"messages_received":null,"deadline_us":250000.0})"));
    EXPECT_TRUE(json["reset"].is_null());
    text.clear();
    append_text(text, failed_call());
    EXPECT_NE(text.find(" HTTP/2 grpc NOT_FOUND 1 sent, ? got: no\\x1bsuch\n"), std::string::npos)
        << text;
    EXPECT_NE(text.find("\n  < grpc-status: 5\n"), std::string::npos) << text;
    EXPECT_EQ(har_of(failed_call())["response"]["httpVersion"], "HTTP/2");

    Transaction gone = failed_call();
    gone.grpc.reset();
    gone.response = {};
    gone.status = 0;
    gone.reset = Reset{.by_server = true, .goaway = false, .code = 7};
    text.clear();
    append_json(text, gone);
    json = nlohmann::json::parse(text.string());
    EXPECT_EQ(json["reset"],
              nlohmann::json::parse(
                  R"({"by":"server","code":7,"name":"REFUSED_STREAM","goaway":false})"));
    EXPECT_TRUE(json["grpc"].is_null());
    text.clear();
    append_text(text, gone);
    EXPECT_NE(text.find(" reset "), std::string::npos) << text;
    EXPECT_NE(text.find(" HTTP/2 (reset by the server: REFUSED_STREAM)\n"), std::string::npos)
        << text;

    text.clear();
    append_json(text, example());
    json = nlohmann::json::parse(text.string());
    for (const char* key : {"stream", "reset", "grpc"})
        EXPECT_TRUE(json.contains(key) && json[key].is_null()) << key;
}

TEST(TraceRender, WhatCannotBeKnownIsNull) {
    Transaction one = failed_call();
    one.method.clear();
    one.target.clear();
    one.host.clear();
    one.status = 0;
    one.request.unknown_fields = 3;
    Text text;
    append_json(text, one);
    const auto json = nlohmann::json::parse(text.string());
    for (const char* key : {"method", "target", "host", "status"})
        EXPECT_TRUE(json[key].is_null()) << key;
    EXPECT_EQ(json["request"]["headers_unknown"], 3);
    text.clear();
    append_text(text, one);
    EXPECT_NE(text.find("  ? ? HTTP/2 grpc"), std::string::npos) << text;
}

TEST(TraceFilter, StatusesOfGrpc) {
    const auto matches = [](std::string_view list, const Transaction& one) {
        Filter filter;
        filter.grpc = *parse_grpc_statuses(list);
        return filter.matches(one);
    };
    Transaction ended = failed_call();
    EXPECT_TRUE(matches("5", ended));
    EXPECT_TRUE(matches("0,NOT_FOUND", ended));
    EXPECT_TRUE(matches("!0", ended));
    EXPECT_FALSE(matches("!0,5", ended));
    EXPECT_FALSE(matches("OK", ended));
    ended.grpc->status.reset();
    EXPECT_TRUE(matches("!0", ended));
    EXPECT_FALSE(matches("0", ended));
    EXPECT_FALSE(matches("!0", example()));
    for (const char* wrong : {"", "!", "ok", "5,", "-1", "NOT FOUND"})
        EXPECT_FALSE(parse_grpc_statuses(wrong)) << wrong;
}

TEST(TraceRender, UnixSocketsStandInThePlaceOfAddresses) {
    Transaction one = example();
    one.unix_path = "/run/a\x1b.sock";
    one.host = "a b";
    Text text;
    append_text(text, one);
    EXPECT_NE(text.find(" unix                  unix:/run/a\\x1b.sock "), std::string::npos)
        << text;
    text.clear();
    append_json(text, one);
    const auto json = nlohmann::json::parse(text.string());
    EXPECT_EQ(json["client"], "unix");
    EXPECT_EQ(json["server"], "unix:/run/a\x1b.sock");
    const auto entry = har_of(one);
    EXPECT_EQ(entry["request"]["url"], "http://localhost/a/b?x=1&y=%41+b");
    EXPECT_EQ(entry["_socket"], "unix:/run/a\x1b.sock");
    EXPECT_FALSE(entry.contains("serverIPAddress"));
}

TEST(TraceRender, TextObeysNoBytesOfOthers) {
    Transaction one = example();
    one.target = "/\x1b[2J\xc2\x9b\nGET";
    Text text;
    append_text(text, one);
    const std::string& line = text.string();
    for (const char c : line.substr(0, line.size() - 1))
        EXPECT_TRUE(static_cast<unsigned char>(c) >= 0x20) << line;
    EXPECT_NE(line.find("/\\x1b[2J\\xc2\\x9b\\x0aGET"), std::string::npos) << line;
}

TEST(TraceRender, HarHasWhatTheStandardAsksFor) {
    std::string text = har_begin("1", 0);
    append_har_entry(text, example());
    text += ",\n";
    Transaction unanswered = example();
    unanswered.response = {};
    unanswered.status = 0;
    append_har_entry(text, unanswered);
    const auto har = nlohmann::json::parse(text + har_end());
    EXPECT_EQ(har["log"]["version"], "1.2");
    ASSERT_EQ(har["log"]["entries"].size(), 2u);
    const auto& entry = har["log"]["entries"][0];
    for (const char* key : {"startedDateTime", "time", "request", "response", "cache", "timings"})
        EXPECT_TRUE(entry.contains(key)) << key;
    for (const char* key : {"method", "url", "httpVersion", "cookies", "headers", "queryString",
                            "headersSize", "bodySize"})
        EXPECT_TRUE(entry["request"].contains(key)) << key;
    for (const char* key : {"status", "statusText", "httpVersion", "cookies", "headers", "content",
                            "redirectURL", "headersSize", "bodySize"})
        EXPECT_TRUE(entry["response"].contains(key)) << key;
    EXPECT_EQ(entry["request"]["url"], "http://Example.ORG:8080/a/b?x=1&y=%41+b");
    EXPECT_EQ(entry["request"]["queryString"][1]["value"], "A b");
    EXPECT_EQ(entry["timings"]["send"], 1.0);
    EXPECT_EQ(entry["timings"]["wait"], 2.0);
    EXPECT_EQ(entry["timings"]["receive"], 4.0);
    EXPECT_EQ(entry["time"], 7.0);
    EXPECT_EQ(har["log"]["entries"][1]["response"]["bodySize"], -1);
}

TEST(TraceRender, HarTakesBodiesOfAnyBytes) {
    const auto content_of = [](std::string body) {
        Transaction one = example();
        one.response.body = std::move(body);
        one.response.wire_bytes = 0; // cut: only its head was complete
        std::string text = har_begin("1", 0);
        append_har_entry(text, one);
        const auto har = nlohmann::json::parse(text + har_end());
        EXPECT_EQ(har["log"]["entries"][0]["response"]["bodySize"], 0);
        return har["log"]["entries"][0]["response"]["content"];
    };
    EXPECT_EQ(content_of("p\xc3\xa4")["text"], "p\xc3\xa4");
    EXPECT_FALSE(content_of("plain").contains("encoding"));
    for (const auto& [bytes, encoded] : std::vector<std::pair<std::string, std::string>>{
             {"\x1f\x8b", "H4s="}, {"\x1f\x8b\x08", "H4sI"}, {"\xff", "/w=="}}) {
        EXPECT_EQ(content_of(bytes)["encoding"], "base64");
        EXPECT_EQ(content_of(bytes)["text"], encoded);
    }
}

TEST(TraceRender, HarTellsWhatIsMissingOfBodies) {
    Transaction one = example();
    one.request.body = "a=1&b=%32";
    one.request.body_bytes = one.request.body.size();
    one.request.content_type = "Application/x-www-form-urlencoded; charset=utf-8";
    one.response.body = std::string(20, 'x');
    auto entry = har_of(one);
    EXPECT_EQ(entry["request"]["postData"]["params"][1]["value"], "2");
    EXPECT_EQ(entry["request"]["postData"]["text"], "a=1&b=%32");
    EXPECT_FALSE(entry["request"]["postData"].contains("comment"));
    EXPECT_FALSE(entry["response"]["content"].contains("comment"));

    one.request.body = "a=1&b=%";
    one.response.end = MessageEnd::cut;
    one.response.body_bytes = 30;
    entry = har_of(one);
    EXPECT_TRUE(entry["request"]["postData"]["params"].empty());
    EXPECT_EQ(entry["request"]["postData"]["comment"], "7 of 9 bytes were kept");
    EXPECT_EQ(entry["response"]["content"]["comment"],
              "30 bytes were seen, and its end was not; 20 of 30 bytes were kept");

    one.request.content_type = "application/octet-stream";
    one.request.body = "\x89PNG";
    entry = har_of(one);
    EXPECT_EQ(entry["request"]["postData"]["_encoding"], "base64");
    EXPECT_EQ(entry["request"]["postData"]["text"], "iVBORw==");
}

TEST(TraceRender, HarHasUrls) {
    const auto url = [](const char* method, const char* host, const char* target) {
        Transaction one = example();
        one.method = method;
        one.host = host;
        one.target = target;
        return har_of(one)["request"]["url"].get<std::string>();
    };
    EXPECT_EQ(url("GET", "a b", "/x"), "http://192.0.2.2:80/x");
    EXPECT_EQ(url("GET", "a<script>", "/x\"\xff"), "http://192.0.2.2:80/x%22%FF");
    EXPECT_EQ(url("GET", "[2001:db8::1]:8080", "/%41?b=c#d"),
              "http://[2001:db8::1]:8080/%41?b=c#d");
    EXPECT_EQ(url("OPTIONS", "h", "*"), "http://h/*");
    EXPECT_EQ(url("CONNECT", "h", "example.org:443"), "http://example.org:443/");
    EXPECT_EQ(url("GET", "h", "http://i/j k"), "http://i/j%20k");
}

TEST(ContentCoding, UndoesWhatOthersDo) {
    const std::string text(300'000, 'a');
    std::string zlib(1000, '\0');
    uLongf size = zlib.size();
    ASSERT_EQ(compress(reinterpret_cast<Bytef*>(zlib.data()), &size,
                       reinterpret_cast<const Bytef*>(text.data()), text.size()),
              Z_OK);
    zlib.resize(size);
    std::string zstd(1000, '\0');
    zstd.resize(ZSTD_compress(zstd.data(), zstd.size(), text.data(), text.size(), 3));
    const std::string raw = zlib.substr(2, zlib.size() - 6);
    const auto gzip = [&] {
        std::string out("\x1f\x8b\x08\0\0\0\0\0\0\x03", 10);
        out += raw;
        const auto sum = static_cast<std::uint32_t>(
            crc32(0, reinterpret_cast<const Bytef*>(text.data()), text.size()));
        for (const auto word : {sum, static_cast<std::uint32_t>(text.size())})
            for (unsigned shift = 0; shift < 32; shift += 8)
                out += static_cast<char>(word >> shift & 0xff);
        return out;
    }();
    for (const auto& [coding, bytes] :
         std::vector<std::pair<std::string, std::string>>{{"gzip", gzip},
                                                          {"X-GZip", gzip},
                                                          {"deflate", zlib},
                                                          {"deflate", raw},
                                                          {"zstd", zstd}}) {
        const auto decoded = decode_content(coding, bytes);
        ASSERT_TRUE(decoded) << coding;
        EXPECT_TRUE(decoded->whole && decoded->bytes == text) << coding;
        // Cut, it is the beginning of the text, and not whole.
        const auto part = decode_content(coding, bytes.substr(0, bytes.size() - 9));
        ASSERT_TRUE(part) << coding;
        EXPECT_FALSE(part->whole) << coding;
        EXPECT_TRUE(text.starts_with(part->bytes)) << coding;
        // No more than the limit, whatever it stands for.
        const auto little = decode_content(coding, bytes, 1000);
        ASSERT_TRUE(little) << coding;
        EXPECT_TRUE(!little->whole && little->bytes == text.substr(0, 1000)) << coding;
        EXPECT_FALSE(decode_content(coding, "GET / HTTP/1.1")) << coding;
    }
    EXPECT_EQ(decode_content("gzip", gzip + gzip)->bytes, text + text);
    EXPECT_EQ(decode_content("gzip, identity ,zstd",
                             [&] {
                                 std::string out(1000, '\0');
                                 out.resize(ZSTD_compress(out.data(), out.size(), gzip.data(),
                                                          gzip.size(), 3));
                                 return out;
                             }())
                  ->bytes,
              text);
    const std::string brotli("\x1b\x03\x01\xf8\x1d\xa9\x53\x9f\xbb\x70\x2d\x56\x86\x26\x27\x41\xd8"
                             "\xe8\x92\x2d\xed\x2d\x06\x8c\x06\x8e\x65\xc6\x2f");
    std::string words;
    for (int i = 0; i < 20; ++i)
        words += "hello brotli ";
    EXPECT_EQ(decode_content("br", brotli)->bytes, words);
    EXPECT_FALSE(decode_content("br", brotli.substr(0, 20))->whole);
    EXPECT_FALSE(decode_content("compress", gzip));
    EXPECT_FALSE(decode_content("gzip,gzip,gzip,gzip,gzip", gzip));
    EXPECT_EQ(decode_content("", "as it is")->bytes, "as it is");

    Transaction one = example();
    one.response.content_encoding = "br";
    one.response.body = brotli;
    one.response.body_bytes = brotli.size();
    decode_bodies(one);
    const auto content = har_of(one)["response"]["content"];
    EXPECT_EQ(content["text"], words);
    EXPECT_EQ(content["size"], words.size());
    EXPECT_EQ(content["compression"], words.size() - brotli.size());
    EXPECT_FALSE(content.contains("encoding"));
}

TEST(TraceTop, QuantilesAreNear) {
    Durations durations;
    EXPECT_EQ(durations.quantile(0.5), 0u);
    for (std::uint64_t us = 1; us <= 10000; ++us)
        durations.add(us * 1000);
    for (const double part : {0.1, 0.5, 0.95, 0.99}) {
        const double got = static_cast<double>(durations.quantile(part)) / 1e3;
        EXPECT_GE(got, part * 10000 * 0.999) << part;
        EXPECT_LE(got, part * 10000 * 1.13) << part;
    }
    Durations extreme;
    extreme.add(~Time{0});
    EXPECT_GT(extreme.quantile(1), 0u);
}

TEST(TraceTop, RoutesLeaveIdentifiersOut) {
    EXPECT_EQ(route_of("/users/1234/posts?x=/9"), "/users/:id/posts");
    EXPECT_EQ(route_of("/o/123e4567-e89b-12d3-a456-426614174000/"), "/o/:id/");
    EXPECT_EQ(route_of("http://h/v1/face"), "/v1/face");
    EXPECT_EQ(route_of("*"), "*");
}

TEST(TraceTop, FitsTheTerminal) {
    RouteTable table;
    Transaction one = example();
    for (int i = 0; i < 50; ++i) {
        one.target = "/" + std::string(1, static_cast<char>('a' + i % 26)) + std::string(200, 'x');
        one.status = i % 2 ? 200 : 500;
        table.add(one);
    }
    for (const auto& [columns, rows] : {std::pair{80u, 24u}, {64u, 4u}, {200u, 100u}, {10u, 3u}}) {
        const auto lines = table.render(columns, rows, TopOrder::errors, 5, "title");
        for (const Text& line : lines)
            EXPECT_LE(netctl::columns(line.string()), columns);
        EXPECT_LE(lines.size(), rows);
    }
}

// ---- records of the kernel ----

struct Calls {
    ParserOptions options{.keep_fields = false, .body_limit = 0};
    ParserCounters parser;
    CallCounters counters;
    std::vector<Transaction> told;
    std::unique_ptr<CallTracer> tracer;
    std::uint64_t time = 1'000'000;
    std::map<std::uint64_t, std::array<std::uint64_t, 2>>
        ends; ///< of what was told of each connection

    explicit Calls(bool both_sides = false)
        : tracer(std::make_unique<CallTracer>(
              options, parser, counters, both_sides,
              [this](Transaction& transaction) { told.push_back(transaction); })) {}

    nc_http_record head(std::uint8_t kind, std::uint64_t cookie, std::uint8_t direction) {
        nc_http_record record{};
        record.kind = kind;
        record.direction = direction;
        record.pid = 10;
        record.time_ns = time += 1000;
        record.cookie = cookie;
        return record;
    }
    Calls& open(std::uint64_t cookie, std::uint16_t local, std::uint16_t remote,
                bool skipped = false, std::uint32_t pid = 10) {
        nc_http_open event{};
        event.record = head(NC_HTTP_OPEN, cookie, 0);
        event.record.pid = pid;
        event.record.flags = skipped ? NC_HTTP_SKIPPED : 0;
        event.family = 4;
        event.local[0] = event.remote[0] = 127;
        event.local[3] = event.remote[3] = 1;
        event.local_port = local;
        event.remote_port = remote;
        std::memcpy(event.comm, "prog", 4);
        tracer->record(std::as_bytes(std::span(&event, 1)), 0);
        return *this;
    }
    /// An end of a connection between hosts 1 and 2, at that position.
    Calls& open_in(std::uint32_t netns, std::uint64_t cookie, unsigned host, std::uint64_t position,
                   std::uint32_t pid) {
        nc_http_open event{};
        event.record = head(NC_HTTP_OPEN, cookie, 0);
        event.record.pid = pid;
        event.family = 4;
        event.netns = netns;
        event.local[0] = event.remote[0] = 10;
        event.local[3] = static_cast<std::uint8_t>(host);
        event.remote[3] = static_cast<std::uint8_t>(3 - host);
        event.local_port = host == 1 ? 5000 : 80;
        event.remote_port = host == 1 ? 80 : 5000;
        event.begin[0] = event.begin[1] = position;
        ends[cookie] = {position, position};
        tracer->record(std::as_bytes(std::span(&event, 1)), 0);
        return *this;
    }
    Calls& data(std::uint64_t cookie, std::uint8_t direction, std::uint64_t position,
                std::string_view bytes, std::uint32_t length = 0,
                std::optional<std::uint64_t> answered = {}) {
        nc_http_record record = head(NC_HTTP_DATA, cookie, direction);
        record.position = position;
        // By itself: all that was told of the other direction.
        record.answered = answered.value_or(ends[cookie][1 - direction]);
        record.captured = static_cast<std::uint32_t>(bytes.size());
        record.length = length ? length : record.captured;
        ends[cookie][direction] = position + record.length;
        std::string raw(reinterpret_cast<const char*>(&record), sizeof record);
        raw += bytes;
        tracer->record(std::as_bytes(std::span(raw.data(), raw.size())), 0);
        return *this;
    }
    Calls& event(std::uint8_t kind, std::uint64_t cookie, std::uint8_t direction) {
        const nc_http_record record = head(kind, cookie, direction);
        tracer->record(std::as_bytes(std::span(&record, 1)), 0);
        return *this;
    }
};

constexpr std::uint8_t sent = NC_HTTP_SENT, received = NC_HTTP_RECEIVED;
const std::string ask = "GET /r HTTP/1.1\r\n\r\n";
const std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";

TEST(CallTracer, OneTransactionOfTwoSides) {
    for (const bool both : {false, true}) {
        Calls calls(both);
        calls.open(1, 5000, 80, false, 11).data(1, sent, 0, ask);
        calls.open(2, 80, 5000, false, 22).data(2, received, 0, ask);
        calls.data(2, sent, 0, answer, static_cast<std::uint32_t>(answer.size()) + 1000);
        calls.data(1, received, 0, answer).data(1, received, answer.size(), "", 1000);
        ASSERT_EQ(calls.told.size(), both ? 2u : 1u);
        EXPECT_EQ(calls.counters.mirrored, both ? 0u : 1u);
        for (const Transaction& one : calls.told) {
            EXPECT_EQ(one.client.to_string(), "127.0.0.1:5000");
            EXPECT_EQ(one.server.to_string(), "127.0.0.1:80");
            EXPECT_EQ(one.client_process.pid, 11u);
            EXPECT_EQ(one.server_process.pid, 22u);
            EXPECT_EQ(one.response.body_bytes, 1000u);
        }
        EXPECT_FALSE(calls.told[0].client_view);
    }
}

TEST(CallTracer, WhatBothSidesTellIsCountedOnce) {
    Calls calls;
    calls.open(1, 5000, 80, false, 11).data(1, sent, 0, ask);
    calls.open(2, 80, 5000, false, 22).data(2, received, 0, ask);
    calls.event(NC_HTTP_CLOSE, 2, sent).event(NC_HTTP_CLOSE, 1, sent);
    EXPECT_EQ(calls.told.size(), 1u);
    EXPECT_EQ(calls.parser.unanswered, 1u);
}

TEST(CallTracer, SocketsOfOtherNamespacesAreTheOtherEndIfTcpNumbersAgree) {
    const std::string done = "HTTP/1.1 204 X\r\n\r\n";
    const auto exchange = [&](Calls& calls, std::uint64_t client, std::uint64_t server,
                              std::uint64_t position) {
        calls.data(client, sent, position, ask).data(server, received, position, ask);
        calls.data(server, sent, position, done).data(client, received, position, done);
    };
    const std::uint64_t real = (1ull << 32) + 4'000'000'000, forged = (1ull << 32) + 77;
    // Somebody's sockets with the very same addresses, told of before and after the real ones.
    for (const bool before : {true, false}) {
        Calls calls;
        if (before) {
            calls.open_in(9, 90, 1, forged, 66).open_in(9, 91, 2, forged, 66);
            exchange(calls, 90, 91, forged);
        }
        calls.open_in(1, 1, 1, real, 11);
        if (!before) {
            calls.open_in(9, 90, 1, forged, 66).open_in(9, 91, 2, forged, 66);
            exchange(calls, 90, 91, forged);
        }
        ASSERT_EQ(calls.told.size(), 1u);
        // The server is on another host: the client's side is all that there is.
        calls.data(1, sent, real, ask).data(1, received, real, done);
        ASSERT_EQ(calls.told.size(), 2u) << before;
        EXPECT_EQ(calls.told[1].client_process.pid, 11u);
        EXPECT_EQ(calls.told[1].server_process.pid, 0u);
    }
    // Both ends of the real one: told once, with both processes, whoever else has these addresses.
    Calls calls;
    calls.open_in(9, 90, 1, forged, 66).open_in(9, 91, 2, forged, 66);
    calls.open_in(1, 1, 1, real, 11).open_in(2, 2, 2, real, 22);
    exchange(calls, 90, 91, forged);
    exchange(calls, 1, 2, real);
    // The second request goes further than what the other side tells: the two are one by the first.
    calls.data(1, sent, real + ask.size(), ask).data(1, received, real + done.size(), done);
    ASSERT_EQ(calls.told.size(), 2u);
    EXPECT_EQ(calls.told[1].client_process.pid, 11u);
    EXPECT_EQ(calls.told[1].server_process.pid, 22u);
    EXPECT_EQ(calls.counters.mirrored, 3u);
    EXPECT_EQ(calls.counters.missing_bytes, 0u);
}

/// A stream of a TLS library: on the addresses of `open_in`, at numbers that TCP gave its ends' first bytes, or
/// without a socket.
void open_stream(Calls& calls, std::uint64_t number, std::optional<unsigned> host,
                 std::uint32_t netns, std::uint32_t first_of_client, std::uint16_t flags = 0) {
    nc_http_open event{};
    event.record = calls.head(NC_HTTP_OPEN, NC_HTTP_STREAM | number, 0);
    event.record.flags = NC_HTTP_TLS | flags;
    event.record.pid = static_cast<__u32>(number);
    event.netns = netns;
    if (host) {
        event.family = 4;
        event.local[0] = event.remote[0] = 10;
        event.local[3] = static_cast<std::uint8_t>(*host);
        event.remote[3] = static_cast<std::uint8_t>(3 - *host);
        event.local_port = *host == 1 ? 5000 : 443;
        event.remote_port = *host == 1 ? 443 : 5000;
        (*host == 1 ? event.origin_sent : event.origin_received) = first_of_client;
        (*host == 1 ? event.origin_received : event.origin_sent) = 77;
    }
    calls.tracer->record(std::as_bytes(std::span(&event, 1)), 0);
}

TEST(CallTracer, StreamsOfTlsHaveTheirSocketsAddresses) {
    constexpr std::uint64_t server = NC_HTTP_STREAM | 2, client = NC_HTTP_STREAM | 1;
    const std::string whole = answer + std::string(1000, 'x');
    struct Case {
        std::uint32_t server_netns,
            server_first; ///< of the client's bytes, as the server's end knows it
        std::size_t told;
    };
    // Plaintext has the same positions in each connection, so these do not tell which are the same.
    for (const Case& one : {Case{7, 1000, 1}, {8, 1001, 1}, {8, 5000, 2}}) {
        Calls calls;
        // The server's bytes come before its socket is known.
        open_stream(calls, 1, 1, 7, 1000);
        calls.data(client, sent, 0, ask);
        open_stream(calls, 2, {}, one.server_netns, 0);
        calls.data(server, received, 0, ask);
        open_stream(calls, 2, 2, one.server_netns, one.server_first);
        calls.data(server, sent, 0, whole).data(client, received, 0, whole);
        ASSERT_EQ(calls.told.size(), one.told) << one.server_netns << " " << one.server_first;
        EXPECT_TRUE(calls.told[0].tls);
        EXPECT_TRUE(calls.told[0].placed);
        EXPECT_EQ(calls.told[0].server_name(), "10.0.0.2:443");
        EXPECT_EQ(calls.told[0].server_process.pid, 2u);
        EXPECT_EQ(calls.told[0].client_process.pid, one.told == 1 ? 1u : 0u);
    }
}

TEST(CallTracer, StreamsOfTlsAreNotTheOtherEndOfPlainConnections) {
    Calls calls;
    calls.open_in(7, 1, 1, 0, 11); // the client's, before it asked for TLS
    open_stream(calls, 2, 2, 7, 0);
    calls.data(1, sent, 0, ask).data(NC_HTTP_STREAM | 2, received, 0, ask);
    calls.data(NC_HTTP_STREAM | 2, sent, 0, answer + std::string(1000, 'x'));
    ASSERT_EQ(calls.told.size(), 1u);
    EXPECT_EQ(calls.told[0].client_process.pid, 0u);
}

TEST(CallTracer, StreamsOfTlsWithoutASocket) {
    const std::string whole = answer + std::string(1000, 'x');
    constexpr std::uint64_t stream = NC_HTTP_STREAM | 2;
    Calls calls;
    open_stream(calls, 2, {}, 7, 0);
    calls.data(stream, received, 0, ask).data(stream, sent, 0, whole);
    ASSERT_EQ(calls.told.size(), 1u);
    EXPECT_FALSE(calls.told[0].placed);
    EXPECT_EQ(calls.counters.unplaced, 1u);
    // Not to be told of before its port is known; and it is not one of those that are selected.
    Calls held;
    open_stream(held, 2, {}, 7, 0, NC_HTTP_UNPLACED);
    held.data(stream, received, 0, ask)
        .data(stream, sent, 0, whole)
        .data(stream, received, 100, ask);
    nc_http_record forget = held.head(NC_HTTP_CLOSE, stream, 0);
    forget.flags = NC_HTTP_FORGET;
    held.tracer->record(std::as_bytes(std::span(&forget, 1)), 0);
    held.tracer->finish(held.time);
    EXPECT_TRUE(held.told.empty());
    EXPECT_EQ(held.counters.unplaced, 0u);
}

TEST(CallTracer, TlsThatNobodyDecodesIsCounted) {
    SealedConnections sealed([](std::uint32_t pid) { return pid == 2 ? "GnuTLS" : "Go"; });
    std::vector<std::uint64_t> skipped;
    Calls calls;
    calls.tracer->take_tls(sealed, [&](std::uint64_t stream, const std::uint64_t(&until)[2]) {
        EXPECT_EQ(stream, NC_HTTP_STREAM | 9);
        skipped = {until[0], until[1]};
    });
    const auto tell = [&](std::uint32_t pid, std::uint16_t local, std::uint16_t remote) {
        nc_http_open event{};
        event.record = calls.head(NC_HTTP_SEALED, 0, 0);
        event.record.pid = pid;
        event.family = 4;
        event.local[0] = event.remote[0] = 10;
        event.local[3] = local == 443 ? 2 : 1;
        event.remote[3] = local == 443 ? 1 : 2;
        event.local_port = local;
        event.remote_port = remote;
        std::memcpy(event.comm, "\033app", 4);
        calls.tracer->record(std::as_bytes(std::span(&event, 1)), 0);
    };
    tell(2, 443, 5000);
    tell(3, 5000, 443); // the other end of the same
    tell(2, 443, 5001);
    tell(4, 5002, 443);
    EXPECT_EQ(sealed.count(), 3u);
    EXPECT_EQ(sealed.told(1), "\\x1bapp 2: GnuTLS; and others");
    // The end that is decoded counts for both, whichever is told of first.
    open_stream(calls, 9, 1, 7, 0);
    EXPECT_EQ(sealed.count(), 2u);
    tell(2, 443, 5000);
    EXPECT_EQ(sealed.count(), 2u);
    // What comes of a long body is not wanted any more, nor what is no HTTP at all.
    constexpr std::uint64_t stream = NC_HTTP_STREAM | 9;
    calls.data(stream, sent, 1000, ask);
    const std::string head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    calls.data(stream, received, 2000, head);
    EXPECT_EQ(skipped, (std::vector<std::uint64_t>{0, 2000 + head.size() + 1'000'000}));
}

TEST(CallTracer, WhatIsLostBehindTheBeginningIsMissing) {
    Calls calls;
    const std::uint64_t begin = (1ull << 32) + 4'294'967'290; // wraps within the request
    calls.open_in(1, 1, 2, begin, 11);
    calls.data(1, received, begin + 100, ask).data(1, sent, begin, answer);
    EXPECT_EQ(calls.counters.missing_bytes, 100u);
}

TEST(CallTracer, UnixSocketsAreJoinedByCookies) {
    const auto open = [](Calls& calls, std::uint64_t cookie, std::uint64_t peer, std::string path,
                         std::uint32_t pid) {
        nc_http_open event{};
        event.record = calls.head(NC_HTTP_OPEN, cookie, 0);
        event.record.pid = pid;
        event.family = NC_HTTP_UNIX;
        event.peer = peer;
        event.path_length = static_cast<__u16>(path.size());
        std::copy(path.begin(), path.end(), event.path);
        calls.tracer->record(std::as_bytes(std::span(&event, 1)), 0);
    };
    const std::string until_end = "HTTP/1.0 200 OK\r\n\r\nbody";
    for (const auto& [path, name] : std::vector<std::pair<std::string, std::string>>{
             {std::string("/run/x\0", 7), "unix:/run/x"},
             {std::string("\0abs\0t", 6), std::string("unix:@abs\0t", 11)},
             {"", "unix:"}}) {
        // The client's socket is told of first, when the server's has no cookie yet; and a second pair.
        Calls calls;
        open(calls, 1, 0, path, 11);
        open(calls, 2, 1, path, 22);
        open(calls, 3, 4, path, 33);
        calls.data(1, sent, 0, ask).data(2, received, 0, ask).data(2, sent, 0, until_end);
        calls.data(1, received, 0, until_end);
        EXPECT_TRUE(calls.told.empty());
        calls.event(NC_HTTP_END, 2, sent).event(NC_HTTP_END, 1, received);
        ASSERT_EQ(calls.told.size(), 1u) << name;
        EXPECT_EQ(calls.told[0].client_name(), "unix");
        EXPECT_EQ(calls.told[0].server_name(), name);
        EXPECT_EQ(calls.told[0].client_process.pid, 11u);
        EXPECT_EQ(calls.told[0].server_process.pid, 22u);
        EXPECT_EQ(calls.told[0].response.body_bytes, 4u);
        EXPECT_EQ(calls.counters.mirrored, 1u);
        // Who has only seen one end of it is forgotten a while after that.
        calls.event(NC_HTTP_END, 2, received);
        calls.time += 20 * second;
        calls.tracer->tick(calls.time);
        EXPECT_EQ(calls.tracer->connections(), 2u);
        calls.time += 60 * second;
        calls.tracer->tick(calls.time);
        calls.time += 20 * second;
        calls.tracer->tick(calls.time);
        EXPECT_EQ(calls.tracer->connections(), 1u) << name;
        EXPECT_EQ(calls.counters.evicted, 0u);
    }
}

TEST(CallTracer, RecordsOfAnAnswerAndTheNextRequestLost) {
    Calls calls;
    const auto size = static_cast<std::uint32_t>(ask.size());
    const std::string done = "HTTP/1.1 204 X\r\n\r\n";
    calls.open(2, 80, 5000).data(2, received, 0, ask, 0, 0);
    // The answer, and another request, were lost.
    calls.data(2, sent, done.size(), done, 0, 2 * size);
    calls.data(2, received, 2 * size, ask, 0, 2 * done.size());
    calls.data(2, sent, 2 * done.size(), done, 0, 3 * size);
    ASSERT_EQ(calls.told.size(), 3u);
    EXPECT_FALSE(calls.told[0].response.seen);
    EXPECT_FALSE(calls.told[1].request.seen);
    EXPECT_TRUE(calls.told[2].request.seen && calls.told[2].response.seen);
}

TEST(CallTracer, LostRecordsAreHoles) {
    Calls calls;
    calls.open(2, 80, 5000).data(2, received, 0, ask);
    calls.data(2, sent, 0, answer);
    calls.data(2, sent, answer.size() + 900, "", 100); // 900 bytes before these were lost
    ASSERT_EQ(calls.told.size(), 1u);
    EXPECT_EQ(calls.told[0].response.body_bytes, 1000u);
    EXPECT_EQ(calls.counters.missing_bytes, 900u);
    EXPECT_EQ(calls.parser.holes, 0u);
}

TEST(CallTracer, EndsAndReuse) {
    Calls calls;
    calls.open(2, 80, 5000)
        .data(2, received, 0, ask)
        .data(2, sent, 0, "HTTP/1.0 200 OK\r\n\r\nbody");
    EXPECT_TRUE(calls.told.empty());
    calls.event(NC_HTTP_END, 2, sent);
    ASSERT_EQ(calls.told.size(), 1u);
    EXPECT_EQ(calls.told[0].response.body_bytes, 4u);
    calls.event(NC_HTTP_CLOSE, 2, sent);
    calls.time += 10'000'000'000;
    calls.open(3, 80, 5000);
    EXPECT_EQ(calls.tracer->connections(), 1u);
}

TEST(CallTracer, RefusesDamagedRecords) {
    Calls calls;
    nc_http_record record{};
    record.kind = NC_HTTP_DATA;
    record.captured = record.length = 100;
    calls.tracer->record(std::as_bytes(std::span(&record, 1)), 0);
    calls.tracer->record({}, 0);
    record.kind = 77;
    record.captured = 0;
    calls.tracer->record(std::as_bytes(std::span(&record, 1)), 0);
    EXPECT_EQ(calls.counters.damaged, 3u);
}

TEST(Pace, LooksTheSoonerTheMoreThereIs) {
    using std::chrono::milliseconds;
    Pace pace;
    EXPECT_EQ(pace.after(0), Pace::longest);
    EXPECT_EQ(pace.after(Pace::portion), Pace::longest);
    EXPECT_EQ(pace.after(4 * Pace::portion), Pace::longest / 4);
    // As many come as before: the next look finds a portion, and the rest stays.
    EXPECT_EQ(pace.after(Pace::portion), Pace::longest / 4);
    EXPECT_EQ(pace.after(1'000'000), Pace::shortest);
    // Half of what it was worth: twice as long, and nothing at all as long as ever.
    EXPECT_EQ(pace.after(Pace::portion / 2), 2 * Pace::shortest);
    EXPECT_EQ(pace.after(0), Pace::longest);
}

} // namespace
} // namespace netctl::trace
