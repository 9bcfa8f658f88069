// SPDX-License-Identifier: GPL-2.0-only
#include <algorithm>

#include "fleet/dir_source.hpp"
#include "fleet/etcd_source.hpp"
#include "fleet/fleet.hpp"
#include "fleet/release.hpp"

namespace netctl::fleet {

std::vector<std::string> split_words(const std::string& text) {
    std::vector<std::string> parts;
    for (std::size_t at = 0; at <= text.size() && !text.empty();) {
        const std::size_t comma = std::min(text.find(',', at), text.size());
        parts.push_back(text.substr(at, comma - at));
        at = comma + 1;
    }
    return parts;
}

std::vector<Option> source_options() {
    return {{"dir", "DIR", "the folder that hosts and operators share", {}},
            {"status-dir", "DIR", "where hosts report (default: `status` in --dir)", {}},
            {"etcd", "URLS", "or etcd's servers: https://HOST:2379,…", {}},
            {"ca", "FILE", "who has to have signed etcd's certificate (default: the system's)", {}},
            {"cert", "FILE", "the certificate to show to etcd", {}},
            {"cert-key", "FILE", "the key of --cert", {}},
            {"fleet", "NAME", "which fleet; needed with --etcd", {}}};
}

namespace {

Result<GrpcOptions> etcd_options(const Arguments& arguments) {
    if (!is_host_name(arguments.get("fleet")))
        return Error::usage("--etcd needs --fleet NAME");
    if (arguments.has("cert") != arguments.has("cert-key"))
        return Error::usage("--cert and --cert-key belong together");
    GrpcOptions options{split_words(arguments.get("etcd")), arguments.get("ca"),
                        arguments.get("cert"), arguments.get("cert-key")};
    for (std::string& url : options.urls) {
        while (url.ends_with('/'))
            url.pop_back();
        if (!url.starts_with("http://") && !url.starts_with("https://"))
            return Error::usage(Text::format("'{}' is no address of etcd", url),
                                "https://HOST:2379, several with commas between");
        if (arguments.has("cert") && url.starts_with("http://"))
            return Error::usage(Text::format("no certificate is shown to {}", url),
                                "https://HOST:2379");
    }
    if (options.urls.empty())
        return Error::usage("--etcd names no server", "https://HOST:2379");
    return options;
}

} // namespace

Result<std::unique_ptr<Source>> open_source(const Arguments& arguments) {
    if (arguments.has("dir") == arguments.has("etcd"))
        return Error::usage("--dir or --etcd is needed, and one of them",
                            "where hosts and operators of the fleet meet");
    if (arguments.has("dir"))
        return std::unique_ptr<Source>(std::make_unique<DirSource>(
            NETCTL_TRY(DirSource::open(arguments.get("dir"), arguments.get("status-dir")))));
    return std::unique_ptr<Source>(
        std::make_unique<EtcdSource>(NETCTL_TRY(etcd_options(arguments)), arguments.get("fleet")));
}

Result<> enrol_host(const Arguments& arguments, const std::string& host) {
    if (!arguments.has("etcd"))
        return Error::usage("--etcd is missing", "in a folder there are no users");
    if (!is_host_name(host))
        return Error::usage(Text::format("'{}' is no name of a host", host));
    return EtcdSource(NETCTL_TRY(etcd_options(arguments)), arguments.get("fleet")).enrol(host);
}

} // namespace netctl::fleet
