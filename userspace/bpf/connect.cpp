// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/connect.hpp"

#include <cerrno>

#include <bpf/bpf.h>
#include <linux/bpf.h>

namespace netctl::bpf {

namespace {

bpf_attach_type hook_attach_type(ConnectHook hook) {
    switch (hook) {
    case ConnectHook::connect4: return BPF_CGROUP_INET4_CONNECT;
    case ConnectHook::connect6: return BPF_CGROUP_INET6_CONNECT;
    case ConnectHook::sendmsg4: return BPF_CGROUP_UDP4_SENDMSG;
    case ConnectHook::sendmsg6: break;
    }
    return BPF_CGROUP_UDP6_SENDMSG;
}

} // namespace

Result<Link> attach_to_cgroup(int cgroup, const Program& program, ConnectHook hook) {
    Fd link(bpf_link_create(program.fd(), cgroup, hook_attach_type(hook), nullptr));
    if (!link)
        return Error::system(errno, "cannot attach to the cgroup",
                             errno == EPERM ? "a program on a cgroup above it may forbid others"
                                            : "");
    return Link(std::move(link));
}

Result<Link> attach_lsm(const Program& program) {
    Fd link(bpf_link_create(program.fd(), 0, BPF_LSM_MAC, nullptr));
    if (!link)
        return Error::system(errno, "cannot attach to the LSM hook");
    return Link(std::move(link));
}

} // namespace netctl::bpf
