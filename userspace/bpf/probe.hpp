// SPDX-License-Identifier: GPL-2.0-only
//
// What we may do and what the kernel can do, found out by doing (invariant I5).
#pragma once

#include <string>

#include "core/result.hpp"

namespace netctl::bpf {

/// An error that names the missing capabilities if this process lacks those that every command on
/// the datapath needs: CAP_BPF or CAP_SYS_ADMIN, and CAP_NET_ADMIN.
Result<> check_capabilities();

/// Whether the kernel's BTF has this function: programs may be attached to it, if the kernel takes such at all.
bool kernel_has_function(const std::string& name);

} // namespace netctl::bpf
