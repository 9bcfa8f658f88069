// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/connect.hpp"

#include <cerrno>

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include "bpf/uapi.hpp"

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
    case CgroupHook::skb_ingress: return BPF_CGROUP_INET_INGRESS;
    case CgroupHook::skb_egress: return BPF_CGROUP_INET_EGRESS;
    case CgroupHook::sock_ops: break;
    }
    return BPF_CGROUP_SOCK_OPS;
}

} // namespace

Result<Link> attach_to_cgroup(int cgroup, const Program& program, CgroupHook hook,
                              CgroupPlace place) {
    LIBBPF_OPTS(bpf_link_create_opts, options,
                .flags = place == CgroupPlace::first ? uapi::cgroup_preorder : 0);
    Fd link(bpf_link_create(program.fd(), cgroup, attach_type_of(hook), &options));
    if (!link && errno == EINVAL && options.flags != 0) { // older kernels know no flag
        options.flags = 0;
        link = Fd(bpf_link_create(program.fd(), cgroup, attach_type_of(hook), &options));
    }
    if (!link)
        return Error::system(errno, "cannot attach to the cgroup",
                             errno == EPERM
                                 ? "a program attached above without BPF_F_ALLOW_MULTI may forbid "
                                   "it; see bpftool cgroup tree"
                                 : "");
    return Link(std::move(link));
}

Result<std::vector<std::uint32_t>> programs_of_cgroup(int cgroup, CgroupHook hook) {
    std::vector<std::uint32_t> ids(64); // as many as the kernel runs at one hook
    auto count = static_cast<__u32>(ids.size());
    if (bpf_prog_query(cgroup, attach_type_of(hook), BPF_F_QUERY_EFFECTIVE, nullptr, ids.data(),
                       &count) != 0)
        return Error::system(errno, "cannot list the programs of a cgroup");
    ids.resize(count);
    return ids;
}

Result<Link> attach_lsm(const Program& program) {
    Fd link(bpf_link_create(program.fd(), 0, BPF_LSM_MAC, nullptr));
    if (!link)
        return Error::system(errno, "cannot attach to the LSM hook");
    return Link(std::move(link));
}

} // namespace netctl::bpf
