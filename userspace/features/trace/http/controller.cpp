// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/controller.hpp"

#include <unistd.h>

#include "bpf/object.hpp"
#include "features/trace/http/call_session.hpp"
#include "features/trace/http/file_session.hpp"
#include "features/trace/http/packet_session.hpp"

namespace netctl::trace {

namespace {

/// What redirection joins is sent past the interfaces, one message or many.
Result<std::unique_ptr<Session>> open_packets(Request request, const RootOptions& root,
                                              const Session::Emit& emit,
                                              std::vector<std::string>& notes) {
    if (access((root.path + "/redirect").c_str(), F_OK) == 0) {
        request.parser.answers_may_hide = true;
        notes.emplace_back("connections that netctl redirects are not seen in packets, or in part; "
                           "--source syscall sees them whole");
    }
    return open_packet_session(request, root, emit);
}

} // namespace

Result<std::unique_ptr<Session>> open_session(const Request& request, const RootOptions& root,
                                              const Session::Emit& emit,
                                              std::vector<std::string>& notes) {
    bpf::capture_libbpf_messages();
    switch (request.source) {
    case Source::file: return open_file_session(request, emit);
    case Source::socket: return open_packets(request, root, emit, notes);
    case Source::syscall: return open_call_session(request, root, emit);
    case Source::automatic: break;
    }
    if (!request.interface.empty() || !request.write.empty())
        return open_packets(request, root, emit, notes);
    auto session = open_call_session(request, root, emit);
    const bool about_processes = request.pid != 0 || !request.comm.empty() ||
                                 !request.cgroup.empty() || request.containers || request.tls;
    if (session || session.error().kind != ErrorKind::unsupported || about_processes)
        return session;
    auto packets = open_packets(request, root, emit, notes);
    if (!packets) {
        // Who asked for neither has to hear of both.
        Error error = std::move(packets).error();
        error.what += "; nor can system calls be traced: " + session.error().what;
        return error;
    }
    notes.push_back(session.error().what + "; tracing packets instead");
    return packets;
}

} // namespace netctl::trace
