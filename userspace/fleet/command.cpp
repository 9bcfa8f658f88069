// SPDX-License-Identifier: GPL-2.0-only
#include <algorithm>
#include <ctime>
#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/duration.hpp"
#include "core/json.hpp"
#include "fleet/bytes.hpp"
#include "fleet/fleet.hpp"
#include "fleet/line_diff.hpp"
#include "fleet/operate.hpp"
#include "sys/replace_file.hpp"
#include "sys/stop.hpp"
#include "sys/text_file.hpp"

namespace netctl::fleet {

namespace {

using Count = Positional::Count;

constexpr const char* default_silent = "5m";

Option signing_option() {
    return {"key", "FILE", "the secret key that signs; several with commas between", {}};
}
Option silent_option() {
    return {"silent-after",
            "TIME",
            "a host that does not report for so long is silent (default: 5m)",
            {}};
}

Result<std::vector<SecretKey>> secret_keys(const Arguments& arguments) {
    std::vector<SecretKey> keys;
    for (const std::string& file : split_words(arguments.get("key")))
        keys.push_back(NETCTL_TRY(read_secret_key(file)));
    if (keys.empty())
        return Error::usage("--key is missing", "`netctl-fleet keygen NAME` makes one");
    return keys;
}

/// The keys of --keys; who signs believes what he has signed himself.
Result<TrustedKeys> trusted_keys(const Arguments& arguments,
                                 const std::vector<SecretKey>& own = {}) {
    TrustedKeys trusted;
    trusted.threshold = static_cast<unsigned>(NETCTL_TRY(arguments.number("threshold", 1, 1, 16)));
    for (const SecretKey& key : own)
        trusted.keys.push_back({"own", key.number, key.key});
    if (own.empty() || arguments.has("keys"))
        for (PublicKey& key : NETCTL_TRY(read_public_keys(arguments.get("keys", default_keys))))
            trusted.keys.push_back(std::move(key));
    return trusted;
}

Result<std::int64_t> silent_seconds(const Arguments& arguments) {
    using std::chrono::seconds;
    const auto span =
        NETCTL_TRY(parse_duration("silent-after", arguments.get("silent-after", default_silent),
                                  seconds(1), std::chrono::hours(24 * 7)));
    return std::chrono::ceil<seconds>(span).count();
}

Result<Release> release_of(const std::string& path) {
    return parse_release(sys::text_name(path), NETCTL_TRY(sys::read_text(path)));
}

// ---- keys ----

Result<int> keygen(const Arguments& arguments, Context& context) {
    const std::string name = arguments["NAME"];
    for (const char* end : {".sec", ".pub"})
        if (access((name + end).c_str(), F_OK) == 0)
            return Error::failed(Text::format("{}{} is there already", name, end),
                                 "a key that is in use is not overwritten");
    const SecretKey key = NETCTL_TRY(make_key());
    NETCTL_TRY(sys::replace_file(name + ".sec", secret_text(key), 0600));
    NETCTL_TRY(sys::replace_file(name + ".pub", public_text(key), 0644));
    context.out.document({{"secret", name + ".sec"}, {"public", name + ".pub"}},
                         Text::format("{0}.sec signs, and stays with you; {0}.pub goes to {1} of "
                                      "each host\n",
                                      name, default_keys));
    return 0;
}

Result<int> sign_head(const Arguments& arguments, Context& context) {
    const std::string path = arguments["HEAD"];
    const std::string file = NETCTL_TRY(sys::read_text(path));
    const Envelope envelope = NETCTL_TRY(parse_envelope(file));
    const Head head = NETCTL_TRY(parse_head_message(envelope.message));
    std::string added;
    for (const SecretKey& key : NETCTL_TRY(secret_keys(arguments))) {
        if (!signers(envelope, {{"own", key.number, key.key}}).empty())
            return Error::failed(Text::format("this key has signed {} already", path));
        added += NETCTL_TRY(sign(key, envelope.message));
    }
    NETCTL_TRY(sys::replace_file(path, added + file, 0644));
    context.out.document(head_json(head),
                         Text::format("{}: release {} of {}, sha256 {}, signed\n", path,
                                      head.release, head.fleet, head.sha256));
    return 0;
}

Result<int> verify_head(const Arguments& arguments, Context& context) {
    const TrustedKeys trusted = NETCTL_TRY(trusted_keys(arguments));
    std::string file;
    if (arguments.given("HEAD")) {
        file = NETCTL_TRY(sys::read_text(arguments["HEAD"]));
    } else {
        const auto source = NETCTL_TRY(open_source(arguments));
        file = NETCTL_TRY(source->read("head", most_head_bytes)).value_or("");
    }
    const auto head = open_head(file, trusted.keys, trusted.threshold);
    if (!head)
        return head.error();
    const std::vector<std::string> by = signers(NETCTL_TRY(parse_envelope(file)), trusted.keys);
    // What it names is there, and is what was signed.
    if (arguments.has("dir") || arguments.has("etcd")) {
        const auto source = NETCTL_TRY(open_source(arguments));
        NETCTL_TRY(read_published(*source, trusted));
    }
    Json json = head_json(*head);
    json["signed_by"] = by;
    context.out.document(json, Text::format("release {} of {}, signed by {}\n", head->release,
                                            head->fleet, fmt::join(by, ", ")));
    return 0;
}

// ---- files ----

Result<int> check(const Arguments& arguments, Context& context) {
    const Release release = NETCTL_TRY(release_of(arguments["FILE"]));
    for (const auto& [name, labels] : release.inventory)
        NETCTL_TRY(render(release, Host{name, labels}));
    Json stages = Json::array();
    for (std::size_t i = 0; i < release.rollout.stage_count(); i++)
        stages.push_back(release.rollout.stage_name(i));
    context.out.document({{"fleet", release.fleet},
                          {"documents", release.documents.size()},
                          {"hosts", release.inventory.size()},
                          {"stages", stages}},
                         Text::format("fleet {}: {} documents, {} hosts in the inventory: no "
                                      "errors\n",
                                      release.fleet, release.documents.size(),
                                      release.inventory.size()));
    return 0;
}

/// The release in a file, or the one that the source has.
Result<Release> release_or_published(const Arguments& arguments) {
    if (arguments.given("FILE"))
        return release_of(arguments["FILE"]);
    const auto source = NETCTL_TRY(open_source(arguments));
    return std::move(
        NETCTL_TRY(read_published(*source, NETCTL_TRY(trusted_keys(arguments)))).release);
}

Result<Rendered> rendered_for(const Release& release, const Arguments& arguments) {
    const std::string name = arguments["HOST"];
    if (!is_host_name(name))
        return Error::usage(Text::format("'{}' is no name of a host", name));
    return render(release,
                  host_of(release, name, NETCTL_TRY(parse_labels(arguments.get("labels")))));
}

Result<int> show_rendered(const Arguments& arguments, Context& context) {
    const Release release = NETCTL_TRY(release_or_published(arguments));
    const Rendered rendered = NETCTL_TRY(rendered_for(release, arguments));
    Json skipped = Json::array();
    for (const SkippedDocument& one : rendered.skipped) {
        skipped.push_back({{"document", one.number}, {"line", one.line}, {"why", one.why}});
        context.out.note(Text::format("{}:{}: skipped: {}", release.name, one.line, one.why));
    }
    context.out.document({{"host", arguments["HOST"]},
                          {"sha256", rendered.sha256()},
                          {"yaml", rendered.text()},
                          {"skipped", skipped}},
                         Text::lines(rendered.text()));
    return 0;
}

Result<int> show_diff(const Arguments& arguments, Context& context) {
    const auto made = [&]() -> Result<std::pair<Rendered, Rendered>> {
        const auto source = NETCTL_TRY(open_source(arguments));
        const PublishedRelease old =
            NETCTL_TRY(read_published(*source, NETCTL_TRY(trusted_keys(arguments))));
        const Release fresh = NETCTL_TRY(release_of(arguments["FILE"]));
        return std::pair(NETCTL_TRY(rendered_for(old.release, arguments)),
                         NETCTL_TRY(rendered_for(fresh, arguments)));
    };
    auto both = made();
    if (!both) {
        // 2 says that there are changes, so that words that are wrong are 1, too.
        Error error = std::move(both).error();
        if (error.kind == ErrorKind::usage)
            error.kind = ErrorKind::failed;
        return error;
    }
    const std::vector<std::string> lines = line_diff(both->first.text(), both->second.text());
    Text text;
    for (const std::string& line : lines)
        text += Text::format("{}\n", line);
    const bool same = both->first.text() == both->second.text();
    context.out.document({{"host", arguments["HOST"]}, {"same", same}, {"lines", lines}}, text);
    return same ? 0 : 2;
}

// ---- releases ----

Result<PublishOptions> publish_options(const Arguments& arguments) {
    PublishOptions options;
    options.keys = NETCTL_TRY(secret_keys(arguments));
    options.trusted = NETCTL_TRY(trusted_keys(arguments, options.keys));
    if (arguments.has("release"))
        options.release = NETCTL_TRY(arguments.number("release", 1, 1, std::uint64_t{1} << 53));
    if (arguments.has("valid")) {
        using std::chrono::seconds;
        options.valid_s = std::chrono::ceil<seconds>(
                              NETCTL_TRY(parse_duration("valid", arguments.get("valid"), seconds(1),
                                                        std::chrono::hours(24 * 366))))
                              .count();
    }
    options.at_once = arguments.has("at-once");
    options.compressed = arguments.has("compress");
    options.prepare = arguments.get("prepare");
    return options;
}

int tell_published(const Head& head, const Context& context, const std::string& prepared) {
    const Text told =
        prepared.empty() ? Text::format("release {} of {} is published\n", head.release, head.fleet)
                         : Text::format("release {} of {} waits in {} to be signed and published\n",
                                        head.release, head.fleet, prepared);
    context.out.document(head_json(head), told);
    return 0;
}

Result<int> do_publish(const Arguments& arguments, Context& context) {
    const auto source = NETCTL_TRY(open_source(arguments));
    if (arguments.has("head")) {
        if (arguments.given("FILE"))
            return Error::usage("a head that was prepared has its file already",
                                "`publish --head HEAD`, or `publish FILE`");
        return tell_published(
            NETCTL_TRY(publish_prepared(*source, NETCTL_TRY(sys::read_text(arguments.get("head"))),
                                        NETCTL_TRY(trusted_keys(arguments)))),
            context, {});
    }
    if (!arguments.given("FILE"))
        return Error::usage("FILE is missing");
    const PublishOptions options = NETCTL_TRY(publish_options(arguments));
    const std::string path = arguments["FILE"];
    const std::string text = NETCTL_TRY(sys::read_text(path));
    const Release release = NETCTL_TRY(parse_release(sys::text_name(path), text));
    return tell_published(NETCTL_TRY(publish(*source, text, release, options)), context,
                          options.prepare);
}

Result<int> do_rollback(const Arguments& arguments, Context& context) {
    const auto source = NETCTL_TRY(open_source(arguments));
    PublishOptions options;
    options.keys = NETCTL_TRY(secret_keys(arguments));
    options.trusted = NETCTL_TRY(trusted_keys(arguments, options.keys));
    const std::uint64_t to = NETCTL_TRY(arguments.number("to", 0, 1, std::uint64_t{1} << 53));
    return tell_published(NETCTL_TRY(publish_former(*source, to, options)), context, {});
}

Json view_json(const FleetView& view) {
    const StageCount& count = view.decision.count;
    return {{"fleet", view.head.fleet},
            {"release", view.head.release},
            {"stage", view.release.rollout.stage_name(view.rollout.stage)},
            {"since", second_text(view.rollout.since)},
            {"halted", view.rollout.halted},
            {"why", view.decision.why.empty() ? Json() : Json(view.decision.why)},
            {"finished", view.decision.kind == Decision::Kind::finished},
            {"expected", count.expected},
            {"done", count.done},
            {"failed", count.failed},
            {"silent", count.silent}};
}

Text view_text(const FleetView& view) {
    const StageCount& count = view.decision.count;
    Text text = Text::format("fleet {}, release {}, stage {}: {} of {} hosts done, {} failed, {} "
                             "silent",
                             view.head.fleet, view.head.release,
                             view.release.rollout.stage_name(view.rollout.stage), count.done,
                             count.expected, count.failed, count.silent);
    if (view.decision.kind == Decision::Kind::finished)
        text += "; finished";
    else if (!view.decision.why.empty())
        text += Text::format("; {}", view.decision.why);
    return text;
}

Result<FleetView> view_of(Source& source, const Arguments& arguments) {
    return view_fleet(source, NETCTL_TRY(trusted_keys(arguments)),
                      NETCTL_TRY(silent_seconds(arguments)));
}

Result<int> follow(Source& source, const Arguments& arguments, Context& context) {
    const Held held = NETCTL_TRY(source.hold("rollout", operator_name()));
    source.watch_statuses();
    sys::catch_stop_signals();
    std::string told;
    while (!sys::stop_requested()) {
        const FleetView view = NETCTL_TRY(view_of(source, arguments));
        const Text text = view_text(view);
        if (text.string() != told && !context.out.line(view_json(view), text))
            return 0;
        told = text.string();
        if (view.decision.kind == Decision::Kind::finished)
            return 0;
        if (view.rollout.halted)
            return 1;
        const bool acts = view.decision.kind != Decision::Kind::wait;
        if (acts) {
            // Somebody may have halted it meanwhile: it is looked at anew.
            if (const auto driven = drive(source, view); !driven)
                context.out.note(driven.error().what);
        }
        source.wait(acts ? 0 : 2000);
    }
    return 0;
}

Result<int> do_rollout(const Arguments& arguments, Context& context) {
    const int words =
        int(arguments.has("follow")) + int(arguments.has("next")) + int(arguments.has("resume"));
    if (words > 1)
        return Error::usage("--follow, --next and --resume are one thing at a time");
    const auto source = NETCTL_TRY(open_source(arguments));
    if (arguments.has("follow"))
        return follow(*source, arguments, context);
    if (words != 0) {
        const FleetView before = NETCTL_TRY(view_of(*source, arguments));
        NETCTL_TRY(arguments.has("next") ? next_stage(*source, before) : resume(*source, before));
    }
    const FleetView view = NETCTL_TRY(view_of(*source, arguments));
    context.out.document(view_json(view), view_text(view) + Text::format("\n"));
    return view.rollout.halted ? 1 : 0;
}

Result<int> do_halt(const Arguments& arguments, Context& context) {
    const auto source = NETCTL_TRY(open_source(arguments));
    const FleetView view = NETCTL_TRY(view_of(*source, arguments));
    NETCTL_TRY(halt(*source, view, arguments.get("why", "by " + operator_name())));
    context.out.done(Text::format("release {} is halted in stage {}: no further host takes it",
                                  view.head.release,
                                  view.release.rollout.stage_name(view.rollout.stage)));
    return 0;
}

Result<int> do_enrol(const Arguments& arguments, Context& context) {
    const std::string host = arguments["HOST"];
    NETCTL_TRY(enrol_host(arguments, host));
    context.out.done(Text::format("{} reads what all hosts read, and writes its own report; the "
                                  "name of its certificate (CN) has to be {}",
                                  host, host));
    return 0;
}

Result<int> do_status(const Arguments& arguments, Context& context) {
    const auto source = NETCTL_TRY(open_source(arguments));
    const FleetView view = NETCTL_TRY(view_of(*source, arguments));
    const std::int64_t silent_after = NETCTL_TRY(silent_seconds(arguments));
    Json hosts = Json::array();
    TextTable table({{"HOST"}, {"STATE"}, {"RELEASE", true}, {"REPORTED", true}, {"WHY"}});
    bool good = !view.rollout.halted;
    const auto add = [&](const Report& report, const std::string& state, bool known) {
        good = good && (state == "in-force" || state == "waiting" || state == "soaking");
        hosts.push_back({{"host", report.host},
                         {"state", state},
                         {"release", report.release != 0 ? Json(report.release) : Json()},
                         {"candidate", report.candidate != 0 ? Json(report.candidate) : Json()},
                         {"error", report.error.empty() ? Json() : Json(report.error)},
                         {"labels", Json(report.labels)},
                         {"age_s", known ? Json(report.age) : Json()}});
        table.row({report.host, state,
                   report.release != 0 ? Text::format("{}", report.release) : Text("-"),
                   known ? Text::format("{} s ago", report.age) : Text("never"), report.error});
    };
    std::vector<Report> all = view.reports;
    for (const Report& report : all)
        add(report, report.age > silent_after ? "silent" : report.state, true);
    for (const auto& known : view.release.inventory)
        if (std::ranges::none_of(all, [&](const Report& one) { return one.host == known.first; })) {
            Report report;
            report.host = known.first;
            report.labels = known.second;
            add(report, "silent", false);
        }
    Json json = view_json(view);
    json["hosts"] = std::move(hosts);
    context.out.document(json, view_text(view) + Text::format("\n") + table.render());
    return good ? 0 : 1;
}

} // namespace

Option keys_option() {
    return {"keys",
            "FILE",
            "a public key, or a folder of *.pub (default: /etc/netctl/fleet-keys.d)",
            {}};
}
Option threshold_option() {
    return {"threshold", "N", "how many of the keys have to have signed (default: 1)", {}};
}

Command fleet_commands() {
    Command root{"netctl-fleet", "one signed policy on many hosts"};
    const Option labels{"labels", "LIST", "KEY=VALUE,… of a host that the inventory lacks", {}};
    const std::vector<Option> source = source_options();
    const auto with = [](std::vector<Option> all, const std::vector<Option>& more) {
        all.insert(all.end(), more.begin(), more.end());
        return all;
    };
    const std::vector<Option> looks =
        with(source, {keys_option(), threshold_option(), silent_option()});
    root.children = {
        {.name = "check",
         .summary = "tell what is wrong with a release's file; needs no privileges",
         .positionals = {{"FILE"}},
         .run = check},
        {.name = "render",
         .summary = "show what a release is for a host",
         .description = "Of FILE, or of what is published in --dir.",
         .positionals = {{"HOST"}, {"FILE", Count::optional}},
         .options = with({labels}, with(source, {keys_option(), threshold_option()})),
         .run = show_rendered},
        {.name = "diff",
         .summary = "show what FILE would change for a host against what is published",
         .description = "Exit status 0: nothing; 2: there are changes; 1: that could not be told, "
                        "or the file is wrong.",
         .positionals = {{"HOST"}, {"FILE"}},
         .options = with({labels}, with(source, {keys_option(), threshold_option()})),
         .run = show_diff},
        {.name = "keygen",
         .summary = "make a key: NAME.sec and NAME.pub",
         .positionals = {{"NAME"}},
         .run = keygen},
        {.name = "publish",
         .summary = "sign a release and publish it",
         .positionals = {{"FILE", Count::optional}},
         .options =
             with(source, {signing_option(),
                           keys_option(),
                           threshold_option(),
                           {"release", "N", "its number (default: the next)", {}},
                           {"valid", "TIME", "hosts take it within this time or not at all", {}},
                           {"at-once", "", "all stages in one", {}},
                           {"compress", "", "store it compressed", {}},
                           {"prepare", "FILE", "write the head there, for others to sign", {}},
                           {"head", "FILE", "publish a head that was prepared", {}}}),
         .run = do_publish},
        {.name = "sign",
         .summary = "add a signature to a head that was prepared",
         .positionals = {{"HEAD"}},
         .options = {signing_option()},
         .run = sign_head},
        {.name = "verify",
         .summary = "tell whether a head, or what is published, is signed as it has to be",
         .positionals = {{"HEAD", Count::optional}},
         .options = with(source, {keys_option(), threshold_option()}),
         .run = verify_head},
        {.name = "rollout",
         .summary = "show how far the release is, or drive it",
         .description = "Exit status 1: it is halted.",
         .options = with({{"follow", "", "go on, stage by stage, until all is done or halted", {}},
                          {"next", "", "go one stage on, whatever hosts report", {}},
                          {"resume", "", "end a halt", {}}},
                         looks),
         .run = do_rollout},
        {.name = "halt",
         .summary = "let no further host take the release",
         .options = with({{"why", "TEXT", "for others to read", {}}}, looks),
         .run = do_halt},
        {.name = "rollback",
         .summary = "publish what a former release was, as a new one, for all hosts at once",
         .options = with(source, {signing_option(),
                                  keys_option(),
                                  threshold_option(),
                                  {"to", "N", "which (default: the one before the present)", {}}}),
         .run = do_rollback},
        {.name = "status",
         .summary = "show what the hosts report",
         .description = "Exit status 1: a host failed, refused or is silent, or the roll-out is "
                        "halted.",
         .options = looks,
         .run = do_status},
        {.name = "enrol",
         .summary = "make a user of etcd for a host, who may no more than he has to",
         .positionals = {{"HOST"}},
         .options = source,
         .run = do_enrol},
        run_command_of_hosts(),
    };
    return root;
}

} // namespace netctl::fleet
