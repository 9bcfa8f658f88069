// SPDX-License-Identifier: GPL-2.0-only
#include "features/policy/controller.hpp"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "bpf/xdp.hpp"
#include "core/transaction.hpp"
#include "datapath/connect_order.hpp"
#include "datapath/edit.hpp"
#include "datapath/judge.hpp"
#include "datapath/limit_state.hpp"
#include "datapath/sets.hpp"
#include "features/policy/commit.hpp"
#include "features/policy/layers.hpp"
#include "features/policy/state.hpp"
#include "netctl/abi/classify.h"
#include "sys/cgroup.hpp"
#include "sys/session.hpp"

namespace netctl::policy {

using datapath::InstalledRule;
using datapath::LockedRoot;
using datapath::PointState;
using datapath::Root;

namespace {

constexpr std::uint32_t default_log_rate = 10000;

/// Pins beside the links, for other tools.
constexpr std::array pinned_maps{"counters", "stats", "events", "seen"};

/// Removes links of a command that did not come to its end.
Result<> remove_unfinished(const bpf::PinDir& dir, std::vector<std::string>& notes) {
    if (!dir.exists())
        return {};
    NETCTL_TRY(dir.remove_all());
    notes.emplace_back("a command that was interrupted had left hooks, which let everything pass: "
                       "they are gone now");
    return {};
}

bool is_scope(const nc_policy_head& head, const std::string& cgroup) {
    const auto found = sys::find_cgroup(cgroup);
    return found && found->name == head.scope;
}

/// The cgroup that has the name now of the one that the policy was on.
Result<sys::Cgroup> find_again(const nc_policy_head& head) {
    auto found = sys::find_cgroup(head.scope);
    if (found)
        return found;
    return Error::failed(fmt::format("the cgroup {} is gone, and the policy with it", head.scope),
                         "enable it when the cgroup is there again, or disable it");
}

/// Before the policy is in force. Without rules that rewrite, the order can wait for the first of them.
Result<> order_hooks(const LockedRoot& root) {
    const auto order = NETCTL_TRY(datapath::judge_first(root));
    if (order == datapath::ConnectOrder::rewritten_first &&
        NETCTL_TRY(datapath::rewrites_anything(root)))
        return datapath::judged_too_late();
    return {};
}

/// The address that an ssh session of the caller comes from.
std::optional<Address> ssh_client() {
    const auto connection = sys::inherited_variable("SSH_CONNECTION");
    if (!connection)
        return std::nullopt;
    auto address = Address::parse(connection->substr(0, connection->find(' ')));
    return address ? std::optional(normalise(*address)) : std::nullopt;
}

/// Whether a policy refuses connections from where the caller is to an address.
bool refuses(const Root& root, const nc_policy_head& head, const std::string& scope,
             const std::vector<InstalledRule>& installed, const Address& to) {
    const auto cgroup = sys::own_cgroup();
    if (head.mode != NC_POLICY_MODE_ENFORCE || (cgroup && !is_below(*cgroup, scope)))
        return false;
    const classifier::SetOracle sets{
        [&](const std::string& name, const Address& address) {
            const auto set = datapath::Set::open(root, name);
            return set && set->contains(Prefix{address, static_cast<std::uint8_t>(address.bits())})
                              .value_or(false);
        },
        [&](const std::string& name, std::uint16_t port) {
            const auto set = datapath::Set::open(root, name);
            return set && set->contains(port).value_or(false);
        }};
    Connection connection;
    connection.dst = to;
    connection.proto = 6;
    connection.dport = 22;
    connection.cgroup = cgroup.value_or("/");
    std::vector<Rule> rules;
    for (const InstalledRule& one : installed)
        if (one.why.empty())
            rules.push_back(one.rule);
    const auto position = first_match(rules, connection, find_exe, sets);
    return position ? rules[*position].actions.back().kind == ActionKind::deny
                    : head.default_verdict == NC_POLICY_DENY;
}

/// What is about to be put in force refuses connections to where the caller's ssh session comes from,
/// and what is in force now does not.
Result<> check_ssh(const Root& root, const Live* live, const nc_policy_head& head,
                   const std::string& scope, const PointState& state, bool yes) {
    if (yes)
        return {};
    const auto client = ssh_client();
    if (!client || !refuses(root, head, scope, state.rules, *client) ||
        (live && refuses(root, live->head, scope, live->rules, *client)))
        return {};
    return Error::usage(
        fmt::format("this would refuse connections to {}, where this ssh session comes from",
                    client->to_string()),
        fmt::format(
            "a rule such as `dst {} allow` has to come first (`enable` takes it by --rules); "
            "--yes does it all the same",
            client->to_string()));
}

/// The rules of the policy.
class Editor : public datapath::RuleEditor {
  public:
    Editor(RootOptions root, const EditOptions& options)
        : root_(std::move(root)), options_(options) {}

    Result<std::vector<datapath::RuleStatus>> rules() override {
        const Status status = NETCTL_TRY(Controller(root_).status());
        return status.rules;
    }

    Result<datapath::CommitReport> commit(const Edit& edit, Scope scope) override {
        datapath::CommitReport report;
        const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
        const auto live = NETCTL_TRY(open_live(root));
        if (!live)
            return not_enabled();
        const bool passes = live->trouble && datapath::could_pass(*live->trouble);
        if (live->trouble && (scope == Scope::some || passes)) {
            Error error = Error(*live->trouble).within("the rules of the policy cannot be read");
            error.hint =
                passes ? "nothing was changed; try again"
                       : "`policy rule replace` and `policy rule flush` put others in their place";
            return error;
        }
        if (live->trouble)
            report.notes.push_back(fmt::format(
                "the rules that were in force could not be read ({}): counters begin anew",
                live->trouble->what));
        PointState state = live->state();
        NETCTL_TRY(edit(state));
        NETCTL_TRY(datapath::check_readable(state.rules));
        NETCTL_TRY(check_names(state, &live->rules, options_.allow_missing, report.notes));
        NETCTL_TRY(check_ssh(root, &*live, live->head, live->head.scope, state, options_.yes));
        if (const auto lost = NETCTL_TRY(ground_lost(root, live->head)))
            report.notes.push_back(*lost + "; " + to_attach_anew(live->head));
        const Published published =
            NETCTL_TRY(publish(root, live->maps(), state, live->head, &*live, report.notes));
        note_covered(state, &live->rules, report.notes);
        report.generation = published.head.generation;
        report.engine = "bit vectors";
        report.memory = published.memory;
        return report;
    }

  private:
    RootOptions root_;
    EditOptions options_;
};

} // namespace

std::string to_string(nc_policy_layer layer) {
    return layer == NC_LAYER_LSM ? "lsm" : "cgroup";
}

std::string to_string(nc_policy_verdict verdict) {
    switch (verdict) {
    case NC_POLICY_ALLOW: return "allow";
    case NC_POLICY_DENY: return "deny";
    case NC_POLICY_AUDIT: return "audit";
    }
    return "unknown";
}

std::string to_string(nc_policy_reason reason) {
    switch (reason) {
    case NC_POLICY_BY_RULE: return "rule";
    case NC_POLICY_BY_DEFAULT: return "default";
    case NC_POLICY_BY_LIMIT: return "over limit";
    case NC_POLICY_BY_FAULT: return "fault";
    case NC_POLICY_BY_ASTRAY: return "unknown destination";
    }
    return "unknown";
}

std::string to_string(nc_policy_mode mode) {
    return mode == NC_POLICY_MODE_AUDIT ? "audit" : "enforce";
}

std::string to_string(nc_policy_hook hook) {
    return hook < NC_HOOKS ? hook_names[hook] : "unknown";
}

Result<EnableReport> Controller::enable(const EnableRequest& request) const {
    EnableReport report;
    const LockedRoot root = NETCTL_TRY(LockedRoot::acquire(root_));
    const bpf::PinDir dir = policy_dir(root);
    const auto live = NETCTL_TRY(open_live(root));
    nc_policy_head head{};
    PointState state;
    std::optional<std::string> lost; // why it does not judge as it says
    if (live) {
        head = live->head;
        state = live->state();
        lost = NETCTL_TRY(ground_lost(root, live->head));
        const bool same = lost && request.cgroup && is_scope(live->head, *request.cgroup);
        if (request.layer || (request.cgroup && !same))
            return Error::failed("the policy is enabled already",
                                 "--mode, --default, --log-rate and --rules change it while it "
                                 "runs; disable it first to change its layers or its cgroup");
    } else {
        NETCTL_TRY(remove_unfinished(dir, report.notes));
        head.log_rate = default_log_rate;
    }
    head.mode = request.mode.value_or(static_cast<nc_policy_mode>(head.mode));
    head.default_verdict =
        request.default_verdict.value_or(static_cast<nc_policy_verdict>(head.default_verdict));
    head.log_rate = request.log_rate.value_or(head.log_rate);
    if (live && live->trouble && (!request.rules || datapath::could_pass(*live->trouble)))
        return Error(*live->trouble).within("the rules of the policy cannot be read");
    if (request.rules)
        NETCTL_TRY(datapath::replace_rules(state, *request.rules));
    NETCTL_TRY(datapath::check_readable(state.rules));
    const std::vector<InstalledRule>* before = live ? &live->rules : nullptr;
    NETCTL_TRY(check_names(state, before, request.allow_missing, report.notes));
    sys::Cgroup scope{.path = {}, .name = head.scope};
    if (!live)
        scope = NETCTL_TRY(sys::find_cgroup(request.cgroup.value_or("/")));
    else if (lost)
        scope = NETCTL_TRY(find_again(head));
    NETCTL_TRY(check_ssh(root, live ? &*live : nullptr, head, scope.name, state, request.yes));

    Published published;
    if (live) {
        Transaction transaction(report.notes);
        if (lost) {
            NETCTL_TRY(attach_anew(scope, dir, transaction));
            NETCTL_TRY(order_hooks(root));
            head.scope_id = scope.id;
            report.notes.push_back(*lost + "; now it is on it, with its rules");
        }
        published = NETCTL_TRY(publish(root, live->maps(), state, head, &*live, report.notes));
        std::move(transaction).commit([](Aftermath&) {});
    } else {
        if (scope.name.size() >= sizeof head.scope)
            return Error::usage(fmt::format("the path of the cgroup {} is too long", scope.name));
        Layers layers =
            NETCTL_TRY(choose_layers(request.layer.value_or(LayerChoice::automatic), scope));
        report.notes.insert(report.notes.end(), layers.notes.begin(), layers.notes.end());
        head.layers = layers.mask;
        head.scope_level = sys::cgroup_level(scope.name);
        head.scope_id = scope.name == "/" ? 0 : scope.id;
        std::memcpy(head.scope, scope.name.data(), scope.name.size());
        const Programs programs = NETCTL_TRY(open_programs(layers.mask, false));
        const bpf::Object& object = programs.object;
        NETCTL_TRY(NETCTL_TRY(datapath::BaseStore::open_or_make(root)).share(object));
        NETCTL_TRY(object.load());
        // As long as the root's slot is empty the programs let everything pass, so that all of the
        // policy begins with the write that fills it.
        Transaction transaction(report.notes);
        transaction.or_else(dir.path(), [dir] { return dir.remove_all(); });
        NETCTL_TRY(dir.create());
        NETCTL_TRY(attach_all(object, scope, layers.mask, dir));
        NETCTL_TRY(order_hooks(root));
        for (const char* name : pinned_maps)
            NETCTL_TRY(dir.replace(name, NETCTL_TRY(object.map(name))));
        published = NETCTL_TRY(publish(
            root, [&](const std::string& name) { return object.map(name); }, state, head, nullptr,
            report.notes));
        std::move(transaction).commit([](Aftermath&) {});
    }
    note_covered(state, before, report.notes);
    report.was_enabled = live.has_value();
    for (std::size_t layer = 0; layer < NC_LAYERS; layer++)
        report.live[layer] = (published.head.layers & 1U << layer) != 0;
    report.rules = state.rules.size();
    report.generation = published.head.generation;
    report.scope = published.head.scope;
    report.mode = static_cast<nc_policy_mode>(published.head.mode);
    report.default_verdict = static_cast<nc_policy_verdict>(published.head.default_verdict);
    return report;
}

Result<std::vector<std::string>> Controller::disable() const {
    std::vector<std::string> notes;
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    const bpf::PinDir dir = policy_dir(root);
    // Whatever stands in the maps: only the slot is needed, and if there is none, the links alone.
    const auto program = find_program(dir);
    const Result<bpf::RawMap> slot =
        program ? program->map("root") : Error::failed("there is no program");
    const std::uint32_t zero = 0;
    std::uint32_t id = 0;
    const Result<bool> filled = slot ? slot->lookup(&zero, &id) : slot.error();
    if (!dir.exists())
        return Error::failed("the policy is not enabled: there is nothing to disable");
    if (filled.has_value() && !*filled) {
        NETCTL_TRY(remove_unfinished(dir, notes));
        return notes;
    }
    Transaction transaction(notes);
    // Empties the slot first: all hooks let pass from that moment on, none before another.
    if (slot)
        NETCTL_TRY(slot->erase(&zero));
    else
        NETCTL_TRY(dir.remove_all());
    return std::move(transaction).commit([&](Aftermath& after) {
        after.tidy(dir.path(), dir.remove_all());
        after.value("the root's generation", root.next_generation(), std::uint64_t{0});
        return notes;
    });
}

std::unique_ptr<datapath::RuleEditor> Controller::edit(const EditOptions& options) const {
    return std::make_unique<Editor>(root_, options);
}

namespace {

/// Row of a cgroup, found as the kernel finds it.
Result<std::uint64_t> cgroup_row(const bpf::RawMap& cgroups, const nc_policy_head& head,
                                 const std::string& path) {
    std::uint64_t row = head.cgroup_root;
    nc_policy_cgroup key{};
    key.epoch = head.epoch;
    for (std::size_t begin = 1; begin < path.size();) {
        const std::size_t end = std::min(path.find('/', begin), path.size());
        const std::string name = path.substr(begin, end - begin);
        begin = end + 1;
        if (name.empty() || name.size() + 1 >= sizeof key.name)
            break;
        std::memset(key.name, 0, sizeof key.name);
        std::memcpy(key.name, name.data(), name.size());
        nc_policy_node node{};
        if (!NETCTL_TRY(cgroups.lookup(&key, &node)))
            break;
        key.parent = static_cast<std::uint32_t>(node.node);
        row = node.row;
    }
    return row;
}

} // namespace

namespace {

/// What the question's connection has of a key; null: nothing.
Json value_of(const Question& question, const Address& dst, Key key) {
    switch (key) {
    case Key::dst: return dst.to_string();
    case Key::proto: return protocol_name(question.proto);
    case Key::dport: return has_ports(question.proto) ? Json(question.dport) : Json();
    case Key::sport: return question.sport != 0 ? Json(question.sport) : Json();
    case Key::uid: return question.uid;
    case Key::gid: return question.gid;
    case Key::cgroup: return question.cgroup;
    case Key::exe: return question.exe.empty() ? Json() : Json(question.exe_name);
    default: return {};
    }
}

/// The kernel has decided; the reference tells which matches of the rules before do not hold.
Result<> explain(const Root& root, const std::vector<InstalledRule>& rules,
                 const Question& question, Answer& answer) {
    NETCTL_TRY(datapath::check_readable(rules));
    auto live = NETCTL_TRY(datapath::LiveSets::open(root, rules));
    Connection connection;
    connection.dst = answer.dst;
    connection.proto = question.proto;
    connection.dport = question.dport;
    connection.sport = question.sport;
    connection.uid = question.uid;
    connection.gid = question.gid;
    connection.cgroup = question.cgroup;
    connection.exe = find_exe(question.exe).value_or(ExeId{});
    for (const InstalledRule& installed : rules) {
        std::vector<datapath::Reason> why_not;
        for (const Match& match : unmet(installed.rule, connection, find_exe, live.oracle())) {
            Rule alone;
            alone.matches.push_back(match);
            why_not.push_back({to_string(alone), value_of(question, answer.dst, match.key)});
        }
        answer.explanation.add(installed.rule, why_not);
        if (why_not.empty())
            break;
    }
    return live.status();
}

} // namespace

Result<Answer> Controller::test(const Question& question) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const auto live = NETCTL_TRY(open_live(root));
    if (!live)
        return not_enabled();
    nc_policy_question asked{};
    Answer answer;
    answer.dst = normalise(question.dst);
    answer.mode = static_cast<nc_policy_mode>(live->head.mode);
    std::memcpy(asked.dst, answer.dst.bytes.data(), sizeof asked.dst);
    asked.family = static_cast<__u8>(answer.dst.family);
    asked.proto = question.proto;
    asked.dport = question.dport;
    asked.sport = question.sport;
    asked.uid = question.uid;
    asked.gid = question.gid;
    if (!question.exe.empty()) {
        const auto id = find_exe(question.exe);
        if (!id)
            return Error::usage(fmt::format("there is no executable file {}", question.exe),
                                "give its whole path");
        asked.exe_dev = id->device;
        asked.exe_inode = id->inode;
    }
    const bpf::RawMap cgroups = NETCTL_TRY(live->program.map("cgroups"));
    asked.cgroup_row = NETCTL_TRY(cgroup_row(cgroups, live->head, question.cgroup));

    const Programs programs = NETCTL_TRY(open_programs(0, true));
    const bpf::Object& object = programs.object;
    for (const char* name : {"root", "segments", "set_host4", "set_host6", "set_cidr4", "set_cidr6",
                             "set_port", "base_refs", "base_segments"})
        NETCTL_TRY(object.reuse(name, NETCTL_TRY(live->program.map(name))));
    NETCTL_TRY(object.load());
    const bpf::Program probe = NETCTL_TRY(object.program("probe"));
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&asked);
    const bpf::TestRun run = NETCTL_TRY(bpf::test_run(probe, {bytes, sizeof asked}));
    if (run.action == NC_NO_RULE) {
        answer.verdict = static_cast<nc_policy_verdict>(live->head.default_verdict);
        answer.reason = NC_POLICY_BY_DEFAULT;
    } else if (run.action >= live->rules.size()) {
        answer.verdict = NC_POLICY_DENY;
        answer.reason = NC_POLICY_BY_FAULT;
    } else {
        answer.rule = live->rules[run.action].rule;
        answer.verdict =
            static_cast<nc_policy_verdict>(encode_action(live->rules[run.action]).verdict);
        answer.reason = NC_POLICY_BY_RULE;
    }
    if (question.explain)
        NETCTL_TRY(explain(root, live->rules, question, answer));
    return answer;
}

} // namespace netctl::policy
