// SPDX-License-Identifier: GPL-2.0-only
//
// The ABI version of what this netctl pins, and what it makes of other versions. An older one is read, and becomes this
// one when it is next written; of a newer one no more is known than that it is there.
#pragma once

#include <cstdint>

#include "core/text.hpp"

namespace netctl {

/// What this netctl writes: NC_ABI_VERSION, but for netctl-next of the tests, which is one ahead.
std::uint32_t abi_version();

/// Whether this netctl can read what was pinned by that version.
bool reads_abi(std::uint32_t version);

/// Remembers, and says once on standard error, that `what` is of a newer version: from then on no exit status of
/// this process is a yes or a no (invariant I13).
void tell_of_newer_abi(const Text& what, std::uint32_t version);
bool was_told_of_newer_abi();

} // namespace netctl
