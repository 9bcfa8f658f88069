// SPDX-License-Identifier: GPL-2.0-only
//
// Files that have OpenSSL's functions in them, and probes there.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bpf/object.hpp"
#include "core/fd.hpp"
#include "core/result.hpp"
#include "sys/mapping_watch.hpp"

namespace netctl::trace {

/// Puts probes into each file once: they are the file's, so all processes that map it have them, now and later.
/// A file with OpenSSL is one that defines SSL_read and SSL_write: libssl, or a program that has it inside and
/// exports its symbols, or was not stripped of them.
class TlsLibraries {
  public:
    /// `object` is that of http_tls, loaded; it has to outlive this.
    explicit TlsLibraries(bpf::Object object) : object_(object) {}

    /// A file that was named by the user. Errors: it cannot be read, has no such functions, or takes no probes.
    Result<> hook_named(const std::string& path);
    /// What lies in the usual folders, and what all processes have mapped. Errors: the kernel takes no probes.
    Result<> hook_present();
    /// What was mapped since the last time; call it again and again.
    void hook_new();

    /// Takes all probes away.
    void unhook() { links_.clear(); }

    /// Files with probes.
    std::size_t count() const { return hooked_.size(); }
    /// Why nothing was decoded of what the process put into TLS, as far as its files tell.
    std::string why_not(std::uint32_t pid);

  private:
    using Inode = std::pair<std::uint64_t, std::uint64_t>; ///< device, number

    /// Whether it has the functions, and so probes now.
    Result<bool> hook(int file);
    Result<> hook_mapped(const sys::Mapping& mapping);

    bpf::Object object_;
    sys::MappingWatch watch_;
    bool watching_ = false;
    std::set<Inode> seen_;    ///< as mappings name them
    std::set<Inode> library_; ///< of these, what has OpenSSL
    std::set<Inode> hooked_;  ///< as stat() names them
    std::vector<bpf::Link> links_;
};

} // namespace netctl::trace
