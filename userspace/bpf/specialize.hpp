// SPDX-License-Identifier: GPL-2.0-only
//
// Constants of a program as immediates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

struct bpf_insn;

namespace netctl::bpf {

/// Content of the read-only map behind a file descriptor, or nothing if it may change.
using ConstantMap = std::function<std::optional<std::span<const std::byte>>(int fd)>;

/// Replaces loads from constant maps by the values that they yield, and branches that these decide by
/// plain jumps. Instructions keep their places; those that are left without use become no-ops. The
/// verifier knows such values as well and removes the branches, but it leaves the loads: a classifier
/// has more than a hundred of them on each packet's way. What is behind plain jumps is to be pruned:
/// the kernel takes no code that is never reached.
void specialize(std::span<bpf_insn> instructions, const ConstantMap& constants);

/// Takes out what is never reached, and no-ops. Returns, by the place that each instruction had, the
/// one that it has now, or -1. The kernel would do the same, one piece after the other and each time
/// for the whole program.
std::vector<std::int64_t> prune(std::vector<bpf_insn>& instructions);

/// From now on, XDP and tc programs are specialized when libbpf loads them. Call before opening any.
void specialize_on_load();

} // namespace netctl::bpf
