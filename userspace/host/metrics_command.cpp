// SPDX-License-Identifier: GPL-2.0-only
#include <algorithm>
#include <chrono>
#include <thread>

#include <fmt/format.h>

#include "core/json.hpp"
#include "core/log.hpp"
#include "host/host.hpp"
#include "host/metrics.hpp"
#include "host/metrics_table.hpp"
#include "sys/page_server.hpp"
#include "sys/replace_file.hpp"
#include "sys/stop.hpp"

namespace netctl::host {

namespace {

constexpr std::uint64_t default_max_rules = 1000, most_rules = 131072;

/// A scrape has about ten seconds: what a writer holds longer than this is told as not read.
constexpr std::chrono::seconds scrape_patience(5);

/// Of an exporter that runs on, what could not be read is said once, when it changes.
class Complaints {
  public:
    void tell(const Context& context, const std::vector<std::string>& unread) {
        if (unread != last_)
            context.out.notes(unread);
        last_ = unread;
    }

  private:
    std::vector<std::string> last_;
};

Result<Metrics> write_textfile(const Context& context, const std::string& path,
                               std::size_t max_rules) {
    Metrics metrics = read_metrics(context.root, max_rules);
    // node_exporter runs as a user of its own.
    NETCTL_TRY(sys::replace_file(path, metrics.text, 0644));
    return metrics;
}

Result<int> write_once(const Context& context, const std::string& path, std::size_t max_rules) {
    const Metrics metrics = NETCTL_TRY(write_textfile(context, path, max_rules));
    context.out.notes(metrics.unread);
    const Json told{{"file", path},
                    {"samples", metrics.samples},
                    {"bytes", metrics.text.size()},
                    {"unread", metrics.unread}};
    context.out.document(told, context.out.json()
                                   ? Text()
                                   : Text::format("{}: {} samples, {} bytes\n", path,
                                                  metrics.samples, metrics.text.size()));
    return metrics.unread.empty() ? 0 : 4;
}

Result<int> write_on(const Context& context, const std::string& path, std::size_t max_rules,
                     std::chrono::seconds every) {
    sys::catch_stop_signals();
    Complaints complaints;
    while (!sys::stop_requested()) {
        const auto next = std::chrono::steady_clock::now() + every;
        const Metrics metrics = NETCTL_TRY(write_textfile(context, path, max_rules));
        complaints.tell(context, metrics.unread);
        while (!sys::stop_requested() && std::chrono::steady_clock::now() < next)
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return 0;
}

Result<int> serve_metrics(Context& context, const std::string& where, bool anyway,
                          std::size_t max_rules) {
    const sys::Endpoint endpoint = NETCTL_TRY(sys::Endpoint::parse(where));
    if (!endpoint.is_loopback() && !anyway)
        return Error::usage(
            fmt::format("{} is not a loopback address", endpoint.address.to_string()),
            "rules, interfaces and counters would be there for anyone to read, without encryption "
            "or password: --listen-anyway, if that is meant");
    RootOptions root = context.root;
    root.lock_timeout = std::min(root.lock_timeout, scrape_patience);
    sys::catch_stop_signals();
    sys::PageServer server = NETCTL_TRY(sys::PageServer::listen(endpoint));
    const std::string url = fmt::format("http://{}/metrics", server.endpoint().to_string());
    if (!context.out.line({{"listening", url}}, Text::format("listening: {}\n", url)))
        return 0;
    Complaints complaints;
    NETCTL_TRY(server.serve(
        "/metrics", "text/plain; version=0.0.4; charset=utf-8",
        [&] {
            Metrics metrics = read_metrics(root, max_rules);
            complaints.tell(context, metrics.unread);
            return std::move(metrics.text);
        },
        sys::stop_requested));
    return 0;
}

Result<int> export_metrics(const Arguments& arguments, Context& context) {
    const std::size_t max_rules =
        NETCTL_TRY(arguments.number("max-rules", default_max_rules, 0, most_rules));
    const bool file = arguments.has("textfile"), listen = arguments.has("listen");
    if (file == listen)
        return Error::usage(file ? "metrics go into a file or to whoever asks for them, not both"
                                 : "metrics are asked for without saying where they go",
                            "--textfile PATH or --listen ADDRESS:PORT");
    for (const char* option : {"once", "interval"})
        if (listen && arguments.has(option))
            return Error::usage(fmt::format("--{} is about --textfile", option));
    if (file && arguments.has("listen-anyway"))
        return Error::usage("--listen-anyway is about --listen");
    if (listen)
        return serve_metrics(context, arguments.get("listen"), arguments.has("listen-anyway"),
                             max_rules);
    if (arguments.has("once") && arguments.has("interval"))
        return Error::usage("--once and --interval contradict each other");
    const std::string path = arguments.get("textfile");
    if (!path.ends_with(".prom"))
        return Error::usage(fmt::format("the name of {} does not end in .prom", path),
                            "node_exporter reads no other files");
    if (arguments.has("once"))
        return write_once(context, path, max_rules);
    return write_on(context, path, max_rules,
                    std::chrono::seconds(NETCTL_TRY(arguments.number("interval", 15, 1, 3600))));
}

} // namespace

Command metrics_command() {
    return {.name = "metrics",
            .summary = "export counters and states for Prometheus, into a file or over HTTP",
            .options = {{"textfile", "PATH", "into this file, NAME.prom, for node_exporter", {}},
                        {"once", "", "write the file and end", {}},
                        {"interval", "SECONDS", "write the file so often (default: 15)", {}},
                        {"listen", "ADDRESS:PORT", "answer GET /metrics there", {}},
                        {"listen-anyway", "", "also on an address that others can reach", {}},
                        {"max-rules",
                         "N",
                         "of points with more rules, only those with a comment have metrics of "
                         "their own (default: 1000)",
                         {}}},
            .run = export_metrics};
}

} // namespace netctl::host
