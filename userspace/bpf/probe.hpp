// SPDX-License-Identifier: GPL-2.0-only
//
// What we may do and what the kernel can do, found out by doing (invariant I5).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "core/result.hpp"

struct btf;

namespace netctl::bpf {

/// An error that names the missing capabilities if this process lacks those that every command on
/// the datapath needs: CAP_BPF or CAP_SYS_ADMIN, and CAP_NET_ADMIN.
Result<> check_capabilities();

/// Whether the kernel's BTF has this function: programs may be attached to it, if the kernel takes such at all.
bool kernel_has_function(const std::string& name);

/// What the running kernel's BTF says of itself.
class KernelTypes {
  public:
    static Result<KernelTypes> load();

    /// How many arguments the tracepoint of this name has for programs that take them by type; nothing if there is none.
    std::optional<unsigned> tracepoint_arguments(const std::string& name) const;
    /// The names of an enum by their values; empty if there is none of this name.
    std::map<std::uint32_t, std::string> enum_names(const std::string& name) const;

  private:
    struct Free {
        void operator()(btf* types) const;
    };
    explicit KernelTypes(btf* types) : types_(types) {}
    std::unique_ptr<btf, Free> types_;
};

} // namespace netctl::bpf
