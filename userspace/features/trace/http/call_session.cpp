// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/call_session.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "bpf/object.hpp"
#include "bpf/probe.hpp"
#include "core/log.hpp"
#include "features/trace/http/call_tracer.hpp"
#include "features/trace/http/kernel_side.hpp"
#include "features/trace/http/sealed.hpp"
#include "features/trace/http/tls_source.hpp"
#include "http_syscall.skel.h"
#include "sys/cgroup.hpp"
#include "sys/clock.hpp"
#include "sys/netns.hpp"

namespace netctl::trace {

namespace {

/// How much of a turn, which is a request or a response, is wanted.
constexpr std::uint32_t default_turn_bytes = 128 * 1024;

/// What this source alone has in its settings.
Result<nc_http_config> make_config(const Request& request) {
    nc_http_config config{};
    config.turn_bytes = request.turn_bytes ? request.turn_bytes : default_turn_bytes;
    config.body_bytes = std::min(request.parser.body_limit, config.turn_bytes);
    if (request.both_sides)
        config.flags |= NC_HTTP_BOTH_SIDES;
    if (request.pid != 0)
        config.select |= NC_HTTP_SELECT_PID;
    if (!request.comm.empty()) {
        config.select |= NC_HTTP_SELECT_COMM;
        std::memcpy(config.comm, request.comm.data(),
                    std::min(request.comm.size(), sizeof config.comm - 1));
    }
    if (!request.cgroup.empty()) {
        const sys::Cgroup cgroup = NETCTL_TRY(sys::find_cgroup(request.cgroup));
        config.select |= NC_HTTP_SELECT_CGROUP;
        config.cgroup_id = cgroup.id;
        config.cgroup_level = sys::cgroup_level(cgroup.name);
    }
    if (request.only_netns) {
        const auto inside = NETCTL_TRY(sys::NetnsGuard::enter(request.netns));
        config.select |= NC_HTTP_SELECT_NETNS;
        config.netns = static_cast<__u32>(NETCTL_TRY(sys::current_netns_inode()));
    }
    return config;
}

enum class ProbePoint { tracepoints, functions };

/// In the order in which they are attached: who sees an answer has to have seen the request.
std::vector<std::string> programs_of(ProbePoint point) {
    if (point == ProbePoint::tracepoints)
        return {"http_recv", "http_send", "http_state"};
    std::vector<std::string> programs{"http_recv4", "http_recv6", "http_recv_unix",
                                      "http_send4", "http_send6", "http_send_unix",
                                      "http_state"};
    // Only kernels before 6.5 have a path of its own for sendfile.
    if (bpf::kernel_has_function("inet_sendpage"))
        programs.emplace_back("http_sendpage");
    return programs;
}

/// Of what libbpf says line by line, which -v shows.
std::string last_line(const std::string& text) {
    return text.substr(text.find_last_of('\n') + 1);
}

class CallSession : public Session {
  public:
    static Result<std::unique_ptr<CallSession>> open(ProbePoint point, const nc_http_config& config,
                                                     const Request& request,
                                                     const RootOptions& root, const Emit& emit) {
        auto skeleton = NETCTL_TRY(bpf::Skeleton<http_syscall>::open());
        std::unique_ptr<CallSession> session(
            new CallSession(point, request, std::move(skeleton), emit));
        NETCTL_TRY(session->start(config, request, root));
        return session;
    }

    /// Looks into TLS as well, from now on.
    Result<> start_tls(const Request& request) {
        tls_ = NETCTL_TRY(TlsSource::open(skeleton_.object(), point_ == ProbePoint::tracepoints,
                                          request.tls_libraries));
        tracer_.take_tls(sealed_, [this](std::uint64_t stream, const std::uint64_t(&until)[2]) {
            if (tls_)
                tls_->skip(stream, until);
        });
        return {};
    }

    Result<bool> poll() override {
        NETCTL_TRY(kernel_->reader().read());
        tracer_.tick(now());
        if (tls_)
            tls_->poll();
        if (capture_)
            capture_->file().flush_at_times();
        return true;
    }
    void rest() override { kernel_->reader().rest(); }

    Result<> stop() override {
        if (tls_)
            tls_->detach();
        links_.clear();
        NETCTL_TRY(kernel_->reader().drain());
        tracer_.finish(now());
        if (capture_)
            capture_->file().flush();
        return {};
    }
    std::optional<Error> write_error() override {
        return capture_ ? capture_->file().take_error() : std::nullopt;
    }

    Result<Counters> counters() const override {
        Counters counters = NETCTL_TRY(kernel_->counters());
        counters.parser = parser_;
        counters.calls = calls_;
        counters.sealed = sealed_.count();
        counters.sealed_about = sealed_.told(8);
        for (const bpf::Program& program : programs_)
            if (const auto info = program.info())
                counters.recursions += info->recursions;
        return counters;
    }

    std::string description() const override {
        std::string text = point_ == ProbePoint::tracepoints
                               ? "system calls (socket tracepoints)"
                               : "system calls (fexit of inet_sendmsg)";
        if (tls_)
            text += fmt::format(" and OpenSSL in {} file{}", tls_->libraries(),
                                tls_->libraries() == 1 ? "" : "s");
        return text;
    }
    std::string pins() const override { return kernel_->pins(); }

  private:
    CallSession(ProbePoint point, const Request& request, bpf::Skeleton<http_syscall> skeleton,
                Emit emit)
        : point_(point),
          options_(request.parser),
          emit_(std::move(emit)),
          skeleton_(std::move(skeleton)),
          offset_(static_cast<Time>(sys::monotonic_offset())),
          tracer_(
              options_, parser_, calls_, request.both_sides,
              [this](Transaction& transaction) { emit_(transaction); }, request.stalled,
              request.containers ? &containers_ : nullptr) {}

    Time now() const { return static_cast<Time>(sys::monotonic_now()) + offset_; }

    Result<> start(const nc_http_config& config, const Request& request, const RootOptions& root) {
        if (!request.write.empty()) {
            capture_.emplace(NETCTL_TRY(CaptureFile::create(request.write)));
            tracer_.write_to(*capture_);
        }
        const bpf::Object object = skeleton_.object();
        const std::vector<std::string> programs = programs_of(point_);
        NETCTL_TRY(object.load_only(programs));
        NETCTL_TRY(object.set_autocreate("tls_sockets", request.tls));
        const std::uint8_t beside_tls = request.tls ? 1 : 0;
        NETCTL_TRY(object.set_rodata("beside_tls", std::as_bytes(std::span(&beside_tls, 1))));
        // Tried on kernels that have these; on others HTTP/2 is copied whole.
        const std::uint8_t follow = point_ == ProbePoint::tracepoints ? 1 : 0;
        NETCTL_TRY(object.set_rodata("follow_frames", std::as_bytes(std::span(&follow, 1))));
        constexpr const char* pinned[] = {"settings", "ports", "pids", "counters"};
        kernel_.emplace(NETCTL_TRY(KernelSide::load(
            object, config, pinned, request, root,
            [this](std::span<const std::byte> bytes) { tracer_.record(bytes, offset_); })));
        if (request.pid != 0) {
            const std::uint8_t one = 1;
            NETCTL_TRY(NETCTL_TRY(object.map("pids")).update(&request.pid, &one));
        }
        for (const std::string& name : programs) {
            links_.push_back(NETCTL_TRY(object.attach(name)));
            programs_.push_back(NETCTL_TRY(object.program(name)));
        }
        return {};
    }

    ProbePoint point_;
    ParserOptions options_;
    Emit emit_;
    bpf::Skeleton<http_syscall> skeleton_;
    Time offset_;
    ParserCounters parser_;
    CallCounters calls_;
    Containers containers_{sys::cgroup_name};
    std::optional<CallCapture> capture_;
    SealedConnections sealed_{[this](std::uint32_t pid) {
        return tls_ ? tls_->why_not(pid) : std::string("ended before it was looked at");
    }};
    CallTracer tracer_;
    std::optional<KernelSide> kernel_;
    std::vector<bpf::Program> programs_;
    std::vector<bpf::Link> links_;
    std::unique_ptr<TlsSource> tls_;
};

} // namespace

Result<std::unique_ptr<Session>> open_call_session(const Request& request, const RootOptions& root,
                                                   const Session::Emit& emit) {
    const nc_http_config config = NETCTL_TRY(make_config(request));
    Error first = Error::failed(""), second = first;
    for (const ProbePoint point : {ProbePoint::tracepoints, ProbePoint::functions}) {
        auto session = CallSession::open(point, config, request, root, emit);
        if (session) {
            // What fails here fails at either point.
            if (request.tls)
                NETCTL_TRY((*session)->start_tls(request));
            return std::unique_ptr<Session>(*std::move(session));
        }
        debug(session.error().what);
        (point == ProbePoint::tracepoints ? first : second) = std::move(session).error();
    }
    // What fails without privileges is not the kernel's fault.
    if (first.code == EPERM || first.code == EACCES)
        return first;
    return Error::unsupported(
        fmt::format(
            "this kernel reports no socket calls: it has neither the tracepoints "
            "sock_send_length and sock_recv_length (6.3; {}) nor lets fexit programs attach to "
            "inet_sendmsg ({})",
            last_line(first.what.string()), last_line(second.what.string())),
        "use --source socket");
}

} // namespace netctl::trace
