// SPDX-License-Identifier: GPL-2.0-only
#include <algorithm>
#include <chrono>
#include <thread>

#include <fmt/format.h>

#include "bpf/bpffs.hpp"
#include "core/duration.hpp"
#include "core/json.hpp"
#include "host/apply.hpp"
#include "host/host.hpp"
#include "host/probe.hpp"
#include "host/saved.hpp"
#include "sys/netns.hpp"
#include "sys/text_file.hpp"

namespace netctl::host {

namespace {

using Count = Positional::Count;

/// With what `apply --plan` needs to see that nothing has changed since.
Result<Json> plan_json(const Plan& plan) {
    Json changes = Json::array();
    for (const Step& step : plan.steps)
        changes.push_back({{"object", step.title},
                           {"action", step.action},
                           {"lines", step.lines},
                           {"was", NETCTL_TRY(fingerprint(step))}});
    return Json{{"changes", changes},
                {"object_count", plan.objects},
                {"config", NETCTL_TRY(config_text(way_on(plan.steps)))}};
}

struct Planned {
    HostConfig config;
    std::map<std::string, std::string> was;
};

/// Reads what plan_json() has made.
Result<Planned> read_plan(const std::string& path) {
    const std::string text = NETCTL_TRY(sys::read_text(path));
    const Json json = Json::parse(text, nullptr, false);
    const Error wrong = Error::usage(Text::format("{} is no plan", sys::text_name(path)),
                                     "`netctl --json plan FILE` makes one");
    const auto is_text = [](const Json& in, const char* key) {
        return in.is_object() && in.contains(key) && in[key].is_string();
    };
    if (!is_text(json, "config") || !json.contains("changes") || !json["changes"].is_array())
        return wrong;
    Planned planned;
    for (const Json& change : json["changes"]) {
        if (!is_text(change, "object") || !is_text(change, "was"))
            return wrong;
        planned.was[change["object"].get<std::string>()] = change["was"].get<std::string>();
    }
    planned.config =
        NETCTL_TRY(parse_config(sys::text_name(path), json["config"].get<std::string>()));
    return planned;
}

Json steps_json(const std::vector<Step>& steps) {
    Json json = Json::array();
    for (const Step& step : steps)
        json.push_back({{"object", step.title}, {"action", step.action}, {"lines", step.lines}});
    return json;
}

Text steps_text(const std::vector<Step>& steps) {
    Text text;
    for (const Step& step : steps) {
        text += Text::format("{}: {}\n", step.title, step.action);
        if (step.action != "remove")
            for (const std::string& line : step.lines)
                text += Text::format("  {}\n", line);
    }
    return text;
}

std::string count_of(std::size_t count, const char* one) {
    return fmt::format("{} {}{}", count, one, count == 1 ? "" : "s");
}

Result<HostConfig> config_of(const Arguments& arguments) {
    if (!arguments.given("FILE"))
        return Error::usage("FILE is missing", "a file, a folder of *.yaml files, or - for "
                                               "standard input");
    HostConfig config = NETCTL_TRY(read_config(arguments["FILE"]));
    if (arguments.has("prune"))
        config.prune = true;
    return config;
}

Result<int> check(const Arguments& arguments, Context& context) {
    const HostConfig config = NETCTL_TRY(config_of(arguments));
    std::size_t rules = 0;
    for (const FilterConfig& filter : config.filters)
        rules += filter.rules.size();
    if (config.policy)
        rules += config.policy->rules.size();
    if (config.redirect)
        rules += config.redirect->rules.size() + config.redirect->to.size();
    std::size_t loaded = 0;
    if (arguments.has("load")) {
        const Applied tried = NETCTL_TRY(
            apply(config, context.root, {.netns = context.netns, .dared = true, .rehearse = true}));
        context.out.notes(tried.notes);
        for (const Step& step : tried.steps)
            loaded += step.filter_to ? 1 : 0;
        context.out.note(Text::format("{} loaded and thrown away", count_of(loaded, "filter")));
    }
    context.out.document(
        {{"sets", config.sets.size()},
         {"filters", config.filters.size()},
         {"policy", config.policy.has_value()},
         {"redirect", config.redirect.has_value()},
         {"rule_count", rules}},
        Text::format("{}, {}, {}: no errors\n", count_of(config.sets.size(), "set"),
                     count_of(config.filters.size(), "filter"), count_of(rules, "rule")));
    return 0;
}

Result<int> show_plan(const Arguments& arguments, Context& context) {
    const auto made = [&]() -> Result<Plan> {
        return plan(NETCTL_TRY(config_of(arguments)), context.root, context.netns);
    };
    auto planned = made();
    if (!planned) {
        // 2 says that there are changes, so that words that are wrong are 1, too.
        Error error = std::move(planned).error();
        if (error.kind == ErrorKind::usage)
            error.kind = ErrorKind::failed;
        return error;
    }
    context.out.notes(planned->notes);
    const Text end = planned->steps.empty()
                         ? Text::format("nothing to change: {} as the file says\n",
                                        count_of(planned->objects, "object"))
                         : Text::format("{}\n", count_of(planned->steps.size(), "change"));
    context.out.document(context.out.json() ? NETCTL_TRY(plan_json(*planned)) : Json(),
                         steps_text(planned->steps) + end);
    return planned->steps.empty() ? 0 : 2;
}

Result<> save(const Context& context, const std::string& path) {
    const auto reading = NETCTL_TRY(datapath::OneReading::begin(context.root));
    return write_saved(path, NETCTL_TRY(config_text(NETCTL_TRY(read_present(context.root)))));
}

/// Lets what was done stay, and saves it for the next boot.
Result<int> confirm_and_save(const Arguments& arguments, const Context& context,
                             const std::string& id) {
    NETCTL_TRY(confirm(context.root, id));
    context.out.done("confirmed: all stays as it is");
    // Another root is a trial beside the host's own: what it has is not for the next boot unless that is said.
    const bool own = bpf::root_path(context.root.path).value_or("") == default_root;
    if (arguments.has("no-save") || (!own && !arguments.has("file")))
        return 0;
    const std::string path = arguments.get("file", saved_path);
    if (const auto saved = save(context, path))
        context.out.done(Text::format("saved to {}", path));
    else
        context.out.note(
            Text::format("confirmed, but not saved for the next boot: {}", saved.error().what));
    return 0;
}

/// What a probe decides: whether what was applied stays.
Result<int> judge_by(const Probe& probe, const Arguments& arguments, const Context& context,
                     const std::string& id, std::chrono::steady_clock::time_point end) {
    const auto probed = [&]() -> Result<> {
        const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(context.netns));
        return probe_until(probe, end);
    }();
    if (probed)
        return confirm_and_save(arguments, context, id);
    auto back = roll_back(context.root, id);
    // Whoever watches the time may have been faster.
    if (!back && has_journal(context.root))
        return std::move(back).error().within("the probe failed, and what was applied is in force");
    return Error(probed.error())
        .within(Text::format("all is as it was before, since the probe '{}' failed", probe.text));
}

Result<int> do_apply(const Arguments& arguments, Context& context) {
    if (arguments.has("schema")) {
        const std::string schema = config_schema();
        context.out.document(Json::parse(schema), Text::lines(schema));
        return 0;
    }
    ApplyOptions options{.netns = context.netns, .dared = arguments.has("yes")};
    if (arguments.has("confirm"))
        options.confirm_s = NETCTL_TRY(confirm_seconds("confirm", arguments.get("confirm")));
    std::optional<Probe> probe;
    if (arguments.has("probe")) {
        probe = NETCTL_TRY(parse_probe(arguments.get("probe")));
        if (options.confirm_s == 0)
            return Error::usage("--probe goes with --confirm TIME",
                                "the time in which the probe has to pass");
    }
    HostConfig config;
    if (arguments.has("plan")) {
        if (arguments.given("FILE") || arguments.has("prune"))
            return Error::usage("--plan has all that is to be done: without FILE and --prune");
        Planned planned = NETCTL_TRY(read_plan(arguments.get("plan")));
        config = std::move(planned.config);
        options.planned = std::move(planned.was);
    } else {
        config = NETCTL_TRY(config_of(arguments));
    }
    const auto probe_end =
        std::chrono::steady_clock::now() + std::chrono::seconds(options.confirm_s);
    const Applied applied = NETCTL_TRY(apply(config, context.root, options));
    context.out.notes(applied.notes);
    Text text = applied.steps.empty()
                    ? Text::format("nothing to change: {} as the file says\n",
                                   count_of(applied.objects, "object"))
                    : steps_text(applied.steps) +
                          Text::format("{} done\n", count_of(applied.steps.size(), "change"));
    const bool probing = probe && !applied.id.empty();
    int status = 0;
    if (probing)
        status = NETCTL_TRY(judge_by(*probe, arguments, context, applied.id, probe_end));
    if (!applied.id.empty() && !probing)
        text += Text::format("`netctl confirm {}` within {} s, or all becomes as it was\n",
                             applied.id, options.confirm_s);
    context.out.document(
        {{"changes", steps_json(applied.steps)},
         {"object_count", applied.objects},
         {"confirm_id", applied.id.empty() || probing ? Json() : Json(applied.id)}},
        text);
    return status;
}

Result<int> do_export(const Arguments&, Context& context) {
    const auto reading = NETCTL_TRY(datapath::OneReading::begin(context.root));
    const std::string text = NETCTL_TRY(config_text(NETCTL_TRY(read_present(context.root))));
    context.out.document({{"yaml", text}}, Text::lines(text));
    return 0;
}

Result<int> do_confirm(const Arguments& arguments, Context& context) {
    const std::string id = arguments["ID"];
    if (arguments.has("extend")) {
        const std::uint64_t seconds =
            NETCTL_TRY(confirm_seconds("extend", arguments.get("extend")));
        NETCTL_TRY(extend(context.root, id, seconds));
        context.out.done(Text::format("{} s to confirm, from now on", seconds));
        return 0;
    }
    return confirm_and_save(arguments, context, id);
}
/// Waits until the time is up, and goes back then; at an end as soon as somebody confirms.
Result<int> watch_over(const Context& context, const std::string& id) {
    // Without the lock until there is something to do, so that nobody waits for us. Whatever fails is tried again, as
    // long as there is a journal: others may hold the lock for longer than we wait for it.
    while (has_journal(context.root)) {
        const auto seen = peek_journal(context.root);
        if (seen && journal_name(seen->id) != id)
            break;
        if (seen && seen->deadline_ns <= boottime_ns() && finish_pending(context.root))
            break;
        std::this_thread::sleep_for(std::chrono::milliseconds(500));
    }
    return 0;
}

Result<int> do_rollback(const Arguments& arguments, Context& context) {
    if (arguments.has("if-unconfirmed"))
        return watch_over(context, arguments.get("if-unconfirmed"));
    if (arguments.has("forget")) {
        NETCTL_TRY(forget(context.root));
        return 0;
    }
    context.out.notes(NETCTL_TRY(roll_back(context.root, arguments["ID"])));
    context.out.done("all is as it was before the apply");
    return 0;
}

Result<int> do_save(const Arguments& arguments, Context& context) {
    const std::string path = arguments.get("file", saved_path);
    if (NETCTL_TRY(pending(context.root)))
        return Error::failed("an apply waits to be confirmed",
                             "what may go back is not saved: `netctl confirm` first");
    NETCTL_TRY(save(context, path));
    context.out.done(Text::format("saved to {}", path));
    return 0;
}

Result<int> do_restore(const Arguments& arguments, Context& context) {
    const std::string path = arguments.get("file", saved_path);
    const Restored restored =
        NETCTL_TRY(restore(NETCTL_TRY(read_config(path)), context.root, context.netns));
    context.out.notes(restored.notes);
    for (const std::string& title : restored.done)
        context.out.done(Text::format("{}: restored", title));
    if (restored.failed.empty())
        return 0;
    for (std::size_t i = 0; i + 1 < restored.failed.size(); i++)
        context.out.note(restored.failed[i]);
    return Error::failed(restored.failed.back(), "all else is restored");
}

const std::vector<Positional>& file_positional() {
    static const std::vector<Positional> one{{"FILE", Count::optional}};
    return one;
}

Option prune_option() {
    return {"prune", "", "also take away what the file does not name", {}};
}

Command plan_command(const char* name, const char* summary) {
    return {.name = name,
            .summary = summary,
            .description = "Exit status 0: nothing; 2: there are changes; 1: that could not be "
                           "told, or the file is wrong.",
            .positionals = file_positional(),
            .options = {prune_option()},
            .run = show_plan};
}

} // namespace

Result<std::uint64_t> confirm_seconds(const std::string& option, const std::string& text) {
    using std::chrono::seconds;
    constexpr std::chrono::hours week(7 * 24);
    const auto span = NETCTL_TRY(parse_duration(option, text, seconds(1), week));
    return static_cast<std::uint64_t>(std::chrono::ceil<seconds>(span).count());
}

std::vector<Command> apply_commands() {
    return {
        {.name = "check",
         .summary = "tell what is wrong with a configuration file; needs no privileges",
         .positionals = file_positional(),
         .options = {{"load",
                      "",
                      "also load the filters that would change into the kernel, and throw them "
                      "away; needs what apply needs",
                      {}}},
         .run = check},
        plan_command("plan", "show what apply would change"),
        plan_command("diff", "the same as plan"),
        {.name = "apply",
         .summary = "make the host be as a configuration file says",
         .description = "FILE is a file, a folder of *.yaml files, or - for standard input. "
                        "If a step fails, those before it are undone.",
         .positionals = file_positional(),
         .options =
             {prune_option(),
              {"confirm", "TIME", "go back after this time, unless it is confirmed", {}},
              {"plan",
               "FILE",
               "do what `netctl --json plan` wrote, unless what it is about has changed since",
               {}},
              {"probe",
               "PROBE",
               "with --confirm: `tcp HOST:PORT`, `http URL` or `command COMMAND` confirms when it "
               "passes; else all goes back",
               {}},
              {"yes", "", "also if it cuts off the ssh session that the command comes from", {}},
              {"schema", "", "print a JSON Schema of the file instead, for editors", {}}},
         .run = do_apply},
        {.name = "export",
         .summary = "print what is in force as a configuration file",
         .run = do_export},
        {.name = "confirm",
         .summary = "let what `apply --confirm` did stay",
         .positionals = {{"ID", Count::optional}},
         .options = {{"extend", "TIME", "do not confirm, but wait for so long from now on", {}},
                     {"file",
                      "FILE",
                      "save to this file (default: /var/lib/netctl/saved.yaml, and nothing of a "
                      "root that --root names)",
                      {}},
                     {"no-save", "", "do not save what is in force for the next boot", {}}},
         .run = do_confirm},
        {.name = "rollback",
         .summary = "go back to what was before `apply --confirm`",
         .positionals = {{"ID", Count::optional}},
         .options = {{"if-unconfirmed",
                      "ID",
                      "wait until its time is up, and go back unless it was confirmed",
                      {}},
                     {"forget", "", "leave all as it is, if going back does not work", {}}},
         .run = do_rollback},
        {.name = "save",
         .summary = "write what is in force to a file, for the next boot",
         .options = {{"file", "FILE", "which (default: /var/lib/netctl/saved.yaml)", {}}},
         .run = do_save},
        {.name = "restore",
         .summary = "put in force what was saved, as far as it can be had",
         .options = {{"file", "FILE", "which (default: /var/lib/netctl/saved.yaml)", {}}},
         .run = do_restore},
    };
}

} // namespace netctl::host
