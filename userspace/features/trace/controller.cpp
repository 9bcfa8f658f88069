// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/controller.hpp"

#include "bpf/object.hpp"
#include "features/trace/call_session.hpp"
#include "features/trace/file_session.hpp"
#include "features/trace/packet_session.hpp"

namespace netctl::trace {

Result<std::unique_ptr<Session>> open_session(const Request& request, const RootOptions& root,
                                              const Session::Emit& emit,
                                              std::vector<std::string>& notes) {
    bpf::capture_libbpf_messages();
    switch (request.source) {
    case Source::file: return open_file_session(request, emit);
    case Source::socket: return open_packet_session(request, root, emit);
    case Source::syscall: return open_call_session(request, root, emit);
    case Source::automatic: break;
    }
    if (!request.interface.empty() || !request.write.empty())
        return open_packet_session(request, root, emit);
    auto session = open_call_session(request, root, emit);
    const bool about_processes =
        request.pid != 0 || !request.comm.empty() || !request.cgroup.empty();
    if (session || session.error().kind != ErrorKind::unsupported || about_processes)
        return session;
    notes.push_back(session.error().what + "; tracing packets instead");
    return open_packet_session(request, root, emit);
}

} // namespace netctl::trace
