// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/tls_source.hpp"

#include <optional>
#include <utility>

#include "bpf/uprobe.hpp"
#include "core/log.hpp"
#include "features/trace/http/tls_libraries.hpp"
#include "http_tls.skel.h"
#include "netctl/abi/http.h"

namespace netctl::trace {

namespace {

std::vector<std::string> socket_programs(bool tracepoints) {
    if (tracepoints)
        return {"tls_received", "tls_sent", "tls_state"};
    return {"tls_received4", "tls_received6", "tls_sent4", "tls_sent6", "tls_state"};
}

class OpenSslSource : public TlsSource {
  public:
    explicit OpenSslSource(bpf::Skeleton<http_tls> skeleton)
        : skeleton_(std::move(skeleton)), libraries_(skeleton_.object()) {}

    Result<> start(const bpf::Object& calls, bool tracepoints,
                   std::span<const std::string> libraries) {
        const bpf::Object object = skeleton_.object();
        const std::vector<std::string> sockets = socket_programs(tracepoints);
        std::vector<std::string> programs{"tls_read",     "tls_write",    "tls_read_ex",
                                          "tls_write_ex", "tls_sendfile", "tls_handshake",
                                          "tls_free",     "tls_return"};
        programs.insert(programs.end(), sockets.begin(), sockets.end());
        NETCTL_TRY(object.load_only(programs));
        for (const char* map : {"events", "settings", "ports", "pids", "counters", "tls_sockets"})
            NETCTL_TRY(object.reuse(map, NETCTL_TRY(calls.map(map))));
        NETCTL_TRY(object.load());
        NETCTL_TRY(bpf::check_return_probes(NETCTL_TRY(object.program("tls_return"))));
        flows_ = NETCTL_TRY(object.map("tls_flows"));
        for (const std::string& program : sockets)
            links_.push_back(NETCTL_TRY(object.attach(program)));
        for (const std::string& path : libraries)
            NETCTL_TRY(libraries_.hook_named(path));
        return libraries_.hook_present();
    }

    void detach() override {
        libraries_.unhook();
        links_.clear();
    }
    void poll() override { libraries_.hook_new(); }

    void skip(std::uint64_t stream, const std::uint64_t (&until)[2]) override {
        nc_http_tls_flow flow{};
        flow.until[NC_HTTP_SENT] = until[NC_HTTP_SENT];
        flow.until[NC_HTTP_RECEIVED] = until[NC_HTTP_RECEIVED];
        if (const auto told = flows_.update(&stream, &flow); !told)
            debug(told.error().what);
    }

    std::string why_not(std::uint32_t pid) override { return libraries_.why_not(pid); }
    std::size_t libraries() const override { return libraries_.count(); }

  private:
    bpf::Skeleton<http_tls> skeleton_;
    bpf::RawMap flows_;
    std::vector<bpf::Link> links_;
    TlsLibraries libraries_;
};

} // namespace

Result<std::unique_ptr<TlsSource>> TlsSource::open(const bpf::Object& calls, bool tracepoints,
                                                   std::span<const std::string> libraries) {
    auto source = std::make_unique<OpenSslSource>(NETCTL_TRY(bpf::Skeleton<http_tls>::open()));
    NETCTL_TRY(source->start(calls, tracepoints, libraries));
    return std::unique_ptr<TlsSource>(std::move(source));
}

} // namespace netctl::trace
