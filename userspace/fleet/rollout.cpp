// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/rollout.hpp"

#include <algorithm>
#include <charconv>
#include <set>

#include <fmt/format.h>

#include "core/json.hpp"
#include "fleet/bytes.hpp"
#include "fleet/head.hpp"

namespace netctl::fleet {

namespace {

constexpr unsigned all_parts = 10000;

/// From 0 to 9,999; as good as random, and the same wherever it is asked.
unsigned slot_of(const std::string& host, std::uint64_t release) {
    const std::string digest = sha256(fmt::format("{}\n{}", release, host));
    std::uint64_t number = 0;
    for (std::size_t i = 0; i < 8; i++)
        number = number << 8 | static_cast<unsigned char>(digest[i]);
    return static_cast<unsigned>(number % all_parts);
}

bool is_label_word(std::string_view word) {
    return !word.empty() && word.size() <= 63 &&
           word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "._/-") == std::string_view::npos;
}

} // namespace

std::string LabelTerm::to_string() const {
    return fmt::format("{}{}={}", negated ? "not " : "", key, value);
}

bool LabelTerm::holds(const Labels& labels) const {
    const auto found = labels.find(key);
    return (found != labels.end() && found->second == value) != negated;
}

Result<LabelTerm> parse_label_term(std::string_view text) {
    LabelTerm term;
    std::string_view rest = text;
    if (rest.starts_with("not ")) {
        term.negated = true;
        rest.remove_prefix(4);
    }
    const std::size_t equals = rest.find('=');
    if (equals == std::string_view::npos || !is_label_word(rest.substr(0, equals)) ||
        !is_label_word(rest.substr(equals + 1)))
        return Error::usage(Text::format("'{}' is no label", text),
                            "KEY=VALUE or `not KEY=VALUE`, of letters, digits and ._/-");
    term.key = rest.substr(0, equals);
    term.value = rest.substr(equals + 1);
    return term;
}

Result<Labels> parse_labels(std::string_view text) {
    Labels labels;
    while (!text.empty()) {
        const std::size_t comma = std::min(text.find(','), text.size());
        const LabelTerm term = NETCTL_TRY(parse_label_term(text.substr(0, comma)));
        if (term.negated || !labels.emplace(term.key, term.value).second)
            return Error::usage(Text::format("'{}' is no list of labels", text),
                                "KEY=VALUE,KEY=VALUE; each key once");
        text.remove_prefix(std::min(comma + 1, text.size()));
    }
    return labels;
}

Result<unsigned> parse_share(std::string_view text, unsigned low) {
    // Two digits behind the point: parts of 10,000.
    unsigned whole = 0, part = 0;
    const char* const end = text.data() + text.size();
    auto [at, status] = std::from_chars(text.data(), end, whole);
    bool good = status == std::errc{} && whole <= 100;
    if (good && at != end && *at == '.') {
        const char* const point = at + 1;
        const auto behind = std::from_chars(point, end, part);
        at = behind.ptr;
        good = behind.ec == std::errc{} && at - point <= 2;
        if (at - point == 1)
            part *= 10;
    }
    const unsigned parts = whole * 100 + part;
    if (!good || at == end || std::string_view(at, static_cast<std::size_t>(end - at)) != "%" ||
        parts < low || parts > all_parts)
        return Error::usage(
            Text::format("'{}' is no share of the hosts", text),
            Text::format("a percentage from {} to 100%, with at most two digits behind the point",
                         share_text(low)));
    return parts;
}

std::string share_text(unsigned parts) {
    if (parts % 100 == 0)
        return fmt::format("{}%", parts / 100);
    if (parts % 10 == 0)
        return fmt::format("{}.{}%", parts / 100, parts % 100 / 10);
    return fmt::format("{}.{:02}%", parts / 100, parts % 100);
}

std::string Rollout::stage_name(std::size_t stage) const {
    if (!canary.empty() && stage == 0)
        return "canary";
    const std::size_t at = stage - (canary.empty() ? 0 : 1);
    return share_text(stages[std::min(at, stages.size() - 1)]);
}

bool Rollout::includes(std::size_t stage, const std::string& host, const Labels& labels,
                       std::uint64_t release) const {
    if (!canary.empty()) {
        if (std::ranges::all_of(canary, [&](const LabelTerm& term) { return term.holds(labels); }))
            return true;
        if (stage == 0)
            return false;
        stage--;
    }
    return slot_of(host, release) < stages[std::min(stage, stages.size() - 1)];
}

std::string rollout_state_text(const RolloutState& state) {
    const Json json{{"release", state.release}, {"stage", state.stage},
                    {"halted", state.halted},   {"why", state.halted ? Json(state.why) : Json()},
                    {"by", state.by},           {"since", second_text(state.since)}};
    return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<RolloutState> parse_rollout_state(std::string_view text) {
    const Json json = Json::parse(text, nullptr, false);
    RolloutState state;
    if (!json.is_object() || !json.contains("release") || !json["release"].is_number_unsigned() ||
        !json.contains("stage") || !json["stage"].is_number_unsigned() ||
        !json.contains("halted") || !json["halted"].is_boolean() || !json.contains("since") ||
        !json["since"].is_string())
        return Error::failed("this is no state of a roll-out");
    state.release = json["release"].get<std::uint64_t>();
    state.stage = json["stage"].get<std::size_t>();
    state.halted = json["halted"].get<bool>();
    state.since = NETCTL_TRY(parse_second(json["since"].get<std::string>()));
    if (json.contains("why") && json["why"].is_string())
        state.why = json["why"].get<std::string>();
    if (json.contains("by") && json["by"].is_string())
        state.by = json["by"].get<std::string>();
    return state;
}

namespace {

enum class Standing { done, failed, pending, silent };

Standing standing_of(const Report& report, std::uint64_t release, bool may_be_silent,
                     std::int64_t silent_after) {
    if (report.candidate == release &&
        (report.state == "failed" || report.state == "rolled-back" || report.state == "refused"))
        return Standing::failed;
    if (report.release >= release)
        return Standing::done; // or a later one, which is not this driver's
    return may_be_silent && report.age > silent_after ? Standing::silent : Standing::pending;
}

} // namespace

Decision decide(const Rollout& rollout, const RolloutState& state,
                const std::map<std::string, Labels>& inventory, const std::vector<Report>& reports,
                std::int64_t now, std::int64_t silent_after) {
    Decision decision;
    StageCount& count = decision.count;
    const bool may_be_silent = now - state.since > silent_after;
    std::string first_failed;
    std::set<std::string> reported;
    for (const Report& report : reports) {
        reported.insert(report.host);
        const auto known = inventory.find(report.host);
        Labels labels = known != inventory.end() ? known->second : Labels{};
        labels.insert(report.labels.begin(), report.labels.end()); // which leaves what is there
        // A host that has left for good, and was gone before this stage began, is nobody's to wait for.
        if (known == inventory.end() && report.age > now - state.since + silent_after)
            continue;
        if (!rollout.includes(state.stage, report.host, labels, state.release))
            continue;
        count.expected++;
        switch (standing_of(report, state.release, may_be_silent, silent_after)) {
        case Standing::done: count.done++; break;
        case Standing::silent: count.silent++; break;
        case Standing::pending: break;
        case Standing::failed:
            count.failed++;
            if (first_failed.empty())
                first_failed = fmt::format("{}: {}", report.host, report.error);
            break;
        }
    }
    for (const auto& [host, labels] : inventory) {
        if (reported.contains(host) || !rollout.includes(state.stage, host, labels, state.release))
            continue;
        count.expected++;
        count.silent += may_be_silent;
    }
    const std::size_t bound = count.expected * rollout.max_failed / all_parts;
    const std::size_t bad = count.failed + count.silent;
    if (state.halted) {
        decision.kind = Decision::Kind::wait;
        decision.why = "halted: " + state.why;
    } else if (bad > bound) {
        decision.kind = Decision::Kind::halt;
        decision.why = fmt::format("{} of {} hosts failed and {} are silent in stage {}, {} may be",
                                   count.failed, count.expected, count.silent,
                                   rollout.stage_name(state.stage), bound);
        if (!first_failed.empty())
            decision.why += "; " + first_failed;
    } else if (count.expected == 0 && !rollout.canary.empty() && state.stage == 0) {
        decision.kind = Decision::Kind::wait;
        decision.why = "no host is a canary";
    } else if (count.pending() > 0) {
        decision.kind = Decision::Kind::wait;
        decision.why = fmt::format("{} of {} hosts are not done", count.pending(), count.expected);
    } else if (state.stage + 1 < rollout.stage_count()) {
        decision.kind = Decision::Kind::advance;
    } else {
        decision.kind = Decision::Kind::finished;
    }
    return decision;
}

} // namespace netctl::fleet
