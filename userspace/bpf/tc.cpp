// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/tc.hpp"

#include <algorithm>
#include <array>
#include <cerrno>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>

#include "bpf/uapi.hpp"

namespace netctl::bpf {

namespace {

/// Programs in a chain at most (BPF_MPROG_MAX of the kernel).
constexpr std::size_t chain_length = 64;

/// What every kernel takes in a test run of a classifier: a page less the room around the frame.
constexpr std::size_t test_run_most = 3072;
/// Ethernet, two tags and an IPv6 header.
constexpr std::size_t test_run_least = 14 + 8 + 40;

bpf_attach_type tcx_attach_type(TcDirection direction) {
    return direction == TcDirection::ingress ? uapi::tcx_ingress : uapi::tcx_egress;
}

bpf_tc_hook hook_of(std::uint32_t ifindex, int points) {
    bpf_tc_hook hook{};
    hook.sz = sizeof hook;
    hook.ifindex = static_cast<int>(ifindex);
    hook.attach_point = static_cast<bpf_tc_attach_point>(points);
    return hook;
}

bpf_tc_hook hook_of(const TcFilter& filter) {
    return hook_of(filter.ifindex,
                   filter.direction == TcDirection::ingress ? BPF_TC_INGRESS : BPF_TC_EGRESS);
}

bpf_tc_opts options_of(const TcFilter& filter) {
    bpf_tc_opts options{};
    options.sz = sizeof options;
    options.handle = filter.handle;
    options.priority = filter.priority;
    return options;
}

Result<> attach(const TcFilter& filter, const Program& program, std::uint32_t flags) {
    const bpf_tc_hook hook = hook_of(filter);
    bpf_tc_opts options = options_of(filter);
    options.prog_fd = program.fd();
    options.flags = flags;
    if (const int status = bpf_tc_attach(&hook, &options); status != 0)
        return Error::system(-status, "cannot attach the filter");
    return {};
}

} // namespace

Result<std::optional<std::vector<TcxProgram>>> query_tcx(std::uint32_t ifindex,
                                                         TcDirection direction) {
    using Chain = std::vector<TcxProgram>;
    std::array<__u32, chain_length> programs{}, links{};
    LIBBPF_OPTS(bpf_prog_query_opts, query, .prog_ids = programs.data(), .count = chain_length,
                .link_ids = links.data());
    const int status =
        bpf_prog_query_opts(static_cast<int>(ifindex), tcx_attach_type(direction), &query);
    // A kernel without tcx does not know the attach type.
    if (status == -EINVAL || status == -EOPNOTSUPP)
        return std::optional<Chain>();
    if (status == -ENOENT)
        return std::optional(Chain());
    if (status != 0)
        return Error::system(-status, "cannot ask the kernel for attached tcx programs");
    Chain chain;
    for (std::size_t i = 0; i < std::min<std::size_t>(query.count, chain_length); i++) {
        TcxProgram entry{programs[i], links[i], {}};
        if (const auto program = Program::open_id(entry.id))
            if (const auto info = program->info())
                entry.name = info->name;
        chain.push_back(std::move(entry));
    }
    return std::optional(std::move(chain));
}

Result<Link> attach_tcx(std::uint32_t ifindex, TcDirection direction, const Program& program,
                        const TcxPlace& place) {
    using Where = TcxPlace::Where;
    LIBBPF_OPTS(bpf_link_create_opts, options);
    options.flags = place.where == Where::first || place.where == Where::before ? uapi::mprog_before
                                                                                : uapi::mprog_after;
    if (place.where == Where::before || place.where == Where::after) {
        options.flags |= uapi::mprog_id;
        options.tcx.relative_id = place.program_id;
    }
    Fd link(bpf_link_create(program.fd(), static_cast<int>(ifindex), tcx_attach_type(direction),
                            &options));
    if (!link)
        return Error::system(errno, "cannot attach the classifier");
    return Link(std::move(link));
}

Result<bool> create_clsact(std::uint32_t ifindex) {
    bpf_tc_hook hook = hook_of(ifindex, BPF_TC_INGRESS | BPF_TC_EGRESS);
    const int status = bpf_tc_hook_create(&hook);
    if (status == -EEXIST)
        return false;
    if (status != 0)
        return Error::system(-status, "cannot make the qdisc clsact",
                             status == -ENOENT ? "the kernel lacks sch_ingress" : "");
    return true;
}

Result<> destroy_clsact(std::uint32_t ifindex) {
    bpf_tc_hook hook = hook_of(ifindex, BPF_TC_INGRESS | BPF_TC_EGRESS);
    const int status = bpf_tc_hook_destroy(&hook);
    if (status != 0 && status != -ENOENT && status != -EINVAL)
        return Error::system(-status, "cannot remove the qdisc clsact");
    return {};
}

Result<> attach_filter(const TcFilter& filter, const Program& program) {
    return attach(filter, program, 0);
}

Result<> replace_filter(const TcFilter& filter, const Program& program) {
    return attach(filter, program, BPF_TC_F_REPLACE);
}

Result<> detach_filter(const TcFilter& filter) {
    const bpf_tc_hook hook = hook_of(filter);
    const bpf_tc_opts options = options_of(filter);
    const int status = bpf_tc_detach(&hook, &options);
    if (status != 0 && status != -ENOENT && status != -EINVAL)
        return Error::system(-status, "cannot detach the filter");
    return {};
}

Result<std::optional<std::uint32_t>> query_filter(const TcFilter& filter) {
    const bpf_tc_hook hook = hook_of(filter);
    bpf_tc_opts options = options_of(filter);
    const int status = bpf_tc_query(&hook, &options);
    // Neither filter nor qdisc nor interface there.
    if (status == -ENOENT || status == -EINVAL || status == -ENODEV)
        return std::optional<std::uint32_t>();
    if (status != 0)
        return Error::system(-status, "cannot ask the kernel for a filter");
    return std::optional<std::uint32_t>(options.prog_id);
}

Result<> test_run_skb(const Program& program, std::span<const std::uint8_t> frame) {
    __sk_buff context{};
    context.cb[0] = static_cast<__u32>(frame.size());
    std::vector<std::uint8_t> taken(
        frame.begin(), frame.begin() + static_cast<long>(std::min(frame.size(), test_run_most)));
    taken.resize(std::max(taken.size(), test_run_least));
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = taken.data(),
                .data_size_in = static_cast<__u32>(taken.size()), .ctx_in = &context,
                .ctx_size_in = sizeof context);
    if (bpf_prog_test_run_opts(program.fd(), &options) != 0)
        return Error::system(
            errno, fmt::format("cannot run the program over a frame of {} bytes", frame.size()));
    return {};
}

} // namespace netctl::bpf
