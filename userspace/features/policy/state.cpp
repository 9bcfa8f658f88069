// SPDX-License-Identifier: GPL-2.0-only
#include "features/policy/state.hpp"

#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "core/abi_version.hpp"
#include "datapath/edit.hpp"
#include "sys/cgroup.hpp"
#include "sys/file_id.hpp"

namespace netctl::policy {

using datapath::FindMap;
using datapath::InstalledRule;
using datapath::Root;

bpf::PinDir policy_dir(const Root& root) {
    return root.dir().sub("policy");
}

Error not_enabled() {
    return Error::failed("the policy is not enabled", "enable it with `netctl policy enable`");
}

Result<std::optional<bpf::RawMap>> inner_map(const bpf::RawMap& outer, std::uint32_t slot) {
    std::uint32_t id = 0;
    if (!NETCTL_TRY(outer.lookup(&slot, &id)))
        return std::optional<bpf::RawMap>();
    return std::optional<bpf::RawMap>(NETCTL_TRY(bpf::RawMap::open_id(id)));
}

namespace {

Result<std::vector<InstalledRule>> read_rules(const FindMap& maps, const nc_policy_head& head) {
    const bpf::RawMap outer = NETCTL_TRY(maps("texts"));
    const auto texts = NETCTL_TRY(inner_map(outer, head.texts_slot));
    if (!texts)
        return Error::failed("the policy's rules are gone from its maps");
    const bpf::MapInfo info = NETCTL_TRY(bpf::map_info(texts->fd()));
    if (info.value_size != sizeof(nc_rule_text) || info.max_entries < head.records)
        return Error::failed("the policy's rules are not what its tables say");
    std::vector<nc_rule_text> records(head.records);
    NETCTL_TRY(texts->read_array(records.data(), sizeof(nc_rule_text), head.records));
    return datapath::decode_rules(records, Hook::policy);
}

} // namespace

std::optional<bpf::Program> find_program(const bpf::PinDir& dir) {
    for (const char* name : hook_names) {
        if (!dir.has(name))
            continue;
        const auto link = dir.open_link(name);
        if (!link)
            continue;
        const auto info = link->info();
        if (!info)
            continue;
        if (auto program = bpf::Program::open_id(info->program_id))
            return std::move(*program);
    }
    return std::nullopt;
}

Result<std::optional<Live>> open_live(const Root& root) {
    const bpf::PinDir dir = policy_dir(root);
    for (const char* name : hook_names) {
        if (!dir.has(name))
            continue;
        auto opened = dir.open_link(name);
        if (!opened && opened.error().code == EROFS)
            opened = bpf::find_link_with(NETCTL_TRY(dir.open_map("counters")));
        const bpf::Link link = NETCTL_TRY(std::move(opened));
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
        if (!reads_abi(live.head.abi_version))
            return Error::failed(fmt::format("the policy has ABI version {}, this netctl speaks {}",
                                             live.head.abi_version, abi_version()));
        if (live.head.exes + std::size_t{live.head.n_exes} * 2 > segment.size())
            return Error::failed("the policy's tables contradict themselves");
        for (std::uint32_t i = 0; i < live.head.n_exes; i++) {
            const std::uint64_t* exe = &segment[live.head.exes + std::size_t{i} * 2];
            live.exes.insert({static_cast<std::uint32_t>(exe[0]), exe[1]});
        }
        if (auto rules = read_rules(live.maps(), live.head))
            live.rules = std::move(*rules);
        else
            live.trouble = std::move(rules).error();
        return std::optional<Live>(std::move(live));
    }
    return std::optional<Live>();
}

Result<std::optional<std::string>> ground_lost(const Root& root, const nc_policy_head& head) {
    if (head.scope_id == 0) // the root, which stays
        return std::optional<std::string>();
    const auto scope = sys::find_cgroup(head.scope);
    if (!scope)
        return std::optional(fmt::format("the cgroup {} is gone: nothing is judged", head.scope));
    if (scope->id == head.scope_id)
        return std::optional<std::string>();
    const bpf::PinDir dir = policy_dir(root);
    unsigned hooks = 0, there = 0;
    for (std::size_t hook = 0; hook < NC_HOOK_LSM_CONNECT; hook++) {
        if (!NETCTL_TRY(dir.look_for(hook_names[hook])))
            continue;
        hooks++;
        auto link = dir.open_link(hook_names[hook]);
        if (!link && link.error().code == EROFS)
            continue; // a bpffs that nobody writes to
        there += NETCTL_TRY(NETCTL_TRY(std::move(link)).info()).cgroup == scope->id;
    }
    if (there == 0)
        return std::optional(fmt::format("the cgroup {} was made anew since, and the policy is not "
                                         "on it: nothing is judged",
                                         head.scope));
    return std::optional(fmt::format("the cgroup {} was made anew since, and an `enable` that did "
                                     "not come to its end has put {} of {} hooks on it, which "
                                     "judge by these rules",
                                     head.scope, there, hooks));
}

std::string to_attach_anew(const nc_policy_head& head) {
    return sys::find_cgroup(head.scope)
               ? "`netctl policy enable` puts the policy on it, with its rules"
               : "`netctl policy enable` puts the policy on it when it is there again, with its "
                 "rules";
}

std::optional<ExeId> find_exe(const std::string& path) {
    const auto id = sys::file_id(path);
    return id ? std::optional(ExeId{id->device, id->inode}) : std::nullopt;
}

} // namespace netctl::policy
