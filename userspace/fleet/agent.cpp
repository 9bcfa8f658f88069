// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/agent.hpp"

#include <algorithm>
#include <random>

#include <fmt/format.h>
#include <fnmatch.h>

#include "core/json.hpp"
#include "fleet/bytes.hpp"

namespace netctl::fleet {

namespace {

constexpr unsigned most_tries = 3;
constexpr unsigned most_probe_failures = 3;
constexpr std::int64_t probe_every_ms = 1000;
constexpr std::int64_t retry_after_ms = 2000;
/// What netctl's own timer gives beyond the soak: should this process die, it is the one that goes back.
constexpr std::chrono::seconds confirm_margin{60};

std::string text_of(const Json& json, const char* name) {
    const auto found = json.find(name);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::uint64_t number_of(const Json& json, const char* name) {
    const auto found = json.find(name);
    return found != json.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

Json or_null(std::uint64_t number) {
    return number != 0 ? Json(number) : Json();
}
Json or_null(const std::string& text) {
    return text.empty() ? Json() : Json(text);
}

/// Objects of former releases that this one does not name any more.
std::set<std::string> gone(const std::set<std::string>& objects,
                           const std::set<std::string>& titles) {
    std::set<std::string> absent;
    for (const std::string& object : objects)
        if (std::ranges::none_of(titles, [&](const std::string& title) {
                return fnmatch(title.c_str(), object.c_str(), 0) == 0;
            }))
            absent.insert(object);
    return absent;
}

} // namespace

std::string agent_state_text(const AgentState& state) {
    const Json json{{"highest", state.highest},
                    {"highest_sha256", state.highest_sha256},
                    {"published", state.published},
                    {"release", state.release},
                    {"rendered_sha256", state.rendered_sha256},
                    {"objects", state.objects},
                    {"attempt", state.attempt},
                    {"attempt_id", state.attempt_id},
                    {"tries", state.tries},
                    {"failed", state.failed},
                    {"failed_state", state.failed_state},
                    {"failed_error", state.failed_error}};
    return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<AgentState> parse_agent_state(std::string_view text) {
    const Json json = Json::parse(text, nullptr, false);
    if (!json.is_object() || !json.contains("highest") || !json["highest"].is_number_unsigned())
        return Error::failed("the state of this host cannot be read",
                             "without it a replayed release cannot be told from a new one");
    AgentState state;
    state.highest = number_of(json, "highest");
    state.highest_sha256 = text_of(json, "highest_sha256");
    state.published = static_cast<std::int64_t>(number_of(json, "published"));
    state.release = number_of(json, "release");
    state.rendered_sha256 = text_of(json, "rendered_sha256");
    if (json.contains("objects") && json["objects"].is_array())
        for (const Json& object : json["objects"])
            if (object.is_string())
                state.objects.insert(object.get<std::string>());
    state.attempt = number_of(json, "attempt");
    state.attempt_id = text_of(json, "attempt_id");
    state.tries = static_cast<unsigned>(number_of(json, "tries"));
    state.failed = number_of(json, "failed");
    state.failed_state = text_of(json, "failed_state");
    state.failed_error = text_of(json, "failed_error");
    return state;
}

Agent::Agent(AgentOptions options, AgentState state, Source& source, Applier& applier, Save save)
    : options_(std::move(options)),
      state_(std::move(state)),
      source_(source),
      applier_(applier),
      save_(std::move(save)),
      labels_(options_.labels) {}

void Agent::begin() {
    // If it was confirmed and only that was not written down any more, nothing waits, and trying it anew finds
    // nothing to change.
    if (!state_.attempt_id.empty()) {
        (void)applier_.roll_back(state_.attempt_id);
        state_.attempt_id.clear();
    }
    owes_reapply_ = state_.release != 0;
}

void Agent::end() {
    if (!trial_)
        return;
    const std::uint64_t release = trial_->head.release;
    (void)applier_.roll_back(trial_->applied.id);
    trial_.reset();
    state_.attempt_id.clear();
    state_.tries = 0; // it was no failure of the release
    become("waiting", release, "netctl-fleet was stopped while it was tried");
    (void)save();
    report();
}

unsigned Agent::step(const Moment& now) {
    now_ = now;
    if (trial_)
        soak();
    if (!trial_)
        look();
    report();
    if (trial_)
        return probe_every_ms;
    if (retry_ms_ > now_.monotonic_ms)
        return static_cast<unsigned>(retry_ms_ - now_.monotonic_ms);
    return static_cast<unsigned>(options_.heartbeat * 1000);
}

void Agent::become(const std::string& name, std::uint64_t candidate, const std::string& error) {
    if (name != state_name_ || candidate != candidate_)
        since_ = now_.time;
    state_name_ = name;
    candidate_ = candidate;
    error_ = error;
}

bool Agent::save() {
    const auto saved = save_(state_);
    if (!saved)
        become("failed", state_.attempt, saved.error().what.string());
    return bool(saved);
}

void Agent::look() {
    if (owes_reapply_) {
        const auto again = applier_.reapply();
        owes_reapply_ = !again;
        if (!again)
            become("failed", state_.release, again.error().what.string());
    }
    const auto bytes = source_.read("head", most_head_bytes);
    if (!bytes.has_value()) {
        become("source-lost", 0, bytes.error().what.string());
        return;
    }
    if (!*bytes) {
        // Gone, where there was one: what is in force stays.
        if (state_.highest == 0)
            become("empty", 0, "");
        else
            become("source-lost", 0, "the source has no head any more");
        return;
    }
    const auto head = open(**bytes);
    if (!head) {
        become("refused", 0, head.error().what.string());
        return;
    }
    if (const auto good = believe(*head); !good) {
        become("refused", head->release, good.error().what.string());
        return;
    }
    if (head->release > state_.highest) {
        state_.highest = head->release;
        state_.highest_sha256 = head->sha256;
        state_.published = std::max(state_.published, head->published);
        state_.failed = state_.attempt = 0;
        state_.tries = 0;
        retry_ms_ = 0;
        if (!save())
            return;
    }
    consider(*head);
}

Result<> Agent::believe(const Head& head) const {
    if (head.fleet != options_.fleet)
        return Error::failed(
            Text::format("it is of the fleet {}, and this host of {}", head.fleet, options_.fleet));
    if (head.release < state_.highest)
        return Error::failed(Text::format("release {} is older than {}, which was here before: "
                                          "replayed, or the source was restored",
                                          head.release, state_.highest));
    if (head.release == state_.highest && head.sha256 != state_.highest_sha256)
        return Error::failed(
            Text::format("release {} was signed twice, for different files", head.release));
    // A clock that was set back does not bring back what had ended.
    const std::int64_t time = std::max(now_.time, state_.published);
    if (head.not_after != 0 && time > head.not_after && head.release != state_.release)
        return Error::failed(Text::format("release {} was to be taken until {}, and it is {}",
                                          head.release, second_text(head.not_after),
                                          second_text(time)));
    return {};
}

Result<Head> Agent::open(const std::string& bytes) {
    if (bytes != opened_bytes_) {
        opened_ = NETCTL_TRY(open_head(bytes, options_.keys, options_.threshold));
        opened_bytes_ = bytes;
    }
    return opened_;
}

Result<const Release*> Agent::fetch(const Head& head) {
    if (fetched_ && fetched_sha256_ == head.sha256)
        return &*fetched_;
    fetched_.reset();
    const std::string name = body_name(head.sha256);
    auto stored = NETCTL_TRY(source_.read(name, most_body_bytes + most_head_bytes));
    if (!stored)
        return Error::unknown(Text::format("{} is not there yet", name));
    auto unpacked = unpack(std::move(*stored), head.size);
    if (!unpacked)
        return std::move(unpacked).error().within(name);
    if (sha256_text(*unpacked) != head.sha256)
        return Error::failed(Text::format("{} is another file than was signed", name));
    Release release = NETCTL_TRY(parse_release(fmt::format("release {}", head.release), *unpacked));
    if (release.fleet != head.fleet)
        return Error::failed(Text::format("the file is of the fleet {}", release.fleet));
    fetched_ = std::move(release);
    fetched_sha256_ = head.sha256;
    return &*fetched_;
}

void Agent::consider(const Head& head) {
    if (head.release == state_.release) {
        fetched_.reset();
        if (!owes_reapply_)
            become("in-force", 0, "");
        return;
    }
    if (head.release == state_.failed) {
        become(state_.failed_state, head.release, state_.failed_error);
        return;
    }
    if (now_.monotonic_ms < retry_ms_)
        return;
    if (const std::int64_t spread =
            options_.spread_ms * static_cast<std::int64_t>(head.size) / (64 << 10);
        spread > 0 && delayed_sha256_ != head.sha256) {
        delayed_sha256_ = head.sha256;
        retry_ms_ =
            now_.monotonic_ms +
            static_cast<std::int64_t>(std::random_device{}() % static_cast<std::uint64_t>(spread));
        become("waiting", head.release, "its file is fetched at a time by chance");
        return;
    }
    const auto fetched = fetch(head);
    if (!fetched) {
        become(fetched.error().kind == ErrorKind::unknown ? "waiting" : "refused", head.release,
               fetched.error().what.string());
        return;
    }
    const Release* const release = *fetched;
    const Host host = host_of(*release, options_.host, options_.labels);
    labels_ = host.labels;
    auto rendered = render(*release, host);
    if (!rendered) {
        fail_for_good(head.release, "failed", rendered.error().what.string());
        return;
    }
    if (!head.at_once) {
        RolloutState rollout;
        const auto stored = source_.read(rollout_name(head.release), most_state_bytes);
        if (!stored.has_value()) {
            become("waiting", head.release, stored.error().what.string());
            return;
        }
        if (*stored) {
            auto parsed = parse_rollout_state(**stored);
            if (!parsed || parsed->release != head.release) {
                become("waiting", head.release,
                       parsed ? "the state of the roll-out is of another release"
                              : parsed.error().what.string());
                return;
            }
            rollout = std::move(*parsed);
        }
        stage_ = release->rollout.stage_name(rollout.stage);
        if (rollout.halted) {
            become("waiting", head.release, "halted: " + rollout.why);
            return;
        }
        if (!release->rollout.includes(rollout.stage, host.name, host.labels, head.release)) {
            become("waiting", head.release,
                   fmt::format("it is the turn of stage {}, and not of this host", stage_));
            return;
        }
    }
    attempt(head, *release, std::move(*rendered));
}

void Agent::attempt(const Head& head, const Release& release, Rendered rendered) {
    if (state_.attempt != head.release)
        state_.tries = 0;
    if (state_.tries >= most_tries) {
        fail_for_good(head.release, "failed",
                      fmt::format("{} tries did not come to an end", state_.tries));
        return;
    }
    state_.attempt = head.release;
    state_.attempt_id.clear();
    state_.tries++;
    if (!save())
        return;
    skipped_ = rendered.skipped;
    const std::set<std::string> absent = gone(state_.objects, rendered.titles);
    auto applied = applier_.apply(rendered, absent, release.rollout.soak + confirm_margin);
    if (!applied) {
        const Error& error = applied.error();
        const bool same_later =
            error.kind == ErrorKind::usage || error.kind == ErrorKind::unsupported;
        if (same_later || state_.tries >= most_tries) {
            fail_for_good(head.release, "failed", error.what.string());
            return;
        }
        retry_ms_ = now_.monotonic_ms + retry_after_ms;
        become("waiting", head.release, error.what.string());
        return;
    }
    if (applied->id.empty()) { // all of it is in force already
        take_in_force(head, rendered, applied->added, absent);
        return;
    }
    state_.attempt_id = applied->id;
    trial_ = Trial{head,
                   release,
                   std::move(rendered),
                   std::move(*applied),
                   absent,
                   now_.monotonic_ms + std::chrono::milliseconds(release.rollout.soak).count(),
                   0,
                   {}};
    if (!save()) {
        go_back("failed", "the state of this host cannot be written");
        return;
    }
    become("soaking", head.release, "");
}

void Agent::soak() {
    Trial& trial = *trial_;
    std::string why;
    for (const Probe& probe : trial.release.probes)
        if (const auto good = applier_.probe(probe); !good) {
            why = fmt::format("probe {}: {}", probe.to_string(), good.error().what.string());
            break;
        }
    // The source is one of the probes: a release that cuts a host off from it could not be taken back from there.
    const auto bytes = source_.read("head", most_head_bytes);
    if (!bytes.has_value() && why.empty())
        why = bytes.error().what.string();
    if (bytes.has_value() && *bytes) {
        const auto head = open(**bytes);
        if (head && believe(*head) && head->release > trial.head.release) {
            go_back("waiting", fmt::format("release {} came while it was tried", head->release));
            return;
        }
    }
    trial.failures = why.empty() ? 0 : trial.failures + 1;
    trial.why = why;
    if (trial.failures >= most_probe_failures) {
        go_back("rolled-back", why);
        return;
    }
    become("soaking", trial.head.release, why);
    if (now_.monotonic_ms < trial.until_ms || !why.empty())
        return;
    if (const auto confirmed = applier_.confirm(trial.applied.id); !confirmed) {
        go_back("rolled-back", confirmed.error().what.string());
        return;
    }
    const Trial done = std::move(trial);
    trial_.reset();
    take_in_force(done.head, done.rendered, done.applied.added, done.absent);
}

void Agent::take_in_force(const Head& head, const Rendered& rendered,
                          const std::set<std::string>& added, const std::set<std::string>& absent) {
    owes_reapply_ = false;
    state_.release = head.release;
    state_.rendered_sha256 = rendered.sha256();
    for (const std::string& object : absent)
        state_.objects.erase(object);
    state_.objects.insert(added.begin(), added.end());
    state_.attempt = state_.failed = 0;
    state_.attempt_id.clear();
    state_.tries = 0;
    retry_ms_ = 0;
    fetched_.reset();
    become("in-force", 0, "");
    // It is in force, and that stays so whatever goes wrong with remembering it.
    if (const auto kept = applier_.keep(); !kept)
        error_ = kept.error().what.string();
    if (const auto saved = save_(state_); !saved)
        error_ = saved.error().what.string();
}

void Agent::go_back(const std::string& state, const std::string& why) {
    const std::uint64_t release = trial_->head.release;
    const auto back = applier_.roll_back(trial_->applied.id);
    trial_.reset();
    state_.attempt_id.clear();
    // netctl's timer does it if this could not: what is said then is that it is on its way.
    const std::string told =
        back ? why : fmt::format("{}; going back: {}", why, back.error().what.string());
    if (state == "waiting") { // something else is to be tried
        state_.attempt = 0;
        become(state, release, told);
        (void)save();
        return;
    }
    fail_for_good(release, state, told);
}

void Agent::fail_for_good(std::uint64_t release, const std::string& state, const std::string& why) {
    state_.failed = release;
    state_.failed_state = state;
    state_.failed_error = why;
    state_.attempt = 0;
    state_.tries = 0;
    become(state, release, why);
    (void)save();
}

void Agent::report() {
    Json skipped = Json::array();
    for (const SkippedDocument& one : skipped_)
        skipped.push_back({{"document", one.number}, {"line", one.line}, {"why", one.why}});
    Json json{{"fleet", options_.fleet},
              {"host", options_.host},
              {"state", state_name_},
              {"release", or_null(state_.release)},
              {"candidate", or_null(candidate_)},
              {"stage", or_null(stage_)},
              {"error", or_null(error_)},
              {"rendered_sha256", or_null(state_.rendered_sha256)},
              {"labels", Json(labels_)},
              {"skipped", std::move(skipped)},
              {"since", second_text(since_)},
              {"version", NETCTL_VERSION}};
    std::string text = json.dump(2, ' ', false, Json::error_handler_t::replace);
    if (text == reported_ && now_.monotonic_ms - reported_ms_ < options_.heartbeat * 1000)
        return;
    json["reported"] = second_text(now_.time);
    // Not being heard is no reason to change anything: the driver counts the silent.
    if (source_.write_status(options_.host,
                             json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n")) {
        reported_ = std::move(text);
        reported_ms_ = now_.monotonic_ms;
    }
}

} // namespace netctl::fleet
