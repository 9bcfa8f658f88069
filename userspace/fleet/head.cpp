// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/head.hpp"

#include <algorithm>
#include <ctime>
#include <set>

#include <fmt/format.h>

#include "core/json.hpp"
#include "fleet/bytes.hpp"

namespace netctl::fleet {

namespace {

constexpr std::size_t most_signatures = 16;

Error no_head(const char* what) {
    return Error::failed(Text::format("this is no head of a fleet: {}", what));
}

} // namespace

std::string second_text(std::int64_t seconds) {
    const std::time_t time = seconds;
    std::tm parts{};
    gmtime_r(&time, &parts);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", parts.tm_year + 1900,
                       parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

Result<std::int64_t> parse_second(const std::string& text) {
    std::tm parts{};
    const char* end = strptime(text.c_str(), "%Y-%m-%dT%H:%M:%SZ", &parts);
    const std::int64_t seconds = end != nullptr ? timegm(&parts) : 0;
    if (end == nullptr || *end != '\0' || second_text(seconds) != text)
        return Error::failed(Text::format("'{}' is no time", text), "2026-11-30T11:00:00Z");
    return seconds;
}

Json head_json(const Head& head) {
    return {{"fleet", head.fleet},
            {"release", head.release},
            {"sha256", head.sha256},
            {"size", head.size},
            {"published", second_text(head.published)},
            {"not_after", head.not_after != 0 ? Json(second_text(head.not_after)) : Json()},
            {"at_once", head.at_once}};
}

std::string head_message(const Head& head) {
    return head_json(head).dump() + "\n";
}

Result<Head> parse_head_message(std::string_view message) {
    const Json json = Json::parse(message, nullptr, false);
    if (!json.is_object())
        return no_head("no JSON object");
    const auto is = [&](const char* name, auto of_type) {
        const auto found = json.find(name);
        return found != json.end() && ((*found).*of_type)();
    };
    if (!is("fleet", &Json::is_string) || !is("sha256", &Json::is_string) ||
        !is("release", &Json::is_number_unsigned) || !is("size", &Json::is_number_unsigned) ||
        !is("published", &Json::is_string) || !is("at_once", &Json::is_boolean) ||
        !(is("not_after", &Json::is_string) || is("not_after", &Json::is_null)))
        return no_head("a member is missing or of another type");
    Head head;
    head.fleet = json["fleet"].get<std::string>();
    head.release = json["release"].get<std::uint64_t>();
    head.sha256 = json["sha256"].get<std::string>();
    head.size = json["size"].get<std::uint64_t>();
    head.published = NETCTL_TRY(parse_second(json["published"].get<std::string>()));
    if (json["not_after"].is_string())
        head.not_after = NETCTL_TRY(parse_second(json["not_after"].get<std::string>()));
    head.at_once = json["at_once"].get<bool>();
    if (head.release == 0 || head.release > std::uint64_t{1} << 53)
        return no_head("its release is no number from 1 to 2^53");
    if (!is_sha256_text(head.sha256))
        return no_head("its sha256 is none");
    if (head.size > most_body_bytes)
        return no_head("its body is larger than 4 MiB");
    return head;
}

Result<Envelope> parse_envelope(std::string_view file) {
    if (file.size() > most_head_bytes)
        return no_head("it is larger than 16 KiB");
    Envelope envelope;
    while (file.starts_with("untrusted comment: ")) {
        const std::size_t first = file.find('\n');
        const std::size_t second =
            first == std::string_view::npos ? first : file.find('\n', first + 1);
        if (second == std::string_view::npos)
            return no_head("a signature is cut");
        auto signature = from_base64(file.substr(first + 1, second - first - 1));
        if (!signature || signature->size() != 74)
            return no_head("a signature is none");
        envelope.signatures.push_back(std::move(*signature));
        if (envelope.signatures.size() > most_signatures)
            return no_head("it has more than 16 signatures");
        file.remove_prefix(second + 1);
    }
    if (envelope.signatures.empty())
        return no_head("it is not signed");
    envelope.message = file;
    return envelope;
}

std::vector<std::string> signers(const Envelope& envelope, const std::vector<PublicKey>& keys) {
    std::vector<std::string> names;
    std::set<std::string> counted;
    for (const PublicKey& key : keys) {
        const bool has_signed = std::ranges::any_of(envelope.signatures, [&](const auto& one) {
            return verifies(key, one, envelope.message);
        });
        if (has_signed && counted.insert(key.key).second)
            names.push_back(key.name);
    }
    return names;
}

Result<Head> open_head(std::string_view file, const std::vector<PublicKey>& keys,
                       unsigned threshold) {
    const Envelope envelope = NETCTL_TRY(parse_envelope(file));
    const std::size_t count = signers(envelope, keys).size();
    if (count < std::max(threshold, 1U))
        return Error::failed(Text::format(
            "the head is signed by {} of the {} keys that are trusted here; {} have to", count,
            keys.size(), std::max(threshold, 1U)));
    return parse_head_message(envelope.message);
}

} // namespace netctl::fleet
