// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/probe.hpp"

#include <cerrno>
#include <cstdint>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/libbpf.h>

namespace netctl::bpf {

Result<> check_capabilities() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    // Through the system call: libcap would be one more dependency for this one question.
    if (syscall(SYS_capget, &header, data) != 0)
        return Error::system(errno, "cannot read this process's capabilities");
    const std::uint64_t effective =
        static_cast<std::uint64_t>(data[1].effective) << 32 | data[0].effective;
    const auto has = [&](int capability) { return (effective >> capability & 1) != 0; };

    std::string missing;
    if (!has(CAP_BPF) && !has(CAP_SYS_ADMIN))
        missing = "CAP_BPF";
    if (!has(CAP_NET_ADMIN))
        missing += missing.empty() ? "CAP_NET_ADMIN" : " and CAP_NET_ADMIN";
    if (missing.empty())
        return {};
    return Error::failed("this process has no " + missing, "run as root");
}

bool kernel_has_function(const std::string& name) {
    return libbpf_find_vmlinux_btf_id(name.c_str(), BPF_TRACE_FEXIT) > 0;
}

} // namespace netctl::bpf
