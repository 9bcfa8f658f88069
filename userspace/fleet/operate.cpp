// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/operate.hpp"

#include <array>
#include <ctime>
#include <unistd.h>

#include <fmt/format.h>

#include "core/json.hpp"
#include "fleet/bytes.hpp"
#include "sys/replace_file.hpp"
#include "sys/session.hpp"

namespace netctl::fleet {

namespace {

std::int64_t time_now() {
    return std::time(nullptr);
}

std::optional<Report> parse_report(const StatusEntry& entry) {
    const Json json = Json::parse(entry.text, nullptr, false);
    // Whoever may write there may write anything: a report under another host's name is none.
    if (!json.is_object() || !json.contains("host") || json["host"] != entry.host ||
        !json.contains("state") || !json["state"].is_string())
        return {};
    Report report;
    report.host = entry.host;
    report.state = json["state"].get<std::string>();
    report.age = entry.age;
    const auto number = [&](const char* name) {
        return json.contains(name) && json[name].is_number_unsigned()
                   ? json[name].get<std::uint64_t>()
                   : 0;
    };
    report.release = number("release");
    report.candidate = number("candidate");
    if (json.contains("error") && json["error"].is_string())
        report.error = json["error"].get<std::string>();
    if (json.contains("labels") && json["labels"].is_object())
        for (const auto& [key, value] : json["labels"].items())
            if (value.is_string())
                report.labels.emplace(key, value.get<std::string>());
    return report;
}

/// The head in the source, believed; nothing if there is none.
Result<std::optional<Head>> present_head(Source& source, const TrustedKeys& trusted) {
    const auto file = NETCTL_TRY(source.read("head", most_head_bytes));
    if (!file)
        return std::optional<Head>();
    return std::optional(NETCTL_TRY(open_head(*file, trusted.keys, trusted.threshold)));
}

Result<std::string> signed_file(const Head& head, const std::vector<SecretKey>& keys) {
    const std::string message = head_message(head);
    std::string file;
    for (const SecretKey& key : keys)
        file += NETCTL_TRY(sign(key, message));
    return file + message;
}

/// The commit: all else that belongs to the release is there before.
Result<> put_head(Source& source, const Head& head, const std::string& file,
                  const TrustedKeys& trusted, bool number_was_said) {
    const RolloutState begin{head.release, 0, false, {}, operator_name(), time_now()};
    const auto change =
        [&](const std::optional<std::string>& old) -> Result<std::optional<std::string>> {
        if (old) {
            const auto present = open_head(*old, trusted.keys, trusted.threshold);
            if (!present && !number_was_said)
                return Error::failed(
                    Text::format("the head in {} is not to be believed: {}", source.name(),
                                 present.error().what),
                    "--keys names the keys that it is signed by; --release N does not ask it");
            if (present && present->release >= head.release)
                return Error::failed(Text::format("release {} is there already, and this is {}",
                                                  present->release, head.release),
                                     "somebody else has published meanwhile: look, and try again");
        }
        NETCTL_TRY(source.write(rollout_name(head.release), rollout_state_text(begin)));
        NETCTL_TRY(source.write(release_name(head.release), file));
        return std::optional(file);
    };
    return source.update("head", most_head_bytes, change);
}

Result<Head> sign_and_put(Source& source, Head head, const PublishOptions& options) {
    if (options.release) {
        head.release = *options.release;
    } else {
        const auto present = present_head(source, options.trusted);
        if (!present.has_value())
            return Error::failed(
                Text::format("the head in {} is not to be believed: {}", source.name(),
                             present.error().what),
                "--keys names the keys that it is signed by; --release N does not ask it");
        if (*present && (*present)->fleet != head.fleet)
            return Error::failed(Text::format("{} has releases of the fleet {}, and this is of {}",
                                              source.name(), (*present)->fleet, head.fleet));
        head.release = *present ? (*present)->release + 1 : 1;
        // Where an old head was put in the place of the present one, its numbers are not given twice.
        while (const auto known =
                   NETCTL_TRY(source.read(release_name(head.release), most_head_bytes))) {
            if (!open_head(*known, options.trusted.keys, options.trusted.threshold))
                break;
            head.release++;
        }
    }
    head.published = time_now();
    head.not_after = options.valid_s != 0 ? head.published + options.valid_s : 0;
    const std::string file = NETCTL_TRY(signed_file(head, options.keys));
    if (!options.prepare.empty())
        NETCTL_TRY(sys::replace_file(options.prepare, file, 0644));
    else
        NETCTL_TRY(put_head(source, head, file, options.trusted, options.release.has_value()));
    return head;
}

} // namespace

std::string operator_name() {
    std::array<char, 256> host{};
    gethostname(host.data(), host.size() - 1);
    const std::string user = sys::inherited_variable("SUDO_USER")
                                 .value_or(sys::inherited_variable("USER").value_or("root"));
    return fmt::format("{}@{} ({})", user, host.data(), getpid());
}

Result<Head> publish(Source& source, const std::string& text, const Release& release,
                     const PublishOptions& options) {
    if (text.size() > most_body_bytes)
        return Error::usage(Text::format("{} is larger than 4 MiB", release.name),
                            "elements of large sets come by another way: `managed: external`");
    for (const auto& [name, labels] : release.inventory)
        NETCTL_TRY(render(release, Host{name, labels}));
    Head head;
    head.fleet = release.fleet;
    head.sha256 = sha256_text(text);
    head.size = text.size();
    head.at_once = options.at_once;
    NETCTL_TRY(source.write(
        body_name(head.sha256),
        options.compressed || source.prefers_compressed() ? NETCTL_TRY(compress(text)) : text));
    return sign_and_put(source, std::move(head), options);
}

Result<Head> publish_prepared(Source& source, const std::string& file, const TrustedKeys& trusted) {
    const Head head = NETCTL_TRY(open_head(file, trusted.keys, trusted.threshold));
    if (!NETCTL_TRY(source.read(body_name(head.sha256), most_body_bytes + most_head_bytes)))
        return Error::failed(Text::format("{} has no {}", source.name(), body_name(head.sha256)),
                             "`publish FILE --prepare HEAD` puts it there");
    NETCTL_TRY(put_head(source, head, file, trusted, false));
    return head;
}

Result<Head> publish_former(Source& source, std::uint64_t to, const PublishOptions& options) {
    const auto present = NETCTL_TRY(present_head(source, options.trusted));
    if (!present)
        return Error::failed(Text::format("{} has no release", source.name()));
    if (to == 0)
        to = present->release - 1;
    if (to == 0 || to >= present->release)
        return Error::usage(
            Text::format("there is no release {} before release {}", to, present->release));
    const auto file = NETCTL_TRY(source.read(release_name(to), most_head_bytes));
    if (!file)
        return Error::failed(Text::format("{} has no {}", source.name(), release_name(to)));
    const Head former =
        NETCTL_TRY(open_head(*file, options.trusted.keys, options.trusted.threshold));
    if (former.release != to)
        return Error::failed(Text::format("{} is of release {}", release_name(to), former.release));
    Head head = former;
    head.at_once = true;
    return sign_and_put(source, std::move(head), options);
}

Result<PublishedRelease> read_published(Source& source, const TrustedKeys& trusted) {
    const auto head = NETCTL_TRY(present_head(source, trusted));
    if (!head)
        return Error::failed(Text::format("{} has no release", source.name()),
                             "`netctl-fleet publish` puts one there");
    auto stored =
        NETCTL_TRY(source.read(body_name(head->sha256), most_body_bytes + most_head_bytes));
    if (!stored)
        return Error::failed(Text::format("{} has no {}", source.name(), body_name(head->sha256)));
    std::string text = NETCTL_TRY(unpack(std::move(*stored), head->size));
    if (sha256_text(text) != head->sha256)
        return Error::failed(
            Text::format("{} is another file than was signed", body_name(head->sha256)));
    Release release = NETCTL_TRY(parse_release(fmt::format("release {}", head->release), text));
    return PublishedRelease{*head, std::move(text), std::move(release)};
}

Result<FleetView> view_fleet(Source& source, const TrustedKeys& trusted,
                             std::int64_t silent_after) {
    PublishedRelease published = NETCTL_TRY(read_published(source, trusted));
    FleetView view;
    view.head = std::move(published.head);
    view.release = std::move(published.release);
    if (view.head.at_once) { // one stage, which all hosts are in
        view.release.rollout.canary.clear();
        view.release.rollout.stages = {10000};
        view.release.rollout.max_failed = 10000; // there is nobody left to be spared
    }
    view.rollout = {view.head.release, 0, false, {}, {}, view.head.published};
    if (const auto stored =
            NETCTL_TRY(source.read(rollout_name(view.head.release), most_state_bytes)))
        view.rollout = NETCTL_TRY(parse_rollout_state(*stored));
    for (const StatusEntry& entry : NETCTL_TRY(source.statuses()))
        if (auto report = parse_report(entry))
            view.reports.push_back(std::move(*report));
    view.decision = decide(view.release.rollout, view.rollout, view.release.inventory, view.reports,
                           time_now(), silent_after);
    return view;
}

namespace {

Result<> change_rollout(Source& source, const FleetView& view, RolloutState next) {
    next.by = operator_name();
    return source.update(
        rollout_name(view.head.release), most_state_bytes,
        [&](const std::optional<std::string>& old) -> Result<std::optional<std::string>> {
            if (old && NETCTL_TRY(parse_rollout_state(*old)) != view.rollout)
                return Error::failed("somebody else has changed the roll-out meanwhile",
                                     "look at it, and try again");
            return std::optional(rollout_state_text(next));
        });
}

} // namespace

Result<> drive(Source& source, const FleetView& view) {
    RolloutState next = view.rollout;
    switch (view.decision.kind) {
    case Decision::Kind::wait:
    case Decision::Kind::finished: return {};
    case Decision::Kind::advance:
        next.stage++;
        next.since = time_now();
        break;
    case Decision::Kind::halt:
        next.halted = true;
        next.why = view.decision.why;
        break;
    }
    return change_rollout(source, view, std::move(next));
}

Result<> next_stage(Source& source, const FleetView& view) {
    if (view.rollout.halted)
        return Error::failed(Text::format("the roll-out is halted: {}", view.rollout.why),
                             "`netctl-fleet rollout --resume` first");
    if (view.rollout.stage + 1 >= view.release.rollout.stage_count())
        return Error::failed("this is the last stage");
    RolloutState next = view.rollout;
    next.stage++;
    next.since = time_now();
    return change_rollout(source, view, std::move(next));
}

Result<> halt(Source& source, const FleetView& view, const std::string& why) {
    if (view.head.at_once)
        return Error::failed(
            Text::format("release {} was published for all hosts at once", view.head.release));
    RolloutState next = view.rollout;
    next.halted = true;
    next.why = why;
    return change_rollout(source, view, std::move(next));
}

Result<> resume(Source& source, const FleetView& view) {
    if (!view.rollout.halted)
        return Error::failed("the roll-out is not halted");
    RolloutState next = view.rollout;
    next.halted = false;
    next.why.clear();
    next.since = time_now();
    return change_rollout(source, view, std::move(next));
}

} // namespace netctl::fleet
