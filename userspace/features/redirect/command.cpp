// SPDX-License-Identifier: GPL-2.0-only
#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "core/command.hpp"
#include "core/json.hpp"
#include "core/rule_keys.hpp"
#include "features/redirect/bench.hpp"
#include "features/redirect/bench_target.hpp"
#include "features/redirect/controller.hpp"
#include "features/redirect/selftest.hpp"
#include "features/redirect/targets.hpp"
#include "sys/clock.hpp"
#include "sys/netns.hpp"
#include "sys/stop.hpp"

namespace netctl::redirect {

namespace {

using Count = Positional::Count;

/// Starts `netctl redirect run` detached from this process and waits until it listens.
Result<> start_joiner(const Controller& controller, const Context& context) {
    if (NETCTL_TRY(controller.joiner_runs()))
        return {};
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return Error::system(errno, "pipe");
    const Fd alive(ends[0]); // at its end once the joiner has ended
    Fd held(ends[1]);
    const pid_t child = fork();
    if (child < 0)
        return Error::system(errno, "cannot start the joiner");
    if (child == 0) {
        setsid();
        if (fork() != 0)
            _exit(0);
        const int null = open("/dev/null", O_RDWR);
        for (const int fd : {0, 1, 2})
            dup2(null, fd);
        const int kept = dup(held.get()); // without close-on-exec
        (void)kept;
        if (chdir("/") != 0)
            _exit(1);
        execl("/proc/self/exe", "netctl", "--root", context.root.path.c_str(), "redirect", "run",
              static_cast<char*>(nullptr));
        _exit(1);
    }
    held.reset();
    waitpid(child, nullptr, 0);
    while (!NETCTL_TRY(controller.joiner_runs())) {
        pollfd entry{alive.get(), POLLIN, 0};
        if (poll(&entry, 1, 20) != 0)
            return Error::failed("the joiner ended at once", "netctl redirect run says why");
    }
    return {};
}

std::string mode_name(bool allow_blocking, bool cross_netns) {
    return fmt::format("{}{}",
                       allow_blocking ? "blocking sockets too" : "non-blocking sockets only",
                       cross_netns ? ", across network namespaces" : "");
}

EnableOptions enable_options(const Arguments& arguments) {
    EnableOptions options;
    options.cgroup = arguments.get("cgroup");
    options.allow_blocking = arguments.has("allow-blocking");
    options.cross_netns = arguments.has("cross-netns");
    if (arguments.has("force")) {
        std::string list = arguments.get("force");
        for (std::size_t begin = 0; begin <= list.size();) {
            const std::size_t end = std::min(list.find(',', begin), list.size());
            options.force.push_back(list.substr(begin, end - begin));
            begin = end + 1;
        }
    }
    return options;
}

Result<int> enable(const Arguments& arguments, Context& context) {
    const EnableOptions options = enable_options(arguments);
    Controller controller(context.root);
    const Controller::Enabled enabled = NETCTL_TRY(controller.enable(options));
    context.out.notes(enabled.notes);
    const bool run = arguments.has("run");
    if (run)
        NETCTL_TRY(start_joiner(controller, context));
    const std::string mode = mode_name(options.allow_blocking, options.cross_netns);
    context.out.document(
        {{"cgroup", enabled.cgroup},
         {"allow_blocking", options.allow_blocking},
         {"cross_netns", options.cross_netns},
         {"joiner", run}},
        Text::format("redirection is enabled on the cgroup {}, {}\n{}", enabled.cgroup, mode,
                     run ? Text()
                         : Text::format("connections join while `netctl redirect run` runs\n")));
    return 0;
}

Result<int> disable(const Arguments& arguments, Context& context) {
    const auto seconds = NETCTL_TRY(arguments.number("timeout", 10, 0, 3600));
    Controller controller(context.root);
    const bool was = NETCTL_TRY(controller.disable(static_cast<unsigned>(seconds * 1000)));
    context.out.done(was ? "redirection is disabled" : "redirection was not enabled");
    return 0;
}

Result<int> run(const Arguments& arguments, Context& context) {
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(context.netns));
    sys::catch_stop_signals();
    Controller controller(context.root);
    NETCTL_TRY(controller.run(
        arguments.has("wait"), sys::stop_requested, [&] { context.out.done("joining"); },
        [&](const std::string& trouble) { context.out.note(trouble); }));
    return 0;
}

Result<int> status(const Arguments&, Context& context) {
    const Status status = NETCTL_TRY(Controller(context.root).status());
    if (!status.enabled) {
        if (status.unfinished)
            context.out.note("a command that was interrupted left hooks, which redirect nothing: "
                             "`netctl redirect disable` takes them away");
        context.out.document({{"enabled", false}}, Text::format("redirection is not enabled\n"));
        return 0;
    }
    const nc_rd_stats& stats = status.stats;
    Json on_tcp = Json::object();
    Text reasons;
    for (std::uint32_t reason = 1; reason < NC_RD_REASONS; reason++) {
        on_tcp[reason_name(reason)] = stats.on_tcp[reason];
        if (stats.on_tcp[reason] != 0)
            reasons += Text::format("  {:>10}  {}\n", stats.on_tcp[reason], reason_name(reason));
    }
    const Json json{{"enabled", true},
                    {"draining", status.draining},
                    {"cgroup", status.cgroup},
                    {"live", status.live},
                    {"allow_blocking", status.allow_blocking},
                    {"cross_netns", status.cross_netns},
                    {"forced", status.forced},
                    {"mends_fionread", status.mends_fionread},
                    {"joiner", status.joiner},
                    {"rules", status.rules},
                    {"to_rules", status.to_rules},
                    {"to_asked", status.to_asked},
                    {"to_down", status.to_down},
                    {"joined_now", status.joined},
                    {"leaving_now", status.leaving},
                    {"announced", stats.announced},
                    {"joined", stats.joined},
                    {"redirected_messages", stats.redirected_messages},
                    {"redirected_bytes", stats.redirected_bytes},
                    {"passed_messages", stats.passed_messages},
                    {"passed_bytes", stats.passed_bytes},
                    {"turns", stats.turns},
                    {"on_tcp", on_tcp},
                    {"removed", stats.removed},
                    {"removed_by_timer", stats.removed_by_timer},
                    {"helper_failed", stats.helper_failed},
                    {"rewritten", stats.rewritten},
                    {"rewritten_datagrams", status.to_stats.datagrams},
                    {"forgotten_targets", status.to_stats.forgotten},
                    {"loops", stats.loops},
                    {"tried_again", stats.tried_again}};
    Text text =
        Text::format("cgroup {}, {}{}{}{}\n", status.cgroup,
                     mode_name(status.allow_blocking, status.cross_netns),
                     status.draining ? ", being disabled" : "",
                     status.forced ? ", forced although a case of the self-test failed" : "",
                     status.mends_fionread ? ", FIONREAD corrected" : "");
    if (!status.live)
        text += Text::format(
            "not live: the cgroup is gone; `netctl redirect enable --cgroup …` puts it on "
            "another, with its rules\n");
    text +=
        Text::format("{}\n", status.joiner ? "joiner runs"
                                           : "no joiner runs: nothing joins (netctl redirect run)");
    if (status.rules == 0)
        text += Text::format("no rules: nothing is redirected (netctl redirect rule add …)\n");
    else
        text += Text::format("{} rule{}\n", status.rules, status.rules == 1 ? "" : "s");
    text += Text::format("{} connections joined now, {} leaving; {} announced, {} joined so far\n",
                         status.joined, status.leaving, stats.announced, stats.joined);
    text += Text::format("{} messages ({} bytes) redirected, {} ({} bytes) passed by TCP\n",
                         stats.redirected_messages, stats.redirected_bytes, stats.passed_messages,
                         stats.passed_bytes);
    if (status.to_rules != 0 || stats.rewritten != 0 || status.to_stats.datagrams != 0)
        text +=
            Text::format("{} rule{} of `to`: {} connections and {} datagrams went elsewhere, {} "
                         "left alone as they would have come back\n",
                         status.to_rules, status.to_rules == 1 ? "" : "s", stats.rewritten,
                         status.to_stats.datagrams, stats.loops);
    if (status.to_asked != 0)
        text +=
            Text::format("{} of {} targets that are asked {} down (netctl redirect to list)\n{}",
                         status.to_down, status.to_asked, status.to_down == 1 ? "is" : "are",
                         status.joiner ? ""
                                       : "nobody asks them, so that stays: netctl redirect "
                                         "run\n");
    if (status.to_stats.forgotten != 0)
        text += Text::format("{} targets forgotten by sockets that sent to more than {}\n",
                             status.to_stats.forgotten, NC_RD_TO_SENT);
    if (stats.helper_failed != 0)
        text += Text::format("{} calls of kernel helpers failed\n", stats.helper_failed);
    if (!reasons.empty())
        text += Text::format("refused or left, by reason:\n{}", reasons);
    context.out.document(json, text);
    return status.live ? 0 : 1;
}

std::string endpoint(const Address& address, std::uint16_t port) {
    return address.family == Family::ipv6 ? fmt::format("[{}]:{}", address.to_string(), port)
                                          : fmt::format("{}:{}", address.to_string(), port);
}

Result<int> list(const Arguments&, Context& context) {
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(context.netns));
    const std::vector<Connection> all = NETCTL_TRY(Controller(context.root).list());
    Json json = Json::array();
    TextTable table({{"STATE"},
                     {"REASON"},
                     {"LOCAL"},
                     {"REMOTE"},
                     {"PROCESSES"},
                     {"REDIRECTED", true},
                     {"BYTES", true},
                     {"PASSED", true}});
    for (const Connection& one : all) {
        Json ends = Json::array();
        std::string processes;
        for (const Connection::End& end : one.ends) {
            ends.push_back({{"pid", end.pid},
                            {"process", end.name},
                            {"redirected_messages", end.redirected_messages},
                            {"redirected_bytes", end.redirected_bytes},
                            {"passed_messages", end.passed_messages},
                            {"passed_bytes", end.passed_bytes}});
            processes += processes.empty() ? "" : " - ";
            processes += end.pid != 0 ? fmt::format("{}[{}]", end.name, end.pid) : "?";
        }
        const std::string elsewhere = one.cross_netns ? " (another netns)" : "";
        json.push_back({{"state", one.state},
                        {"reason", one.reason},
                        {"local", one.local.to_string()},
                        {"local_port", one.local_port},
                        {"remote", one.remote.to_string()},
                        {"remote_port", one.remote_port},
                        {"cross_netns", one.cross_netns},
                        {"ends", ends}});
        table.row(
            {one.state, one.reason.empty() ? "-" : one.reason, endpoint(one.local, one.local_port),
             endpoint(one.remote, one.remote_port) + elsewhere, processes,
             std::to_string(one.ends[0].redirected_messages + one.ends[1].redirected_messages),
             std::to_string(one.ends[0].redirected_bytes + one.ends[1].redirected_bytes),
             std::to_string(one.ends[0].passed_messages + one.ends[1].passed_messages)});
    }
    context.out.document(json, table.empty() ? "" : table.render());
    return 0;
}

Result<int> selftest(const Arguments&, Context& context) {
    const std::vector<SelftestCase> results = NETCTL_TRY(run_selftest(NC_RD_CROSS_NETNS));
    Json json = Json::array();
    Text text;
    bool all = true;
    for (const SelftestCase& one : results) {
        all = all && (one.passed || one.avoided || one.mended);
        json.push_back({{"case", one.name},
                        {"about", one.about},
                        {"passed", one.passed},
                        {"avoided", one.avoided},
                        {"mended", one.mended},
                        {"detail", one.detail}});
        text += Text::format("{:<7} {:<20} {}\n",
                             one.passed    ? "ok"
                             : one.avoided ? "avoided"
                             : one.mended  ? "mended"
                                           : "FAILED",
                             one.name, one.about);
        if (!one.passed)
            text += Text::format("{:<28} {}\n", "", one.detail);
    }
    context.out.document(json, text);
    return all ? 0 : 3;
}

Result<Rule> read_rule(const Arguments& arguments, Hook hook, const char* example) {
    if (arguments.rest().empty())
        return Error::usage("the rule is missing", fmt::format("for example: {}", example));
    return parse_rule(rule_text(arguments.rest()), hook);
}

Result<int> rule_add(const Arguments& arguments, Context& context, bool first) {
    const Rule rule = NETCTL_TRY(read_rule(arguments, Hook::redirect, "allow"));
    const std::uint32_t id = NETCTL_TRY(Controller(context.root).add_rule(rule, first));
    context.out.document({{"rule_id", id}, {"rule_text", to_string(rule)}},
                         Text::format("{}: {}\n", id, to_string(rule)));
    return 0;
}

Result<std::uint32_t> rule_number(const std::string& word, const char* where) {
    if (word.empty() || word.size() > 9 ||
        word.find_first_not_of("0123456789") != std::string::npos)
        return Error::usage(fmt::format("'{}' is no rule's number", word),
                            fmt::format("{} shows them", where));
    return static_cast<std::uint32_t>(std::stoul(word));
}

void show_rules(const std::vector<Controller::ListedRule>& rules, Context& context) {
    Json json = Json::array();
    Text text;
    for (const Controller::ListedRule& rule : rules) {
        json.push_back({{"rule_id", rule.id}, {"rule_text", rule.text}});
        text += Text::format("{}: {}\n", rule.id, rule.text);
    }
    context.out.document(json, text);
}

Result<int> rule_delete(const Arguments& arguments, Context& context) {
    const std::uint32_t id = NETCTL_TRY(rule_number(arguments["ID"], "netctl redirect rule list"));
    NETCTL_TRY(Controller(context.root).delete_rule(id));
    context.out.done(fmt::format("rule {} deleted", id));
    return 0;
}

Result<int> rule_flush(const Arguments&, Context& context) {
    NETCTL_TRY(Controller(context.root).flush_rules());
    context.out.done("all rules deleted: nothing is redirected");
    return 0;
}

Result<int> rule_list(const Arguments&, Context& context) {
    show_rules(NETCTL_TRY(Controller(context.root).rules()), context);
    return 0;
}

Result<int> to_add(const Arguments& arguments, Context& context) {
    const Rule rule =
        NETCTL_TRY(read_rule(arguments, Hook::to, "dst 127.0.0.1 dport 80 target 127.0.0.1:8080"));
    const std::uint32_t id = NETCTL_TRY(Controller(context.root).add_to(rule));
    context.out.document({{"rule_id", id}, {"rule_text", to_string(rule)}},
                         Text::format("{}: {}\n", id, to_string(rule)));
    return 0;
}

Result<int> to_delete(const Arguments& arguments, Context& context) {
    const std::uint32_t id = NETCTL_TRY(rule_number(arguments["ID"], "netctl redirect to list"));
    NETCTL_TRY(Controller(context.root).delete_to(id));
    context.out.done(fmt::format("{} deleted", id));
    return 0;
}

/// Seconds since it was asked last.
std::uint64_t asked_ago(const nc_rd_to_health& health) {
    const auto now = static_cast<std::uint64_t>(sys::monotonic_now());
    return (now - std::min<std::uint64_t>(health.asked_ns, now)) / 1'000'000'000;
}

Json health_json(const nc_rd_to_health& health) {
    return {{"state", state_name(health)},
            {"why", why_not(health)},
            {"asked", health.asked},
            {"unanswered", health.unanswered},
            {"asked_seconds_ago", health.asked != 0 ? Json(asked_ago(health)) : Json()}};
}

std::string health_text(const nc_rd_to_health& health) {
    if (health.asked == 0)
        return ", not asked yet";
    const std::string why = why_not(health);
    return fmt::format(", {}{}{}, asked {} s ago", state_name(health), why.empty() ? "" : ": ", why,
                       asked_ago(health));
}

Result<int> to_list(const Arguments&, Context& context) {
    Json json = Json::array();
    Text text;
    for (const Controller::ListedTo& one : NETCTL_TRY(Controller(context.root).to_list())) {
        Json targets = Json::array();
        text += Text::format("{}: {}\n", one.rule.id, one.rule.text);
        for (const auto& [target, connections, datagrams, health] : one.targets) {
            targets.push_back({{"target", to_string(target)},
                               {"weight", target.weight},
                               {"connections", connections},
                               {"datagrams", datagrams},
                               {"health", health ? health_json(*health) : Json()}});
            text += Text::format("  {}: {} connections, {} datagrams{}\n", to_string(target),
                                 connections, datagrams, health ? health_text(*health) : "");
        }
        if (one.failed.refused != 0 || one.failed.opened != 0)
            text += Text::format("  all down: {} refused, {} went where they asked for\n",
                                 one.failed.refused, one.failed.opened);
        json.push_back({{"rule_id", one.rule.id},
                        {"rule_text", one.rule.text},
                        {"targets", targets},
                        {"refused", one.failed.refused},
                        {"opened", one.failed.opened}});
    }
    context.out.document(json, text);
    return 0;
}

Result<BenchReport> bench_target(const Arguments& arguments, const BenchOptions& own,
                                 Context& context) {
    if (own.stream)
        return Error::usage("--stream does not go with --target");
    if (arguments.has("size") && arguments.has("send"))
        return Error::usage("--size does not go with --send");
    if (NETCTL_TRY(Controller(context.root).status()).enabled)
        return Error::failed("redirection is enabled, so there would be nothing to compare with",
                             "netctl redirect disable; --target brings its own for the while");
    TargetOptions options;
    options.target = arguments.get("target");
    options.size = own.size;
    options.rounds = own.rounds;
    options.connections = own.connections;
    options.enable = enable_options(arguments);
    if (arguments.has("send")) {
        options.request = NETCTL_TRY(unescape(arguments.get("send")));
        if (options.request.empty())
            return Error::usage("--send: an empty request");
    }
    return run_target_bench(options);
}

Result<int> bench(const Arguments& arguments, Context& context) {
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(context.netns));
    BenchOptions options;
    options.size = NETCTL_TRY(arguments.number("size", 64, 1, 1 << 20));
    options.rounds = static_cast<unsigned>(NETCTL_TRY(arguments.number("rounds", 15, 3, 1000)));
    options.connections =
        static_cast<unsigned>(NETCTL_TRY(arguments.number("connections", 4, 1, 16)));
    options.stream = arguments.has("stream");
    if (options.stream && arguments.has("connections"))
        return Error::usage("--connections does not go with --stream");
    const bool target = arguments.has("target");
    for (const char* only : {"send", "cgroup", "allow-blocking", "cross-netns", "force"})
        if (!target && arguments.has(only))
            return Error::usage(fmt::format("--{} is for --target", only));
    const BenchReport report =
        NETCTL_TRY(target ? bench_target(arguments, options, context) : run_bench(options));
    context.out.notes(report.notes);
    Json json = Json::array();
    Text text;
    for (const BenchReport::Line& line : report.lines) {
        json.push_back(to_json(line));
        text += Text::format("{}: TCP {:.2f} {}, redirected {:.2f}: ratio {:.2f}; TCP against "
                             "itself {:.2f} to {:.2f}",
                             case_name(line), line.tcp, line.unit, line.redirected, line.ratio,
                             line.control_low, line.control_high);
        if (line.unix_socket != 0)
            text += Text::format("; Unix socket {:.2f}", line.unix_socket);
        text += Text::format("\n");
    }
    context.out.document({{"size", options.size},
                          {"stream", options.stream},
                          {"rounds", options.rounds},
                          {"results", json},
                          {"verdict", report.verdict}},
                         text + Text::format("{}\n", report.verdict));
    return 0;
}

Command make_rule_command() {
    Command rule{"rule", "say which connections may be redirected",
                 "Rules are asked in order; the first that matches decides. Without a rule that "
                 "allows it, a connection stays on TCP.\n\n"
                 "A rule is [dst ADDRESS[/LENGTH]] [dport PORT|LOW-HIGH] [cgroup PATH] [exe PATH] "
                 "[allow|deny] [comment TEXT], in the language of all rules; dst and dport may be "
                 "lists. They are what the client connected to; cgroup and exe match if either end "
                 "has them. A change other than an appended rule makes all "
                 "joined connections go back to TCP."};
    rule.children.push_back({"add",
                             "append a rule",
                             "",
                             {{"RULE", Count::rest}},
                             {},
                             [](const Arguments& a, Context& c) { return rule_add(a, c, false); },
                             {},
                             rule_help(Hook::redirect)});
    rule.children.push_back({"insert",
                             "put a rule in front of all others",
                             "",
                             {{"RULE", Count::rest}},
                             {},
                             [](const Arguments& a, Context& c) { return rule_add(a, c, true); },
                             {},
                             rule_help(Hook::redirect)});
    rule.children.push_back({"delete", "delete a rule", "", {{"ID"}}, {}, rule_delete});
    rule.children.push_back({"flush", "delete all rules", "", {}, {}, rule_flush});
    rule.children.push_back({"list", "show the rules in order", "", {}, {}, rule_list});
    return rule;
}

Command make_to_command() {
    Command to{"to", "have connections and datagrams to one address go to another",
               "dst ADDRESS[/LENGTH] [dport PORT|LOW-HIGH] [proto tcp|udp] [cgroup PATH] target "
               "ADDRESS:PORT[,…] [weight N,…] [by source] [health tcp|http PATH [every TIME] [fail "
               "open|refuse]] [comment TEXT]; dst, dport and proto may "
               "be lists. TCP, and UDP with "
               "sockets that are connected or not. The client's getpeername and recvfrom and "
               "the server's SO_ORIGINAL_DST tell the first address. A process that has the "
               "target's socket open is left alone."};
    to.children.push_back(
        {"add", "append one", "", {{"RULE", Count::rest}}, {}, to_add, {}, rule_help(Hook::to)});
    to.children.push_back({"delete", "delete one", "", {{"ID"}}, {}, to_delete});
    to.children.push_back(
        {"list",
         "show them in order, with what went to each target, and whether it is up",
         "",
         {},
         {},
         to_list});
    return to;
}

Command make_command() {
    Command redirect{"redirect", "let local TCP connections skip the TCP/IP stack"};
    redirect.children = {
        {"enable",
         "load the programs and attach them to a cgroup",
         "Runs the self-test first, and refuses where the kernel would break applications.",
         {},
         {{"cgroup", "PATH", "cgroup whose processes it is for (default: all)", {}},
          {"allow-blocking", "", "also join blocking sockets, which may notice it", {}},
          {"cross-netns", "", "also join ends in different network namespaces", {}},
          {"force",
           "CASE,…",
           "enable although these cases of the self-test fail; `all` does not run it",
           {}},
          {"run", "", "start the joiner too, detached", {}}},
         enable},
        {"disable",
         "take every connection back to TCP and remove the programs",
         "",
         {},
         {{"timeout", "SECONDS", "how long to wait for readers (default: 10)", {}}},
         disable},
        {"run",
         "join connections and ask targets, until told to stop or disabled",
         "",
         {},
         {{"wait", "", "wait until it is enabled, also again", {}}},
         run},
        {"status", "show settings and counters", "", {}, {}, status},
        {"list", "show connections: joined, or on TCP and why", "", {}, {}, list},
        {"selftest", "prove on this kernel what redirection relies on", "", {}, {}, selftest},
        {"bench",
         "measure whether it is worth it here",
         "With connections of its own, or with those to a server that is there already. The "
         "options from --send on are for the latter.",
         {},
         {{"size", "BYTES", "of a message (default: 64)", {}},
          {"stream", "", "one way without answers, instead of requests and responses", {}},
          {"rounds", "N", "alternating rounds (default: 15)", {}},
          {"connections", "N", "at once, measured besides a single one (default: 4)", {}},
          {"target", "HOST:PORT", "a server: one that echoes lines, or see --send", {}},
          {"send",
           "TEXT",
           "a request that the server answers alike each time; knows \\r \\n \\t \\0 \\xHH",
           {}},
          {"cgroup", "PATH", "a cgroup that the server is in (default: the root)", {}},
          {"allow-blocking", "", "as for enable", {}},
          {"cross-netns", "", "as for enable", {}},
          {"force", "CASE,…", "as for enable", {}}},
         bench},
        make_rule_command(),
        make_to_command()};
    return redirect;
}

} // namespace

const Command& command() {
    static const Command made = make_command();
    return made;
}

} // namespace netctl::redirect
