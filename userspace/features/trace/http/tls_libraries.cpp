// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/tls_libraries.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "bpf/uprobe.hpp"
#include "core/log.hpp"
#include "sys/elf.hpp"

namespace netctl::trace {

namespace {

struct Function {
    const char* name;
    const char* program; ///< at its entry
    bool returns;        ///< and tls_return behind it
};

/// SSL_read_early_data and SSL_write_early_data go through those with _ex, SSL_accept and SSL_connect through
/// SSL_do_handshake.
constexpr std::array<Function, 8> functions{{
    {"SSL_read", "tls_read", true},
    {"SSL_write", "tls_write", true},
    {"SSL_read_ex", "tls_read_ex", true},
    {"SSL_write_ex", "tls_write_ex", true},
    {"SSL_sendfile", "tls_sendfile", true},
    {"SSL_do_handshake", "tls_handshake", true},
    {"SSL_free", "tls_free", false},
    {"SSL_clear", "tls_free", false},
}};

/// Where distributions and builds by hand put libssl: what no process has mapped yet.
constexpr std::array<const char*, 5> usual_places{
    "/usr/lib/*/libssl.so*", "/usr/lib64/libssl.so*", "/usr/lib/libssl.so*",
    "/usr/local/lib/libssl.so*", "/usr/local/lib64/libssl.so*"};

/// Files remembered as being no library; more than hosts have, unless programs come and go.
constexpr std::size_t memory_limit = 65536;

/// Not this file's fault: others will fail as well.
bool is_general(const Error& error) {
    return error.kind == ErrorKind::unsupported || error.code == EPERM || error.code == EACCES;
}

} // namespace

Result<bool> TlsLibraries::hook(int file) {
    std::array<const char*, functions.size()> names{};
    std::transform(functions.begin(), functions.end(), names.begin(),
                   [](const Function& function) { return function.name; });
    const auto found = NETCTL_TRY(sys::find_functions(file, names));
    if (!found.contains("SSL_read") || !found.contains("SSL_write"))
        return false;
    struct stat about {};
    if (fstat(file, &about) != 0)
        return Error::system(errno, "cannot look at the file");
    if (!hooked_.emplace(about.st_dev, about.st_ino).second)
        return true;
    const bpf::Program leave = NETCTL_TRY(object_.program("tls_return"));
    std::vector<bpf::Link> links;
    const auto attach = [&]() -> Result<> {
        for (const Function& function : functions) {
            const auto offset = found.find(function.name);
            if (offset == found.end())
                continue;
            if (function.returns)
                links.push_back(NETCTL_TRY(bpf::attach_uprobe(leave, file, offset->second,
                                                              bpf::ProbeAt::function_return)));
            const bpf::Program enter = NETCTL_TRY(object_.program(function.program));
            links.push_back(
                NETCTL_TRY(bpf::attach_uprobe(enter, file, offset->second, bpf::ProbeAt::entry)));
        }
        return {};
    };
    if (auto attached = attach(); !attached) {
        hooked_.erase({about.st_dev, about.st_ino});
        return std::move(attached).error();
    }
    std::move(links.begin(), links.end(), std::back_inserter(links_));
    return true;
}

Result<> TlsLibraries::hook_named(const std::string& path) {
    const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    if (!file)
        return Error::system(errno, fmt::format("cannot open {}", path));
    auto hooked = hook(file.get());
    if (!hooked.has_value()) {
        Error error = std::move(hooked).error();
        error.what = Text::format("{}: {}", path, error.what);
        return error;
    }
    if (!*hooked)
        return Error::failed(
            fmt::format("{} has no functions SSL_read and SSL_write for this machine", path),
            "--tls-lib takes a libssl, or a program that has OpenSSL inside and its symbols");
    return {};
}

Result<> TlsLibraries::hook_mapped(const sys::Mapping& mapping) {
    const Inode inode{mapping.device, mapping.inode};
    if (seen_.contains(inode))
        return {};
    const Fd file = sys::open_mapped(mapping);
    if (!file)
        return {}; // the process is gone, or not ours to look at
    if (seen_.size() >= memory_limit)
        seen_ = library_;
    seen_.insert(inode);
    const auto hooked = hook(file.get());
    if (!hooked.has_value() && is_general(hooked.error()))
        return Error(hooked.error());
    if (!hooked.has_value())
        debug(Text::format("{}: {}", mapping.path, hooked.error().what));
    else if (*hooked) {
        library_.insert(inode);
        debug(Text::format("{} has OpenSSL", mapping.path));
    }
    return {};
}

Result<> TlsLibraries::hook_present() {
    // Before the processes are looked at, lest one is missed between.
    if (const auto started = watch_.start(); started)
        watching_ = true;
    else
        debug(started.error().what);
    std::vector<std::string> files;
    for (const char* pattern : usual_places) {
        glob_t names{};
        if (glob(pattern, GLOB_NOSORT, nullptr, &names) == 0)
            for (std::size_t i = 0; i < names.gl_pathc; ++i)
                files.emplace_back(names.gl_pathv[i]);
        globfree(&names);
    }
    for (const std::string& path : files) {
        const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
        if (!file)
            continue;
        const auto hooked = hook(file.get());
        if (!hooked.has_value() && is_general(hooked.error()))
            return Error(hooked.error());
        if (!hooked.has_value())
            debug(Text::format("{}: {}", path, hooked.error().what));
    }
    for (const std::uint32_t pid : sys::all_processes())
        for (const sys::Mapping& mapping : sys::executable_mappings(pid))
            NETCTL_TRY(hook_mapped(mapping));
    return {};
}

void TlsLibraries::hook_new() {
    if (!watching_)
        return;
    const bool whole =
        watch_.read([this](const sys::Mapping& mapping) { (void)hook_mapped(mapping); });
    if (whole)
        return;
    for (const std::uint32_t pid : sys::all_processes())
        for (const sys::Mapping& mapping : sys::executable_mappings(pid))
            (void)hook_mapped(mapping);
}

std::string TlsLibraries::why_not(std::uint32_t pid) {
    const std::vector<sys::Mapping> mappings = sys::executable_mappings(pid);
    if (mappings.empty())
        return "ended before it was looked at";
    const auto maps = [&](std::string_view name) {
        return std::any_of(mappings.begin(), mappings.end(), [&](const sys::Mapping& mapping) {
            const std::string& path = mapping.path;
            return path.compare(path.rfind('/') + 1, name.size(), name) == 0;
        });
    };
    if (std::any_of(mappings.begin(), mappings.end(), [&](const sys::Mapping& mapping) {
            return library_.contains({mapping.device, mapping.inode});
        }))
        return "OpenSSL, but not by SSL_read and SSL_write on its sockets";
    if (maps("libgnutls."))
        return "GnuTLS";
    if (maps("libnss3.") || maps("libssl3.so"))
        return "NSS";
    if (maps("libmbedtls."))
        return "Mbed TLS";
    if (maps("libwolfssl."))
        return "wolfSSL";
    const Fd program(open(fmt::format("/proc/{}/exe", pid).c_str(), O_RDONLY | O_CLOEXEC));
    if (program && sys::has_section(program.get(), ".go.buildinfo"))
        return "Go";
    return "no library with names that are known";
}

} // namespace netctl::trace
