// SPDX-License-Identifier: GPL-2.0-only
#include <algorithm>
#include <arpa/inet.h>
#include <fstream>
#include <map>
#include <pwd.h>
#include <unistd.h>

#include <fmt/format.h>

#include "core/command.hpp"
#include "core/json.hpp"
#include "core/rule_keys.hpp"
#include "datapath/rule_command.hpp"
#include "features/policy/controller.hpp"
#include "features/policy/test_command.hpp"
#include "sys/clock.hpp"
#include "sys/stop.hpp"
#include "sys/text_file.hpp"

namespace netctl::policy {

namespace {

using Count = Positional::Count;

Controller controller(const Context& context) {
    return Controller(context.root);
}

Result<int> enable(const Arguments& arguments, Context& context) {
    EnableRequest request;
    if (arguments.has("layer")) {
        const std::string layer = arguments.get("layer");
        request.layer = layer == "both"     ? LayerChoice::both
                        : layer == "cgroup" ? LayerChoice::cgroup
                        : layer == "lsm"    ? LayerChoice::lsm
                                            : LayerChoice::automatic;
    }
    if (arguments.has("cgroup"))
        request.cgroup = arguments.get("cgroup");
    if (arguments.has("mode"))
        request.mode =
            arguments.get("mode") == "audit" ? NC_POLICY_MODE_AUDIT : NC_POLICY_MODE_ENFORCE;
    if (arguments.has("default"))
        request.default_verdict =
            arguments.get("default") == "deny" ? NC_POLICY_DENY : NC_POLICY_ALLOW;
    if (arguments.has("log-rate"))
        request.log_rate = static_cast<std::uint32_t>(
            NETCTL_TRY(arguments.number("log-rate", 0, 1, 1'000'000'000)));
    if (arguments.has("rules")) {
        const std::string path = arguments.get("rules");
        request.rules = NETCTL_TRY(
            parse_rules(NETCTL_TRY(sys::read_text(path)), Hook::policy, sys::text_name(path)));
    }
    request.allow_missing = arguments.has("allow-missing");
    request.yes = arguments.has("yes");
    const EnableReport report = NETCTL_TRY(controller(context).enable(request));
    context.out.notes(report.notes);
    Json layers = Json::array();
    std::string names;
    for (const nc_policy_layer layer : {NC_LAYER_CGROUP, NC_LAYER_LSM})
        if (report.live[layer]) {
            layers.push_back(to_string(layer));
            names += (names.empty() ? "" : " and ") + to_string(layer);
        }
    context.out.document({{"layers", layers},
                          {"cgroup", report.scope},
                          {"mode", to_string(report.mode)},
                          {"default", to_string(report.default_verdict)},
                          {"rule_count", report.rules},
                          {"generation", report.generation}},
                         Text::format("policy {}: {} layer{}, cgroup {}, mode {}, default {}, {} "
                                      "rules\n",
                                      report.was_enabled ? "changed" : "enabled", names,
                                      layers.size() > 1 ? "s" : "", report.scope,
                                      to_string(report.mode), to_string(report.default_verdict),
                                      report.rules));
    return 0;
}

Result<int> disable(const Arguments&, Context& context) {
    context.out.notes(NETCTL_TRY(controller(context).disable()));
    context.out.done("policy disabled");
    return 0;
}

/// Everything that rules were asked about.
std::uint64_t judged(const nc_policy_stats& stats, nc_policy_layer layer) {
    return stats.allowed[layer] + stats.denied[layer] + stats.would_deny[layer];
}

Json layer_json(const Status& status, nc_policy_layer layer) {
    const nc_policy_stats& stats = status.stats;
    const LayerStatus& about = status.layers[layer];
    Json json{{"live", about.live}, {"why", about.live ? Json() : Json(about.why)}};
    json["judged"] = judged(stats, layer);
    json["allowed"] = stats.allowed[layer];
    json["denied"] = stats.denied[layer];
    json["would_deny"] = stats.would_deny[layer];
    json["by_default"] = stats.by_default[layer];
    json["over_limit"] = stats.over_limit[layer];
    json["failed"] = stats.failed[layer];
    json["astray"] = stats.astray[layer];
    return json;
}

Json status_json(const Status& status) {
    const nc_policy_head& settings = status.settings;
    Json rules = Json::array();
    for (const datapath::RuleStatus& rule : status.rules)
        rules.push_back(datapath::rule_json(rule, Hook::policy));
    return {{"enabled", true},
            {"mode", to_string(static_cast<nc_policy_mode>(settings.mode))},
            {"default", to_string(static_cast<nc_policy_verdict>(settings.default_verdict))},
            {"cgroup", status.scope},
            {"generation", settings.generation},
            {"layers",
             {{"cgroup", layer_json(status, NC_LAYER_CGROUP)},
              {"lsm", layer_json(status, NC_LAYER_LSM)}}},
            {"disconnects", status.stats.disconnects},
            {"other_family", status.stats.other_family},
            {"log",
             {{"rate", settings.log_rate},
              {"written", status.stats.log_written},
              {"lost", status.stats.log_lost},
              {"suppressed", status.stats.log_suppressed}}},
            {"seen_lost", status.stats.seen_lost},
            {"rules", rules},
            {"notes", status.notes}};
}

Text status_text(const Status& status) {
    const nc_policy_head& settings = status.settings;
    const nc_policy_stats& stats = status.stats;
    Text text = Text::format("policy: mode {}, default {}, cgroup {}, generation {}\n",
                             to_string(static_cast<nc_policy_mode>(settings.mode)),
                             to_string(static_cast<nc_policy_verdict>(settings.default_verdict)),
                             status.scope, settings.generation);
    for (const nc_policy_layer layer : {NC_LAYER_CGROUP, NC_LAYER_LSM}) {
        const LayerStatus& about = status.layers[layer];
        if (!about.live) {
            text += Text::format("  {} layer: not live: {}\n", to_string(layer), about.why);
            continue;
        }
        text += Text::format("  {} layer: {} connections judged: {} allowed, {} denied, {} by no "
                             "rule\n",
                             to_string(layer), judged(stats, layer), stats.allowed[layer],
                             stats.denied[layer], stats.by_default[layer]);
        const auto rare = [&](std::uint64_t count, const char* what) {
            if (count != 0)
                text += Text::format("    {} {}\n", count, what);
        };
        rare(stats.would_deny[layer], "would have been denied, but the mode is audit");
        rare(stats.over_limit[layer], "over a rule's limit (denied)");
        rare(stats.failed[layer], "met a broken table (denied)");
        rare(stats.astray[layer], "went to 0.0.0.0 by an interface (denied)");
    }
    const auto rare = [&](std::uint64_t count, const char* what) {
        if (count != 0)
            text += Text::format("  {} {}\n", count, what);
    };
    rare(stats.disconnects, "disconnects, which are allowed");
    rare(stats.other_family, "of other address families, which are allowed");
    rare(stats.log_written, "log events written");
    rare(stats.log_lost, "log events lost: the buffer was full");
    rare(stats.log_suppressed, "log events left out: above the log's rate");
    rare(stats.seen_lost, "not remembered for `policy learn`: no room");
    for (const std::string& note : status.notes)
        text += Text::format("  {}\n", note);
    if (!status.rules.empty())
        text += datapath::rule_table(status.rules, "  ", Hook::policy);
    return text;
}

Result<int> status(const Arguments&, Context& context) {
    const Status status = NETCTL_TRY(controller(context).status());
    if (!status.enabled) {
        if (status.unfinished)
            context.out.note("a command that was interrupted left hooks, which let everything "
                             "pass: `netctl policy disable` takes them away");
        context.out.document({{"enabled", false}}, Text::format("the policy is not enabled\n"));
        return 0;
    }
    context.out.document(status_json(status), status_text(status));
    return status.lost ? 1 : 0;
}

// ---- log ----

std::string user_name(std::uint32_t uid) {
    const passwd* user = getpwuid(uid);
    return user ? user->pw_name : std::to_string(uid);
}

Address event_address(const nc_policy_event& event) {
    Address address;
    address.family = event.family == 4 ? Family::ipv4 : Family::ipv6;
    std::copy_n(reinterpret_cast<const std::uint8_t*>(event.dst), event.family == 4 ? 4 : 16,
                address.bytes.begin());
    return address;
}

std::string destination_text(const Address& address, std::uint8_t proto, std::uint16_t port) {
    if (!has_ports(proto))
        return address.to_string();
    return address.family == Family::ipv6 ? fmt::format("[{}]:{}", address.to_string(), port)
                                          : fmt::format("{}:{}", address.to_string(), port);
}

bool print_event(const Context& context, const LogEvent& logged, std::int64_t offset) {
    const nc_policy_event& event = logged.event;
    const std::uint64_t time = event.time_ns + static_cast<std::uint64_t>(offset);
    const auto verdict = static_cast<nc_policy_verdict>(event.verdict);
    const auto reason = static_cast<nc_policy_reason>(event.reason);
    const auto hook = static_cast<nc_policy_hook>(event.hook);
    const std::string layer =
        to_string(event.hook < NC_HOOK_LSM_CONNECT ? NC_LAYER_CGROUP : NC_LAYER_LSM);
    const Address address = event_address(event);
    const bool ports = has_ports(event.proto);
    const Json none;
    Json json{{"time", sys::iso_time(time)},
              {"verdict", to_string(verdict)},
              {"enforced", event.enforced != 0},
              {"reason", to_string(reason)},
              {"layer", layer},
              {"hook", to_string(hook)},
              {"generation", event.generation},
              {"pid", event.pid},
              {"tgid", event.tgid},
              {"comm", event.comm},
              {"exe", logged.exe},
              {"uid", event.uid},
              {"gid", event.gid},
              {"cgroup", logged.cgroup},
              {"cgroup_id", event.cgroup_id},
              {"proto", protocol_name(event.proto)},
              {"dst", address.to_string()},
              {"dport", ports ? Json(event.dport) : none},
              {"sport", event.sport != 0 ? Json(event.sport) : none},
              {"rule_id", event.rule_id != NC_NO_RULE ? Json(event.rule_id) : none}};
    const std::string by = reason == NC_POLICY_BY_RULE || reason == NC_POLICY_BY_LIMIT
                               ? fmt::format("rule {}", event.rule_id)
                               : to_string(reason);
    return context.out.line(
        json, fmt::format(
                  "{} {}{} by {}{}: {} {} from {} ({}, {}) of {} in {}, {} layer",
                  sys::time_text(time), event.enforced ? "" : "would ", to_string(verdict), by,
                  reason == NC_POLICY_BY_LIMIT ? " (over its limit)" : "",
                  protocol_name(event.proto), destination_text(address, event.proto, event.dport),
                  event.comm, event.tgid, logged.exe, user_name(event.uid),
                  logged.cgroup.empty() ? fmt::format("cgroup {}", event.cgroup_id) : logged.cgroup,
                  layer));
}

Result<int> log(const Arguments& arguments, Context& context) {
    const std::uint64_t most = NETCTL_TRY(arguments.number("count", 0, 1, std::uint64_t{1} << 62));
    const std::int64_t offset = sys::boottime_offset();
    std::uint64_t seen = 0;
    sys::catch_stop_signals();
    NETCTL_TRY(controller(context).read_log(
        [&](const LogEvent& logged) {
            return print_event(context, logged, offset) && ++seen != most;
        },
        arguments.has("follow"), [] { return !sys::stop_requested(); }));
    return 0;
}

// ---- learn ----

Result<int> learn(const Arguments& arguments, Context& context) {
    const auto learnt = NETCTL_TRY(controller(context).learn(arguments.has("forget")));
    Json json = Json::array();
    Text text;
    for (const Learnt& one : learnt) {
        json.push_back(
            {{"rule_text", to_string(one.rule)}, {"count", one.count}, {"comm", one.who}});
        // Names of processes are whatever these say: none gets into a file of rules.
        text += Text::format(
            "# {} connections{}\n{}\n", one.count,
            one.rule.find(Key::exe) != nullptr ? "" : ", of an executable that was not found again",
            to_string(one.rule));
    }
    context.out.document(json, text);
    return 0;
}

/// A command and those below it, refused where somebody might think that it was about one network.
Command of_all_networks(Command command) {
    for (Command& child : command.children)
        child = of_all_networks(std::move(child));
    if (command.run)
        command.run = [run = std::move(command.run)](const Arguments& arguments,
                                                     Context& context) -> Result<int> {
            if (!context.netns.empty())
                return Error::usage(
                    "--netns does not go with `policy`, which is about processes in "
                    "all network namespaces",
                    "`enable --cgroup PATH` says which processes it is about");
            return run(arguments, context);
        };
    return command;
}

} // namespace

const Command& command() {
    static const std::vector<Option> missing{
        {"allow-missing", "", "take rules on a cgroup or executable that does not exist", {}}};
    static const std::vector<Option> yes{
        {"yes", "", "even if it refuses connections to where the caller comes from", {}}};
    static const Command policy = of_all_networks(
        {.name = "policy",
         .summary = "say which processes may connect where",
         .children = {
             {.name = "enable",
              .summary = "put the policy in force, or change its settings while it is",
              .description =
                  "Without rules, everything gets the default. A policy that is in force "
                  "keeps its rules, layers and cgroup; executables are looked for again.",
              .options =
                  {{"layer",
                    "auto|both|lsm|cgroup",
                    "where to ask: cgroup hooks, security hooks, both, or what the kernel has "
                    "(default: auto)",
                    {"auto", "both", "lsm", "cgroup"}},
                   {"cgroup", "PATH", "only for this cgroup and those below it (default: all)", {}},
                   {"mode",
                    "enforce|audit",
                    "deny, or only report what would be denied (default: enforce)",
                    {"enforce", "audit"}},
                   {"default",
                    "allow|deny",
                    "verdict on what no rule matches (default: allow)",
                    {"allow", "deny"}},
                   {"rules", "FILE", "rules that are in force from the first moment", {}},
                   {"log-rate", "N", "log events a second at most (default: 10000)", {}},
                   missing.front(),
                   yes.front()},
              .run = enable},
             {.name = "disable",
              .summary = "allow everything again and forget the rules",
              .run = disable},
             {.name = "status",
              .summary = "show layers, settings, counters and rules",
              .run = status},
             datapath::rule_command(
                 Hook::policy, {},
                 [](const Arguments& arguments, const Context& context) {
                     return controller(context).edit(
                         {.allow_missing = arguments.has("allow-missing"),
                          .yes = arguments.has("yes")});
                 },
                 missing, yes),
             {.name = "log",
              .summary = "print denials, audits, and what rules with `log` decided",
              .options = {{"follow", "", "go on until the policy is disabled", {}},
                          {"count", "N", "stop after so many", {}}},
              .run = log},
             test_command(),
             explain_command(),
             {.name = "learn",
              .summary = "print rules that allow what the mode audit let pass",
              .options = {{"forget", "", "begin anew", {}}},
              .run = learn},
         }});
    return policy;
}

} // namespace netctl::policy
