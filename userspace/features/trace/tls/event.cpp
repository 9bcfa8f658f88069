// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/tls/event.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "features/trace/container.hpp"
#include "features/trace/line_text.hpp"
#include "features/trace/tls/names.hpp"
#include "sys/clock.hpp"

namespace netctl::trace::tls {

namespace {

const char* protocol_name(Undecoded::Protocol protocol) {
    return protocol == Undecoded::Protocol::dtls ? "DTLS" : "QUIC";
}

const char* result_name(Outcome result) {
    switch (result) {
    case Outcome::done: return "done";
    case Outcome::alert: return "alert";
    case Outcome::closed: return "closed";
    case Outcome::unfinished: break;
    }
    return "unfinished";
}

const char* side_name(bool client) {
    return client ? "client" : "server";
}

/// `ok`, `ok resumed`, `client: unknown_ca`, `closed by server`.
std::string result_text(const Handshake& handshake) {
    std::string text;
    switch (handshake.result) {
    case Outcome::done: text = handshake.resumed.value_or(false) ? "ok resumed" : "ok"; break;
    case Outcome::alert:
        text = fmt::format("{}: {}", side_name(handshake.alert->by_client),
                           handshake.alert->description ? alert_name(*handshake.alert->description)
                                                        : std::string("an encrypted alert"));
        break;
    case Outcome::closed:
        text = handshake.closed_by_client
                   ? fmt::format("closed by {}", side_name(*handshake.closed_by_client))
                   : std::string("closed");
        break;
    case Outcome::unfinished: text = handshake.missing ? "bytes are missing" : "unfinished"; break;
    }
    if (handshake.retried)
        text += ", second hello";
    return text;
}

/// What was agreed upon, or `?` and what was offered.
std::string protocol_text(const Handshake& handshake) {
    if (!handshake.protocol.empty())
        return handshake.protocol;
    if (handshake.offered.empty() || (handshake.answered && handshake.version < 0x0304))
        return "-";
    return fmt::format("?{}", fmt::join(handshake.offered, ","));
}

Text row(const Text& time, const Text& process, const Text& client, const Text& server,
         const Text& took, const Text& version, const Text& cipher, const Text& name,
         const Text& protocol, const Text& result) {
    const Text blank = Text::format(" ");
    return padded(time, 15) + blank + padded(process, 18) + blank + padded(client, 21) + blank +
           padded(server, 21) + blank + padded(took, 10) + blank + padded(version, 8) + blank +
           padded(cipher, 30) + blank + padded(name, 20) + blank + padded(protocol, 12) + blank +
           result + Text::format("\n");
}

Json process_json(const Process& process) {
    if (process.pid == 0)
        return {};
    return {{"pid", process.pid}, {"comm", process.name}};
}

Json container_json(const Process& process) {
    if (!process.container)
        return {};
    const Container& container = *process.container;
    const auto known = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
    return {{"runtime", container.runtime},
            {"id", known(container.id)},
            {"name", known(container.name)},
            {"image", known(container.image)}};
}

Json end_json(const Endpoint& end) {
    return {{"address", end.address.to_string()},
            {"port", end.port != 0 ? Json(end.port) : Json()}};
}

template <class T> Json or_null(const std::optional<T>& value) {
    return value ? Json(*value) : Json();
}

} // namespace

void Undecoded::add(Protocol protocol, const Endpoint& one, const Endpoint& other,
                    const Process& process) {
    if (known_.size() >= limit)
        known_.clear();
    if (known_.insert(one < other ? std::pair(one, other) : std::pair(other, one)).second)
        ++counts_[protocol][process.name];
}

std::uint64_t Undecoded::count(Protocol protocol) const {
    std::uint64_t sum = 0;
    if (const auto found = counts_.find(protocol); found != counts_.end())
        for (const auto& [name, count] : found->second)
            sum += count;
    return sum;
}

std::string Undecoded::text() const {
    std::string text;
    for (const auto& [protocol, names] : counts_) {
        text += fmt::format("{}{} of {}", text.empty() ? "" : ", ", count(protocol),
                            protocol_name(protocol));
        std::string whose;
        for (const auto& [name, count] : names)
            if (!name.empty())
                whose += fmt::format("{}{} {}", whose.empty() ? "" : ", ", shown(name), count);
        if (!whose.empty())
            text += fmt::format(" ({})", whose);
    }
    return text;
}

Json Undecoded::json() const {
    Json json{{"dtls", Json::array()}, {"quic", Json::array()}};
    for (const auto& [protocol, names] : counts_)
        for (const auto& [name, count] : names)
            json[protocol == Protocol::dtls ? "dtls" : "quic"].push_back(
                {{"comm", name.empty() ? Json() : Json(name)}, {"connections", count}});
    return json;
}

Text header() {
    return row(Text("TIME"), Text("PROCESS"), Text("CLIENT"), Text("SERVER"), Text("TOOK"),
               Text("VERSION"), Text("CIPHER"), Text("NAME"), Text("PROTOCOL"), Text("RESULT"));
}

void append_text(Text& out, const Event& event) {
    const Handshake& handshake = event.handshake;
    const std::string version = handshake.answered ? version_name(handshake.version)
                                                   : "?" + version_name(handshake.offered_version);
    out += row(Text(time_of_day(handshake.began)), process_text(event.process),
               Text(event.client.to_string()), Text(event.server.to_string()),
               Text(took_text(handshake.ended - handshake.began)), Text(version),
               Text(handshake.answered ? cipher_name(handshake.cipher) : std::string("-")),
               Text(handshake.server_name.empty() ? std::string("-") : handshake.server_name),
               Text(protocol_text(handshake)), Text(result_text(handshake)));
}

void append_json(Text& out, const Event& event) {
    const Handshake& handshake = event.handshake;
    Json json{{"event", "handshake"}, {"time", sys::iso_time(handshake.began)}};
    json["role"] = event.by_server ? Json(side_name(!*event.by_server)) : Json();
    json["process"] = process_json(event.process);
    json["cgroup"] = or_null(event.cgroup);
    json["container"] = container_json(event.process);
    json["netns"] = or_null(event.netns);
    json["cookie"] = or_null(event.cookie);
    json["client"] = end_json(event.client);
    json["server"] = end_json(event.server);
    json["result"] = result_name(handshake.result);
    json["duration_us"] = (handshake.ended - handshake.began) / 1000;
    json["version"] = handshake.answered ? Json(version_name(handshake.version)) : Json();
    json["offered_version"] = version_name(handshake.offered_version);
    json["cipher"] = handshake.answered ? Json(cipher_name(handshake.cipher)) : Json();
    json["server_name"] = handshake.server_name.empty() ? Json() : Json(handshake.server_name);
    json["alpn"] = handshake.protocol.empty() ? Json() : Json(handshake.protocol);
    json["alpn_offered"] = handshake.offered;
    json["resumed"] = or_null(handshake.resumed);
    json["hello_retried"] = handshake.retried;
    json["early_data_offered"] = handshake.early_data;
    json["bytes_missing"] = handshake.missing;
    json["alert"] = nullptr;
    if (const auto& alert = handshake.alert)
        json["alert"] =
            Json{{"by", side_name(alert->by_client)},
                 {"code", alert->description ? Json(*alert->description) : Json()},
                 {"name", alert->description ? Json(alert_name(*alert->description)) : Json()}};
    json["closed_by"] =
        handshake.closed_by_client ? Json(side_name(*handshake.closed_by_client)) : Json();
    // A name may be of any bytes.
    out += Text::format("{}\n", json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

} // namespace netctl::trace::tls
