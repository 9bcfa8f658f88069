// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/uprobe.hpp"

#include <cerrno>
#include <fstream>
#include <linux/perf_event.h>
#include <string>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <fmt/format.h>

namespace netctl::bpf {

namespace {

/// What perf_event_open(2) calls uprobes; 0: the kernel has none.
std::uint32_t perf_type() {
    static const std::uint32_t type = [] {
        std::uint32_t number = 0;
        std::ifstream("/sys/bus/event_source/devices/uprobe/type") >> number;
        return number;
    }();
    return type;
}

} // namespace

Result<Link> attach_uprobe(const Program& program, int file, std::uint64_t offset, ProbeAt at) {
    if (perf_type() == 0)
        return Error::unsupported("this kernel has no uprobes, or /sys is not mounted");
    // The file that the descriptor is of, whatever its name is, or was.
    const std::string path = fmt::format("/proc/self/fd/{}", file);
    perf_event_attr attributes{};
    attributes.size = sizeof attributes;
    attributes.type = perf_type();
    attributes.config = at == ProbeAt::function_return ? 1 : 0;
    attributes.config1 = reinterpret_cast<std::uintptr_t>(path.c_str());
    attributes.config2 = offset;
    const Fd event(static_cast<int>(
        syscall(SYS_perf_event_open, &attributes, -1, 0, -1, PERF_FLAG_FD_CLOEXEC)));
    if (!event)
        return Error::system(errno, "cannot put a probe into a function",
                             errno == EPERM || errno == EACCES ? "that takes root, or CAP_SYS_ADMIN"
                                                               : "");
    Fd link(bpf_link_create(program.fd(), event.get(), BPF_PERF_EVENT, nullptr));
    if (!link)
        return Error::system(errno, "cannot run a program at a probe");
    return Link(std::move(link));
}

} // namespace netctl::bpf
