// SPDX-License-Identifier: GPL-2.0-only
#include "features/policy/test_command.hpp"

#include <charconv>
#include <grp.h>
#include <netdb.h>
#include <pwd.h>
#include <unistd.h>

#include <fmt/format.h>

#include "core/json.hpp"
#include "core/rule_keys.hpp"
#include "features/policy/controller.hpp"
#include "sys/cgroup.hpp"
#include "sys/process.hpp"

namespace netctl::policy {

namespace {

Result<std::uint32_t> number_of(const std::string& text, std::uint32_t most, const char* what) {
    std::uint32_t number = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (status == std::errc{} && end == text.data() + text.size() && number <= most)
        return number;
    return Error::usage(fmt::format("'{}' is no {}", text, what),
                        fmt::format("allowed: a name, or 0 to {}", most));
}

Result<std::uint8_t> protocol_of(const std::string& text) {
    for (const NamedRange& name : info(Key::proto).names)
        if (name.name == text)
            return static_cast<std::uint8_t>(name.low);
    auto number = number_of(text, 255, "protocol");
    if (!number)
        return std::move(number).error();
    return static_cast<std::uint8_t>(*number);
}

Result<std::uint16_t> port_of(const std::string& text) {
    if (const servent* service = getservbyname(text.c_str(), nullptr))
        return ntohs(static_cast<std::uint16_t>(service->s_port));
    return static_cast<std::uint16_t>(NETCTL_TRY(number_of(text, 65535, "port")));
}

/// Name of a cgroup: as rules have it, or its directory's. It need not be there, nor need those of rules.
Result<std::string> cgroup_of(const std::string& text) {
    if (const auto found = sys::find_cgroup(text))
        return found->name;
    if (!text.starts_with("/"))
        return Error::usage(fmt::format("'{}' is no path of a cgroup", text),
                            "for example: /system.slice/web.service");
    return text;
}

/// Where to: DST, PORT, PROTO and --sport.
Result<Question> question_of(const Arguments& arguments) {
    Question question;
    auto dst = Address::parse(arguments["DST"]);
    if (!dst)
        return Error::usage(dst.error().what, "for example: 192.0.2.1 443 tcp");
    question.dst = *dst;
    question.dport = NETCTL_TRY(port_of(arguments["PORT"]));
    question.proto = NETCTL_TRY(protocol_of(arguments["PROTO"]));
    if (arguments.has("sport"))
        question.sport = NETCTL_TRY(port_of(arguments.get("sport")));
    return question;
}

bool is_enforced(const Answer& answer) {
    return answer.verdict != NC_POLICY_DENY || answer.mode == NC_POLICY_MODE_ENFORCE;
}

Json answer_json(const Answer& answer) {
    return {{"verdict", to_string(answer.verdict)},
            {"enforced", is_enforced(answer)},
            {"reason", to_string(answer.reason)},
            {"dst", answer.dst.to_string()},
            {"rule_id", answer.rule ? Json(answer.rule->id) : Json()},
            {"rule_text", answer.rule ? Json(to_string(*answer.rule)) : Json()}};
}

Text answer_text(const Answer& answer) {
    const std::string by =
        answer.rule ? fmt::format("rule {}: {}", answer.rule->id, to_string(*answer.rule))
                    : "no rule matches";
    return Text::format("{}{} ({})\n", to_string(answer.verdict),
                        is_enforced(answer) ? "" : ", but the mode is audit", by);
}

Result<Answer> ask(const Context& context, const Question& question) {
    auto answer = Controller(context.root).test(question);
    if (!answer)
        return std::move(answer).error().could_not_tell();
    return answer;
}

Result<int> test(const Arguments& arguments, Context& context) {
    Question question = NETCTL_TRY(question_of(arguments));
    question.uid = getuid();
    question.gid = getgid();
    if (arguments.has("uid")) {
        const std::string name = arguments.get("uid");
        const passwd* user = getpwnam(name.c_str());
        question.uid = user ? user->pw_uid : NETCTL_TRY(number_of(name, 0xfffffffe, "user"));
    }
    if (arguments.has("gid")) {
        const std::string name = arguments.get("gid");
        const group* found = getgrnam(name.c_str());
        question.gid = found ? found->gr_gid : NETCTL_TRY(number_of(name, 0xfffffffe, "group"));
    }
    question.cgroup = arguments.has("cgroup") ? NETCTL_TRY(cgroup_of(arguments.get("cgroup")))
                                              : sys::own_cgroup().value_or("/");
    question.exe = question.exe_name = arguments.get("exe");
    question.explain = arguments.has("explain");
    const Answer answer = NETCTL_TRY(ask(context, question));
    Json json = answer_json(answer);
    if (question.explain)
        json["rules"] = answer.explanation.json();
    context.out.document(json, answer.explanation.text() + answer_text(answer));
    return answer.verdict == NC_POLICY_DENY && is_enforced(answer) ? 1 : 0;
}

/// The layers that judge what a process in a cgroup does; none if the policy is for another cgroup.
std::vector<std::string> layers_over(const Status& status, const std::string& cgroup) {
    std::vector<std::string> layers;
    for (const nc_policy_layer layer : {NC_LAYER_CGROUP, NC_LAYER_LSM})
        if (!status.lost && status.layers[layer].live && is_below(cgroup, status.scope))
            layers.push_back(to_string(layer));
    return layers;
}

std::string by_whom(const Status& status, const std::vector<std::string>& layers) {
    if (!layers.empty())
        return fmt::format("{} layer{}", fmt::join(layers, " and "), layers.size() == 1 ? "" : "s");
    return status.lost ? "nobody: its cgroup is gone, or was made anew"
                       : fmt::format("nobody: the policy is for {}", status.scope);
}

Result<int> do_explain(const Arguments& arguments, Context& context) {
    Question question = NETCTL_TRY(question_of(arguments));
    const auto pid = NETCTL_TRY(number_of(arguments["PID"], 0x7fffffff, "process id"));
    const auto process = sys::read_process(static_cast<pid_t>(pid));
    if (!process)
        return Error(process.error()).could_not_tell();
    question.uid = process->uid;
    question.gid = process->gid;
    question.cgroup = process->cgroup;
    question.exe = process->exe.empty() ? "" : process->exe_link;
    question.exe_name = process->exe;
    question.explain = true;
    if (process->exe.empty())
        context.out.note(Text::format("the executable of {} cannot be read: no rule on `exe` is "
                                      "taken to match",
                                      pid));
    const Answer answer = NETCTL_TRY(ask(context, question));
    const Status status = NETCTL_TRY(Controller(context.root).status(Controller::Why::skip));
    const auto layers = layers_over(status, process->cgroup);

    Json json = answer_json(answer);
    json["rules"] = answer.explanation.json();
    json["layers"] = layers;
    json["process"] = {{"pid", pid},
                       {"comm", process->name},
                       {"uid", process->uid},
                       {"gid", process->gid},
                       {"cgroup", process->cgroup},
                       {"exe", process->exe.empty() ? Json() : Json(process->exe)}};
    context.out.document(json,
                         Text::format("{} ({}, {}), user {}, group {}, in {}\n", process->name, pid,
                                      process->exe.empty() ? "an unknown executable" : process->exe,
                                      process->uid, process->gid, process->cgroup) +
                             answer.explanation.text() + answer_text(answer) +
                             Text::format("judged by {}\n", by_whom(status, layers)));
    return !layers.empty() && answer.verdict == NC_POLICY_DENY && is_enforced(answer) ? 1 : 0;
}

} // namespace

Command test_command() {
    return {
        .name = "test",
        .summary = "tell what would happen to a connection, and by which rule",
        .description =
            "The kernel's own tables are asked, and nothing is counted. User, group and cgroup "
            "are the caller's where they are not given. Exit status 0: it would be let through, "
            "1: refused, 4: could not tell.",
        .positionals = {{"DST"}, {"PORT"}, {"PROTO"}},
        .options = {{"uid", "USER", "user that connects", {}},
                    {"gid", "GROUP", "group that connects", {}},
                    {"cgroup", "PATH", "cgroup of the process", {}},
                    {"exe", "PATH", "executable that the process runs", {}},
                    {"sport", "PORT", "port that the socket is bound to", {}},
                    {"explain", "", "tell of each rule before it why it does not match", {}}},
        .run = test};
}

Command explain_command() {
    return {.name = "explain",
            .summary = "tell what would happen to a connection of a process that runs, and why",
            .description =
                "User, group, cgroup and executable are those of the process; rules up to the one "
                "that decides are told with what does not match, and which layers judge the "
                "process. Nothing is counted. Exit status 0: it would be let through, 1: refused, "
                "4: could not tell.",
            .positionals = {{"PID"}, {"DST"}, {"PORT"}, {"PROTO"}},
            .options = {{"sport", "PORT", "port that the socket is bound to", {}}},
            .run = do_explain};
}

} // namespace netctl::policy
