// SPDX-License-Identifier: GPL-2.0-only
//
// Constants of a program as immediates.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>

struct bpf_insn;

namespace netctl::bpf {

/// Content of the read-only map behind a file descriptor, or nothing if it may change.
using ConstantMap = std::function<std::optional<std::span<const std::byte>>(int fd)>;

/// Replaces loads from constant maps by the values that they yield. The verifier knows such values
/// anyway, and removes the branches that they decide, but it leaves the loads: a classifier has more
/// than a hundred of them on each packet's way. Instructions keep their places, those that are left
/// without use become no-ops, which the kernel takes out.
void specialize(std::span<bpf_insn> instructions, const ConstantMap& constants);

/// From now on, XDP and tc programs are specialized when libbpf loads them. Call before opening any.
void specialize_on_load();

} // namespace netctl::bpf
