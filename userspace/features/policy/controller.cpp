// SPDX-License-Identifier: GPL-2.0-only
#include "features/policy/controller.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "bpf/connect.hpp"
#include "bpf/pin_dir.hpp"
#include "bpf/ring_buffer.hpp"
#include "bpf/standalone.hpp"
#include "bpf/xdp.hpp"
#include "datapath/edit.hpp"
#include "datapath/generation.hpp"
#include "datapath/root.hpp"
#include "datapath/sets.hpp"
#include "features/policy/canary.hpp"
#include "features/policy/compile.hpp"
#include "netctl/abi/classify.h"
#include "policy_canary.skel.h"
#include "policy_hooks.skel.h"
#include "sys/cgroup.hpp"
#include "sys/file_id.hpp"

namespace netctl::policy {

using datapath::FindMap;
using datapath::InstalledRule;
using datapath::LockedRoot;
using datapath::PointState;
using datapath::Root;

namespace {

constexpr std::uint32_t default_log_rate = 10000;

/// Hooks in the order of nc_policy_hook; program and pin are called like this.
constexpr std::array<const char*, NC_HOOKS> hook_names{"connect4", "connect6",    "sendmsg4",
                                                       "sendmsg6", "lsm_connect", "lsm_sendmsg"};

constexpr nc_policy_layer layer_of(std::size_t hook) {
    return hook < NC_HOOK_LSM_CONNECT ? NC_LAYER_CGROUP : NC_LAYER_LSM;
}

/// Pins beside the links, for other tools.
constexpr std::array pinned_maps{"counters", "stats", "events", "seen"};
/// Maps that must be found from each program, used by its code or not.
constexpr std::array bound_maps{"root",   "segments", "texts", "counters", "stats",
                                "events", "limits",   "seen",  "cgroups"};

/// Outer maps of lib/sets.h.
constexpr std::array set_maps{"set_host4", "set_host6", "set_cidr4", "set_cidr6", "set_port"};

bpf::PinDir policy_dir(const Root& root) {
    return root.dir().sub("policy");
}

Error not_enabled() {
    return Error::failed("the policy is not enabled", "enable it with `netctl policy enable`");
}

/// A policy that is in force.
struct Live {
    bpf::Program program;
    nc_policy_head head{};
    std::vector<InstalledRule> rules;
    std::set<ExeId> exes; ///< files that the rules' paths led to

    FindMap maps() const {
        return [this](const std::string& name) { return program.map(name); };
    }
    PointState state() const {
        PointState state;
        state.rules = rules;
        state.point.generation = head.generation;
        state.point.next_rule_id = head.next_rule_id;
        return state;
    }
};

/// The map in a slot of an outer map, if there is one.
Result<std::optional<bpf::RawMap>> inner_map(const bpf::RawMap& outer, std::uint32_t slot) {
    std::uint32_t id = 0;
    if (!NETCTL_TRY(outer.lookup(&slot, &id)))
        return std::optional<bpf::RawMap>();
    return std::optional<bpf::RawMap>(NETCTL_TRY(bpf::RawMap::open_id(id)));
}

Result<std::vector<InstalledRule>> read_rules(const FindMap& maps, const nc_policy_head& head) {
    const bpf::RawMap outer = NETCTL_TRY(maps("texts"));
    const auto texts = NETCTL_TRY(inner_map(outer, head.texts_slot));
    if (!texts)
        return Error::failed("the policy's rules are gone from its maps");
    std::vector<nc_rule_text> records(head.records);
    NETCTL_TRY(texts->read_array(records.data(), sizeof(nc_rule_text), head.records));
    return datapath::decode_rules(records, Hook::policy);
}

/// Nothing if no policy is in force: none is enabled, or an enable was killed before it was done.
Result<std::optional<Live>> open_live(const Root& root) {
    const bpf::PinDir dir = policy_dir(root);
    for (const char* name : hook_names) {
        if (!dir.has(name))
            continue;
        const bpf::Link link = NETCTL_TRY(bpf::Link::open(dir.path_of(name)));
        Live live;
        live.program = NETCTL_TRY(bpf::Program::open_id(NETCTL_TRY(link.info()).program_id));
        const bpf::RawMap slot = NETCTL_TRY(live.program.map("root"));
        const auto first = NETCTL_TRY(inner_map(slot, 0));
        if (!first)
            return std::optional<Live>();
        std::vector<std::uint64_t> segment(NC_SEGMENT_WORDS);
        const std::uint32_t zero = 0;
        NETCTL_TRY(first->lookup(&zero, segment.data()));
        std::memcpy(&live.head, segment.data(), sizeof live.head);
        if (live.head.abi_version != NC_ABI_VERSION)
            return Error::failed(fmt::format("the policy has ABI version {}, this netctl speaks {}",
                                             live.head.abi_version, NC_ABI_VERSION));
        if (live.head.exes + std::size_t{live.head.n_exes} * 2 > segment.size())
            return Error::failed("the policy's tables contradict themselves");
        for (std::uint32_t i = 0; i < live.head.n_exes; i++) {
            const std::uint64_t* exe = &segment[live.head.exes + std::size_t{i} * 2];
            live.exes.insert({static_cast<std::uint32_t>(exe[0]), exe[1]});
        }
        live.rules = NETCTL_TRY(read_rules(live.maps(), live.head));
        return std::optional<Live>(std::move(live));
    }
    return std::optional<Live>();
}

// ---- executables and cgroups ----

std::optional<ExeId> find_exe(const std::string& path) {
    const auto id = sys::file_id(path);
    return id ? std::optional(ExeId{id->device, id->inode}) : std::nullopt;
}

std::uint32_t depth_of(const std::string& cgroup) {
    return cgroup == "/"
               ? 0
               : static_cast<std::uint32_t>(std::count(cgroup.begin(), cgroup.end(), '/'));
}

/// What rules name and the host does not have. An error that names the first, or notes.
Result<> check_names(const PointState& state, const std::vector<InstalledRule>* before,
                     bool allow_missing, std::vector<std::string>& notes) {
    std::set<std::uint32_t> known;
    if (before)
        for (const InstalledRule& installed : *before)
            known.insert(installed.rule.id);
    for (const InstalledRule& installed : state.rules)
        for (const Match& match : installed.rule.matches) {
            const bool exe = match.key == Key::exe;
            if (!exe && match.key != Key::cgroup)
                continue;
            if (exe ? find_exe(match.path).has_value()
                    : static_cast<bool>(sys::find_cgroup(match.path)))
                continue;
            const std::string what = fmt::format("rule {}: there is no {} {}", installed.rule.id,
                                                 exe ? "executable file" : "cgroup", match.path);
            // What was there when the rule was made may be away for a while.
            if (!allow_missing && !known.contains(installed.rule.id))
                return Error::usage(what.substr(what.find(": ") + 2),
                                    exe ? "--allow-missing takes the rule all the same; it is "
                                          "looked for again with each change of the rules"
                                        : "--allow-missing takes the rule all the same, for a "
                                          "cgroup to come");
            notes.push_back(what);
        }
    return {};
}

/// New rules that can never match.
void note_covered(const PointState& state, const std::vector<InstalledRule>* before,
                  std::vector<std::string>& notes) {
    std::set<std::uint32_t> known;
    if (before)
        for (const InstalledRule& installed : *before)
            known.insert(installed.rule.id);
    std::vector<Rule> rules;
    for (const InstalledRule& installed : state.rules)
        rules.push_back(installed.rule);
    constexpr std::size_t most_notes = 10;
    std::size_t count = 0;
    for (const Covered& covered : covered_rules(rules)) {
        const Rule& rule = rules[covered.rule];
        const Rule& earlier = rules[covered.earlier];
        if (known.contains(rule.id) && known.contains(earlier.id))
            continue;
        if (++count <= most_notes)
            notes.push_back(fmt::format("rule {} can never match: rule {} covers it ({})", rule.id,
                                        earlier.id, to_string(earlier)));
    }
    if (count > most_notes)
        notes.push_back(fmt::format("{} more rules can never match", count - most_notes));
}

// ---- commits ----

nc_policy_action encode_action(const InstalledRule& installed) {
    const Rule& rule = installed.rule;
    nc_policy_action action{};
    action.rule_id = rule.id;
    action.slot = installed.slot;
    const ActionKind kind = rule.actions.back().kind;
    action.verdict = kind == ActionKind::deny    ? NC_POLICY_DENY
                     : kind == ActionKind::audit ? NC_POLICY_AUDIT
                                                 : NC_POLICY_ALLOW;
    if (rule.log)
        action.flags |= NC_POLICY_LOG;
    if (rule.limit) {
        action.flags |= NC_POLICY_LIMIT;
        action.limit_interval_ns =
            std::max<std::uint64_t>(rule.limit->period_ns / rule.limit->count, 1);
        action.limit_burst_ns = action.limit_interval_ns * (rule.limit->burst - 1);
    }
    return action;
}

/// Removes the entries of a map whose key begins with an epoch other than `epoch`.
Result<> keep_epoch(const bpf::RawMap& map, std::size_t key_size, std::uint32_t epoch) {
    std::vector<std::vector<std::byte>> stale;
    std::vector<std::byte> key(key_size), next(key_size);
    bool more = NETCTL_TRY(map.next_key(nullptr, next.data()));
    while (more) {
        key = next;
        std::uint32_t of = 0;
        std::memcpy(&of, key.data(), sizeof of);
        if (of != epoch)
            stale.push_back(key);
        more = NETCTL_TRY(map.next_key(key.data(), next.data()));
    }
    for (const auto& gone : stale)
        NETCTL_TRY(map.erase(gone.data()));
    return {};
}

template <class K, class V>
Result<> write_entries(const bpf::RawMap& map, std::vector<std::pair<K, V>>& entries,
                       std::uint32_t epoch) {
    std::vector<K> keys;
    std::vector<V> values;
    for (auto& [key, value] : entries) {
        key.epoch = epoch;
        keys.push_back(key);
        values.push_back(value);
    }
    if (keys.empty())
        return {};
    return map.update_batch(keys.data(), values.data(), static_cast<std::uint32_t>(keys.size()),
                            sizeof(K), sizeof(V));
}

/// Gives each use of a set a slot in the outer maps. Slots in use now are left to what they hold.
Result<> place_sets(const Root& root, const FindMap& maps, Tables& tables, const Live* live) {
    std::set<std::uint8_t> taken;
    if (live)
        for (std::uint32_t i = 0; i < live->head.n_set_uses; i++)
            taken.insert(live->head.set_use[i].slot);
    std::uint8_t candidate = 0;
    for (std::size_t i = 0; i < tables.set_uses.size(); i++) {
        const datapath::Set set = NETCTL_TRY(datapath::open_used_set(root, tables.set_uses[i]));
        while (taken.contains(candidate))
            candidate++;
        nc_policy_set_use& use = tables.head.set_use[i];
        use.type = static_cast<__u8>(set.type());
        use.slot = candidate++;
        use.base = set.base_index();
        NETCTL_TRY(datapath::place_set(maps, set, use.slot));
    }
    return {};
}

Result<> prepare_limits(const bpf::RawMap& limits, const PointState& state) {
    constexpr std::uint64_t if_missing = 1; // BPF_NOEXIST: a limit that runs keeps its state
    for (const InstalledRule& installed : state.rules) {
        if (!installed.rule.limit)
            continue;
        const nc_limit_key key{installed.rule.id, {}};
        const nc_limit_state fresh{};
        const auto status = limits.update(&key, &fresh, if_missing);
        if (!status && status.error().code != EEXIST)
            return Error(status.error());
    }
    return {};
}

/// Puts the tables into segments and these into the outer maps. The first one is returned, to be
/// put in force.
Result<bpf::RawMap> make_segments(const FindMap& maps, Tables& tables) {
    nc_policy_head& head = tables.head;
    std::vector<std::uint64_t> all(NC_HEAD_WORDS);
    all.insert(all.end(), tables.words.begin(), tables.words.end());
    head.near = all.size() <= NC_SEGMENT_WORDS;
    head.segment_base = head.generation % 2 * NC_MAX_SEGMENTS;
    std::memcpy(all.data(), &head, sizeof head);
    const std::size_t count = (all.size() + NC_SEGMENT_WORDS - 1) / NC_SEGMENT_WORDS;
    all.resize(count * NC_SEGMENT_WORDS);
    bpf::RawMap first;
    std::vector<bpf::RawMap> segments;
    const std::uint32_t zero = 0;
    for (std::size_t i = 0; i < count; i++) {
        segments.push_back(NETCTL_TRY(bpf::create_standalone("policy_segment", 1)));
        NETCTL_TRY(segments.back().update(&zero, all.data() + i * NC_SEGMENT_WORDS));
    }
    if (!head.near) {
        const bpf::RawMap outer = NETCTL_TRY(maps("segments"));
        for (std::uint32_t i = 0; i < count; i++) {
            const std::uint32_t slot = head.segment_base + i;
            const int fd = segments[i].fd();
            NETCTL_TRY(outer.update_batch(&slot, &fd, 1, sizeof slot, sizeof fd));
        }
    }
    return std::move(segments.front());
}

/// Frees the segments of a generation that is no longer in force.
Result<> drop_segments(const FindMap& maps, const nc_policy_head& head) {
    if (head.near)
        return {};
    const bpf::RawMap outer = NETCTL_TRY(maps("segments"));
    for (std::uint32_t i = 0; i < NC_MAX_SEGMENTS; i++) {
        const std::uint32_t slot = head.segment_base + i;
        if (!NETCTL_TRY(outer.erase(&slot)))
            break;
    }
    return {};
}

struct Published {
    nc_policy_head head{};
    std::size_t memory = 0;
};

/**
 * Puts the rules of `state`, with the settings of `head`, in force: everything is written where
 * nobody looks yet, then the root's slot gets the first segment (invariant I2). That write returns when
 * no program looks at the old tables any more.
 */
Result<Published> publish(const LockedRoot& root, const FindMap& maps, PointState& state,
                          nc_policy_head head, const Live* live) {
    const std::vector<InstalledRule>* before = live ? &live->rules : nullptr;
    datapath::assign_slots(state.rules, before);
    std::vector<Rule> rules;
    std::vector<nc_policy_action> actions;
    for (const InstalledRule& installed : state.rules) {
        rules.push_back(installed.rule);
        actions.push_back(encode_action(installed));
    }
    Tables tables = NETCTL_TRY(compile(rules, actions, find_exe));

    const std::vector<nc_rule_text> records = datapath::encode_rules(state.rules);
    nc_policy_head& fresh = tables.head;
    fresh.abi_version = NC_ABI_VERSION;
    fresh.mode = head.mode;
    fresh.default_verdict = head.default_verdict;
    fresh.layers = head.layers;
    fresh.generation = head.generation + 1;
    fresh.scope_id = head.scope_id;
    fresh.scope_level = head.scope_level;
    fresh.epoch = static_cast<std::uint32_t>(fresh.generation);
    fresh.records = static_cast<std::uint32_t>(records.size());
    fresh.next_rule_id = state.point.next_rule_id;
    fresh.log_rate = head.log_rate;
    const std::uint64_t rate = head.log_rate;
    fresh.log_interval = rate == 0 ? 0 : std::max<std::uint64_t>(1'000'000'000 / rate, 1);
    fresh.log_burst = rate == 0 ? 0 : fresh.log_interval * (rate - 1);
    fresh.texts_slot = static_cast<std::uint32_t>(fresh.generation % 2);
    std::memcpy(fresh.scope, head.scope, sizeof fresh.scope);

    const bpf::RawMap cgroups = NETCTL_TRY(maps("cgroups"));
    const auto tidy = [&](std::uint32_t epoch) -> Result<> {
        return keep_epoch(cgroups, sizeof(nc_policy_cgroup), epoch);
    };
    NETCTL_TRY(tidy(head.epoch)); // a commit that was killed may have left some of this epoch
    NETCTL_TRY(write_entries(cgroups, tables.cgroups, fresh.epoch));
    const bpf::RawMap counters = NETCTL_TRY(maps("counters"));
    NETCTL_TRY(datapath::prepare_counters(counters, state.rules, before,
                                          {"policy_counters", sizeof(nc_policy_counter)}));
    const bpf::RawMap limits = NETCTL_TRY(maps("limits"));
    NETCTL_TRY(prepare_limits(limits, state));
    NETCTL_TRY(place_sets(root, maps, tables, live));

    const bpf::RawMap texts = NETCTL_TRY(
        bpf::create_standalone("policy_texts", std::max<std::uint32_t>(fresh.records, 1)));
    NETCTL_TRY(texts.write_array(records.data(), sizeof(nc_rule_text), fresh.records));
    const bpf::RawMap texts_outer = NETCTL_TRY(maps("texts"));
    const int texts_fd = texts.fd();
    NETCTL_TRY(texts_outer.update_batch(&fresh.texts_slot, &texts_fd, 1, sizeof(std::uint32_t),
                                        sizeof texts_fd));
    const bpf::RawMap first = NETCTL_TRY(make_segments(maps, tables));
    const bpf::RawMap slot = NETCTL_TRY(maps("root"));
    const std::uint32_t zero = 0;
    const int fd = first.fd();
    NETCTL_TRY(slot.update(&zero, &fd));

    // From here on the new rules are in force; the rest is tidying up that any writer repeats.
    NETCTL_TRY(tidy(fresh.epoch));
    if (live)
        NETCTL_TRY(drop_segments(maps, live->head));
    NETCTL_TRY(policy_dir(root).replace("rules", texts));
    NETCTL_TRY(root.next_generation());
    Published published;
    published.head = fresh;
    published.memory = (NC_HEAD_WORDS + tables.words.size()) * sizeof(std::uint64_t);
    return published;
}

// ---- layers ----

/// Tries out a layer below the cgroup at `directory`; an error says why it cannot be had.
Result<> try_layer(nc_policy_layer layer, const std::string& directory) {
    const auto skeleton = NETCTL_TRY(bpf::Skeleton<policy_canary>::open());
    const bpf::Object object = skeleton.object();
    const std::uint32_t address = canary_address();
    const bool lsm = layer == NC_LAYER_LSM;
    NETCTL_TRY(object.set_constant("canary_address", {&address, 1}));
    NETCTL_TRY(object.set_autoload("canary_lsm", lsm));
    NETCTL_TRY(object.set_autoload("canary_cgroup", !lsm));
    auto loaded = object.load();
    if (!loaded) {
        Error error = Error::system(loaded.error().code, "the kernel refuses the program");
        error.kind = ErrorKind::unsupported;
        return error;
    }
    int code = 0;
    if (lsm) {
        const bpf::Link link =
            NETCTL_TRY(bpf::attach_lsm(NETCTL_TRY(object.program("canary_lsm"))));
        code = NETCTL_TRY(connect_from_child(address, {}));
    } else {
        const TemporaryCgroup cgroup = NETCTL_TRY(TemporaryCgroup::below(directory));
        const Fd fd = NETCTL_TRY(sys::open_cgroup({cgroup.path(), {}, 0}));
        const bpf::Link link = NETCTL_TRY(bpf::attach_to_cgroup(
            fd.get(), NETCTL_TRY(object.program("canary_cgroup")), bpf::ConnectHook::connect4));
        code = NETCTL_TRY(connect_from_child(address, cgroup.path()));
    }
    if (code == EPERM)
        return {};
    return Error::unsupported(
        fmt::format("the program was attached, and a connection that it denies was not refused "
                    "({})",
                    code == 0 ? "it went on" : std::strerror(code)),
        lsm ? "'bpf' may be missing from the boot parameter lsm=" : "");
}

struct Layers {
    std::uint32_t mask = 0;
    std::vector<std::string> notes;
};

Result<Layers> choose_layers(LayerChoice choice, const sys::Cgroup& scope) {
    Layers layers;
    const auto add = [&](nc_policy_layer layer, bool must) -> Result<> {
        auto tried = try_layer(layer, scope.path);
        if (tried) {
            layers.mask |= 1U << layer;
            return {};
        }
        const std::string what =
            fmt::format("the {} layer cannot be had: {}", to_string(layer), tried.error().what);
        if (!must) {
            layers.notes.push_back(what);
            return {};
        }
        Error error = Error::unsupported(what, tried.error().hint);
        error.code = tried.error().code;
        if (error.hint.empty())
            error.hint = "--layer auto takes the layers that the kernel has";
        return error;
    };
    if (choice != LayerChoice::lsm)
        NETCTL_TRY(add(NC_LAYER_CGROUP, true));
    if (choice != LayerChoice::cgroup)
        NETCTL_TRY(add(NC_LAYER_LSM, choice != LayerChoice::automatic));
    if (choice == LayerChoice::automatic && !layers.notes.empty())
        layers.notes.back() += "; the cgroup layer works without it, see netctl-policy(8) for what "
                               "only the LSM layer sees";
    return layers;
}

/// Removes links of an enable that did not come to its end. They let everything pass.
Result<> remove_unfinished(const bpf::PinDir& dir) {
    return dir.remove_all();
}

Result<> attach_all(const bpf::Object& object, const sys::Cgroup& scope, std::uint32_t layers,
                    const bpf::PinDir& dir) {
    const Fd cgroup = NETCTL_TRY(sys::open_cgroup(scope));
    for (std::size_t hook = 0; hook < hook_names.size(); hook++) {
        if ((layers & 1U << layer_of(hook)) == 0)
            continue;
        const bpf::Program program = NETCTL_TRY(object.program(hook_names[hook]));
        for (const char* name : bound_maps)
            NETCTL_TRY(program.bind(NETCTL_TRY(object.map(name))));
        const bpf::Link link =
            layer_of(hook) == NC_LAYER_LSM
                ? NETCTL_TRY(bpf::attach_lsm(program))
                : NETCTL_TRY(bpf::attach_to_cgroup(cgroup.get(), program,
                                                   static_cast<bpf::ConnectHook>(hook)));
        NETCTL_TRY(link.pin(dir.path_of(hook_names[hook])));
    }
    return {};
}

/// Opens the programs, and prepares the object for the given hooks.
Result<bpf::Skeleton<policy_hooks>> open_programs(std::uint32_t layers, bool probe) {
    auto skeleton = NETCTL_TRY(bpf::Skeleton<policy_hooks>::open());
    const bpf::Object object = skeleton.object();
    for (std::size_t hook = 0; hook < hook_names.size(); hook++)
        NETCTL_TRY(object.set_autoload(hook_names[hook], (layers & 1U << layer_of(hook)) != 0));
    NETCTL_TRY(object.set_autoload("probe", probe));
    NETCTL_TRY(object.set_autocreate("limit_src", false));
    NETCTL_TRY(object.set_max_entries("limits", NC_POLICY_MAX_RULES));
    // Those in force, and those to come.
    for (const char* name : set_maps)
        NETCTL_TRY(object.set_max_entries(name, 2 * NC_POLICY_SET_USES));
    return skeleton;
}

/// The address that an ssh session of the caller comes from.
std::optional<Address> ssh_client() {
    const char* connection = std::getenv("SSH_CONNECTION");
    if (!connection)
        return std::nullopt;
    const std::string text(connection);
    auto address = Address::parse(text.substr(0, text.find(' ')));
    return address ? std::optional(normalise(*address)) : std::nullopt;
}

/// A default deny that refuses connections to where the caller's ssh session comes from.
Result<> check_ssh(const Root& root, const nc_policy_head& head, const PointState& state,
                   bool yes) {
    const auto client = ssh_client();
    if (yes || !client || head.default_verdict != NC_POLICY_DENY ||
        head.mode != NC_POLICY_MODE_ENFORCE)
        return {};
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
    connection.dst = *client;
    connection.proto = 6;
    connection.dport = 22;
    std::vector<Rule> rules;
    for (const InstalledRule& installed : state.rules)
        rules.push_back(installed.rule);
    const auto position = first_match(rules, connection, find_exe, sets);
    if (position && rules[*position].actions.back().kind != ActionKind::deny)
        return {};
    return Error::usage(
        fmt::format("this would refuse connections to {}, where this ssh session comes from",
                    client->to_string()),
        "--yes does it all the same; a rule in --rules that allows it is better");
}

/// The rules of the policy.
class Editor : public datapath::RuleEditor {
  public:
    Editor(std::string root, bool allow_missing)
        : root_(std::move(root)), allow_missing_(allow_missing) {}

    Result<std::vector<datapath::RuleStatus>> rules() override {
        const Status status = NETCTL_TRY(Controller(root_).status());
        return status.rules;
    }

    Result<datapath::CommitReport> commit(const Edit& edit) override {
        datapath::CommitReport report;
        const LockedRoot root = NETCTL_TRY(LockedRoot::acquire(root_, report.notes));
        const auto live = NETCTL_TRY(open_live(root));
        if (!live)
            return not_enabled();
        PointState state = live->state();
        NETCTL_TRY(edit(state));
        NETCTL_TRY(check_names(state, &live->rules, allow_missing_, report.notes));
        const Published published =
            NETCTL_TRY(publish(root, live->maps(), state, live->head, &*live));
        NETCTL_TRY(datapath::forget_limits(live->program, state, Hook::policy));
        note_covered(state, &live->rules, report.notes);
        report.generation = published.head.generation;
        report.engine = "bit vectors";
        report.memory = published.memory;
        return report;
    }

  private:
    std::string root_;
    bool allow_missing_;
};

Result<nc_policy_stats> read_stats(const bpf::RawMap& map) {
    const std::uint32_t zero = 0;
    const auto values =
        NETCTL_TRY((bpf::lookup_per_cpu<std::uint32_t, nc_policy_stats>(map, zero)));
    // Every member is a __u64, so the sum is one over the struct's words.
    std::array<std::uint64_t, sizeof(nc_policy_stats) / sizeof(std::uint64_t)> sum{}, words{};
    for (const nc_policy_stats& value : values) {
        std::memcpy(words.data(), &value, sizeof value);
        for (std::size_t i = 0; i < sum.size(); i++)
            sum[i] += words[i];
    }
    nc_policy_stats total{};
    std::memcpy(&total, sum.data(), sizeof total);
    return total;
}

/// Counters of the rules, in their order: connections by layer.
Result<std::vector<nc_counter>> read_counters(const bpf::RawMap& outer,
                                              const std::vector<InstalledRule>& rules) {
    std::map<std::uint32_t, bpf::RawMap> chunks;
    std::vector<nc_counter> totals;
    for (const InstalledRule& installed : rules) {
        const std::uint32_t number = installed.slot / NC_COUNTER_CHUNK;
        auto chunk = chunks.find(number);
        if (chunk == chunks.end()) {
            auto opened = NETCTL_TRY(inner_map(outer, number));
            if (!opened)
                return Error::failed(fmt::format("the counters have no chunk {}", number));
            chunk = chunks.emplace(number, std::move(*opened)).first;
        }
        nc_counter total{};
        const std::uint32_t index = installed.slot % NC_COUNTER_CHUNK;
        for (const nc_policy_counter& value : NETCTL_TRY(
                 (bpf::lookup_per_cpu<std::uint32_t, nc_policy_counter>(chunk->second, index)))) {
            total.packets += value.matched[NC_LAYER_CGROUP];
            total.bytes += value.matched[NC_LAYER_LSM];
            total.over_packets += value.over[NC_LAYER_CGROUP];
            total.over_bytes += value.over[NC_LAYER_LSM];
        }
        totals.push_back(total);
    }
    return totals;
}

std::string link_target(const std::string& path) {
    std::error_code failure;
    const std::filesystem::path target = std::filesystem::read_symlink(path, failure);
    return failure ? std::string() : target.string();
}

/// The path of an executable, as long as a process runs it.
std::string exe_path(std::uint32_t tgid, std::uint64_t inode) {
    const std::string link = fmt::format("/proc/{}/exe", tgid);
    struct stat status {};
    if (stat(link.c_str(), &status) != 0 || status.st_ino != inode)
        return {};
    return link_target(link);
}

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
    const LockedRoot root = NETCTL_TRY(LockedRoot::acquire(root_, report.notes));
    const bpf::PinDir dir = policy_dir(root);
    const auto live = NETCTL_TRY(open_live(root));
    nc_policy_head head{};
    PointState state;
    if (live) {
        head = live->head;
        state = live->state();
        if (request.layer || request.cgroup)
            return Error::failed("the policy is enabled already",
                                 "--mode, --default, --log-rate and --rules change it while it "
                                 "runs; disable it first to change its layers or its cgroup");
    } else {
        NETCTL_TRY(remove_unfinished(dir));
        head.log_rate = default_log_rate;
    }
    head.mode = request.mode.value_or(static_cast<nc_policy_mode>(head.mode));
    head.default_verdict =
        request.default_verdict.value_or(static_cast<nc_policy_verdict>(head.default_verdict));
    head.log_rate = request.log_rate.value_or(head.log_rate);
    if (request.rules)
        NETCTL_TRY(datapath::replace_rules(state, *request.rules));
    const std::vector<InstalledRule>* before = live ? &live->rules : nullptr;
    NETCTL_TRY(check_names(state, before, request.allow_missing, report.notes));
    NETCTL_TRY(check_ssh(root, head, state, request.yes));

    Published published;
    if (live) {
        published = NETCTL_TRY(publish(root, live->maps(), state, head, &*live));
        NETCTL_TRY(datapath::forget_limits(live->program, state, Hook::policy));
    } else {
        const sys::Cgroup scope = NETCTL_TRY(sys::find_cgroup(request.cgroup.value_or("/")));
        if (scope.name.size() >= sizeof head.scope)
            return Error::usage(fmt::format("the path of the cgroup {} is too long", scope.name));
        Layers layers =
            NETCTL_TRY(choose_layers(request.layer.value_or(LayerChoice::automatic), scope));
        report.notes.insert(report.notes.end(), layers.notes.begin(), layers.notes.end());
        head.layers = layers.mask;
        head.scope_level = depth_of(scope.name);
        head.scope_id = scope.name == "/" ? 0 : scope.id;
        std::memcpy(head.scope, scope.name.data(), scope.name.size());
        const auto skeleton = NETCTL_TRY(open_programs(layers.mask, false));
        const bpf::Object object = skeleton.object();
        NETCTL_TRY(NETCTL_TRY(datapath::BaseStore::open_or_make(root)).share(object));
        NETCTL_TRY(object.load());
        // As long as the root's slot is empty the programs let everything pass, so that all of the
        // policy begins with the write that fills it.
        NETCTL_TRY(dir.create());
        const auto start = [&]() -> Result<Published> {
            NETCTL_TRY(attach_all(object, scope, layers.mask, dir));
            for (const char* name : pinned_maps)
                NETCTL_TRY(dir.replace(name, NETCTL_TRY(object.map(name))));
            return publish(
                root, [&](const std::string& name) { return object.map(name); }, state, head,
                nullptr);
        };
        auto started = start();
        if (!started) {
            const auto removed = dir.remove_all();
            return std::move(started).error();
        }
        published = *started;
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

Result<> Controller::disable() const {
    std::vector<std::string> notes;
    const LockedRoot root = NETCTL_TRY(LockedRoot::acquire(root_, notes));
    const bpf::PinDir dir = policy_dir(root);
    const auto live = NETCTL_TRY(open_live(root));
    if (!live) {
        NETCTL_TRY(remove_unfinished(dir)); // an enable that was killed may have left something
        return not_enabled();
    }
    // Empties the slot first: all hooks let pass from that moment on, none before another.
    const bpf::RawMap slot = NETCTL_TRY(live->program.map("root"));
    const std::uint32_t zero = 0;
    NETCTL_TRY(slot.erase(&zero));
    NETCTL_TRY(dir.remove_all());
    NETCTL_TRY(root.next_generation());
    return {};
}

Result<Status> Controller::status() const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const auto live = NETCTL_TRY(open_live(root));
    if (!live)
        return not_enabled();
    Status status;
    status.settings = live->head;
    status.scope = live->head.scope;
    const auto scope = sys::find_cgroup(status.scope);
    for (std::size_t layer = 0; layer < NC_LAYERS; layer++) {
        LayerStatus& about = status.layers[layer];
        about.live = (live->head.layers & 1U << layer) != 0;
        if (layer == NC_LAYER_CGROUP && about.live && !scope) {
            about.live = false;
            about.why = fmt::format("the cgroup {} is gone", status.scope);
        }
        if (about.live || !about.why.empty())
            continue;
        const auto tried =
            try_layer(static_cast<nc_policy_layer>(layer), scope ? scope->path : std::string());
        about.why = tried ? "it was not asked for" : tried.error().what;
    }
    if (scope && live->head.scope_id != 0 && scope->id != live->head.scope_id)
        status.notes.push_back(fmt::format("the cgroup {} was made anew since, and the policy is "
                                           "not on it: disable and enable it",
                                           status.scope));
    const bpf::RawMap stats = NETCTL_TRY(live->program.map("stats"));
    status.stats = NETCTL_TRY(read_stats(stats));
    const bpf::RawMap counters = NETCTL_TRY(live->program.map("counters"));
    const auto totals = NETCTL_TRY(read_counters(counters, live->rules));
    for (std::size_t i = 0; i < totals.size(); i++) {
        const Rule& rule = live->rules[i].rule;
        status.rules.push_back({rule, totals[i]});
        const Match* exe = rule.find(Key::exe);
        if (!exe)
            continue;
        const auto id = find_exe(exe->path);
        if (!id)
            status.notes.push_back(
                fmt::format("rule {}: there is no executable file {}", rule.id, exe->path));
        else if (!live->exes.contains(*id))
            status.notes.push_back(fmt::format(
                "rule {}: {} is another file than when the rules were last changed; `netctl "
                "policy enable` without options takes the present one",
                rule.id, exe->path));
    }
    return status;
}

std::unique_ptr<datapath::RuleEditor> Controller::edit(bool allow_missing) const {
    return std::make_unique<Editor>(root_, allow_missing);
}

Result<> Controller::read_log(const std::function<bool(const LogEvent&)>& handle, bool follow,
                              const std::function<bool()>& idle) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const bpf::PinDir dir = policy_dir(root);
    const auto live = NETCTL_TRY(open_live(root));
    if (!live)
        return not_enabled();
    const auto lock = bpf::DirLock::try_acquire(dir.path());
    if (!lock) {
        if (lock.error().code == EWOULDBLOCK)
            return Error::failed("the log of the policy is being read already",
                                 "a ring buffer gives each event to one reader only");
        return Error(lock.error());
    }
    std::map<std::uint64_t, std::string> cgroups; // finding a name walks the hierarchy
    auto buffer = NETCTL_TRY(bpf::RingBuffer::open(
        NETCTL_TRY(live->program.map("events")), [&](std::span<const std::byte> record) {
            LogEvent logged;
            nc_policy_event& event = logged.event;
            if (record.size() < sizeof event)
                return true;
            std::memcpy(&event, record.data(), sizeof event);
            event.comm[sizeof event.comm - 1] = 0;
            event.exe_name[sizeof event.exe_name - 1] = 0;
            const auto [at, fresh] = cgroups.try_emplace(event.cgroup_id);
            if (fresh)
                at->second = sys::cgroup_name(event.cgroup_id).value_or("");
            logged.cgroup = at->second;
            logged.exe = exe_path(event.tgid, event.exe_inode);
            if (logged.exe.empty())
                logged.exe = event.exe_name;
            return handle(logged);
        }));
    if (!follow) {
        NETCTL_TRY(buffer.consume());
        return {};
    }
    while (NETCTL_TRY(buffer.poll(100)))
        if (!idle() || !dir.has("stats"))
            break;
    return {};
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
            return Error::usage(fmt::format("there is no executable file {}", question.exe));
        asked.exe_dev = id->device;
        asked.exe_inode = id->inode;
    }
    const bpf::RawMap cgroups = NETCTL_TRY(live->program.map("cgroups"));
    asked.cgroup_row = NETCTL_TRY(cgroup_row(cgroups, live->head, question.cgroup));

    const auto skeleton = NETCTL_TRY(open_programs(0, true));
    const bpf::Object object = skeleton.object();
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
    return answer;
}

namespace {

/// Path of an executable of which only name and identity are known: from the process that was seen
/// last, or out of the usual directories.
std::string find_path(const nc_policy_seen& key, const nc_policy_seen_value& value) {
    std::string path = exe_path(value.tgid, key.exe_inode);
    if (!path.empty())
        return path;
    const ExeId wanted{key.exe_dev, key.exe_inode};
    const std::string name(value.exe_name, strnlen(value.exe_name, sizeof value.exe_name));
    for (const char* directory : {"/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/",
                                  "/bin/", "/sbin/", "/usr/libexec/"})
        if (find_exe(directory + name) == wanted)
            return directory + name;
    return {};
}

} // namespace

Result<std::vector<Learnt>> Controller::learn(bool forget) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const auto live = NETCTL_TRY(open_live(root));
    if (!live)
        return not_enabled();
    const bpf::RawMap seen = NETCTL_TRY(live->program.map("seen"));
    // One rule for each executable, user, protocol and port; its destinations become a list.
    struct Group {
        std::vector<Prefix> destinations;
        std::uint64_t count = 0;
        std::string who;
    };
    std::map<std::tuple<std::string, std::uint32_t, int, int>, Group> groups;
    std::vector<nc_policy_seen> keys;
    nc_policy_seen key{}, next{};
    bool more = NETCTL_TRY(seen.next_key(nullptr, &next));
    while (more) {
        key = next;
        keys.push_back(key);
        more = NETCTL_TRY(seen.next_key(&key, &next));
    }
    for (const nc_policy_seen& one : keys) {
        nc_policy_seen_value value{};
        if (!NETCTL_TRY(seen.lookup(&one, &value)))
            continue;
        const int port = has_ports(one.proto) ? one.dport : -1;
        Group& group = groups[{find_path(one, value), one.uid, one.proto, port}];
        Prefix prefix;
        prefix.address.family = one.family == 4 ? Family::ipv4 : Family::ipv6;
        std::memcpy(prefix.address.bytes.data(), one.dst, one.family == 4 ? 4 : 16);
        prefix.length = static_cast<std::uint8_t>(prefix.address.bits());
        group.destinations.push_back(prefix);
        group.count += value.count;
        group.who = std::string(value.comm, strnlen(value.comm, sizeof value.comm));
    }
    std::vector<Learnt> learnt;
    for (auto& [about, group] : groups) {
        const auto& [exe, uid, proto, port] = about;
        std::sort(group.destinations.begin(), group.destinations.end());
        group.destinations.erase(std::unique(group.destinations.begin(), group.destinations.end()),
                                 group.destinations.end());
        std::string list;
        for (const Prefix& prefix : group.destinations)
            list += (list.empty() ? "" : ", ") + prefix.to_string();
        if (group.destinations.size() > 1)
            list = fmt::format("{{{}}}", list);
        std::string text = fmt::format("dst {} proto {} uid {}", list, proto, uid);
        if (port >= 0)
            text += fmt::format(" dport {}", port);
        std::vector<std::string> words{text};
        if (!exe.empty())
            words.push_back(fmt::format("exe \"{}\"", exe));
        words.push_back("allow");
        std::string whole;
        for (const std::string& word : words)
            whole += (whole.empty() ? "" : " ") + word;
        learnt.push_back({NETCTL_TRY(parse_rule(whole, Hook::policy)), group.count, group.who});
    }
    if (forget)
        for (const nc_policy_seen& one : keys)
            NETCTL_TRY(seen.erase(&one));
    return learnt;
}

} // namespace netctl::policy
