// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/connect.hpp"

#include <cerrno>

#include <bpf/bpf.h>
#include <linux/bpf.h>

namespace netctl::bpf {

namespace {

bpf_attach_type attach_type_of(CgroupHook hook) {
    switch (hook) {
    case CgroupHook::connect4: return BPF_CGROUP_INET4_CONNECT;
    case CgroupHook::connect6: return BPF_CGROUP_INET6_CONNECT;
    case CgroupHook::sendmsg4: return BPF_CGROUP_UDP4_SENDMSG;
    case CgroupHook::sendmsg6: return BPF_CGROUP_UDP6_SENDMSG;
    case CgroupHook::recvmsg4: return BPF_CGROUP_UDP4_RECVMSG;
    case CgroupHook::recvmsg6: return BPF_CGROUP_UDP6_RECVMSG;
    case CgroupHook::getpeername4: return BPF_CGROUP_INET4_GETPEERNAME;
    case CgroupHook::getpeername6: return BPF_CGROUP_INET6_GETPEERNAME;
    case CgroupHook::getsockopt: return BPF_CGROUP_GETSOCKOPT;
    case CgroupHook::setsockopt: return BPF_CGROUP_SETSOCKOPT;
    case CgroupHook::sock_ops: break;
    }
    return BPF_CGROUP_SOCK_OPS;
}

} // namespace

Result<Link> attach_to_cgroup(int cgroup, const Program& program, CgroupHook hook) {
    Fd link(bpf_link_create(program.fd(), cgroup, attach_type_of(hook), nullptr));
    if (!link)
        return Error::system(errno, "cannot attach to the cgroup",
                             errno == EPERM
                                 ? "a program attached above without BPF_F_ALLOW_MULTI may forbid "
                                   "it; see bpftool cgroup tree"
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
