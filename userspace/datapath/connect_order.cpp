// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/connect_order.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "bpf/connect.hpp"
#include "netctl/abi/redirect.h"
#include "sys/cgroup.hpp"

namespace netctl::datapath {

namespace {

/// The two features' pins of a hook, in their directories (docs/pinned-maps.md).
struct SharedHook {
    bpf::CgroupHook hook;
    const char* policy;
    const char* redirect;
};
constexpr std::array hooks{SharedHook{bpf::CgroupHook::connect4, "connect4", "link_connect4"},
                           SharedHook{bpf::CgroupHook::connect6, "connect6", "link_connect6"},
                           // The latter's are there while a rule of `to` is about UDP.
                           SharedHook{bpf::CgroupHook::sendmsg4, "sendmsg4", "link_sendmsg4"},
                           SharedHook{bpf::CgroupHook::sendmsg6, "sendmsg6", "link_sendmsg6"}};

std::optional<bpf::LinkInfo> info_of(const bpf::PinDir& dir, const char* name) {
    if (!dir.has(name))
        return {};
    const auto link = dir.open_link(name);
    const auto info = link ? link->info() : Result<bpf::LinkInfo>(link.error());
    return info && info->cgroup != 0 ? std::optional(*info) : std::nullopt;
}

Result<ConnectOrder> order_at(const Root& root, const SharedHook& hook) {
    const auto policy = info_of(root.dir().sub("policy"), hook.policy);
    const auto redirect = info_of(root.dir().sub("redirect"), hook.redirect);
    if (!policy || !redirect)
        return ConnectOrder::apart;
    // The lower one's list has both, if one is above the other.
    for (const std::uint64_t id : {policy->cgroup, redirect->cgroup}) {
        const auto name = NETCTL_TRY(sys::look_for_cgroup(id));
        if (!name)
            return ConnectOrder::apart; // gone, and all sockets of it
        const Fd cgroup = NETCTL_TRY(sys::open_cgroup(NETCTL_TRY(sys::find_cgroup(*name))));
        const auto ids = NETCTL_TRY(bpf::programs_of_cgroup(cgroup.get(), hook.hook));
        const auto judges = std::find(ids.begin(), ids.end(), policy->program_id);
        const auto rewrites = std::find(ids.begin(), ids.end(), redirect->program_id);
        if (judges != ids.end() && rewrites != ids.end())
            return judges < rewrites ? ConnectOrder::judged_first : ConnectOrder::rewritten_first;
    }
    return ConnectOrder::apart;
}

Result<> attach_again(const bpf::PinDir& dir, const SharedHook& hook) {
    const bpf::LinkInfo info = NETCTL_TRY(NETCTL_TRY(dir.open_link(hook.redirect)).info());
    const auto name = NETCTL_TRY(sys::look_for_cgroup(info.cgroup));
    if (!name)
        return {};
    const Fd cgroup = NETCTL_TRY(sys::open_cgroup(NETCTL_TRY(sys::find_cgroup(*name))));
    const bpf::Program program = NETCTL_TRY(bpf::Program::open_id(info.program_id));
    return dir.replace(hook.redirect,
                       NETCTL_TRY(bpf::attach_to_cgroup(cgroup.get(), program, hook.hook,
                                                        bpf::CgroupPlace::last)));
}

} // namespace

Result<ConnectOrder> connect_order(const Root& root) {
    ConnectOrder worst = ConnectOrder::apart;
    for (const SharedHook& hook : hooks)
        worst = std::max(worst, NETCTL_TRY(order_at(root, hook)));
    return worst;
}

Result<ConnectOrder> judge_first(const LockedRoot& root) {
    if (NETCTL_TRY(connect_order(root)) != ConnectOrder::rewritten_first)
        return connect_order(root);
    const bpf::PinDir redirect = root.dir().sub("redirect");
    for (const SharedHook& hook : hooks)
        if (NETCTL_TRY(redirect.look_for(hook.redirect)))
            NETCTL_TRY(attach_again(redirect, hook));
    return connect_order(root);
}

Result<bool> rewrites_anything(const Root& root) {
    const bpf::PinDir dir = root.dir().sub("redirect");
    if (!dir.has("conf"))
        return false;
    const std::uint32_t zero = 0;
    nc_rd_conf conf{};
    NETCTL_TRY(NETCTL_TRY(dir.open_map("conf")).lookup(&zero, &conf));
    const std::uint32_t first = (conf.to_bank & 1) * NC_RD_TO_RULES;
    nc_rd_to rule{};
    NETCTL_TRY(NETCTL_TRY(dir.open_map("to")).lookup(&first, &rule));
    return rule.used != 0;
}

Error judged_too_late() {
    return Error::unsupported("redirection is on a cgroup below the policy's, and this kernel "
                              "would ask the policy about addresses "
                              "that `redirect to` has rewritten",
                              "enable redirection on the policy's cgroup, or on one above it; "
                              "Linux 6.15 has no such limit");
}

} // namespace netctl::datapath
