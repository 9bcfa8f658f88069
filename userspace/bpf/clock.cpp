// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/clock.hpp"

#include <cerrno>
#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include <bpf/bpf.h>
#include <fmt/format.h>

namespace netctl::bpf {

namespace {

Error refused(int code, std::uint32_t hertz) {
    if (code == EINVAL)
        return Error::system(code, fmt::format("cannot sample {} times a second", hertz),
                             "kernel.perf_event_max_sample_rate is the most that is allowed");
    return Error::system(code, "cannot sample what the CPUs do",
                         code == EPERM || code == EACCES ? "that takes root, or CAP_PERFMON" : "");
}

} // namespace

Result<std::vector<Link>> attach_clock(const Program& program, std::uint32_t hertz) {
    perf_event_attr attributes{};
    attributes.size = sizeof attributes;
    attributes.type = PERF_TYPE_SOFTWARE;
    attributes.config = PERF_COUNT_SW_CPU_CLOCK;
    attributes.freq = 1;
    attributes.sample_freq = hertz;
    attributes.exclude_idle = 1;
    std::vector<Link> links;
    const long cpus = sysconf(_SC_NPROCESSORS_CONF);
    for (int cpu = 0; cpu < cpus; ++cpu) {
        const Fd event(static_cast<int>(
            syscall(SYS_perf_event_open, &attributes, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)));
        if (!event && errno == ENODEV)
            continue; // that CPU is off
        if (!event)
            return refused(errno, hertz);
        Fd link(bpf_link_create(program.fd(), event.get(), BPF_PERF_EVENT, nullptr));
        if (!link)
            return Error::system(errno, "cannot run a program by the clock");
        links.emplace_back(std::move(link));
    }
    return links;
}

} // namespace netctl::bpf
