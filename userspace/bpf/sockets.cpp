// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/sockets.hpp"

#include <array>
#include <cerrno>
#include <unistd.h>

#include <bpf/bpf.h>

namespace netctl::bpf {

Result<> attach_msg_verdict(const Program& program, const RawMap& sockets) {
    if (bpf_prog_attach(program.fd(), sockets.fd(), BPF_SK_MSG_VERDICT, 0) != 0)
        return Error::system(errno, "cannot attach the sk_msg program to its map");
    return {};
}

Result<std::uint32_t> run_skb(const Program& program, std::uint32_t mark) {
    std::array<std::uint8_t, 64> frame{};
    __sk_buff context{};
    context.mark = mark;
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data(),
                .data_size_in = static_cast<__u32>(frame.size()), .ctx_in = &context,
                .ctx_size_in = sizeof context);
    if (bpf_prog_test_run_opts(program.fd(), &options) != 0)
        return Error::system(errno, "cannot run the program");
    return options.retval;
}

Result<> run_iterator(const Program& program) {
    const Fd link(bpf_link_create(program.fd(), 0, BPF_TRACE_ITER, nullptr));
    const Fd run(link ? bpf_iter_create(link.get()) : -1);
    if (!run)
        return Error::system(errno, "cannot run the iterator");
    std::array<char, 64> nothing;
    ssize_t got = 0;
    do
        got = ::read(run.get(), nothing.data(), nothing.size());
    while (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)));
    if (got < 0)
        return Error::system(errno, "cannot run the iterator");
    return {};
}

} // namespace netctl::bpf
